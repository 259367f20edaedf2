/* What files and the dynamic linker offer. */
#define _GNU_SOURCE
#include "probe.h"

#include "../common/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int get_file(const char *path, char *buffer, size_t size)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t length = 0;
    for (;;) {
        ssize_t got = read(fd, buffer + length, size - 1 - length);
        if (got < 0)
            return -1;
        length += (size_t)got;
        if (got == 0 || length == size - 1)
            break;
    }
    buffer[length] = 0;
    return (int)length;
}

int put_file(const char *path, const char *text)
{
    CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    return write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : -1;
}

/* A file without a name, or one that loses it at once where the file system knows none. */
static int unnamed_file(const char *directory)
{
    int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR))
        return fd;
    char path[300];
    snprintf(path, sizeof path, "%s/pcprobe-XXXXXX", directory);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

int probe_reflink(struct outcome *out)
{
    const char *directory = getenv("TMPDIR");
    if (!directory || !*directory)
        directory = "/tmp";
    note(out, "in %.150s", directory);
    int from = unnamed_file(directory), to = unnamed_file(directory);
    if (from < 0 || to < 0)
        return fail(out, "make a file in the temporary directory");
    static char block[65536]; /* as large as any block size, so that whole blocks are shared */
    memset(block, 'x', sizeof block);
    if (write(from, block, sizeof block) != sizeof block)
        return fail(out, "write to a file in the temporary directory");
    if (ioctl(to, FICLONE, from) != 0)
        return fail(out, "share blocks between two files (FICLONE)");
    struct stat status;
    return fstat(to, &status) == 0 && status.st_size == sizeof block ? 0 : no_effect(out, "share blocks between two files (FICLONE)");
}

int probe_preload(struct outcome *out)
{
    /* Libraries that cat does not need, one of which each C library brings along. */
    static char *const environment[] = { "LD_PRELOAD=libresolv.so.2 libutil.so.1 libgcc_s.so.1 libstdc++.so.6", NULL };
    static char *const command[] = { "cat", "/proc/self/maps", NULL };
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail(out, "pipe");
    pid_t pid = fork_armed();
    if (pid < 0)
        return fail(out, "fork");
    if (pid == 0) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(null, STDERR_FILENO);
        dup2(ends[1], STDOUT_FILENO);
        execve("/bin/cat", command, environment);
        _exit(127);
    }
    close(ends[1]);
    static char text[65536];
    size_t length = 0;
    for (ssize_t got; (got = read(ends[0], text + length, sizeof text - 1 - length)) > 0;)
        length += (size_t)got;
    int status = 0;
    waitpid(pid, &status, 0);
    if (status != 0)
        return no_effect(out, "run /bin/cat with LD_PRELOAD");
    static const char *const names[] = { "/libresolv.so", "/libutil.so", "/libgcc_s.so", "/libstdc++.so" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strstr(text, names[i]))
            return 0;
    return no_effect(out, "load a library into /bin/cat by LD_PRELOAD");
}
