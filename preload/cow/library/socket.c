/* UNIX sockets have a path of at most 107 bytes, and the real one may be longer than the view's: then it is named by way of
   a descriptor of its directory, which is shorter. */
#define _GNU_SOURCE
#include <sys/un.h>

#include "library.h"

static int has_path(const struct sockaddr *address, socklen_t length)
{
    return address && length > offsetof(struct sockaddr_un, sun_path) && address->sa_family == AF_UNIX &&
           ((const struct sockaddr_un *)address)->sun_path[0];
}

/* The address with its real path in out; *directory may get a descriptor to close afterwards. Its length or -errno. */
static long real_address(const struct sockaddr *address, socklen_t length, int flags, struct sockaddr_un *out, int *directory)
{
    const struct sockaddr_un *given = (const struct sockaddr_un *)address;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    char path[sizeof given->sun_path + 1];
    size_t size = length - offsetof(struct sockaddr_un, sun_path);
    if (!w)
        return -ENOMEM;
    if (size > sizeof given->sun_path)
        return -EINVAL;
    memcpy(path, given->sun_path, size);
    path[size] = 0;
    long result = cow_real_path(ME, AT_FDCWD, path, flags, w->real);
    if (result < 0)
        return result == -EEXIST ? -EADDRINUSE : result;
    out->sun_family = AF_UNIX;
    if ((size_t)result >= sizeof out->sun_path) {
        char *name = strrchr(w->real, '/');
        *name++ = 0;
        *directory = (int)SYS(SYS_openat, AT_FDCWD, *w->real ? w->real : "/", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
        if (*directory < 0)
            return *directory;
        char *end = memcpy(out->sun_path, "/proc/self/fd/", 14) + 14;
        end += cow_decimal(end, (uint64_t)*directory);
        size = strlen(name);
        if ((size_t)(end - out->sun_path) + size + 2 > sizeof out->sun_path)
            return -ENAMETOOLONG;
        *end++ = '/';
        memcpy(end, name, size + 1);
        result = end + size - out->sun_path;
    } else {
        memcpy(out->sun_path, w->real, (size_t)result + 1);
    }
    return (long)offsetof(struct sockaddr_un, sun_path) + result + 1;
}

/* Where the program has named a place outside of all trees, the kernel gets what the program gave. */
static long with_address(long number, int fd, const struct sockaddr *address, socklen_t length, int flags)
{
    struct sockaddr_un own;
    COW_CLEANUP_FD int directory = -1;
    if (!has_path(address, length))
        return SYS(number, fd, address, length);
    long size = real_address(address, length, flags | COW_INSIDE, &own, &directory);
    if (size == -EXDEV)
        return SYS(number, fd, address, length);
    return size < 0 ? size : SYS(number, fd, &own, size);
}

long pl_bind(int fd, const struct sockaddr *address, socklen_t length)
{
    COW_CHANGES(ME, 1);
    return with_address(SYS_bind, fd, address, length, COW_CREATE);
}

long pl_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    return with_address(SYS_connect, fd, address, length, 0);
}

EXPORT int bind(int fd, const struct sockaddr *address, socklen_t length)
{
    return (int)pl_result(pl_bind(fd, address, length));
}

EXPORT int connect(int fd, const struct sockaddr *address, socklen_t length)
{
    return (int)pl_result(pl_connect(fd, address, length));
}

/* sendto has six arguments, so the address goes by sendmsg. */
EXPORT ssize_t sendto(int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length)
{
    if (!address)
        return pl_result(SYS(SYS_sendto, fd, data, size, flags, NULL)); /* without an address its length is not looked at */
    struct iovec piece = { (void *)data, size };
    const struct msghdr message = { .msg_name = (void *)address, .msg_namelen = length, .msg_iov = &piece,
                                    .msg_iovlen = 1 };
    return sendmsg(fd, &message, flags);
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    struct sockaddr_un own;
    COW_CLEANUP_FD int directory = -1;
    if (!has_path(message->msg_name, message->msg_namelen))
        return pl_result(SYS(SYS_sendmsg, fd, message, flags));
    long size = real_address(message->msg_name, message->msg_namelen, COW_INSIDE, &own, &directory);
    if (size < 0 && size != -EXDEV)
        return pl_result(size);
    struct msghdr changed = *message;
    if (size > 0) {
        changed.msg_name = &own;
        changed.msg_namelen = (socklen_t)size;
    }
    return pl_result(SYS(SYS_sendmsg, fd, &changed, flags));
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned count, int flags)
{
    unsigned named = 0;
    for (unsigned i = 0; i < count; i++)
        named += has_path(messages[i].msg_hdr.msg_name, messages[i].msg_hdr.msg_namelen);
    if (!named)
        return (int)pl_result(SYS(SYS_sendmmsg, fd, messages, count, flags));
    for (unsigned i = 0; i < count; i++) {
        const ssize_t sent = sendmsg(fd, &messages[i].msg_hdr, flags);
        if (sent < 0)
            return i ? (int)i : -1;
        messages[i].msg_len = (unsigned)sent;
    }
    return (int)count;
}

/* What the kernel knows of a socket is its real path; the view's is not longer than the name that the program gave. */
static int named(long number, int fd, struct sockaddr *address, socklen_t *length)
{
    struct sockaddr_un real;
    socklen_t size = sizeof real;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    long result = w ? SYS(number, fd, &real, &size) : -ENOMEM;
    if (result < 0 || !has_path((struct sockaddr *)&real, size))
        return (int)pl_result(result < 0 ? result : SYS(number, fd, address, length));
    const size_t path = size - offsetof(struct sockaddr_un, sun_path);
    memcpy(w->real, real.sun_path, path);
    w->real[path] = 0;
    result = cow_view_of(ME->set, w->real, w->link);
    if (result < 0 || (size_t)result >= sizeof real.sun_path)
        return (int)pl_result(SYS(number, fd, address, length));
    memcpy(real.sun_path, w->link, (size_t)result + 1);
    size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)result + 1);
    memcpy(address, &real, size < *length ? size : *length);
    *length = size;
    return 0;
}

EXPORT int getsockname(int fd, struct sockaddr *address, socklen_t *length)
{
    return named(SYS_getsockname, fd, address, length);
}

EXPORT int getpeername(int fd, struct sockaddr *address, socklen_t *length)
{
    return named(SYS_getpeername, fd, address, length);
}
