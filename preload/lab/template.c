#define _GNU_SOURCE
#include "template.h"

#include <dirent.h>
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
#include "skeleton.h"

#define OLD "/proc/old"
enum { OLD_LENGTH = sizeof OLD - 1 };

/* Not from the template: each container has its own. */
static const char *const own[] = { "tmp", "run", "dev", "proc", "sys" };
static const char *const private_names[] = { "etc", "var", "srv", "opt", "home", "root" };

static int is_one_of(const char *name, const char *const *list, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(name, list[i]) == 0)
            return 1;
    return 0;
}

static int bind_tree(const char *from, const char *to, int readonly, unsigned below)
{
    CLEANUP_FD int tree = pc_open_tree(AT_FDCWD, from, OPEN_TREE_CLONE | below | AT_SYMLINK_NOFOLLOW);
    if (tree < 0)
        return -1;
    uint64_t set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (readonly ? MOUNT_ATTR_RDONLY : 0);
    if (pc_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set, 0) < 0)
        return -1;
    return pc_move_mount(tree, AT_FDCWD, to);
}

int template_bind(const char *from, const char *to, int readonly)
{
    return bind_tree(from, to, readonly, AT_RECURSIVE);
}

/* Without what is mounted below, which each container would copy and none can see: over /sys and /proc it mounts its
   own. A user namespace may not uncover what it got covered (mount_namespaces(7)), so there all come along. */
static int bind_alone(const char *from, const char *to, int readonly)
{
    if (bind_tree(from, to, readonly, 0) == 0)
        return 0;
    return errno == EINVAL ? template_bind(from, to, readonly) : -1;
}

int template_begin(struct pc_failure *failure)
{
    static const char *const directories[] = { "/tmp/proc", "/tmp/proc/old", "/tmp/proc/machine", "/tmp/proc/lower", "/tmp/proc/late", "/tmp/proc/skel", "/tmp/proc/c", "/tmp/proc/o", "/tmp/proc/try" };
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return pc_fail(failure, "make private the mounts of", "the lab");
    /* /tmp is covered for a moment only: the tmpfs moves away from it. */
    if (mount("root", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0)
        return pc_fail(failure, "mount a tmpfs for", "the lab");
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++)
        if (mkdir(directories[i], 0755) < 0)
            return pc_fail(failure, "make", directories[i] + 4);
    if (pc_pivot_root("/tmp", "/tmp/proc/old") == 0)
        return chdir("/") < 0 ? pc_fail(failure, "enter the root of", "the lab") : 0;
    /* An engine's seccomp filter forbids pivot_root where it allows mounts; on an
       initramfs it cannot work. A copy of the machine's mounts does the same. */
    if (mount("/", "/tmp" OLD, NULL, MS_BIND | MS_REC, NULL) < 0 || umount2("/tmp" OLD "/tmp", MNT_DETACH) < 0)
        return pc_fail(failure, "copy the machine's mounts into", "the lab");
    if (chdir("/tmp") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        return pc_fail(failure, "move the root of", "the lab");
    return 0;
}

/* One name of the machine's root directory comes into the template. */
static int add_entry(const char *name, struct pc_failure *failure)
{
    char from[PATH_SIZE], to[PATH_SIZE], target[PATH_SIZE];
    struct stat info;
    snprintf(from, sizeof from, OLD "/%s", name);
    snprintf(to, sizeof to, "/%s", name);
    if (lstat(from, &info) < 0)
        return pc_fail(failure, "look at", from + OLD_LENGTH);
    if (S_ISLNK(info.st_mode)) {
        ssize_t length = readlink(from, target, sizeof target - 1);
        if (length < 0)
            return pc_fail(failure, "read the link", from + OLD_LENGTH);
        target[length] = 0;
        return symlink(target, to) < 0 ? pc_fail(failure, "copy the link", from + OLD_LENGTH) : 0;
    }
    if (!S_ISDIR(info.st_mode))
        return 0; /* a file in the root directory is nothing that a service needs */
    if (mkdir(to, 0755) < 0 && errno != EEXIST)
        return pc_fail(failure, "make", to);
    if (is_one_of(name, own, sizeof own / sizeof *own) || is_one_of(name, private_names, sizeof private_names / sizeof *private_names))
        return 0;
    return template_bind(from, to, 1) < 0 ? pc_fail(failure, "bind read-only", from + OLD_LENGTH) : 0;
}

static int add_entries(struct pc_failure *failure)
{
    DIR *directory = opendir(OLD);
    if (!directory)
        return pc_fail(failure, "list", "/");
    int result = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(directory));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = add_entry(entry->d_name, failure);
    closedir(directory);
    for (size_t i = 0; result == 0 && i < sizeof own / sizeof *own; i++) {
        char path[64];
        snprintf(path, sizeof path, "/%s", own[i]);
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            result = pc_fail(failure, "make", path);
    }
    return result;
}

