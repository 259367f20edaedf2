/* cow_ops seq: operations from stdin, one a line, "NAME ARGUMENTS..."; each prints what it gave. */
#include "ops.h"

#include <ftw.h>
#include <linux/fs.h>
#include <sys/xattr.h>

static int drop(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    (void)st, (void)kind, (void)where;
    return remove(path);
}

static int put_text(const char *path, int flags, const char *text)
{
    int fd = open(path, flags | O_NONBLOCK, 0644);
    if (fd < 0)
        return -1;
    ssize_t put = write(fd, text, strlen(text));
    const int error = errno;
    close(fd);
    errno = error;
    return (int)put;
}

static int by_descriptor(const char *path, int what, int number)
{
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0)
        return -1;
    const struct timespec times[2] = { { 1000000000 + number, 0 }, { 1100000000 + number, 0 } };
    int result = what == 'm' ? fchmod(fd, (mode_t)number) : futimens(fd, times);
    const int error = errno;
    close(fd);
    errno = error;
    return result;
}

/* The last component by a descriptor of its directory. */
static int at(const char *path, int (*f)(int, const char *))
{
    char directory[4096];
    snprintf(directory, sizeof directory, "%s", path);
    char *slash = strrchr(directory, '/');
    if (slash)
        *slash = 0;
    int fd = open(slash ? directory : ".", O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return -1;
    int result = f(fd, slash ? path + (slash - directory) + 1 : path);
    const int error = errno;
    close(fd);
    errno = error;
    return result;
}

static int make_at(int fd, const char *name)
{
    int made = openat(fd, name, O_CREAT | O_WRONLY | O_NONBLOCK, 0640);
    return made < 0 ? -1 : close(made);
}

static int unlink_at(int fd, const char *name)
{
    return unlinkat(fd, name, 0);
}

static int mkdir_at(int fd, const char *name)
{
    return mkdirat(fd, name, 0750);
}

static int temporary(const char *directory, const char *to)
{
    char name[64];
    int fd = open(directory, O_TMPFILE | O_RDWR, 0600);
    if (fd < 0)
        return -1;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int result = linkat(AT_FDCWD, name, AT_FDCWD, to, AT_SYMLINK_FOLLOW);
    const int error = errno;
    close(fd);
    errno = error;
    return result;
}

static int atomic_save(const char *path, const char *text)
{
    char fresh[4096];
    snprintf(fresh, sizeof fresh, "%s.tmp", path);
    return put_text(fresh, O_CREAT | O_WRONLY | O_TRUNC, text) < 0 ? -1 : rename(fresh, path);
}

static int is(const char *name, const char *op)
{
    return strcmp(name, op) == 0;
}

static int one_path(const char *op, const char *a, const char *b)
{
    const int number = atoi(b);
    struct timespec times[2] = { { 1000000000 + number, 0 }, { 1100000000 + number, 0 } };
    if (is(op, "write"))
        return put_text(a, O_WRONLY, b);
    if (is(op, "append"))
        return put_text(a, O_WRONLY | O_APPEND | O_CREAT, b);
    if (is(op, "over"))
        return put_text(a, O_WRONLY | O_TRUNC | O_CREAT, b);
    if (is(op, "create"))
        return put_text(a, O_WRONLY | O_CREAT | O_EXCL, b);
    if (is(op, "save"))
        return atomic_save(a, b);
    if (is(op, "truncate"))
        return truncate(a, number);
    if (is(op, "chmod"))
        return chmod(a, (mode_t)(0700 | (number & 077)));
    if (is(op, "fchmod"))
        return by_descriptor(a, 'm', 0700 | (number & 077));
    if (is(op, "futimens"))
        return by_descriptor(a, 't', number);
    if (is(op, "utimens"))
        return utimensat(AT_FDCWD, a, times, AT_SYMLINK_NOFOLLOW);
    if (is(op, "setxattr"))
        return lsetxattr(a, "user.t", b, strlen(b), 0);
    if (is(op, "removexattr"))
        return lremovexattr(a, "user.t");
    return -2;
}

static int names(const char *op, const char *a, const char *b)
{
    if (is(op, "unlink"))
        return unlink(a);
    if (is(op, "mkdir"))
        return mkdir(a, 0755);
    if (is(op, "rmdir"))
        return rmdir(a);
    if (is(op, "rmtree"))
        return nftw(a, drop, 8, FTW_DEPTH | FTW_PHYS);
    if (is(op, "rename"))
        return rename(a, b);
    if (is(op, "exchange"))
        return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
    if (is(op, "noreplace"))
        return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_NOREPLACE);
    if (is(op, "link"))
        return link(a, b);
    if (is(op, "symlink"))
        return symlink(b, a);
    if (is(op, "mkfifo"))
        return mkfifo(a, 0600);
    if (is(op, "tmpfile"))
        return temporary(a, b);
    if (is(op, "createat"))
        return at(a, make_at);
    if (is(op, "unlinkat"))
        return at(a, unlink_at);
    if (is(op, "mkdirat"))
        return at(a, mkdir_at);
    if (is(op, "chdir"))
        return chdir(a) < 0 || chdir(top) < 0 ? -1 : 0;
    return -2;
}

void run_sequence(void)
{
    char line[4096], op[64], a[1024], b[1024];
    while (fgets(line, sizeof line, stdin)) {
        a[0] = b[0] = 0;
        if (sscanf(line, "%63s %1023s %1023s", op, a, b) < 1)
            continue;
        line[strcspn(line, "\n")] = 0;
        if (is(op, "list")) {
            list(a);
            continue;
        }
        if (is(op, "stat")) {
            stat_line(a);
            continue;
        }
        errno = 0;
        int result = one_path(op, a, b);
        if (result == -2)
            result = names(op, a, b);
        show(line, result);
    }
}
