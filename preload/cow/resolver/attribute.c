/* Calls that change what a path names, or ask for its real path: modes, owners, times, size, xattrs; and descriptors of
   lower files, by which their inodes could be changed. */
#define _GNU_SOURCE
#include <unistd.h>

#include "internal.h"

/* 0 if the asker owns the file (or is root), else -EPERM: as a copy, it would be his. */
static long must_own(const struct cow_walk *w)
{
    const uid_t uid = (uid_t)SYS(SYS_geteuid);
    return uid == 0 || w->stat.st_uid == uid ? 0 : -EPERM;
}

/* What a change asks of the lower's file before there is a copy: nothing, to own it,
   to be allowed to write it, or one of both. */
enum need { NEED_NOTHING, NEED_OWNER, NEED_WRITE, NEED_TOUCH };

static long allowed(const struct cow_walk *w, enum need need)
{
    long result = 0;
    if (need == NEED_OWNER || need == NEED_TOUCH)
        result = must_own(w);
    if (need == NEED_WRITE || (need == NEED_TOUCH && result < 0))
        result = cow_may(w->asker, w->real, &w->stat, W_OK);
    return result;
}

/* Walks to what is to be changed; w->real is then its path, in upper if it is in a tree. */
static long to_change(struct cow_walk *w, int dirfd, const char *path, int walk_flags, enum need need, int empty)
{
    long result = -COW_AGAIN;
    for (int i = 0; i < COW_TRIES && result == -COW_AGAIN; i++) {
        if ((result = cow_walk_path(w, dirfd, path, walk_flags)) < 0)
            return result;
        if (w->magic) {
            memcpy(w->real, w->view, w->length + 1);
            return 0;
        }
        if (w->kind == COW_ABSENT)
            return -ENOENT;
        if (w->tree && !w->tree->work)
            return -EROFS;
        if (w->tree && w->layer > 0) {
            if ((result = cow_found_path(w)) < 0)
                return result;
            if ((result = allowed(w, need)) < 0)
                return result;
            result = cow_copy_up(w, empty);
        }
        if (result >= 0)
            result = cow_found_path(w);
    }
    return result < 0 ? cow_settled(result) : 0;
}

/* An empty path with AT_EMPTY_PATH is the descriptor itself: as a path, its link in /proc. */
static const char *descriptor_path(const struct cow_asker *asker, int dirfd, const char *path, int *flags, char proc[64])
{
    if (!(*flags & AT_EMPTY_PATH) || !path || *path)
        return path;
    cow_proc_path(asker, dirfd == AT_FDCWD ? "/cwd" : "/fd/", dirfd == AT_FDCWD ? -1 : dirfd, proc);
    *flags &= ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW);
    return proc;
}

long cow_fchmodat(const struct cow_asker *asker, int dirfd, const char *path, mode_t mode, int flags)
{
    char proc[64];
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    if (!w)
        return -ENOMEM;
    path = descriptor_path(asker, dirfd, path, &flags, proc);
    long result = cow_walk_path(w, dirfd, path, flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0);
    if (result < 0)
        return result;
    if (!w->magic && w->kind == COW_OTHER && S_ISLNK(w->stat.st_mode))
        return -EOPNOTSUPP;
    result = to_change(w, dirfd, path, flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0, NEED_OWNER, 0);
    if (result < 0)
        return result;
    return w->magic ? SYS(SYS_fchmodat, AT_PATH(asker, w->real), mode) : cow_settled(cow_chmod(asker, w->real, mode));
}

long cow_fchownat(const struct cow_asker *asker, int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
    char proc[64];
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    if (!w)
        return -ENOMEM;
    path = descriptor_path(asker, dirfd, path, &flags, proc);
    long result = to_change(w, dirfd, path, flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0, NEED_OWNER, 0);
    if (result < 0)
        return result;
    return SYS(SYS_fchownat, AT_PATH(asker, w->real), uid, gid, w->magic ? 0 : AT_SYMLINK_NOFOLLOW);
}

long cow_utimensat(const struct cow_asker *asker, int dirfd, const char *path, const struct timespec times[2], int flags)
{
    COW_CHANGES(asker, 1);
    char proc[64];
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    if (!w)
        return -ENOMEM;
    path = descriptor_path(asker, dirfd, path, &flags, proc);
    const int now = !times || (times[0].tv_nsec == UTIME_NOW && times[1].tv_nsec == UTIME_NOW);
    long result = to_change(w, dirfd, path, flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0,
                            now ? NEED_TOUCH : NEED_OWNER, 0);
    if (result < 0)
        return result;
    return SYS(SYS_utimensat, AT_PATH(asker, w->real), times, w->magic ? 0 : AT_SYMLINK_NOFOLLOW);
}

