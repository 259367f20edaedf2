/* What the resolver's files share. */
#ifndef COW_INTERNAL_H
#define COW_INTERNAL_H

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "resolver.h"
#include "sys.h"

enum { COW_FILTER_WORDS = 1 << 16, COW_INODES = 1 << 18, COW_PROBES = 64, COW_LINKS_MAX = 40, COW_TRIES = 32, COW_QUIET = 1 << 14, COW_TIMES = 256 };

/* One inode: an upper one that is a copy, or a lower one whose number of names has changed in the view. */
struct cow_inode {
    uint32_t used;       /* 0 free, 1 being written, 2 an upper inode's origin, 3 a lower inode's names */
    int32_t names;       /* to be added to its st_nlink */
    uint64_t dev, ino;   /* key */
    uint64_t born;       /* birth time of the upper inode in ns: numbers are used again */
    uint64_t as_dev, as_ino;
};

/* The mtime of a directory of upper, while nothing changes. */
struct cow_time {
    uint32_t sequence; /* odd while it is written */
    uint32_t changes;
    uint64_t directory;
    struct timespec mtime;
};

/* work/state, mapped shared. A filter without false negatives tells which entries of merged directories are in
   upper, so that most lookups ask one layer only. */
struct cow_state {
    char magic[8];
    uint32_t generation; /* changes when what is known of a directory (path to layers) may no longer hold */
    uint32_t filter_off; /* not 0: filter may lack names, as of this epoch */
    uint32_t outside;    /* the same for directories outside of all trees */
    uint32_t indexed;    /* files with several names were copied up */
    uint32_t inodes;     /* entries in inode[] */
    uint32_t renamed;    /* entries in inode[] of kind 3 */
    uint64_t serial;     /* of temporary names */
    uint64_t mount;      /* hash of the mount that filter is for */
    uint32_t foreign;    /* somebody else has written in upper: there may be whiteouts that hide nothing */
    uint32_t changes;    /* changes when a directory's mtime may */
    uint32_t epoch;      /* changes when somebody else has changed upper or lower */
    uint32_t unfilled;   /* filter cannot be filled for all: it stays off */
    char pad[4096 - 64];
    uint64_t filter[COW_FILTER_WORDS] __attribute__((aligned(64)));
    struct cow_inode inode[COW_INODES];
    struct cow_time time[COW_TIMES];
    uint64_t quiet[COW_QUIET]; /* hash of a directory's view path; its lowest bit: the directory is quiet (quiet.c) */
};

/* What Python reads and writes (pytest_poorcontainer/cow/shared.py). */
_Static_assert(sizeof(struct cow_inode) == 48 && offsetof(struct cow_state, renamed) == 28 && offsetof(struct cow_state, epoch) == 56 &&
                   offsetof(struct cow_state, inode) == 4096 + 8 * COW_FILTER_WORDS &&
                   offsetof(struct cow_state, quiet) == offsetof(struct cow_state, inode) + 48 * COW_INODES + 32 * COW_TIMES,
               "another layout than Python's");

struct cow_layer {
    const char *path;
    size_t length;
    dev_t dev;
};

/* layer[0] is upper (length 0 in a read-only tree), the others the lowers, topmost first. */
struct cow_tree {
    const char *mount, *work;
    size_t mount_length, work_length;
    uint64_t mount_hash;
    unsigned all;        /* a bit for each layer */
    int layers;
    int others;          /* the lower is another user's: a copied-up directory is ours, but what it allows is not */
    int has_lower_mount; /* the last layer is the mount itself: view paths are its real paths */
    struct cow_state *state;
    struct cow_layer layer[COW_LAYERS + 1];
};

/* Never leaves the resolver: something changed under the operation, which begins anew. */
enum { COW_AGAIN = 3999 };
static inline long cow_settled(long result)
{
    return result == -COW_AGAIN ? -ESTALE : result;
}

enum cow_kind { COW_ABSENT, COW_DIRECTORY, COW_OTHER };

