#define _GNU_SOURCE
#include "caller.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../common/sys.h"
#include "scope.h"

enum { STATUS_SIZE = 16384, GROUPS_MAX = 1024, PAGE = 4096, USUAL = 256 /* bytes of a path */, LINKS = 8 };

static atomic_int ids_change;
static __thread int entered_ids;

void caller_ids_change(void)
{
    atomic_store(&ids_change, 1);
}

/* The part of /proc/TID/status before the long lines of memory and processors. */
static long read_status(pid_t tid, char *text, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/status", tid);
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    const ssize_t length = read(fd, text, size - 1);
    if (length < 0)
        return -errno;
    text[length] = 0;
    return 0;
}

static const char *field(const char *status, const char *name)
{
    const char *at = strstr(status, name); /* names begin with a newline; the first line is another one's */
    return at ? at + strlen(name) : "";
}

/* Finding the link is a good part of what reading it costs. So those of threads that ask twice in a row stay open, this thread's few. A link
   is its thread's, not its number's: after its end reading it fails, whoever has the number then. */
static long read_cwd(int tid, char *out, size_t size)
{
    static __thread struct link {
        int tid, fd; /* fd 0: none */
    } links[LINKS];
    struct link *link = &links[(unsigned)tid % LINKS];
    char path[64];
    ssize_t length = -1;
    if (link->fd > 0 && link->tid == tid && (length = readlinkat(link->fd, "", out, size)) >= 0)
        return length;
    snprintf(path, sizeof path, "/proc/%d/cwd", tid);
    if (link->fd > 0)
        close(link->fd);
    link->fd = link->tid == tid ? open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC) : 0;
    link->tid = tid;
    length = link->fd > 0 ? readlinkat(link->fd, "", out, size) : readlink(path, out, size);
    return length < 0 ? -errno : length;
}

long caller_find(struct caller *caller, const struct seccomp_notif *call, int listener)
{
    const pid_t tid = (pid_t)call->pid;
    *caller = (struct caller){ .call = call, .listener = listener, .asker = { .pid = tid, .tid = tid } };
    if (tid == 0)
        return -ESRCH; /* in a pid namespace that this process does not see into */
    caller->asker.root = scope_root();
    caller->asker.ways = &caller->ways;
    caller->ways.nowhere = scope_nowhere();
    caller->ways.read_cwd = read_cwd;
    caller->asker.set = scope_of(tid);
    return caller->asker.set ? 0 : -EPERM;
}

pid_t caller_pid(const struct caller *caller)
{
    const pid_t tid = caller->asker.tid;
    char status[STATUS_SIZE];
    /* Is the thread its process's first? Then their numbers are the same; and reading them is dear. */
    if (syscall(SYS_tgkill, tid, tid, 0) == 0 || errno != ESRCH || read_status(tid, status, sizeof status) < 0)
        return tid;
    return atoi(field(status, "\nTgid:"));
}

int caller_waits(const struct caller *caller)
{
    uint64_t id = caller->call->id;
    return ioctl(caller->listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) == 0;
}

long caller_read(const struct caller *caller, uint64_t address, void *buffer, size_t size)
{
    const struct iovec here = { buffer, size }, there = { (void *)(uintptr_t)address, size };
    if (process_vm_readv(caller->asker.tid, &here, 1, &there, 1, 0) == (ssize_t)size)
        return 0;
    return errno == EPERM ? -EACCES : -EFAULT;
}

long caller_write(const struct caller *caller, uint64_t address, const void *buffer, size_t size)
{
    const struct iovec here = { (void *)(uintptr_t)buffer, size }, there = { (void *)(uintptr_t)address, size };
    if (size == 0)
        return 0;
    return process_vm_writev(caller->asker.tid, &here, 1, &there, 1, 0) == (ssize_t)size ? 0 : -EFAULT;
}