long cow_truncate(const struct cow_asker *asker, const char *path, off_t length)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    if (length < 0)
        return -EINVAL;
    long result = cow_walk_path(w, AT_FDCWD, path, 0);
    if (result < 0)
        return result;
    if (w->kind == COW_DIRECTORY)
        return -EISDIR;
    if (!w->magic && w->kind == COW_OTHER && !S_ISREG(w->stat.st_mode))
        return -EINVAL;
    result = to_change(w, AT_FDCWD, path, 0, NEED_WRITE, length == 0);
    if (result < 0)
        return result;
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_PATH(asker, w->real), O_WRONLY | O_CLOEXEC | O_NONBLOCK | (w->magic ? 0 : O_NOFOLLOW), 0);
    return fd < 0 ? fd : SYS(SYS_ftruncate, fd, length);
}

static long change_xattr(const struct cow_asker *asker, struct cow_walk *w, const char *path, const char *name, int nofollow,
                         const char **real)
{
    const int walk_flags = nofollow ? WALK_NOFOLLOW : 0;
    long result = 0;
    if (strncmp(name, "user.overlay.", 13) == 0) {
        /* In a tree they are ours; elsewhere they may be those of somebody's overlay. */
        if ((result = cow_walk_path(w, AT_FDCWD, path, walk_flags)) < 0 || w->tree)
            return result < 0 ? result : -EPERM;
    }
    result = to_change(w, AT_FDCWD, path, walk_flags, strncmp(name, "user.", 5) == 0 ? NEED_WRITE : NEED_OWNER, 0);
    *real = result < 0 ? NULL : cow_whole_path(asker, w->real, w->link);
    return result < 0 ? result : *real ? 0 : -ENAMETOOLONG;
}

long cow_setxattr(const struct cow_asker *asker, const char *path, const char *name, const void *value, size_t size,
                  int flags, int nofollow)
{
    const char *real;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    long result = change_xattr(asker, w, path, name, nofollow, &real);
    if (result < 0)
        return result;
    return SYS(w->magic ? SYS_setxattr : SYS_lsetxattr, real, name, value, size, flags);
}

long cow_removexattr(const struct cow_asker *asker, const char *path, const char *name, int nofollow)
{
    const char *real;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    long result = change_xattr(asker, w, path, name, nofollow, &real);
    return result < 0 ? result : SYS(w->magic ? SYS_removexattr : SYS_lremovexattr, real, name);
}

static long real_path(struct cow_walk *w, int dirfd, const char *path, int flags)
{
    const int walk_flags = flags & COW_NOFOLLOW ? WALK_NOFOLLOW : 0;
    long result;
    if (flags & COW_WRITE) {
        result = to_change(w, dirfd, path, walk_flags, NEED_NOTHING, 0);
        return result < 0 ? result : w->tree || !(flags & COW_INSIDE) ? 0 : -EXDEV;
    }
    if ((result = cow_walk_path(w, dirfd, path, walk_flags)) < 0)
        return result;
    if (!w->tree && (flags & COW_INSIDE))
        return -EXDEV;
    if (w->magic || !w->tree) {
        if (w->kind != COW_ABSENT && (flags & COW_CREATE))
            return -EEXIST;
        memcpy(w->real, w->length ? w->view : "/", w->length ? w->length + 1 : 2);
        return w->kind == COW_ABSENT && !(flags & COW_CREATE) ? -ENOENT : 0;
    }
    if (!(flags & COW_CREATE))
        return w->kind == COW_ABSENT ? -ENOENT : cow_found_path(w);
    if (w->kind != COW_ABSENT)
        return -EEXIST;
    if ((result = cow_may_change_parent(w)) < 0 || (result = cow_make_parents(w)) < 0)
        return result;
    cow_filter_add(w->tree, cow_hash(COW_HASH_START, w->view, w->length));
    if ((result = cow_layer_path(w, 0, w->real)) < 0)
        return result;
    if (w->whiteout) { /* the caller makes it at once; lower's name is seen for that moment */
        result = SYS(SYS_unlinkat, AT_PATH(w->asker, w->real), 0);
        return result == -ENOENT ? 0 : result;
    }
    return 0;
}

