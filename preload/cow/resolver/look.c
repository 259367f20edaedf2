/* Calls that read what a path names: stat, statx, access, readlink, statfs, xattrs. */
#define _GNU_SOURCE
#include <linux/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "internal.h"

enum { SHORT = 640 };

static int is_link(const struct stat *st)
{
    return S_ISLNK(st->st_mode);
}

static void put_identity(struct statx *out, const struct stat *st)
{
    out->stx_dev_major = (unsigned)(st->st_dev >> 8 & 0xfff) | (unsigned)(st->st_dev >> 32 & ~0xfffu);
    out->stx_dev_minor = (unsigned)(st->st_dev & 0xff) | (unsigned)(st->st_dev >> 12 & ~0xffu);
    out->stx_ino = st->st_ino;
    out->stx_nlink = (uint32_t)st->st_nlink;
}

static dev_t device(uint64_t major, uint64_t minor)
{
    return (minor & 0xff) | (major & 0xfff) << 8 | (minor & ~0xffULL) << 12 | (major & ~0xfffULL) << 32;
}

/* fstatat, or with out statx, of which st gets what tells what it is. */
static inline long look(const char *real, int flags, unsigned mask, struct statx *out, struct stat *st)
{
    if (!out)
        return SYS(SYS_newfstatat, AT_FDCWD, real, st, flags | AT_SYMLINK_NOFOLLOW);
    mask |= STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_INO;
    const long result = SYS(SYS_statx, AT_FDCWD, real, flags | AT_SYMLINK_NOFOLLOW, mask, out);
    if (result < 0)
        return result;
    st->st_mode = out->stx_mode;
    st->st_nlink = out->stx_nlink;
    st->st_ino = out->stx_ino;
    st->st_dev = device(out->stx_dev_major, out->stx_dev_minor);
    st->st_rdev = device(out->stx_rdev_major, out->stx_rdev_minor);
    return 0;
}

/* (Inlined, so that stat does not pay for statx.) */
static inline __attribute__((always_inline)) int stat_short(const struct cow_asker *asker, const struct cow_hit *hit, struct stat *st, int flags, unsigned mask, struct statx *out,
                      long *result)
{
    char buffer[SHORT];
    const int follow = !(flags & AT_SYMLINK_NOFOLLOW);
    if (!hit->tree) {
        *result = look(hit->path, flags, mask, out, st);
        return *result != 0 || !follow || !is_link(st);
    }
    struct cow_state *state = hit->tree->state;
    const unsigned lowers = hit->mask & ~1u;
    const char *real;
    if (hit->maybe_upper) {
        if (!(real = cow_hit_path(hit, 0, buffer, sizeof buffer)))
            return 0;
        *result = look(real, flags, mask, out, st);
        if (*result == 0) {
            if (cow_is_whiteout(st))
                *result = -ENOENT;
            else if (follow && is_link(st))
                return 0;
            else
                cow_identity(asker, hit->tree, real, -1, st);
            return 1;
        }
        if (*result != -ENOENT || !lowers)
            return *result == -ENOENT;
    }
    if ((lowers & (lowers - 1)) || !(real = cow_hit_path(hit, __builtin_ctz(lowers), buffer, sizeof buffer)))
        return 0;
    *result = look(real, flags, mask, out, st);
    if (*result < 0)
        return *result == -ENOENT;
    if ((follow && is_link(st)) || cow_is_whiteout(st))
        return 0;
    if (st->st_nlink > 1 && S_ISREG(st->st_mode)) {
        if (__atomic_load_n(&state->indexed, __ATOMIC_ACQUIRE))
            return 0;
        if (__atomic_load_n(&state->renamed, __ATOMIC_ACQUIRE))
            cow_identity(asker, hit->tree, NULL, -1, st);
    }
    return 1;
}

static void identity_of(struct cow_walk *w, struct stat *st)
{
    *st = w->stat;
    if (w->layer == 0)
        cow_layer_path(w, 0, w->real);
    cow_identity(w->asker, w->tree, w->layer == 0 ? w->real : NULL, -1, st);
}

/* A path that is empty: the descriptor's own file. */
static long stat_descriptor(const struct cow_asker *asker, int fd, struct stat *st)
{
    char proc[64];
    if (asker->pid) {
        cow_proc_path(asker, "/fd/", fd, proc);
        return SYS(SYS_newfstatat, AT_LOOK(asker, proc), st, 0);
    }
    long result = SYS(SYS_fstat, fd, st);
    if (result == 0)
        cow_fix_stat(asker->set, fd, st);
    return result;
}

