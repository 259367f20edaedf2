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

/* What the new file is, and whether it can become the copy: 1 if the lower's is somebody else's, or one with attributes. */
static long look_at_both(const struct cow_walk *w, int source, int target, struct statx *made)
{
    const long result = SYS(SYS_statx, target, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS | STATX_BTIME, made);
    if (result < 0)
        return result;
    return made->stx_uid != w->stat.st_uid || made->stx_gid != w->stat.st_gid || SYS(SYS_flistxattr, source, NULL, 0) > 0;
}

/* Mode and times as the lower's. */
static long set_attributes(const struct cow_walk *w, int target, const struct statx *made)
{
    const struct timespec times[2] = { w->stat.st_atim, w->stat.st_mtim };
    const long result = made->stx_mode != w->stat.st_mode ? SYS(SYS_fchmod, target, w->stat.st_mode & 07777) : 0;
    return result < 0 ? result : SYS(SYS_utimensat, target, NULL, times, 0);
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

static long mtime_of(const struct cow_walk *w, const char *directory, struct timespec *mtime)
{
    struct stat st;
    uint32_t changes;
    if (cow_time_find(w->tree, w->directory, mtime, &changes))
        return 0;
    const long result = cow_lstat(w->asker, directory, &st);
    if (result < 0)
        return result;
    *mtime = st.st_mtim;
    cow_time_put(w->tree, w->directory, mtime, changes);
    return 0;
}

/* Two that were opened one after the other have neighbouring numbers, mostly: then nothing else lies between them. */
static void close_both(int *one, int *other)
{
    const int first = *one < *other ? *one : *other, last = *one < *other ? *other : *one;
    if (last - first != 1 || SYS(SYS_close_range, first, last, 0) < 0) {
        SYS(SYS_close, first);
        SYS(SYS_close, last);
    }
    *one = *other = -1;
}

long cow_copy_quick(struct cow_walk *w, const char *from, const char *parent, int empty)
{
    const struct cow_asker *asker = w->asker;
    struct cow_walk *CLEANUP_WALK s = cow_walk_new(asker); /* its buffers */
    struct statx stx;
    struct stat made = w->stat;
    struct timespec before;
    if (!s || w->tree->work_length + 8 > sizeof s->real)
        return 1;
    memcpy(s->link, w->tree->work, w->tree->work_length);
    memcpy(s->link + w->tree->work_length, "/tmp", 5);
    COW_CLEANUP_FD int target = (int)SYS(SYS_openat, AT_PATH(asker, s->link), O_WRONLY | O_TMPFILE | O_CLOEXEC, w->stat.st_mode & 07777);
    if (target < 0)
        return 1;
    COW_CLEANUP_FD int opened = -1;
    if (w->source < 0)
        opened = (int)SYS(SYS_openat, AT_PATH(asker, from), O_RDONLY | O_NOATIME | O_CLOEXEC | O_NOFOLLOW, 0);
    const int source = w->source >= 0 ? w->source : opened;
    if (source < 0)
        return 1;
    long result = look_at_both(w, source, target, &stx);
    if (result == 0 && !empty)
        result = copy_content(source, target, &w->stat, s->view, sizeof s->view + sizeof s->real);
    if (result == 0)
        result = set_attributes(w, target, &stx);
    if (result == 0)
        result = mtime_of(w, parent, &before);
    if (result)
        return result;
    made.st_dev = w->tree->layer[0].dev;
    made.st_ino = stx.stx_ino;
    made.st_size = empty ? 0 : made.st_size;
    cow_origin_born(w->tree, &made, &w->stat, stx.stx_mask & STATX_BTIME ? (uint64_t)stx.stx_btime.tv_sec * 1000000000u + stx.stx_btime.tv_nsec : 0);
    result = give_name(w, target);
    if (result < 0)
        return result == -EEXIST ? result : 1; /* the long way tells, and knows how to force a directory */
    cow_keep_mtime(asker, parent, &before);
    if (w->source >= 0)
        close_both(&w->source, &target);
    w->stat = made;
    w->copied = 1;
    return 0;
}