/* A /dev of harmless devices; terminals, shared memory and the log are each container's
   own. It is read-only, so one is enough for all. */
int template_add_dev(struct pc_failure *failure)
{
    static const char *const nodes[] = { "null", "zero", "full", "random", "urandom", "tty" };
    static const char *const links[][2] = { { "/proc/self/fd", "/dev/fd" }, { "/proc/self/fd/0", "/dev/stdin" },
        { "/proc/self/fd/1", "/dev/stdout" }, { "/proc/self/fd/2", "/dev/stderr" },
        { "pts/ptmx", "/dev/ptmx" }, { "/run/devlog", "/dev/log" } };
    char from[64], to[64];
    if (mount("dev", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=64k") < 0)
        return pc_fail(failure, "mount a tmpfs on", "/dev");
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
        snprintf(from, sizeof from, OLD "/dev/%s", nodes[i]);
        snprintf(to, sizeof to, "/dev/%s", nodes[i]);
        CLEANUP_FD int place = open(to, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0666);
        CLEANUP_FD int tree = pc_open_tree(AT_FDCWD, from, OPEN_TREE_CLONE);
        if (place < 0 || tree < 0 || pc_move_mount(tree, AT_FDCWD, to) < 0)
            return pc_fail(failure, "bind", from + OLD_LENGTH);
    }
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        if (symlink(links[i][0], links[i][1]) < 0)
            return pc_fail(failure, "make the link", links[i][1]);
    if (mkdir("/dev/pts", 0755) < 0 || mkdir("/dev/shm", 0755) < 0 || mkdir("/dev/mqueue", 0755) < 0)
        return pc_fail(failure, "make directories in", "/dev");
    if (pc_mount_setattr(AT_FDCWD, "/dev", 0, MOUNT_ATTR_RDONLY, 0) < 0)
        return pc_fail(failure, "make read-only", "/dev");
    return 0;
}

/* 1: somebody may have put something into it that a service wants to see. */
static int has_content(const char *path)
{
    DIR *directory = opendir(path);
    if (!directory)
        return 0; /* not readable for us: so it is as good as empty */
    int count = 0;
    while (count <= 2 && readdir(directory))
        count++;
    closedir(directory);
    return count > 2;
}

int template_overlay_works(const struct template *template, const char *lower)
{
    char options[PATH_SIZE];
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=/proc/try/upper,workdir=/proc/try/work%s", lower, template->overlay_options);
    if ((mkdir("/proc/try/upper", 0755) < 0 || mkdir("/proc/try/work", 0755) < 0) && errno != EEXIST)
        return 0;
    if (mount("overlay", "/proc/o", "overlay", MS_NOSUID | MS_NODEV, options) < 0)
        return 0;
    return umount2("/proc/o", MNT_DETACH) == 0;
}

static int is_on_root(const char *path)
{
    struct stat root, info;
    return stat(OLD, &root) == 0 && stat(path, &info) == 0 && root.st_dev == info.st_dev;
}

/* Decides what a private directory is made of on this machine, and keeps its lower. */
static int plan_directory(struct template *template, const char *name, struct pc_failure *failure)
{
    char path[64], kept[64];
    struct stat info;
    snprintf(path, sizeof path, OLD "/%s", name);
    if (lstat(path, &info) < 0 || !S_ISDIR(info.st_mode))
        return 0;
    struct private_directory *directory = &template->directories[template->directory_count++];
    directory->name = name;
    directory->kind = PRIVATE_COMMON;
    if (template->common && is_on_root(path))
        return 0;
    directory->kind = PRIVATE_TMPFS;
    if (!has_content(path))
        return 0;
    snprintf(kept, sizeof kept, "/proc/lower/%s", name);
    if (mkdir(kept, 0755) < 0 || template_bind(path, kept, 1) < 0)
        return pc_fail(failure, "keep", path + OLD_LENGTH);
    /* Rootless, our skeleton lies above the machine's directory. */
    const int skeleton = template->rootless && skeleton_has(name);
    const int needed = strcmp(name, "etc") == 0 || strcmp(name, "var") == 0;
    directory->kind = PRIVATE_OVERLAY;
    if (skeleton)
        snprintf(directory->lower, sizeof directory->lower, "/proc/skel/%s:%s", name, kept);
    else
        snprintf(directory->lower, sizeof directory->lower, "%s", kept);
    if (template_overlay_works(template, directory->lower))
        return 0;
    /* In a user namespace overlay refuses a lower with mounts below it (an engine mounts
       /etc/hosts). The skeleton alone will do for the two that daemons cannot do without. */
    if (!needed) {
        directory->kind = PRIVATE_READONLY;
        return 0;
    }
    snprintf(directory->lower, sizeof directory->lower, "/proc/skel/%s", name);
    if (template_overlay_works(template, directory->lower))
        return 0;
    return pc_fail_as(failure, "mount overlay on", path + OLD_LENGTH, errno, "in a user namespace this needs Linux 5.11 or newer");
}

/* As root one overlay over the whole root file system serves all directories on it, at
   the price of one. (In a user namespace overlay refuses it: mounts are locked below.) */
static int plan_common(struct template *template, struct pc_failure *failure)
{
    if (template->rootless)
        return 0;
    CLEANUP_FD int tree = pc_open_tree(AT_FDCWD, OLD, OPEN_TREE_CLONE);
    if (tree < 0 || mkdir("/proc/lower/common", 0755) < 0 || pc_move_mount(tree, AT_FDCWD, "/proc/lower/common") < 0)
        return pc_fail(failure, "keep", "the machine's root");
    template->common = template_overlay_works(template, "/proc/lower/common");
    return 0;
}

/* The private or own directory that a path is below, or NULL. */
static int is_below_private(const struct template *template, const char *path, int *make)
{
    size_t length = strcspn(path, "/");
    *make = 0;
    for (size_t i = 0; i < sizeof own / sizeof *own; i++)
        if (strlen(own[i]) == length && strncmp(path, own[i], length) == 0)
            return *make = 1;
    for (int i = 0; i < template->directory_count; i++)
        if (strlen(template->directories[i].name) == length && strncmp(path, template->directories[i].name, length) == 0) {
            *make = template->directories[i].kind == PRIVATE_TMPFS;
            return 1;
        }
    return 0;
}

/* `path` is absolute. Where the template shows it already, there is nothing to do. */
static int add_bind(struct template *template, const char *path, int writable, struct pc_failure *failure)
{
    char from[PATH_SIZE + 16], to[32];
    struct late_bind late = { .make = 0 };
    if (path[0] != '/' || strlen(path) >= PATH_SIZE)
        return pc_fail_as(failure, "bind", path, EINVAL, "an absolute path is needed");
    snprintf(late.path, sizeof late.path, "%s", path + 1);
    snprintf(from, sizeof from, OLD "%s", path);
    if (!is_below_private(template, late.path, &late.make))
        return !writable || template_bind(from, path, 0) == 0 ? 0 : pc_fail(failure, "bind", path);
    if (template->late_count == LATE_BINDS_MAX)
        return pc_fail_as(failure, "bind", path, E2BIG, "too many mounts below the directories that are private to a container");
    snprintf(to, sizeof to, "/proc/late/%d", template->late_count);
    if (mkdir(to, 0755) < 0 || template_bind(from, to, !writable) < 0)
        return pc_fail(failure, "bind", path);
    template->late[template->late_count++] = late;
    return 0;
}

/* Whether a mount of the machine's is none of ours: what this user cannot get to, it does not see outside either; and
   the containers of an engine come and go, and could not be removed while we hold what is mounted in them. */
static int is_for_others(const char *path)
{
    static const char *const engines[] = { "/var/lib/docker/", "/var/lib/containers/", "/var/lib/containerd/", "/var/lib/kubelet/", "/var/lib/lxc/" };
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++)
        if (strncmp(path + OLD_LENGTH, engines[i], strlen(engines[i])) == 0)
            return 1;
    return access(path, F_OK) < 0 && errno == EACCES;
}

