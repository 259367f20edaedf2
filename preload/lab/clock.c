#define _GNU_SOURCE
#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/prctl.h>

#include "../common/sys.h"

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

enum { NS = 1000000000 };

int clock_shift(int64_t offset, struct pc_failure *failure)
{
    char text[128];
    int64_t seconds = offset / NS, rest = offset % NS;
    if (rest < 0) {
        seconds--;
        rest += NS;
    }
    if (unshare(CLONE_NEWTIME) < 0)
        return pc_fail_as(failure, "make a time namespace for", "the command", errno, "it needs Linux 5.6 with CONFIG_TIME_NS");
    const int length = snprintf(text, sizeof text, "monotonic %lld %lld\nboottime %lld %lld\n", (long long)seconds, (long long)rest, (long long)seconds, (long long)rest);
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0); /* or our own files in /proc were not ours to write */
    const int written = pc_write_file(AT_FDCWD, "/proc/self/timens_offsets", text, (size_t)length);
    const int error = errno;
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    return written == 0 ? 0 : pc_fail_as(failure, "shift the clocks of", "the command", error, error == ERANGE ? "they would be before the machine's start" : NULL);
}
