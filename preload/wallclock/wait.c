/* What waits until a time of day. */
#include "wallclock.h"

/* The deadline as libc is to have it, by this clock. */
#define UNTIL(clock, time) (wall_is(clock) ? wall_deadline(time, &(struct timespec){ 0 }) : (time))

EXPORT int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time, struct timespec *rest)
{
    return NEXT(clock_nanosleep)(clock, flags, flags & TIMER_ABSTIME ? UNTIL(clock, time) : time, rest);
}

/* Whether a condition variable was made for the monotonic clock: POSIX has no question for that, glibc since 2.25 a bit.
   Whether it is still there is tried once. */
enum { MONOTONIC_BIT = 2 };

static int bit_of(const pthread_cond_t *cond)
{
    return (__atomic_load_n(&cond->__data.__wrefs, __ATOMIC_RELAXED) & MONOTONIC_BIT) != 0;
}

static int bit_works(void)
{
    static int known; /* 1 yes, -1 no */
    int works = __atomic_load_n(&known, __ATOMIC_RELAXED);
    if (works)
        return works > 0;
    pthread_condattr_t attributes;
    pthread_cond_t plain, monotonic;
    pthread_condattr_init(&attributes);
    pthread_cond_init(&plain, &attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&monotonic, &attributes);
    works = bit_of(&monotonic) && !bit_of(&plain) ? 1 : -1;
    __atomic_store_n(&known, works, __ATOMIC_RELAXED);
    return works > 0; /* what was initialised holds nothing that would have to be given back */
}

EXPORT int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *time)
{
    const clockid_t clock = !bit_works() || bit_of(cond) ? CLOCK_MONOTONIC : CLOCK_REALTIME;
    return NEXT(pthread_cond_timedwait)(cond, mutex, UNTIL(clock, time));
}

EXPORT int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *time)
{
    return NEXT(pthread_cond_clockwait)(cond, mutex, clock, UNTIL(clock, time));
}

EXPORT int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *time)
{
    return NEXT(pthread_mutex_timedlock)(mutex, UNTIL(CLOCK_REALTIME, time));
}

EXPORT int pthread_mutex_clocklock(pthread_mutex_t *mutex, clockid_t clock, const struct timespec *time)
{
    return NEXT(pthread_mutex_clocklock)(mutex, clock, UNTIL(clock, time));
}

EXPORT int pthread_rwlock_timedrdlock(pthread_rwlock_t *lock, const struct timespec *time)
{
    return NEXT(pthread_rwlock_timedrdlock)(lock, UNTIL(CLOCK_REALTIME, time));
}

EXPORT int pthread_rwlock_timedwrlock(pthread_rwlock_t *lock, const struct timespec *time)
{
    return NEXT(pthread_rwlock_timedwrlock)(lock, UNTIL(CLOCK_REALTIME, time));
}

EXPORT int pthread_rwlock_clockrdlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *time)
{
    return NEXT(pthread_rwlock_clockrdlock)(lock, clock, UNTIL(clock, time));
}

EXPORT int pthread_rwlock_clockwrlock(pthread_rwlock_t *lock, clockid_t clock, const struct timespec *time)
{
    return NEXT(pthread_rwlock_clockwrlock)(lock, clock, UNTIL(clock, time));
}

EXPORT int pthread_timedjoin_np(pthread_t thread, void **result, const struct timespec *time)
{
    return NEXT(pthread_timedjoin_np)(thread, result, UNTIL(CLOCK_REALTIME, time));
}

EXPORT int pthread_clockjoin_np(pthread_t thread, void **result, clockid_t clock, const struct timespec *time)
{
    return NEXT(pthread_clockjoin_np)(thread, result, clock, UNTIL(clock, time));
}

EXPORT int sem_timedwait(sem_t *restrict semaphore, const struct timespec *restrict time)
{
    return NEXT(sem_timedwait)(semaphore, UNTIL(CLOCK_REALTIME, time));
}

EXPORT int sem_clockwait(sem_t *semaphore, clockid_t clock, const struct timespec *time)
{
    return NEXT(sem_clockwait)(semaphore, clock, UNTIL(clock, time));
}

EXPORT int cnd_timedwait(cnd_t *restrict cond, mtx_t *restrict mutex, const struct timespec *restrict time)
{
    return NEXT(cnd_timedwait)(cond, mutex, UNTIL(CLOCK_REALTIME, time));
}

EXPORT int mtx_timedlock(mtx_t *restrict mutex, const struct timespec *restrict time)
{
    return NEXT(mtx_timedlock)(mutex, UNTIL(CLOCK_REALTIME, time));
}

EXPORT int mq_timedsend(mqd_t queue, const char *message, size_t length, unsigned int priority, const struct timespec *time)
{
    return NEXT(mq_timedsend)(queue, message, length, priority, UNTIL(CLOCK_REALTIME, time));
}

EXPORT ssize_t mq_timedreceive(mqd_t queue, char *restrict message, size_t length, unsigned int *restrict priority, const struct timespec *restrict time)
{
    return NEXT(mq_timedreceive)(queue, message, length, priority, UNTIL(CLOCK_REALTIME, time));
}
