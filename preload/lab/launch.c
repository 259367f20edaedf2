#define _GNU_SOURCE
#include "clock.h"
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/sys.h"
#include "user.h"

enum { ARGS_MAX = 65536, ENV_MAX = 8192, PATH_SIZE = 4096 };

PC_LAST char *launch_args[ARGS_MAX + 1];
static char *environment[ENV_MAX + 2];

static struct rlimit files; /* of commands; rlim_max 0: as it is */

void launch_raise_limit(void)
{
    if (getrlimit(RLIMIT_NOFILE, &files) < 0)
        files.rlim_max = 0;
    const struct rlimit raised = { files.rlim_max, files.rlim_max };
    if (files.rlim_max && setrlimit(RLIMIT_NOFILE, &raised) < 0)
        files.rlim_max = 0;
}

static struct limit_spec limits[RLIMITS_MAX];
static int limit_count;

void launch_limit(const struct limit_spec *limit)
{
    if (limit->resource == RLIMIT_NOFILE)
        files = (struct rlimit){ limit->soft, limit->hard };
    else if (limit_count < RLIMITS_MAX)
        limits[limit_count++] = *limit;
}

static int set_limits(void)
{
    if (files.rlim_max && setrlimit(RLIMIT_NOFILE, &files) < 0)
        return -1;
    for (int i = 0; i < limit_count; i++)
        if (setrlimit((int)limits[i].resource, &(struct rlimit){ limits[i].soft, limits[i].hard }) < 0)
            return -1;
    return 0;
}

struct command {
    const char *cwd, *who;
    int arg_count, env_count;
    struct user user;
    char home[HOME_SIZE + 8]; /* "HOME=..." */
    int fds[PC_FDS_MAX];      /* what becomes descriptor numbers[i] */
    int numbers[PC_FDS_MAX];
    int fd_count;
    int terminal; /* its standard input becomes its controlling terminal */
    int map_ids; /* become the user in one more user namespace */
    int64_t clock; /* how far its clocks are ahead, in ns */
};

static int parse(struct pc_in *in, struct command *command, struct pc_failure *failure)
{
    struct pc_cursor cursor;
    int home = 0;
    for (int i = 0; i < 3; i++) {
        command->fds[i] = in->fds[i + 1];
        command->numbers[i] = i;
    }
    command->fd_count = 3;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        switch (cursor.field.type) {
        case PC_F_ARG:
            if (command->arg_count == ARGS_MAX)
                return pc_fail_as(failure, "exec", launch_args[0], E2BIG, NULL);
            launch_args[command->arg_count++] = value;
            break;
        case PC_F_ENV:
            if (command->env_count == ENV_MAX)
                return pc_fail_as(failure, "exec", "with this environment", E2BIG, NULL);
            home |= strncmp(value, "HOME=", 5) == 0;
            environment[command->env_count++] = value;
            break;
        case PC_F_CWD:
            command->cwd = value;
            break;
        case PC_F_USER:
            command->who = value;
            break;
        case PC_F_TERMINAL:
            command->terminal = 1;
            break;
        case PC_F_VALUE:
            if (cursor.field.length != sizeof command->clock)
                return pc_fail_as(failure, "understand the clock of", "the command", EPROTO, NULL);
            memcpy(&command->clock, value, sizeof command->clock);
            break;
        case PC_F_FD_NUMBER:
            if (command->fd_count + 1 >= in->fd_count)
                return pc_fail_as(failure, "receive the descriptors of", "the command", EPROTO, NULL);
            command->fds[command->fd_count] = in->fds[command->fd_count + 1];
            command->numbers[command->fd_count++] = (int)pc_u32(&cursor, value);
            break;
        default:
            return pc_fail_as(failure, "understand the request for", "the command", EPROTO, NULL);
        }
    }
    if (command->arg_count == 0)
        return pc_fail_as(failure, "exec", "an empty argument list", EINVAL, NULL);
    if (command->who && user_find(command->who, &command->user) < 0)
        return pc_fail_as(failure, "find the user", command->who, errno, "it must be in the container's /etc/passwd, or a number");
    if (!command->who)
        strcpy(command->user.home, "/root");
    if (!home) {
        snprintf(command->home, sizeof command->home, "HOME=%s", command->user.home);
        environment[command->env_count++] = command->home;
    }
    return 0;
}

