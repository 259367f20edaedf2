#define _GNU_SOURCE
#include "message.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

static char inline_body[PC_INLINE_MAX + 1];

/* Copies what the kernel put beside the message; MSG_CTRUNC means we have no fd left. */
static void take_fds(struct pc_in *in, struct msghdr *message)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        int count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        if (count > PC_FDS_MAX - in->fd_count)
            count = PC_FDS_MAX - in->fd_count;
        memcpy(in->fds + in->fd_count, CMSG_DATA(c), (size_t)count * sizeof(int));
        in->fd_count += count;
    }
}

/* Reads the body out of the memfd that came first. */
static int read_body(struct pc_in *in)
{
    if (in->fd_count == 0 || in->header.length > PC_BODY_MAX) {
        errno = EPROTO;
        return -1;
    }
    int fd = in->fds[0];
    memmove(in->fds, in->fds + 1, (size_t)--in->fd_count * sizeof(int));
    size_t size = (size_t)in->header.length + 1;
    char *body = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    size_t done = 0;
    ssize_t got = 0;
    while (body != MAP_FAILED && done < in->header.length) {
        got = pread(fd, body + done, in->header.length - done, (off_t)done);
        if (got <= 0)
            break;
        done += (size_t)got;
    }
    close(fd);
    if (body == MAP_FAILED)
        return -1;
    in->body = body;
    in->mapped = size;
    in->length = in->header.length;
    if (done == in->header.length)
        return 0;
    if (got == 0)
        errno = EPROTO;
    return -1;
}

int pc_receive(int fd, struct pc_in *in)
{
    return pc_receive_with(fd, in, 0);
}

int pc_receive_with(int fd, struct pc_in *in, int flags)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(PC_FDS_MAX * sizeof(int))];
    } control;
    struct iovec parts[2] = { { &in->header, sizeof in->header }, { inline_body, PC_INLINE_MAX } };
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2, .msg_control = &control, .msg_controllen = sizeof control };
    in->fd_count = 0;
    in->mapped = in->length = 0;
    in->body = inline_body;
    ssize_t length;
    /* A peer that closed with something of ours unread gives ECONNRESET once, ahead of the
       messages that it had sent: those are still to be had. */
    int reset = 0;
    do
        length = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | flags);
    while (length < 0 && (errno == EINTR || (errno == ECONNRESET && !reset++)));
    if (length < 0)
        return -1;
    take_fds(in, &message);
    if (length == 0) {
        pc_release(in); /* an empty message brings them too */
        return 0;
    }
    errno = EPROTO;
    if ((size_t)length < sizeof in->header || in->header.version != PC_VERSION)
        return -1;
    if (message.msg_flags & MSG_CTRUNC) {
        errno = EMFILE;
        return -1;
    }
    if (in->header.flags & PC_FLAG_BODY_IN_FD)
        return read_body(in) < 0 ? -1 : 1;
    in->length = (size_t)length - sizeof in->header;
    return in->length == in->header.length ? 1 : -1;
}

void pc_release(struct pc_in *in)
{
    for (int i = 0; i < in->fd_count; i++)
        if (in->fds[i] >= 0)
            close(in->fds[i]);
    if (in->mapped)
        munmap(in->body, in->mapped);
    in->fd_count = 0;
    in->mapped = 0;
}

/* Reads the header at cursor->at into cursor->ahead; it must be whole, with its value. */
static void look_ahead(struct pc_cursor *cursor)
{
    size_t left = (size_t)(cursor->end - cursor->at);
    cursor->more = 0;
    if (left < sizeof cursor->ahead)
        return;
    memcpy(&cursor->ahead, cursor->at, sizeof cursor->ahead);
    cursor->more = cursor->ahead.length <= left - sizeof cursor->ahead;
}

void pc_fields(struct pc_cursor *cursor, struct pc_in *in)
{
    cursor->at = in->body;
    cursor->end = in->body + in->length;
    look_ahead(cursor);
}