long cow_real_path(const struct cow_asker *asker, int dirfd, const char *path, int flags, char *out)
{
    COW_CHANGES(asker, flags & COW_CREATE);
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    long result = real_path(w, dirfd, path, flags);
    if (result < 0)
        return result;
    const size_t length = strlen(w->real);
    memcpy(out, w->real, length + 1);
    return (long)length;
}

/* The tree whose lower a real path lies in. */
static const struct cow_tree *lower_of(const struct cow_set *set, const char *real)
{
    for (int i = 0; i < set->count; i++)
        for (int j = 1; j < set->tree[i].layers; j++) {
            const struct cow_layer *layer = &set->tree[i].layer[j];
            if (strncmp(real, layer->path, layer->length) == 0 && (real[layer->length] == '/' || !real[layer->length]))
                return &set->tree[i];
        }
    return NULL;
}

long cow_fd_is_lower(const struct cow_asker *asker, int fd, char *out)
{
    COW_CHANGES(asker, 1); /* and futimens of a directory in upper is the asker's next call */
    char proc[64];
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    cow_proc_path(asker, "/fd/", fd, proc);
    long length = SYS(SYS_readlinkat, AT_LOOK(asker, proc), w->real, sizeof w->real - 1);
    if (length < 0)
        return length == -ENOENT ? -EBADF : length;
    w->real[length] = 0;
    if (!lower_of(asker->set, w->real))
        return 0;
    length = cow_view_of(asker->set, w->real, out);
    return length < 0 ? length : 1;
}

/* Access mode, status flags and offset of the asker's descriptor; of another process they are in its fdinfo: "pos:", "flags:". */
static long descriptor_state(const struct cow_asker *asker, int fd, off_t *offset)
{
    char path[64], text[256];
    if (!asker->pid) {
        const off_t at = SYS(SYS_lseek, fd, 0, SEEK_CUR);
        *offset = at > 0 ? at : 0;
        return SYS(SYS_fcntl, fd, F_GETFL);
    }
    cow_proc_path(asker, "/fdinfo/", fd, path);
    COW_CLEANUP_FD int info = (int)SYS(SYS_openat, AT_PATH(asker, path), O_RDONLY | O_CLOEXEC, 0);
    long got = info < 0 ? info : SYS(SYS_read, info, text, sizeof text - 1), flags = 0;
    if (got < 0)
        return got;
    text[got] = 0;
    const char *at = strstr(text, "pos:"), *mode = strstr(text, "flags:");
    if (!at || !mode)
        return -EIO;
    for (at += 4 + strspn(at + 4, "\t "), *offset = 0; *at >= '0' && *at <= '9'; at++)
        *offset = *offset * 10 + (*at - '0');
    for (mode += 6 + strspn(mode + 6, "\t "); *mode >= '0' && *mode <= '7'; mode++)
        flags = flags * 8 + (*mode - '0');
    return flags;
}

long cow_reopen_upper(const struct cow_asker *asker, int fd)
{
    struct stat st, own;
    char proc[64];
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    cow_proc_path(asker, "/fd/", fd, proc);
    long result = cow_fd_is_lower(asker, fd, w->rest);
    if (result <= 0)
        return result < 0 ? result : -EINVAL;
    memcpy(w->link, w->rest, strlen(w->rest) + 1);
    struct cow_walk *CLEANUP_WALK v = cow_walk_new(asker);
    if (!v)
        return -ENOMEM;
    if ((result = SYS(SYS_newfstatat, AT_LOOK(asker, proc), &st, 0)) < 0)
        return result;
    result = to_change(v, AT_FDCWD, w->link, WALK_NOFOLLOW, NEED_NOTHING, 0);
    if (result < 0)
        return result == -ENOENT || result == -ENOTDIR ? -EROFS : result;
    if (!v->tree)
        return -EROFS;
    own = v->stat;
    cow_identity(asker, v->tree, v->real, -1, &own);
    if (own.st_ino != st.st_ino || own.st_dev != st.st_dev)
        return -EROFS;
    off_t offset = 0;
    const long flags = descriptor_state(asker, fd, &offset);
    if (flags < 0)
        return flags;
    result = SYS(SYS_openat, AT_PATH(asker, v->real),
                 (flags & (O_ACCMODE | O_APPEND | O_NONBLOCK | O_DIRECTORY | O_PATH | O_NOATIME | O_SYNC)) | O_CLOEXEC | O_NOFOLLOW, 0);
    if (result >= 0 && offset > 0 && !S_ISDIR(st.st_mode))
        SYS(SYS_lseek, result, offset, SEEK_SET);
    return result;
}
