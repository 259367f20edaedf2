/* The root of a container that has another tree than the machine's.

   It is an overlay over all of that tree, so everything in it can be changed, and so the places
   for what the kernel shows can be made, whatever the tree has. It becomes the root by covering
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
#include "root.h"

#define UPPER "/proc/c/root"
#define TREE "/proc/o"

/* In the upper they are directories, whatever the tree has under these names. */
static int make_places(struct steps *steps)
{
    static const char *const places[] = { "dev", "etc", "proc", "run", "sys", "tmp" };
    char path[64];
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        snprintf(path, sizeof path, UPPER "/%s", places[i]);
        STEP("make the place of", path + sizeof UPPER - 1, mkdir(path, 0755));
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
    int length = snprintf(whole, sizeof whole, "/%s", path);
    for (int i = 1; i <= length; i++) {
        if (whole[i] != '/' && whole[i] != 0)
            continue;
        char kept = whole[i];
        whole[i] = 0;
        if (mkdir(whole, 0755) < 0 && errno != EEXIST)
            return -1;
        whole[i] = kept;
    }
    return 0;
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

static int build(const struct template *template, const struct container_spec *spec, int *trees, struct steps *steps)
{
    if (open_binds(template, trees, steps) < 0 || root_make_storage(template, steps) < 0 || root_make_upper("root", 1, steps) < 0)
        return -1;
    STEP("set the mode of", "/", chmod(UPPER, 0755));
    if (make_places(steps) < 0 || root_write_names(UPPER "/etc", spec, steps) < 0)
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
    int result = build(template, spec, trees, steps);
    const int saved = errno;
    for (int i = 0; i < template->late_count; i++)
        pc_cleanup_fd(&trees[i]);
    errno = saved;
    return result;
}
