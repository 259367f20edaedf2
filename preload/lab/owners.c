#define _GNU_SOURCE
#include "owners.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What daemons own lies near the top, and is not much: past these bounds it stays root's. */
enum { OWNERS_MAX = 512, OWNED_PATH_MAX = 128, OWNED_DEPTH_MAX = 6, OWNED_ENTRIES_MAX = 20000 };

static struct owner {
    char path[OWNED_PATH_MAX];
    uid_t uid;
    gid_t gid;
} owners[OWNERS_MAX];
static int owner_count;
static int entries;

static void note(const char *path, const struct stat *info)
{
    if (owner_count == OWNERS_MAX || ((info->st_uid == 0 || info->st_uid == geteuid()) && info->st_gid == 0))
        return;
    struct owner *owner = &owners[owner_count++];
    strcpy(owner->path, path); /* it is no longer than that, see below */
    /* What is ours is root's inside. */
    owner->uid = info->st_uid == geteuid() ? 0 : info->st_uid;
    owner->gid = info->st_gid == getegid() ? 0 : info->st_gid;
}

static void visit(int parent, const char *name, char *path, size_t length, int depth)
{
    struct stat info;
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if ((fd < 0 ? fstatat(parent, name, &info, AT_SYMLINK_NOFOLLOW) : fstat(fd, &info)) == 0 && S_ISDIR(info.st_mode))
        note(path, &info);
    DIR *directory = fd < 0 || depth == OWNED_DEPTH_MAX ? NULL : fdopendir(fd);
    if (!directory) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *entry; entries < OWNED_ENTRIES_MAX && (entry = readdir(directory)); entries++) {
        const size_t more = strlen(entry->d_name);
        if ((entry->d_type != DT_DIR && entry->d_type != DT_UNKNOWN) || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        if (length + 1 + more >= OWNED_PATH_MAX)
            continue;
        path[length] = '/';
        memcpy(path + length + 1, entry->d_name, more + 1);
        visit(fd, entry->d_name, path, length + 1 + more, depth + 1);
        path[length] = 0;
    }
    closedir(directory);
}

void owners_note(const char *path)
{
    char whole[OWNED_PATH_MAX];
    entries = 0;
    snprintf(whole, sizeof whole, "%s", path);
    visit(AT_FDCWD, path, whole, strlen(whole), 0);
}

int owners_give(int directory, const char *name, const char *path)
{
    for (int i = 0; i < owner_count; i++)
        if (strcmp(owners[i].path, path) == 0)
            /* EINVAL: an id that is not mapped. Then it stays root's. */
            return fchownat(directory, name, owners[i].uid, owners[i].gid, AT_SYMLINK_NOFOLLOW) < 0 && errno != EINVAL ? -1 : 0;
    return 0;
}
