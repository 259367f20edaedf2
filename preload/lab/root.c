#define _GNU_SOURCE
#include <errno.h>
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

int step_begins(struct steps *steps, const char *step, const char *object)
{
    if (++steps->done != steps->fail_at)
        return 1;
    pc_fail_as(steps->failure, step, object, EIO, "this failure was asked for (--fail-step)");
    return 0;
}

int root_place(const char *from, const char *to)
{
    CLEANUP_FD int tree = pc_open_tree(AT_FDCWD, from, OPEN_TREE_CLONE);
    return tree < 0 ? -1 : pc_move_mount(tree, AT_FDCWD, to);
}

int root_place_tree(const char *from, const char *to)
{
    CLEANUP_FD int tree = pc_open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | AT_RECURSIVE);
    return tree < 0 ? -1 : pc_move_mount(tree, AT_FDCWD, to);
}

static int write_new(const char *path, const char *text, size_t length)
{
    CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    return write(fd, text, length) == (ssize_t)length ? 0 : -1;
}

int root_write_names(const char *etc, const struct container_spec *spec, struct steps *steps)
{
    static const char resolver[] = "# There is no name server in here: names are in /etc/hosts.\n";
    char name[NAME_SIZE + 1];
    int length = snprintf(name, sizeof name, "%s\n", spec->name);
    STEP("enter", "the upper of /etc", chdir(etc));
    STEP("write", "/etc/hosts", write_new("hosts", spec->hosts, spec->hosts_length));
    STEP("write", "/etc/hostname", write_new("hostname", name, (size_t)length));
    if (!spec->host_network)
        STEP("write", "/etc/resolv.conf", write_new("resolv.conf", resolver, sizeof resolver - 1));
    STEP("enter", "/", chdir("/"));
    return 0;
}

int root_mount_overlay(const char *lower, const char *name, const char *target, const char *more, struct steps *steps)
{
    char options[512];
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=/proc/c/%s,workdir=/proc/c/work-%s%s", lower, name, name, more);
    STEP("mount overlay on", target, mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, options));
    return 0;
}

static int make_private(const struct template *template, const struct private_directory *directory, struct steps *steps)
{
    char from[64], target[64];
    snprintf(target, sizeof target, "/%s", directory->name);
    switch (directory->kind) {
    case PRIVATE_COMMON:
        snprintf(from, sizeof from, "/proc/o/%s", directory->name);
        STEP("bind a private directory on", target, root_place(from, target));
        return 0;
    case PRIVATE_OVERLAY:
        return root_mount_overlay(directory->lower, directory->name, target, template->overlay_options, steps);
    case PRIVATE_TMPFS:
        snprintf(from, sizeof from, "/proc/c/%s", directory->name);
        STEP("bind a private directory on", target, root_place(from, target));
        return 0;
    case PRIVATE_READONLY:
        snprintf(from, sizeof from, "/proc/lower/%s", directory->name);
        STEP("bind read-only", target, root_place_tree(from, target)); /* the mounts below are why it is no overlay */
        return 0;
    }
    return 0;
}

int root_make_upper(const char *name, int overlay, struct steps *steps)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/c/%s", name);
    /* root's home is nobody else's business, as on the machine. */
    STEP("make", path + 7, mkdir(path, strcmp(name, "root") == 0 ? 0700 : 0755));
    if (overlay) {
        snprintf(path, sizeof path, "/proc/c/work-%s", name);
        STEP("make", path + 7, mkdir(path, 0755));
    }
    return 0;
}

