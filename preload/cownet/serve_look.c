/* Looking: what a path is, what it links to, what a directory holds. The answers are written to the caller's memory. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <linux/limits.h>

#include "../common/sys.h"
#include "caller.h"
#include "serve.h"

/* The caller's descriptor, to look at only; it may be of anything, a pipe as well. Or -errno. */
static int look_at(const struct caller *caller, int fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", caller->asker.tid, fd);
    const int ours = open(path, O_PATH | O_CLOEXEC);
    return ours >= 0 ? ours : errno == ENOENT ? -EBADF : -errno;
}

static int is_descriptor(int dirfd, const char *path, int flags)
{
    return flags & AT_EMPTY_PATH && path[0] == 0 && dirfd != AT_FDCWD;
}

static long give_stat(struct caller *caller, int dirfd, const char *path, int flags, int buffer)
{
    struct stat info;
    long result = caller_enter(caller, 0);
    if (result == 0 && is_descriptor(dirfd, path, flags)) {
        CLEANUP_FD int ours = look_at(caller, dirfd);
        result = ours < 0 ? ours : fstat(ours, &info) < 0 ? -errno : 0;
        if (result == 0)
            cow_fix_stat(caller->asker.set, ours, &info);
    } else if (result == 0) {
        result = cow_fstatat(&caller->asker, dirfd, path, &info, flags);
    }
    return result < 0 ? result : caller_write(caller, ARG(caller, buffer), &info, sizeof info);
}

#ifdef __x86_64__
long serve_stat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return give_stat(caller, AT_FDCWD, path, 0, 1);
}

long serve_lstat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return give_stat(caller, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, 1);
}
#endif

long serve_fstat(struct caller *caller)
{
    return give_stat(caller, ARG_INT(caller, 0), "", AT_EMPTY_PATH, 1);
}

/* Where the path may be empty for the descriptor itself, it may also be NULL (Linux 6.11). */
static int is_empty(const struct caller *caller, int number, int flags)
{
    return flags & AT_EMPTY_PATH && ARG(caller, number) == 0;
}

static long path_or_empty(struct caller *caller, int number, int flags, char *path)
{
    path[0] = 0;
    return is_empty(caller, number, flags) ? 0 : serve_path(caller, number, path);
}

long serve_fstatat(struct caller *caller)
{
    char path[PATH_MAX];
    const long error = path_or_empty(caller, 1, ARG_INT(caller, 3), path);
    return error < 0 ? error : give_stat(caller, ARG_INT(caller, 0), path, ARG_INT(caller, 3), 2);
}

long serve_statx(struct caller *caller)
{
    struct statx info;
    char path[PATH_MAX];
    const int flags = ARG_INT(caller, 2);
    const unsigned mask = (unsigned)ARG(caller, 3);
    long result = path_or_empty(caller, 1, flags, path);
    if (result >= 0)
        result = caller_enter(caller, 0);
    if (result == 0 && is_descriptor(ARG_INT(caller, 0), path, flags)) {
        CLEANUP_FD int ours = look_at(caller, ARG_INT(caller, 0));
        result = ours < 0 ? ours : statx(ours, "", flags, mask, &info) < 0 ? -errno : 0;
        if (result == 0)
            cow_fix_statx(caller->asker.set, ours, &info);
    } else if (result == 0) {
        result = cow_statx(&caller->asker, ARG_INT(caller, 0), path, flags, mask, &info);
    }
    return result < 0 ? result : caller_write(caller, ARG(caller, 4), &info, sizeof info);
}

long serve_statfs(struct caller *caller)
{
    struct statfs info;
    PATH_ARGUMENT(caller, 0, path);
    long result = caller_enter(caller, 0);
    if (result == 0)
        result = cow_statfs(&caller->asker, path, &info);
    return result < 0 ? result : caller_write(caller, ARG(caller, 1), &info, sizeof info);
}

static long check_access(struct caller *caller, int dirfd, int path_number, int mode, int flags)
{
    char path[PATH_MAX];
    path[0] = 0;
    long result = is_empty(caller, path_number, flags) ? 0 : serve_path_to_look(caller, path_number, path);
    if (result >= 0)
        result = caller_enter(caller, 0);
    return result < 0 ? result : cow_faccessat(&caller->asker, dirfd, path, mode, flags);
}

