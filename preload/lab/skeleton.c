#define _GNU_SOURCE
#include "skeleton.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../common/sys.h"

enum {
    DEPTH_MAX = 24,
    /* Past these a machine is odd; what is left out is readable still, but not changeable. */
    ENTRIES_MAX = 20000,
    FILE_MAX = 256 << 10,
    TOTAL_MAX = 16 << 20,
};

struct skeleton {
    int with_files;
    int entries;
    off_t total;
};

static int copy_file(int from_dir, int to_dir, const char *name, const struct stat *info, struct skeleton *state)
{
    if (!state->with_files || info->st_size > FILE_MAX || state->total + info->st_size > TOTAL_MAX)
        return 0;
    CLEANUP_FD int from = openat(from_dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (from < 0)
        return 0; /* not ours to read: it stays as the machine shows it */
    CLEANUP_FD int to = openat(to_dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, info->st_mode & 0777);
    if (to < 0)
        return -1;
    state->total += info->st_size;
    for (off_t left = info->st_size; left > 0;) {
        ssize_t sent = sendfile(to, from, NULL, (size_t)left);
        if (sent < 0)
            return -1;
        if (sent == 0)
            break;
        left -= sent;
    }
    return 0;
}

static int copy_link(int from_dir, int to_dir, const char *name, const struct skeleton *state)
{
    char target[4096];
    if (!state->with_files)
        return 0;
    ssize_t length = readlinkat(from_dir, name, target, sizeof target - 1);
    if (length < 0)
        return 0;
    target[length] = 0;
    return symlinkat(target, to_dir, name);
}

/* A directory that we may not look into would make the merged one unreadable as well: it
   is made opaque. tmpfs takes user attributes since Linux 6.6; before, it stays so. */
static int hide_lower(int directory)
{
    return fsetxattr(directory, "user.overlay.opaque", "y", 1, 0) < 0 && errno != EOPNOTSUPP ? -1 : 0;
}

static int copy_directory(int from_dir, int to_dir, const char *name, int depth, struct skeleton *state);

static int copy_entry(int from_dir, int to_dir, const char *name, int depth, struct skeleton *state)
{
    struct stat info;
    if (++state->entries > ENTRIES_MAX || fstatat(from_dir, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if (S_ISDIR(info.st_mode)) {
        if (mkdirat(to_dir, name, info.st_mode & 07777) < 0 || fchmodat(to_dir, name, info.st_mode & 07777, 0) < 0)
            return -1;
        return copy_directory(from_dir, to_dir, name, depth + 1, state);
    }
    if (S_ISLNK(info.st_mode))
        return copy_link(from_dir, to_dir, name, state);
    return S_ISREG(info.st_mode) ? copy_file(from_dir, to_dir, name, &info, state) : 0;
}

static int copy_directory(int from_dir, int to_dir, const char *name, int depth, struct skeleton *state)
{
    if (depth > DEPTH_MAX)
        return 0;
    CLEANUP_FD int to = openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    int from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (from < 0)
        return hide_lower(to);
    DIR *directory = fdopendir(from);
    if (!directory) {
        close(from);
        return -1;
    }
    int result = to < 0 ? -1 : 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = copy_entry(from, to, entry->d_name, depth, state);
    int saved = errno;
    closedir(directory);
    errno = saved;
    return result;
}

int skeleton_build(const char *machine, const char *target, struct pc_failure *failure)
{
    static const struct {
        const char *name;
        int with_files;
    } parts[] = { { "etc", 1 }, { "var", 0 } };
    CLEANUP_FD int from = open(machine, O_PATH | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_FD int to = open(target, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (from < 0 || to < 0)
        return pc_fail(failure, "open", "the directories of the lab");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct skeleton state = { .with_files = parts[i].with_files };
        if (mkdirat(to, parts[i].name, 0755) < 0 || copy_directory(from, to, parts[i].name, 0, &state) < 0)
            return pc_fail(failure, "copy for the containers the directory", parts[i].name);
    }
    return 0;
}
