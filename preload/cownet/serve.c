/* From a notified call to its handler, and back with the answer. */
#define _GNU_SOURCE
#include "serve.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "caller.h"
#include "calls.h"
#include "filter.h"
#include "report.h"

static handler serve_refused;

#define OLD_HANDLERS \
    [__NR_open] = serve_open, [__NR_creat] = serve_creat, [__NR_stat] = serve_stat, [__NR_lstat] = serve_lstat, \
    [__NR_access] = serve_access, [__NR_readlink] = serve_readlink, [__NR_unlink] = serve_unlink, \
    [__NR_rmdir] = serve_rmdir, [__NR_rename] = serve_rename, [__NR_mkdir] = serve_mkdir, [__NR_mknod] = serve_mknod, \
    [__NR_link] = serve_link, [__NR_symlink] = serve_symlink, [__NR_chmod] = serve_chmod, [__NR_chown] = serve_chown, \
    [__NR_lchown] = serve_lchown, [__NR_utime] = serve_utime, [__NR_utimes] = serve_utimes, \
    [__NR_futimesat] = serve_futimesat,

static handler *const handlers[NET_LAST + 1] = {
#ifdef __x86_64__
    OLD_HANDLERS
#endif
    [__NR_openat] = serve_openat, [__NR_openat2] = serve_openat2, [__NR_newfstatat] = serve_fstatat,
    [__NR_fstat] = serve_fstat, [__NR_statx] = serve_statx, [__NR_statfs] = serve_statfs,
    [__NR_faccessat] = serve_faccessat, [__NR_faccessat2] = serve_faccessat2, [__NR_readlinkat] = serve_readlinkat,
    [__NR_getcwd] = serve_getcwd, [__NR_chdir] = serve_chdir, [__NR_getdents64] = serve_getdents64,
    [__NR_unlinkat] = serve_unlinkat, [__NR_renameat] = serve_renameat, [__NR_renameat2] = serve_renameat2,
    [__NR_mkdirat] = serve_mkdirat, [__NR_mknodat] = serve_mknodat, [__NR_linkat] = serve_linkat,
    [__NR_symlinkat] = serve_symlinkat, [__NR_truncate] = serve_truncate, [__NR_fchmod] = serve_fchmod,
    [__NR_fchmodat] = serve_fchmodat, [NET_fchmodat2] = serve_fchmodat2, [__NR_fchown] = serve_fchown,
    [__NR_fchownat] = serve_fchownat, [__NR_utimensat] = serve_utimensat, [__NR_setxattr] = serve_setxattr,
    [__NR_lsetxattr] = serve_lsetxattr, [__NR_fsetxattr] = serve_fsetxattr, [__NR_getxattr] = serve_getxattr,
    [__NR_lgetxattr] = serve_lgetxattr, [__NR_listxattr] = serve_listxattr, [__NR_llistxattr] = serve_llistxattr,
    [__NR_removexattr] = serve_removexattr, [__NR_lremovexattr] = serve_lremovexattr,
    [__NR_fremovexattr] = serve_fremovexattr, [__NR_inotify_add_watch] = serve_inotify_add_watch,
    [__NR_bind] = serve_bind, [__NR_connect] = serve_connect, [__NR_sendto] = serve_sendto,
    [__NR_sendmsg] = serve_sendmsg, [__NR_sendmmsg] = serve_sendmmsg, [__NR_execve] = serve_execve,
    [__NR_execveat] = serve_execveat, [__NR_prctl] = serve_prctl, [__NR_ioctl] = serve_ioctl,
    [__NR_setuid] = serve_ids, [__NR_setgid] = serve_ids, [__NR_setreuid] = serve_ids, [__NR_setregid] = serve_ids,
    [__NR_setresuid] = serve_ids, [__NR_setresgid] = serve_ids, [__NR_setfsuid] = serve_ids,
    [__NR_setfsgid] = serve_ids, [__NR_setgroups] = serve_ids, [__NR_capset] = serve_ids,
};

static const struct {
    short number;
    const char *name;
} names[] = {
#define NAME(number, name, kind) { number, name },
    NET_CALLS(NAME)
};

static int listener;
static atomic_uint served;

unsigned serve_count(void)
{
    return atomic_load(&served);
}

const char *serve_name(int number)
{
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (names[i].number == number)
            return names[i].name;
    return "a system call";
}

void serve_log(const struct caller *caller, const char *path, const char *reason)
{
    report_refusal(caller->asker.set, serve_name(caller->call->data.nr), path, reason);
}

long serve_refuse(const struct caller *caller, const char *path, int error, const char *reason)
{
    serve_log(caller, path, reason);
    return -error;
}

long serve_path_to_look(const struct caller *caller, int number, char *path)
{
    const long length = caller_string(caller, ARG(caller, number), path, PATH_MAX);
    if (length == -EACCES)
        return serve_refuse(caller, NULL, EACCES, "the process keeps others from its memory (prctl(PR_SET_DUMPABLE)), so its path cannot be read");
    return length;
}

long serve_path(const struct caller *caller, int number, char *path)
{
    const long length = serve_path_to_look(caller, number, path);
    /* Only now is it sure that it was this caller's memory. */
    return caller_waits(caller) ? length : -ESRCH;
}

