/* For each line on standard input does path calls by bare system calls in the current directory, and says what each cost. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { CALLS = 300 };

static double microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

int main(void)
{
    char line[64], buffer[64];
    struct stat info;
    while (fgets(line, sizeof line, stdin)) {
        double times[5] = { microseconds() };
        for (int i = 0; i < CALLS; i++)
            syscall(SYS_newfstatat, AT_FDCWD, "file", &info, 0);
        times[1] = microseconds();
        for (int i = 0; i < CALLS; i++)
            close((int)syscall(SYS_openat, AT_FDCWD, "file", O_RDONLY, 0));
        times[2] = microseconds();
        for (int i = 0; i < CALLS; i++)
            syscall(SYS_faccessat, AT_FDCWD, "none", F_OK);
        times[3] = microseconds();
        const int fd = open("/dev/zero", O_RDONLY);
        const double start = microseconds();
        for (int i = 0; i < CALLS; i++)
            if (read(fd, buffer, sizeof buffer) < 0)
                return 1;
        times[4] = microseconds();
        close(fd);
        printf("{\"stat\": %f, \"open\": %f, \"access\": %f, \"read\": %f}\n", (times[1] - times[0]) / CALLS,
               (times[2] - times[1]) / CALLS, (times[3] - times[2]) / CALLS, (times[4] - start) / CALLS);
        fflush(stdout);
    }
    return 0;
}
