/* Mounts that are there: other attributes, other limits. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../common/sys.h"
#include "mount_request.h"

enum { FILL_TRIES = 50 };

int mount_change(struct mounting *m)
{
    const struct mount_request *request = m->request;
    uint64_t mount;
    int is_root;
    CLEANUP_FD int place = mount_open_target(m);
    if (place < 0)
        return -1;
    if (mount_identify(place, &mount, &is_root) < 0)
        return pc_fail(m->failure, "look at", request->target);
    if (!is_root || request->value_count != 1 || request->values[0] != mount)
        return pc_fail_as(m->failure, "change the mount on", request->target, EBUSY, "something else is mounted there by now");
    const uint64_t attributes = mount_attributes(request->flags);
    const unsigned flags = AT_EMPTY_PATH | (request->flags & PC_FLAG_RECURSIVE ? AT_RECURSIVE : 0);
    const int clear = (request->flags & PC_FLAG_CLEAR) != 0;
    if (pc_mount_setattr(place, "", flags, clear ? 0 : attributes, clear ? attributes : 0) == 0)
        return 0;
    const int error = errno;
    return pc_fail_as(m->failure, attributes & MOUNT_ATTR_RDONLY ? "make read-only" : "change the mount on", request->target, error, error == EBUSY ? mount_find_writers(m, mount) : NULL);
}

/* The context of a file system of which we have a path: fspick(2) takes the root of a mount
   only, and a clone of the path is one. */
static int pick(const struct mounting *m)
{
    int context = mount_fspick(m->request->fd, "", FSPICK_EMPTY_PATH);
    if (context >= 0 || errno != EINVAL)
        return context;
    CLEANUP_FD int tree = pc_open_tree(m->request->fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
    return tree < 0 ? -1 : mount_fspick(tree, "", FSPICK_EMPTY_PATH);
}

static int set_number(int context, const char *key, uint64_t value)
{
    char text[24];
    pc_decimal(text, value);
    return mount_configure(context, FSCONFIG_SET_STRING, key, text);
}

/* What it has now goes into the answer. */
static int look(struct mounting *m, struct statfs *info)
{
    if (m->request->fd < 0 || fstatfs(m->request->fd, info) < 0)
        return pc_fail_as(m->failure, "look at", m->request->target, m->request->fd < 0 ? EPROTO : errno, NULL);
    if (info->f_type != TMPFS_MAGIC)
        return pc_fail_as(m->failure, "limit", m->request->target, EINVAL, "only a tmpfs has a size that can be changed");
    m->answer_count = 0;
    m->answer[m->answer_count++] = (uint64_t)info->f_blocks * (uint64_t)info->f_bsize;
    m->answer[m->answer_count++] = (uint64_t)info->f_files;
    return 0;
}

int mount_resize(struct mounting *m)
{
    struct statfs info;
    if (look(m, &info) < 0)
        return -1;
    CLEANUP_FD int context = pick(m);
    if (context < 0)
        return pc_fail(m->failure, "limit", m->request->target);
    for (int i = 0; i < m->request->option_count; i++) {
        const char *value = strchr(m->request->options[i], '=');
        char key[32];
        snprintf(key, sizeof key, "%.*s", (int)(value ? value - m->request->options[i] : 0), m->request->options[i]);
        if (!value || mount_configure(context, FSCONFIG_SET_STRING, key, value + 1) < 0)
            return mount_fail_with(m, context, "limit", m->request->target);
    }
    if (mount_configure(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL) < 0)
        return mount_fail_with(m, context, "limit", m->request->target);
    return 0;
}

/* For tmpfs no bytes means no limit: so an empty one gets one page, of a file without a name.
   It is held by its path: a file that is open for writing would keep the mount from becoming
   read-only. */
static int add_ballast(struct mounting *m)
{
    char path[32];
    if (m->answer_fd >= 0)
        return 0;
    CLEANUP_FD int file = openat(m->request->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (file < 0 || write(file, "", 1) != 1)
        return pc_fail(m->failure, "put a page into", m->request->target);
    snprintf(path, sizeof path, "self/fd/%d", file);
    m->answer_fd = openat(m->proc, path, O_PATH | O_CLOEXEC);
    return m->answer_fd < 0 ? pc_fail(m->failure, "hold the page in", m->request->target) : 0;
}

/* Sets the limit to what is in use; somebody may write in between, then it is refused. */
int mount_fill(struct mounting *m)
{
    const int inodes = (m->request->flags & PC_FLAG_INODES) != 0;
    uint64_t former[2];
    struct statfs info;
    for (int i = 0; i < FILL_TRIES; i++) {
        if (look(m, &info) < 0)
            return -1;
        if (i == 0)
            memcpy(former, m->answer, sizeof former);
        memcpy(m->answer, former, sizeof former);
        const uint64_t used = inodes ? info.f_files - info.f_ffree : info.f_blocks - info.f_bfree;
        if (used == 0) {
            if (add_ballast(m) < 0)
                return -1;
            continue;
        }
        CLEANUP_FD int context = pick(m);
        if (context < 0)
            return pc_fail(m->failure, "fill", m->request->target);
        if (set_number(context, inodes ? "nr_inodes" : "size", inodes ? used : used * (uint64_t)info.f_bsize) == 0 && mount_configure(context, FSCONFIG_CMD_RECONFIGURE, NULL, NULL) == 0)
            return 0;
        if (errno != EINVAL || i == FILL_TRIES - 1)
            return mount_fail_with(m, context, "fill", m->request->target);
    }
    return pc_fail_as(m->failure, "fill", m->request->target, EAGAIN, "it changes all the time");
}
