/* The way to a path that a supervisor changes something at. Between the walk and the call somebody may exchange a directory on the way
   for a link that leads into a lower; so the directory that holds the last component is opened without following any link. */
#define _GNU_SOURCE
#include <linux/openat2.h>

#include "internal.h"

int cow_way(const struct cow_asker *asker, const char *path)
{
    struct cow_ways *ways = asker->ways;
    char parent[PATH_MAX];
    const size_t length = (size_t)(strrchr(path, '/') - path);
    if (length == 0)
        return asker->root;
    if (length >= sizeof parent)
        return -1;
    memcpy(parent, path + 1, length - 1);
    parent[length - 1] = 0;
    const struct open_how how = { .flags = O_PATH | O_DIRECTORY | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS };
    const long fd = SYS(SYS_openat2, asker->root, parent, &how, sizeof how);
    if (fd < 0)
        return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP ? ways->nowhere : -1;
    int *kept = &ways->fd[ways->count++ % COW_WAYS];
    if (ways->count > COW_WAYS)
        SYS(SYS_close, *kept);
    return *kept = (int)fd;
}

void cow_ways_close(struct cow_ways *ways)
{
    for (int i = 0; i < COW_WAYS && i < ways->count; i++)
        SYS(SYS_close, ways->fd[i]);
    ways->count = 0;
}

long cow_chmod(const struct cow_asker *asker, const char *real, mode_t mode)
{
    char proc[64] = "/proc/self/fd/";
    struct stat st;
    if (!asker->ways)
        return SYS(SYS_fchmodat, AT_PATH(asker, real), mode);
    /* fchmodat follows a link in the last component, which may be one by now. */
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_PATH(asker, real), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
    long result = fd < 0 ? fd : SYS(SYS_fstat, fd, &st);
    if (result < 0 || S_ISLNK(st.st_mode))
        return result < 0 ? result : -COW_AGAIN;
    cow_decimal(proc + strlen(proc), (uint64_t)fd);
    return SYS(SYS_fchmodat, AT_FDCWD, proc, mode);
}
