#define _GNU_SOURCE
#include "machine.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <unistd.h>

/* Whoever forks a container closes them (create.c). */
static int mounts = -1;
static int root = -1;

int machine_keep(struct pc_failure *failure)
{
    mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    /* pytest may be in a chroot, which a mount namespace does not know of. */
    root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (mounts < 0 || root < 0)
        return pc_fail(failure, "open the mounts of", "the machine");
    if (mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0)
        return pc_fail(failure, "keep to ourselves the mounts of", "the lab");
    if (unshare(CLONE_NEWNS) < 0)
        return pc_fail(failure, "make a mount namespace for", "the lab");
    return 0;
}

int machine_enter(struct pc_failure *failure)
{
    if (setns(mounts, CLONE_NEWNS) < 0 || fchdir(root) < 0 || chroot(".") < 0)
        return pc_fail(failure, "enter", "the machine's mounts");
    return 0;
}
