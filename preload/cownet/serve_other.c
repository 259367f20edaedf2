/* Sockets in the file system, watches, and our own questions. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../common/cow_cookie.h"
#include "../common/sys.h"
#include "caller.h"
#include "scope.h"
#include "serve.h"

/* Lets the kernel do the call as it stands. Only where nothing was decided by what the caller's memory said. */
static long let_through(const struct caller *caller)
{
    struct seccomp_notif_resp answer = { .id = caller->call->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
    ioctl(caller->listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    return ANSWERED;
}

long serve_ids(struct caller *caller)
{
    caller_ids_change();
    return let_through(caller);
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

/* A copy of the address that the caller gives; its length, or -errno. */
static long read_address(struct caller *caller, struct sockaddr_storage *address)
{
    const int length = ARG_INT(caller, 2);
    memset(address, 0, sizeof *address);
    if (length < 0 || (size_t)length > sizeof *address)
        return -EINVAL;
    if (caller_read(caller, ARG(caller, 1), address, (size_t)length) < 0)
        return -EFAULT;
    return caller_waits(caller) ? length : -ESRCH;
}

/* Whether the address is a path (unix(7): neither abstract nor without a name); the path is ended by a NUL. */
static int is_path(const struct sockaddr_storage *address, long length, char path[sizeof(struct sockaddr_storage)])
{
    const long start = offsetof(struct sockaddr_un, sun_path);
    if (length <= start || address->ss_family != AF_UNIX || ((const struct sockaddr_un *)address)->sun_path[0] == 0)
        return 0;
    memcpy(path, (const char *)address + start, (size_t)(length - start));
    path[length - start] = 0;
    return 1;
}

/* An address for a real path, which may be longer than an address can be: then by its directory's descriptor. */
static long make_address(char *real, struct sockaddr_un *address, socklen_t *length, int *directory)
{
    char *slash = strrchr(real, '/');
    *address = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (strlen(real) < sizeof address->sun_path) {
        strcpy(address->sun_path, real);
    } else {
        *slash = 0;
        *directory = open(slash == real ? "/" : real, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (*directory < 0)
            return -errno;
        if (snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", *directory, slash + 1) >= (int)sizeof address->sun_path)
            return -ENAMETOOLONG;
    }
    *length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(address->sun_path) + 1);
    return 0;
}

/* bind or connect, by a copy of the caller's socket: it is the socket that is bound, and in its network namespace. */
static long use_address(struct caller *caller, int find, int (*use)(int, const struct sockaddr *, socklen_t))
{
    struct sockaddr_storage given;
    struct sockaddr_un found;
    char path[sizeof given], real[PATH_MAX];
    socklen_t length;
    CLEANUP_FD int directory = -1;
    long result = read_address(caller, &given);
    if (result < 0)
        return result;
    length = (socklen_t)result;
    const int by_path = is_path(&given, result, path);
    CLEANUP_FD int ours = caller_fd(caller, ARG_INT(caller, 0));
    if (ours < 0)
        return ours;
    if ((result = caller_enter(caller, by_path)) < 0)
        return result;
    if (by_path) {
        result = cow_real_path(&caller->asker, AT_FDCWD, path, find, real);
        if (result == -EEXIST && find == COW_CREATE)
            return -EADDRINUSE;
        if (result >= 0)
            result = make_address(real, &found, &length, &directory);
        if (result < 0)
            return result;
    }
    return use(ours, by_path ? (const struct sockaddr *)&found : (const struct sockaddr *)&given, length) < 0 ? -errno : 0;
}

long serve_bind(struct caller *caller)
{
    return use_address(caller, COW_CREATE, bind);
}

long serve_connect(struct caller *caller)
{
    return use_address(caller, 0, connect);
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
