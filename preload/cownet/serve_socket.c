/* UNIX sockets: addresses that are paths (unix(7)). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../common/sys.h"
#include "caller.h"
#include "serve.h"

enum { CONTROL_MAX = 4096, RIGHTS_MAX = 253 /* SCM_MAX_FD */ };

/* Of a caller's memory, and what the kernel gets instead. */
struct address {
    struct sockaddr_storage given;
    struct sockaddr_un found;
    const struct sockaddr *use;
    socklen_t length;
    int directory;
};

/* Copies the address that the caller gives. 0 or -errno. */
static long read_address(const struct caller *caller, uint64_t where, int length, struct address *address)
{
    *address = (struct address){ .use = (const struct sockaddr *)&address->given, .length = (socklen_t)length, .directory = -1 };
    if (length < 0 || (size_t)length > sizeof address->given)
        return -EINVAL;
    return length ? caller_read(caller, where, &address->given, (size_t)length) : 0;
}

/* Whether the address is a path (unix(7): neither abstract nor without a name); the path is ended by a NUL. */
static int is_path(const struct address *address, char path[sizeof(struct sockaddr_storage)])
{
    const size_t start = offsetof(struct sockaddr_un, sun_path);
    if (address->length <= start || address->given.ss_family != AF_UNIX || ((const struct sockaddr_un *)&address->given)->sun_path[0] == 0)
        return 0;
    memcpy(path, (const char *)&address->given + start, address->length - start);
    path[address->length - start] = 0;
    return 1;
}

/* An address for a real path, which may be longer than an address can be: then by its directory's descriptor. */
static long make_address(char *real, struct address *address)
{
    char *slash = strrchr(real, '/');
    struct sockaddr_un *const found = &address->found;
    found->sun_family = AF_UNIX;
    if (strlen(real) < sizeof found->sun_path) {
        strcpy(found->sun_path, real);
    } else {
        *slash = 0;
        address->directory = open(slash == real ? "/" : real, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (address->directory < 0)
            return -errno;
        if (snprintf(found->sun_path, sizeof found->sun_path, "/proc/self/fd/%d/%s", address->directory, slash + 1) >= (int)sizeof found->sun_path)
            return -ENAMETOOLONG;
    }
    address->use = (const struct sockaddr *)found;
    address->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(found->sun_path) + 1);
    return 0;
}

/* Enters the caller, and resolves an address that is a path. 0 or -errno. */
static long find_address(struct caller *caller, int find, struct address *address)
{
    char path[sizeof address->given], real[PATH_MAX];
    const int by_path = is_path(address, path);
    const long error = caller_enter(caller, by_path && find == COW_CREATE);
    if (error < 0 || !by_path)
        return error;
    const long result = cow_real_path(&caller->asker, AT_FDCWD, path, find, real);
    if (result == -EEXIST && find == COW_CREATE)
        return -EADDRINUSE;
    return result < 0 ? result : make_address(real, address);
}

/* bind or connect, by a copy of the caller's socket: it is the socket that is bound, and in its network namespace. */
static long use_address(struct caller *caller, int find, int (*use)(int, const struct sockaddr *, socklen_t))
{
    struct address address;
    long error = read_address(caller, ARG(caller, 1), ARG_INT(caller, 2), &address);
    if (error == 0 && !caller_waits(caller))
        error = -ESRCH;
    if (error < 0)
        return error;
    CLEANUP_FD int ours = caller_fd(caller, ARG_INT(caller, 0));
    if (ours < 0)
        return ours;
    if ((error = find_address(caller, find, &address)) == 0)
        error = use(ours, address.use, address.length) < 0 ? -errno : 0;
    pc_cleanup_fd(&address.directory);
    return error;
}

long serve_bind(struct caller *caller)
{
    return use_address(caller, COW_CREATE, bind);
}

long serve_connect(struct caller *caller)
{
    return use_address(caller, 0, connect);
}

