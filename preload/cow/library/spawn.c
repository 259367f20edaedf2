/* posix_spawn. libc's own runs with the real program, a complete environment, and file actions in which each path has been
   opened already: libc would open the paths itself, by calls that nothing can catch. */
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <spawn.h>

#include "library.h"
#include "program.h"

/* Of glibc's posix_spawn_file_actions_t; check_layout() sees whether this libc's is the same. */
enum tag { DO_CLOSE, DO_DUP2, DO_OPEN, DO_CHDIR, DO_FCHDIR, DO_CLOSEFROM, DO_TCSETPGRP };
struct action {
    int tag;
    union {
        struct { int fd; } one; /* close, fchdir, closefrom, tcsetpgrp */
        struct { int from, to; } dup2;
        struct { int fd; char *path; int flags; mode_t mode; } open;
        struct { char *path; } chdir;
    };
};

enum { ACTIONS_MAX = 1 << 14 /* so many descriptors fit on the stack of any thread */ };

struct opened {
    const posix_spawn_file_actions_t *actions;
    int *fd;  /* room for one per action */
    int count;
    int base; /* where relative paths begin: a descriptor, or AT_FDCWD */
    int from; /* all from this one on are to be closed, once nothing more is opened by a path; -1: none are */
    int gone; /* they are: what was kept for actions to come is as well */
};

static int check_layout(void)
{
    static int known; /* 1: right, -1: wrong */
    posix_spawn_file_actions_t actions;
    if (known)
        return known > 0;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return 0;
    /* With the lowest numbers: libc takes none that are above RLIMIT_NOFILE. */
    int right = posix_spawn_file_actions_addopen(&actions, 2, "/x", O_RDWR, 0123) == 0 &&
                posix_spawn_file_actions_adddup2(&actions, 0, 1) == 0 && actions.__used == 2;
    const struct action *action = (const struct action *)actions.__actions;
    right = right && action[0].tag == DO_OPEN && action[0].open.fd == 2 && action[0].open.flags == O_RDWR &&
            action[0].open.mode == 0123 && strcmp(action[0].open.path, "/x") == 0 && action[1].tag == DO_DUP2 &&
            action[1].dup2.from == 0 && action[1].dup2.to == 1;
    posix_spawn_file_actions_destroy(&actions);
    known = right ? 1 : -1;
    return right;
}

static int names(const struct action *action, int fd)
{
    switch (action->tag) {
    case DO_DUP2:
        return action->dup2.from == fd || action->dup2.to == fd;
    case DO_OPEN:
        return action->open.fd == fd;
    case DO_CLOSE:
    case DO_FCHDIR:
    case DO_TCSETPGRP:
        return action->one.fd == fd;
    default:
        return 0;
    }
}

static int is_named(const posix_spawn_file_actions_t *actions, int fd)
{
    for (int i = 0; i < actions->__used; i++)
        if (names((const struct action *)actions->__actions + i, fd))
            return 1;
    return 0;
}

/* Keeps a descriptor out of the way of those that the actions name: by any other number, of which there may be few. */
static long keep(struct opened *opened, long fd)
{
    while (fd >= 0 && is_named(opened->actions, (int)fd)) {
        const long next = SYS(SYS_fcntl, fd, F_DUPFD_CLOEXEC, fd + 1);
        SYS(SYS_close, fd);
        fd = next;
    }
    if (fd == -EINVAL) /* no number is as high */
        return -EMFILE;
    if (fd >= 0)
        opened->fd[opened->count++] = (int)fd;
    return fd;
}

static int refuse(const char *reason)
{
    pl_refuse("posix_spawn", "file actions", reason, ENOSYS);
    return ENOSYS;
}

/* Closing waits for the actions behind it that have nothing to do with what is closed: they may need what was kept. */
static int close_from(posix_spawn_file_actions_t *out, struct opened *opened)
{
    const int from = opened->from;
    opened->from = -1;
    opened->gone |= from >= 0;
    return from < 0 ? 0 : posix_spawn_file_actions_addclosefrom_np(out, from);
}

static int touches(const struct action *action, int from)
{
    switch (action->tag) {
    case DO_DUP2:
        return action->dup2.from >= from || action->dup2.to >= from;
    case DO_OPEN:
        return action->open.fd >= from;
    case DO_FCHDIR:
    case DO_TCSETPGRP:
        return action->one.fd >= from;
    default: /* what is closed twice is closed; a path of a directory is kept */
        return 0;
    }
}

static int add(posix_spawn_file_actions_t *out, const struct action *action, struct opened *opened)
{
    long fd;
    if (opened->from >= 0 && touches(action, opened->from)) {
        const int error = close_from(out, opened);
        if (error)
            return error;
    }
    if (opened->gone && (action->tag == DO_OPEN || action->tag == DO_CHDIR))
        return refuse("a path behind addclosefrom_np whose descriptor that would close");
    switch (action->tag) {
    case DO_CLOSE:
        return posix_spawn_file_actions_addclose(out, action->one.fd);
    case DO_DUP2:
        return posix_spawn_file_actions_adddup2(out, action->dup2.from, action->dup2.to);
    case DO_OPEN:
        fd = keep(opened, cow_openat(ME, opened->base, action->open.path, action->open.flags | O_CLOEXEC, action->open.mode, 0));
        return fd < 0 ? (int)-fd : posix_spawn_file_actions_adddup2(out, (int)fd, action->open.fd);
    case DO_CHDIR:
        fd = keep(opened, cow_openat(ME, opened->base, action->chdir.path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0));
        if (fd < 0)
            return (int)-fd;
        opened->base = (int)fd;
        return posix_spawn_file_actions_addfchdir_np(out, (int)fd);
    case DO_FCHDIR:
        opened->base = action->one.fd;
        return posix_spawn_file_actions_addfchdir_np(out, action->one.fd);
    case DO_CLOSEFROM:
        opened->from = opened->from < 0 || action->one.fd < opened->from ? action->one.fd : opened->from;
        return action->one.fd < 0 ? EBADF : 0;
    case DO_TCSETPGRP:
        return ((int (*)(posix_spawn_file_actions_t *, int))pl_next("posix_spawn_file_actions_addtcsetpgrp_np"))(
            out, action->one.fd);
    default:
        return refuse("an action that this library does not know");
    }
}