/* Puts every descriptor at its number. First all move above every target, so that none
   is overwritten before its turn. */
static int place_fds(const struct command *command)
{
    int lowest = 3, moved[PC_FDS_MAX];
    for (int i = 0; i < command->fd_count; i++)
        if (command->numbers[i] >= lowest)
            lowest = command->numbers[i] + 1;
    for (int i = 0; i < command->fd_count; i++)
        if ((moved[i] = fcntl(command->fds[i], F_DUPFD_CLOEXEC, lowest)) < 0)
            return -1;
    if (pc_close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) < 0 && errno != ENOSYS && errno != EINVAL)
        return -1; /* on older kernels: all of ours are close-on-exec anyhow */
    for (int i = 0; i < command->fd_count; i++)
        if (dup2(moved[i], command->numbers[i]) < 0)
            return -1;
    return 0;
}

/* One id is mapped: the user becomes it, in a user namespace that shows it under the
   user's number. Written by ourselves: one's own id may always be mapped (user_namespaces(7)). */
static int map_user(const struct user *user)
{
    char map[64];
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* or our own files in /proc were not ours to write */
    int length = snprintf(map, sizeof map, "%u 0 1", user->uid);
    if (pc_write_file(AT_FDCWD, "/proc/self/setgroups", "deny", 4) < 0 || pc_write_file(AT_FDCWD, "/proc/self/uid_map", map, (size_t)length) < 0)
        return -1;
    length = snprintf(map, sizeof map, "%u 0 1", user->gid);
    return pc_write_file(AT_FDCWD, "/proc/self/gid_map", map, (size_t)length);
}

static int become_user(const struct command *command)
{
    const struct user *user = &command->user;
    if (user->uid == 0 && user->gid == 0)
        return 0; /* which it is; and with one id mapped, setgroups is forbidden */
    if (command->map_ids)
        return map_user(user);
    /* The system calls, not the C library's wrappers: after vfork those would tell the
       parent's other threads, which it does not have, through memory that it shares. */
    if (syscall(SYS_setgroups, (size_t)user->group_count, user->groups) < 0 || syscall(SYS_setresgid, user->gid, user->gid, user->gid) < 0)
        return -1;
    return (int)syscall(SYS_setresuid, user->uid, user->uid, user->uid);
}

/* Searches PATH as execvp(3) does, with the environment that the command will have. */
static int exec_in_path(void)
{
    static char path[PATH_SIZE];
    const char *directories = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    int error = ENOENT;
    if (strchr(launch_args[0], '/') || !launch_args[0][0]) {
        execve(launch_args[0], launch_args, environment);
        return errno;
    }
    for (char **entry = environment; *entry; entry++)
        if (strncmp(*entry, "PATH=", 5) == 0)
            directories = *entry + 5;
    while (*directories) {
        int length = (int)strcspn(directories, ":");
        /* An empty entry is the current directory. A file is looked for first, as an
           execve(2) in vain costs five times as much. */
        int size = snprintf(path, sizeof path, "%.*s/%s", length ? length : 1, length ? directories : ".", launch_args[0]);
        if (size < PATH_SIZE && access(path, F_OK) == 0)
            execve(path, launch_args, environment);
        if (size < PATH_SIZE && errno == EACCES)
            error = EACCES; /* a later directory may have a better one */
        else if (size < PATH_SIZE && errno != ENOENT && errno != ENOTDIR)
            return errno;
        directories += length + (directories[length] == ':');
    }
    return error;
}

/* A descriptor that a process of ours has open may be of a directory of the machine's, and
   /proc/self/fd leads to it. The kernel says then that one cannot get there from the root (getcwd(2)). */
