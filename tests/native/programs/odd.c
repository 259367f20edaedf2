/* Ways round the net, by bare system calls: odd WAY PATH  tries one and says what came of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../../../preload/common/cow_cookie.h"
#include "../../../preload/cownet/calls.h"

static long raw(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}

/* Every path call of the table with arguments of all kinds. */
static long garbage(const char *path)
{
    static char space[8192];
    const long values[] = { 0, 1, -1, 3, 8, AT_FDCWD, 0x1000, 0x7fffffff, (long)path, (long)space, (long)(space + 4095), 1L << 47, -4096 };
    unsigned long random = 12345;
    memset(space, 'x', sizeof space);
#define NUMBER(number, name, kind) kind == PATH || kind == SENDTO ? number : -1,
    enum { PATH, REFUSE, ABSENT, IDS, PRCTL, SETNS, LIMIT, IOCTL, SENDTO };
    const int numbers[] = { NET_CALLS(NUMBER) };
    for (int i = 0; i < 20000; i++) {
        long a[6];
        for (int j = 0; j < 6; j++) {
            random = random * 6364136223846793005UL + 1442695040888963407UL;
            a[j] = values[(random >> 33) % (sizeof values / sizeof values[0])];
        }
        const int number = numbers[(random >> 40) % (sizeof numbers / sizeof numbers[0])];
        if (number >= 0)
            raw(number, a[0], a[1], a[2], a[3], a[4], 0);
    }
    return 0;
}

static long try(const char *way, const char *path)
{
    char space[256] = { 0 };
    const long at = (long)path;
    if (strcmp(way, "io_uring") == 0)
        return raw(SYS_io_uring_setup, 8, (long)space, 0, 0, 0, 0);
    if (strcmp(way, "i386") == 0) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20) : "memory"); /* getpid of 32-bit programs */
        return (int)result;
    }
    if (strcmp(way, "x32") == 0)
        return raw(0x40000000 | SYS_open, at, O_WRONLY | O_TRUNC, 0, 0, 0, 0);
    if (strcmp(way, "newer") == 0)
        return raw(4000, at, 0, 0, 0, 0, 0);
    if (strcmp(way, "cookie-of-another-call") == 0)
        return raw(SYS_truncate, at, 1, 0, 0, 0, pccow_cookie(SYS_open, at, 1));
    if (strcmp(way, "cookie-of-another-path") == 0)
        return raw(SYS_truncate, at, 1, 0, 0, 0, pccow_cookie(SYS_truncate, at + 1, 1));
    if (strcmp(way, "handle") == 0) {
        struct file_handle *handle = (void *)space;
        handle->handle_bytes = 128;
        int mount;
        return raw(SYS_name_to_handle_at, AT_FDCWD, at, (long)handle, (long)&mount, 0, 0);
    }
    if (strcmp(way, "open-by-handle") == 0)
        return raw(SYS_open_by_handle_at, AT_FDCWD, (long)space, O_WRONLY, 0, 0, 0);
    if (strcmp(way, "mount") == 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
            return -errno;
        return raw(SYS_mount, at, (long)"/mnt", 0, MS_BIND, 0, 0);
    }
    if (strcmp(way, "open-tree") == 0)
        return raw(SYS_open_tree, AT_FDCWD, at, 1, 0, 0, 0);
    if (strcmp(way, "chroot") == 0)
        return raw(SYS_chroot, at, 0, 0, 0, 0, 0);
    if (strcmp(way, "mark") == 0) {
        const struct rlimit limit = { 7, 7 };
        return raw(SYS_prlimit64, 0, RLIMIT_LOCKS, (long)&limit, 0, 0, 0);
    }
    if (strcmp(way, "flags") == 0) { /* chattr(1) */
        const int flags = FS_NODUMP_FL;
        return raw(SYS_ioctl, raw(SYS_open, at, O_RDONLY, 0, 0, 0, 0), FS_IOC_SETFLAGS, (long)&flags, 0, 0, 0);
    }
    if (strcmp(way, "undumpable") == 0) {
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
        return raw(SYS_truncate, at, 1, 0, 0, 0, 0);
    }
    if (strcmp(way, "garbage") == 0)
        return garbage(path);
    if (strcmp(way, "look-at-mark") == 0)
        return raw(SYS_prlimit64, 0, RLIMIT_LOCKS, 0, (long)space, 0, 0);
    return -EINVAL;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    const long result = try(argv[1], argv[2]);
    printf("%s\n", result < 0 ? strerrorname_np((int)-result) : "ok");
    return 0;
}
