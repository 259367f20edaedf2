#define _GNU_SOURCE
#include "pty.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "../common/failure.h"
#include "../common/sys.h"
#include "file.h"

#define MULTIPLEXER "/dev/pts/ptmx"

/* What is mounted there may have been changed: so it is looked at, not trusted (as of
   CVE-2025-52565: a terminal that somebody else provides is a way to write elsewhere). */
static int open_master(struct pc_failure *failure)
{
    struct stat device;
    struct statfs system;
    int fd = open(MULTIPLEXER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return pc_fail_as(failure, "open", MULTIPLEXER, errno, "is a devpts mounted on the container's /dev/pts, and its limit (kernel.pty.max) not reached?");
    if (fstat(fd, &device) == 0 && fstatfs(fd, &system) == 0 && system.f_type == DEVPTS_SUPER_MAGIC && device.st_rdev == makedev(5, 2))
        return fd;
    pc_fail_as(failure, "use", MULTIPLEXER, ENOTTY, "it is no terminal multiplexer: something else is mounted on the container's /dev/pts");
    pc_cleanup_fd(&fd);
    return -1;
}

static int provide(int pair[2], const char *who, struct pc_failure *failure)
{
    const int locked = 0;
    if ((pair[0] = open_master(failure)) < 0)
        return -1;
    if (fcntl(pair[0], F_SETFL, 0) < 0 || ioctl(pair[0], TIOCSPTLCK, &locked) < 0 || (pair[1] = ioctl(pair[0], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC)) < 0)
        return pc_fail(failure, "open the terminal of", MULTIPLEXER);
    return who ? file_give(pair[1], who, FILE_GROUP_STAYS, "the terminal", failure) : 0;
}

void pty_serve(int agent, struct pc_in *in)
{
    struct pc_cursor cursor;
    struct pc_failure failure = { 0 };
    struct pc_out out;
    const char *who = NULL;
    int pair[2] = { -1, -1 };
    const int asker = in->fd_count > 0 ? in->fds[0] : agent;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));)
        if (cursor.field.type == PC_F_USER)
            who = value;
    if (provide(pair, who, &failure) < 0) {
        pc_send_failure(asker, in->header.request, &failure);
    } else {
        pc_begin(&out, PC_OK, in->header.request);
        pc_send(asker, &out, pair, 2, 0);
    }
    pc_cleanup_fd(&pair[0]);
    pc_cleanup_fd(&pair[1]);
}
