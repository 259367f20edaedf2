#define _GNU_SOURCE
#include "keep.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "create.h"
#include "end.h"
#include "lab.h"
#include "options.h"
#include "registry.h"

enum { LISTED_AT_ONCE = 240, CLIENT_PATIENCE_US = 250000 };

static int listener = -1;
static int description = -1; /* what pytest tells of them all, in a memfd: nothing that we read */
static int detached;

int keep_listener(void)
{
    return listener;
}

int keep_is_detached(void)
{
    return detached;
}

int keep_is_over(void)
{
    return detached && !registry_next(0);
}

static void answer(int socket, uint32_t request, int fd)
{
    struct pc_out out;
    pc_begin(&out, PC_OK, request);
    pc_send(socket, &out, &fd, fd >= 0, 0);
}

static void drop(int *kept)
{
    if (*kept >= 0)
        close(*kept);
    *kept = -1;
}

/* Takes the descriptor over, in place of the one that is kept. */
static void replace(int *kept, int *fd)
{
    drop(kept);
    *kept = *fd;
    *fd = -1;
}

static void unpublish(void)
{
    for (struct container *container = registry_next(0); container; container = registry_next(container->id))
        drop(&container->line);
    drop(&listener);
    drop(&description);
}

/* Without the line, an init would end when pytest does; and it watches pytest itself. */
static void leave_alone(struct container *container)
{
    struct pc_out out;
    pc_begin(&out, PC_KEEP, 0);
    pc_send(container->status, &out, NULL, 0, 0);
}

/* Ends what is not published; the rest and we no longer look after pytest. */
static int detach(void)
{
    struct ending ending = { .count = 0 };
    int failed = 0;
    uint32_t id = 0;
    create_abandon();
    for (struct container *container; (container = registry_next(id));) {
        id = container->id;
        if (container->line < 0)
            failed |= end_one(&ending, container);
        else
            leave_alone(container);
    }
    failed |= end_await(&ending);
    end_drop_mounts(&ending);
    detached = 1;
    return failed;
}

void keep_serve(struct pc_in *in)
{
    struct pc_cursor cursor;
    uint32_t action = PC_PUBLISH;
    int taken = 2;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        if (cursor.field.type == PC_F_ACTION)
            action = pc_u32(&cursor, value);
        struct container *container = cursor.field.type == PC_F_ID ? registry_find(pc_u32(&cursor, value)) : NULL;
        if (cursor.field.type == PC_F_ID && taken < in->fd_count) {
            if (container && !container->building) /* one that has ended meanwhile cannot be kept */
                replace(&container->line, &in->fds[taken]);
            taken++;
        }
    }
    if (in->fd_count > 2) {
        replace(&listener, &in->fds[0]);
        replace(&description, &in->fds[1]);
    } else if (action == PC_PUBLISH) {
        unpublish();
    }
    if (action == PC_DETACH && detach())
        pc_send_error(FD_CONTROL, in->header.request, "end", "a container that is not kept", ETIMEDOUT, END_REMEDY);
    else
        answer(FD_CONTROL, in->header.request, -1);
}

static void list(int client, struct pc_in *in, uint32_t after)
{
    uint32_t ids[LISTED_AT_ONCE];
    size_t count = 0;
    struct pc_out out;
    for (struct container *c = registry_next(after); c && count < LISTED_AT_ONCE; c = registry_next(c->id))
        if (c->line >= 0)
            ids[count++] = c->id;
    pc_begin(&out, PC_OK, in->header.request);
    pc_put(&out, PC_F_IDS, ids, count * sizeof *ids);
    pc_send(client, &out, &description, description >= 0, 0);
}

static void enter(int client, struct pc_in *in, uint32_t id)
{
    const struct container *container = registry_find(id);
    if (container && container->line >= 0)
        answer(client, in->header.request, container->line);
    else
        pc_send_error(client, in->header.request, "find", "the container", ENOENT, "it has ended");
}

/* Without an id, all that are kept. While pytest lives its other containers are its own. */
static void end(int client, struct pc_in *in, struct pc_cursor *cursor)
{
    struct ending ending = { .count = 0 };
    int failed = 0, all = 1;
    for (char *value; (value = pc_next(cursor));) {
        struct container *container = cursor->field.type == PC_F_ID ? registry_find(pc_u32(cursor, value)) : NULL;
        all &= cursor->field.type != PC_F_ID;
        if (container && container->line >= 0)
            failed |= end_one(&ending, container);
    }
    uint32_t id = 0;
    for (struct container *container; all && (container = registry_next(id));) {
        id = container->id;
        if (container->line >= 0)
            failed |= end_one(&ending, container);
    }
    failed |= end_await(&ending);
    if (failed)
        pc_send_error(client, in->header.request, "end", "a container", ETIMEDOUT, END_REMEDY);
    else
        answer(client, in->header.request, -1);
    end_drop_mounts(&ending);
}

static void serve(int client)
{
    struct pc_in in;
    struct pc_cursor cursor;
    if (pc_receive(client, &in) <= 0) {
        pc_release(&in); /* it may have brought descriptors */
        return; /* gone, silent, or of another kind: it sees the connection's end */
    }
    pc_fields(&cursor, &in);
    if (in.header.op == PC_KEPT_END) {
        end(client, &in, &cursor);
    } else {
        const char *value = pc_next(&cursor);
        const uint32_t id = value && cursor.field.type == PC_F_ID ? pc_u32(&cursor, value) : 0;
        if (in.header.op == PC_KEPT_LIST)
            list(client, &in, id);
        else if (in.header.op == PC_KEPT_ENTER)
            enter(client, &in, id);
        else
            pc_send_error(client, in.header.request, "do a request", "a lab's visitors may not", EPERM, NULL);
    }
    pc_release(&in);
}

void keep_answer(void)
{
    /* pytest waits meanwhile, so not for long. */
    const struct timeval patience = { .tv_usec = CLIENT_PATIENCE_US };
    int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0)
        return;
    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    serve(client);
    close(client);
}
