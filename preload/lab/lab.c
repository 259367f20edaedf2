#define _GNU_SOURCE
#include "lab.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/message.h"
#include "../common/sys.h"
#include "create.h"
#include "lifeline.h"
#include "link.h"
#include "netlink.h"
#include "registry.h"

static struct template template;

enum { END_AT_ONCE = 64 };

/* Containers that were killed: waits for their deaths, later drops their mounts. */
struct ending {
    struct container *container[END_AT_ONCE];
    int mounts[END_AT_ONCE];
    int count;
};

static int await_deaths(struct ending *ending)
{
    int failed = 0;
    for (int i = 0; i < ending->count; i++)
        failed |= registry_bury(ending->container[i], &ending->mounts[i]) < 0;
    return failed;
}

static void drop_mounts(struct ending *ending)
{
    for (int i = 0; i < ending->count; i++)
        if (ending->mounts[i] >= 0)
            close(ending->mounts[i]);
    ending->count = 0;
}

static void serve_end(struct pc_in *in)
{
    struct pc_cursor cursor;
    struct ending ending = { .count = 0 };
    int failed = 0;
    pc_fields(&cursor, in);
    /* As many as fit are killed before the first is waited for. One that the lab does not
       know has ended already, by itself. */
    for (char *value; (value = pc_next(&cursor));) {
        struct container *container = cursor.field.type == PC_F_ID ? registry_find(pc_u32(&cursor, value)) : NULL;
        if (!container)
            continue;
        registry_kill(container);
        ending.container[ending.count++] = container;
        if (ending.count == END_AT_ONCE) {
            failed |= await_deaths(&ending);
            drop_mounts(&ending);
        }
    }
    failed |= await_deaths(&ending);
    struct pc_out out;
    pc_begin(&out, PC_OK, in->header.request);
    if (failed)
        pc_send_error(FD_CONTROL, in->header.request, "end a container", NULL, ETIMEDOUT, "one of its processes hangs in the kernel (state D in ps)");
    else
        pc_send(FD_CONTROL, &out, NULL, 0, 0);
    drop_mounts(&ending);
}

static int act_on_link(int fabric, uint32_t link, uint32_t action, int end, struct pc_failure *failure)
{
    struct container *container = registry_find_end(link, end);
    if (!container)
        return pc_fail_as(failure, "find", "the link", ENOENT, "its hosts have been closed");
    switch (action) {
    case PC_CUT:
    case PC_HEAL:
        return link_pass(fabric, link, end, action == PC_HEAL, failure);
    case PC_UNPLUG:
    case PC_PLUG:
        return link_carrier(fabric, link, end, action == PC_PLUG, container->netlink, failure);
    default:
        return pc_fail_as(failure, "act on", "the link", EINVAL, NULL);
    }
}

static int greet_both(uint32_t link, struct pc_failure *failure)
{
    const struct container *container[LINK_ENDS] = { registry_find_end(link, 0), registry_find_end(link, 1) };
    if (!container[0] || !container[1])
        return 0; /* one host is closed already: there is nobody to be greeted */
    for (int i = 0; i < LINK_ENDS; i++)
        if (link_greet(&container[i]->end, &container[!i]->end, failure) < 0)
            return -1;
    return 0;
}

static void serve_link(int fabric, struct pc_in *in)
{
    struct pc_cursor cursor;
    struct pc_failure failure = { 0 };
    uint32_t link = 0, action = ~0U, ends = 0;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        if (cursor.field.type == PC_F_LINK)
            link = pc_u32(&cursor, value);
        else if (cursor.field.type == PC_F_ACTION)
            action = pc_u32(&cursor, value);
        else if (cursor.field.type == PC_F_ENDS)
            ends = pc_u32(&cursor, value);
    }
    int failed = 0;
    for (int end = 0; !failed && end < LINK_ENDS; end++)
        failed = (ends >> end & 1) && act_on_link(fabric, link, action, end, &failure) < 0;
    if (!failed && (action == PC_HEAL || action == PC_PLUG))
        failed = greet_both(link, &failure) < 0;
    if (failed) {
        pc_send_failure(FD_CONTROL, in->header.request, &failure);
        return;
    }
    struct pc_out out;
    pc_begin(&out, PC_OK, in->header.request);
    pc_send(FD_CONTROL, &out, NULL, 0, 0);
}

/* The fabric: a network namespace without a process, known by one netlink socket in it.
   A short-lived child makes it, as in a user namespace there is no way back from one. */
