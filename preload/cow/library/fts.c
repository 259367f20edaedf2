/* fts, anew: libc's reads directories by calls inside libc. The whole FTS and FTSENT are those of <fts.h>; the order is that of a
   walk with its lists made directory by directory. fts_open never changes the current directory (as with FTS_NOCHDIR). */
#define _GNU_SOURCE
#include <fts.h>

#include "library.h"

/* Ours stands around theirs: fts_read() gets back what fts_open() gave. */
struct walk {
    FTS fts;
    FTSENT *roots, *now, *children; /* children: what fts_children() has listed of now */
    int listed, ended;
    char path[PATH_MAX];
};

static FTSENT *new_entry(const char *name, size_t length)
{
    FTSENT *entry = calloc(1, sizeof *entry + length + 1);
    struct stat *st = calloc(1, sizeof *st);
    if (!entry || !st) {
        free(entry);
        free(st);
        return NULL;
    }
    memcpy(entry->fts_name, name, length);
    entry->fts_namelen = (unsigned short)length;
    entry->fts_statp = st;
    entry->fts_instr = FTS_NOINSTR;
    return entry;
}

static void drop(FTSENT *entry)
{
    free(entry->fts_statp);
    free(entry);
}

static void drop_all(FTSENT *entry)
{
    while (entry) {
        FTSENT *next = entry->fts_link;
        drop(entry);
        entry = next;
    }
}

