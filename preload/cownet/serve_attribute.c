/* Changing what a file is apart from its content and names: mode, owner, times, extended attributes. Through a
   descriptor, too: one of a lower file is first replaced by one of its copy. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <linux/limits.h>
#include <unistd.h>
#include <utime.h>

#include "../common/sys.h"
#include "caller.h"
#include "serve.h"

/* A descriptor of our own for the file that the caller's descriptor is of, which may be changed; or -errno. */
static int changeable(struct caller *caller, int fd)
{
    char view[PATH_MAX];
    const long error = caller_enter(caller, 0);
    if (error < 0)
        return (int)error;
    if (cow_fd_is_lower(&caller->asker, fd, view) <= 0)
        return caller_fd(caller, fd);
    const int copy = (int)cow_reopen_upper(&caller->asker, fd);
    if (copy < 0)
        return (int)serve_refuse(caller, view, -copy, "the descriptor's file in the lower cannot be copied up");
    /* It goes on where the other one was. */
    CLEANUP_FD int before = caller_fd(caller, fd);
    const off_t at = before < 0 ? 0 : lseek(before, 0, SEEK_CUR);
    if (before >= 0)
        fcntl(copy, F_SETFL, fcntl(before, F_GETFL));
    if (at > 0)
        lseek(copy, at, SEEK_SET);
    const int ours = fcntl(copy, F_DUPFD_CLOEXEC, 0);
    const int failed = ours < 0 ? -errno : 0;
    const long put = serve_put_fd(caller, copy, fd);
    if (put < 0 && ours >= 0)
        close(ours);
    return put < 0 ? (int)put : failed < 0 ? failed : ours;
}

static long result(long value)
{
    return value < 0 ? -errno : value;
}

static long change_mode(struct caller *caller, int dirfd, const char *path, mode_t mode, int flags)
{
    const long error = caller_enter(caller, 0);
    return error < 0 ? error : cow_fchmodat(&caller->asker, dirfd, path, mode, flags);
}

long serve_fchmodat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 1, path);
    return change_mode(caller, ARG_INT(caller, 0), path, (mode_t)ARG(caller, 2), 0);
}

long serve_fchmodat2(struct caller *caller)
{
    PATH_ARGUMENT(caller, 1, path);
    return change_mode(caller, ARG_INT(caller, 0), path, (mode_t)ARG(caller, 2), ARG_INT(caller, 3));
}

long serve_fchmod(struct caller *caller)
{
    CLEANUP_FD int fd = changeable(caller, ARG_INT(caller, 0));
    return fd < 0 ? fd : result(fchmod(fd, (mode_t)ARG(caller, 1)));
}

static long change_owner(struct caller *caller, int dirfd, const char *path, int first, int flags)
{
    const long error = caller_enter(caller, 0);
    return error < 0 ? error : cow_fchownat(&caller->asker, dirfd, path, (uid_t)ARG(caller, first), (gid_t)ARG(caller, first + 1), flags);
}

long serve_fchownat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 1, path);
    return change_owner(caller, ARG_INT(caller, 0), path, 2, ARG_INT(caller, 4));
}

long serve_fchown(struct caller *caller)
{
    CLEANUP_FD int fd = changeable(caller, ARG_INT(caller, 0));
    return fd < 0 ? fd : result(fchown(fd, (uid_t)ARG(caller, 1), (gid_t)ARG(caller, 2)));
}

/* `path` NULL: the descriptor's own times. */
static long change_times(struct caller *caller, int dirfd, const char *path, const struct timespec *times, int flags)
{
    if (path) {
        const long error = caller_enter(caller, 0);
        return error < 0 ? error : cow_utimensat(&caller->asker, dirfd, path, times, flags);
    }
    CLEANUP_FD int fd = changeable(caller, dirfd);
    return fd < 0 ? fd : result(futimens(fd, times));
}

long serve_utimensat(struct caller *caller)
{
    struct timespec times[2];
    char path[PATH_MAX];
    const int has_path = ARG(caller, 1) != 0, has_times = ARG(caller, 2) != 0;
    const long error = has_path ? serve_path(caller, 1, path) : 0;
    if (error < 0)
        return error;
    if (has_times && caller_read(caller, ARG(caller, 2), times, sizeof times) < 0)
        return -EFAULT;
    return change_times(caller, ARG_INT(caller, 0), has_path ? path : NULL, has_times ? times : NULL, ARG_INT(caller, 3));
}

#ifdef __x86_64__
/* Of microseconds, as utimes(2) and futimesat(2) have them. 1: there are times, 0: there are none; or -errno. */
static long read_times(struct caller *caller, int number, struct timespec times[2])
{
    struct timeval given[2];
    if (ARG(caller, number) == 0)
        return 0;
    if (caller_read(caller, ARG(caller, number), given, sizeof given) < 0)
        return -EFAULT;
    for (int i = 0; i < 2; i++) {
        if (given[i].tv_usec < 0 || given[i].tv_usec >= 1000000)
            return -EINVAL;
        times[i] = (struct timespec){ given[i].tv_sec, given[i].tv_usec * 1000 };
    }
    return 1;
}

