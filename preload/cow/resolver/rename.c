/* rename and link. A directory that is partly in lower is first copied up with all that is below it, since nothing in an upper's
   format says "see there"; then one step moves it. */
#define _GNU_SOURCE
#include <linux/fs.h>

#include "internal.h"

enum { NOREPLACE = 1, EXCHANGE = 2, WHITEOUT = 4 };

struct pair {
    const struct cow_asker *asker;
    struct cow_walk *from, *to;
    unsigned flags;
};

/* Whether path is w's place or below it. */
static int reaches(const char *path, const struct cow_walk *w)
{
    return strncmp(path, w->view, w->length) == 0 && (path[w->length] == '/' || !path[w->length]);
}

/* Whether moving this would move one of the trees' own directories. */
static int holds_a_tree(const struct cow_set *set, const struct cow_walk *w)
{
    for (int i = 0; i < set->count; i++) {
        const struct cow_tree *tree = &set->tree[i];
        if (reaches(tree->mount, w) || (tree->work && reaches(tree->work, w)))
            return 1;
        for (int j = 0; j < tree->layers; j++)
            if (tree->layer[j].length && reaches(tree->layer[j].path, w))
                return 1;
    }
    return 0;
}

static long outside(const struct pair *p)
{
    const struct cow_set *set = p->asker->set;
    if (holds_a_tree(set, p->from) || holds_a_tree(set, p->to))
        return -EBUSY;
    if (p->to->directory_asked && p->from->kind != COW_DIRECTORY)
        return -ENOTDIR;
    long result = SYS(SYS_renameat2, AT_PATH(p->asker, p->from->view), AT_PATH(p->asker, p->to->view), p->flags);
    if (result == 0 && (p->from->kind == COW_DIRECTORY || S_ISLNK(p->from->stat.st_mode) || (p->flags & EXCHANGE)))
        cow_bump_outside(set);
    return result;
}

static long dots(const struct cow_walk *w)
{
    if (w->dotted || (w->tree ? w->length <= w->tree->mount_length : !w->length))
        return -EBUSY;
    return 0;
}

static int is_below(const struct cow_walk *w, const struct cow_walk *directory)
{
    return w->length > directory->length && w->view[directory->length] == '/' &&
           memcmp(w->view, directory->view, directory->length) == 0;
}

/* What POSIX refuses, in the kernel's order. */
static long check(const struct pair *p)
{
    const struct cow_walk *from = p->from, *to = p->to;
    if (from->kind == COW_ABSENT)
        return -ENOENT;
    if ((p->flags & NOREPLACE) && to->kind != COW_ABSENT)
        return -EEXIST;
    if ((p->flags & EXCHANGE) && to->kind == COW_ABSENT)
        return -ENOENT;
    if (from->kind != COW_DIRECTORY && (from->directory_asked || (to->directory_asked && !(p->flags & EXCHANGE))))
        return -ENOTDIR;
    if (is_below(to, from))
        return -EINVAL;
    if (is_below(from, to))
        return p->flags & EXCHANGE ? -EINVAL : -ENOTEMPTY;
    if ((p->flags & EXCHANGE) || to->kind == COW_ABSENT)
        return 0;
    if (from->kind == COW_DIRECTORY && to->kind != COW_DIRECTORY)
        return -ENOTDIR;
    if (from->kind != COW_DIRECTORY && to->kind == COW_DIRECTORY)
        return -EISDIR;
    return 0;
}

static long bring_up(struct cow_walk *w)
{
    long result = cow_may_change_parent(w);
    if (result < 0)
        return result;
    if (w->kind == COW_DIRECTORY)
        return cow_copy_up_tree(w);
    return cow_copy_up(w, 0);
}

/* Removes w's name from the view after what was there has gone: nothing if lower has no such name. */
static long hide(struct cow_walk *w, long below)
{
    return below > 0 ? cow_whiteout(w, 0) : 0;
}

static long exchange(const struct pair *p)
{
    const struct cow_asker *asker = p->asker;
    struct cow_walk *from = p->from, *to = p->to;
    struct stat st;
    long result = bring_up(from);
    if (result == 0)
        result = bring_up(to);
    if (result < 0)
        return result;
    /* A directory must not be merged with what lower has at its new name. */
    struct cow_walk *const both[2] = { from, to };
    for (int i = 0; i < 2; i++) {
        const long below = both[1 - i]->kind == COW_ABSENT ? 0 : cow_below_has(both[1 - i], &st);
        if (below < 0)
            return below;
        cow_layer_path(both[i], 0, both[i]->real);
        if (both[i]->kind == COW_DIRECTORY && below && (result = cow_set_opaque(asker, both[i]->real)) < 0)
            return result;
    }
    cow_layer_path(from, 0, from->real);
    cow_layer_path(to, 0, to->real);
    result = SYS(SYS_renameat2, AT_PATH(asker, from->real), AT_PATH(asker, to->real), EXCHANGE);
    cow_bump(from->tree);
    return result;
}

