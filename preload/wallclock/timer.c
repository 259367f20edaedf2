/* Timers that go off at a time of day. What they are asked, and how far they are off, are relative times. */
#include "wallclock.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* The new setting as libc is to have it; a time of 0 disarms, whatever the clock. */
static const struct itimerspec *moved(const struct itimerspec *given, struct itimerspec *room)
{
    struct timespec time;
    if (given->it_value.tv_sec == 0 && given->it_value.tv_nsec == 0)
        return given;
    *room = (struct itimerspec){ .it_interval = given->it_interval, .it_value = *wall_deadline(&given->it_value, &time) };
    return room;
}

/* Nothing tells the clock of a timer, so those of the time of day are noted: their ids, plus one; 0 is a free place. */
static uintptr_t noted[1024];
enum { PLACES = sizeof noted / sizeof *noted };

static uintptr_t *place_of(uintptr_t mark)
{
    for (size_t i = 0; i < PLACES; i++)
        if (__atomic_load_n(&noted[i], __ATOMIC_RELAXED) == mark)
            return &noted[i];
    return NULL;
}

static void forget(timer_t timer)
{
    for (uintptr_t *place; (place = place_of((uintptr_t)timer + 1));)
        __atomic_store_n(place, 0, __ATOMIC_RELAXED);
}

static int note(timer_t timer)
{
    for (uintptr_t *place; (place = place_of(0));) {
        uintptr_t free = 0;
        if (__atomic_compare_exchange_n(place, &free, (uintptr_t)timer + 1, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            return 0;
    }
    return -1;
}

EXPORT int timer_create(clockid_t clock, struct sigevent *restrict event, timer_t *restrict timer)
{
    const int result = NEXT(timer_create)(clock, event, timer);
    if (result != 0)
        return result;
    forget(*timer); /* a parent's, from before fork */
    if (!wall_is(clock) || note(*timer) == 0)
        return 0;
    NEXT(timer_delete)(*timer);
    errno = EAGAIN;
    return -1;
}

EXPORT int timer_delete(timer_t timer)
{
    forget(timer); /* first, or it might be another thread's new one */
    return NEXT(timer_delete)(timer);
}

EXPORT int timer_settime(timer_t timer, int flags, const struct itimerspec *restrict value, struct itimerspec *restrict old)
{
    struct itimerspec room;
    if (flags & TIMER_ABSTIME && wall_offset() && place_of((uintptr_t)timer + 1))
        value = moved(value, &room);
    return NEXT(timer_settime)(timer, flags, value, old);
}

/* Whether a timerfd_create(2) descriptor has the time of day: proc(5) tells. Where there is no /proc its times are left
   as they are. */
static int is_of_day(int fd)
{
    static const char begin[] = "/proc/thread-self/fdinfo/", key[] = "clockid: ";
    char path[sizeof begin + 3 * sizeof fd], text[512], digits[3 * sizeof fd];
    size_t count = 0, length = sizeof begin - 1;
    const int error = errno;
    if (fd < 0)
        return 0;
    do
        digits[count++] = (char)('0' + fd % 10);
    while (fd /= 10);
    memcpy(path, begin, length);
    while (count)
        path[length++] = digits[--count];
    path[length] = 0;
    const int info = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t size = info < 0 ? -1 : read(info, text, sizeof text - 1);
    if (info >= 0)
        close(info);
    errno = error;
    text[size > 0 ? size : 0] = 0;
    const char *found = strstr(text, key);
    clockid_t clock = 0;
    for (found = found ? found + sizeof key - 1 : NULL; found && *found >= '0' && *found <= '9'; found++)
        clock = clock * 10 + *found - '0';
    return found && wall_is(clock);
}

EXPORT int timerfd_settime(int fd, int flags, const struct itimerspec *value, struct itimerspec *old)
{
    struct itimerspec room;
    if (flags & TFD_TIMER_ABSTIME && wall_offset() && is_of_day(fd))
        value = moved(value, &room);
    return NEXT(timerfd_settime)(fd, flags, value, old);
}