/* Overlay does not show what is mounted below its lower: such mounts are bound, read-only. */
static int add_mounts_below(struct template *template, struct pc_failure *failure)
{
    FILE *table = fopen(OLD "/proc/self/mountinfo", "re");
    if (!table)
        return pc_fail(failure, "read", "/proc/self/mountinfo");
    static char line[4 * PATH_SIZE];
    char path[PATH_SIZE + 8];
    int result = 0, ignored;
    while (result == 0 && fgets(line, sizeof line, table)) {
        if (sscanf(line, "%*s %*s %*s %*s %1030s", path) != 1)
            continue;
        path_unescape(path);
        if (strncmp(path, OLD "/", OLD_LENGTH + 1) != 0)
            continue;
        char *below = path + OLD_LENGTH + 1, name[64];
        size_t first = strcspn(below, "/");
        if (below[first] == 0 || first >= sizeof name || strncmp(below, "etc/", 4) == 0)
            continue; /* an engine's /etc/hosts and resolv.conf are what we replace */
        snprintf(name, sizeof name, "%.*s", (int)first, below);
        if (is_below_private(template, below, &ignored) && !is_one_of(name, own, sizeof own / sizeof *own) && !is_for_others(path))
            result = add_bind(template, below - 1, 0, failure);
    }
    fclose(table);
    return result;
}

