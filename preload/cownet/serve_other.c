/* Watches, changes of ids, ioctls, and our own questions. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "../common/cow_cookie.h"
#include "../common/sys.h"
#include "caller.h"
#include "scope.h"
#include "serve.h"

long serve_let_through(const struct caller *caller)
{
    struct seccomp_notif_resp answer = { .id = caller->call->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
    ioctl(caller->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    return ANSWERED;
}

long serve_ids(struct caller *caller)
{
    caller_ids_change();
    return serve_let_through(caller);
}

long serve_inotify_add_watch(struct caller *caller)
{
    char real[PATH_MAX];
    PATH_ARGUMENT(caller, 1, path);
    const unsigned mask = (unsigned)ARG(caller, 2);
    CLEANUP_FD int ours = caller_fd(caller, ARG_INT(caller, 0));
    long error = ours < 0 ? ours : caller_enter(caller, 0);
    /* What is watched must be what will change: the copy. */
    const unsigned reading = IN_ACCESS | IN_OPEN | IN_CLOSE_NOWRITE | IN_ONLYDIR | IN_DONT_FOLLOW | IN_ONESHOT;
    const int follow = mask & IN_DONT_FOLLOW ? COW_NOFOLLOW : 0;
    if (error == 0)
        error = cow_real_path(&caller->asker, AT_FDCWD, path, follow | (mask & ~reading ? COW_WRITE : 0), real);
    if (error == -EROFS)
        error = cow_real_path(&caller->asker, AT_FDCWD, path, follow, real);
    if (error < 0)
        return error;
    const int watch = inotify_add_watch(ours, real, mask);
    return watch < 0 ? -errno : watch;
}

/* An inode's flags, project, generation: those of what the upper has. */
long serve_ioctl(struct caller *caller)
{
    char view[PATH_MAX];
    struct fsxattr attribute; /* the largest of them */
    const unsigned request = (unsigned)ARG(caller, 1);
    const size_t size = request == FS_IOC_FSSETXATTR ? sizeof attribute : request == FS_IOC_SETFLAGS || request == FS_IOC_SETVERSION ? sizeof(int) : 0;
    if (size == 0)
        return serve_refuse(caller, NULL, EOPNOTSUPP, "this ioctl would change what lies below the trees");
    long error = caller_read(caller, ARG(caller, 2), &attribute, size);
    if (error == 0)
        error = caller_enter(caller, 0);
    if (error < 0)
        return error;
    CLEANUP_FD int ours = caller_fd(caller, ARG_INT(caller, 0));
    if (ours < 0)
        return ours;
    if (cow_fd_is_lower(&caller->asker, ARG_INT(caller, 0), view) != 0)
        return serve_refuse(caller, view, EROFS, "would change the original's inode");
    return ioctl(ours, request, &attribute) < 0 ? -errno : 0;
}

/* prctl(PCCOW_PRCTL, PCCOW_JOIN, configuration, buffer of PATH_MAX): this process, and what it starts, gets the trees of
   the configuration as well; where to find one of all its trees is written to the buffer. */
static long join(struct caller *caller)
{
    char joined[PATH_MAX];
    PATH_ARGUMENT(caller, 2, configuration);
    const long error = scope_join(caller, configuration, joined);
    return error < 0 ? error : caller_write(caller, ARG(caller, 3), joined, strlen(joined) + 1);
}

long serve_prctl(struct caller *caller)
{
    switch (ARG(caller, 1)) {
    case PCCOW_PING:
        return 1;
    case PCCOW_JOIN:
        return join(caller);
    case PCCOW_COUNT:
        return serve_count() & INT32_MAX;
    default:
        return -EINVAL;
    }
}