static int is_reachable(void)
{
    static char path[PATH_SIZE];
    return syscall(SYS_getcwd, path, sizeof path) > 0 && path[0] == '/';
}

/* In the new process, which after vfork shares our memory: it may write `failure`. */
static _Noreturn void run(const struct command *command, struct pc_failure *failure)
{
    sigset_t none;
    sigemptyset(&none);
    setsid();
    if (command->who && become_user(command) < 0)
        pc_fail(failure, "become the user", command->who);
    else if (command->cwd ? chdir(command->cwd) < 0 : chdir(command->user.home) < 0 && chdir("/") < 0)
        pc_fail(failure, "chdir", command->cwd ? command->cwd : "/");
    else if (command->cwd && !is_reachable())
        pc_fail_as(failure, "have as working directory", command->cwd, EXDEV, "it is not below the container's root, or has been removed");
    else if (place_fds(command) < 0)
        pc_fail(failure, "place the descriptors of", launch_args[0]);
    else if (set_limits() < 0)
        pc_fail_as(failure, "set the limits (rlimits) of", launch_args[0], errno, errno == EPERM ? "a hard limit can only be lowered" : NULL);
    else if (command->terminal && ioctl(0, TIOCSCTTY, 0) < 0)
        pc_fail(failure, "take as its terminal the standard input of", launch_args[0]);
    else {
        sigprocmask(SIG_SETMASK, &none, NULL);
        pc_fail_as(failure, "exec", launch_args[0], exec_in_path(), NULL);
    }
    _exit(127);
}

/* What a copy of this process tells it, in a page that is shared. */
struct told {
    struct pc_failure failure;
    pid_t pid;
};

/* A process whose clocks are shifted starts the command and ends; we are its subreaper. */
static pid_t copy_with_clock(const struct command *command, struct told *told)
{
    const uint64_t flags = (command->map_ids ? CLONE_NEWUSER : 0) | CLONE_VFORK;
    const pid_t middle = pc_clone(CLONE_VFORK, NULL);
    if (middle == 0) {
        if (clock_shift(command->clock, &told->failure) < 0)
            _exit(1);
        told->pid = pc_clone(flags, NULL);
        if (told->pid == 0)
            return 0;
        if (told->pid < 0)
            pc_fail(&told->failure, "start a process for", launch_args[0]);
        _exit(0);
    }
    while (middle > 0 && waitpid(middle, NULL, 0) < 0 && errno == EINTR)
        continue;
    return middle > 0 ? told->pid : middle;
}

/* Where a process that shares our memory will not do: that may not make a user namespace, nor
   have other clocks. */
static pid_t copy(const struct command *command, struct told *told)
{
    if (command->clock)
        return copy_with_clock(command, told);
    return pc_clone(CLONE_NEWUSER | CLONE_VFORK, NULL);
}

pid_t launch(struct pc_in *in, int rootless_ids, struct pc_failure *failure)
{
    static struct command command;
    memset(&command, 0, sizeof command); /* a watcher launches one command after another */
    launch_args[0] = NULL;
    if (parse(in, &command, failure) < 0)
        return -1;
    launch_args[command.arg_count] = environment[command.env_count] = NULL;
    command.map_ids = command.who && rootless_ids == 1 && command.user.uid != 0;
    struct told *told = NULL;
    pid_t pid;
    if (command.map_ids || command.clock) {
        told = mmap(NULL, sizeof *told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (told == MAP_FAILED)
            return pc_fail(failure, "start a process for", launch_args[0]);
        told->pid = -1;
        pid = copy(&command, told);
    } else {
        pid = vfork();
    }
    if (pid == 0)
        run(&command, told ? &told->failure : failure);
    if (told)
        *failure = told->failure;
    if (pid < 0 && !failure->step)
        pc_fail(failure, "start a process for", launch_args[0]);
    if (told)
        munmap(told, sizeof *told); /* a watcher launches many */
    if (pid < 0 || !failure->step)
        return pid;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return -1;
}