/* The machine's proc alone stays. */
int template_end(struct pc_failure *failure)
{
    if (bind_alone(OLD "/sys", "/sys", 1) < 0)
        return pc_fail(failure, "bind read-only", "/sys");
    if (bind_alone(OLD "/proc", MACHINE_PROC, 0) < 0)
        return pc_fail(failure, "keep", "the machine's /proc");
    if (umount2(OLD, MNT_DETACH) < 0)
        return pc_fail(failure, "unmount", "the machine's root");
    if (pc_mount_setattr(AT_FDCWD, "/", 0, MOUNT_ATTR_RDONLY, 0) < 0)
        return pc_fail(failure, "make read-only", "the template's root");
    return 0;
}

int template_build(struct template *template, const struct lab_options *options, struct pc_failure *failure)
{
    template->rootless = options->rootless;
    template->run_directories = options->run_directories;
    template->run_directory_count = options->run_directory_count;
    template->overlay_options = options->rootless ? ",userxattr" : "";
    if (template_begin(failure) < 0 || add_entries(failure) < 0 || template_add_dev(failure) < 0)
        return -1;
    if (options->rootless && skeleton_build(OLD, "/proc/skel", failure) < 0)
        return -1;
    if (plan_common(template, failure) < 0)
        return -1;
    for (size_t i = 0; i < sizeof private_names / sizeof *private_names; i++)
        if (plan_directory(template, private_names[i], failure) < 0)
            return -1;
    if (add_mounts_below(template, failure) < 0)
        return -1;
    for (int i = 0; i < options->bind_count; i++)
        if (add_bind(template, options->binds[i].path, options->binds[i].writable, failure) < 0)
            return -1;
    return template_end(failure);
}
