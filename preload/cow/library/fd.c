/* Calls by descriptor that change an inode though the descriptor was opened for reading. */
#define _GNU_SOURCE
#include <linux/fs.h>
#include <linux/fsverity.h>
#include <sys/ioctl.h>

#include "library.h"

static long put_over(int fd, long copy)
{
    const long flags = SYS(SYS_fcntl, fd, F_GETFD);
    long result = SYS(SYS_dup3, copy, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0);
    SYS(SYS_close, copy);
    return result < 0 ? result : 0;
}

long pl_own(int fd)
{
    struct stat st;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w)
        return -ENOMEM;
    long result = cow_fd_is_lower(ME, fd, w->link);
    if (result <= 0)
        return result;
    if ((result = SYS(SYS_fstat, fd, &st)) < 0)
        return result;
    const uid_t uid = (uid_t)SYS(SYS_geteuid);
    if (uid != 0 && uid != st.st_uid)
        return -EPERM;
    result = cow_reopen_upper(ME, fd);
    if (result == -EROFS)
        cow_refused(ME->set, "a change by descriptor", w->link, "the view has no such file any more");
    return result < 0 ? result : put_over(fd, result);
}

long pl_fstat(int fd, struct stat *st)
{
    const struct cow_asker *me = ME;
    long result = SYS(SYS_fstat, fd, st);
    if (result == 0)
        cow_fix_stat(me->set, fd, st);
    return result;
}

/* In a tree these attributes are ours; elsewhere they may be those of somebody's overlay. */
static int is_ours(int fd, const char *name)
{
    if (strncmp(name, "user.overlay.", 13) != 0)
        return 0;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    return !w || cow_walk_path(w, fd, "", WALK_EMPTY) < 0 || w->tree;
}

long pl_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    long result = is_ours(fd, name) ? -EPERM : pl_own(fd);
    return result < 0 ? result : SYS(SYS_fsetxattr, fd, name, value, size, flags);
}

long pl_fremovexattr(int fd, const char *name)
{
    long result = is_ours(fd, name) ? -EPERM : pl_own(fd);
    return result < 0 ? result : SYS(SYS_fremovexattr, fd, name);
}

long pl_fgetxattr(int fd, const char *name, void *value, size_t size)
{
    return is_ours(fd, name) ? -ENODATA : SYS(SYS_fgetxattr, fd, name, value, size);
}

long pl_flistxattr(int fd, char *list, size_t size)
{
    char names[4096];
    long result = SYS(SYS_flistxattr, fd, names, sizeof names);
    if (result <= 0)
        return result == -ERANGE ? SYS(SYS_flistxattr, fd, list, size) : result;
    size_t used = 0;
    for (const char *name = names, *end = names + result; name < end;) {
        const size_t length = strlen(name) + 1;
        if (!is_ours(fd, name)) {
            memmove(names + used, name, length);
            used += length;
        }
        name += length;
    }
    if (size && used > size)
        return -ERANGE;
    if (size)
        memcpy(list, names, used);
    return (long)used;
}

long pl_utimes(int dirfd, const char *path, const struct timeval times[2], int flags)
{
    if (!times)
        return cow_utimensat(ME, dirfd, path, NULL, flags);
    if (times[0].tv_usec < 0 || times[0].tv_usec > 999999 || times[1].tv_usec < 0 || times[1].tv_usec > 999999)
        return -EINVAL;
    const struct timespec fine[2] = { { times[0].tv_sec, times[0].tv_usec * 1000 },
                                      { times[1].tv_sec, times[1].tv_usec * 1000 } };
    return cow_utimensat(ME, dirfd, path, fine, flags);
}

long pl_utime(const char *path, const struct utimbuf *times)
{
    const struct timespec fine[2] = { { times ? times->actime : 0, 0 }, { times ? times->modtime : 0, 0 } };
    return cow_utimensat(ME, AT_FDCWD, path, times ? fine : NULL, 0);
}

long pl_futimes(int fd, const struct timeval times[2])
{
    const struct timespec fine[2] = { { times ? times[0].tv_sec : 0, times ? times[0].tv_usec * 1000 : 0 },
                                      { times ? times[1].tv_sec : 0, times ? times[1].tv_usec * 1000 : 0 } };
    long result = pl_own(fd);
    return result < 0 ? result : SYS(SYS_utimensat, fd, NULL, times ? fine : NULL, 0);
}

long pl_name_to_handle(int dirfd, const char *path, struct file_handle *handle, int *mount, int flags)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w)
        return -ENOMEM;
    if ((flags & AT_EMPTY_PATH) && path && !*path)
        return SYS(SYS_name_to_handle_at, dirfd, path, handle, mount, flags);
    long result = cow_real_path(ME, dirfd, path, flags & AT_SYMLINK_FOLLOW ? 0 : COW_NOFOLLOW, w->real);
    return result < 0 ? result : SYS(SYS_name_to_handle_at, AT_FDCWD, w->real, handle, mount, flags);
}

/* A handle names an inode, past all paths: a lower's may be read. */
long pl_open_by_handle(int mount, struct file_handle *handle, int flags)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w)
        return -ENOMEM;
    const int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
    COW_CLEANUP_FD int peek = writes ? (int)SYS(SYS_open_by_handle_at, mount, handle, O_PATH | O_CLOEXEC) : -1;
    if (writes && peek < 0)
        return peek;
    long result = writes ? cow_fd_is_lower(ME, peek, w->link) : 0;
    if (result == 1) {
        cow_refused(ME->set, "open_by_handle_at", w->link, "a handle of the original's file cannot be opened for writing");
        return -EROFS;
    }
    return result < 0 ? result : SYS(SYS_open_by_handle_at, mount, handle, flags);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
    va_list more;
    va_start(more, request);
    void *argument = va_arg(more, void *);
    va_end(more);
    switch (request) {
    case FS_IOC_SETFLAGS:
    case FS_IOC_FSSETXATTR:
    case FS_IOC_SETVERSION:
    case FS_IOC_ENABLE_VERITY:
    case FS_IOC_SET_ENCRYPTION_POLICY:
    case FS_IOC_SETFSLABEL: {
        char view[PATH_MAX];
        long result = cow_fd_is_lower(ME, fd, view);
        if (result == 1) {
            cow_refused(ME->set, "ioctl", view, "would change the original's inode");
            result = -EROFS;
        }
        if (result < 0)
            return (int)pl_result(result);
        break;
    }
    default:
        break;
    }
    return (int)pl_result(SYS(SYS_ioctl, fd, request, argument));
}