long serve_give_fd(struct caller *caller, int fd, int cloexec)
{
    struct seccomp_notif_addfd add = {
        .id = caller->call->id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = (uint32_t)fd, .newfd_flags = cloexec ? O_CLOEXEC : 0,
    };
    const int given = ioctl(caller->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
    const int error = errno;
    close(fd);
    if (given < 0 && (error == ENOENT || error == EINTR || error == EINPROGRESS)) {
        /* Most likely it was killed. But if this process was stopped or frozen just now, the answer may have gone out
           without the descriptor, as descriptor 0 (wait_for_completion_interruptible in seccomp_notify_addfd): better
           no process than one that writes to the wrong file. */
        kill(caller_pid(caller), SIGKILL);
        return ANSWERED;
    }
    return given >= 0 ? ANSWERED : -error;
}

long serve_put_fd(const struct caller *caller, int fd, int place)
{
    struct seccomp_notif_addfd add = {
        .id = caller->call->id, .flags = SECCOMP_ADDFD_FLAG_SETFD, .srcfd = (uint32_t)fd, .newfd = (uint32_t)place,
    };
    /* What a close-on-exec flag it had, /proc tells; a descriptor that outlives exec by mistake is the worse one. */
    const int flags = caller_cloexec(caller, place);
    add.newfd_flags = flags ? O_CLOEXEC : 0;
    const int put = ioctl(caller->listener, SECCOMP_IOCTL_NOTIF_ADDFD, &add);
    const int error = errno;
    close(fd);
    return put >= 0 ? 0 : -error;
}

void serve_prepare(int fd)
{
    listener = fd;
}

/* mount(2) and what else would change what paths mean, or reach files without one: refused, with its path in the log. */
static const struct {
    short number, path; /* which argument is the path; -1: none */
    int error;
    const char *reason;
} refused[] = {
    { __NR_chroot, 0, EPERM, "paths are resolved for the root that the command was started with" },
    { __NR_pivot_root, 0, EPERM, "paths are resolved for the root that the command was started with" },
    { __NR_mount, 1, EPERM, "mounts would change what the tree's paths mean" },
    { __NR_umount2, 0, EPERM, "mounts would change what the tree's paths mean" },
    { __NR_move_mount, 3, EPERM, "mounts would change what the tree's paths mean" },
    { __NR_open_tree, 1, EPERM, "a mount of one's own would be another way to the tree's lower" },
    { __NR_mount_setattr, 1, EPERM, "mounts would change what the tree's paths mean" },
    { __NR_fspick, 1, EPERM, "mounts would change what the tree's paths mean" },
    { __NR_fsopen, -1, EPERM, "mounts would change what the tree's paths mean" },
    { __NR_fsmount, -1, EPERM, "mounts would change what the tree's paths mean" },
    { __NR_setns, -1, EPERM, "another mount namespace would give the tree's paths another meaning" },
    { __NR_acct, 0, EPERM, "the kernel would write to a file by itself" },
    { __NR_swapon, 0, EPERM, "the kernel would write to a file by itself" },
    { __NR_swapoff, 0, EPERM, "not on a tree" },
    { __NR_name_to_handle_at, 1, EOPNOTSUPP, "a handle would lead past the tree to its lower" },
    { __NR_open_by_handle_at, -1, EPERM, "a handle leads past the tree to its lower" },
    { __NR_fanotify_mark, 4, EPERM, "not on a tree" },
    { __NR_quotactl, 1, EPERM, "not on a tree" },
#ifdef __x86_64__
    { __NR_getdents, -1, ENOSYS, "only getdents64 lists a tree's directories" },
#endif
};

static long serve_refused(struct caller *caller)
{
    char path[PATH_MAX];
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        if (refused[i].number != caller->call->data.nr)
            continue;
        const int has = refused[i].path >= 0 && caller_string(caller, ARG(caller, refused[i].path), path, sizeof path) >= 0;
        return serve_refuse(caller, has ? path : NULL, refused[i].error, refused[i].reason);
    }
    return serve_refuse(caller, NULL, ENOSYS, "this call is unknown to the net");
}

void serve(const struct seccomp_notif *call)
{
    struct caller caller;
    struct seccomp_notif_resp answer = { .id = call->id };
    const int number = call->data.nr;
    atomic_fetch_add(&served, 1);
    long result = caller_find(&caller, call, listener);
    if (call->data.arch != filter_architecture())
        result = serve_refuse(&caller, NULL, ENOSYS, "programs of another architecture (32 bit) are not served");
    else if (result == -EPERM)
        serve_log(&caller, NULL, "the process is marked for trees that are unknown here (its RLIMIT_LOCKS was changed)");
    if (result == 0) {
        handler *const handle = number >= 0 && number <= NET_LAST && handlers[number] ? handlers[number] : serve_refused;
        result = handle(&caller);
        caller_leave();
        cow_ways_close(&caller.ways);
    }
    if (result == ANSWERED)
        return;
    if (result < 0)
        answer.error = (int)result;
    else
        answer.val = result;
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer); /* ENOENT: it has been killed meanwhile */
}
