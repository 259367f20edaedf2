#define _GNU_SOURCE
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/sys.h"
#include "user.h"

enum { ARGS_MAX = 65536, ENV_MAX = 8192, PATH_SIZE = 4096 };

static char *args[ARGS_MAX + 1];
static char *environment[ENV_MAX + 2];

struct command {
    const char *cwd, *who;
    int arg_count, env_count;
    struct user user;
    char home[HOME_SIZE + 8]; /* "HOME=..." */
    int fds[PC_FDS_MAX];      /* what becomes descriptor numbers[i] */
    int numbers[PC_FDS_MAX];
    int fd_count;
    int map_ids; /* become the user in one more user namespace */
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
                return pc_fail_as(failure, "exec", args[0], E2BIG, NULL);
            args[command->arg_count++] = value;
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
    if (strchr(args[0], '/') || !args[0][0]) {
        execve(args[0], args, environment);
        return errno;
    }
    for (char **entry = environment; *entry; entry++)
        if (strncmp(*entry, "PATH=", 5) == 0)
            directories = *entry + 5;
    while (*directories) {
        int length = (int)strcspn(directories, ":");
        /* An empty entry is the current directory. A file is looked for first, as an
           execve(2) in vain costs five times as much. */
        int size = snprintf(path, sizeof path, "%.*s/%s", length ? length : 1, length ? directories : ".", args[0]);
        if (size < PATH_SIZE && access(path, F_OK) == 0)
            execve(path, args, environment);
        if (size < PATH_SIZE && errno == EACCES)
            error = EACCES; /* a later directory may have a better one */
        else if (size < PATH_SIZE && errno != ENOENT && errno != ENOTDIR)
            return errno;
        directories += length + (directories[length] == ':');
    }
    return error;
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
    else if (place_fds(command) < 0)
        pc_fail(failure, "place the descriptors of", args[0]);
    else {
        sigprocmask(SIG_SETMASK, &none, NULL);
        pc_fail_as(failure, "exec", args[0], exec_in_path(), NULL);
    }
    _exit(127);
}

pid_t launch(struct pc_in *in, int rootless_ids, struct pc_failure *failure)
{
    static struct command command;
    if (parse(in, &command, failure) < 0)
        return -1;
    command.map_ids = command.who && rootless_ids == 1 && command.user.uid != 0;
    struct pc_failure *seen = failure;
    pid_t pid;
    if (command.map_ids) {
        /* A process that shares memory may not make a user namespace: so a copy, which
           tells its failure in a page that is shared. */
        seen = mmap(NULL, sizeof *seen, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (seen == MAP_FAILED)
            return pc_fail(failure, "start a process for", args[0]);
        pid = pc_clone(CLONE_NEWUSER | CLONE_VFORK, NULL);
    } else {
        pid = vfork();
    }
    if (pid == 0)
        run(&command, seen);
    if (pid < 0)
        return pc_fail(failure, "start a process for", args[0]);
    if (!seen->step)
        return pid;
    *failure = *seen;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    return -1;
}
