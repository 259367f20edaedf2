#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/sys.h"
#include "serve.h"

#ifndef SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

enum { THREADS_MAX = 512, THREADS_FIRST = 2, STACK_SIZE = 1 << 20, LOOK_MS = 2, REST_MS = 500, QUIET_LOOKS = 20 };

static struct worker {
    pthread_t thread;
    atomic_ullong call;      /* the id of the one that it serves; 0: none */
    atomic_int replaced;     /* another one takes calls in its stead; it waits for its turn after this one */
    unsigned long long seen, swept; /* what it served at the last look, at the last sweep */
} workers[THREADS_MAX];
static int started; /* the first thread's own */
static atomic_int waiting;
static sem_t turn;
static atomic_int awake; /* the first thread looks every LOOK_MS */
static int bell = -1, listener;

static void interrupted(int number)
{
    (void)number; /* it is there so that a blocking call returns with EINTR */
}

static int take(struct seccomp_notif *call)
{
    for (;;) {
        memset(call, 0, sizeof *call);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, call) == 0)
            return 0;
        if (errno != EINTR && errno != ENOENT) /* ENOENT: who made the call was killed meanwhile */
            return -1;
    }
}

static void wait_for_turn(void)
{
    atomic_fetch_add(&waiting, 1);
    while (sem_wait(&turn) < 0)
        continue;
    atomic_fetch_sub(&waiting, 1);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct seccomp_notif call;
    const uint64_t one = 1;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    unshare(CLONE_FS); /* umask(2) and chdir(2) of one thread shall not be those of the others */
    umask(0);
    serve_prepare(listener);
    for (;;) {
        wait_for_turn();
        do {
            if (take(&call) < 0)
                return NULL;
            atomic_store(&worker->call, call.id);
            if (!atomic_load(&awake) && !atomic_exchange(&awake, 1) && write(bell, &one, sizeof one) < 0)
                _exit(1); /* nobody would see a call that blocks: better no supervisor, and every call fails */
            serve(&call);
            atomic_store(&worker->call, 0);
        } while (!atomic_exchange(&worker->replaced, 0));
    }
}

/* Returns 0 or an errno: EAGAIN at the limit, when calls wait until one ends. */
static int start_one(void)
{
    pthread_attr_t attributes;
    int error = EAGAIN;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    if (started < THREADS_MAX && (error = pthread_create(&workers[started].thread, &attributes, work, &workers[started])) == 0)
        started++;
    pthread_attr_destroy(&attributes);
    return error;
}

int pool_start(int fd)
{
    const struct sigaction action = { .sa_handler = interrupted }; /* without SA_RESTART */
    sigaction(SIGUSR1, &action, NULL);
    listener = fd;
    bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (bell < 0 || sem_init(&turn, 0, 1) < 0)
        return -1;
    /* Who makes a call waits for its answer: wake each other on the same processor (Linux 6.6; older: as it is). */
    ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP);
    for (int i = 0; i < THREADS_FIRST; i++) {
        const int error = start_one();
        if (error) {
            errno = error;
            return -1;
        }
    }
    return 0;
}

int pool_descriptor(void)
{
    return bell;
}

/* Interrupts what is done for processes that have died in the meantime. Only a call that has been replaced, so that its
   thread takes no other one: an answer that carries a descriptor (SECCOMP_ADDFD_FLAG_SEND) must not be interrupted, it
   would reach the caller without the descriptor, as descriptor 0. */
static void sweep(void)
{
    static int64_t last;
    if (pc_now_us() - last < REST_MS * 1000)
        return;
    last = pc_now_us();
    for (int i = 0; i < started; i++) {
        struct worker *worker = &workers[i];
        unsigned long long id = atomic_load(&worker->call);
        if (id && id == worker->swept && atomic_load(&worker->replaced) && ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &id) < 0 && errno == ENOENT)
            pthread_kill(worker->thread, SIGUSR1);
        worker->swept = id;
    }
}

int pool_look(void)
{
    static unsigned served, quiet;
    uint64_t rings;
    int busy = 0;
    if (bell < 0)
        return REST_MS;
    if (read(bell, &rings, sizeof rings) > 0)
        quiet = 0;
    for (int i = 0; i < started; i++) {
        struct worker *worker = &workers[i];
        const unsigned long long id = atomic_load(&worker->call);
        busy |= id != 0 && !atomic_load(&worker->replaced);
        if (id && id == worker->seen && !atomic_exchange(&worker->replaced, 1)) {
            if (atomic_load(&waiting) == 0)
                start_one();
            sem_post(&turn);
        }
        worker->seen = id;
    }
    sweep();
    quiet = busy || served != serve_count() ? 0 : quiet + 1;
    served = serve_count();
    if (quiet < QUIET_LOOKS)
        return LOOK_MS;
    /* Who gets a call from now on rings; who has got one just before is seen here. */
    atomic_store(&awake, 0);
    for (int i = 0; i < started; i++)
        if (atomic_load(&workers[i].call) && !atomic_load(&workers[i].replaced))
            atomic_store(&awake, 1);
    return atomic_load(&awake) ? LOOK_MS : REST_MS;
}
