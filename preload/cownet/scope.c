#define _GNU_SOURCE
#include "scope.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/sys.h"
#include "caller.h"
#include "compose.h"

enum { SCOPES_MAX = 4096, GROUPS_MAX = 1024 };
static const rlim_t HIGHEST = (rlim_t)1 << 40;

static struct scope {
    struct cow_set set; /* first: a caller's set is its scope */
    size_t size;
    char path[PATH_MAX]; /* of the configuration */
    char text[];         /* and what it says */
} *scopes[SCOPES_MAX];   /* written once each, before scope_count counts it */
static pthread_mutex_t adding = PTHREAD_MUTEX_INITIALIZER;
static atomic_int scope_count;
static rlim_t base;
static int root = -1, nowhere = -1;
static gid_t groups[GROUPS_MAX];
static int group_count;

int scope_root(void)
{
    return root;
}

int scope_nowhere(void)
{
    return nowhere;
}

int scope_restore_groups(void)
{
    return (int)syscall(SYS_setgroups, (size_t)group_count, groups);
}

static long read_all(int fd, char text[COW_CONFIG_SIZE])
{
    size_t size = 0;
    for (ssize_t got; size < COW_CONFIG_SIZE; size += (size_t)got)
        if ((got = read(fd, text + size, COW_CONFIG_SIZE - size)) <= 0)
            return got < 0 ? -errno : (long)size;
    return -EFBIG;
}

static int open_nowhere(void)
{
    static const char *const places[] = { "/tmp", "/dev/shm", "/run" };
    int fd = -1;
    for (size_t i = 0; i < sizeof places / sizeof places[0] && fd < 0; i++) {
        char path[64];
        snprintf(path, sizeof path, "%s/pccow-XXXXXX", places[i]);
        if (mkdtemp(path)) {
            fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
            rmdir(path);
        }
    }
    return fd;
}

int scope_start(const char *configuration, const char **error)
{
    struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
    group_count = getgroups(GROUPS_MAX, groups);
    root = open("/", O_PATH | O_CLOEXEC);
    nowhere = open_nowhere();
    getrlimit(RLIMIT_LOCKS, &limit);
    base = limit.rlim_max < HIGHEST ? limit.rlim_max : HIGHEST;
    struct scope *scope = calloc(1, sizeof *scope + COW_CONFIG_SIZE);
    CLEANUP_FD int fd = open(configuration, O_RDONLY | O_CLOEXEC);
    if (group_count < 0 || root < 0 || !scope) {
        *error = "the supervisor has no descriptors or memory left";
        return -1;
    }
    const long size = fd < 0 ? -errno : read_all(fd, scope->text);
    *error = "the configuration cannot be read";
    if (size < 0 || cow_load(&scope->set, configuration, error) < 0)
        return -1;
    scope->size = (size_t)size;
    scopes[0] = scope;
    atomic_store(&scope_count, 1);
    return 0;
}

/* The limit of a process that we may not ask the kernel for (other ids, no CAP_SYS_RESOURCE): from /proc. */
static int read_limit(pid_t tid, rlim_t *limit)
{
    char path[64], text[4096];
    snprintf(path, sizeof path, "/proc/%d/limits", tid);
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    text[length < 0 ? 0 : length] = 0;
    const char *line = strstr(text, "\nMax file locks"), *number = line ? line + strcspn(line, "0123456789u") : NULL;
    if (!number)
        return -1;
    *limit = *number == 'u' ? RLIM_INFINITY : strtoull(number, NULL, 10);
    return 0;
}

struct cow_set *scope_of(pid_t tid)
{
    struct rlimit limit;
    const int count = atomic_load(&scope_count);
    if (count == 1)
        return &scopes[0]->set;
    if (prlimit(tid, RLIMIT_LOCKS, NULL, &limit) < 0) {
        if (errno == ESRCH)
            return &scopes[0]->set; /* it has died, so its call waits no longer, as will be seen */
        if (errno != EPERM || read_limit(tid, &limit.rlim_cur) < 0)
            return NULL;
    }
    if (limit.rlim_cur >= base)
        return &scopes[0]->set;
    const rlim_t number = base - limit.rlim_cur;
    return number < (rlim_t)count ? &scopes[number]->set : NULL;
}

static long write_all(const char *path, const char *text, size_t size)
{
    CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    const ssize_t written = write(fd, text, size);
    return written < 0 ? -errno : (size_t)written == size ? 0 : -EIO;
}

/* With the lock held: the number of the scope of this configuration, a new one if there is none; or -errno. */
static long add(const char *text, size_t size, const char *work, char *path)
{
    const int count = atomic_load(&scope_count);
    const char *problem;
    for (int i = 1; i < count; i++) {
        if (scopes[i]->size == size && memcmp(scopes[i]->text, text, size) == 0) {
            strcpy(path, scopes[i]->path);
            return i;
        }
    }
    if (count == SCOPES_MAX)
        return -ENOSPC;
    if (work[0] == 0 || snprintf(path, PATH_MAX, "%s/scope-%d", work, count) >= PATH_MAX)
        return -EROFS; /* no tree can be written to, so there is no directory for a configuration either */
    const long error = write_all(path, text, size);
    struct scope *scope = error < 0 ? NULL : calloc(1, sizeof *scope + size);
    if (!scope)
        return error < 0 ? error : -ENOMEM;
    memcpy(scope->text, text, size);
    scope->size = size;
    strcpy(scope->path, path);
    if (cow_load(&scope->set, path, &problem) < 0) {
        cow_unload(&scope->set);
        free(scope);
        return -EINVAL;
    }
    scopes[count] = scope;
    atomic_store(&scope_count, count + 1);
    return count;
}

long scope_join(struct caller *caller, const char *configuration, char *path)
{
    static char inner[COW_CONFIG_SIZE], composed[COW_CONFIG_SIZE], work[PATH_MAX];
    const struct scope *outer = (const struct scope *)caller->asker.set;
    CLEANUP_FD int fd = (int)cow_openat(&caller->asker, AT_FDCWD, configuration, O_RDONLY | O_CLOEXEC, 0, 0);
    if (fd < 0)
        return fd;
    pthread_mutex_lock(&adding);
    long result = read_all(fd, inner);
    if (result >= 0)
        result = compose(&caller->asker, outer->text, outer->size, inner, (size_t)result, composed, work);
    if (result >= 0)
        result = add(composed, (size_t)result, work, path);
    pthread_mutex_unlock(&adding);
    if (result < 0)
        return result;
    if ((rlim_t)result >= base)
        return -ENOSPC; /* the limit was low already, and leaves no number */
    const struct rlimit mark = { base - (rlim_t)result, base - (rlim_t)result };
    return prlimit(caller_pid(caller), RLIMIT_LOCKS, &mark, NULL) < 0 ? -errno : 0;
}
