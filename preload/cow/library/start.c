/* The library begins: reads its configuration, or ends the program, which must not run unprotected. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

#include "library.h"
#include "start.h"

static struct cow_set trees;
struct cow_asker pl_self = { &trees, AT_FDCWD, 0, 0, NULL };
int pl_ready;
pid_t pl_pid;
char pl_preload[PATH_MAX + 16] = "LD_PRELOAD=";
char pl_config[PATH_MAX + 32] = "POOR_CONTAINER_COW=";

static void __attribute__((noreturn)) stop(const char *what, const char *object, const char *why)
{
    const char *const parts[] = { "libpccow: ", what, object, ": ", why, "; the program was not started\n" };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        SYS(SYS_write, 2, parts[i], strlen(parts[i]));
    for (;;)
        SYS(SYS_exit_group, 126);
}

static const char *variable(const char *name)
{
    const size_t length = strlen(name);
    for (char **at = environ; at && *at; at++)
        if (strncmp(*at, name, length) == 0)
            return *at + length;
    return NULL;
}

static void keep(char *room, size_t size, const char *value, const char *what)
{
    const size_t used = strlen(room), length = strlen(value);
    if (used + length >= size)
        stop(what, "", "longer than a path may be");
    memcpy(room + used, value, length + 1);
}

#ifdef __SANITIZE_ADDRESS__
void __asan_init(void);

/* AddressSanitizer asks for it by this name (sanitizer/asan_interface.h) where its library comes behind this one. */
EXPORT const char *__asan_default_options(void)
{
    return "verify_asan_link_order=0";
}

/* Its library has to be in front of this one, to see what children of vfork leave on their parents' stacks. */
static void keep_sanitizer(void)
{
    Dl_info its;
    if (!dladdr((void *)__asan_init, &its) || !its.dli_fname)
        stop("AddressSanitizer", "", "its library was not found");
    keep(pl_preload, sizeof pl_preload, its.dli_fname, "LD_PRELOAD");
    keep(pl_preload, sizeof pl_preload, " ", "LD_PRELOAD");
}
#else
static void keep_sanitizer(void)
{
}
#endif

static void child(void)
{
    pl_pid = (pid_t)SYS(SYS_getpid);
}

void pl_start(void)
{
    static int begun;
    int no = 0;
    Dl_info own;
    const char *error;
    if (!__atomic_compare_exchange_n(&begun, &no, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        while (!__atomic_load_n(&pl_ready, __ATOMIC_ACQUIRE))
            sched_yield();
        return;
    }
    const char *config = variable("POOR_CONTAINER_COW=");
    if (!config || !*config)
        stop("POOR_CONTAINER_COW", "", "not set, so it is not known which trees are to be protected");
    keep(pl_config, sizeof pl_config, config, "POOR_CONTAINER_COW");
    if (!dladdr((void *)pl_start, &own) || !own.dli_fname || own.dli_fname[0] != '/')
        stop("LD_PRELOAD", "", "must name the library by its absolute path");
    keep_sanitizer();
    keep(pl_preload, sizeof pl_preload, own.dli_fname, "LD_PRELOAD");
    if (cow_load(&trees, config, &error) < 0)
        stop("cannot use the configuration ", config, error);
    pl_pid = (pid_t)SYS(SYS_getpid);
    __atomic_store_n(&pl_ready, 1, __ATOMIC_RELEASE);
    pl_begin_place();
}

static void __attribute__((constructor)) begin(void)
{
    pl_start();
    pthread_atfork(NULL, NULL, child);
}

void *pl_next(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found)
        stop("cannot find libc's ", name, "not there");
    return found;
}

long pl_refuse(const char *call, const char *path, const char *reason, int number)
{
    cow_refused(ME->set, call, path ? path : "", reason);
    return pl_result(-number);
}

long pl_outside(const char *call, int dirfd, const char *path)
{
    const struct cow_asker *me = ME;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(me);
    if (!w)
        return -ENOMEM;
    if (!path)
        return -EFAULT;
    long result = cow_walk_path(w, dirfd, path, 0);
    if (result < 0 || w->magic)
        return result < 0 ? result : 0;
    int inside = w->tree != NULL;
    for (int i = 0; i < me->set->count; i++)
        inside |= strncmp(me->set->tree[i].mount, w->view, w->length) == 0;
    if (!inside)
        return 0;
    cow_refused(me->set, call, path, "would change what a copy-on-write tree stands on");
    return -EPERM;
}
