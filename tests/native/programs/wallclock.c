/* For libpcclock.so: `wallclock SECONDS` calls what the library wraps, where the clock is so far ahead, and says what is
   wrong; `wallclock watch` says at each line how many ns ahead it is. What the machine's clock shows it asks the kernel. */
#include <errno.h>
#include <mqueue.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

struct old_time { time_t time; unsigned short millitm; short zone, daylight; };
int ftime(struct old_time *);

enum { NS = 1000000000, WAIT = 50000000, ALMOST = 40000000 };
static int64_t ahead;
static int wrong;

#define CHECK(condition)                                                                                              \
    do {                                                                                                              \
        if (!(condition)) {                                                                                           \
            printf("%s:%d: not %s\n", __func__, __LINE__, #condition);                                                \
            wrong = 1;                                                                                                \
        }                                                                                                             \
    } while (0)

static int64_t ns(struct timespec time) { return time.tv_sec * (int64_t)NS + time.tv_nsec; }
static struct timespec at(int64_t time) { return (struct timespec){ time / NS, time % NS }; }

static int64_t machine(clockid_t clock)
{
    struct timespec time = { 0 };
    CHECK(syscall(SYS_clock_gettime, clock, &time) == 0);
    return ns(time);
}

static int64_t told(clockid_t clock)
{
    struct timespec time = { 0 };
    CHECK(clock_gettime(clock, &time) == 0);
    return ns(time);
}

/* `said` is what was told between two looks at the machine's clock, in units of so many ns. */
#define BETWEEN(clock, unit, more, said, call)                                                                        \
    do {                                                                                                              \
        const int64_t before = machine(clock) + (more);                                                               \
        call;                                                                                                         \
        const int64_t after = machine(clock) + (more);                                                                \
        CHECK((said) >= before / (unit));                                                                             \
        CHECK((said) <= after / (unit));                                                                              \
    } while (0)

static void reading(void)
{
    static const clockid_t wall[] = { CLOCK_REALTIME, CLOCK_REALTIME_COARSE, CLOCK_TAI, CLOCK_REALTIME_ALARM };
    static const clockid_t other[] = { CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_PROCESS_CPUTIME_ID };
    int64_t said = 0;
    struct timespec precise;
    struct timeval day;
    struct old_time old;
    time_t seconds, same;
    errno = 77;
    for (int i = 0; i < 4; i++) {
        struct timespec unused;
        if (syscall(SYS_clock_gettime, wall[i], &unused) == 0) /* some machines have no clock that rings while they sleep */
            BETWEEN(wall[i], 1, ahead, said, said = told(wall[i]));
        BETWEEN(other[i], 1, 0, said, said = told(other[i]));
    }
    errno = 77;
    BETWEEN(CLOCK_REALTIME, 1000, ahead, day.tv_sec * (int64_t)1000000 + day.tv_usec, CHECK(gettimeofday(&day, NULL) == 0));
    BETWEEN(CLOCK_REALTIME_COARSE, NS, ahead, seconds, seconds = time(NULL));
    BETWEEN(CLOCK_REALTIME_COARSE, NS, ahead, seconds, CHECK(time(&seconds) == seconds));
    BETWEEN(CLOCK_REALTIME, 1, ahead, ns(precise), CHECK(timespec_get(&precise, TIME_UTC) == TIME_UTC));
    BETWEEN(CLOCK_REALTIME, 1000000, ahead, old.time * (int64_t)1000 + old.millitm, CHECK(ftime(&old) == 0));
    CHECK(errno == 77);
    same = time(NULL);
    CHECK(timespec_get(&precise, 12345) == 0);
    CHECK(clock_gettime(12345, &precise) == -1 && errno == EINVAL);
    CHECK(same <= time(NULL));
    pid_t child = vfork();
    if (child == 0)
        _exit(clock_gettime(CLOCK_REALTIME, &precise) != 0);
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* A wait that has to end by its time, and by the right one: too early is a deadline that was moved wrongly or not at all;
   too late, for the same reason, alarm() ends. */
#define LASTS(clock, result, call)                                                                                    \
    do {                                                                                                              \
        const struct timespec until = at(told(clock) + WAIT);                                                         \
        const int64_t began = machine(CLOCK_MONOTONIC);                                                               \
        alarm(60);                                                                                                    \
        errno = 0;                                                                                                    \
        CHECK((call) == (result));                                                                                    \
        CHECK(machine(CLOCK_MONOTONIC) - began >= ALMOST);                                                            \
        alarm(0);                                                                                                     \
    } while (0)

static void sleeping(void)
{
    const struct timespec odd = { 1, NS }, soon = at(WAIT);
    LASTS(CLOCK_REALTIME, 0, clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL));
    LASTS(CLOCK_TAI, 0, clock_nanosleep(CLOCK_TAI, TIMER_ABSTIME, &until, NULL));
    LASTS(CLOCK_MONOTONIC, 0, clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL));
    LASTS(CLOCK_REALTIME, 0, ((void)until, clock_nanosleep(CLOCK_REALTIME, 0, &soon, NULL)));
    CHECK(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &odd, NULL) == EINVAL);
    alarm(60);
    CHECK(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &(struct timespec){ 5, 0 }, NULL) == 0);
    alarm(0);
}