/* A message of a caller's, in our memory. */
struct message {
    struct address address;
    struct iovec data;
    union {
        struct cmsghdr aligned;
        char bytes[CONTROL_MAX];
    } control;
    size_t control_length;
    int rights[RIGHTS_MAX], right_count; /* descriptors that are sent along, ours */
};

/* Where it is in the caller's memory. */
struct pieces {
    struct iovec all[IOV_MAX];
    size_t count;
};

/* Gathers what is to be sent; more than the socket takes is refused, as the kernel does. */
static long read_data(const struct caller *caller, const struct pieces *pieces, int ours, struct message *message)
{
    int most = 0;
    socklen_t size = sizeof most;
    size_t length = 0, at = 0;
    long error = 0;
    if (getsockopt(ours, SOL_SOCKET, SO_SNDBUF, &most, &size) < 0)
        return -errno;
    for (size_t i = 0; i < pieces->count; length += pieces->all[i++].iov_len)
        if (pieces->all[i].iov_len > (size_t)most || length > (size_t)most)
            return -EMSGSIZE;
    message->data = (struct iovec){ malloc(length + 1), length };
    if (!message->data.iov_base)
        return -ENOMEM;
    for (size_t i = 0; error == 0 && i < pieces->count; at += pieces->all[i++].iov_len)
        if (pieces->all[i].iov_len)
            error = caller_read(caller, (uint64_t)(uintptr_t)pieces->all[i].iov_base, (char *)message->data.iov_base + at, pieces->all[i].iov_len);
    return error;
}

static long copy_rights(const struct caller *caller, struct message *message, struct cmsghdr *control)
{
    int *const numbers = (int *)(void *)CMSG_DATA(control);
    const size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; i++) {
        if (message->right_count == RIGHTS_MAX)
            return -EINVAL;
        const int copy = caller_fd(caller, numbers[i]);
        if (copy < 0)
            return copy;
        message->rights[message->right_count++] = numbers[i] = copy;
    }
    return 0;
}

/* Descriptors become ours. Who says that it is itself (unix(7), SCM_CREDENTIALS) and is not root cannot be told so by another
   process: then the receiver is told of us. */
static long read_control(const struct caller *caller, const struct msghdr *given, struct message *message)
{
    long error = 0;
    struct msghdr all = { .msg_control = message->control.bytes, .msg_controllen = given->msg_controllen };
    if (given->msg_controllen > sizeof message->control)
        return -ENOBUFS;
    message->control_length = given->msg_controllen;
    if (given->msg_controllen)
        error = caller_read(caller, (uint64_t)(uintptr_t)given->msg_control, message->control.bytes, given->msg_controllen);
    for (struct cmsghdr *each = CMSG_FIRSTHDR(&all); error == 0 && each; each = CMSG_NXTHDR(&all, each)) {
        if (each->cmsg_len < CMSG_LEN(0) || each->cmsg_len > (size_t)(message->control.bytes + given->msg_controllen - (char *)each))
            return -EINVAL;
        if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_RIGHTS)
            error = copy_rights(caller, message, each);
        struct ucred *const ids = (struct ucred *)(void *)CMSG_DATA(each);
        if (each->cmsg_level == SOL_SOCKET && each->cmsg_type == SCM_CREDENTIALS && each->cmsg_len == CMSG_LEN(sizeof *ids) && geteuid() != 0 && ids->pid == caller_pid(caller))
            ids->pid = getpid();
    }
    return error;
}

