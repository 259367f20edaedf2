/* Changing names: what the kernel's calls of these names do, on the trees. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "caller.h"
#include "serve.h"

static long make_directory(struct caller *caller, int dirfd, const char *path, mode_t mode)
{
    const long error = caller_enter(caller, 1);
    return error < 0 ? error : cow_mkdirat(&caller->asker, dirfd, path, mode);
}

long serve_mkdirat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 1, path);
    return make_directory(caller, ARG_INT(caller, 0), path, (mode_t)ARG(caller, 2));
}

static long make_node(struct caller *caller, int dirfd, const char *path, mode_t mode, dev_t device)
{
    const long error = caller_enter(caller, 1);
    return error < 0 ? error : cow_mknodat(&caller->asker, dirfd, path, mode, device);
}

long serve_mknodat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 1, path);
    return make_node(caller, ARG_INT(caller, 0), path, (mode_t)ARG(caller, 2), (dev_t)(unsigned)ARG(caller, 3));
}

static long make_symlink(struct caller *caller, const char *target, int dirfd, const char *path)
{
    const long error = caller_enter(caller, 0);
    return error < 0 ? error : cow_symlinkat(&caller->asker, target, dirfd, path);
}

long serve_symlinkat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, target);
    PATH_ARGUMENT(caller, 2, path);
    return make_symlink(caller, target, ARG_INT(caller, 1), path);
}

static long make_link(struct caller *caller, int from_dirfd, const char *from, int to_dirfd, const char *to, int flags)
{
    const long error = caller_enter(caller, 0);
    return error < 0 ? error : cow_linkat(&caller->asker, from_dirfd, from, to_dirfd, to, flags);
}

long serve_linkat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 1, from);
    PATH_ARGUMENT(caller, 3, to);
    return make_link(caller, ARG_INT(caller, 0), from, ARG_INT(caller, 2), to, ARG_INT(caller, 4));
}

static long remove_name(struct caller *caller, int dirfd, const char *path, int flags)
{
    const long error = caller_enter(caller, 0);
    return error < 0 ? error : cow_unlinkat(&caller->asker, dirfd, path, flags);
}

long serve_unlinkat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 1, path);
    return remove_name(caller, ARG_INT(caller, 0), path, ARG_INT(caller, 2));
}

static long rename_it(struct caller *caller, int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
    const long error = caller_enter(caller, 0);
    return error < 0 ? error : cow_renameat(&caller->asker, from_dirfd, from, to_dirfd, to, flags);
}

static long rename_at(struct caller *caller, unsigned flags)
{
    PATH_ARGUMENT(caller, 1, from);
    PATH_ARGUMENT(caller, 3, to);
    return rename_it(caller, ARG_INT(caller, 0), from, ARG_INT(caller, 2), to, flags);
}

long serve_renameat(struct caller *caller)
{
    return rename_at(caller, 0);
}

long serve_renameat2(struct caller *caller)
{
    return rename_at(caller, (unsigned)ARG(caller, 4));
}

long serve_truncate(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    const long error = caller_enter(caller, 0);
    return error < 0 ? error : cow_truncate(&caller->asker, path, (off_t)ARG(caller, 1));
}

#ifdef __x86_64__
long serve_mkdir(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return make_directory(caller, AT_FDCWD, path, (mode_t)ARG(caller, 1));
}

long serve_mknod(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return make_node(caller, AT_FDCWD, path, (mode_t)ARG(caller, 1), (dev_t)(unsigned)ARG(caller, 2));
}

long serve_symlink(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, target);
    PATH_ARGUMENT(caller, 1, path);
    return make_symlink(caller, target, AT_FDCWD, path);
}

long serve_link(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, from);
    PATH_ARGUMENT(caller, 1, to);
    return make_link(caller, AT_FDCWD, from, AT_FDCWD, to, 0);
}

long serve_unlink(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return remove_name(caller, AT_FDCWD, path, 0);
}

long serve_rmdir(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return remove_name(caller, AT_FDCWD, path, AT_REMOVEDIR);
}

long serve_rename(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, from);
    PATH_ARGUMENT(caller, 1, to);
    return rename_it(caller, AT_FDCWD, from, AT_FDCWD, to, 0);
}
#endif
