/* Copying up: made complete under a temporary name in work/tmp, then put into place in one step, so that whoever looks sees the
   lower's file or the finished copy, and a kill leaves at most a file in work/tmp. */
#define _GNU_SOURCE
#include <linux/fs.h>

#include "internal.h"

enum { XATTR_VALUE = 65536 };

int cow_is_opaque(const struct cow_asker *asker, const char *real)
{
    char value;
    if (asker->root == AT_FDCWD)
        return SYS(SYS_lgetxattr, real, "user.overlay.opaque", &value, 1) == 1 && value == 'y';
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_PATH(asker, real), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
    return fd >= 0 && SYS(SYS_fgetxattr, fd, "user.overlay.opaque", &value, 1) == 1 && value == 'y';
}

static long mark(const struct cow_asker *asker, const char *real, const char *name, const char *value)
{
    const size_t size = strlen(value);
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_PATH(asker, real), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
    long result = fd < 0 ? fd : SYS(SYS_fsetxattr, fd, name, value, size, 0);
    if (result == -EACCES && asker->root == AT_FDCWD) /* a directory that we may not read; it is ours all the same */
        result = SYS(SYS_lsetxattr, real, name, value, size, 0);
    return result;
}

long cow_set_opaque(const struct cow_asker *asker, const char *real)
{
    return mark(asker, real, "user.overlay.opaque", "y");
}

/* As the kernel marks what it has copied up from it knows not where. In a directory without that it looks for no whiteouts, once
   the directory is merged with none (moved to a new name), and lists them. */
static long set_origin(const struct cow_asker *asker, const char *real)
{
    const long result = mark(asker, real, "user.overlay.origin", "");
    return result == -EOPNOTSUPP ? 0 : result; /* nor can anything be opaque there, so no directory can be moved */
}

void cow_keep_mtime(const struct cow_asker *asker, const char *directory, const struct timespec *before)
{
    const struct timespec times[2] = { { 0, UTIME_OMIT }, *before };
    SYS(SYS_utimensat, AT_PATH(asker, directory), times, AT_SYMLINK_NOFOLLOW);
}

/* The asker's path of something for calls that take no dirfd (xattrs): through its root. */
const char *cow_whole_path(const struct cow_asker *asker, const char *real, char out[PATH_MAX])
{
    if (asker->root == AT_FDCWD)
        return real;
    const int at = cow_at(asker, real);
    const char *below = cow_p(asker, real);
    if (at < 0)
        return NULL;
    memcpy(out, "/proc/self/fd/", 14);
    const size_t length = 14 + cow_decimal(out + 14, (uint64_t)at), rest = strlen(below);
    if (length + rest + 1 >= PATH_MAX)
        return NULL;
    out[length] = '/';
    memcpy(out + length + 1, below, rest + 1);
    return out;
}

static long copy_xattrs(const struct cow_asker *asker, const char *from, const char *to)
{
    struct cow_walk *CLEANUP_WALK s = cow_walk_new(asker);
    if (!s)
        return -ENOMEM;
    const char *source = cow_whole_path(asker, from, s->real), *target = cow_whole_path(asker, to, s->link);
    if (!source || !target)
        return -ENAMETOOLONG;
    long length = SYS(SYS_llistxattr, source, s->rest, sizeof s->rest);
    if (length <= 0)
        return length == -EOPNOTSUPP ? 0 : length;
    long memory = cow_mmap(XATTR_VALUE, 3 /* read, write */, 0x22 /* private, anonymous */, -1), result = 0;
    if (memory < 0 && memory > -4096)
        return memory;
    for (const char *name = s->rest; result >= 0 && name < s->rest + length; name += strlen(name) + 1) {
        if (strncmp(name, "user.overlay.", 13) == 0 || strncmp(name, "trusted.overlay.", 16) == 0)
            continue;
        long size = SYS(SYS_lgetxattr, source, name, memory, XATTR_VALUE);
        result = size < 0 ? size : SYS(SYS_lsetxattr, target, name, memory, size, 0);
        if ((result == -EPERM || result == -EOPNOTSUPP) && strncmp(name, "user.", 5) != 0 && strncmp(name, "system.", 7) != 0)
            result = 0; /* labels of security modules that mere users cannot set; cp -a passes over them too */
        if (result == -ENODATA)
            result = 0;
    }
    SYS(SYS_munmap, memory, XATTR_VALUE);
    return result < 0 ? result : 0;
}