long caller_string(const struct caller *caller, uint64_t address, char *buffer, size_t size)
{
    size_t length = 0;
    /* Page by page: the string may end just before one that is not there. */
    while (length < size) {
        size_t chunk = PAGE - (address + length) % PAGE;
        if (length == 0 && chunk > USUAL)
            chunk = USUAL;
        if (chunk > size - length)
            chunk = size - length;
        const long error = caller_read(caller, address + length, buffer + length, chunk);
        if (error < 0)
            return error;
        const char *end = memchr(buffer + length, 0, chunk);
        if (end)
            return end - buffer;
        length += chunk;
    }
    return -ENAMETOOLONG;
}

int caller_fd(const struct caller *caller, int fd)
{
    CLEANUP_FD int process = pc_pidfd_open(caller_pid(caller));
    if (process < 0)
        return -errno;
    const int copy = (int)syscall(SYS_pidfd_getfd, process, fd, 0);
    return copy < 0 ? -errno : copy;
}

int caller_cloexec(const struct caller *caller, int fd)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/fdinfo/%d", caller->asker.tid, fd);
    CLEANUP_FD int info = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t length = info < 0 ? -1 : read(info, text, sizeof text - 1);
    text[length < 0 ? 0 : length] = 0;
    const char *flags = strstr(text, "flags:");
    return flags && strtoul(flags + strlen("flags:"), NULL, 8) & O_CLOEXEC;
}

/* One thread's own ids: the system calls, as the C library's functions change those of all threads. The saved user id
   stays, so the way back is open. */
static long enter_ids(const char *status)
{
    static __thread gid_t groups[GROUPS_MAX];
    unsigned uid[4], gid[4];
    size_t count = 0;
    if (sscanf(field(status, "\nUid:"), "%u %u %u %u", &uid[0], &uid[1], &uid[2], &uid[3]) != 4)
        return -EIO;
    if (sscanf(field(status, "\nGid:"), "%u %u %u %u", &gid[0], &gid[1], &gid[2], &gid[3]) != 4)
        return -EIO;
    const char *at = field(status, "\nGroups:");
    for (char *end; *at && *at != '\n' && count < GROUPS_MAX; at = end) {
        groups[count] = (gid_t)strtoul(at, &end, 10);
        if (end == at)
            break;
        count++;
        while (*end == ' ' || *end == '\t')
            end++;
    }
    entered_ids = 1;
    if (syscall(SYS_setgroups, count, groups) < 0 || syscall(SYS_setresgid, gid[0], gid[3], -1) < 0 || syscall(SYS_setresuid, uid[0], uid[3], -1) < 0)
        return -errno;
    /* Of what root can do, no more than the caller still can. */
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];
    const unsigned long long effective = strtoull(field(status, "\nCapEff:"), NULL, 16);
    if (syscall(SYS_capget, &header, data) < 0)
        return -errno;
    data[0].effective = data[0].permitted & (uint32_t)effective;
    data[1].effective = data[1].permitted & (uint32_t)(effective >> 32);
    return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

long caller_enter(const struct caller *caller, int creates)
{
    char status[STATUS_SIZE];
    const int ids = atomic_load(&ids_change) && geteuid() == 0;
    if (!ids && !creates)
        return 0;
    const long error = read_status(caller->asker.tid, status, sizeof status);
    if (error < 0)
        return error;
    umask((mode_t)strtoul(field(status, "\nUmask:"), NULL, 8));
    return ids ? enter_ids(status) : 0;
}

void caller_leave(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2];
    if (!entered_ids)
        return;
    entered_ids = 0;
    /* First the capabilities back (those for changing ids among them), or the kernel gives them with user id 0. */
    if (syscall(SYS_setresuid, 0, 0, 0) < 0 || syscall(SYS_capget, &header, data) < 0)
        _exit(1); /* this thread would serve others with the wrong ids; without a supervisor their calls fail */
    data[0].effective = data[0].permitted;
    data[1].effective = data[1].permitted;
    if (syscall(SYS_capset, &header, data) < 0 || syscall(SYS_setresgid, 0, 0, 0) < 0 || scope_restore_groups() < 0)
        _exit(1);
}