long cow_fstatat(const struct cow_asker *asker, int dirfd, const char *path, struct stat *st, int flags)
{
    struct cow_hit hit;
    long result;
    if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH | AT_NO_AUTOMOUNT))
        return -EINVAL;
    if (cow_fast(asker, dirfd, path, &hit) && stat_short(asker, &hit, st, flags & ~AT_EMPTY_PATH, 0, NULL, &result))
        return result;
    if ((flags & AT_EMPTY_PATH) && (!path || !*path)) {
        if (dirfd != AT_FDCWD)
            return stat_descriptor(asker, dirfd, st);
        path = ".";
    }
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    result = cow_walk_path(w, dirfd, path, flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0);
    if (result < 0)
        return result;
    if (w->magic)
        return SYS(SYS_newfstatat, AT_LOOK(asker, w->view), st, 0);
    if (w->kind == COW_ABSENT)
        return -ENOENT;
    if (w->tree)
        identity_of(w, st);
    else if (asker->pid && is_link(&w->stat))
        return cow_lstat(asker, w->view, st);
    else
        *st = w->stat;
    return 0;
}

long cow_statx(const struct cow_asker *asker, int dirfd, const char *path, int flags, unsigned mask, struct statx *out)
{
    char proc[64];
    struct cow_hit hit;
    struct stat st;
    long result;
    if (out && cow_fast(asker, dirfd, path, &hit) && stat_short(asker, &hit, &st, flags & ~AT_EMPTY_PATH, mask, out, &result)) {
        if (result == 0 && hit.tree)
            put_identity(out, &st);
        return result;
    }
    if ((flags & AT_EMPTY_PATH) && (!path || !*path) && dirfd != AT_FDCWD) {
        cow_proc_path(asker, "/fd/", dirfd, proc);
        if (asker->pid)
            return SYS(SYS_statx, AT_LOOK(asker, proc), flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW), mask, out);
        result = SYS(SYS_statx, dirfd, path, flags, mask, out);
        if (result == 0)
            cow_fix_statx(asker->set, dirfd, out);
        return result;
    }
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    if ((flags & AT_EMPTY_PATH) && (!path || !*path))
        path = ".";
    result = cow_walk_path(w, dirfd, path, flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0);
    if (result < 0)
        return result;
    if (w->magic)
        return SYS(SYS_statx, AT_LOOK(asker, w->view), flags, mask, out);
    if (w->kind == COW_ABSENT)
        return -ENOENT;
    if ((result = cow_found_path(w)) < 0)
        return result;
    result = SYS(SYS_statx, AT_LOOK(asker, w->real), (flags & ~AT_EMPTY_PATH) | AT_SYMLINK_NOFOLLOW, mask, out);
    if (result == 0 && w->tree) {
        identity_of(w, &st);
        put_identity(out, &st);
    }
    return result;
}

void cow_fix_stat(const struct cow_set *set, int fd, struct stat *st)
{
    const struct cow_asker self = { (struct cow_set *)set, AT_FDCWD, 0, 0, NULL };
    for (int i = 0; i < set->count; i++) {
        struct cow_tree *tree = &set->tree[i];
        if (__atomic_load_n(&tree->state->inodes, __ATOMIC_ACQUIRE)) {
            const struct stat was = *st;
            cow_identity(&self, tree, NULL, fd, st);
            if (was.st_ino != st->st_ino || was.st_dev != st->st_dev)
                return;
        }
    }
}

void cow_fix_statx(const struct cow_set *set, int fd, struct statx *out)
{
    struct stat st = { .st_ino = out->stx_ino, .st_nlink = out->stx_nlink, .st_mode = out->stx_mode };
    const uint64_t major = out->stx_dev_major, minor = out->stx_dev_minor;
    st.st_dev = (minor & 0xff) | (major & 0xfff) << 8 | (minor & ~0xffULL) << 12 | (major & ~0xfffULL) << 32;
    const struct stat was = st;
    cow_fix_stat(set, fd, &st);
    if (was.st_ino != st.st_ino || was.st_dev != st.st_dev || was.st_nlink != st.st_nlink)
        put_identity(out, &st);
}

