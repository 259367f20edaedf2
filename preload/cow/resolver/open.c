/* open: where a file is read it is opened where it lies, where it is written it is brought up first. */
#define _GNU_SOURCE
#include <linux/fs.h>
#include <linux/openat2.h>
#include <unistd.h>

#include "internal.h"

enum {
    SHORT = 640,
    SCOPED = RESOLVE_BENEATH | RESOLVE_IN_ROOT,
    KNOWN = O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_SYNC | O_ASYNC | O_DIRECT |
            0100000 /* O_LARGEFILE */ | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC | O_TMPFILE,
};

struct opening {
    int flags;
    mode_t mode;
};

static int writes(int flags)
{
    return !(flags & O_PATH) && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) || (flags & O_TMPFILE) == O_TMPFILE);
}

static long raw_open(const struct cow_asker *asker, const char *real, const struct opening *how)
{
    if (!asker->ways || (how->flags & O_PATH))
        return SYS(SYS_openat, AT_PATH(asker, real), how->flags, how->mode);
    /* All links have been followed in the walk. (openat passes over flags that it does not know.) O_NOFOLLOW says no more
       than the resolve flag, and F_GETFL would show it. */
    const struct open_how all = { (uint64_t)(unsigned)(how->flags & KNOWN & ~O_NOFOLLOW), how->flags & (O_CREAT | __O_TMPFILE) ? how->mode : 0, RESOLVE_NO_SYMLINKS };
    long result = SYS(SYS_openat2, asker->root, cow_below(asker, real), &all, sizeof all);
    return result == -ELOOP ? -COW_AGAIN : result;
}

/* Through a link of /proc. */
static long magic_open(const struct cow_asker *asker, const char *link, const struct opening *how)
{
    return SYS(SYS_openat, AT_PATH(asker, link), how->flags, how->mode);
}

/* A name that lower has not, in a directory that upper has. Where upper has it (a whiteout too), the long way tells. */
static int create_short(const struct cow_hit *hit, int flags, mode_t mode, long *result)
{
    char buffer[SHORT], other[SHORT];
    struct stat st;
    if (!(hit->mask & 1) || hit->tree->others)
        return 0;
    const uint64_t key = cow_absent_key(hit->tree, hit->hash);
    const char *upper = cow_hit_path(hit, 0, buffer, sizeof buffer);
    const char *lower = cow_hit_path(hit, __builtin_ctz(hit->mask & ~1u), other, sizeof other);
    if (!upper || !lower || (!cow_absent_known(hit->tree, key) &&
        SYS(SYS_newfstatat, AT_FDCWD, lower, &st, AT_SYMLINK_NOFOLLOW) != -ENOENT))
        return 0;
    cow_absent_note(key);
    cow_filter_add(hit->tree, hit->hash);
    *result = SYS(SYS_openat, AT_FDCWD, upper, flags, mode);
    return *result >= 0;
}

/* Whether the directory of the hit, which one lower makes up, is quiet. */
static int in_quiet(const struct cow_asker *asker, const struct cow_hit *hit)
{
    const int known = cow_quiet_known(hit->tree, hit->directory);
    struct cow_hit whole = *hit;
    char real[SHORT];
    if (known >= 0)
        return known;
    whole.pass = 0; /* not by way of the current directory, which another thread may change just now */
    if (!cow_hit_path(&whole, __builtin_ctz(hit->mask & ~1u), real, sizeof real))
        return 0;
    *strrchr(real, '/') = 0;
    return cow_quiet_learn(asker, hit->tree, hit->directory, real[0] ? real : "/");
}

