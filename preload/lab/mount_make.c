/* What is to be mounted, made as a detached tree: nobody sees it before it is complete. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/sys.h"
#include "machine.h"
#include "mount_request.h"
#include "skeleton.h"

uint64_t mount_attributes(uint32_t flags)
{
    return (flags & PC_FLAG_READONLY ? MOUNT_ATTR_RDONLY : 0) | (flags & PC_FLAG_NOEXEC ? MOUNT_ATTR_NOEXEC : 0);
}

/* With all that is mounted below: a mount there is as read-only as its parent. */
static int restrict_tree(struct mounting *m, int tree, const char *object)
{
    const uint64_t set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | mount_attributes(m->request->flags);
    if (pc_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set, 0) == 0)
        return tree;
    pc_fail(m->failure, "set the attributes of", object);
    close(tree);
    return -1;
}

int mount_make_bind(struct mounting *m)
{
    const char *source = m->request->source;
    /* A tree of the stage (cow.h), or a directory of the machine. */
    if (m->request->fd >= 0 && setns(m->request->fd, CLONE_NEWNS) < 0)
        return pc_fail(m->failure, "enter the stage of", source);
    if (m->request->fd < 0 && machine_enter(m->failure) < 0)
        return -1;
    int tree = pc_open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | AT_RECURSIVE);
    if (tree < 0)
        return pc_fail_as(m->failure, "bind", source, errno, errno == ENOENT ? "there is no such file or directory on the machine" : NULL);
    return restrict_tree(m, tree, source);
}

int mount_make_itself(struct mounting *m, int place)
{
    int tree = pc_open_tree(place, "", OPEN_TREE_CLONE | AT_RECURSIVE | AT_EMPTY_PATH);
    if (tree < 0)
        return pc_fail(m->failure, "bind", m->request->target);
    const uint64_t set = mount_attributes(m->request->flags);
    if (pc_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, set, 0) == 0)
        return tree;
    pc_fail(m->failure, "set the attributes of", m->request->target);
    close(tree);
    return -1;
}

/* "size=1M" becomes a parameter of the file system. */
static int set_option(int context, const char *option)
{
    char key[32];
    const char *value = strchr(option, '=');
    if (!value || (size_t)(value - option) >= sizeof key) {
        errno = EINVAL;
        return -1;
    }
    snprintf(key, sizeof key, "%.*s", (int)(value - option), option);
    return mount_configure(context, FSCONFIG_SET_STRING, key, value + 1);
}

static int make(struct mounting *m, const char *type, const char *const *options, int count, uint64_t attributes)
{
    static char step[32];
    snprintf(step, sizeof step, "make a %s for", type);
    CLEANUP_FD int context = mount_fsopen(type);
    if (context < 0)
        return pc_fail(m->failure, step, m->request->target);
    if (mount_configure(context, FSCONFIG_SET_STRING, "source", type) < 0)
        return mount_fail_with(m, context, step, m->request->target);
    for (int i = 0; i < count; i++)
        if (set_option(context, options[i]) < 0)
            return mount_fail_with(m, context, step, m->request->target);
    if (mount_configure(context, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
        return mount_fail_with(m, context, step, m->request->target);
    int tree = mount_fsmount(context, attributes);
    return tree < 0 ? mount_fail_with(m, context, step, m->request->target) : tree;
}

int mount_make_tmpfs(struct mounting *m)
{
    return make(m, "tmpfs", m->request->options, m->request->option_count, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | mount_attributes(m->request->flags));
}

int mount_make_devpts(struct mounting *m)
{
    static const char *const options[] = { "ptmxmode=0666", "mode=620" };
    return make(m, "devpts", options, 2, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
}

/* The root of an overlay has the mode and the owner of its upper. Ids that are not mapped stay ours. */
static int make_upper(int lower)
{
    struct stat info;
    if (fstat(lower, &info) < 0 || mkdir("upper", 0755) < 0 || mkdir("work", 0755) < 0)
        return -1;
    if (chown("upper", info.st_uid, info.st_gid) < 0 && errno != EINVAL && errno != EPERM)
        return -1;
    return chmod("upper", info.st_mode & 07777);
}

static int configure_overlay(struct mounting *m, int context)
{
    static const char *const parameters[][2] = { { "source", "overlay" }, { "lowerdir", "lower" }, { "upperdir", "upper" }, { "workdir", "work" } };
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++)
        if (mount_configure(context, FSCONFIG_SET_STRING, parameters[i][0], parameters[i][1]) < 0)
            return -1;
    if (m->in_user_namespace && mount_configure(context, FSCONFIG_SET_FLAG, "userxattr", NULL) < 0)
        return -1;
    return mount_configure(context, FSCONFIG_CMD_CREATE, NULL, NULL);
}

int mount_make_overlay(struct mounting *m, int lower, int *upper)
{
    const char *target = m->request->target;
    const int options = m->request->kind == PC_MOUNT_OVERLAY ? m->request->option_count : 0;
    *upper = make(m, "tmpfs", m->request->options, options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    if (*upper < 0)
        return -1;
    /* Overlay wants its layers mounted where it is made: that is a copy of the container's
       mounts, gone with us. /proc is in all of them. */
    if (unshare(CLONE_NEWNS) < 0)
        return pc_fail(m->failure, "make a mount namespace to prepare", target);
    if (pc_move_mount(*upper, AT_FDCWD, "/proc") < 0 || fchdir(*upper) < 0 || mkdir("lower", 0755) < 0 || make_upper(lower) < 0)
        return pc_fail(m->failure, "prepare the layers of", target);
    if (pc_move_mount(lower, AT_FDCWD, "lower") < 0)
        return pc_fail(m->failure, "prepare the lower of", target);
    CLEANUP_FD int layer = open("upper", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (m->in_user_namespace && m->request->kind == PC_MOUNT_OVERLAY && (layer < 0 || skeleton_lay(lower, layer) < 0))
        return pc_fail(m->failure, "make directories of its own for", target);
    CLEANUP_FD int context = mount_fsopen("overlay");
    if (context < 0)
        return pc_fail(m->failure, "mount overlay on", target);
    if (configure_overlay(m, context) < 0)
        return mount_fail_with(m, context, "mount overlay on", target);
    int tree = mount_fsmount(context, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    return tree < 0 ? mount_fail_with(m, context, "mount overlay on", target) : tree;
}