/* A walk along a path, and where it ended. */
struct cow_walk {
    const struct cow_asker *asker;
    struct cow_tree *tree;  /* NULL: outside of every tree */
    enum cow_kind kind;
    int layer;              /* the topmost layer that has it; -1: none */
    unsigned mask;          /* the layers that make up the directory it is; for other kinds 0 */
    unsigned parent_mask;   /* those of its parent directory; 0: it is the tree's root */
    int whiteout;           /* upper has a whiteout of this name */
    int magic;              /* a link of /proc that no path can stand for; view is the link */
    int directory_asked;    /* the path ended in a slash, or in . or .. */
    int dotted;             /* the path's last component was . (1) or .. (2) */
    int links;
    int copied;             /* stat is the copy's already */
    int guessed;            /* nobody has looked: nothing waits there, and if it is a file it is layer's */
    uint64_t directory;     /* hash of its directory's view path, while it is copied up */
    int source;             /* the lower's file, open for reading; -1: it is not */
    size_t length;          /* of view */
    size_t name;            /* offset of the last component in view */
    struct stat stat;       /* of the topmost; not valid for COW_ABSENT */
    char view[PATH_MAX];
    char real[PATH_MAX];
    char rest[2 * PATH_MAX];
    char link[PATH_MAX];
};

enum {
    WALK_NOFOLLOW = 1,
    WALK_EMPTY = 2,      /* an empty path is dirfd itself */
    WALK_NO_LINKS = 4,   /* ELOOP for any link (RESOLVE_NO_SYMLINKS) */
    WALK_GUESS = 8,      /* the caller opens what a quiet directory's name may be, and sees then */
};

/* Memory for a walk; to be given back. Slots are static, and mapped when all are taken. */
struct cow_walk *cow_walk_new(const struct cow_asker *asker);
void cow_walk_free(struct cow_walk *w);
#define CLEANUP_WALK __attribute__((cleanup(cow_walk_cleanup)))
static inline void cow_walk_cleanup(struct cow_walk **w)
{
    if (*w)
        cow_walk_free(*w);
}
static inline void cow_close_cleanup(int *fd)
{
    if (*fd >= 0)
        SYS(SYS_close, *fd);
}
#define COW_CLEANUP_FD __attribute__((cleanup(cow_close_cleanup)))

/* 0 with the result in w (kind COW_ABSENT if only the last component is missing), or -errno. */
long cow_walk_path(struct cow_walk *w, int dirfd, const char *path, int flags);
/* The tree that a canonical view path lies in, or NULL. */
struct cow_tree *cow_tree_of(const struct cow_set *set, const char *path, size_t length);
/* Looks up one name in a directory: sets kind, layer, mask, whiteout, stat. w->view ends with the name already. */
long cow_step(struct cow_walk *w, unsigned parent_mask, uint64_t hash);
/* The path below the tree's root: "" or "/a/b". */
static inline const char *cow_relative(const struct cow_walk *w)
{
    return w->view + w->tree->mount_length;
}
/* Real path of relative in a layer into out (PATH_MAX); its length or -ENAMETOOLONG. */
long cow_join(const struct cow_layer *layer, const char *relative, size_t length, char *out);
long cow_layer_path(const struct cow_walk *w, int layer, char *out);
/* The text of the link that w ended at, into w->link; its length. */
long cow_read_link(struct cow_walk *w);
/* Real path of what w found (topmost layer, or outside) into w->real. */
long cow_found_path(struct cow_walk *w);
/* /proc/PID/fd/N or, with name "cwd", /proc/PID/cwd of the asker. */
void cow_proc_path(const struct cow_asker *asker, const char *name, int fd, char out[64]);
size_t cow_decimal(char *out, uint64_t value);

/* Paths for raw calls: through the asker's root. AT_PATH is for calls that change something (ways.c), AT_LOOK for others. */
int cow_way(const struct cow_asker *asker, const char *path);
static inline const char *cow_below(const struct cow_asker *asker, const char *path)
{
    if (asker->root == AT_FDCWD || path[0] != '/')
        return path;
    return path[1] ? path + 1 : ".";
}
static inline int cow_has_way(const struct cow_asker *asker, const char *path)
{
    return asker->ways && path[0] == '/' && path[1];
}
static inline int cow_at(const struct cow_asker *asker, const char *path)
{
    return cow_has_way(asker, path) ? cow_way(asker, path) : asker->root;
}
static inline const char *cow_p(const struct cow_asker *asker, const char *path)
{
    return cow_has_way(asker, path) ? strrchr(path, '/') + 1 : cow_below(asker, path);
}
#define AT_PATH(asker, path) cow_at(asker, path), cow_p(asker, path)
#define AT_LOOK(asker, path) (asker)->root, cow_below(asker, path)
/* chmod of what is no link. */
long cow_chmod(const struct cow_asker *asker, const char *real, mode_t mode);

static inline int cow_is_whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}
static inline long cow_lstat(const struct cow_asker *asker, const char *real, struct stat *st)
{
    return SYS(SYS_newfstatat, AT_LOOK(asker, real), st, AT_SYMLINK_NOFOLLOW);
}