char *pc_peek(struct pc_cursor *cursor)
{
    if (!cursor->more)
        return NULL;
    cursor->field = cursor->ahead;
    char *value = cursor->at + sizeof cursor->field;
    cursor->at = value + cursor->field.length;
    look_ahead(cursor);
    return value;
}

char *pc_next(struct pc_cursor *cursor)
{
    char *value = pc_peek(cursor); /* which has read the next header, whose first byte the zero overwrites */
    if (value)
        value[cursor->field.length] = 0;
    return value;
}

uint32_t pc_u32(const struct pc_cursor *cursor, const char *value)
{
    uint32_t number = 0;
    if (cursor->field.length == sizeof number)
        memcpy(&number, value, sizeof number);
    return number;
}

void pc_begin(struct pc_out *out, uint16_t op, uint32_t request)
{
    out->header = (struct pc_header){ .version = PC_VERSION, .op = op, .request = request };
    out->length = 0;
}

void pc_put(struct pc_out *out, uint32_t type, const void *value, size_t length)
{
    struct pc_field field = { .type = type };
    if (out->length + sizeof field > sizeof out->fields)
        return;
    size_t room = sizeof out->fields - out->length - sizeof field;
    field.length = (uint32_t)(length < room ? length : room);
    memcpy(out->fields + out->length, &field, sizeof field);
    memcpy(out->fields + out->length + sizeof field, value, field.length);
    out->length += sizeof field + field.length;
}

void pc_put_u32(struct pc_out *out, uint32_t type, uint32_t value)
{
    pc_put(out, type, &value, sizeof value);
}

void pc_put_text(struct pc_out *out, uint32_t type, const char *text)
{
    pc_put(out, type, text, strlen(text));
}

int pc_send(int fd, struct pc_out *out, const int *fds, int fd_count, pid_t pid)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(PC_FDS_MAX * sizeof(int)) + CMSG_SPACE(sizeof(struct ucred))];
    } control;
    out->header.length = (uint32_t)out->length;
    out->header.fds = (uint16_t)fd_count;
    struct iovec parts[2] = { { &out->header, sizeof out->header }, { out->fields, out->length } };
    struct msghdr message = { .msg_iov = parts, .msg_iovlen = 2, .msg_control = &control };
    struct cmsghdr *c = &control.align;
    if (fd_count > 0) {
        *c = (struct cmsghdr){ CMSG_LEN((size_t)fd_count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
        memcpy(CMSG_DATA(c), fds, (size_t)fd_count * sizeof(int));
        message.msg_controllen += CMSG_SPACE((size_t)fd_count * sizeof(int));
        c = (struct cmsghdr *)(control.space + message.msg_controllen);
    }
    if (pid != 0) {
        struct ucred credentials = { pid, geteuid(), getegid() };
        *c = (struct cmsghdr){ CMSG_LEN(sizeof credentials), SOL_SOCKET, SCM_CREDENTIALS };
        memcpy(CMSG_DATA(c), &credentials, sizeof credentials);
        message.msg_controllen += CMSG_SPACE(sizeof credentials);
    }
    if (message.msg_controllen == 0)
        message.msg_control = NULL;
    ssize_t sent;
    do
        sent = sendmsg(fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -1 : 0;
}

int pc_send_error(int fd, uint32_t request, const char *step, const char *object, int error, const char *remedy)
{
    struct pc_out out;
    pc_begin(&out, PC_ERROR, request);
    pc_put_text(&out, PC_F_STEP, step);
    pc_put_u32(&out, PC_F_ERRNO, (uint32_t)error);
    if (object)
        pc_put_text(&out, PC_F_OBJECT, object);
    if (remedy)
        pc_put_text(&out, PC_F_REMEDY, remedy);
    return pc_send(fd, &out, NULL, 0, 0);
}
