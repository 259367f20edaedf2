/* An attack on the way to a file, in two programs:
   swap exchange DIRECTORY LINK            exchanges a directory for a symbolic link, again and again, until it is killed;
   swap OPERATION SECONDS DIRECTORY NAME   makes calls with the path DIRECTORY/NAME, by bare system calls. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 1024, EXCHANGE = 2 };

static long raw(long number, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = 0;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}

static void use(const char *operation, const char *path)
{
    const long at = (long)path;
    if (strcmp(operation, "open") == 0) {
        const long fd = raw(SYS_open, at, O_WRONLY | O_APPEND, 0, 0, 0);
        if (fd >= 0) {
            raw(SYS_write, fd, (long)"x", 1, 0, 0);
            raw(SYS_close, fd, 0, 0, 0, 0);
        }
    } else if (strcmp(operation, "create") == 0) {
        const long fd = raw(SYS_open, at, O_WRONLY | O_CREAT | O_TRUNC, 0600, 0, 0);
        if (fd >= 0)
            raw(SYS_close, fd, 0, 0, 0, 0);
    } else if (strcmp(operation, "chmod") == 0) {
        raw(SYS_chmod, at, 0600, 0, 0, 0);
        raw(SYS_chmod, at, 0644, 0, 0, 0);
    } else if (strcmp(operation, "truncate") == 0) {
        raw(SYS_truncate, at, 3, 0, 0, 0);
    } else if (strcmp(operation, "utimensat") == 0) {
        raw(SYS_utimensat, AT_FDCWD, at, 0, 0, 0);
    } else if (strcmp(operation, "setxattr") == 0) {
        raw(SYS_setxattr, at, (long)"user.new", (long)"x", 1, 0);
    } else if (strcmp(operation, "unlink") == 0) {
        raw(SYS_unlink, at, 0, 0, 0, 0);
    } else if (strcmp(operation, "mkdir") == 0) {
        raw(SYS_mkdir, at, 0755, 0, 0, 0);
        raw(SYS_rmdir, at, 0, 0, 0, 0);
    } else if (strcmp(operation, "rename") == 0) {
        char other[SIZE + 8];
        snprintf(other, sizeof other, "%s.moved", path);
        raw(SYS_rename, at, (long)other, 0, 0, 0);
        raw(SYS_rename, (long)other, at, 0, 0, 0);
    } else if (strcmp(operation, "link") == 0) {
        char other[SIZE + 8];
        snprintf(other, sizeof other, "%s.linked", path);
        raw(SYS_link, at, (long)other, 0, 0, 0);
        raw(SYS_unlink, (long)other, 0, 0, 0, 0);
    }
}

int main(int argc, char **argv)
{
    struct timespec now;
    char path[SIZE];
    unsigned long uses = 0;
    if (argc == 4 && strcmp(argv[1], "exchange") == 0) {
        alarm(60); /* whatever becomes of the test */
        for (;;)
            raw(SYS_renameat2, AT_FDCWD, (long)argv[2], AT_FDCWD, (long)argv[3], EXCHANGE);
    }
    if (argc != 5)
        return 2;
    snprintf(path, sizeof path, "%s/%s", argv[3], argv[4]);
    clock_gettime(CLOCK_MONOTONIC, &now);
    const time_t until = now.tv_sec + atoi(argv[2]);
    do {
        use(argv[1], path);
        uses++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < until);
    printf("%lu\n", uses);
    return 0;
}
