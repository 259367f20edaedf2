/* The process that the starter sees: it stands for the command. It passes signals on and ends with the command's raw
   status, while the supervisor may live on as long as something that the command left behind (a daemon) does. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pccow.h"
#include "tree.h"

static const int kept[] = { SIGCHLD, SIGTSTP, SIGTTIN, SIGTTOU, SIGCONT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS };

static int take_signals(void)
{
    sigset_t passed;
    sigfillset(&passed);
    for (size_t i = 0; i < sizeof kept / sizeof kept[0]; i++)
        sigdelset(&passed, kept[i]);
    sigprocmask(SIG_SETMASK, &passed, NULL);
    return signalfd(-1, &passed, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Ends as the command ended, so that waitpid(2) gives the starter the same status; a core file is the command's alone. */
static _Noreturn void end_as(int status)
{
    if (WIFSIGNALED(status)) {
        const int number = WTERMSIG(status);
        const struct rlimit none = { 0, 0 };
        sigset_t set;
        setrlimit(RLIMIT_CORE, &none);
        signal(number, SIG_DFL);
        sigemptyset(&set);
        sigaddset(&set, number);
        sigprocmask(SIG_UNBLOCK, &set, NULL);
        kill(getpid(), number);
        _exit(128 + number); /* a signal whose default is not to end a process; none ends one by another way */
    }
    _exit(WEXITSTATUS(status));
}

static void pass(int signals, int line)
{
    struct signalfd_siginfo info;
    while (read(signals, &info, sizeof info) == sizeof info) {
        const int number = (int)info.ssi_signo;
        /* What the terminal's driver sends goes to the whole foreground group, so to the command as well. */
        if (info.ssi_code != SI_KERNEL)
            send(line, &number, sizeof number, MSG_NOSIGNAL);
    }
}

static void say(const char *text)
{
    for (size_t left = strlen(text); left > 0;) {
        const ssize_t written = write(2, text, left);
        if (written < 0 && errno != EINTR)
            return; /* standard error is closed: there is nobody to tell */
        if (written > 0) {
            text += written;
            left -= (size_t)written;
        }
    }
}

_Noreturn void front_run(pid_t supervisor, int line)
{
    static struct report report;
    keep_only(&line, 1, 1);
    const int signals = take_signals();
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); /* if the supervisor is killed, what it has started becomes ours */
    struct pollfd polls[2] = { { .fd = signals, .events = POLLIN }, { .fd = line, .events = POLLIN } };
    for (;;) {
        if (poll(polls, 2, -1) < 0 && errno != EINTR)
            _exit(125);
        if (polls[0].revents & POLLIN)
            pass(signals, line);
        if (!(polls[1].revents & (POLLIN | POLLHUP)))
            continue;
        memset(&report, 0, sizeof report);
        const ssize_t length = recv(line, &report, sizeof report - 1, 0);
        if (length < 0 && errno == EINTR)
            continue;
        if (length <= 0)
            break;
        if (report.kind == REPORT_STATUS)
            end_as(report.status);
        say(report.text);
        if (report.kind == REPORT_FAILURE)
            _exit(report.status);
    }
    waitpid(supervisor, NULL, 0);
    tree_kill();
    say("pccow: the supervisor was killed, so the command and all that it started were ended too\n");
    _exit(125);
}