long cow_copy_attributes(const struct cow_asker *asker, const char *from, const struct stat *st, const char *to)
{
    struct stat made;
    const struct timespec times[2] = { st->st_atim, st->st_mtim };
    mode_t mode = st->st_mode & 07777;
    long result = cow_lstat(asker, to, &made);
    if (result < 0)
        return result;
    if (made.st_uid != st->st_uid || made.st_gid != st->st_gid) {
        result = SYS(SYS_fchownat, AT_PATH(asker, to), st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW);
        if (result == -EPERM || result == -EINVAL) { /* a mere user's copy is his own, as with cp -a; the group if he is in it */
            if (SYS(SYS_fchownat, AT_PATH(asker, to), -1, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
                mode &= ~(mode_t)02000;
            if (made.st_uid != st->st_uid)
                mode &= ~(mode_t)04000;
        } else if (result < 0) {
            return result;
        }
    }
    if ((result = copy_xattrs(asker, from, to)) < 0)
        return result;
    if (!S_ISLNK(st->st_mode) && (result = cow_chmod(asker, to, mode)) < 0)
        return result;
    return SYS(SYS_utimensat, AT_PATH(asker, to), times, AT_SYMLINK_NOFOLLOW);
}

/* Anything that is no directory, complete, at temporary. */
static long make_copy(struct cow_walk *w, const char *from, const char *temporary, int empty)
{
    const struct cow_asker *asker = w->asker;
    long result;
    if (S_ISREG(w->stat.st_mode)) {
        result = cow_copy_file(w, from, temporary, empty);
    } else if (S_ISDIR(w->stat.st_mode)) {
        result = SYS(SYS_mkdirat, AT_PATH(asker, temporary), 0700);
        if (result == 0)
            result = set_origin(asker, temporary);
    } else if (S_ISLNK(w->stat.st_mode)) {
        result = SYS(SYS_readlinkat, AT_PATH(asker, from), w->link, sizeof w->link - 1);
        if (result >= 0) {
            w->link[result] = 0;
            result = SYS(SYS_symlinkat, w->link, AT_PATH(asker, temporary));
        }
    } else {
        result = SYS(SYS_mknodat, AT_PATH(asker, temporary), w->stat.st_mode & (S_IFMT | 0600), w->stat.st_rdev);
    }
    return result < 0 ? result : cow_copy_attributes(asker, from, &w->stat, temporary);
}

long cow_parent_path(const struct cow_walk *w, char *out)
{
    return cow_join(&w->tree->layer[0], cow_relative(w), w->name - 1 - w->tree->mount_length, out);
}

/* Puts temporary where real is to be, if nothing is there. A directory that its owner may not write is written all the same:
   the view's change is one of the file. */
static long put(struct cow_walk *w, const char *temporary, const char *real, const char *parent, int link)
{
    const struct cow_asker *asker = w->asker;
    struct stat before;
    struct timespec mtime;
    uint32_t changes;
    const int known = cow_time_find(w->tree, w->directory, &mtime, &changes);
    long result = cow_lstat(asker, parent, &before);
    if (result < 0)
        return result;
    if (!known)
        cow_time_put(w->tree, w->directory, &before.st_mtim, changes);
    for (int forced = 0;; forced = 1) {
        result = link ? SYS(SYS_linkat, AT_PATH(asker, temporary), AT_PATH(asker, real), 0)
                      : SYS(SYS_renameat2, AT_PATH(asker, temporary), AT_PATH(asker, real), RENAME_NOREPLACE);
        if (result == -EINVAL && !link && !S_ISDIR(w->stat.st_mode)) { /* a file system without that flag */
            result = SYS(SYS_linkat, AT_PATH(asker, temporary), AT_PATH(asker, real), 0);
            if (result == 0)
                SYS(SYS_unlinkat, AT_PATH(asker, temporary), 0);
        }
        if (forced)
            cow_chmod(asker, parent, before.st_mode & 07777);
        if (result != -EACCES || forced || cow_chmod(asker, parent, (before.st_mode & 07777) | 0700) < 0)
            break;
    }
    if (result == 0)
        cow_keep_mtime(asker, parent, known ? &mtime : &before.st_mtim);
    return result;
}

/* Makes the copy at temporary the index's of a lower file with several names. */
static long into_index(struct cow_walk *w, const char *temporary, const char *index)
{
    const struct cow_asker *asker = w->asker;
    struct stat made;
    __atomic_store_n(&w->tree->state->indexed, 1, __ATOMIC_SEQ_CST);
    long result = SYS(SYS_linkat, AT_PATH(asker, temporary), AT_PATH(asker, index), 0);
    if (result < 0)
        return result == -EEXIST ? 0 : result;
    result = cow_lstat(asker, index, &made);
    if (result == 0) /* the index's own name does not count, a name of the lower not yet linked from it does */
        cow_origin_add(asker, w->tree, index, &made, &w->stat, (int32_t)w->stat.st_nlink - 1);
    return result;
}

static long from_index(struct cow_walk *w, const char *index, const char *parent)
{
    struct stat made;
    long result = put(w, index, w->real, parent, 1);
    if (result == 0 && cow_lstat(w->asker, index, &made) == 0)
        cow_origin_names(w->tree, &made, -1);
    return result;
}

static long place_copy(struct cow_walk *w, int empty)
{
    const struct cow_asker *asker = w->asker;
    struct cow_walk *CLEANUP_WALK s = cow_walk_new(asker); /* its buffers */
    struct stat made;
    if (!s)
        return -ENOMEM;
    char *from = s->view, *temporary = s->real, *index = s->link, *parent = s->rest;
    const int several = S_ISREG(w->stat.st_mode) && w->stat.st_nlink > 1;
    long result = cow_layer_path(w, w->layer, from);
    if (result < 0 || (result = cow_temporary(w->tree, temporary)) < 0 || (result = cow_layer_path(w, 0, w->real)) < 0 ||
        (result = cow_parent_path(w, parent)) < 0)
        return result;
    w->directory = cow_hash(COW_HASH_START, w->view, w->name - 1);
    cow_filter_add(w->tree, cow_hash(w->directory, w->view + w->name - 1, w->length - w->name + 1));
    if (several) {
        cow_index_path(w->tree, &w->stat, index);
        if (cow_lstat(asker, index, &made) == 0)
            return from_index(w, index, parent);
    }
    if (S_ISREG(w->stat.st_mode) && !several && (result = cow_copy_quick(w, from, parent, empty)) <= 0)
        return result;
    if (w->source >= 0)
        return -COW_AGAIN; /* whether the asker is its owner, the quick way alone has seen */
    result = make_copy(w, from, temporary, empty && !several);
    if (result == 0 && several) {
        result = into_index(w, temporary, index);
        if (result == 0)
            result = from_index(w, index, parent);
    } else if (result == 0) {
        result = cow_lstat(asker, temporary, &made);
        if (result == 0) {
            cow_origin_add(asker, w->tree, temporary, &made, &w->stat, 0);
            result = put(w, temporary, w->real, parent, 0);
        }
    }
    if (result < 0 || several)
        SYS(SYS_unlinkat, AT_PATH(asker, temporary), S_ISDIR(w->stat.st_mode) ? AT_REMOVEDIR : 0);
    return result;
}

long cow_make_parents(struct cow_walk *w)
{
    struct stat st;
    if (!w->tree->work)
        return -EROFS;
    if (w->parent_mask & 1)
        return 0;
    long result = cow_parent_path(w, w->real);
    if (result < 0)
        return result;
    if (cow_lstat(w->asker, w->real, &st) == 0)
        return S_ISDIR(st.st_mode) ? 0 : -ENOENT;
    struct cow_walk *CLEANUP_WALK p = cow_walk_new(w->asker);
    if (!p)
        return -ENOMEM;
    /* The tree's root is in upper, so this ends. */
    memcpy(w->link, w->view, w->name - 1);
    w->link[w->name - 1] = 0;
    result = cow_walk_path(p, AT_FDCWD, w->link, WALK_NOFOLLOW);
    if (result < 0)
        return result;
    if (p->kind != COW_DIRECTORY || p->tree != w->tree)
        return -ENOENT;
    return p->layer == 0 ? 0 : cow_copy_up(p, 0);
}

long cow_copy_up(struct cow_walk *w, int empty)
{
    if (!w->tree->work)
        return -EROFS;
    if (w->layer == 0)
        return 0;
    w->copied = 0;
    if (w->kind == COW_ABSENT)
        return -ENOENT;
    if (w->length == w->tree->mount_length)
        return -EIO; /* the root is always in upper */
    long result = cow_make_parents(w);
    if (result == 0)
        result = place_copy(w, empty);
    if (result == -EEXIST || result == -ENOENT || result == -ENOTDIR) {
        /* Somebody else was first: what is there now counts. */
        const unsigned parent = w->parent_mask | 1;
        const struct stat was = w->stat;
        result = cow_step(w, parent, cow_hash(COW_HASH_START, w->view, w->length));
        if (result < 0)
            return result;
        if (w->layer != 0 || (was.st_mode & S_IFMT) != (w->stat.st_mode & S_IFMT))
            return -COW_AGAIN;
        return 0;
    }
    if (result < 0)
        return result;
    w->layer = 0;
    w->parent_mask |= 1;
    if (w->kind == COW_DIRECTORY) {
        w->mask |= 1;
        cow_bump(w->tree);
    }
    cow_layer_path(w, 0, w->real);
    return w->copied ? 0 : cow_lstat(w->asker, w->real, &w->stat);
}

long cow_follow_index(struct cow_walk *w)
{
    char index[PATH_MAX];
    struct stat st;
    cow_index_path(w->tree, &w->stat, index);
    if (cow_lstat(w->asker, index, &st) < 0)
        return 0;
    long result = cow_copy_up(w, 0);
    return result;
}

static long copy_up_entries(struct cow_walk *w, const struct cow_listing *listing, int depth);

static long copy_up_below(struct cow_walk *w, int depth)
{
    struct cow_listing listing;
    long result = depth > 512 ? -ELOOP : cow_copy_up(w, 0);
    if (result < 0 || w->kind != COW_DIRECTORY || (w->mask & ~1u) == 0)
        return result;
    if ((result = cow_list_walk(w, &listing)) < 0)
        return result;
    result = copy_up_entries(w, &listing, depth);
    cow_list_free(&listing);
    return result;
}

static long copy_up_entries(struct cow_walk *w, const struct cow_listing *listing, int depth)
{
    struct entry { uint64_t ino, off; uint16_t size; uint8_t type; char name[]; };
    struct cow_walk *CLEANUP_WALK child = cow_walk_new(w->asker);
    if (!child)
        return -ENOMEM;
    long result = 0;
    for (size_t at = 0; result == 0 && at < listing->size;) {
        const struct entry *entry = (const struct entry *)(listing->data + at);
        const size_t size = strlen(entry->name);
        at += entry->size;
        if (entry->name[0] == '.' && (!entry->name[1] || (entry->name[1] == '.' && !entry->name[2])))
            continue;
        if (w->length + size + 2 > PATH_MAX)
            return -ENAMETOOLONG;
        memcpy(w->link, w->view, w->length);
        w->link[w->length] = '/';
        memcpy(w->link + w->length + 1, entry->name, size + 1);
        result = cow_walk_path(child, AT_FDCWD, w->link, WALK_NOFOLLOW);
        if (result == 0 && child->kind != COW_ABSENT)
            result = copy_up_below(child, depth + 1);
    }
    return result;
}

long cow_copy_up_tree(struct cow_walk *w)
{
    long result = copy_up_below(w, 0);
    if (result < 0 || (w->mask & ~1u) == 0)
        return result;
    cow_layer_path(w, 0, w->real);
    result = cow_set_opaque(w->asker, w->real);
    if (result == 0) {
        w->mask = 1;
        cow_bump(w->tree);
    }
    return result;
}
