#define _GNU_SOURCE
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/sys.h"
#include "user.h"

struct wanted {
    char *path;
    const char *who;    /* NULL: it stays root's */
    const char *target; /* of a symbolic link */
    uint32_t kind, flags, mode;
    int has_mode;
    int64_t modified; /* nanoseconds */
    int has_time;
};

enum { SECOND = 1000000000 };

/* "Magic" links are those of /proc to what a process has open: here they would be the agent's. */
static int open_path(int directory, const char *path, uint64_t flags, uint64_t mode)
{
    struct open_how how = { .flags = flags | O_CLOEXEC, .mode = mode, .resolve = RESOLVE_NO_MAGICLINKS };
    return (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
}

/* In a user namespace with one id everybody is that one. */
static int has_one_id(void)
{
    char text[128];
    CLEANUP_FD int fd = open("/proc/self/uid_map", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (length <= 0)
        return 0;
    text[length] = 0;
    const char *count = strrchr(text, ' ');
    return count && strcmp(count, " 1\n") == 0 && strchr(text, '\n')[1] == 0;
}

int file_give(int fd, const char *who, enum file_group group, const char *path, struct pc_failure *failure)
{
    static struct user user;
    if (user_find(who, &user) < 0)
        return pc_fail_as(failure, "find the user", who, errno, "it must be in the container's /etc/passwd, or a number");
    if (fchownat(fd, "", user.uid, group == FILE_GROUP_STAYS ? (gid_t)-1 : user.gid, AT_EMPTY_PATH) == 0)
        return 0;
    if (errno != EINVAL)
        return pc_fail(failure, "change the owner of", path);
    if (has_one_id())
        return 0;
    return pc_fail_as(failure, "change the owner of", path, EINVAL, "the user's number is none of the ids that are mapped in this container (user_namespaces(7))");
}

/* Makes the directory at the name that begins at `name` within `path`, which ends with it. */
static int make_one(char *path, char *name)
{
    const char kept = *name;
    *name = 0;
    CLEANUP_FD int parent = open_path(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    *name = kept;
    return parent < 0 ? -1 : mkdirat(parent, name, 0755);
}

/* Makes the directories on the way that are missing, and the last name too if that is to be
   one. Each is looked up anew by the kernel, so links on the way lead where they lead. */
static int make_directories(char *path, int last_too)
{
    char *name = path + strspn(path, "/");
    while (*name) {
        char *end = strchrnul(name, '/');
        char *next = end + strspn(end, "/");
        const char kept = *end;
        if (!*next && !last_too)
            break;
        *end = 0;
        int made = 0;
        CLEANUP_FD int fd = open_path(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
        if (fd < 0 && errno == ENOENT)
            made = make_one(path, name); /* EEXIST: a link that leads nowhere */
        else if (fd < 0)
            made = -1;
        if (made < 0 && errno == ENOTDIR && !*next)
            errno = EEXIST; /* the last name itself is there, and none */
        *end = kept;
        if (made < 0)
            return -1;
        name = next;
    }
    return 0;
}

/* Makes a symbolic link in place of whatever file has its name; returns a descriptor of it. */
static int make_link(char *path, const char *target)
{
    char *name = strrchr(path, '/');
    if (!name || !name[1]) {
        errno = EINVAL;
        return -1;
    }
    if (make_directories(path, 0) < 0)
        return -1;
    const char first = *++name;
    *name = 0;
    CLEANUP_FD int parent = open_path(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    *name = first;
    if (parent < 0)
        return -1;
    int made = symlinkat(target, parent, name);
    if (made < 0 && errno == EEXIST && unlinkat(parent, name, 0) == 0)
        made = symlinkat(target, parent, name);
    return made < 0 ? -1 : open_path(parent, name, O_PATH | O_NOFOLLOW, 0);
}

/* Opens without waiting for anybody (a named pipe's other end), and changes nothing of what
   is no regular file. */
static int open_file(const struct wanted *wanted, int *unfit)
{
    uint64_t flags = wanted->flags & ~(uint32_t)O_TRUNC;
    uint64_t mode = 0;
    struct stat found;
    if (flags & O_CREAT)
        mode = wanted->has_mode ? wanted->mode & 0777 : 0666;
    if (!(flags & O_PATH))
        flags |= O_NONBLOCK | O_NOCTTY;
    int fd = open_path(AT_FDCWD, wanted->path, flags, mode);
    if (fd < 0 && errno == ENOENT && (flags & O_CREAT)) {
        if (make_directories(wanted->path, 0) < 0)
            return -1;
        fd = open_path(AT_FDCWD, wanted->path, flags, mode);
    }
    *unfit = fd < 0 && errno == ENXIO; /* a socket, or a pipe that nobody reads */
    if (fd < 0 || (flags & O_PATH))
        return fd;
    if (fstat(fd, &found) == 0) {
        *unfit = !S_ISREG(found.st_mode) && !S_ISDIR(found.st_mode);
        errno = EINVAL;
        if (!*unfit && (!(wanted->flags & O_TRUNC) || ftruncate(fd, 0) == 0) && fcntl(fd, F_SETFL, wanted->flags & O_APPEND) == 0)
            return fd;
    }
    pc_cleanup_fd(&fd);
    return -1;
}

/* The mode after the owner: to change that takes set-user-ID bits away. */
static int dress(int fd, const struct wanted *wanted, struct pc_failure *failure)
{
    if (wanted->who && file_give(fd, wanted->who, FILE_GROUP_TOO, wanted->path, failure) < 0)
        return -1;
    if (wanted->has_mode && fchmod(fd, wanted->mode) < 0)
        return pc_fail(failure, "change the mode of", wanted->path);
    if (!wanted->has_time)
        return 0;
    /* Rounded down, also before 1970. */
    int64_t seconds = wanted->modified / SECOND - (wanted->modified % SECOND < 0);
    const struct timespec time = { seconds, wanted->modified - seconds * SECOND };
    if (utimensat(fd, "", (const struct timespec[2]){ time, time }, AT_EMPTY_PATH) < 0)
        return pc_fail(failure, "change the time of", wanted->path);
    return 0;
}

static int provide(struct wanted *wanted, struct pc_failure *failure)
{
    int fd, unfit = 0;
    const char *step = "open";
    if (wanted->kind == PC_FILE_LINK) {
        step = "make the symbolic link";
        fd = make_link(wanted->path, wanted->target);
    } else if (wanted->kind == PC_FILE_DIRECTORY) {
        step = "make the directory";
        fd = make_directories(wanted->path, 1) < 0 ? -1 : open_path(AT_FDCWD, wanted->path, O_RDONLY | O_DIRECTORY, 0);
    } else {
        fd = open_file(wanted, &unfit);
    }
    if (fd < 0 && unfit)
        return pc_fail_as(failure, step, wanted->path, EINVAL, "it is a named pipe, a socket or a device, and neither a file nor a directory");
    if (fd < 0)
        return pc_fail(failure, step, wanted->path);
    if (dress(fd, wanted, failure) < 0) {
        pc_cleanup_fd(&fd);
        return -1;
    }
    return fd;
}

void file_serve(int agent, struct pc_in *in)
{
    struct pc_cursor cursor;
    struct pc_failure failure = { 0 };
    struct pc_out out;
    struct wanted wanted = { 0 };
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        if (cursor.field.type == PC_F_PATH) {
            wanted.path = value;
        } else if (cursor.field.type == PC_F_USER) {
            wanted.who = value;
        } else if (cursor.field.type == PC_F_TARGET) {
            wanted.target = value;
        } else if (cursor.field.type == PC_F_KIND) {
            wanted.kind = pc_u32(&cursor, value);
        } else if (cursor.field.type == PC_F_FLAGS) {
            wanted.flags = pc_u32(&cursor, value);
        } else if (cursor.field.type == PC_F_MODE) {
            wanted.mode = pc_u32(&cursor, value) & 07777;
            wanted.has_mode = 1;
        } else if (cursor.field.type == PC_F_VALUE && cursor.field.length == sizeof wanted.modified) {
            memcpy(&wanted.modified, value, sizeof wanted.modified);
            wanted.has_time = 1;
        }
    }
    if (!wanted.path || wanted.path[0] != '/' || (wanted.kind == PC_FILE_LINK && !wanted.target)) {
        pc_send_error(agent, in->header.request, "open", wanted.path, EINVAL, "expected a path from the root");
        return;
    }
    CLEANUP_FD int fd = provide(&wanted, &failure);
    if (fd < 0) {
        pc_send_failure(agent, in->header.request, &failure);
        return;
    }
    pc_begin(&out, PC_OK, in->header.request);
    pc_send(agent, &out, &fd, 1, 0);
}
