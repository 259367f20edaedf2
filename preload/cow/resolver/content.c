/* A file's content, and the usual copy-up: of a regular file with one name and no attributes, by way of a file without a
   name, which a kill leaves nothing of. */
#define _GNU_SOURCE
#include <linux/fs.h>
#include <linux/stat.h>

#include "internal.h"

enum { CHUNK = 1 << 30 };

static long copy_plain(int from, int to, off_t at, off_t end, char *buffer, size_t size)
{
    while (at < end) {
        long got = SYS(SYS_pread64, from, buffer, end - at > (off_t)size ? size : (size_t)(end - at), at);
        long put = got > 0 ? SYS(SYS_pwrite64, to, buffer, got, at) : got;
        if (put <= 0)
            return put || !got ? put : -EIO;
        at += put;
    }
    return 0;
}

static long copy_within_kernel(int from, int to, off_t size)
{
    off_t at = 0;
    while (at < size) {
        long got = SYS(SYS_sendfile, to, from, &at, size - at > CHUNK ? CHUNK : size - at);
        if (got <= 0)
            return got;
    }
    return 0;
}

/* Content, with its holes. */
static long copy_content(int from, int to, const struct stat *st, char *buffer, size_t size)
{
    if (st->st_size <= (off_t)size)
        return copy_plain(from, to, 0, st->st_size, buffer, size);
    if (SYS(SYS_ioctl, to, FICLONE, from) == 0)
        return 0;
    if (st->st_blocks * 512 >= st->st_size) {
        long result = copy_within_kernel(from, to, st->st_size);
        return result != -EINVAL ? result : copy_plain(from, to, 0, st->st_size, buffer, size);
    }
    for (off_t hole = 0; hole < st->st_size;) {
        const off_t data = SYS(SYS_lseek, from, hole, SEEK_DATA);
        if (data == -ENXIO)
            break;
        hole = data < 0 ? data : SYS(SYS_lseek, from, data, SEEK_HOLE);
        if (hole < 0)
            return copy_plain(from, to, 0, st->st_size, buffer, size);
        long result = copy_plain(from, to, data, hole, buffer, size);
        if (result < 0)
            return result;
    }
    return SYS(SYS_ftruncate, to, st->st_size);
}

long cow_copy_file(const struct cow_walk *w, const char *from, const char *temporary, int empty)
{
    const struct cow_asker *asker = w->asker;
    struct cow_walk *CLEANUP_WALK s = cow_walk_new(asker); /* its buffers */
    COW_CLEANUP_FD int source = -1;
    if (!s)
        return -ENOMEM;
    if (!empty) {
        source = (int)SYS(SYS_openat, AT_PATH(asker, from), O_RDONLY | O_NOATIME | O_CLOEXEC | O_NOFOLLOW, 0);
        if (source == -EPERM)
            source = (int)SYS(SYS_openat, AT_PATH(asker, from), O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
        if (source < 0)
            return source;
    }
    COW_CLEANUP_FD int target =
        (int)SYS(SYS_openat, AT_PATH(asker, temporary), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (target < 0)
        return target;
    return empty ? 0 : copy_content(source, target, &w->stat, s->view, sizeof s->view + sizeof s->real);
}

/* Owner, mode and times of the copy as the lower's. 1: somebody else's file, or one with attributes. */
static long set_attributes(const struct cow_walk *w, int source, int target, struct stat *made, uint64_t *born)
{
    struct statx stx;
    const struct timespec times[2] = { w->stat.st_atim, w->stat.st_mtim };
    long result = SYS(SYS_statx, target, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS | STATX_BTIME, &stx);
    if (result < 0)
        return result;
    if (stx.stx_uid != w->stat.st_uid || stx.stx_gid != w->stat.st_gid || SYS(SYS_flistxattr, source, NULL, 0) > 0)
        return 1;
    if (stx.stx_mode != w->stat.st_mode && (result = SYS(SYS_fchmod, target, w->stat.st_mode & 07777)) < 0)
        return result;
    if ((result = SYS(SYS_utimensat, target, NULL, times, 0)) < 0)
        return result;
    *made = w->stat;
    made->st_dev = w->tree->layer[0].dev;
    made->st_ino = stx.stx_ino;
    made->st_size = (off_t)stx.stx_size;
    *born = stx.stx_mask & STATX_BTIME ? (uint64_t)stx.stx_btime.tv_sec * 1000000000u + stx.stx_btime.tv_nsec : 0;
    return 0;
}

static long give_name(const struct cow_walk *w, int target)
{
    char proc[64];
    const struct cow_asker own = { w->asker->set, AT_FDCWD, 0, 0, NULL };
    long result = SYS(SYS_linkat, target, "", AT_PATH(w->asker, w->real), AT_EMPTY_PATH);
    if (result != -ENOENT && result != -EPERM)
        return result;
    cow_proc_path(&own, "/fd/", target, proc);
    return SYS(SYS_linkat, AT_FDCWD, proc, AT_PATH(w->asker, w->real), AT_SYMLINK_FOLLOW);
}

long cow_copy_quick(struct cow_walk *w, const char *from, const char *parent, int empty)
{
    const struct cow_asker *asker = w->asker;
    struct cow_walk *CLEANUP_WALK s = cow_walk_new(asker); /* its buffers */
    struct stat before, made;
    uint64_t born;
    if (!s || w->tree->work_length + 8 > sizeof s->real)
        return 1;
    memcpy(s->link, w->tree->work, w->tree->work_length);
    memcpy(s->link + w->tree->work_length, "/tmp", 5);
    COW_CLEANUP_FD int target = (int)SYS(SYS_openat, AT_PATH(asker, s->link), O_WRONLY | O_TMPFILE | O_CLOEXEC, w->stat.st_mode & 07777);
    if (target < 0)
        return 1;
    COW_CLEANUP_FD int source = (int)SYS(SYS_openat, AT_PATH(asker, from), O_RDONLY | O_NOATIME | O_CLOEXEC | O_NOFOLLOW, 0);
    if (source < 0)
        return 1;
    long result = empty ? 0 : copy_content(source, target, &w->stat, s->view, sizeof s->view + sizeof s->real);
    if (result == 0)
        result = set_attributes(w, source, target, &made, &born);
    if (result == 0)
        result = cow_lstat(asker, parent, &before);
    if (result)
        return result;
    cow_origin_born(w->tree, &made, &w->stat, born);
    result = give_name(w, target);
    if (result < 0)
        return result == -EEXIST ? result : 1; /* the long way tells, and knows how to force a directory */
    cow_keep_mtime(asker, parent, &before);
    w->stat = made;
    w->copied = 1;
    return 0;
}