int root_make_storage(const struct template *template, struct steps *steps)
{
    STEP("mount a tmpfs for", "the container", mount("container", "/proc/c", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"));
    STEP("make", "/tmp", mkdir("/proc/c/tmp", 01777));
    STEP("make", "/run", mkdir("/proc/c/run", 0755));
    STEP("make", "/run/lock", mkdir("/proc/c/run/lock", 01777));
    STEP("make", "/dev/shm", mkdir("/proc/c/shm", 01777));
    if (template->common && (root_make_upper("common", 1, steps) < 0 || root_make_upper("common/etc", 0, steps) < 0))
        return -1;
    for (int i = 0; i < template->directory_count; i++) {
        const struct private_directory *directory = &template->directories[i];
        if (directory->kind != PRIVATE_COMMON && root_make_upper(directory->name, directory->kind == PRIVATE_OVERLAY, steps) < 0)
            return -1;
    }
    return 0;
}

/* Makes every directory of `path` below our tmpfs. */
static int make_path(const char *path)
{
    char whole[PATH_SIZE + 32];
    snprintf(whole, sizeof whole, "/proc/c/%s", path);
    return path_make(whole, sizeof "/proc/c/" - 1);
}

/* Their owner is of the machine; of ids that are not mapped here it stays ours. */
static int make_run_directories(const struct template *template, struct steps *steps)
{
    char path[PATH_SIZE + 16];
    for (int i = 0; i < template->run_directory_count; i++) {
        const struct run_directory *directory = &template->run_directories[i];
        snprintf(path, sizeof path, "run/%s", directory->path);
        STEP("make", path, make_path(path));
        snprintf(path, sizeof path, "/proc/c/run/%s", directory->path);
        STEP("set the mode of", path + 7, chmod(path, directory->mode));
        if (lchown(path, directory->uid, directory->gid) < 0 && errno != EINVAL && errno != EPERM)
            return pc_fail(steps->failure, "set the owner of", path + 7);
    }
    return 0;
}

static int make_late_binds(const struct template *template, struct steps *steps)
{
    char from[32], to[PATH_SIZE + 8];
    for (int i = 0; i < template->late_count; i++) {
        const struct late_bind *bind = &template->late[i];
        snprintf(from, sizeof from, "/proc/late/%d", i);
        snprintf(to, sizeof to, "/%s", bind->path);
        if (bind->make)
            STEP("make the place of", to, make_path(bind->path));
        STEP("bind", to, root_place_tree(from, to));
    }
    return 0;
}

static int place_readonly(const char *path)
{
    CLEANUP_FD int tree = pc_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE);
    if (tree < 0)
        return errno == ENOENT ? 0 : -1; /* this kernel has no such file */
    if (pc_mount_setattr(tree, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, 0) < 0)
        return -1;
    return pc_move_mount(tree, AT_FDCWD, path);
}

/* As real root (no user namespace between us and the machine) these files act on all
   of the machine, and their modes are all that guards them. The network's are ours, if it is. */
static int guard_proc(const struct container_spec *spec, struct steps *steps)
{
    static const char *const guarded[] = { "/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs", "/proc/acpi" };
    CLEANUP_FD int net = spec->host_network ? -1 : pc_open_tree(AT_FDCWD, "/proc/sys/net", OPEN_TREE_CLONE);
    for (size_t i = 0; i < sizeof guarded / sizeof *guarded; i++)
        STEP("make read-only", guarded[i], place_readonly(guarded[i]));
    if (net >= 0)
        STEP("keep writable", "/proc/sys/net", pc_move_mount(net, AT_FDCWD, "/proc/sys/net"));
    return 0;
}

int root_mount_views(const struct template *template, const struct container_spec *spec, struct steps *steps)
{
    const unsigned long harmless = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    STEP("mount devpts on", "/dev/pts", mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"));
    STEP("mount mqueue on", "/dev/mqueue", mount("mqueue", "/dev/mqueue", "mqueue", harmless, NULL));
    if (!step_begins(steps, "mount a fresh proc on", "/proc"))
        return -1;
    if (mount("proc", "/proc", "proc", harmless, NULL) < 0)
        return pc_fail_as(steps->failure, "mount a fresh proc on", "/proc", errno,
            errno == EPERM ? "the machine's own /proc is masked, as container engines do; start the engine's container with an unmasked /proc" : NULL);
    return template->rootless ? 0 : guard_proc(spec, steps);
}

/* Over the template's /sys, which is the machine's, read-only. That one stays where the
   network is the machine's too, and where the kernel refuses another (its /sys is masked). */
int root_show_network(const struct container_spec *spec, struct steps *steps)
{
    if (spec->host_network)
        return 0;
    if (!step_begins(steps, "mount sysfs on", "/sys"))
        return -1;
    if (mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL) < 0 && errno != EPERM)
        return pc_fail(steps->failure, "mount sysfs on", "/sys");
    return 0;
}

static int build_host(const struct template *template, const struct container_spec *spec, struct steps *steps)
{
    if (root_make_storage(template, steps) < 0 || make_run_directories(template, steps) < 0 || root_write_names(template->common ? "/proc/c/common/etc" : "/proc/c/etc", spec, steps) < 0)
        return -1;
    if (template->common && root_mount_overlay("/proc/lower/common", "common", "/proc/o", "", steps) < 0)
        return -1;
    for (int i = 0; i < template->directory_count; i++)
        if (make_private(template, &template->directories[i], steps) < 0)
            return -1;
    STEP("bind a private directory on", "/tmp", root_place("/proc/c/tmp", "/tmp"));
    STEP("bind a private directory on", "/run", root_place("/proc/c/run", "/run"));
    STEP("bind a private directory on", "/dev/shm", root_place("/proc/c/shm", "/dev/shm"));
    if (make_late_binds(template, steps) < 0 || root_mount_views(template, spec, steps) < 0)
        return -1;
    return 0;
}

int root_build(const struct template *template, const struct container_spec *spec, struct steps *steps)
{
    if (template->tree ? tree_build(template, spec, steps) < 0 : build_host(template, spec, steps) < 0)
        return -1;
    STEP("set the host name", spec->name, sethostname(spec->name, strlen(spec->name)));
    return 0;
}
