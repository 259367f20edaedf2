/* Single system calls, made as the caller of pcprobe. */
#define _GNU_SOURCE
#include "probe.h"

#include "../common/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int probe_clone3(struct outcome *out)
{
    struct clone_args args = { .exit_signal = SIGCHLD };
    long pid = syscall(SYS_clone3, &args, sizeof args);
    if (pid == 0)
        _exit(0);
    if (pid < 0)
        return fail(out, "make a process by clone3");
    return waitpid((pid_t)pid, NULL, 0) == pid ? 0 : fail(out, "wait for a child of clone3");
}

int probe_pidfd(struct outcome *out)
{
    pid_t pid = fork_armed();
    if (pid == 0) {
        pause();
        _exit(0);
    }
    if (pid < 0)
        return fail(out, "fork");
    int fd = pc_pidfd_open(pid);
    if (fd < 0)
        return fail(out, "pidfd_open");
    if (pc_pidfd_signal(fd, SIGKILL) != 0)
        return fail(out, "pidfd_send_signal");
    struct pollfd ended = { .fd = fd, .events = POLLIN };
    if (poll(&ended, 1, 1000) != 1)
        return no_effect(out, "poll a pidfd until its process ends");
    waitpid(pid, NULL, 0);
    return 0;
}

int probe_close_range(struct outcome *out)
{
    int fd = dup(STDOUT_FILENO);
    if (fd < 0)
        return fail(out, "dup");
    if (pc_close_range((unsigned)fd, (unsigned)fd, 0) != 0)
        return fail(out, "close_range");
    return fcntl(fd, F_GETFD) < 0 ? 0 : no_effect(out, "close_range");
}

int probe_openat2(struct outcome *out)
{
    struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
    int root = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return fail(out, "open /proc");
    /* Climbing out of the root must end in the root, which has "self" in it. */
    int inside = (int)syscall(SYS_openat2, root, "../../..", &how, sizeof how);
    if (inside < 0)
        return fail(out, "openat2 with RESOLVE_IN_ROOT");
    return faccessat(inside, "self", F_OK, 0) == 0 ? 0 : no_effect(out, "openat2 with RESOLVE_IN_ROOT");
}

int probe_chroot(struct outcome *out)
{
    if (chroot("/proc") != 0)
        return fail(out, "chroot");
    return access("/self", F_OK) == 0 ? 0 : no_effect(out, "chroot");
}

int probe_ptrace(struct outcome *out)
{
    pid_t pid = fork_armed();
    if (pid < 0)
        return fail(out, "fork");
    if (pid == 0) {
        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
            _exit(errno);
        raise(SIGSTOP);
        syscall(SYS_getppid);
        _exit(0);
    }
    int status = 0;
    if (waitpid(pid, &status, 0) != pid)
        return fail(out, "wait for a traced child");
    if (WIFEXITED(status)) {
        errno = WEXITSTATUS(status);
        return fail(out, "ptrace(PTRACE_TRACEME)");
    }
    /* The next stop must be the entry to a system call: that is what proot lives on. */
    if (ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) != 0)
        return fail(out, "ptrace(PTRACE_SETOPTIONS)");
    if (ptrace(PTRACE_SYSCALL, pid, NULL, NULL) != 0 || waitpid(pid, &status, 0) != pid)
        return fail(out, "ptrace(PTRACE_SYSCALL)");
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80))
        return no_effect(out, "stop a child at a system call");
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    return 0;
}

enum { ANSWER = 4242 };

/* A filter that hands getsid, and nothing else, to whoever holds its listener. */
static int listen_to_getsid(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsid, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { .len = sizeof code / sizeof *code, .filter = code };
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

int probe_seccomp_notify(struct outcome *out)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail(out, "set no_new_privs");
    int listener = listen_to_getsid();
    if (listener < 0)
        return fail(out, "seccomp with SECCOMP_FILTER_FLAG_NEW_LISTENER");
    pid_t pid = fork_armed();
    if (pid < 0)
        return fail(out, "fork");
    if (pid == 0)
        _exit(syscall(SYS_getsid, 0) != ANSWER);
    struct seccomp_notif request;
    memset(&request, 0, sizeof request);
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0)
        return fail(out, "receive a seccomp notification");
    struct seccomp_notif_resp response = { .id = request.id, .val = ANSWER };
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response) != 0)
        return fail(out, "answer a seccomp notification");
    int status = 0;
    waitpid(pid, &status, 0);
    return status == 0 ? 0 : no_effect(out, "answer a seccomp notification");
}

int probe_landlock(struct outcome *out)
{
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version < 0)
        return fail(out, "ask for the Landlock version");
    note(out, "ABI %ld", version);
    struct landlock_ruleset_attr rules = { .handled_access_fs = LANDLOCK_ACCESS_FS_READ_FILE };
    /* Version 1 of the structure is the oldest that every kernel with Landlock takes. */
    int fd = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof rules.handled_access_fs, 0);
    if (fd < 0)
        return fail(out, "landlock_create_ruleset");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail(out, "set no_new_privs");
    if (syscall(SYS_landlock_restrict_self, fd, 0) != 0)
        return fail(out, "landlock_restrict_self");
    return open("/proc/self/stat", O_RDONLY | O_CLOEXEC) < 0 && errno == EACCES ? 0 : no_effect(out, "landlock_restrict_self");
}
