#define _GNU_SOURCE
#include "helper.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/failure.h"
#include "../common/sys.h"
#include "options.h"
#include "registry.h"

enum { ARGUMENTS_MAX = 32, PROGRAM = 0, CONTROL = 1, FDS = 2, HIGH = 100 };

extern char **environ;

/* What is asked for: the strings belong to the request. */
struct helper {
    char *argv[ARGUMENTS_MAX + 1];
    int argc;
    int netlink; /* a socket of the network namespace that it is to be in */
};

/* Steps of the child, by the number in which it tells where it failed. */
static const char *const steps[] = { "start a process for", "find the network namespace of", "enter the network namespace of",
                                     "pass the control socket to", "execute" };

static int understand(struct helper *helper, int fabric, struct pc_in *in, struct pc_failure *failure)
{
    struct pc_cursor cursor;
    helper->netlink = fabric;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        if (cursor.field.type == PC_F_ARG && helper->argc < ARGUMENTS_MAX)
            helper->argv[helper->argc++] = value;
        if (cursor.field.type != PC_F_ID)
            continue;
        const struct container *container = registry_find(pc_u32(&cursor, value));
        helper->netlink = container && !container->building ? container->netlink : -1;
        if (helper->netlink < 0)
            return pc_fail_as(failure, "find", "the host for a helper", ENOENT, "it has been closed, or has no network of its own");
    }
    if (in->fd_count == FDS && helper->argc > 0)
        return 0;
    return pc_fail_as(failure, "start", "a helper", EINVAL, "expected a program, a control socket and arguments");
}

/* The child's part until exec. Returns, with errno, the step that failed. */
static int become(const struct helper *helper, const struct pc_in *in)
{
    sigset_t none;
    /* The namespace of a socket: nothing else of the fabric's is at hand (socket.c: SIOCGSKNS). */
    const int space = ioctl(helper->netlink, SIOCGSKNS);
    if (space < 0)
        return 1;
    if (setns(space, CLONE_NEWNET) < 0)
        return 2;
    const int program = fcntl(in->fds[PROGRAM], F_DUPFD_CLOEXEC, HIGH);
    if (program < 0 || dup2(in->fds[CONTROL], HELPER_CONTROL) < 0)
        return 3;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL); /* the lab blocks all */
    setsid();
    syscall(SYS_execveat, program, "", helper->argv, environ, AT_EMPTY_PATH);
    return 4;
}

/* Tells through `report` when it did not work; a program that runs has closed it. */
static _Noreturn void run(const struct helper *helper, const struct pc_in *in, int report)
{
    const int failed = become(helper, in);
    const int words[2] = { failed, errno };
    while (write(report, words, sizeof words) < 0 && errno == EINTR)
        continue;
    _exit(127);
}

/* Returns the pid and, in *pidfd, a pidfd of a helper that runs; -1 and what failed. */
static pid_t start(const struct helper *helper, const struct pc_in *in, int *pidfd, struct pc_failure *failure)
{
    int report[2], words[2] = { 0, 0 };
    if (pipe2(report, O_CLOEXEC) < 0)
        return pc_fail(failure, "make a pipe for", helper->argv[0]);
    /* Above the number that the control socket gets. */
    CLEANUP_FD int write_end = fcntl(report[1], F_DUPFD_CLOEXEC, HIGH);
    close(report[1]);
    CLEANUP_FD int read_end = report[0];
    const pid_t pid = write_end < 0 ? -1 : pc_clone(0, pidfd);
    if (pid == 0)
        run(helper, in, write_end);
    words[1] = errno;
    if (write_end >= 0)
        close(write_end);
    write_end = -1;
    ssize_t got = 0;
    while (pid > 0 && (got = read(read_end, words, sizeof words)) < 0 && errno == EINTR)
        continue;
    if (pid > 0 && got == 0)
        return pid;
    return pc_fail_as(failure, steps[words[0]], helper->argv[0], words[1], NULL); /* reaped as all children are */
}

void helper_serve(int fabric, struct pc_in *in)
{
    struct helper helper = { .argc = 0 };
    struct pc_failure failure = { 0 };
    struct pc_out out;
    CLEANUP_FD int pidfd = -1;
    const pid_t pid = understand(&helper, fabric, in, &failure) < 0 ? -1 : start(&helper, in, &pidfd, &failure);
    if (pid < 0) {
        pc_send_failure(FD_CONTROL, in->header.request, &failure);
        return;
    }
    pc_begin(&out, PC_OK, in->header.request);
    pc_put_u32(&out, PC_F_PID, (uint32_t)pid);
    pc_send(FD_CONTROL, &out, &pidfd, 1, 0);
}
