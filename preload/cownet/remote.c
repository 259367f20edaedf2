#define _GNU_SOURCE
#include "remote.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pccow.h"

enum { ERESTARTNOINTR = 513, SYSCALL_LENGTH = 2, SYSCALL_STOP = SIGTRAP | 0x80 };

#ifdef __x86_64__
static void set_call(struct user_regs_struct *registers, long number, const uint64_t arguments[6])
{
    registers->rip -= SYSCALL_LENGTH;
    registers->rax = (unsigned long long)number;
    registers->orig_rax = -1ULL; /* nothing to begin anew */
    registers->rdi = arguments[0];
    registers->rsi = arguments[1];
    registers->rdx = arguments[2];
    registers->r10 = arguments[3];
    registers->r8 = arguments[4];
    registers->r9 = arguments[5];
}

static void set_result(struct user_regs_struct *registers, long result)
{
    registers->rax = (unsigned long long)result;
    registers->orig_rax = -1ULL;
}

static long get_result(const struct user_regs_struct *registers)
{
    return (long)registers->rax;
}
#else /* filter_install() gives no net here, so nothing comes this far */
static void set_call(struct user_regs_struct *registers, long number, const uint64_t arguments[6])
{
    (void)registers, (void)number, (void)arguments;
}

static void set_result(struct user_regs_struct *registers, long result)
{
    (void)registers, (void)result;
}

static long get_result(const struct user_regs_struct *registers)
{
    (void)registers;
    return -ENOSYS;
}
#define PTRACE_GETREGS ((enum __ptrace_request)0)
#define PTRACE_SETREGS ((enum __ptrace_request)0)
#endif

/* The next stop of the one process that this thread traces, with its status; -1 when it has died. */
static pid_t next_stop(int *status)
{
    for (;;) {
        const pid_t pid = waitpid(-1, status, __WALL | __WNOTHREAD);
        if (pid > 0 && WIFSTOPPED(*status))
            return pid;
        if (pid > 0) {
            supervise_died(pid, *status);
            return -1;
        }
        if (errno != EINTR)
            return -1;
    }
}

int remote_begin(struct remote *remote, int listener, const struct seccomp_notif *call)
{
    int status;
    /* With this answer the kernel would do the call again, were it not for the stop before it (signal(7)). */
    struct seccomp_notif_resp again = { .id = call->id, .error = -ERESTARTNOINTR };
    *remote = (struct remote){ .tid = (pid_t)call->pid, .listener = listener };
    if (ptrace(PTRACE_SEIZE, remote->tid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL) < 0)
        return -1;
    if (ptrace(PTRACE_INTERRUPT, remote->tid, 0, 0) < 0 || ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &again) < 0) {
        /* It was killed: an answer nobody waits for. The stop that was asked for, or its death, comes all the same. */
        if (next_stop(&status) > 0)
            ptrace(PTRACE_DETACH, remote->tid, 0, 0);
        errno = ESRCH;
        return -1;
    }
    if (next_stop(&status) < 0 || ptrace(PTRACE_GETREGS, remote->tid, 0, &remote->registers) < 0) {
        remote->gone = 1;
        errno = ESRCH;
        return -1;
    }
    return 0;
}

/* Goes on to the next stop at a system call or at exec; signals that come on the way wait. */
static int to_next_call(struct remote *remote, int *status, pid_t *pid)
{
    for (;;) {
        if (ptrace(PTRACE_SYSCALL, remote->tid, 0, 0) < 0 || (*pid = next_stop(status)) < 0) {
            remote->gone = 1;
            return -1;
        }
        remote->tid = *pid;
        if (WSTOPSIG(*status) == SYSCALL_STOP || *status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8))
            return 0;
        if (*status >> 16 == 0)
            remote->held |= 1ULL << WSTOPSIG(*status);
    }
}

static int begin_call(struct remote *remote, long number, const uint64_t arguments[6], int *status)
{
    struct user_regs_struct changed = remote->registers;
    pid_t pid;
    if (remote->gone)
        return -1;
    set_call(&changed, number, arguments);
    if (ptrace(PTRACE_SETREGS, remote->tid, 0, &changed) < 0) {
        remote->gone = 1;
        return -1;
    }
    /* Into the call, and out of it (or to its exec). */
    return to_next_call(remote, status, &pid) < 0 || to_next_call(remote, status, &pid) < 0 ? -1 : 0;
}

static long result_of(struct remote *remote)
{
    struct user_regs_struct after;
    if (ptrace(PTRACE_GETREGS, remote->tid, 0, &after) < 0)
        return -ESRCH;
    return get_result(&after);
}

long remote_call(struct remote *remote, long number, const uint64_t arguments[6])
{
    int status;
    return begin_call(remote, number, arguments, &status) < 0 ? -ESRCH : result_of(remote);
}

long remote_exec(struct remote *remote, long number, const uint64_t arguments[6], pid_t *pid)
{
    int status;
    if (begin_call(remote, number, arguments, &status) < 0)
        return -ESRCH;
    *pid = remote->tid;
    return status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8) ? 0 : result_of(remote);
}

static void let_go(struct remote *remote, pid_t pid)
{
    for (int number = 1; number < 64; number++)
        if (remote->held >> number & 1)
            syscall(SYS_tgkill, pid, remote->tid, number);
    ptrace(PTRACE_DETACH, remote->tid, 0, 0);
}

void remote_end(struct remote *remote, pid_t pid, long result)
{
    if (remote->gone)
        return;
    set_result(&remote->registers, result);
    ptrace(PTRACE_SETREGS, remote->tid, 0, &remote->registers);
    let_go(remote, pid);
}

void remote_release(struct remote *remote, pid_t pid, int kill_it)
{
    remote->tid = pid;
    if (kill_it)
        kill(pid, SIGKILL);
    let_go(remote, pid);
}
