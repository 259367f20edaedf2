/* Who is in the way of a mount: read in the container's own /proc, so the pids are its own. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../common/numbered.h"
#include "../common/sys.h"
#include "mount_request.h"

static char text[512];

static void read_name(int proc, const char *pid, char *name, size_t size)
{
    char path[64];
    snprintf(path, sizeof path, "%s/comm", pid);
    CLEANUP_FD int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, name, size - 1);
    name[length < 0 ? 0 : length] = 0;
    name[strcspn(name, "\n")] = 0;
}

static int runs(int proc, const char *pid, void *what)
{
    const struct stat *file = what;
    struct stat info;
    char path[64], name[32];
    snprintf(path, sizeof path, "%s/exe", pid);
    if (fstatat(proc, path, &info, 0) < 0 || info.st_dev != file->st_dev || info.st_ino != file->st_ino)
        return 0;
    read_name(proc, pid, name, sizeof name);
    snprintf(text, sizeof text, "process %s (%s) of the container is running it: end that first", pid, name);
    return 1;
}

struct writer {
    uint64_t mount;
    const char *pid;
    int proc;
};

static int is_written(int directory, const char *name, void *what)
{
    const struct writer *writer = what;
    char buffer[512], path[96], file[256], process[32];
    CLEANUP_FD int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, buffer, sizeof buffer - 1);
    if (length < 0)
        return 0;
    buffer[length] = 0;
    const char *flags = strstr(buffer, "flags:"), *mount = strstr(buffer, "mnt_id:");
    if (!flags || !mount || (strtoul(flags + 6, NULL, 8) & O_ACCMODE) == O_RDONLY || strtoul(flags + 6, NULL, 8) & O_PATH || strtoull(mount + 7, NULL, 10) != writer->mount)
        return 0;
    snprintf(path, sizeof path, "%s/fd/%s", writer->pid, name);
    length = readlinkat(writer->proc, path, file, sizeof file - 1);
    file[length < 0 ? 0 : length] = 0;
    read_name(writer->proc, writer->pid, process, sizeof process);
    snprintf(text, sizeof text, "process %s (%s) of the container has %s open for writing: end it, or let it close the file", writer->pid, process, file);
    return 1;
}

static int writes(int proc, const char *pid, void *what)
{
    char path[64];
    struct writer writer = { .mount = *(uint64_t *)what, .pid = pid, .proc = proc };
    snprintf(path, sizeof path, "%s/fdinfo", pid);
    CLEANUP_FD int directory = openat(proc, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return directory >= 0 && pc_each_number(directory, is_written, &writer);
}

/* -1: something else is mounted there. */
static int open_proc(const struct mounting *m)
{
    struct statfs info;
    CLEANUP_FD int path = mount_open(m, "/proc", O_DIRECTORY);
    if (path < 0 || fstatfs(path, &info) < 0 || info.f_type != PROC_SUPER_MAGIC)
        return -1;
    return openat(path, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

const char *mount_find_runner(const struct mounting *m, int file)
{
    struct stat info;
    CLEANUP_FD int proc = open_proc(m);
    return proc >= 0 && fstat(file, &info) == 0 && S_ISREG(info.st_mode) && pc_each_number(proc, runs, &info) ? text : NULL;
}

const char *mount_find_writers(const struct mounting *m, uint64_t mount)
{
    CLEANUP_FD int proc = open_proc(m);
    return proc >= 0 && pc_each_number(proc, writes, &mount) ? text : NULL;
}