static int is_dots(const char *name)
{
    return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* Fills in what the entry is; its path stands in walk->path. */
static unsigned short look(struct walk *walk, FTSENT *entry, int follow)
{
    struct stat *st = entry->fts_statp;
    long result = cow_fstatat(ME, AT_FDCWD, walk->path, st, follow ? 0 : AT_SYMLINK_NOFOLLOW);
    if (result < 0 && follow && cow_fstatat(ME, AT_FDCWD, walk->path, st, AT_SYMLINK_NOFOLLOW) == 0)
        return FTS_SLNONE;
    if (result < 0) {
        entry->fts_errno = (int)-result;
        memset(st, 0, sizeof *st);
        return FTS_NS;
    }
    entry->fts_dev = st->st_dev;
    entry->fts_ino = st->st_ino;
    entry->fts_nlink = st->st_nlink;
    if (S_ISDIR(st->st_mode)) {
        if (entry->fts_level > 0 && is_dots(entry->fts_name))
            return FTS_DOT;
        for (FTSENT *above = entry->fts_parent; above && above->fts_level >= 0; above = above->fts_parent)
            if (above->fts_ino == entry->fts_ino && above->fts_dev == entry->fts_dev) {
                entry->fts_cycle = above;
                return FTS_DC;
            }
        return FTS_D;
    }
    return S_ISLNK(st->st_mode) ? FTS_SL : S_ISREG(st->st_mode) ? FTS_F : FTS_DEFAULT;
}

/* Writes the entry's path behind its parent's. 0 if it is too long. */
static int set_path(struct walk *walk, FTSENT *entry)
{
    size_t length = 0;
    if (entry->fts_level > FTS_ROOTLEVEL) {
        length = entry->fts_parent->fts_pathlen;
        if (length && walk->path[length - 1] != '/')
            walk->path[length++] = '/';
    }
    if (length + entry->fts_namelen >= PATH_MAX)
        return 0;
    memcpy(walk->path + length, entry->fts_name, entry->fts_namelen + 1u);
    entry->fts_pathlen = (unsigned short)(length + entry->fts_namelen);
    entry->fts_path = entry->fts_accpath = walk->path;
    return 1;
}

static int (*order)(const FTSENT **, const FTSENT **);

static FTSENT *sort(struct walk *walk, FTSENT *list, size_t count)
{
    FTSENT **all;
    if (!walk->fts.fts_compar || count < 2 || !(all = malloc(count * sizeof *all)))
        return list;
    for (size_t i = 0; i < count; i++, list = list->fts_link)
        all[i] = list;
    order = (int (*)(const FTSENT **, const FTSENT **))walk->fts.fts_compar;
    qsort(all, count, sizeof *all, (int (*)(const void *, const void *))order);
    for (size_t i = 0; i < count; i++)
        all[i]->fts_link = i + 1 < count ? all[i + 1] : NULL;
    list = all[0];
    free(all);
    return list;
}

/* The entries of a directory whose path stands in walk->path; NULL and errno 0 if there are none. */
static FTSENT *list_of(struct walk *walk, FTSENT *directory)
{
    struct dirent **names;
    FTSENT *first = NULL, **end = &first;
    size_t made = 0;
    const int count = pl_scandirat(AT_FDCWD, walk->path, &names, NULL, NULL);
    if (count < 0)
        return NULL;
    for (int i = 0; i < count; i++) {
        if ((walk->fts.fts_options & FTS_SEEDOT) || !is_dots(names[i]->d_name)) {
            FTSENT *entry = new_entry(names[i]->d_name, strlen(names[i]->d_name));
            if (entry) {
                entry->fts_parent = directory;
                entry->fts_level = (short)(directory->fts_level + 1);
                if (set_path(walk, entry))
                    entry->fts_info = look(walk, entry, walk->fts.fts_options & FTS_LOGICAL);
                else
                    entry->fts_info = FTS_NS, entry->fts_errno = ENAMETOOLONG;
                *end = entry;
                end = &entry->fts_link;
                made++;
            }
        }
        free(names[i]);
    }
    free(names);
    walk->path[directory->fts_pathlen] = 0;
    errno = 0;
    return sort(walk, first, made);
}

EXPORT FTS *fts_open(char *const *paths, int options, int (*compare)(const FTSENT **, const FTSENT **))
{
    struct walk *walk = calloc(1, sizeof *walk);
    FTSENT **end, *root;
    size_t count = 0;
    if (!walk || !(root = new_entry("", 0))) {
        free(walk);
        return NULL;
    }
    root->fts_level = FTS_ROOTPARENTLEVEL;
    walk->fts.fts_options = options | FTS_NOCHDIR;
    walk->fts.fts_compar = (int (*)(const void *, const void *))compare;
    for (end = &walk->roots; *paths; paths++, count++) {
        size_t length = strlen(*paths);
        while (length > 1 && (*paths)[length - 1] == '/')
            length--;
        FTSENT *entry = new_entry(*paths, length);
        if (!entry)
            break;
        entry->fts_parent = root;
        entry->fts_level = FTS_ROOTLEVEL;
        if (set_path(walk, entry))
            entry->fts_info = look(walk, entry, options & (FTS_LOGICAL | FTS_COMFOLLOW));
        *end = entry;
        end = &entry->fts_link;
    }
    walk->roots = sort(walk, walk->roots, count);
    walk->fts.fts_cur = root;
    walk->fts.fts_path = walk->path;
    return &walk->fts;
}

static FTSENT *give(struct walk *walk, FTSENT *entry)
{
    walk->now = walk->fts.fts_cur = entry;
    if (entry && set_path(walk, entry) && entry->fts_level == FTS_ROOTLEVEL)
        walk->fts.fts_dev = entry->fts_dev;
    return entry;
}

/* Below a directory that has been given in preorder, or back to it in postorder. */
static FTSENT *descend(struct walk *walk, FTSENT *directory)
{
    const int stay = directory->fts_instr == FTS_SKIP ||
                     ((walk->fts.fts_options & FTS_XDEV) && directory->fts_dev != walk->fts.fts_dev);
    errno = 0;
    if (!stay && !walk->listed)
        walk->children = list_of(walk, directory);
    FTSENT *first = stay ? NULL : walk->children;
    if (stay)
        drop_all(walk->children);
    walk->children = NULL;
    walk->listed = 0;
    if (first)
        return give(walk, first);
    directory->fts_errno = stay ? 0 : errno;
    directory->fts_info = directory->fts_errno ? FTS_DNR : FTS_DP;
    return give(walk, directory);
}

EXPORT FTSENT *fts_read(FTS *fts)
{
    struct walk *walk = (struct walk *)fts;
    FTSENT *now = walk->now;
    if (walk->ended)
        return NULL;
    if (!now) {
        errno = 0;
        walk->ended = !walk->roots;
        return walk->roots ? give(walk, walk->roots) : NULL;
    }
    const int instruction = now->fts_instr;
    if (instruction == FTS_AGAIN || (instruction == FTS_FOLLOW && (now->fts_info == FTS_SL || now->fts_info == FTS_SLNONE))) {
        now->fts_instr = FTS_NOINSTR;
        set_path(walk, now);
        now->fts_info = look(walk, now, instruction == FTS_FOLLOW || (fts->fts_options & FTS_LOGICAL));
        return give(walk, now);
    }
    if (now->fts_info == FTS_D)
        return descend(walk, now);
    FTSENT *next = now->fts_link, *parent = now->fts_parent;
    drop(now);
    if (parent->fts_level == FTS_ROOTPARENTLEVEL)
        walk->roots = next;
    if (next)
        return give(walk, next);
    walk->now = NULL;
    if (parent->fts_level == FTS_ROOTPARENTLEVEL) {
        walk->ended = 1;
        walk->fts.fts_cur = parent;
        errno = 0;
        return NULL;
    }
    parent->fts_info = FTS_DP;
    return give(walk, parent);
}

EXPORT FTSENT *fts_children(FTS *fts, int options)
{
    struct walk *walk = (struct walk *)fts;
    (void)options; /* FTS_NAMEONLY: more than the names does no harm */
    errno = 0;
    if (walk->ended)
        return NULL;
    if (!walk->now)
        return walk->roots;
    if (walk->now->fts_info != FTS_D)
        return NULL;
    drop_all(walk->children);
    walk->children = list_of(walk, walk->now);
    walk->listed = errno == 0;
    return walk->children;
}

EXPORT int fts_set(FTS *fts, FTSENT *entry, int instruction)
{
    (void)fts;
    if (instruction < 0 || instruction > FTS_SKIP) {
        errno = EINVAL;
        return 1;
    }
    entry->fts_instr = (unsigned short)instruction;
    return 0;
}

EXPORT int fts_close(FTS *fts)
{
    struct walk *walk = (struct walk *)fts;
    FTSENT *top = NULL;
    drop_all(walk->children);
    FTSENT *entry = walk->now ? walk->now : walk->roots;
    while (entry && entry->fts_level >= FTS_ROOTLEVEL) { /* what is left here, then of each directory above */
        FTSENT *next = entry->fts_link ? entry->fts_link : entry->fts_parent;
        top = entry->fts_parent;
        drop(entry);
        entry = next;
    }
    drop(top ? top : walk->fts.fts_cur);
    free(walk);
    return 0;
}
#define ALIAS(name) __asm__(".globl fts64_" #name "\n.type fts64_" #name ", %function\n.set fts64_" #name ", fts_" #name)
ALIAS(open);
ALIAS(read);
ALIAS(children);
ALIAS(set);
ALIAS(close);
