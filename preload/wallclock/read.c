/* What tells the time of day. */
#include "wallclock.h"

#include <string.h>
#include <sys/time.h>

/* The time of day by this clock. clock_gettime() of libc is the kernel's code in the program's memory (vdso(7)). */
static int now(clockid_t clock, struct timespec *time)
{
    const int result = NEXT(clock_gettime)(clock, time);
    const int64_t offset = wall_offset();
    if (result == 0 && offset)
        wall_shift(time, offset, 1);
    return result;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *time)
{
    return wall_is(clock) ? now(clock, time) : NEXT(clock_gettime)(clock, time);
}

EXPORT int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec precise;
    if (zone)
        memset(zone, 0, sizeof(struct timezone)); /* as libc since glibc 2.31 */
    if (now(CLOCK_REALTIME, &precise) < 0)
        return -1;
    time->tv_sec = precise.tv_sec;
    time->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

EXPORT time_t time(time_t *seconds)
{
    struct timespec coarse;
    if (now(CLOCK_REALTIME_COARSE, &coarse) < 0)
        return -1;
    if (seconds)
        *seconds = coarse.tv_sec;
    return coarse.tv_sec;
}

EXPORT int timespec_get(struct timespec *time, int base)
{
    if (base != TIME_UTC)
        return NEXT(timespec_get)(time, base);
    return now(CLOCK_REALTIME, time) == 0 ? base : 0;
}

/* Of 4.2BSD. Newer headers have none of it. */
struct old_time {
    time_t seconds;
    unsigned short milliseconds;
    short zone, daylight;
};

EXPORT int ftime(struct old_time *time);
EXPORT int ftime(struct old_time *time)
{
    struct timespec precise;
    if (now(CLOCK_REALTIME, &precise) < 0)
        return -1;
    *time = (struct old_time){ .seconds = precise.tv_sec, .milliseconds = (unsigned short)(precise.tv_nsec / 1000000) };
    return 0;
}
