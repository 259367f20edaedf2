/* The supervisor's first thread: starts the command, waits for its end and that of all that it left behind, and ends
   them when nobody wants them any more. The other threads serve calls (pool.c). */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/sys.h"
#include "pccow.h"
#include "pool.h"
#include "report.h"
#include "scope.h"
#include "tree.h"

enum { EXIT_OURS = 125 };

static pid_t command;              /* 0 once its end was reported */
static atomic_int died, died_status; /* seen by another thread: the command */

void keep_only(const int *fds, int count, int keep_stderr)
{
    const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = 0; fd < (keep_stderr ? 2 : 3) && null >= 0; fd++)
        dup2(null, fd);
    unsigned from = 3;
    for (;;) {
        unsigned next = ~0U;
        for (int i = 0; i < count; i++)
            if (fds[i] >= (int)from && (unsigned)fds[i] < next)
                next = (unsigned)fds[i];
        if (next > from)
            pc_close_range(from, next == ~0U ? next : next - 1, 0);
        if (next == ~0U)
            return;
        from = next + 1;
    }
}

void supervise_died(pid_t pid, int status)
{
    if (pid == command) {
        atomic_store(&died_status, status);
        atomic_store(&died, 1);
    }
    kill(getpid(), SIGCHLD);
}

static _Noreturn void give_up(const char *what, const char *why)
{
    char text[512];
    snprintf(text, sizeof text, "pccow: %s: %s\n", what, why);
    report_failure(EXIT_OURS, text);
    tree_kill();
    _exit(EXIT_OURS);
}

static void tell_level(const struct options *options, const char *reason)
{
    char text[512];
    if (options->status < 0)
        return;
    const int length = snprintf(text, sizeof text, reason ? "preload: %s\n" : "net\n", reason);
    if (write(options->status, text, (size_t)length) != length)
        give_up("cannot tell the level", strerror(errno));
    close(options->status);
}

/* Whether this process may look into the command's memory. An ancestor may, but where ptrace is forbidden altogether. */
static int may_look(void)
{
    static const char ours[] = "pccow";
    char theirs[sizeof ours];
    const struct iovec here = { theirs, sizeof theirs }, there = { (void *)(uintptr_t)ours, sizeof ours };
    return process_vm_readv(command, &here, 1, &there, 1, 0) == (ssize_t)sizeof ours && memcmp(ours, theirs, sizeof ours) == 0;
}

static int receive_listener(int line, int *error)
{
    char space[CMSG_SPACE(sizeof(int))];
    struct iovec part = { error, sizeof *error };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
    int listener = -1;
    *error = EPIPE;
    if (recvmsg(line, &message, MSG_CMSG_CLOEXEC) != sizeof *error)
        return -1;
    const struct cmsghdr *control = CMSG_FIRSTHDR(&message);
    if (control && control->cmsg_type == SCM_RIGHTS)
        memcpy(&listener, CMSG_DATA(control), sizeof listener);
    return listener;
}

static const char *reason_of(int error)
{
    switch (error) {
    case EBUSY:
        return "another program's seccomp listener is above this process already, and the kernel gives one only";
    case ENOSYS:
    case EPERM:
        return "seccomp(2) is not to be had here (a container engine's filter, or a kernel without it)";
    case EINVAL:
        return "this kernel's seccomp has no listener whose waiting calls signals leave alone (Linux 5.19 is needed)";
    default:
        return strerror(error);
    }
}