/* Sends a message whose header, with the caller's pointers, is `given`. Bytes sent, or -errno. */
static long send_message(struct caller *caller, const struct msghdr *given, const struct pieces *pieces, int flags, int ours)
{
    struct message message = { .address.directory = -1 };
    long result = read_address(caller, (uint64_t)(uintptr_t)given->msg_name, given->msg_name ? (int)given->msg_namelen : 0, &message.address);
    if (result == 0)
        result = read_data(caller, pieces, ours, &message);
    if (result == 0)
        result = read_control(caller, given, &message);
    if (result == 0 && !caller_waits(caller))
        result = -ESRCH;
    if (result == 0)
        result = find_address(caller, 0, &message.address);
    if (result == 0) {
        const struct msghdr header = {
            .msg_name = message.address.length ? (void *)(uintptr_t)message.address.use : NULL, .msg_namelen = message.address.length,
            .msg_iov = &message.data, .msg_iovlen = 1,
            .msg_control = message.control_length ? message.control.bytes : NULL, .msg_controllen = message.control_length,
        };
        result = sendmsg(ours, &header, flags | MSG_NOSIGNAL);
        if (result < 0)
            result = -errno;
    }
    free(message.data.iov_base);
    for (int i = 0; i < message.right_count; i++)
        close(message.rights[i]);
    pc_cleanup_fd(&message.address.directory);
    return result;
}

/* Whether the kernel would look up a path for what is sent by this socket: of UNIX sockets those of datagrams alone take an
   address. The socket says it, and not the caller's memory, so that the others need not be served. */
static int takes_paths(int socket)
{
    int domain = 0, type = 0;
    socklen_t size = sizeof(int);
    if (getsockopt(socket, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 || getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return 0; /* it is no socket: ENOTSOCK, as the kernel will say */
    return domain == AF_UNIX && type == SOCK_DGRAM;
}

long serve_sendto(struct caller *caller)
{
    const struct msghdr header = { .msg_name = (void *)(uintptr_t)ARG(caller, 4), .msg_namelen = (socklen_t)ARG(caller, 5) };
    const struct pieces pieces = { .all = { { (void *)(uintptr_t)ARG(caller, 1), ARG(caller, 2) } }, .count = 1 };
    CLEANUP_FD int ours = caller_fd(caller, ARG_INT(caller, 0));
    if (ours < 0 || !takes_paths(ours))
        return ours < 0 ? ours : serve_let_through(caller);
    return send_message(caller, &header, &pieces, ARG_INT(caller, 3), ours);
}

/* sendmsg with a header that is at `where`. */
static long send_from(struct caller *caller, uint64_t where, int flags, int ours)
{
    struct msghdr header;
    struct pieces pieces;
    long error = caller_read(caller, where, &header, sizeof header);
    if (error < 0)
        return error;
    pieces.count = header.msg_iovlen;
    if (header.msg_iovlen > IOV_MAX)
        return -EMSGSIZE;
    if (header.msg_iovlen)
        error = caller_read(caller, (uint64_t)(uintptr_t)header.msg_iov, pieces.all, header.msg_iovlen * sizeof pieces.all[0]);
    return error < 0 ? error : send_message(caller, &header, &pieces, flags, ours);
}

long serve_sendmsg(struct caller *caller)
{
    CLEANUP_FD int ours = caller_fd(caller, ARG_INT(caller, 0));
    if (ours < 0 || !takes_paths(ours))
        return ours < 0 ? ours : serve_let_through(caller);
    return send_from(caller, ARG(caller, 1), ARG_INT(caller, 2), ours);
}

/* One of them: whoever calls it must be ready for fewer than all (sendmmsg(2)). */
long serve_sendmmsg(struct caller *caller)
{
    const uint64_t first = ARG(caller, 1);
    CLEANUP_FD int ours = caller_fd(caller, ARG_INT(caller, 0));
    if (ours < 0 || !takes_paths(ours))
        return ours < 0 ? ours : serve_let_through(caller);
    if ((unsigned)ARG(caller, 2) == 0)
        return 0;
    const long sent = send_from(caller, first, ARG_INT(caller, 3), ours);
    const unsigned length = (unsigned)sent;
    if (sent < 0)
        return sent;
    const long error = caller_write(caller, first + offsetof(struct mmsghdr, msg_len), &length, sizeof length);
    return error < 0 ? error : 1;
}
