/* system and popen: libc's start the shell by calls of its own, with the environment as the program has left it. */
#define _GNU_SOURCE
#include <alloca.h>
#include <paths.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <wordexp.h>

#include "library.h"

static int run_shell(pid_t *pid, const char *command, const posix_spawn_file_actions_t *actions,
                     const posix_spawnattr_t *attributes)
{
    char *const argv[] = { (char *)"sh", (char *)"-c", (char *)command, NULL };
    return posix_spawn(pid, _PATH_BSHELL, actions, attributes, argv, environ);
}

EXPORT int system(const char *command)
{
    struct sigaction ignore = { .sa_handler = SIG_IGN }, interrupt, quit;
    sigset_t block, before, restored;
    posix_spawnattr_t attributes;
    pid_t pid;
    int status = -1;
    if (!command)
        return cow_faccessat(ME, AT_FDCWD, _PATH_BSHELL, X_OK, 0) == 0;
    sigemptyset(&block);
    sigaddset(&block, SIGCHLD);
    sigemptyset(&restored);
    sigaction(SIGINT, &ignore, &interrupt);
    sigaction(SIGQUIT, &ignore, &quit);
    sigprocmask(SIG_BLOCK, &block, &before);
    if (interrupt.sa_handler != SIG_IGN)
        sigaddset(&restored, SIGINT);
    if (quit.sa_handler != SIG_IGN)
        sigaddset(&restored, SIGQUIT);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &before);
    posix_spawnattr_setsigdefault(&attributes, &restored);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    const int error = run_shell(&pid, command, NULL, &attributes);
    posix_spawnattr_destroy(&attributes);
    if (error)
        status = W_EXITCODE(127, 0);
    else
        while (waitpid(pid, &status, 0) < 0)
            if (errno != EINTR) {
                status = -1;
                break;
            }
    sigaction(SIGINT, &interrupt, NULL);
    sigaction(SIGQUIT, &quit, NULL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (error)
        errno = error;
    return status;
}

/* Streams of popen and the processes behind them. */
struct piped {
    struct piped *next;
    FILE *file;
    pid_t pid;
};
static struct piped *all;
static int busy;

static void take(void)
{
    while (__atomic_exchange_n(&busy, 1, __ATOMIC_ACQUIRE))
        SYS(SYS_sched_yield);
}

static void give(void)
{
    __atomic_store_n(&busy, 0, __ATOMIC_RELEASE);
}

EXPORT FILE *popen(const char *command, const char *mode)
{
    const int reads = mode[0] == 'r', mine = reads ? 0 : 1;
    int ends[2], error;
    posix_spawn_file_actions_t actions;
    if ((!reads && mode[0] != 'w') || (mode[1] && (mode[1] != 'e' || mode[2]))) {
        errno = EINVAL;
        return NULL;
    }
    struct piped *piped = malloc(sizeof *piped);
    if (!piped || pipe2(ends, O_CLOEXEC) < 0) {
        free(piped);
        return NULL;
    }
    posix_spawn_file_actions_init(&actions);
    take();
    for (struct piped *other = all; other; other = other->next) /* POSIX: the child has none of the others */
        posix_spawn_file_actions_addclose(&actions, fileno(other->file));
    posix_spawn_file_actions_adddup2(&actions, ends[1 - mine], 1 - mine ? 1 : 0);
    error = run_shell(&piped->pid, command, &actions, NULL);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1 - mine]);
    piped->file = error ? NULL : fdopen(ends[mine], reads ? "r" : "w");
    if (!piped->file) {
        give();
        close(ends[mine]);
        free(piped);
        errno = error ? error : errno;
        return NULL;
    }
    if (mode[1] != 'e')
        SYS(SYS_fcntl, ends[mine], F_SETFD, 0);
    piped->next = all;
    all = piped;
    give();
    return piped->file;
}

EXPORT int pclose(FILE *file)
{
    struct piped **at, *found;
    int status = -1;
    take();
    for (at = &all; *at && (*at)->file != file; at = &(*at)->next)
        ;
    found = *at;
    if (found)
        *at = found->next;
    give();
    if (!found)
        return NEXT(pclose)(file);
    fclose(file);
    while (waitpid(found->pid, &status, 0) < 0)
        if (errno != EINTR) {
            status = -1;
            break;
        }
    free(found);
    return status;
}

/* libc starts the shell of a $(command) itself, with the environment as it is: none, where that would lead past the library. */
EXPORT int wordexp(const char *restrict words, wordexp_t *restrict found, int flags)
{
    void *extra = alloca(pl_environment_size(environ));
    if (pl_environment(environ, extra) != environ)
        flags |= WRDE_NOCMD;
    return NEXT(wordexp)(words, found, flags);
}
