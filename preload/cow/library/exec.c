/* The exec family. All memory is on the stack: in the child of vfork it is the parent's. */
#define _GNU_SOURCE
#include <alloca.h>
#include <paths.h>

#include "library.h"
#include "program.h"
#include "start.h"

enum { ENTRIES = 4 /* that are added to an environment: two of ours, a sanitizer's, and its end */ };

static const char *entry_of(char *const *environment, const char *name, size_t length)
{
    for (size_t i = 0; environment && environment[i]; i++)
        if (strncmp(environment[i], name, length) == 0)
            return environment[i];
    return NULL;
}

static int holds_us(const char *list)
{
    const char *own = pl_preload + 11;
    const size_t length = strlen(own);
    for (; list; list = *list ? list + 1 : NULL) {
        if (strncmp(list, own, length) == 0 && (!list[length] || list[length] == ':' || list[length] == ' '))
            return 1;
        list += strcspn(list, ": ");
        if (!*list)
            break;
    }
    return 0;
}

size_t pl_environment_size(char *const *environment)
{
    const char *old = entry_of(environment, "LD_PRELOAD=", 11);
    return (pl_count(environment) + ENTRIES) * sizeof(char *) + strlen(pl_preload) + (old ? strlen(old) : 0) + 2;
}

char *const *pl_environment(char *const *environment, void *extra)
{
    const char *old = entry_of(environment, "LD_PRELOAD=", 11);
    const char *config = entry_of(environment, "POOR_CONTAINER_COW=", 19);
    const int complete = old && holds_us(old + 11);
    if (complete && config && strcmp(config, pl_config) == 0)
        return environment;
    const size_t count = pl_count(environment);
    char **out = extra, *text = (char *)(out + count + ENTRIES);
    size_t used = 0;
    for (size_t i = 0; i < count; i++)
        if ((complete || strncmp(environment[i], "LD_PRELOAD=", 11) != 0) &&
            strncmp(environment[i], "POOR_CONTAINER_COW=", 19) != 0)
            out[used++] = environment[i];
    out[used++] = pl_config;
#ifdef __SANITIZE_ADDRESS__
    out[used++] = "ASAN_OPTIONS=detect_leaks=0"; /* what a program leaks is no matter of ours, nor is there a ptrace below a net */
#endif
    if (!complete) {
        const size_t length = strlen(pl_preload);
        memcpy(text, pl_preload, length + 1);
        if (old && old[11]) {
            text[length] = ':';
            strcpy(text + length + 1, old + 11);
        }
        out[used++] = text;
    }
    out[used] = NULL;
    return out;
}

long pl_execve(int dirfd, const char *path, char *const *argv, char *const *environment, int flags)
{
    struct program program;
    long result = pl_find_program(dirfd, path, flags, &program);
    if (result < 0)
        return result;
    char **room = alloca((pl_count(argv) + (size_t)program.words + 2) * sizeof *room);
    void *extra = alloca(pl_environment_size(environment));
    char *const *arguments = pl_arguments(&program, argv, room);
    return SYS(SYS_execve, program.real, arguments, pl_environment(environment, extra));
}

static long shell_script(const char *path, char *const *argv, char *const *environment)
{
    const size_t count = pl_count(argv);
    char **shell = alloca((count + 3) * sizeof *shell);
    shell[0] = (char *)_PATH_BSHELL;
    shell[1] = (char *)path;
    for (size_t i = 1; i <= count; i++)
        shell[i + 1] = argv[i];
    if (!count)
        shell[2] = NULL;
    return pl_execve(AT_FDCWD, _PATH_BSHELL, shell, environment, 0);
}

static long exec_one(const char *path, char *const *argv, char *const *environment)
{
    long result = pl_execve(AT_FDCWD, path, argv, environment, 0);
    return result == -ENOEXEC ? shell_script(path, argv, environment) : result;
}

static long exec_search(const char *file, char *const *argv, char *const *environment)
{
    char path[PATH_MAX];
    long result = -ENOENT;
    int denied = 0;
    if (!*file)
        return -ENOENT;
    if (strchr(file, '/'))
        return exec_one(file, argv, environment);
    const char *list = entry_of(environ, "PATH=", 5);
    list = list ? list + 5 : "/bin:/usr/bin";
    const size_t length = strlen(file);
    for (;; list++) {
        const size_t directory = strcspn(list, ":");
        if (directory + length + 2 <= sizeof path) {
            memcpy(path, list, directory);
            path[directory] = '/';
            memcpy(path + directory + (directory > 0), file, length + 1);
            result = exec_one(path, argv, environment);
            if (result == -EACCES)
                denied = 1;
            else if (result != -ENOENT && result != -ENOTDIR && result != -ESTALE && result != -ENODEV && result != -ETIMEDOUT)
                return result;
        }
        list += directory;
        if (!*list)
            return denied ? -EACCES : result;
    }
}

EXPORT int execve(const char *path, char *const argv[], char *const environment[])
{
    return (int)pl_result(pl_execve(AT_FDCWD, path, argv, environment, 0));
}

EXPORT int execv(const char *path, char *const argv[])
{
    return (int)pl_result(pl_execve(AT_FDCWD, path, argv, environ, 0));
}

EXPORT int execvpe(const char *file, char *const argv[], char *const environment[])
{
    return (int)pl_result(exec_search(file, argv, environment));
}

EXPORT int execvp(const char *file, char *const argv[])
{
    return (int)pl_result(exec_search(file, argv, environ));
}

EXPORT int fexecve(int fd, char *const argv[], char *const environment[])
{
    return (int)pl_result(pl_execve(fd, "", argv, environment, AT_EMPTY_PATH));
}

EXPORT int execveat(int dirfd, const char *path, char *const argv[], char *const environment[], int flags)
{
    return (int)pl_result(pl_execve(dirfd, path, argv, environment, flags));
}

/* Counts the arguments up to NULL, and copies them. */
#define COLLECT(first, argv, list)                                                                                    \
    va_list list;                                                                                                     \
    size_t count = 1;                                                                                                 \
    va_start(list, first);                                                                                            \
    while (va_arg(list, char *))                                                                                      \
        count++;                                                                                                      \
    va_end(list);                                                                                                     \
    char **argv = alloca((count + 1) * sizeof *argv);                                                                 \
    va_start(list, first);                                                                                            \
    argv[0] = (char *)first;                                                                                          \
    for (size_t i = 1; i <= count; i++)                                                                               \
        argv[i] = va_arg(list, char *);

EXPORT int execl(const char *path, const char *first, ...)
{
    COLLECT(first, argv, list)
    va_end(list);
    return (int)pl_result(pl_execve(AT_FDCWD, path, argv, environ, 0));
}

EXPORT int execlp(const char *file, const char *first, ...)
{
    COLLECT(first, argv, list)
    va_end(list);
    return (int)pl_result(exec_search(file, argv, environ));
}

EXPORT int execle(const char *path, const char *first, ...)
{
    COLLECT(first, argv, list)
    char *const *environment = va_arg(list, char *const *);
    va_end(list);
    return (int)pl_result(pl_execve(AT_FDCWD, path, argv, environment, 0));
}