static void conditions(void)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_cond_t plain = PTHREAD_COND_INITIALIZER;
    pthread_cond_t monotonic, explicit;
    pthread_condattr_t attributes;
    cnd_t c11;
    mtx_t lock;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_REALTIME);
    pthread_cond_init(&explicit, &attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&monotonic, &attributes);
    pthread_mutex_lock(&mutex);
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_cond_timedwait(&plain, &mutex, &until));
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_cond_timedwait(&explicit, &mutex, &until));
    LASTS(CLOCK_MONOTONIC, ETIMEDOUT, pthread_cond_timedwait(&monotonic, &mutex, &until));
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_cond_clockwait(&plain, &mutex, CLOCK_REALTIME, &until));
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_cond_clockwait(&monotonic, &mutex, CLOCK_REALTIME, &until));
    LASTS(CLOCK_MONOTONIC, ETIMEDOUT, pthread_cond_clockwait(&plain, &mutex, CLOCK_MONOTONIC, &until));
    pthread_mutex_unlock(&mutex);
    cnd_init(&c11);
    mtx_init(&lock, mtx_timed);
    mtx_lock(&lock);
    LASTS(CLOCK_REALTIME, thrd_timedout, cnd_timedwait(&c11, &lock, &until));
    LASTS(CLOCK_REALTIME, thrd_timedout, mtx_timedlock(&lock, &until));
}

static void *sleeper(void *unused)
{
    pause();
    return unused;
}

static void locks(void)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
    static sem_t semaphore;
    pthread_t thread;
    const struct timespec odd = { 1, -1 }, end = { INT64_MAX, 0 };
    pthread_mutex_lock(&mutex);
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_mutex_timedlock(&mutex, &until));
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_mutex_clocklock(&mutex, CLOCK_REALTIME, &until));
    LASTS(CLOCK_MONOTONIC, ETIMEDOUT, pthread_mutex_clocklock(&mutex, CLOCK_MONOTONIC, &until));
    CHECK(pthread_mutex_timedlock(&mutex, &odd) == EINVAL);
    pthread_rwlock_rdlock(&lock);
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_rwlock_timedwrlock(&lock, &until));
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_rwlock_clockwrlock(&lock, CLOCK_REALTIME, &until));
    LASTS(CLOCK_MONOTONIC, ETIMEDOUT, pthread_rwlock_clockwrlock(&lock, CLOCK_MONOTONIC, &until));
    pthread_rwlock_unlock(&lock);
    pthread_rwlock_wrlock(&lock);
    pthread_create(&thread, NULL, sleeper, NULL);
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_timedjoin_np(thread, NULL, &until));
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_clockjoin_np(thread, NULL, CLOCK_REALTIME, &until));
    LASTS(CLOCK_MONOTONIC, ETIMEDOUT, pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until));
    pthread_cancel(thread);
    CHECK(pthread_timedjoin_np(thread, NULL, NULL) == 0);
    sem_init(&semaphore, 0, 0);
    LASTS(CLOCK_REALTIME, -1, sem_timedwait(&semaphore, &until));
    CHECK(errno == ETIMEDOUT);
    LASTS(CLOCK_REALTIME, -1, sem_clockwait(&semaphore, CLOCK_REALTIME, &until));
    LASTS(CLOCK_MONOTONIC, -1, sem_clockwait(&semaphore, CLOCK_MONOTONIC, &until));
    sem_post(&semaphore);
    CHECK(sem_timedwait(&semaphore, &end) == 0);
}

static void *reader(void *lock)
{
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_rwlock_timedrdlock(lock, &until));
    LASTS(CLOCK_REALTIME, ETIMEDOUT, pthread_rwlock_clockrdlock(lock, CLOCK_REALTIME, &until));
    LASTS(CLOCK_MONOTONIC, ETIMEDOUT, pthread_rwlock_clockrdlock(lock, CLOCK_MONOTONIC, &until));
    return NULL;
}

static void readers(void) /* who has a lock for writing does not wait for it, but is told of the deadlock */
{
    static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
    pthread_t thread;
    pthread_rwlock_wrlock(&lock);
    pthread_create(&thread, NULL, reader, &lock);
    pthread_join(thread, NULL);
}