static int rewrite(posix_spawn_file_actions_t *out, const posix_spawn_file_actions_t *in, struct opened *opened)
{
    if (!check_layout())
        return refuse("this libc has them in another form than is known here");
    for (int i = 0; i < in->__used; i++) {
        int error = add(out, (const struct action *)in->__actions + i, opened);
        if (error)
            return error;
    }
    return close_from(out, opened);
}

typedef int spawner(int *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const *,
                    char *const *);

static int spawn(spawner *libcs, int *child, const char *path, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const *argv, char *const *environment)
{
    struct program program;
    struct opened opened = { .actions = actions, .base = AT_FDCWD, .from = -1 };
    posix_spawn_file_actions_t own;
    int error = posix_spawn_file_actions_init(&own);
    if (error)
        return error;
    const int count = actions ? actions->__used : 0;
    opened.fd = count <= ACTIONS_MAX ? alloca(((size_t)count + 1) * sizeof *opened.fd) : NULL;
    if (!opened.fd)
        error = refuse("more actions than could be kept track of");
    else if (actions)
        error = rewrite(&own, actions, &opened);
    if (!error)
        error = (int)-pl_find_program(opened.base, path, 0, &program);
    if (!error) {
        char **room = alloca((pl_count(argv) + (size_t)program.words + 2) * sizeof *room);
        void *extra = alloca(pl_environment_size(environment));
        error = libcs(child, program.real, &own, attributes, (char *const *)pl_arguments(&program, argv, room),
                      (char *const *)pl_environment(environment, extra));
    }
    posix_spawn_file_actions_destroy(&own);
    for (int i = 0; i < opened.count; i++)
        SYS(SYS_close, opened.fd[i]);
    return error;
}

static int spawn_in_path(spawner *libcs, int *child, const char *file, const posix_spawn_file_actions_t *actions,
                         const posix_spawnattr_t *attributes, char *const *argv, char *const *environment)
{
    char path[PATH_MAX];
    int error = ENOENT, denied = 0;
    const char *list = getenv("PATH");
    const size_t length = strlen(file);
    if (strchr(file, '/') || !length)
        return length ? spawn(libcs, child, file, actions, attributes, argv, environment) : ENOENT;
    for (list = list ? list : "/bin:/usr/bin";; list++) {
        const size_t directory = strcspn(list, ":");
        if (directory + length + 2 <= sizeof path) {
            memcpy(path, list, directory);
            path[directory] = '/';
            memcpy(path + directory + (directory > 0), file, length + 1);
            if (cow_faccessat(ME, AT_FDCWD, path, X_OK, AT_EACCESS) == 0) {
                error = spawn(libcs, child, path, actions, attributes, argv, environment);
                if (error != EACCES && error != ENOENT && error != ENOTDIR)
                    return error;
                denied |= error == EACCES;
            }
        }
        list += directory;
        if (!*list)
            return denied ? EACCES : error;
    }
}

EXPORT int posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const argv[], char *const environment[])
{
    (void)ME;
    return spawn(NEXT(posix_spawn), pid, path, actions, attributes, argv, environment);
}

EXPORT int posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const argv[], char *const environment[])
{
    (void)ME;
    return spawn_in_path(NEXT(posix_spawn), pid, file, actions, attributes, argv, environment);
}

/* glibc 2.39 and newer; their headers have the prototypes, from which these must not differ. */
int pidfd_spawn(int *pidfd, const char *path, const posix_spawn_file_actions_t *actions,
                const posix_spawnattr_t *attributes, char *const argv[], char *const environment[]);
int pidfd_spawnp(int *pidfd, const char *file, const posix_spawn_file_actions_t *actions,
                 const posix_spawnattr_t *attributes, char *const argv[], char *const environment[]);

/* ENOSYS is also what they give where the kernel has no pidfds. */
static int none(int *pidfd, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                char *const *argv, char *const *environment)
{
    (void)pidfd, (void)path, (void)actions, (void)attributes, (void)argv, (void)environment;
    return ENOSYS;
}

static spawner *libcs_pidfd_spawn(void)
{
    static spawner *found;
    if (!found) {
        spawner *libcs = (spawner *)dlsym(RTLD_NEXT, "pidfd_spawn");
        found = libcs ? libcs : none;
    }
    return found;
}

EXPORT int pidfd_spawn(int *pidfd, const char *path, const posix_spawn_file_actions_t *actions,
                       const posix_spawnattr_t *attributes, char *const argv[], char *const environment[])
{
    (void)ME;
    return spawn(libcs_pidfd_spawn(), pidfd, path, actions, attributes, argv, environment);
}

EXPORT int pidfd_spawnp(int *pidfd, const char *file, const posix_spawn_file_actions_t *actions,
                        const posix_spawnattr_t *attributes, char *const argv[], char *const environment[])
{
    (void)ME;
    return spawn_in_path(libcs_pidfd_spawn(), pidfd, file, actions, attributes, argv, environment);
}