long serve_futimesat(struct caller *caller)
{
    struct timespec times[2];
    char path[PATH_MAX];
    const int has_path = ARG(caller, 1) != 0;
    const long has_times = read_times(caller, 2, times);
    const long error = has_path ? serve_path(caller, 1, path) : 0;
    if (has_times < 0 || error < 0)
        return has_times < 0 ? has_times : error;
    return change_times(caller, ARG_INT(caller, 0), has_path ? path : NULL, has_times ? times : NULL, 0);
}

long serve_utimes(struct caller *caller)
{
    struct timespec times[2];
    const long has_times = read_times(caller, 1, times);
    PATH_ARGUMENT(caller, 0, path);
    return has_times < 0 ? has_times : change_times(caller, AT_FDCWD, path, has_times ? times : NULL, 0);
}

long serve_utime(struct caller *caller)
{
    struct utimbuf given;
    const int has_times = ARG(caller, 1) != 0;
    PATH_ARGUMENT(caller, 0, path);
    if (has_times && caller_read(caller, ARG(caller, 1), &given, sizeof given) < 0)
        return -EFAULT;
    const struct timespec times[2] = { { has_times ? given.actime : 0, 0 }, { has_times ? given.modtime : 0, 0 } };
    return change_times(caller, AT_FDCWD, path, has_times ? times : NULL, 0);
}

long serve_chmod(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return change_mode(caller, AT_FDCWD, path, (mode_t)ARG(caller, 1), 0);
}

long serve_chown(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return change_owner(caller, AT_FDCWD, path, 1, 0);
}

long serve_lchown(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return change_owner(caller, AT_FDCWD, path, 1, AT_SYMLINK_NOFOLLOW);
}
#endif

static __thread char value[XATTR_SIZE_MAX];

/* Arguments: path or descriptor, name, value, size. */
static long read_attribute(struct caller *caller, char name[XATTR_NAME_MAX + 2])
{
    const size_t size = ARG(caller, 3);
    const long error = caller_string(caller, ARG(caller, 1), name, XATTR_NAME_MAX + 2);
    if (error < 0)
        return error == -ENAMETOOLONG ? -ERANGE : error;
    if (size > sizeof value)
        return -E2BIG;
    return caller_read(caller, ARG(caller, 2), value, size);
}

static long set_attribute(struct caller *caller, int nofollow)
{
    char name[XATTR_NAME_MAX + 2];
    PATH_ARGUMENT(caller, 0, path);
    long error = read_attribute(caller, name);
    if (error == 0)
        error = caller_enter(caller, 0);
    return error < 0 ? error : cow_setxattr(&caller->asker, path, name, value, ARG(caller, 3), ARG_INT(caller, 4), nofollow);
}

long serve_setxattr(struct caller *caller)
{
    return set_attribute(caller, 0);
}

long serve_lsetxattr(struct caller *caller)
{
    return set_attribute(caller, 1);
}

/* In a tree the attributes of the upper's format are not the caller's to change. */
static int is_ours(const struct caller *caller, const char *name)
{
    char link[64], real[PATH_MAX];
    if (strncmp(name, "user.overlay.", 13) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", ARG_INT(caller, 0));
    return cow_real_path(&caller->asker, AT_FDCWD, link, COW_INSIDE, real) != -EXDEV;
}

long serve_fsetxattr(struct caller *caller)
{
    char name[XATTR_NAME_MAX + 2];
    const long error = read_attribute(caller, name);
    if (error < 0 || is_ours(caller, name))
        return error < 0 ? error : -EPERM;
    CLEANUP_FD int fd = changeable(caller, ARG_INT(caller, 0));
    return fd < 0 ? fd : result(fsetxattr(fd, name, value, ARG(caller, 3), ARG_INT(caller, 4)));
}

static long remove_attribute(struct caller *caller, int nofollow)
{
    char name[XATTR_NAME_MAX + 2];
    PATH_ARGUMENT(caller, 0, path);
    long error = caller_string(caller, ARG(caller, 1), name, sizeof name);
    if (error >= 0)
        error = caller_enter(caller, 0);
    return error < 0 ? error : cow_removexattr(&caller->asker, path, name, nofollow);
}

long serve_removexattr(struct caller *caller)
{
    return remove_attribute(caller, 0);
}

long serve_lremovexattr(struct caller *caller)
{
    return remove_attribute(caller, 1);
}

long serve_fremovexattr(struct caller *caller)
{
    char name[XATTR_NAME_MAX + 2];
    const long error = caller_string(caller, ARG(caller, 1), name, sizeof name);
    if (error < 0 || is_ours(caller, name))
        return error < 0 ? error : -EPERM;
    CLEANUP_FD int fd = changeable(caller, ARG_INT(caller, 0));
    return fd < 0 ? fd : result(fremovexattr(fd, name));
}