long cow_faccessat(const struct cow_asker *asker, int dirfd, const char *path, int mode, int flags)
{
    char proc[64];
    if ((mode & ~(R_OK | W_OK | X_OK)) || (flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)))
        return -EINVAL;
    if ((flags & AT_EMPTY_PATH) && path && !*path) {
        cow_proc_path(asker, dirfd == AT_FDCWD ? "/cwd" : "/fd/", dirfd == AT_FDCWD ? -1 : dirfd, proc);
        path = proc;
        flags &= ~AT_SYMLINK_NOFOLLOW;
    }
    flags &= ~AT_EMPTY_PATH;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    long result = cow_walk_path(w, dirfd, path, flags & AT_SYMLINK_NOFOLLOW ? WALK_NOFOLLOW : 0);
    if (result < 0)
        return result;
    if (w->magic)
        return SYS(SYS_faccessat2, AT_LOOK(asker, w->view), mode, flags);
    if (w->kind == COW_ABSENT)
        return -ENOENT;
    if (!w->tree)
        return flags ? SYS(SYS_faccessat2, AT_LOOK(asker, w->length ? w->view : "/"), mode, flags)
                     : SYS(SYS_faccessat, AT_LOOK(asker, w->length ? w->view : "/"), mode);
    if ((mode & W_OK) && !w->tree->work)
        return -EROFS;
    if ((result = cow_found_path(w)) < 0)
        return result;
    if (w->layer > 0 && (mode & W_OK) && (result = cow_may(asker, w->real, NULL, W_OK)) < 0)
        return result;
    if (w->layer > 0)
        mode &= ~W_OK;
    return flags ? SYS(SYS_faccessat2, AT_LOOK(asker, w->real), mode, flags)
                 : SYS(SYS_faccessat, AT_LOOK(asker, w->real), mode);
}

long cow_readlinkat(const struct cow_asker *asker, int dirfd, const char *path, char *buffer, size_t size)
{
    if ((ssize_t)size <= 0)
        return -EINVAL;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    long result = cow_walk_path(w, dirfd, path, WALK_NOFOLLOW | WALK_EMPTY);
    if (result < 0)
        return result;
    if (w->kind == COW_ABSENT)
        return -ENOENT;
    if (!is_link(&w->stat))
        return path && !*path ? -ENOENT : -EINVAL;
    if ((result = cow_read_link(w)) < 0)
        return result;
    const char *text = w->link;
    if (!w->tree && text[0] == '/' && strncmp(w->view, "/proc/", 6) == 0) {
        /* What the kernel says of a file is its real path. */
        long length = cow_view_of(asker->set, text, w->real);
        if (length >= 0) {
            text = w->real;
            result = length;
        }
    }
    if ((size_t)result > size)
        result = (long)size;
    memcpy(buffer, text, (size_t)result);
    return result;
}

/* Walks to something that exists, and gives its real path in w->real (through the asker's root, for calls without dirfd). */
static long find(struct cow_walk *w, const char *path, int nofollow, const char **real)
{
    long result = cow_walk_path(w, AT_FDCWD, path, nofollow ? WALK_NOFOLLOW : 0);
    if (result < 0)
        return result;
    *real = w->view;
    if (w->magic)
        return 0;
    if (w->kind == COW_ABSENT)
        return -ENOENT;
    if ((result = cow_found_path(w)) < 0)
        return result;
    *real = cow_whole_path(w->asker, w->real, w->link);
    return *real ? 0 : -ENAMETOOLONG;
}

long cow_statfs(const struct cow_asker *asker, const char *path, struct statfs *out)
{
    const char *real;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    long result = find(w, path, 0, &real);
    if (result < 0)
        return result;
    if (w->tree && w->tree->work) { /* the room that there is to write */
        w->layer = 0;
        w->length = w->tree->mount_length;
        cow_found_path(w);
        real = cow_whole_path(asker, w->real, w->link);
    }
    return SYS(SYS_statfs, real, out);
}

static int is_ours(const char *name)
{
    return strncmp(name, "user.overlay.", 13) == 0;
}

long cow_getxattr(const struct cow_asker *asker, const char *path, const char *name, void *value, size_t size, int nofollow)
{
    const char *real;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    long result = find(w, path, nofollow, &real);
    if (result < 0)
        return result;
    if (w->tree && is_ours(name))
        return -ENODATA;
    return w->magic ? SYS(SYS_getxattr, real, name, value, size) : SYS(SYS_lgetxattr, real, name, value, size);
}

long cow_listxattr(const struct cow_asker *asker, const char *path, char *list, size_t size, int nofollow)
{
    const char *real;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    long result = find(w, path, nofollow, &real);
    if (result < 0)
        return result;
    if (!w->tree)
        return w->magic ? SYS(SYS_listxattr, real, list, size) : SYS(SYS_llistxattr, real, list, size);
    result = SYS(SYS_llistxattr, real, w->rest, sizeof w->rest);
    if (result <= 0)
        return result == -ERANGE ? -E2BIG : result;
    size_t used = 0;
    for (const char *name = w->rest, *end = w->rest + result; name < end;) {
        const size_t length = strlen(name) + 1;
        if (!is_ours(name)) {
            memmove(w->rest + used, name, length);
            used += length;
        }
        name += length;
    }
    if (size && used > size)
        return -ERANGE;
    if (size)
        memcpy(list, w->rest, used);
    return (long)used;
}
