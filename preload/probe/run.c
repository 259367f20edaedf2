/* Bounded children, and the notes they leave. */
#define _GNU_SOURCE
#include "probe.h"

#include "../common/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LIMIT_SECONDS = 2 };

int fail(struct outcome *out, const char *step)
{
    out->error = errno;
    snprintf(out->step, sizeof out->step, "%s", step);
    return -1;
}

int no_effect(struct outcome *out, const char *step)
{
    errno = 0;
    return fail(out, step);
}

void note(struct outcome *out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(out->detail, sizeof out->detail, format, arguments);
    va_end(arguments);
}

static void on_alarm(int signal)
{
    _exit(128 + signal);
}

/* Its write end is main's alone, so end of file says that main is dead. */
static int lifeline[2] = { -1, -1 };

int make_lifeline(void)
{
    return pipe2(lifeline, O_CLOEXEC);
}

void follow(pid_t parent)
{
    if (lifeline[1] >= 0)
        close(lifeline[1]);
    lifeline[1] = -1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* A parent that died before that line sends no signal any more. Where it cannot be seen
       (in a new pid namespace) the lifeline tells, unless a sibling still holds it. */
    struct pollfd ended = { .fd = lifeline[0] };
    if ((getppid() != parent && getppid() != 0) || poll(&ended, 1, 0) != 0)
        _exit(1);
}

void arm(pid_t parent)
{
    follow(parent);
    /* Pid 1 of a pid namespace ignores signals that it does not handle. */
    struct sigaction action = { .sa_handler = on_alarm };
    sigaction(SIGALRM, &action, NULL);
    alarm(LIMIT_SECONDS + 1);
}

pid_t fork_armed(void)
{
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        arm(parent);
    return pid;
}

int start(struct job *job, probe_function *probe, struct outcome *out)
{
    int ends[2];
    memset(out, 0, sizeof *out);
    job->out = out;
    job->pid = -1;
    job->deadline = pc_now_us() + LIMIT_SECONDS * 1000000;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail(out, "pipe");
    pid_t pid = fork_armed();
    if (pid == 0) {
        setpgid(0, 0);
        char works = probe(out) == 0;
        _exit(write(ends[1], &works, 1) != 1);
    }
    close(ends[1]);
    job->answer = ends[0];
    job->pid = pid;
    if (pid < 0)
        return fail(out, "fork");
    setpgid(pid, pid);
    return 0;
}

/* What became of a child that gave no answer. */
static int without_answer(struct job *job, int late)
{
    struct outcome *out = job->out;
    int status = 0;
    kill(-job->pid, SIGKILL);
    waitpid(job->pid, &status, 0);
    job->pid = -1;
    if (late) {
        errno = ETIMEDOUT;
        return fail(out, out->step[0] ? out->step : "answer within two seconds");
    }
    note(out, "the probe ended by signal %d", WTERMSIG(status));
    return no_effect(out, WTERMSIG(status) == SIGSYS ? "make a system call that a filter punishes by death" : "survive");
}

int finish(struct job *job)
{
    if (job->pid < 0)
        return -1;
    int64_t left = (job->deadline - pc_now_us()) / 1000;
    struct pollfd answered = { .fd = job->answer, .events = POLLIN };
    int ready = poll(&answered, 1, left > 0 ? (int)left : 0);
    char works = 0;
    int got = ready == 1 && read(job->answer, &works, 1) == 1;
    close(job->answer);
    int result = got ? (works ? 0 : -1) : without_answer(job, ready == 0);
    /* Also what the probe started and did not wait for: its group ends with it. */
    if (got)
        kill(-job->pid, SIGKILL);
    if (job->out->scratch[0])
        rmdir(job->out->scratch);
    return result;
}

void reap(struct job *job)
{
    if (job->pid > 0)
        waitpid(job->pid, NULL, 0);
    job->pid = -1;
}

int run_bounded(probe_function *probe, struct outcome *out)
{
    struct job job;
    if (start(&job, probe, out) != 0)
        return -1;
    int result = finish(&job);
    reap(&job);
    return result;
}

int in_child(uint64_t flags, const char *step, probe_function *body, struct outcome *out)
{
    pid_t parent = getpid(), pid = pc_clone(flags, NULL);
    if (pid < 0)
        return fail(out, step);
    if (pid == 0) {
        arm(parent);
        _exit(body(out) != 0);
    }
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return fail(out, "wait for a child");
    if (WIFSIGNALED(status))
        return no_effect(out, "survive in the new namespace");
    return WEXITSTATUS(status) == 0 ? 0 : -1;
}
