#define _GNU_SOURCE
#include "lab.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/message.h"
#include "../common/sys.h"
#include "cow.h"
#include "create.h"
#include "end.h"
#include "fabric.h"
#include "helper.h"
#include "keep.h"
#include "lifeline.h"
#include "limit.h"
#include "link.h"
#include "machine.h"
#include "mount.h"
#include "registry.h"
#include "rootfs.h"
#include "title.h"

static struct template template;

static void serve_end(struct pc_in *in)
{
    struct pc_cursor cursor;
    struct ending ending = { .count = 0 };
    int failed = 0;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        const uint32_t id = cursor.field.type == PC_F_ID ? pc_u32(&cursor, value) : 0;
        struct container *container = registry_find(id);
        if (!container)
            limit_end(id); /* it has ended already, by itself */
        else if (!container->building) /* what is being built has no id yet for anybody */
            failed |= end_one(&ending, container);
    }
    failed |= end_await(&ending);
    struct pc_out out;
    pc_begin(&out, PC_OK, in->header.request);
    if (failed)
        pc_send_error(FD_CONTROL, in->header.request, "end a container", NULL, ETIMEDOUT, END_REMEDY);
    else
        pc_send(FD_CONTROL, &out, NULL, 0, 0);
    end_drop_mounts(&ending);
}

/* Hands out the netlink sockets of containers: many at once, and no other process need run for it. */
static void serve_netlink(struct pc_in *in)
{
    struct pc_cursor cursor;
    struct pc_out out;
    int fds[PC_FDS_MAX], count = 0, failed = 0;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        const struct container *container = cursor.field.type == PC_F_ID ? registry_find(pc_u32(&cursor, value)) : NULL;
        if (!container || container->building || container->netlink < 0 || count == PC_FDS_MAX)
            failed = 1;
        else
            fds[count++] = container->netlink;
    }
    if (failed || count == 0) {
        pc_send_error(FD_CONTROL, in->header.request, "find the network of", "a host", ENOENT, "it has been closed, or has none of its own");
        return;
    }
    pc_begin(&out, PC_OK, in->header.request);
    pc_send(FD_CONTROL, &out, fds, count, 0);
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
        create_serve(&template, options, &in);
    else if (in.header.op == PC_END)
        serve_end(&in);
    else if (in.header.op == PC_FABRIC)
        fabric_serve(&in);
    else if (in.header.op == PC_NETLINK)
        serve_netlink(&in);
    else if (in.header.op == PC_KEEP)
        keep_serve(&in);
    else if (in.header.op == PC_ROOTFS)
        rootfs_serve(options, &in);
    else if (in.header.op == PC_ROOTFS_END)
        rootfs_serve_end(&in);
    else if (in.header.op == PC_MOUNT)
        mount_serve(&in);
    else if (in.header.op == PC_COW)
        cow_serve(options, &in);
    else if (in.header.op == PC_COW_END)
        cow_serve_end(&in);
    else if (in.header.op == PC_LIMIT)
        limit_serve(&in);
    else if (in.header.op == PC_HELPER)
        helper_serve(fabric, &in);
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
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
        mount_reaped(pid, status);
        struct container *container = registry_find_pid(pid);
        const uint32_t id = container ? container->id : 0;
        int mounts = -1;
        if (!container || container->building || registry_bury(container, &mounts) < 0)
            continue;
        if (mounts >= 0)
            close(mounts);
        if (keep_is_detached()) /* else pytest looks what was used, and ends it by its number */
            limit_end(id);
    }
}

static int open_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD); /* blocked since the start, as all are */
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static _Noreturn void leave(void)
{
    limit_end_all();
    _exit(0); /* and the kernel ends every process of our pid namespace */
}

_Noreturn void lab_run(struct lab_options *options, int pid)
{
    enum { CONTROL = LIFELINE_FDS, SIGNALS, VISITORS, BUILDING, COUNT = BUILDING + CREATE_MAX };
    struct pc_failure failure = { 0 };
    struct pollfd polls[COUNT];
    int fabric = -1;
    if (machine_keep(&failure) < 0 || template_build(&template, options, &failure) < 0 || (fabric = fabric_make(&failure)) < 0 || link_fabric(fabric, &failure) < 0) {
        pc_send_failure(FD_CONTROL, 0, &failure);
        _exit(1);
    }
    title_shorten("pclab"); /* the template is built: the options have served */
    create_prepare();
    report_started(options, pid);
    lifeline_fill(polls);
    polls[CONTROL] = (struct pollfd){ .fd = FD_CONTROL, .events = POLLIN };
    polls[SIGNALS] = (struct pollfd){ .fd = open_signals(), .events = POLLIN };
    for (;;) {
        polls[VISITORS] = (struct pollfd){ .fd = keep_listener(), .events = POLLIN };
        create_polls(polls + BUILDING);
        if (poll(polls, COUNT, create_is_busy() ? CREATE_TICK_MS : -1) < 0) {
            if (errno == EINTR)
                continue;
            _exit(1);
        }
        if (!keep_is_detached() && lifeline_cut(polls))
            leave();
        create_progress(fabric, polls + BUILDING);
        if (polls[SIGNALS].revents & POLLIN)
            reap(polls[SIGNALS].fd);
        if (polls[VISITORS].revents & POLLIN)
            keep_answer();
        if ((polls[CONTROL].revents & (POLLIN | POLLHUP)) && !serve(options, fabric) && !keep_is_detached())
            leave();
        if (keep_is_over())
            leave();
        if (keep_is_detached()) /* pytest and its lines to us are of no more interest */
            for (int i = 0; i <= CONTROL; i++)
                polls[i].fd = -1;
    }
}
