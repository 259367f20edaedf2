/* glob, with libc's own pattern matching on top of our directories. */
#define _GNU_SOURCE
#include <glob.h>

#include "library.h"

static void *open_directory(const char *path)
{
    return pl_opendir(AT_FDCWD, path);
}

static struct dirent *read_directory(void *dir)
{
    return pl_readdir(dir);
}

static void close_directory(void *dir)
{
    pl_closedir(dir);
}

static int get_stat(const char *path, struct stat *st)
{
    return (int)pl_result(cow_fstatat(ME, AT_FDCWD, path, st, 0));
}

static int get_lstat(const char *path, struct stat *st)
{
    return (int)pl_result(cow_fstatat(ME, AT_FDCWD, path, st, AT_SYMLINK_NOFOLLOW));
}

EXPORT int glob(const char *pattern, int flags, int (*error)(const char *, int), glob_t *found)
{
    if (flags & GLOB_ALTDIRFUNC) /* the program's own functions call ours */
        return NEXT(glob)(pattern, flags, error, found);
    found->gl_opendir = open_directory;
    found->gl_readdir = read_directory;
    found->gl_closedir = close_directory;
    found->gl_stat = get_stat;
    found->gl_lstat = get_lstat;
    int result = NEXT(glob)(pattern, flags | GLOB_ALTDIRFUNC, error, found);
    found->gl_flags &= ~GLOB_ALTDIRFUNC;
    return result;
}
__asm__(".globl glob64\n.type glob64, %function\n.set glob64, glob");
