/* Usual operations on the tree in the current directory, timed: one round for each line read. The tree has read/0 .. read/199,
   and for each round 20 files of write/ that nobody has written to yet. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { READS = 200, WRITES = 20 };

static double microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static const char *name(const char *directory, int i)
{
    static char text[64];
    snprintf(text, sizeof text, "%s/%d", directory, i);
    return text;
}

static void stats(void)
{
    struct stat st;
    for (int i = 0; i < READS; i++)
        if (stat(name("read", i), &st) < 0)
            fail("stat");
}

static void reads(void)
{
    char text[256];
    for (int i = 0; i < READS; i++) {
        int fd = open(name("read", i), O_RDONLY);
        if (fd < 0 || read(fd, text, sizeof text) < 0)
            fail("read");
        close(fd);
    }
}

static void lists(void)
{
    DIR *dir = opendir("read");
    int found = 0;
    while (dir && readdir(dir))
        found++;
    if (found < READS)
        fail("readdir");
    closedir(dir);
}

static void writes(int round)
{
    for (int i = 0; i < WRITES; i++) {
        int fd = open(name("write", round * WRITES + i), O_WRONLY);
        if (fd < 0 || write(fd, "new", 3) != 3)
            fail("write");
        close(fd);
    }
}

static void creates(void)
{
    for (int i = 0; i < WRITES; i++) {
        const char *fresh = name("write", -1 - i);
        int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (fd < 0 || write(fd, "new", 3) != 3)
            fail("create");
        close(fd);
        if (unlink(fresh) < 0)
            fail("unlink");
    }
}

int main(int argc, char **argv)
{
    char line[64];
    if (argc == 2 && chdir(argv[1]) < 0)
        fail("chdir");
    for (int round = 0; fgets(line, sizeof line, stdin); round++) {
        double times[6] = { microseconds() };
        stats();
        times[1] = microseconds();
        reads();
        times[2] = microseconds();
        lists();
        times[3] = microseconds();
        writes(round);
        times[4] = microseconds();
        creates();
        times[5] = microseconds();
        printf("{\"stat\": %f, \"read\": %f, \"list\": %f, \"write\": %f, \"create\": %f}\n", (times[1] - times[0]) / READS,
               (times[2] - times[1]) / READS, (times[3] - times[2]) / READS, (times[4] - times[3]) / WRITES,
               (times[5] - times[4]) / WRITES);
        fflush(stdout);
    }
    return 0;
}