/* Hashes of view paths, continued byte by byte: "" then "/a" then "/b". */
#define COW_HASH_START 0xcbf29ce484222325ULL
static inline uint64_t cow_hash_byte(uint64_t hash, char byte)
{
    return (hash ^ (unsigned char)byte) * 0x100000001b3ULL;
}
static inline uint64_t cow_hash(uint64_t hash, const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        hash = cow_hash_byte(hash, text[i]);
    return hash;
}

/* What a hash stands for, as long as nobody else changes the tree. */
static inline uint64_t cow_epoch_key(const struct cow_tree *tree, uint64_t hash)
{
    return hash ^ __atomic_load_n(&tree->state->epoch, __ATOMIC_ACQUIRE) * 0x9e3779b97f4a7c15ULL;
}

/* state.c */
long cow_state_open(const struct cow_asker *asker, struct cow_tree *tree, const char **error);
int cow_filter_has(const struct cow_tree *tree, uint64_t hash);
void cow_filter_add(struct cow_tree *tree, uint64_t hash);
static inline void cow_bump(struct cow_tree *tree)
{
    __atomic_add_fetch(&tree->state->generation, 1, __ATOMIC_SEQ_CST);
}
void cow_bump_outside(const struct cow_set *set);
/* Declares that until the end of the block names come or go, or times are set, if `does`. */
#define COW_CHANGES(asker, does) \
    __attribute__((cleanup(cow_changed))) const struct cow_set *changing_ = (does) ? (asker)->set : NULL; \
    cow_changed(&changing_)
static inline void cow_changed(const struct cow_set *const *set)
{
    for (int i = 0; *set && i < (*set)->count; i++)
        __atomic_add_fetch(&(*set)->tree[i].state->changes, 1, __ATOMIC_SEQ_CST);
}
/* times.c. The mtime of the upper's directory of this hash (of its view path), as it was before copies were made in it. 0: it is not known, and
   is to be read now and given to cow_time_put(). */
int cow_time_find(const struct cow_tree *tree, uint64_t directory, struct timespec *mtime, uint32_t *changes);
void cow_time_put(const struct cow_tree *tree, uint64_t directory, const struct timespec *mtime, uint32_t changes);
/* Notes that upper inode `made` (path real, or fd) stands for the lower's `origin`. */
void cow_origin_born(struct cow_tree *tree, const struct stat *made, const struct stat *origin, uint64_t born);
void cow_origin_add(const struct cow_asker *asker, struct cow_tree *tree, const char *real, const struct stat *made,
                    const struct stat *origin, int32_t names);
/* The number that an entry of an upper's directory has in the view. */
uint64_t cow_origin_number(struct cow_tree *tree, int directory, const char *name, uint64_t ino);
/* One name more or less that the copy's own count does not show. */
void cow_origin_names(struct cow_tree *tree, const struct stat *made, int32_t names);
void cow_names_add(struct cow_tree *tree, const struct stat *lower, int32_t names);
/* Changes st_dev, st_ino, st_nlink of an inode; real or fd (real NULL) are for its birth time. */
void cow_identity(const struct cow_asker *asker, struct cow_tree *tree, const char *real, int fd, struct stat *st);

/* The lock of a tree's changes of several steps; signals wait while it is held. */
struct cow_hold {
    int fd;
    uint64_t mask;
};
long cow_lock(const struct cow_asker *asker, const struct cow_tree *tree, struct cow_hold *hold);
void cow_unlock(struct cow_hold *hold);
static inline void cow_hold_cleanup(struct cow_hold *hold)
{
    cow_unlock(hold);
}
#define COW_HOLD __attribute__((cleanup(cow_hold_cleanup)))
/* A fresh name in work/tmp; its length or -errno. */
long cow_temporary(struct cow_tree *tree, char *out);
long cow_index_path(const struct cow_tree *tree, const struct stat *lower, char *out);
void cow_refused(const struct cow_set *set, const char *call, const char *path, const char *reason);

/* cache.c */
struct cow_fact {
    struct cow_tree *tree;
    unsigned mask;
};
int cow_cache_find(const struct cow_set *set, uint64_t hash, const char *a, size_t a_length, const char *b,
                   size_t b_length, struct cow_fact *fact);
void cow_cache_put(const struct cow_set *set, uint64_t hash, const char *path, size_t length, const struct cow_tree *tree,
                   unsigned mask, uint32_t generation);
uint32_t cow_cache_generation(const struct cow_set *set, const struct cow_tree *tree);

/* quiet.c. 1 if nothing in the lower's directory of this hash (of its view path), which no other lower merges with, does anything when
   it is opened; 0 if something may; -1 if that is to be learned, from the real directory. */