#ifdef __x86_64__
long serve_access(struct caller *caller)
{
    return check_access(caller, AT_FDCWD, 0, ARG_INT(caller, 1), 0);
}
#endif

long serve_faccessat(struct caller *caller)
{
    return check_access(caller, ARG_INT(caller, 0), 1, ARG_INT(caller, 2), 0);
}

long serve_faccessat2(struct caller *caller)
{
    return check_access(caller, ARG_INT(caller, 0), 1, ARG_INT(caller, 2), ARG_INT(caller, 3));
}

static long read_link(struct caller *caller, int dirfd, const char *path, int buffer)
{
    char target[PATH_MAX];
    const int size = ARG_INT(caller, buffer + 1);
    if (size <= 0)
        return -EINVAL;
    caller->asker.pid = caller_pid(caller); /* which /proc/self tells */
    long result = caller_enter(caller, 0);
    if (result == 0)
        result = cow_readlinkat(&caller->asker, dirfd, path, target, (size_t)size < sizeof target ? (size_t)size : sizeof target);
    if (result < 0)
        return result;
    const long error = caller_write(caller, ARG(caller, buffer), target, (size_t)result);
    return error < 0 ? error : result;
}

#ifdef __x86_64__
long serve_readlink(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return read_link(caller, AT_FDCWD, path, 1);
}
#endif

long serve_readlinkat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 1, path);
    return read_link(caller, ARG_INT(caller, 0), path, 2);
}

/* The kernel's current directory is a real one, in a layer; the caller shall see where that is in the tree. */
long serve_getcwd(struct caller *caller)
{
    char link[64], real[PATH_MAX], view[PATH_MAX];
    snprintf(link, sizeof link, "/proc/%d/cwd", caller->asker.tid);
    const ssize_t got = readlink(link, real, sizeof real - 1);
    if (got < 0)
        return -errno;
    real[got] = 0;
    if (got > 10 && strcmp(real + got - 10, " (deleted)") == 0)
        return -ENOENT;
    const long length = cow_view_of(caller->asker.set, real, view);
    if (length < 0)
        return length;
    if ((size_t)length + 1 > ARG(caller, 1))
        return -ERANGE;
    const long error = caller_write(caller, ARG(caller, 0), view, (size_t)length + 1);
    return error < 0 ? error : length + 1;
}

static __thread char attributes[XATTR_SIZE_MAX];

static long get_attribute(struct caller *caller, int nofollow)
{
    char name[XATTR_NAME_MAX + 2];
    const size_t size = ARG(caller, 3);
    PATH_ARGUMENT(caller, 0, path);
    long result = caller_string(caller, ARG(caller, 1), name, sizeof name);
    if (result < 0)
        return result == -ENAMETOOLONG ? -ERANGE : result;
    if ((result = caller_enter(caller, 0)) == 0)
        result = cow_getxattr(&caller->asker, path, name, size ? attributes : NULL, size < sizeof attributes ? size : sizeof attributes, nofollow);
    if (result <= 0 || size == 0)
        return result;
    const long error = caller_write(caller, ARG(caller, 2), attributes, (size_t)result);
    return error < 0 ? error : result;
}

long serve_getxattr(struct caller *caller)
{
    return get_attribute(caller, 0);
}

long serve_lgetxattr(struct caller *caller)
{
    return get_attribute(caller, 1);
}

static long list_attributes(struct caller *caller, int nofollow)
{
    const size_t size = ARG(caller, 2);
    PATH_ARGUMENT(caller, 0, path);
    long result = caller_enter(caller, 0);
    if (result == 0)
        result = cow_listxattr(&caller->asker, path, size ? attributes : NULL, size < sizeof attributes ? size : sizeof attributes, nofollow);
    if (result <= 0 || size == 0)
        return result;
    const long error = caller_write(caller, ARG(caller, 1), attributes, (size_t)result);
    return error < 0 ? error : result;
}

long serve_listxattr(struct caller *caller)
{
    return list_attributes(caller, 0);
}

long serve_llistxattr(struct caller *caller)
{
    return list_attributes(caller, 1);
}
