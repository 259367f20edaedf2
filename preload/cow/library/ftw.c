/* ftw and nftw, anew: libc's read directories by calls inside libc. */
#define _GNU_SOURCE
#include <ftw.h>

#include "library.h"

struct seen {
    const struct seen *above;
    dev_t dev;
    ino_t ino;
};

struct walk {
    int (*old)(const char *, const struct stat *, int);
    int (*function)(const char *, const struct stat *, int, struct FTW *);
    int flags;
    dev_t dev;
    char path[PATH_MAX];
};

static int call(struct walk *walk, const struct stat *st, int kind, struct FTW *where)
{
    if (walk->function)
        return walk->function(walk->path, st, kind, where);
    return walk->old(walk->path, st, kind == FTW_SLN ? FTW_NS : kind == FTW_DP ? FTW_D : kind);
}

/* What it is; FTW_NS if it cannot be told. */
static int kind_of(struct walk *walk, struct stat *st)
{
    const int physical = walk->flags & FTW_PHYS;
    long result = cow_fstatat(ME, AT_FDCWD, walk->path, st, physical ? AT_SYMLINK_NOFOLLOW : 0);
    if (result < 0) {
        memset(st, 0, sizeof *st);
        if (physical || cow_fstatat(ME, AT_FDCWD, walk->path, st, AT_SYMLINK_NOFOLLOW) < 0)
            return result == -ENOENT || result == -EACCES || result == -ENOTDIR ? FTW_NS : (int)result;
        return S_ISLNK(st->st_mode) ? FTW_SLN : FTW_NS;
    }
    return S_ISDIR(st->st_mode) ? FTW_D : S_ISLNK(st->st_mode) ? FTW_SL : FTW_F;
}

static int visit(struct walk *walk, size_t length, int base, int level, const struct seen *above);

static int entries(struct walk *walk, size_t length, int level, const struct seen *here)
{
    struct dirent **list;
    const int count = pl_scandirat(AT_FDCWD, length ? walk->path : "/", &list, NULL, NULL);
    int result = count < 0 ? -1 : 0;
    for (int i = 0; i < count; i++) {
        const char *name = list[i]->d_name;
        const size_t size = strlen(name), slash = length && walk->path[length - 1] != '/';
        const int dots = name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
        if (result == 0 && !dots && length + slash + size >= PATH_MAX) {
            errno = ENAMETOOLONG;
            result = -1;
        } else if (result == 0 && !dots) {
            if (slash)
                walk->path[length] = '/';
            memcpy(walk->path + length + slash, name, size + 1);
            result = visit(walk, length + slash + size, (int)(length + slash), level + 1, here);
            if ((walk->flags & FTW_ACTIONRETVAL) && result == FTW_SKIP_SUBTREE)
                result = 0;
            walk->path[length] = 0;
        }
        free(list[i]);
    }
    if (count >= 0)
        free(list);
    if ((walk->flags & FTW_ACTIONRETVAL) && result == FTW_SKIP_SIBLINGS)
        result = 0;
    return result;
}

static int visit_directory(struct walk *walk, size_t length, struct FTW *where, struct stat *st, const struct seen *above)
{
    const struct seen here = { above, st->st_dev, st->st_ino };
    int result = 0;
    for (const struct seen *other = above; other; other = other->above)
        if (other->dev == st->st_dev && other->ino == st->st_ino)
            return 0; /* a loop of links */
    if (cow_faccessat(ME, AT_FDCWD, walk->path, R_OK, AT_EACCESS) < 0)
        return call(walk, st, FTW_DNR, where);
    if (!(walk->flags & FTW_DEPTH))
        result = call(walk, st, FTW_D, where);
    if ((walk->flags & FTW_ACTIONRETVAL) && result == FTW_SKIP_SUBTREE)
        return 0;
    if (result)
        return result;
    if ((walk->flags & FTW_CHDIR) && pl_result(pl_chdir(walk->path)) < 0)
        return -1;
    result = entries(walk, length, where->level, &here);
    if (result == 0 && (walk->flags & FTW_CHDIR) && length) {
        char above_path[PATH_MAX];
        memcpy(above_path, walk->path, (size_t)where->base + 1);
        above_path[where->base ? where->base : 1] = 0;
        if (!where->base)
            above_path[0] = '.';
        if (where->base)
            result = (int)pl_result(pl_chdir(above_path));
    }
    if (result == 0 && (walk->flags & FTW_DEPTH))
        result = call(walk, st, FTW_DP, where);
    return result;
}

static int visit(struct walk *walk, size_t length, int base, int level, const struct seen *above)
{
    struct stat st;
    struct FTW where = { base, level };
    const int kind = kind_of(walk, &st);
    if (kind < 0)
        return (int)pl_result(kind);
    if ((walk->flags & FTW_MOUNT) && level && kind != FTW_NS && st.st_dev != walk->dev)
        return 0;
    if (!level)
        walk->dev = st.st_dev;
    return kind == FTW_D ? visit_directory(walk, length, &where, &st, above) : call(walk, &st, kind, &where);
}

static int start(const char *path, struct walk *walk)
{
    size_t length = strlen(path);
    char *cwd = NULL;
    if (!length || length >= PATH_MAX) {
        errno = length ? ENAMETOOLONG : ENOENT;
        return -1;
    }
    if (walk->flags & FTW_CHDIR) { /* all paths have to mean the same after each chdir */
        if (!(cwd = pl_getcwd(NULL, 0)))
            return -1;
        if (path[0] != '/' && strlen(cwd) + length + 2 < PATH_MAX) {
            length = (size_t)snprintf(walk->path, sizeof walk->path, "%s/%s", cwd, path);
        } else {
            memcpy(walk->path, path, length + 1);
        }
    } else {
        memcpy(walk->path, path, length + 1);
    }
    while (length > 1 && walk->path[length - 1] == '/')
        walk->path[--length] = 0;
    struct stat st;
    const int first = kind_of(walk, &st);
    if (first < 0 || first == FTW_NS) { /* only where the walk begins is that an error */
        const int flag = walk->flags & FTW_PHYS ? AT_SYMLINK_NOFOLLOW : 0;
        long result = cow_fstatat(ME, AT_FDCWD, walk->path, &st, flag);
        free(cwd);
        return (int)pl_result(result < 0 ? result : -EIO);
    }
    const char *slash = strrchr(walk->path, '/');
    int result = visit(walk, length, slash && slash[1] ? (int)(slash + 1 - walk->path) : 0, 0, NULL);
    if (cwd) {
        pl_chdir(cwd);
        free(cwd);
    }
    return result;
}

EXPORT int nftw(const char *path, int (*function)(const char *, const struct stat *, int, struct FTW *), int fds, int flags)
{
    struct walk walk = { .function = function, .flags = flags };
    (void)fds;
    return start(path, &walk);
}
__asm__(".globl nftw64\n.type nftw64, %function\n.set nftw64, nftw");

EXPORT int ftw(const char *path, int (*function)(const char *, const struct stat *, int), int fds)
{
    struct walk walk = { .old = function };
    (void)fds;
    return start(path, &walk);
}
__asm__(".globl ftw64\n.type ftw64, %function\n.set ftw64, ftw");