/* Puts the net below the command, or says why there is none. Returns the word for the command to go on. */
static const char *set_net(const struct options *options, int line)
{
    const char go = WORD_NET, plain = WORD_PLAIN, *reason;
    int error;
    if (options->nested || options->net == NET_OFF || !may_look()) {
        reason = options->nested ? NULL : options->net == NET_OFF ? "it was not wanted (--net off)" : "the kernel lets no process look into another's memory (yama, ptrace_scope)";
        if (reason && options->net == NET_REQUIRED)
            give_up("no net below libc", reason);
        send(line, &plain, 1, MSG_NOSIGNAL);
        return reason;
    }
    send(line, &go, 1, MSG_NOSIGNAL);
    const int listener = receive_listener(line, &error);
    reason = listener < 0 ? reason_of(error) : NULL;
    if (reason && options->net == NET_REQUIRED)
        give_up("no net below libc", reason);
    if (listener >= 0) {
        const char *problem;
        const struct rlimit files = { 0 };
        struct rlimit raised = files;
        if (getrlimit(RLIMIT_NOFILE, &raised) == 0) {
            raised.rlim_cur = raised.rlim_max;
            setrlimit(RLIMIT_NOFILE, &raised); /* as far as it goes: each call being served holds a few */
        }
        if (scope_start(options->configuration, &problem) < 0)
            give_up("cannot use the configuration", problem);
        if (pool_start(listener) < 0)
            give_up("cannot start threads", strerror(errno));
    }
    send(line, &go, 1, MSG_NOSIGNAL);
    return reason;
}

static void report_end(int status)
{
    command = 0;
    report_status(status);
}

/* Waits for what has ended; 0 when nothing is left. A process that another thread has stopped (remote.c) is looked at,
   not waited for: its stops are that thread's. */
static int reap(void)
{
    for (;;) {
        siginfo_t info = { 0 };
        int status;
        if (atomic_exchange(&died, 0) && command)
            report_end(atomic_load(&died_status));
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0)
            return errno != ECHILD;
        if (info.si_pid == 0 || (info.si_code != CLD_EXITED && info.si_code != CLD_KILLED && info.si_code != CLD_DUMPED))
            return 1;
        if (waitpid(info.si_pid, &status, WNOHANG | __WALL) == info.si_pid && info.si_pid == command)
            report_end(status);
    }
}

static _Noreturn void end_all(void)
{
    tree_kill();
    _exit(EXIT_OURS);
}

/* The front passes signals on. Its end is the command's, or else it has been killed. */
static void hear(int *line)
{
    int number;
    const ssize_t length = recv(*line, &number, sizeof number, MSG_DONTWAIT);
    if (length == sizeof number && command)
        kill(command, number);
    if (length == 0 || (length < 0 && errno != EAGAIN && errno != EINTR)) {
        if (command)
            end_all();
        report_stop();
        close(*line);
        *line = -1;
    }
}

static _Noreturn void watch(const struct options *options, int line, int signals)
{
    while (reap()) {
        struct pollfd polls[] = {
            { .fd = signals, .events = POLLIN }, { .fd = line, .events = POLLIN }, { .fd = options->lifeline },
            { .fd = options->owner, .events = POLLIN }, { .fd = pool_descriptor(), .events = POLLIN },
        };
        if (poll(polls, sizeof polls / sizeof polls[0], pool_look()) < 0 && errno != EINTR)
            end_all();
        if (polls[0].revents & POLLIN) {
            struct signalfd_siginfo ignored;
            while (read(signals, &ignored, sizeof ignored) > 0)
                continue;
        }
        if ((polls[2].revents & (POLLHUP | POLLERR | POLLNVAL)) || polls[3].revents)
            end_all();
        if (polls[1].revents & (POLLIN | POLLHUP))
            hear(&line);
    }
    _exit(0);
}

_Noreturn void supervise(const struct options *options, int line)
{
    int start[2];
    sigset_t child;
    report_start(line);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, start) < 0)
        give_up("cannot make a socket pair", strerror(errno));
    command = fork();
    if (command < 0)
        give_up("cannot start a process for the command", strerror(errno));
    if (command == 0) {
        close(start[0]);
        command_run(options, start[1]);
    }
    close(start[1]);
    const int kept[] = { line, start[0], options->lifeline, options->owner, options->status };
    keep_only(kept, 5, 0);
    const int signals = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (signals < 0)
        give_up("cannot make a signalfd", strerror(errno));
    tell_level(options, set_net(options, start[0]));
    close(start[0]);
    watch(options, line, signals);
}