/* 1: *result is the answer; 0: the long way. */
static int open_short(const struct cow_asker *asker, const struct cow_hit *hit, int flags, mode_t mode, long *result)
{
    char buffer[SHORT];
    const int quiet = flags | O_NOFOLLOW, changes = writes(flags) || (flags & O_CREAT);
    struct stat st;
    if ((flags & O_PATH) || (flags & O_TMPFILE) == O_TMPFILE)
        return 0;
    if (!hit->tree) {
        *result = SYS(SYS_openat, AT_FDCWD, hit->path, quiet, mode);
        return *result != -ELOOP;
    }
    const unsigned lowers = hit->mask & ~1u;
    if (hit->maybe_upper) {
        const char *real = cow_hit_path(hit, 0, buffer, sizeof buffer);
        if (!real)
            return 0;
        /* One that was removed, mostly: names stay in the filter. */
        const int fresh = lowers && (flags & O_CREAT) && ((flags & O_EXCL) ||
            (!hit->tree->others && cow_absent_known(hit->tree, cow_absent_key(hit->tree, hit->hash))));
        *result = fresh ? -ENOENT : SYS(SYS_openat, AT_FDCWD, real, lowers ? quiet & ~O_CREAT : quiet, mode);
        if (*result >= 0 || *result == -EISDIR || *result == -EMFILE) /* EACCES may be of a whiteout */
            return 1;
        if (*result != -ENOENT)
            return 0;
        if (!lowers)
            return 1;
    }
    if (lowers & (lowers - 1))
        return 0;
    if ((flags & O_CREAT) && !(flags & O_DIRECTORY))
        return create_short(hit, quiet, mode, result);
    if (changes)
        return 0;
    const char *real = cow_hit_path(hit, __builtin_ctz(lowers), buffer, sizeof buffer);
    if (!real || (!in_quiet(asker, hit) && SYS(SYS_newfstatat, AT_FDCWD, real, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISFIFO(st.st_mode)))
        return 0;
    *result = SYS(SYS_openat, AT_FDCWD, real, quiet, mode);
    if (*result < 0)
        return *result != -ELOOP && *result != -ENXIO && *result != -ENOTDIR;
    if (__atomic_load_n(&hit->tree->state->indexed, __ATOMIC_ACQUIRE) && SYS(SYS_fstat, *result, &st) == 0 &&
        st.st_nlink > 1 && S_ISREG(st.st_mode)) {
        SYS(SYS_close, *result);
        return 0;
    }
    return 1;
}

static long make_file(const struct cow_asker *asker, const char *real, void *argument)
{
    struct opening how = *(struct opening *)argument;
    how.flags |= O_NOFOLLOW;
    return raw_open(asker, real, &how);
}

static long open_directory(struct cow_walk *w, const struct opening *how)
{
    long result = cow_found_path(w);
    if (result < 0)
        return result;
    if ((how->flags & O_TMPFILE) == O_TMPFILE) {
        if (w->layer > 0) {
            result = cow_may(w->asker, w->real, &w->stat, W_OK | X_OK);
            if (result < 0 || (result = cow_copy_up(w, 0)) < 0)
                return result;
        }
    } else if (writes(how->flags) || (how->flags & O_CREAT)) {
        return -EISDIR;
    }
    result = cow_found_path(w);
    return result < 0 ? result : raw_open(w->asker, w->real, how);
}

static void close_source(struct cow_walk *w)
{
    if (w->source >= 0)
        SYS(SYS_close, w->source);
    w->source = -1;
}

static long open_other(struct cow_walk *w, struct opening how)
{
    const mode_t mode = w->stat.st_mode;
    if (how.flags & O_DIRECTORY)
        return -ENOTDIR;
    if (S_ISLNK(mode) && !(how.flags & O_PATH))
        return -ELOOP;
    long result = cow_found_path(w);
    if (result < 0)
        return result;
    if (w->layer > 0 && !(how.flags & O_PATH) && (writes(how.flags) || S_ISFIFO(mode))) {
        /* (A FIFO is where its readers and writers meet, so all of them use the copy.) */
        const int what = (writes(how.flags) ? W_OK : 0) | ((how.flags & O_ACCMODE) == O_WRONLY ? 0 : R_OK);
        /* With the lower's file open, copying takes the quick way or none: that is for its owner. */
        result = w->source >= 0 && ((int)(mode >> 6) & what) == what ? 0 : cow_may(w->asker, w->real, &w->stat, what);
        if (result == 0)
            result = cow_copy_up(w, !!(how.flags & O_TRUNC));
        if (result == 0)
            result = cow_found_path(w);
        if (result < 0)
            return result;
    }
    how.flags |= O_NOFOLLOW;
    how.flags &= ~(O_CREAT | O_EXCL);
    close_source(w); /* or its number would not be free for the caller's */
    result = raw_open(w->asker, w->real, &how);
    return result == -ENOENT || result == -ELOOP ? -COW_AGAIN : result;
}

/* The lower's file where the walk has left it to opening to tell what is there. */
static long open_guessed(struct cow_walk *w, const struct opening *how)
{
    struct opening reading = { O_RDONLY | O_NOATIME | O_CLOEXEC | O_NOFOLLOW, 0 };
    long result = cow_found_path(w);
    if (result < 0)
        return result;
    if (!writes(how->flags)) {
        reading.flags = how->flags | O_NOFOLLOW;
        result = raw_open(w->asker, w->real, &reading);
        return result >= 0 || result == -ENOENT || result == -EMFILE ? result : -COW_AGAIN;
    }
    result = raw_open(w->asker, w->real, &reading);
    if (result < 0)
        return result == -ENOENT ? result : -COW_AGAIN;
    w->source = (int)result;
    result = SYS(SYS_fstat, w->source, &w->stat);
    return result < 0 ? result : S_ISREG(w->stat.st_mode) && w->stat.st_nlink == 1 ? open_other(w, *how) : -COW_AGAIN;
}

static long open_once(struct cow_walk *w, int dirfd, const char *path, struct opening how, uint64_t resolve, int first)
{
    const int exclusive = (how.flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL);
    int flags = (how.flags & O_NOFOLLOW) || exclusive ? WALK_NOFOLLOW : 0;
    if (resolve & (RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT))
        flags |= WALK_NO_LINKS;
    if (first && !(how.flags & (O_CREAT | O_PATH | __O_TMPFILE)))
        flags |= WALK_GUESS;
    long result = cow_walk_path(w, dirfd, path, flags);
    if (result < 0)
        return result == -ELOOP && (resolve & SCOPED) ? -EXDEV : result;
    if (w->magic)
        return resolve & (RESOLVE_NO_MAGICLINKS | SCOPED) ? -ELOOP : magic_open(w->asker, w->view, &how);
    if (!w->tree) {
        if (w->kind == COW_ABSENT && w->directory_asked)
            return how.flags & O_CREAT ? -EISDIR : -ENOENT;
        if (w->directory_asked && (how.flags & O_CREAT))
            return -EISDIR;
        if (!(how.flags & O_PATH)) {
            if (w->kind == COW_OTHER && S_ISLNK(w->stat.st_mode) && !exclusive)
                return -ELOOP;
            how.flags |= O_NOFOLLOW;
        }
        return raw_open(w->asker, w->length ? w->view : "/", &how);
    }
    if (w->kind == COW_ABSENT) {
        if (!(how.flags & O_CREAT))
            return -ENOENT;
        if ((how.flags & O_PATH) || (how.flags & O_TMPFILE) == O_TMPFILE)
            return -ENOENT;
        if (w->directory_asked)
            return -EISDIR;
        if (how.flags & O_DIRECTORY)
            return -EINVAL;
        result = cow_create(w, make_file, &how, 0);
        return result == -ENXIO || (result == -ENOENT) || (result == -EEXIST && !exclusive) ? -COW_AGAIN : result;
    }
    if (exclusive && !(how.flags & O_PATH))
        return -EEXIST;
    if (w->guessed) {
        result = open_guessed(w, &how);
        close_source(w);
        return result;
    }
    return w->kind == COW_DIRECTORY ? open_directory(w, &how) : open_other(w, how);
}

/* Paths below dirfd only: a relative one without .. and without links stays below. */
static int leaves(const char *path)
{
    if (path[0] == '/')
        return 1;
    for (const char *p = path; *p; p += strcspn(p, "/"), p += *p == '/')
        if (p[0] == '.' && p[1] == '.' && (p[2] == '/' || !p[2]))
            return 1;
    return 0;
}

/* Whether a scoped path has to do with the trees at all. */
static long scoped_elsewhere(struct cow_walk *w, int dirfd)
{
    long result = cow_walk_path(w, dirfd, ".", 0);
    if (result < 0)
        return result;
    if (w->tree)
        return 0;
    for (int i = 0; i < w->asker->set->count; i++)
        if (strncmp(w->asker->set->tree[i].mount, w->view, w->length) == 0)
            return 0;
    return 1;
}

static long scoped(struct cow_walk *w, int dirfd, const char *path, const struct opening *how, uint64_t resolve)
{
    long result = scoped_elsewhere(w, dirfd);
    if (result <= 0)
        return result < 0 ? result : leaves(path) ? -EXDEV : 0;
    if (w->asker->pid) /* its descriptor is not ours, but the directory's path is known */
        dirfd = (int)SYS(SYS_openat, AT_PATH(w->asker, w->length ? w->view : "/"), O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    if (dirfd < 0 && dirfd != AT_FDCWD)
        return dirfd;
    const struct open_how all = { (uint64_t)(unsigned)how->flags, how->mode, resolve };
    result = SYS(SYS_openat2, dirfd, path, &all, sizeof all);
    if (w->asker->pid)
        SYS(SYS_close, dirfd);
    return result >= 0 ? result + 1 : result;
}

long cow_openat(const struct cow_asker *asker, int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
    COW_CHANGES(asker, flags & (O_CREAT | __O_TMPFILE));
    struct cow_hit hit;
    long result;
    if (resolve == 0 && cow_fast(asker, dirfd, path, &hit) && open_short(asker, &hit, flags, mode, &result))
        return result;
    struct opening how = { flags, flags & (O_CREAT | __O_TMPFILE) ? mode & 07777 : 0 };
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w || !path)
        return w ? -EFAULT : -ENOMEM;
    if (resolve & SCOPED) {
        result = scoped(w, dirfd, path, &how, resolve);
        if (result)
            return result > 0 ? result - 1 : result;
    }
    result = -COW_AGAIN;
    for (int i = 0; i < COW_TRIES && result == -COW_AGAIN; i++)
        result = open_once(w, dirfd, path, how, resolve, i == 0);
    return cow_settled(result);
}