static void queues(void)
{
    struct mq_attr attributes = { .mq_maxmsg = 1, .mq_msgsize = 8 };
    char name[32], text[8];
    snprintf(name, sizeof name, "/pc-clock-%d", getpid());
    const mqd_t queue = mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attributes);
    if (queue == (mqd_t)-1) {
        printf("no message queues: %s\n", strerror(errno)); /* a kernel without them, or none left of the user's */
        return;
    }
    mq_unlink(name);
    LASTS(CLOCK_REALTIME, -1, mq_timedreceive(queue, text, sizeof text, NULL, &until));
    CHECK(errno == ETIMEDOUT);
    CHECK(mq_send(queue, "x", 1, 0) == 0);
    LASTS(CLOCK_REALTIME, -1, mq_timedsend(queue, "x", 1, 0, &until));
    CHECK(errno == ETIMEDOUT);
}

enum { FAR = 1000, NEARER = 900 }; /* seconds */

/* Whether what is left of FAR seconds is that. */
static int is_far(struct itimerspec left)
{
    return left.it_value.tv_sec <= FAR && left.it_value.tv_sec > NEARER;
}

static void one_timer(clockid_t clock)
{
    struct sigevent ignored = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG };
    struct itimerspec left = { 0 }, far = { .it_value = at(told(clock) + (int64_t)FAR * NS), .it_interval = { 7, 0 } };
    timer_t timer;
    CHECK(timer_create(clock, &ignored, &timer) == 0);
    CHECK(timer_settime(timer, TIMER_ABSTIME, &far, NULL) == 0);
    CHECK(timer_gettime(timer, &left) == 0 && is_far(left) && left.it_interval.tv_sec == 7);
    far.it_value = at((int64_t)FAR * NS);
    CHECK(timer_settime(timer, 0, &far, &left) == 0 && is_far(left));
    CHECK(timer_gettime(timer, &left) == 0 && is_far(left));
    far.it_value = at(0);
    CHECK(timer_settime(timer, TIMER_ABSTIME, &far, NULL) == 0);
    CHECK(timer_gettime(timer, &left) == 0 && left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
    CHECK(timer_delete(timer) == 0);
}

enum { MANY = 2000 }; /* more than are noted at a time */

static void timers(void)
{
    for (int i = 0; i < MANY; i++) {
        one_timer(CLOCK_REALTIME);
        one_timer(CLOCK_MONOTONIC);
    }
    struct sigevent ignored = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGURG };
    timer_t kept;
    CHECK(timer_create(CLOCK_REALTIME, &ignored, &kept) == 0);
    const pid_t child = fork(); /* which has no timers, and comes to an id of its parent's */
    if (child == 0) {
        wrong = 0;
        for (int i = 0; i < 3 * MANY; i++)
            one_timer(CLOCK_MONOTONIC);
        fflush(stdout);
        _exit(wrong);
    }
    int status = -1;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(timer_delete(kept) == 0);
}

static void one_timerfd(clockid_t clock)
{
    const int fd = timerfd_create(clock, TFD_CLOEXEC);
    struct itimerspec left = { 0 }, far = { .it_value = at(told(clock) + (int64_t)FAR * NS), .it_interval = { 7, 0 } };
    uint64_t rung = 0;
    errno = 77;
    CHECK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &far, NULL) == 0);
    CHECK(errno == 77);
    CHECK(timerfd_gettime(fd, &left) == 0 && is_far(left) && left.it_interval.tv_sec == 7);
    far.it_value = at((int64_t)FAR * NS);
    CHECK(timerfd_settime(fd, 0, &far, &left) == 0 && is_far(left));
    CHECK(timerfd_gettime(fd, &left) == 0 && is_far(left));
    far.it_value = at(0);
    CHECK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &far, NULL) == 0);
    CHECK(timerfd_gettime(fd, &left) == 0 && left.it_value.tv_sec == 0 && left.it_value.tv_nsec == 0);
    far = (struct itimerspec){ .it_value = { 5, 0 } }; /* long past, whatever the clock: the machine runs for that long */
    alarm(60);
    CHECK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &far, NULL) == 0);
    CHECK(read(fd, &rung, sizeof rung) == sizeof rung && rung == 1);
    alarm(0);
    close(fd);
    CHECK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &far, NULL) == -1 && errno == EBADF);
}

static void watch(void)
{
    char line[16];
    while (fgets(line, sizeof line, stdin)) {
        const int64_t before = machine(CLOCK_REALTIME), said = told(CLOCK_REALTIME), after = machine(CLOCK_REALTIME);
        printf("%lld %lld\n", (long long)(said - after), (long long)(said - before));
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    if (strcmp(argv[1], "watch") == 0) {
        watch();
        return wrong;
    }
    ahead = (int64_t)(strtod(argv[1], NULL) * NS);
    reading();
    sleeping();
    conditions();
    locks();
    readers();
    queues();
    timers();
    one_timerfd(CLOCK_REALTIME);
    one_timerfd(CLOCK_MONOTONIC);
    puts(wrong ? "wrong" : "right");
    return wrong;
}
