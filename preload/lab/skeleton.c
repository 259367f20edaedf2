#define _GNU_SOURCE
#include "skeleton.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../common/sys.h"
#include "owners.h"

enum {
    DEPTH_MAX = 24,
    /* Past these (and a part's own) a machine is odd; what is left out is readable still, but
       not changeable. */
    FILE_MAX = 256 << 10,
    TOTAL_MAX = 16 << 20,
    LAID_MAX = 50000,
    OVERFLOW_ID = 65534, /* of ids that are not mapped (kernel.overflowuid, which nobody changes) */
};

static const struct part {
    const char *name;
    int with_files;
    int entries_max;
} parts[] = { { "etc", 1, 20000 }, { "var", 0, 20000 }, { "srv", 0, 2000 }, { "opt", 0, 2000 } };

struct skeleton {
    const struct part *part;
    int entries;
    off_t total;
    char path[4096]; /* of the directory that is being copied, on the machine */
    size_t path_length;
};

/* A file that we may not read is left out, by overlay's whiteout: a daemon makes a log or a
   database that is missing, and dies of one that it cannot open; useradd(8) makes do without
   /etc/shadow, and not with one that is locked away. EPERM: before Linux 5.8. */
static int hide(int to_dir, const char *name)
{
    return mknodat(to_dir, name, S_IFCHR, 0) < 0 && errno != EPERM ? -1 : 0;
}

static int hide_unreadable(int from_dir, int to_dir, const char *name, const struct stat *info)
{
    if (info->st_mode & S_IROTH)
        return 0;
    CLEANUP_FD int readable = openat(from_dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return readable >= 0 || errno != EACCES ? 0 : hide(to_dir, name);
}

static int copy_file(int from_dir, int to_dir, const char *name, const struct stat *info, struct skeleton *state)
{
    if (info->st_size > FILE_MAX || state->total + info->st_size > TOTAL_MAX)
        return 0;
    CLEANUP_FD int from = openat(from_dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (from < 0)
        return errno == EACCES ? hide(to_dir, name) : 0;
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
    if (!state->part->with_files)
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
    if (++state->entries > state->part->entries_max || fstatat(from_dir, name, &info, AT_SYMLINK_NOFOLLOW) < 0)
        return 0;
    if (S_ISDIR(info.st_mode)) {
        const size_t length = state->path_length, more = strlen(name) + 1;
        if (length + more >= sizeof state->path)
            return 0;
        snprintf(state->path + length, sizeof state->path - length, "/%s", name);
        state->path_length += more;
        int result = mkdirat(to_dir, name, info.st_mode & 07777) < 0 || owners_give(to_dir, name, state->path) < 0
            || fchmodat(to_dir, name, info.st_mode & 07777, 0) < 0 ? -1 : copy_directory(from_dir, to_dir, name, depth + 1, state);
        state->path[state->path_length = length] = 0;
        return result;
    }
    if (S_ISLNK(info.st_mode))
        return copy_link(from_dir, to_dir, name, state);
    if (!S_ISREG(info.st_mode))
        return 0;
    return state->part->with_files ? copy_file(from_dir, to_dir, name, &info, state) : hide_unreadable(from_dir, to_dir, name, &info);
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

/* Directories alone, and those of ids that are not mapped: in all others one may write already. */
static int lay(int from_dir, int to_dir, const char *name, int depth, int *left)
{
    int from = openat(from_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    CLEANUP_FD int to = openat(to_dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    DIR *directory = from < 0 ? NULL : fdopendir(from);
    int result = to < 0 ? -1 : 0;
    if (!directory) {
        pc_cleanup_fd(&from);
        return errno == EACCES ? hide_lower(to) : -1;
    }
    for (struct dirent *entry; result == 0 && depth < DEPTH_MAX && *left > 0 && (entry = readdir(directory));) {
        struct stat info;
        if ((entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN) || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (fstatat(from, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(info.st_mode) || info.st_uid != OVERFLOW_ID)
            continue;
        --*left;
        result = mkdirat(to, entry->d_name, 0700) < 0 || fchmodat(to, entry->d_name, info.st_mode & 07777, 0) < 0 ? -1 : lay(from, to, entry->d_name, depth + 1, left);
    }
    const int saved = errno;
    closedir(directory);
    errno = saved;
    return result;
}

int skeleton_lay(int from, int to)
{
    int left = LAID_MAX;
    return lay(from, to, ".", 0, &left);
}

int skeleton_has(const char *name)
{
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strcmp(parts[i].name, name) == 0)
            return 1;
    return 0;
}

void skeleton_look(void)
{
    char path[16];
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        snprintf(path, sizeof path, "/%s", parts[i].name);
        owners_note(path);
    }
}

int skeleton_build(const char *machine, const char *target, struct pc_failure *failure)
{
    CLEANUP_FD int from = open(machine, O_PATH | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_FD int to = open(target, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (from < 0 || to < 0)
        return pc_fail(failure, "open", "the directories of the lab");
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        struct skeleton state = { .part = &parts[i] };
        state.path_length = (size_t)snprintf(state.path, sizeof state.path, "/%s", parts[i].name);
        if (mkdirat(to, parts[i].name, 0755) < 0 || copy_directory(from, to, parts[i].name, 0, &state) < 0)
            return pc_fail(failure, "copy for the containers the directory", parts[i].name);
    }
    return 0;
}
