#define _GNU_SOURCE
#include "fabric.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/sys.h"
#include "netlink.h"
#include "options.h"
#include "template.h"

static int namespace = -1;

int fabric_namespace(void)
{
    return namespace;
}

/* What a short-lived child sends its descriptors with, or its errno as the request's number. */
static _Noreturn void hand_over(int line, const int *fds, int count)
{
    struct pc_out out;
    const int complete = fds[0] >= 0 && fds[count - 1] >= 0;
    pc_begin(&out, PC_OK, (uint32_t)errno);
    pc_send(line, &out, fds, complete ? count : 0, 0);
    _exit(0);
}

/* Takes `count` descriptors of the child `pid`; -1 and its errno when it has none. */
static int take_over(pid_t pid, int line, int *fds, int count)
{
    struct pc_in in;
    int got = pid < 0 ? -1 : pc_receive(line, &in), taken = -1;
    if (got > 0) {
        errno = (int)in.header.request;
        if (in.fd_count == count) {
            for (int i = 0; i < count; i++)
                fds[i] = in.fds[i];
            in.fd_count = 0;
            taken = 0;
        }
        pc_release(&in);
    } else if (got == 0) {
        errno = ECHILD;
    }
    int error = errno;
    close(line);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    errno = error;
    return taken;
}

/* A child makes the namespace, as in a user namespace there is no way back from one. */
static _Noreturn void make(int line)
{
    int fds[2] = { -1, -1 };
    if (unshare(CLONE_NEWNET) == 0) {
        fds[0] = nl_open();
        fds[1] = open(MACHINE_PROC "/self/ns/net", O_RDONLY | O_CLOEXEC);
        /* The plugs only pass frames on: the fabric must never speak itself. */
        if (pc_write_file(AT_FDCWD, MACHINE_PROC "/sys/net/ipv6/conf/default/disable_ipv6", "1", 1) < 0 && errno != ENOENT)
            fds[0] = -1;
    }
    hand_over(line, fds, 2);
}

int fabric_make(struct pc_failure *failure)
{
    int pair[2], fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return pc_fail(failure, "make sockets for", "the fabric");
    pid_t pid = pc_clone(0, NULL);
    if (pid == 0)
        make(pair[1]);
    close(pair[1]);
    if (take_over(pid, pair[0], fds, 2) < 0)
        return pc_fail(failure, "make a network namespace for", "the fabric");
    namespace = fds[1];
    return fds[0];
}

void fabric_serve(struct pc_in *in)
{
    struct pc_cursor cursor;
    uint32_t family = 0, type = 0, protocol = 0;
    int pair[2], fd;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        if (cursor.field.type == PC_F_FAMILY)
            family = pc_u32(&cursor, value);
        else if (cursor.field.type == PC_F_TYPE)
            type = pc_u32(&cursor, value);
        else if (cursor.field.type == PC_F_PROTOCOL)
            protocol = pc_u32(&cursor, value);
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        pc_send_error(FD_CONTROL, in->header.request, "make sockets for", "the fabric", errno, NULL);
        return;
    }
    pid_t pid = pc_clone(0, NULL);
    if (pid == 0) {
        fd = setns(namespace, CLONE_NEWNET) < 0 ? -1 : socket((int)family, (int)type | SOCK_CLOEXEC, (int)protocol);
        hand_over(pair[1], &fd, 1);
    }
    close(pair[1]);
    if (take_over(pid, pair[0], &fd, 1) < 0) {
        pc_send_error(FD_CONTROL, in->header.request, "make a socket in", "the fabric", errno, NULL);
        return;
    }
    struct pc_out out;
    pc_begin(&out, PC_OK, in->header.request);
    pc_send(FD_CONTROL, &out, &fd, 1, 0);
    close(fd);
}