/* A directory goes where the view has nothing, or an empty directory. */
static long move_directory(const struct pair *p, long below_from, long below_to)
{
    const struct cow_asker *asker = p->asker;
    struct cow_walk *from = p->from, *to = p->to;
    struct stat st;
    long result = below_to ? cow_set_opaque(asker, from->real) : 0;
    if (result < 0)
        return result;
    if (cow_lstat(asker, to->real, &st) < 0) {
        result = SYS(SYS_renameat2, AT_PATH(asker, from->real), AT_PATH(asker, to->real),
                     below_from ? NOREPLACE | WHITEOUT : NOREPLACE);
        if (result == -EINVAL || result == -EPERM) { /* no whiteouts by rename on this file system */
            result = SYS(SYS_renameat2, AT_PATH(asker, from->real), AT_PATH(asker, to->real), NOREPLACE);
            if (result == 0)
                result = hide(from, below_from);
        }
        return result;
    }
    /* A whiteout or a directory of whiteouts: it changes places, and then is what hides the old name, or goes. */
    result = SYS(SYS_renameat2, AT_PATH(asker, from->real), AT_PATH(asker, to->real), EXCHANGE);
    if (result < 0 || (cow_is_whiteout(&st) && below_from))
        return result;
    struct cow_walk *CLEANUP_WALK s = cow_walk_new(asker);
    if (!s || (result = cow_temporary(from->tree, s->real)) < 0)
        return s ? result : -ENOMEM;
    if (below_from && (result = SYS(SYS_mknodat, AT_PATH(asker, s->real), S_IFCHR, 0)) < 0)
        return result;
    result = SYS(SYS_renameat2, AT_PATH(asker, from->real), AT_PATH(asker, s->real), below_from ? EXCHANGE : NOREPLACE);
    if (result == 0)
        cow_delete_tree(asker, s->real);
    return result;
}

static long move_file(const struct pair *p, long below_from)
{
    const struct cow_asker *asker = p->asker;
    struct cow_walk *from = p->from, *to = p->to;
    long result = SYS(SYS_renameat2, AT_PATH(asker, from->real), AT_PATH(asker, to->real), below_from ? WHITEOUT : 0);
    if (below_from && (result == -EINVAL || result == -EPERM)) {
        /* The new name first: a kill between the two leaves both. */
        result = SYS(SYS_renameat2, AT_PATH(asker, from->real), AT_PATH(asker, to->real), 0);
        if (result == 0)
            result = hide(from, below_from);
    }
    return result;
}

static int same_file(const struct pair *p)
{
    return p->to->layer == 0 && p->from->layer == 0 && p->from->stat.st_ino == p->to->stat.st_ino &&
           p->from->stat.st_dev == p->to->stat.st_dev;
}

static long move(const struct pair *p)
{
    const struct cow_asker *asker = p->asker;
    struct cow_walk *from = p->from, *to = p->to;
    struct stat st;
    COW_HOLD struct cow_hold hold = { -1, 0 };
    if (to->kind == COW_DIRECTORY) {
        const long empty = cow_is_empty(to);
        if (empty <= 0)
            return empty ? empty : -ENOTEMPTY;
    }
    long result = cow_may_change_parent(to);
    if (result == 0)
        result = bring_up(from);
    if (result == 0 && to->kind == COW_OTHER && to->layer > 0 && S_ISREG(to->stat.st_mode) && to->stat.st_nlink > 1)
        result = cow_copy_up(to, 0); /* so that its other names see that there is one less */
    if (result == 0 && same_file(p))
        return 0;
    if (result == 0)
        result = cow_make_parents(to);
    if (result < 0 || (result = cow_layer_path(to, 0, to->real)) < 0)
        return result;
    cow_filter_add(to->tree, cow_hash(COW_HASH_START, to->view, to->length));
    /* cow_below_has uses real. */
    const long below_from = cow_below_has(from, &st), below_to = cow_below_has(to, &st);
    if (below_from < 0 || below_to < 0)
        return below_from < 0 ? below_from : below_to;
    cow_layer_path(from, 0, from->real);
    cow_layer_path(to, 0, to->real);
    if ((p->flags & NOREPLACE) || to->whiteout || from->kind == COW_DIRECTORY) {
        if ((result = cow_lock(asker, from->tree, &hold)) < 0)
            return result;
        if (to->kind == COW_ABSENT && cow_lstat(asker, to->real, &st) == 0 && !cow_is_whiteout(&st))
            return -COW_AGAIN;
    }
    result = from->kind == COW_DIRECTORY ? move_directory(p, below_from, below_to) : move_file(p, below_from);
    if (from->kind == COW_DIRECTORY || to->kind == COW_DIRECTORY)
        cow_bump(from->tree);
    return result == -ENOENT ? -COW_AGAIN : result;
}