int cow_quiet_known(const struct cow_tree *tree, uint64_t hash);
int cow_quiet_learn(const struct cow_asker *asker, const struct cow_tree *tree, uint64_t hash, const char *directory);

/* Names that the lower is known not to have, as long as nobody commits to it: the key of one (by the hash of its view path) is
   asked for before the lower is. */
uint64_t cow_absent_key(const struct cow_tree *tree, uint64_t hash);
void cow_absent_note(uint64_t key);
int cow_absent_known(const struct cow_tree *tree, uint64_t key);

/* The short way: a plain path whose directory is known. */
struct cow_hit {
    struct cow_tree *tree;
    unsigned mask;
    uint64_t hash;          /* of the whole view path */
    uint64_t directory;     /* of its directory */
    int maybe_upper;        /* upper may have it */
    int pass;               /* the asker's own path string means the right file for all layers but upper */
    const char *base;       /* the view's directory of a relative path, or "" */
    size_t base_length;
    const char *path;
    size_t path_length;
};
int cow_fast(const struct cow_asker *asker, int dirfd, const char *path, struct cow_hit *hit);
/* Real path of the hit in a layer into out (of size bytes), or NULL if it does not fit. */
const char *cow_hit_path(const struct cow_hit *hit, int layer, char *out, size_t size);
/* The cwd of this process as a view path; filled by chdir and on demand. */
const char *cow_cwd(const struct cow_set *set, size_t *length);
void cow_cwd_changed(void);
void cow_cwd_never(void);

/* copyup.c */
/* Makes the parent directory of w's place in upper. */
long cow_make_parents(struct cow_walk *w);
/* Makes w's file or directory in upper; empty: without a regular file's content. w then stands for the copy (layer 0). */
long cow_copy_up(struct cow_walk *w, int empty);
/* Copies a directory up with all that is below, and hides what is below it in lower. */
long cow_copy_up_tree(struct cow_walk *w);
/* content.c. A regular file's content into a new one at temporary; empty: without it. */
long cow_copy_file(const struct cow_walk *w, const char *from, const char *temporary, int empty);
/* A regular file with one name straight to w->real: 0, 1: this one needs the long way, or -errno. */
long cow_copy_quick(struct cow_walk *w, const char *from, const char *parent, int empty);
long cow_copy_attributes(const struct cow_asker *asker, const char *from, const struct stat *st, const char *to);
const char *cow_whole_path(const struct cow_asker *asker, const char *real, char out[PATH_MAX]);
long cow_set_opaque(const struct cow_asker *asker, const char *real);
int cow_is_opaque(const struct cow_asker *asker, const char *real);
/* If the index has a copy of this lower file (one of several names), w is made to stand for it. */
long cow_follow_index(struct cow_walk *w);
/* Restores a directory's mtime after something was made in it that its view had already. */
void cow_keep_mtime(const struct cow_asker *asker, const char *directory, const struct timespec *before);
long cow_parent_path(const struct cow_walk *w, char *out);

/* change.c */
/* What would be seen of w's name if upper did not have it: 1 yes, 0 no, -errno; *below gets its stat. */
long cow_below_has(struct cow_walk *w, struct stat *below);
/* Hides w's name: puts a whiteout where upper has nothing, or (over) in place of what upper has. */
long cow_whiteout(struct cow_walk *w, int over);
/* Deletes a tree in work/tmp. */
void cow_delete_tree(const struct cow_asker *asker, const char *path);
/* 1 if nothing but whiteouts is in the real directory; for what has been taken out of the view. */
long cow_only_whiteouts(const struct cow_asker *asker, const char *real);
/* 1 if the directory at w has no entries in the view. */
long cow_is_empty(struct cow_walk *w);
/* Makes something at the absent w by make(), which gets the real path and returns what the caller wants (a descriptor, 0),
   or -errno; -COW_AGAIN: walk again. */
typedef long cow_make(const struct cow_asker *asker, const char *real, void *argument);
long cow_create(struct cow_walk *w, cow_make *make, void *argument, int directory);
/* 0 if the asker may do that (R_OK, W_OK, X_OK) to the lower's file as to the original, else -EACCES;
   known: its stat, or NULL. */
long cow_may(const struct cow_asker *asker, const char *real, const struct stat *known, int what);
/* The same of changes to w's directory (adding and removing names), where upper does not have it. */
long cow_may_change_parent(struct cow_walk *w);

/* list.c */
long cow_list_walk(struct cow_walk *w, struct cow_listing *listing);

#endif
