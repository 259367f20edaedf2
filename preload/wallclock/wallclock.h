/* libpcclock.so: a time of day that is ahead of the machine's, or behind it, for programs that are started with it in
   LD_PRELOAD. By how much stands in the file `clock` beside the library, an int64_t in ns that may change at any time:
   every program has it mapped. What tells the time of day adds it; what waits until a time of day subtracts it, so that
   a wait lasts as long as the caller has reckoned. Monotonic clocks, relative waits and what the kernel stamps (files,
   frames) are left alone. A change does not move a wait that has begun.

   Names of libc are defined here, so none of these files may call a wrapped one, but for NEXT(). All of it may be called
   in signal handlers and in the child of vfork: no memory is allocated, nothing is locked, errno is kept. */
#ifndef PC_WALLCLOCK_H
#define PC_WALLCLOCK_H

#include <errno.h>
#include <mqueue.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <sys/timerfd.h>
#include <threads.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

enum { NS = 1000000000 };

/* Headers before glibc 2.30 do not have them; who calls one has a C library that does. */
int pthread_cond_clockwait(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
int pthread_mutex_clocklock(pthread_mutex_t *, clockid_t, const struct timespec *);
int pthread_rwlock_clockrdlock(pthread_rwlock_t *, clockid_t, const struct timespec *);
int pthread_rwlock_clockwrlock(pthread_rwlock_t *, clockid_t, const struct timespec *);
int pthread_clockjoin_np(pthread_t, void **, clockid_t, const struct timespec *);
int sem_clockwait(sem_t *, clockid_t, const struct timespec *);

/* Every function of libc that a file here calls in the place of its own of that name. */
#define WALL_CALLS(X)                                                                                                 \
    X(clock_gettime) X(timespec_get) X(clock_nanosleep)                                                               \
    X(timer_create) X(timer_delete) X(timer_settime) X(timerfd_settime)                                               \
    X(pthread_cond_timedwait) X(pthread_cond_clockwait)                                                               \
    X(pthread_mutex_timedlock) X(pthread_mutex_clocklock)                                                             \
    X(pthread_rwlock_timedrdlock) X(pthread_rwlock_timedwrlock)                                                       \
    X(pthread_rwlock_clockrdlock) X(pthread_rwlock_clockwrlock)                                                       \
    X(pthread_timedjoin_np) X(pthread_clockjoin_np)                                                                   \
    X(sem_timedwait) X(sem_clockwait) X(cnd_timedwait) X(mtx_timedlock)                                               \
    X(mq_timedsend) X(mq_timedreceive)

struct wall_next {
#define X(name) __typeof__(&name) name;
    WALL_CALLS(X)
#undef X
};
extern struct wall_next wall_next;
extern const int64_t *wall_page; /* NULL until wall_start() */

/* Finds libc's functions, and maps the file. The constructor does it; who is called by an earlier one does it too. */
void wall_start(void);

/* libc's own. Looked for again when it was not there: up to glibc 2.33 it may be in a library that was loaded later. */
#define NEXT(name) (__builtin_expect(!wall_next.name, 0) ? (wall_start(), wall_next.name) : wall_next.name)

/* How far the time of day is ahead now, in ns. */
static inline int64_t wall_offset(void)
{
    if (__builtin_expect(!__atomic_load_n(&wall_page, __ATOMIC_ACQUIRE), 0))
        wall_start();
    return __atomic_load_n(wall_page, __ATOMIC_RELAXED);
}

/* Whether a clock tells the time of day. */
static inline int wall_is(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI || clock == CLOCK_REALTIME_ALARM;
}

/* Moves a time by `sign` times the offset; the end of time is where it stays. */
void wall_shift(struct timespec *time, int64_t offset, int sign);

/* The kernel's time for a time of day until which a program waits, in `room`. What is no time comes back as it is, for
   libc to refuse, and NULL too. */
const struct timespec *wall_deadline(const struct timespec *given, struct timespec *room);

#endif
