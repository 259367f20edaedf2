#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mount_request.h"

int mount_openat2(int directory, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = { .flags = flags | O_CLOEXEC, .resolve = resolve };
    int fd, tries = 0;
    do
        fd = (int)syscall(SYS_openat2, directory, path, &how, sizeof how);
    while (fd < 0 && errno == EAGAIN && ++tries < 1000); /* something was renamed beside a ".." */
    return fd;
}

int mount_move(int tree, int place)
{
    return (int)syscall(SYS_move_mount, tree, "", place, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

int mount_identify(int fd, uint64_t *mount, int *is_root)
{
    struct statx info;
    if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_MNT_ID, &info) < 0)
        return -1;
    *mount = info.stx_mnt_id;
    if (is_root)
        *is_root = (info.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0;
    return 0;
}

int mount_fsopen(const char *type)
{
    return (int)syscall(SYS_fsopen, type, FSOPEN_CLOEXEC);
}

int mount_fspick(int directory, const char *path, unsigned flags)
{
    return (int)syscall(SYS_fspick, directory, path, flags | FSPICK_CLOEXEC);
}

int mount_configure(int context, unsigned command, const char *key, const char *value)
{
    return (int)syscall(SYS_fsconfig, context, command, key, value, 0);
}

int mount_fsmount(int context, uint64_t attributes)
{
    return (int)syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, (unsigned)attributes);
}

int mount_fail_with(struct mounting *m, int context, const char *step, const char *object)
{
    static char text[512];
    const int error = errno;
    char *remedy = NULL;
    /* Each read(2) gives one message, "e overlay: ..." for errors; see fs/fsopen.c. */
    for (ssize_t length; (length = read(context, text, sizeof text - 1)) > 0;) {
        text[length] = 0;
        text[strcspn(text, "\n")] = 0;
        if (strncmp(text, "e ", 2) == 0) {
            remedy = text + 2;
            break;
        }
    }
    return pc_fail_as(m->failure, step, object, error, remedy);
}
