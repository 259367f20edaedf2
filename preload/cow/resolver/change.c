/* Names that come and go: created ones, whiteouts, links. A change of more than one step holds the tree's lock. */
#define _GNU_SOURCE
#include <linux/fs.h>
#include <unistd.h>

#include "internal.h"

enum { RENAME_NOREPLACE_ = 1, RENAME_EXCHANGE_ = 2 };

struct entry {
    uint64_t ino, off;
    uint16_t size;
    uint8_t type;
    char name[];
};

static int is_dots(const char *name)
{
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

static int in_groups(gid_t gid)
{
    gid_t groups[256];
    long count = SYS(SYS_getgroups, 256, groups);
    if ((gid_t)SYS(SYS_getegid) == gid)
        return 1;
    for (long i = 0; i < count; i++)
        if (groups[i] == gid)
            return 1;
    return 0;
}

static long mode_allows(const struct stat *st, mode_t mode, int what)
{
    const int shift = st->st_uid == (uid_t)SYS(SYS_geteuid) ? 6 : in_groups(st->st_gid) ? 3 : 0;
    return ((int)(mode >> shift) & what) == what ? 0 : -EACCES;
}

long cow_may(const struct cow_asker *asker, const char *real, const struct stat *known, int what)
{
    struct stat st;
    if (known && known->st_uid == (uid_t)SYS(SYS_geteuid) && ((int)(known->st_mode >> 6) & what) == what)
        return 0; /* its owner, by its mode */
    long result = SYS(SYS_faccessat2, AT_LOOK(asker, real), what, AT_EACCESS);
    if (result == -ENOSYS)
        result = SYS(SYS_faccessat, AT_LOOK(asker, real), what);
    if (result != -EROFS)
        return result;
    /* A file system that is mounted read-only is a lower like any other: its mode decides. */
    const uid_t uid = (uid_t)SYS(SYS_geteuid);
    if ((result = SYS(SYS_newfstatat, AT_LOOK(asker, real), &st, 0)) < 0 || uid == 0)
        return result;
    return mode_allows(&st, st.st_mode, what);
}

long cow_may_change_parent(struct cow_walk *w)
{
    struct stat lower, upper;
    const size_t length = w->name - 1 - w->tree->mount_length;
    if (!w->tree->work)
        return -EROFS;
    if ((w->parent_mask & 1) && !w->tree->others)
        return 0; /* the kernel will tell */
    for (int i = 1; i < w->tree->layers; i++) {
        if (!(w->parent_mask >> i & 1))
            continue;
        long result = cow_join(&w->tree->layer[i], cow_relative(w), length, w->real);
        if (result < 0)
            return result;
        if (!(w->parent_mask & 1))
            return cow_may(w->asker, w->real, NULL, W_OK | X_OK);
        /* A copy that could not be given to its owner: by its mode, as that owner's. */
        if ((result = cow_lstat(w->asker, w->real, &lower)) < 0 || (result = cow_parent_path(w, w->real)) < 0 ||
            (result = cow_lstat(w->asker, w->real, &upper)) < 0)
            return result;
        return lower.st_uid == upper.st_uid ? 0 : mode_allows(&lower, upper.st_mode, W_OK | X_OK);
    }
    return 0;
}

long cow_below_has(struct cow_walk *w, struct stat *below)
{
    if (w->kind == COW_ABSENT && !w->whiteout)
        return 0; /* the walk has asked all layers */
    const uint64_t key = cow_absent_key(w->tree, cow_hash(COW_HASH_START, w->view, w->length));
    if (w->asker->root == AT_FDCWD && cow_absent_known(w->tree, key))
        return 0;
    for (int i = 1; i < w->tree->layers; i++) {
        if (!(w->parent_mask >> i & 1))
            continue;
        long result = cow_layer_path(w, i, w->real);
        if (result >= 0)
            result = cow_lstat(w->asker, w->real, below);
        if (result == 0)
            return !cow_is_whiteout(below);
        if (result != -ENOENT && result != -ENOTDIR)
            return result;
    }
    if (w->asker->root == AT_FDCWD && (w->parent_mask & ~1u)) /* below an opaque directory nobody was asked */
        cow_absent_note(key);
    return 0;
}

long cow_whiteout(struct cow_walk *w, int over)
{
    const struct cow_asker *asker = w->asker;
    struct cow_walk *CLEANUP_WALK s = cow_walk_new(asker);
    if (!s)
        return -ENOMEM;
    long result = cow_make_parents(w);
    if (result < 0 || (result = cow_layer_path(w, 0, w->real)) < 0 || (result = cow_temporary(w->tree, s->real)) < 0)
        return result;
    cow_filter_add(w->tree, cow_hash(COW_HASH_START, w->view, w->length));
    if (!over) {
        result = SYS(SYS_mknodat, AT_PATH(asker, w->real), S_IFCHR, 0);
        return result == -EEXIST || result == -ENOENT ? -COW_AGAIN : result;
    }
    result = SYS(SYS_mknodat, AT_PATH(asker, s->real), S_IFCHR, 0);
    if (result < 0)
        return result;
    result = SYS(SYS_renameat2, AT_PATH(asker, s->real), AT_PATH(asker, w->real), 0);
    if (result < 0)
        SYS(SYS_unlinkat, AT_PATH(asker, s->real), 0);
    return result;
}

/* Calls each() with every entry of a real directory until it returns other than 0. */
static long each_entry(const struct cow_asker *asker, const char *real, long (*each)(int, const struct entry *, int),
                       int depth)
{
    _Alignas(8) char buffer[1024];
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_PATH(asker, real), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
    long result = fd < 0 ? fd : 0, got = 0;
    while (result == 0 && (got = SYS(SYS_getdents64, fd, buffer, sizeof buffer)) > 0)
        for (long at = 0; result == 0 && at < got; at += ((const struct entry *)(buffer + at))->size) {
            const struct entry *entry = (const struct entry *)(buffer + at);
            if (!is_dots(entry->name))
                result = each(fd, entry, depth);
        }
    return result ? result : got;
}

static long is_visible(int fd, const struct entry *entry, int depth)
{
    struct stat st;
    (void)depth;
    long result = SYS(SYS_newfstatat, fd, entry->name, &st, AT_SYMLINK_NOFOLLOW);
    return result < 0 ? result : !cow_is_whiteout(&st);
}

long cow_only_whiteouts(const struct cow_asker *asker, const char *real)
{
    long result = each_entry(asker, real, is_visible, 0);
    return result < 0 ? result : !result;
}

static long remove_one(int fd, const struct entry *entry, int depth)
{
    if (SYS(SYS_unlinkat, fd, entry->name, 0) == 0 || depth > 400)
        return 0;
    SYS(SYS_fchmodat, fd, entry->name, 0700);
    const struct cow_asker inside = { NULL, fd, 0, 0, NULL };
    char path[NAME_MAX + 2] = "/";
    memcpy(path + 1, entry->name, strlen(entry->name) + 1);
    each_entry(&inside, path, remove_one, depth + 1);
    SYS(SYS_unlinkat, fd, entry->name, AT_REMOVEDIR);
    return 0;
}

/* What cannot be removed stays in work/tmp, where nobody looks. */
void cow_delete_tree(const struct cow_asker *asker, const char *path)
{
    if (SYS(SYS_unlinkat, AT_PATH(asker, path), AT_REMOVEDIR) == 0 || SYS(SYS_unlinkat, AT_PATH(asker, path), 0) == 0)
        return;
    cow_chmod(asker, path, 0700);
    /* A directory that is read while it is emptied may skip entries; so until nothing is left, within reason. */
    for (int i = 0; i < 8 && SYS(SYS_unlinkat, AT_PATH(asker, path), AT_REMOVEDIR) < 0; i++)
        each_entry(asker, path, remove_one, 0);
}

long cow_is_empty(struct cow_walk *w)
{
    struct cow_listing listing;
    long result = cow_list_walk(w, &listing);
    if (result < 0)
        return result;
    int count = 0;
    for (size_t at = 0; at < listing.size; at += ((struct entry *)(listing.data + at))->size)
        count += !is_dots(((struct entry *)(listing.data + at))->name);
    cow_list_free(&listing);
    return count == 0;
}

/* What is made in work/tmp gets the group that its directory would have given it. */
static void inherit_group(struct cow_walk *w, const char *made, const char *parent, int directory)
{
    struct stat st, own;
    if (cow_lstat(w->asker, parent, &st) < 0 || !(st.st_mode & S_ISGID) || cow_lstat(w->asker, made, &own) < 0)
        return;
    if (own.st_gid != st.st_gid)
        SYS(SYS_fchownat, AT_PATH(w->asker, made), -1, st.st_gid, AT_SYMLINK_NOFOLLOW);
    if (directory)
        cow_chmod(w->asker, made, (own.st_mode & 07777) | S_ISGID);
}

static long create_over_whiteout(struct cow_walk *w, cow_make *make, void *argument, int directory)
{
    const struct cow_asker *asker = w->asker;
    struct stat st;
    struct cow_walk *CLEANUP_WALK s = cow_walk_new(asker);
    COW_HOLD struct cow_hold hold = { -1, 0 };
    if (!s)
        return -ENOMEM;
    long result = cow_lock(asker, w->tree, &hold);
    if (result < 0 || (result = cow_temporary(w->tree, s->real)) < 0 || (result = cow_parent_path(w, s->link)) < 0)
        return result;
    if (cow_lstat(asker, w->real, &st) < 0 || !cow_is_whiteout(&st))
        return -COW_AGAIN;
    const long made = make(asker, s->real, argument);
    if (made < 0)
        return made;
    inherit_group(w, s->real, s->link, directory);
    result = directory ? cow_set_opaque(asker, s->real) : 0;
    if (result == 0)
        result = SYS(SYS_renameat2, AT_PATH(asker, s->real), AT_PATH(asker, w->real), directory ? RENAME_EXCHANGE_ : 0);
    if (result < 0 && made > 0)
        SYS(SYS_close, made);
    if (result < 0 || directory)
        cow_delete_tree(asker, s->real);
    return result < 0 ? result : made;
}

long cow_create(struct cow_walk *w, cow_make *make, void *argument, int directory)
{
    long result = cow_may_change_parent(w);
    if (result < 0 || (result = cow_make_parents(w)) < 0 || (result = cow_layer_path(w, 0, w->real)) < 0)
        return result;
    cow_filter_add(w->tree, cow_hash(COW_HASH_START, w->view, w->length));
    if (w->whiteout)
        return create_over_whiteout(w, make, argument, directory);
    return make(w->asker, w->real, argument);
}

/* Walks to a place for something new. 0: in a tree, and absent; 1: outside, made by the caller at w->view; -errno. */
static long to_new(struct cow_walk *w, int dirfd, const char *path)
{
    long result = cow_walk_path(w, dirfd, path, WALK_NOFOLLOW);
    if (result < 0)
        return result;
    if (!w->tree)
        return 1;
    if (w->kind != COW_ABSENT)
        return -EEXIST;
    return 0;
}

struct node {
    mode_t mode;
    dev_t device;
    const char *target;
};

static long make_node(const struct cow_asker *asker, const char *real, void *argument)
{
    const struct node *node = argument;
    if (S_ISDIR(node->mode))
        return SYS(SYS_mkdirat, AT_PATH(asker, real), node->mode & 07777);
    if (S_ISLNK(node->mode))
        return SYS(SYS_symlinkat, node->target, AT_PATH(asker, real));
    return SYS(SYS_mknodat, AT_PATH(asker, real), node->mode, node->device);
}

static long create_node(const struct cow_asker *asker, int dirfd, const char *path, struct node *node)
{
    COW_CHANGES(asker, 1);
    long result = -COW_AGAIN;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    for (int i = 0; i < COW_TRIES && result == -COW_AGAIN; i++) {
        result = to_new(w, dirfd, path);
        if (result < 0)
            return result;
        if (result == 1) {
            result = make_node(asker, w->length ? w->view : "/", node);
            if (result == 0 && S_ISLNK(node->mode))
                cow_bump_outside(asker->set);
            return result;
        }
        if (w->directory_asked && !S_ISDIR(node->mode))
            return -ENOENT;
        if (S_ISCHR(node->mode) && node->device == 0)
            return -EPERM; /* it would be a whiteout */
        result = cow_create(w, make_node, node, S_ISDIR(node->mode));
    }
    return cow_settled(result);
}

long cow_mkdirat(const struct cow_asker *asker, int dirfd, const char *path, mode_t mode)
{
    return create_node(asker, dirfd, path, &(struct node){ .mode = S_IFDIR | (mode & 07777) });
}

long cow_symlinkat(const struct cow_asker *asker, const char *target, int dirfd, const char *path)
{
    if (!target || !*target)
        return target ? -ENOENT : -EFAULT;
    return create_node(asker, dirfd, path, &(struct node){ .mode = S_IFLNK, .target = target });
}

long cow_mknodat(const struct cow_asker *asker, int dirfd, const char *path, mode_t mode, dev_t device)
{
    if (S_ISDIR(mode))
        return -EPERM;
    return create_node(asker, dirfd, path, &(struct node){ .mode = mode, .device = device });
}

static long unlink_file(struct cow_walk *w)
{
    struct stat below;
    const int in_upper = w->layer == 0;
    long has = cow_below_has(w, &below);
    long result = has < 0 ? has : cow_may_change_parent(w);
    if (result < 0 || (result = cow_layer_path(w, 0, w->real)) < 0)
        return result;
    if (!has) {
        result = SYS(SYS_unlinkat, AT_PATH(w->asker, w->real), 0);
        return result == -ENOENT ? -COW_AGAIN : result;
    }
    result = cow_whiteout(w, in_upper);
    if (result == 0 && !in_upper && S_ISREG(below.st_mode) && below.st_nlink > 1)
        cow_names_add(w->tree, &below, -1);
    return result;
}

/* Takes the directory out of upper, in exchange for a whiteout where lower has the name; back if it was not empty. */
static long take_out(struct cow_walk *w, int below)
{
    const struct cow_asker *asker = w->asker;
    struct cow_walk *CLEANUP_WALK s = cow_walk_new(asker);
    if (!s)
        return -ENOMEM;
    long result = cow_temporary(w->tree, s->real);
    if (result < 0 || (result = cow_layer_path(w, 0, w->real)) < 0)
        return result;
    if (below && (result = SYS(SYS_mknodat, AT_PATH(asker, s->real), S_IFCHR, 0)) < 0)
        return result;
    const unsigned how = below ? RENAME_EXCHANGE_ : RENAME_NOREPLACE_;
    result = SYS(SYS_renameat2, AT_PATH(asker, w->real), AT_PATH(asker, s->real), how);
    if (result < 0) {
        if (below)
            SYS(SYS_unlinkat, AT_PATH(asker, s->real), 0);
        return result == -ENOENT ? -COW_AGAIN : result;
    }
    result = cow_only_whiteouts(asker, s->real);
    if (result == 0 && SYS(SYS_renameat2, AT_PATH(asker, s->real), AT_PATH(asker, w->real), how) == 0) {
        if (below)
            SYS(SYS_unlinkat, AT_PATH(asker, s->real), 0);
        return -ENOTEMPTY;
    }
    cow_delete_tree(asker, s->real);
    return 0;
}

static long remove_directory(struct cow_walk *w)
{
    struct stat below;
    COW_HOLD struct cow_hold hold = { -1, 0 };
    long has = cow_below_has(w, &below);
    long result = has < 0 ? has : cow_may_change_parent(w);
    if (result < 0)
        return result;
    if (!has) {
        /* The kernel's answer is right unless there are whiteouts in it. */
        if ((result = cow_layer_path(w, 0, w->real)) < 0)
            return result;
        result = SYS(SYS_unlinkat, AT_PATH(w->asker, w->real), AT_REMOVEDIR);
        if (result == 0)
            cow_bump(w->tree);
        if (result != -ENOTEMPTY)
            return result == -ENOENT ? -COW_AGAIN : result;
    }
    result = cow_is_empty(w);
    if (result <= 0)
        return result ? result : -ENOTEMPTY;
    if ((result = cow_lock(w->asker, w->tree, &hold)) < 0)
        return result;
    result = w->layer == 0 ? take_out(w, (int)has) : cow_whiteout(w, 0);
    if (result == 0)
        cow_bump(w->tree);
    return result;
}

static long unlink_walk(struct cow_walk *w, int directory)
{
    if (w->kind == COW_ABSENT)
        return -ENOENT;
    if (directory && w->dotted)
        return w->dotted == 1 ? -EINVAL : -ENOTEMPTY;
    if (w->length <= w->tree->mount_length)
        return directory ? -EBUSY : -EISDIR;
    if ((w->kind == COW_DIRECTORY) != !!directory)
        return directory ? -ENOTDIR : -EISDIR;
    return directory ? remove_directory(w) : unlink_file(w);
}

/* A file that lower never had, in a directory that is known. 1: *result is the answer. */
static int unlink_short(const struct cow_hit *hit, long *result)
{
    char buffer[640], other[640];
    struct stat below;
    const unsigned lowers = hit->tree ? hit->mask & ~1u : 0;
    if (!lowers || !hit->maybe_upper || (lowers & (lowers - 1)) || hit->tree->state->foreign ||
        hit->tree->others || __atomic_load_n(&hit->tree->state->filter_off, __ATOMIC_ACQUIRE))
        return 0;
    const uint64_t key = cow_absent_key(hit->tree, hit->hash);
    const char *upper = cow_hit_path(hit, 0, buffer, sizeof buffer);
    const char *lower = cow_hit_path(hit, __builtin_ctz(lowers), other, sizeof other);
    if (!upper || !lower || (!cow_absent_known(hit->tree, key) &&
                             SYS(SYS_newfstatat, AT_FDCWD, lower, &below, AT_SYMLINK_NOFOLLOW) != -ENOENT))
        return 0;
    *result = SYS(SYS_unlinkat, AT_FDCWD, upper, 0);
    return *result == 0;
}

long cow_unlinkat(const struct cow_asker *asker, int dirfd, const char *path, int flags)
{
    COW_CHANGES(asker, 1);
    struct cow_hit hit;
    long result = -COW_AGAIN;
    if (flags & ~AT_REMOVEDIR)
        return -EINVAL;
    if (!flags && cow_fast(asker, dirfd, path, &hit) && unlink_short(&hit, &result))
        return 0;
    result = -COW_AGAIN;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    for (int i = 0; i < COW_TRIES && result == -COW_AGAIN; i++) {
        result = cow_walk_path(w, dirfd, path, WALK_NOFOLLOW);
        if (result < 0)
            return result;
        if (w->tree) {
            result = unlink_walk(w, flags & AT_REMOVEDIR);
            continue;
        }
        if (w->dotted || !w->length)
            return !flags ? -EISDIR : !w->dotted ? -EBUSY : w->dotted == 1 ? -EINVAL : -ENOTEMPTY;
        return SYS(SYS_unlinkat, AT_PATH(asker, w->view), flags);
    }
    return cow_settled(result);
}
