/* An attack: one thread changes a path between two of the same length while another uses it, all by bare system calls.
   flip SECONDS OPERATION SAFE TREE - SAFE may be written to, TREE lies in a copy-on-write tree. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 512, LEAST = 200 }; /* uses: each way is met, however slow a use is */

static char path[SIZE];
static const char *ways[2];
static size_t from, length; /* the part in which the two differ */
static atomic_int over;

static long raw(long number, long a, long b, long c, long d)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = 0;
    register long r9 __asm__("r9") = 0;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}

static void *flip(void *argument)
{
    for (int way = 0; !atomic_load(&over); way = !way) {
        memcpy(path + from, ways[way] + from, length);
        for (volatile int pause = 0; pause < 300; pause++)
            ;
    }
    return argument;
}

static void use(const char *operation)
{
    if (strcmp(operation, "open") == 0) {
        const long fd = raw(SYS_open, (long)path, O_WRONLY | O_APPEND, 0, 0);
        if (fd >= 0) {
            raw(SYS_write, fd, (long)"x", 1, 0);
            raw(SYS_close, fd, 0, 0, 0);
        }
    } else if (strcmp(operation, "chmod") == 0) {
        raw(SYS_chmod, (long)path, 0600, 0, 0);
        raw(SYS_chmod, (long)path, 0644, 0, 0);
    } else if (strcmp(operation, "truncate") == 0) {
        raw(SYS_truncate, (long)path, 3, 0, 0);
    } else if (strcmp(operation, "unlink") == 0) {
        raw(SYS_unlink, (long)path, 0, 0, 0);
    } else if (strcmp(operation, "mkdir") == 0) {
        raw(SYS_mkdir, (long)path, 0755, 0, 0);
        raw(SYS_rmdir, (long)path, 0, 0, 0);
    } else if (strcmp(operation, "chdir") == 0) {
        raw(SYS_chdir, (long)path, 0, 0, 0);
        const long fd = raw(SYS_open, (long)"here", O_WRONLY | O_CREAT, 0644, 0);
        if (fd >= 0)
            raw(SYS_close, fd, 0, 0, 0);
    } else if (strcmp(operation, "exec") == 0) {
        static char *arguments[] = { path, NULL }, *none[] = { NULL };
        const pid_t pid = (pid_t)raw(SYS_fork, 0, 0, 0, 0);
        if (pid == 0) {
            raw(SYS_execve, (long)path, (long)arguments, (long)none, 0);
            _exit(3);
        }
        waitpid(pid, NULL, 0);
    }
}

int main(int argc, char **argv)
{
    pthread_t flipper;
    struct timespec now;
    unsigned long uses = 0;
    if (argc != 5 || strlen(argv[3]) != strlen(argv[4]) || strlen(argv[3]) >= SIZE)
        return 2;
    ways[0] = argv[3];
    ways[1] = argv[4];
    strcpy(path, argv[3]);
    while (ways[0][from] == ways[1][from])
        from++;
    length = strlen(path) - from;
    clock_gettime(CLOCK_MONOTONIC, &now);
    const time_t until = now.tv_sec + atoi(argv[1]);
    if (pthread_create(&flipper, NULL, flip, NULL))
        return 2;
    do {
        use(argv[2]);
        uses++;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while (now.tv_sec < until || uses < LEAST);
    atomic_store(&over, 1);
    pthread_join(flipper, NULL);
    printf("%lu\n", uses);
    return 0;
}
