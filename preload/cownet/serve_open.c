/* Opening. The supervisor opens what the path means in the trees, and the caller gets the open file: whatever becomes of
   the path in its memory meanwhile, it is this file that was decided about. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "../common/sys.h"
#include "caller.h"
#include "own.h"
#include "serve.h"

/* /dev/tty is the terminal of whoever opens it, here the supervisor; the caller's is named in /proc/TID/stat. */
static long open_terminal(struct caller *caller, int flags)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", caller->asker.tid);
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[length < 0 ? 0 : length] = 0;
    const char *after = strrchr(text, ')'); /* of the name, which may hold anything */
    int number = 0;
    if (!after || sscanf(after + 1, " %*c %*d %*d %*d %d", &number) != 1 || number == 0)
        return -ENXIO;
    const unsigned minor_ = (unsigned)((number & 0xff) | ((number >> 12) & 0xfff00)), major_ = (unsigned)(number >> 8 & 0xfff);
    if (major_ == 4)
        snprintf(path, sizeof path, "/dev/tty%u", minor_);
    else
        snprintf(path, sizeof path, "/dev/pts/%u", (major_ - 136) * 256 + minor_);
    return open(path, flags | O_CLOEXEC | O_NOCTTY);
}

static long open_for(struct caller *caller, int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
    const int creates = flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
    long fd;
    /* The kernel gives descriptors of O_PATH to nobody else (fget): the caller has to open it itself. */
    if (flags & O_PATH)
        return own_open_path(caller, dirfd, path, flags);
    const long error = caller_enter(caller, creates);
    if (error < 0)
        return error;
    if (strcmp(path, "/dev/tty") == 0)
        fd = open_terminal(caller, flags);
    else
        fd = cow_openat(&caller->asker, dirfd, path, flags | O_CLOEXEC | O_NOCTTY, mode, resolve);
    return fd < 0 ? fd : serve_give_fd(caller, (int)fd, flags & O_CLOEXEC);
}

/* `open` and openat; what is only read is given to the caller or to nobody. */
static long open_at(struct caller *caller, int dirfd, int number)
{
    char path[PATH_MAX];
    const int flags = ARG_INT(caller, number + 1), changes = flags & (O_ACCMODE | O_CREAT | O_TRUNC | O_PATH | O_TMPFILE);
    const long length = changes ? serve_path(caller, number, path) : serve_path_to_look(caller, number, path);
    return length < 0 ? length : open_for(caller, dirfd, path, flags, (mode_t)ARG(caller, number + 2), 0);
}

#ifdef __x86_64__
long serve_open(struct caller *caller)
{
    return open_at(caller, AT_FDCWD, 0);
}

long serve_creat(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return open_for(caller, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, (mode_t)ARG(caller, 1), 0);
}
#endif

long serve_openat(struct caller *caller)
{
    return open_at(caller, ARG_INT(caller, 0), 1);
}

long serve_openat2(struct caller *caller)
{
    struct open_how how = { 0 };
    char rest[4096];
    const size_t size = ARG(caller, 3), known = size < sizeof how ? size : sizeof how;
    if (size < sizeof how)
        return -EINVAL;
    if (size > sizeof rest)
        return -E2BIG;
    PATH_ARGUMENT(caller, 1, path);
    if (caller_read(caller, ARG(caller, 2), rest, size) < 0)
        return -EFAULT;
    memcpy(&how, rest, known);
    for (size_t i = known; i < size; i++)
        if (rest[i])
            return -E2BIG; /* of a newer kernel */
    if (how.flags > INT32_MAX || how.mode > 07777 || (how.mode && !(how.flags & (O_CREAT | __O_TMPFILE))))
        return -EINVAL;
    return open_for(caller, ARG_INT(caller, 0), path, (int)how.flags, (mode_t)how.mode, how.resolve);
}
