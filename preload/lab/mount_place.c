/* Where a mount goes: found as the container finds it, made if it is missing, and held by a
   descriptor, so that whatever is renamed or linked meanwhile, nothing else is mounted over. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../common/sys.h"
#include "mount_request.h"

int mount_enter(struct mounting *m)
{
    if (setns(m->request->container, CLONE_NEWNS) < 0)
        return pc_fail(m->failure, "enter", "the container's mounts");
    m->root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    return m->root < 0 ? pc_fail(m->failure, "open", "the container's root") : 0;
}

int mount_open(const struct mounting *m, const char *path, uint64_t flags)
{
    return mount_openat2(m->root, path, O_PATH | flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

int mount_open_target(struct mounting *m)
{
    int fd = mount_open(m, m->request->target, 0);
    return fd < 0 ? pc_fail(m->failure, "find in the container", m->request->target) : fd;
}

int mount_make_point(int place, const char *rest, int is_directory)
{
    char name[MOUNT_PATH_SIZE];
    CLEANUP_FD int at = dup(place);
    for (const char *next; at >= 0 && *rest; rest = next) {
        const size_t length = strcspn(rest, "/");
        snprintf(name, sizeof name, "%.*s", (int)length, rest);
        next = rest + length + strspn(rest + length, "/");
        if (!*next && !is_directory) {
            int file = openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
            return file < 0 ? -1 : close(file);
        }
        if (mkdirat(at, name, 0755) < 0)
            return -1;
        int below = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        close(at);
        at = below;
    }
    return at < 0 ? -1 : 0;
}

/* What is not empty by now stays: somebody uses it. */
void mount_unmake_point(int place, const char *rest, int is_directory)
{
    char name[MOUNT_PATH_SIZE];
    const size_t length = strcspn(rest, "/");
    const char *next = rest + length + strspn(rest + length, "/");
    snprintf(name, sizeof name, "%.*s", (int)length, rest);
    if (*next) {
        CLEANUP_FD int below = openat(place, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (below >= 0)
            mount_unmake_point(below, next, is_directory);
    }
    unlinkat(place, name, *next || is_directory ? AT_REMOVEDIR : 0);
}

int mount_detach(const struct mounting *m, int root)
{
    char path[32];
    snprintf(path, sizeof path, "self/fd/%d", root);
    if (fchdir(m->proc) < 0)
        return -1;
    return umount2(path, MNT_DETACH);
}

/* Whether the directory is on an overlay that is this container's alone, though it is read-only:
   a cover of ours, or the root of a container on another tree than the machine's. */
static int is_private(const struct mounting *m, int place)
{
    struct statfs info;
    uint64_t mount, root;
    if (fstatfs(place, &info) < 0 || info.f_type != OVERLAYFS_SUPER_MAGIC)
        return 0;
    if (mount_identify(place, &mount, NULL) < 0 || mount_identify(m->root, &root, NULL) < 0)
        return 0;
    for (int i = 0; i < m->request->value_count; i++)
        if (m->request->values[i] == mount)
            return 1;
    return mount == root;
}

/* A view of a read-only directory in which we alone may write. */
static int open_writable(int place)
{
    int view = pc_open_tree(place, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
    if (view >= 0 && pc_mount_setattr(view, "", AT_EMPTY_PATH, 0, MOUNT_ATTR_RDONLY) == 0)
        return view;
    pc_cleanup_fd(&view);
    return -1;
}

/* A mount point that is missing, and what was done to have it. */
struct point {
    char path[MOUNT_PATH_SIZE]; /* of the deepest directory that there is */
    const char *rest;           /* and of what is below it */
    int place;                  /* the directory as it was written to, or -1 */
    int cover;                  /* the root of the cover that was needed, or -1 */
};

static int find_deepest(struct mounting *m, struct point *point)
{
    const char *target = m->request->target;
    size_t length = strlen(target);
    int deepest = -1;
    do {
        while (length > 1 && target[length - 1] != '/')
            length--;
        while (length > 1 && target[length - 1] == '/')
            length--;
        snprintf(point->path, sizeof point->path, "%.*s", (int)length, target);
        deepest = mount_open(m, point->path, O_DIRECTORY);
    } while (deepest < 0 && errno == ENOENT && length > 1);
    if (deepest < 0)
        return pc_fail_as(m->failure, "find the place of", target, errno, errno == ENOTDIR ? "something above it is no directory" : NULL);
    point->rest = target + length + strspn(target + length, "/");
    return deepest;
}

static int fail_point(struct mounting *m)
{
    return pc_fail_as(m->failure, "make the mount point", m->request->target, errno,
        errno == EEXIST ? "a symbolic link that leads to nothing is in the way" : NULL);
}

static int make_missing(struct mounting *m, struct point *point, int is_directory)
{
    CLEANUP_FD int deepest = find_deepest(m, point);
    if (deepest < 0)
        return -1;
    for (const char *at = point->rest; at; at = strchr(at, '/')) {
        at += strspn(at, "/");
        if (strncmp(at, "..", 2) == 0 && (at[2] == '/' || at[2] == 0))
            return pc_fail_as(m->failure, "make the mount point", m->request->target, EINVAL, "\"..\" below a directory that is missing leads nowhere");
    }
    struct statfs info;
    if (fstatfs(deepest, &info) < 0)
        return pc_fail(m->failure, "look at", point->path);
    point->place = !(info.f_flags & ST_RDONLY) ? dup(deepest) : is_private(m, deepest) ? open_writable(deepest) : -1;
    if (point->place >= 0) {
        if (mount_make_point(point->place, point->rest, is_directory) == 0)
            return 0;
        fail_point(m);
        mount_unmake_point(point->place, point->rest, is_directory);
        return -1;
    }
    int upper = -1;
    point->cover = mount_cover(m, deepest, -1, point->rest, is_directory, &upper);
    pc_cleanup_fd(&upper);
    return point->cover < 0 ? -1 : 0;
}

static int refuse_link(struct mounting *m, int place)
{
    static char text[512];
    char leads[400];
    ssize_t length = readlinkat(place, "", leads, sizeof leads - 1);
    if (length < 0)
        return pc_fail(m->failure, "read the link", m->request->target);
    leads[length] = 0;
    snprintf(text, sizeof text, "it is a symbolic link to %s: name the place itself", leads);
    return pc_fail_as(m->failure, "mount on", m->request->target, ELOOP, text);
}

/* What is there already must be of the same kind, and nobody may be running it. */
static int check_place(struct mounting *m, int place, int is_directory)
{
    struct stat info;
    if (fstat(place, &info) < 0)
        return pc_fail(m->failure, "look at", m->request->target);
    if (S_ISLNK(info.st_mode))
        return refuse_link(m, place);
    if (S_ISDIR(info.st_mode) && !is_directory)
        return pc_fail_as(m->failure, "mount on", m->request->target, EISDIR, "the source is a file, so the target must be one");
    if (!S_ISDIR(info.st_mode) && is_directory)
        return pc_fail_as(m->failure, "mount on", m->request->target, ENOTDIR, "a directory can be mounted on a directory only");
    const char *runner = is_directory ? NULL : mount_find_runner(m, place);
    return runner ? pc_fail_as(m->failure, "mount on", m->request->target, ETXTBSY, runner) : 0;
}

int mount_attach(struct mounting *m, int tree, int is_directory)
{
    static struct point point;
    uint64_t mount = 0, cover = 0;
    point.place = point.cover = -1;
    int place = mount_open(m, m->request->target, O_NOFOLLOW);
    if (place < 0 && errno == ENOENT) {
        if (make_missing(m, &point, is_directory) < 0)
            return -1;
        place = mount_open(m, m->request->target, O_NOFOLLOW);
    }
    int failed = place < 0 ? pc_fail(m->failure, "find in the container", m->request->target) : check_place(m, place, is_directory);
    if (!failed && mount_move(tree, place) < 0)
        failed = pc_fail(m->failure, "mount on", m->request->target);
    pc_cleanup_fd(&place);
    if (failed && point.place >= 0)
        mount_unmake_point(point.place, point.rest, is_directory);
    if (failed && point.cover >= 0)
        mount_detach(m, point.cover);
    if (failed)
        return -1;
    if (mount_identify(tree, &mount, NULL) < 0 || (point.cover >= 0 && mount_identify(point.cover, &cover, NULL) < 0))
        return pc_fail(m->failure, "identify the mount on", m->request->target);
    m->answer[m->answer_count++] = mount;
    m->answer[m->answer_count++] = cover;
    return 0;
}