static long rename_once(const struct pair *p, int from_dirfd, const char *from, int to_dirfd, const char *to)
{
    long result = cow_walk_path(p->from, from_dirfd, from, WALK_NOFOLLOW);
    if (result == 0)
        result = cow_walk_path(p->to, to_dirfd, to, WALK_NOFOLLOW);
    if (result == 0)
        result = dots(p->from);
    if (result == 0)
        result = dots(p->to);
    if (result < 0)
        return result;
    if (!p->from->tree && !p->to->tree)
        return outside(p);
    if (p->from->kind == COW_ABSENT)
        return -ENOENT;
    if (p->from->tree != p->to->tree)
        return -EXDEV;
    if (!p->from->tree->work)
        return -EROFS;
    for (int i = 0; i < p->asker->set->count; i++) { /* a mount below a mount stays where it is */
        const struct cow_tree *tree = &p->asker->set->tree[i];
        if (tree != p->from->tree && (reaches(tree->mount, p->from) || reaches(tree->mount, p->to)))
            return -EBUSY;
    }
    if (p->from->length == p->to->length && memcmp(p->from->view, p->to->view, p->to->length) == 0)
        return p->flags & NOREPLACE ? -EEXIST : 0;
    result = check(p);
    if (result < 0)
        return result;
    return p->flags & EXCHANGE ? exchange(p) : move(p);
}

long cow_renameat(const struct cow_asker *asker, int from_dirfd, const char *from, int to_dirfd, const char *to,
                  unsigned flags)
{
    COW_CHANGES(asker, 1);
    struct cow_walk *CLEANUP_WALK a = cow_walk_new(asker);
    struct cow_walk *CLEANUP_WALK b = cow_walk_new(asker);
    const struct pair p = { asker, a, b, flags };
    long result = -COW_AGAIN;
    if ((flags & ~(unsigned)(NOREPLACE | EXCHANGE)) || flags == (NOREPLACE | EXCHANGE))
        return -EINVAL;
    if (!a || !b)
        return -ENOMEM;
    for (int i = 0; i < COW_TRIES && result == -COW_AGAIN; i++)
        result = rename_once(&p, from_dirfd, from, to_dirfd, to);
    return cow_settled(result);
}

struct source {
    const char *path;
    int flags;
};

static long make_link(const struct cow_asker *asker, const char *real, void *argument)
{
    const struct source *source = argument;
    return SYS(SYS_linkat, AT_PATH(asker, source->path), AT_PATH(asker, real), source->flags);
}

static long link_once(struct cow_walk *a, struct cow_walk *b, int from_dirfd, const char *from, int to_dirfd,
                      const char *to, int flags)
{
    struct source source = { a->link, 0 };
    long result = cow_walk_path(a, from_dirfd, from, flags & AT_SYMLINK_FOLLOW ? 0 : WALK_NOFOLLOW);
    if (result < 0)
        return result;
    if (a->kind == COW_ABSENT) /* before anything that is wrong with the new name, as the kernel has it */
        return -ENOENT;
    result = cow_walk_path(b, to_dirfd, to, WALK_NOFOLLOW);
    if (result < 0)
        return result;
    if (a->magic) { /* a file without a name, of O_TMPFILE: where it lies, only the kernel can tell */
        source = (struct source){ a->view, AT_SYMLINK_FOLLOW };
    } else if (!a->tree && !b->tree) {
        result = SYS(SYS_linkat, AT_PATH(a->asker, a->view), AT_PATH(a->asker, b->view), 0);
        if (result == 0 && S_ISLNK(a->stat.st_mode))
            cow_bump_outside(a->asker->set);
        return result;
    } else if (b->kind != COW_ABSENT) {
        return -EEXIST;
    } else if (a->tree != b->tree) {
        return -EXDEV;
    } else if (a->kind == COW_DIRECTORY) {
        return -EPERM;
    } else {
        if ((result = cow_copy_up(a, 0)) < 0 || (result = cow_layer_path(a, 0, a->link)) < 0)
            return result;
    }
    if (!b->tree)
        return SYS(SYS_linkat, AT_PATH(a->asker, source.path), AT_PATH(a->asker, b->view), source.flags);
    if (b->kind != COW_ABSENT)
        return -EEXIST;
    if (b->directory_asked)
        return -ENOENT;
    return cow_create(b, make_link, &source, 0);
}

long cow_linkat(const struct cow_asker *asker, int from_dirfd, const char *from, int to_dirfd, const char *to, int flags)
{
    COW_CHANGES(asker, 1);
    struct cow_walk *CLEANUP_WALK a = cow_walk_new(asker);
    struct cow_walk *CLEANUP_WALK b = cow_walk_new(asker);
    char proc[64];
    long result = -COW_AGAIN;
    if (flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH))
        return -EINVAL;
    if (!a || !b)
        return -ENOMEM;
    if ((flags & AT_EMPTY_PATH) && from && !*from) {
        cow_proc_path(asker, "/fd/", from_dirfd, proc);
        from = proc;
        flags = AT_SYMLINK_FOLLOW;
    }
    for (int i = 0; i < COW_TRIES && result == -COW_AGAIN; i++)
        result = link_once(a, b, from_dirfd, from, to_dirfd, to, flags);
    return cow_settled(result);
}
