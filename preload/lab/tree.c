/* The root of a container that has another tree than the machine's.

   It is an overlay over all of that tree, so everything in it can be changed, and so the places
   for what the kernel shows can be made, whatever the tree has. (Or it is the tree itself, a
   copy-on-write tree of pytest's: then they are made in it where they are missing.) It becomes the root by covering
   the template's, as the root of an initramfs is covered: nothing has to be unmounted, which
   costs more than all the rest, and no ".." leads below it, since looking up a root always ends
   at what covers it (path_resolution(7), fs/namei.c choose_mountpoint). */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mount.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/sys.h"
#include "paths.h"
#include "root.h"

#define UPPER "/proc/c/root"
#define TREE "/proc/o"

/* In an upper they are directories, whatever the tree has under these names; in the tree itself
   they have to be directories already, or not there. */
static int make_places(const char *base, struct steps *steps)
{
    static const char *const places[] = { "dev", "etc", "proc", "run", "sys", "tmp" };
    char path[64];
    struct stat info;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, "%s/%s", base, places[i]);
        const char *const name = path + strlen(base);
        STEP("make the place of", name, mkdir(path, 0755) < 0 && errno != EEXIST ? -1 : 0);
        STEP("look at", name, lstat(path, &info));
        if (!S_ISDIR(info.st_mode))
            return pc_fail_as(steps->failure, "make the place of", name, ENOTDIR, "the tree has something else there: remove that, or ask with readonly=True");
    }
    return 0;
}

/* What lies below the template's root is put where it belongs while it can be seen. */
static int bring_along(const struct container_spec *spec, struct steps *steps)
{
    STEP("bind", "/dev", root_place_tree("/dev", TREE "/dev"));
    STEP("bind a private directory on", "/tmp", root_place("/proc/c/tmp", TREE "/tmp"));
    STEP("bind a private directory on", "/run", root_place("/proc/c/run", TREE "/run"));
    STEP("bind a private directory on", "/dev/shm", root_place("/proc/c/shm", TREE "/dev/shm"));
    if (spec->host_network)
        STEP("bind", "/sys", root_place_tree("/sys", TREE "/sys"));
    return 0;
}

static int cover_root(struct steps *steps)
{
    STEP("enter", "the root file system", chdir(TREE));
    STEP("move to /", "the root file system", mount(".", "/", NULL, MS_MOVE, NULL));
    STEP("make the root", "the root file system", chroot("."));
    return 0;
}

static int make_path(const char *path)
{
    char whole[PATH_SIZE + 1];
    snprintf(whole, sizeof whole, "/%s", path);
    return path_make(whole, 1);
}

/* Their places are looked up in the new root, where the tree's own links lead. */
static int place_binds(const struct template *template, const int *trees, struct steps *steps)
{
    char to[PATH_SIZE + 1];
    for (int i = 0; i < template->late_count; i++) {
        snprintf(to, sizeof to, "/%s", template->late[i].path);
        STEP("make the place of", to, make_path(template->late[i].path));
        STEP("bind", to, pc_move_mount(trees[i], AT_FDCWD, to));
    }
    return 0;
}

static int open_binds(const struct template *template, int *trees, struct steps *steps)
{
    char from[32];
    for (int i = 0; i < template->late_count; i++) {
        snprintf(from, sizeof from, "/proc/late/%d", i);
        STEP("open", template->late[i].path, trees[i] = pc_open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | AT_RECURSIVE | OPEN_TREE_CLOEXEC));
    }
    return 0;
}

/* /etc's names of this container, each a mount of a file. -1: it has the tree's. */
enum { NAMES = 3 };
static const char *const names[NAMES] = { "hosts", "hostname", "resolv.conf" };

static int open_names(int *files, struct steps *steps)
{
    char from[32];
    for (int i = 0; i < NAMES; i++) {
        snprintf(from, sizeof from, "/proc/c/etc/%s", names[i]);
        files[i] = pc_open_tree(AT_FDCWD, from, OPEN_TREE_CLONE);
        if (files[i] < 0 && errno != ENOENT)
            return pc_fail(steps->failure, "open", from + 7);
    }
    return 0;
}

/* What the tree has there, made when it is missing. A link (resolv.conf is often one into /run) leads
   to where the new root has it. */
static int open_place(const char *path)
{
    char target[PATH_SIZE], whole[PATH_SIZE + 8];
    int place = open(path, O_PATH | O_CLOEXEC);
    if (place >= 0 || errno != ENOENT)
        return place;
    ssize_t length = readlink(path, target, sizeof target - 1);
    if (length > 0) {
        target[length] = 0;
        snprintf(whole, sizeof whole, "%s%s", *target == '/' ? "" : "/etc/", target);
        *strrchr(whole, '/') = 0;
        if (make_path(whole + (*whole == '/')) < 0)
            return -1;
    }
    return open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
}

/* Over the tree's, so that it does not come to have them. */
static int place_names(const int *files, struct steps *steps)
{
    char path[32];
    for (int i = 0; i < NAMES; i++) {
        if (files[i] < 0)
            continue;
        snprintf(path, sizeof path, "/etc/%s", names[i]);
        CLEANUP_FD int place = open_place(path);
        STEP("make the place of", path, place);
        STEP("bind", path, pc_move_mount(files[i], place, ""));
    }
    return 0;
}

static int build_itself(const struct template *template, const struct container_spec *spec, int *files, struct steps *steps)
{
    if (root_make_storage(template, steps) < 0)
        return -1;
    STEP("make", "a directory of names", mkdir("/proc/c/etc", 0755));
    if (root_write_names("/proc/c/etc", spec, steps) < 0 || open_names(files, steps) < 0)
        return -1;
    STEP("show", "/", root_place("/proc/lower/root", TREE));
    if (make_places(TREE, steps) < 0 || bring_along(spec, steps) < 0 || cover_root(steps) < 0)
        return -1;
    return place_names(files, steps) < 0 || root_mount_views(template, spec, steps) < 0 ? -1 : 0;
}

static int build(const struct template *template, const struct container_spec *spec, int *trees, struct steps *steps)
{
    if (open_binds(template, trees, steps) < 0 || root_make_storage(template, steps) < 0 || root_make_upper("root", 1, steps) < 0)
        return -1;
    STEP("set the mode of", "/", chmod(UPPER, 0755));
    if (make_places(UPPER, steps) < 0 || root_write_names(UPPER "/etc", spec, steps) < 0)
        return -1;
    if (root_mount_overlay("/proc/lower/root", "root", TREE, template->overlay_options, steps) < 0)
        return -1;
    if (bring_along(spec, steps) < 0 || cover_root(steps) < 0)
        return -1;
    if (place_binds(template, trees, steps) < 0 || root_mount_views(template, spec, steps) < 0)
        return -1;
    if (template->readonly)
        STEP("make read-only", "/", pc_mount_setattr(AT_FDCWD, "/", 0, MOUNT_ATTR_RDONLY, 0));
    return 0;
}

int tree_build(const struct template *template, const struct container_spec *spec, struct steps *steps)
{
    int trees[LATE_BINDS_MAX];
    memset(trees, 0xff, sizeof trees);
    int result = template->itself ? build_itself(template, spec, trees, steps) : build(template, spec, trees, steps);
    const int saved = errno;
    for (int i = 0; i < LATE_BINDS_MAX; i++)
        pc_cleanup_fd(&trees[i]);
    errno = saved;
    return result;
}
