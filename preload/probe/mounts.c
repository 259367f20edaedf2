/* What a container needs of mounts. All of it in a private mount namespace, on a tmpfs. */
#define _GNU_SOURCE
#include "probe.h"

#include "../common/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

/* Declared here because <sys/mount.h> and <linux/mount.h> clash on older C libraries. */
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif

int playground(struct outcome *out)
{
    /* Any directory will do: it is covered in our namespace alone. */
    static const char *const places[] = { "/tmp", "/dev/shm", "/run", "/mnt" };
    if (own_mounts(out) != 0)
        return -1;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        if (mount("tmpfs", places[i], "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=16m") != 0)
            continue;
        return chdir(places[i]) == 0 ? 0 : fail(out, "enter a tmpfs");
    }
    return fail(out, "mount a tmpfs");
}

/* Whether a directory can be deleted and made anew, empty, over one with files in it. */
static int opaque_works(void)
{
    return unlink("merged/directory/file") == 0 && rmdir("merged/directory") == 0 && mkdir("merged/directory", 0755) == 0 &&
           access("merged/directory/file", F_OK) != 0;
}

int probe_overlay(struct outcome *out)
{
    char text[8] = "";
    if (playground(out) != 0)
        return -1;
    if (mkdir("lower", 0755) != 0 || mkdir("upper", 0755) != 0 || mkdir("work", 0755) != 0 || mkdir("merged", 0755) != 0 ||
        mkdir("lower/directory", 0755) != 0 || put_file("lower/directory/file", "a") != 0 || put_file("lower/file", "a") != 0)
        return fail(out, "make directories on a tmpfs");
    const char *options = rootless ? "lowerdir=lower,upperdir=upper,workdir=work,userxattr"
                                   : "lowerdir=lower,upperdir=upper,workdir=work";
    if (mount("overlay", "merged", "overlay", 0, options) != 0)
        return fail(out, rootless ? "mount overlay with userxattr" : "mount overlay");
    if (put_file("merged/file", "b") != 0)
        return fail(out, "write through an overlay");
    if (get_file("lower/file", text, sizeof text) != 1 || text[0] != 'a' || get_file("upper/file", text, sizeof text) != 1 ||
        text[0] != 'b')
        return no_effect(out, "keep a write from the lower directory of an overlay");
    if (unlink("merged/file") != 0 || access("merged/file", F_OK) == 0)
        return fail(out, "delete through an overlay");
    if (!opaque_works())
        note(out, "a deleted directory cannot be made anew");
    return 0;
}

static int mount_own_proc(struct outcome *out)
{
    char self[8] = "";
    if (playground(out) != 0)
        return -1;
    if (mkdir("proc", 0755) != 0)
        return fail(out, "make a directory on a tmpfs");
    if (mount("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) != 0)
        return fail(out, "mount a fresh proc");
    return readlink("proc/self", self, sizeof self - 1) == 1 && self[0] == '1' ? 0 : no_effect(out, "see ourselves in a fresh proc");
}

int probe_fresh_proc(struct outcome *out)
{
    return in_child(CLONE_NEWPID, "make a pid namespace", mount_own_proc, out);
}

int probe_sysfs(struct outcome *out)
{
    if (playground(out) != 0)
        return -1;
    if (mkdir("sys", 0755) != 0)
        return fail(out, "make a directory on a tmpfs");
    if (mount("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL) != 0)
        return fail(out, "mount a fresh sysfs");
    return access("sys/class/net/lo", F_OK) == 0 ? 0 : no_effect(out, "see our interfaces in a fresh sysfs");
}

int probe_private_dev(struct outcome *out)
{
    if (playground(out) != 0)
        return -1;
    if (mkdir("dev", 0755) != 0 || mkdir("dev/pts", 0755) != 0 || put_file("dev/null", "") != 0)
        return fail(out, "make files on a tmpfs");
    if (mount("/dev/null", "dev/null", NULL, MS_BIND, NULL) != 0)
        return fail(out, "bind /dev/null");
    CLEANUP_FD int null = open("dev/null", O_WRONLY | O_CLOEXEC);
    if (null < 0 || write(null, "x", 1) != 1)
        return fail(out, "write to a bound /dev/null");
    if (mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620") != 0)
        return fail(out, "mount a devpts of our own");
    int number = -1, unlocked = 0;
    CLEANUP_FD int master = open("dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlocked) != 0 || ioctl(master, TIOCGPTN, &number) != 0)
        return fail(out, "open a terminal of a devpts of our own");
    return number == 0 && access("dev/pts/0", F_OK) == 0 ? 0 : no_effect(out, "number terminals of a devpts of our own");
}

int probe_pivot_root(struct outcome *out)
{
    if (playground(out) != 0)
        return -1;
    if (mkdir("pcprobe", 0755) != 0)
        return fail(out, "make a directory on a tmpfs");
    if (pc_pivot_root(".", ".") != 0)
        return fail(out, "pivot_root");
    /* Now both roots lie on each other: the upper one is the old. */
    if (umount2(".", MNT_DETACH) != 0)
        return fail(out, "detach the old root");
    return access("/pcprobe", F_OK) == 0 && access("/proc", F_OK) != 0 ? 0 : no_effect(out, "pivot_root");
}

int probe_mount_move(struct outcome *out)
{
    if (playground(out) != 0)
        return -1;
    if (mkdir("pcprobe", 0755) != 0)
        return fail(out, "make a directory on a tmpfs");
    if (mount(".", "/", NULL, MS_MOVE, NULL) != 0)
        return fail(out, "move a mount onto /");
    if (chroot(".") != 0)
        return fail(out, "chroot into a moved mount");
    return access("/pcprobe", F_OK) == 0 && access("/proc", F_OK) != 0 ? 0 : no_effect(out, "move a mount onto /");
}

int probe_mount_setattr(struct outcome *out)
{
    if (playground(out) != 0)
        return -1;
    if (mkdir("tree", 0755) != 0 || mkdir("tree/below", 0755) != 0 || mkdir("view", 0755) != 0)
        return fail(out, "make directories on a tmpfs");
    if (mount("tmpfs", "tree/below", "tmpfs", 0, NULL) != 0)
        return fail(out, "mount a tmpfs");
    CLEANUP_FD int tree = pc_open_tree(AT_FDCWD, "tree", OPEN_TREE_CLONE | AT_RECURSIVE);
    if (tree < 0)
        return fail(out, "open_tree with OPEN_TREE_CLONE");
    if (pc_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV, 0) != 0)
        return fail(out, "mount_setattr with AT_RECURSIVE");
    if (pc_move_mount(tree, AT_FDCWD, "view") != 0)
        return fail(out, "move_mount");
    /* The mount below must have become read-only too, and the original must not. */
    if (put_file("view/below/file", "x") == 0 || errno != EROFS)
        return no_effect(out, "make a mount below another read-only");
    return put_file("tree/below/file", "x") == 0 ? 0 : no_effect(out, "leave the original of a read-only mount writable");
}