static int make_fabric(struct pc_failure *failure)
{
    int pair[2];
    struct pc_out out;
    struct pc_in in;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return pc_fail(failure, "make sockets for", "the fabric");
    pid_t pid = pc_clone(0, NULL);
    if (pid == 0) {
        int fd = unshare(CLONE_NEWNET) < 0 ? -1 : nl_open();
        /* The plugs only pass frames on: the fabric must never speak itself. */
        if (fd >= 0 && pc_write_file(AT_FDCWD, MACHINE_PROC "/sys/net/ipv6/conf/default/disable_ipv6", "1", 1) < 0 && errno != ENOENT)
            fd = -1;
        pc_begin(&out, PC_OK, (uint32_t)errno);
        pc_send(pair[1], &out, &fd, fd >= 0, 0);
        _exit(0);
    }
    close(pair[1]);
    int fabric = -1, got = pid < 0 ? -1 : pc_receive(pair[0], &in);
    if (got > 0 && in.fd_count == 1)
        fabric = in.fds[0];
    else if (got > 0)
        errno = (int)in.header.request;
    if (fabric < 0)
        pc_fail(failure, "make a network namespace for", "the fabric");
    close(pair[0]);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return fabric;
}

static void report_started(const struct lab_options *options, int pid)
{
    struct pc_out out;
    char reason[128];
    if (!options->rootless)
        snprintf(reason, sizeof reason, "as root, without a user namespace");
    else
        snprintf(reason, sizeof reason, "in a user namespace that maps %d id%s", options->ids, options->ids == 1 ? "" : "s");
    pc_begin(&out, PC_STARTED, 0);
    pc_put_u32(&out, PC_F_PID, (uint32_t)pid);
    pc_put_text(&out, PC_F_LEVEL, "namespaces");
    pc_put_text(&out, PC_F_REASON, reason);
    pc_put_u32(&out, PC_F_IDS, (uint32_t)options->ids);
    pc_send(FD_CONTROL, &out, NULL, 0, 0);
}

/* Serves one request; returns 0 when pytest has closed its end. */
static int serve(const struct lab_options *options, int fabric)
{
    struct pc_in in;
    int got = pc_receive(FD_CONTROL, &in);
    if (got == 0 || (got < 0 && errno != EMFILE && errno != EPROTO))
        return 0;
    if (got < 0)
        pc_send_error(FD_CONTROL, in.header.request, "receive a request", NULL, errno, "the client and pclab must be of one version");
    else if (in.header.op == PC_CREATE)
        create_serve(&template, options, fabric, &in);
    else if (in.header.op == PC_END)
        serve_end(&in);
    else if (in.header.op == PC_LINK)
        serve_link(fabric, &in);
    else
        pc_send_error(FD_CONTROL, in.header.request, "do a request", "the lab knows no such one", ENOSYS, "not in this version");
    pc_release(&in);
    return 1;
}

/* Inits end by themselves when pytest closes its line to them. */
static void reap(int signals)
{
    struct signalfd_siginfo ignored;
    while (read(signals, &ignored, sizeof ignored) > 0)
        continue;
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) {
        struct container *container = registry_find_pid(pid);
        int mounts = -1;
        if (container && registry_bury(container, &mounts) == 0 && mounts >= 0)
            close(mounts);
    }
}

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD); /* blocked since the start, as all are */
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

_Noreturn void lab_run(struct lab_options *options, int pid)
{
    enum { CONTROL = LIFELINE_FDS, SIGNALS, COUNT };
    struct pc_failure failure = { 0 };
    struct pollfd polls[COUNT];
    int fabric = -1;
    if (template_build(&template, options, &failure) < 0 || (fabric = make_fabric(&failure)) < 0 || link_fabric(fabric, &failure) < 0) {
        pc_send_failure(FD_CONTROL, 0, &failure);
        _exit(1);
    }
    report_started(options, pid);
    lifeline_fill(polls);
    polls[CONTROL] = (struct pollfd){ .fd = FD_CONTROL, .events = POLLIN };
    polls[SIGNALS] = (struct pollfd){ .fd = open_signals(), .events = POLLIN };
    for (;;) {
        if (poll(polls, COUNT, -1) < 0 && errno != EINTR)
            _exit(1);
        if (lifeline_cut(polls))
            _exit(0); /* and the kernel ends every process of our pid namespace */
        if (polls[SIGNALS].revents & POLLIN)
            reap(polls[SIGNALS].fd);
        if ((polls[CONTROL].revents & (POLLIN | POLLHUP)) && !serve(options, fabric))
            _exit(0);
    }
}
