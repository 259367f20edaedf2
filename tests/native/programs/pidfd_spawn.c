/* A stand-in for the pidfd_spawn of glibc 2.39, for machines with an older one: preloaded behind libpccow.so, where libc would be.
   With -DPROGRAM: the program that uses it, by name, as one does that was compiled for either. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int spawner(int *, const char *, const posix_spawn_file_actions_t *, const posix_spawnattr_t *, char *const *, char *const *);

#ifdef PROGRAM
static void use(const char *name, const char *file, int pid_of_fd)
{
    int pidfd = -1;
    siginfo_t info = { 0 };
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "a.txt", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "made", O_WRONLY | O_CREAT | O_APPEND, 0644);
    spawner *spawn = (spawner *)dlsym(RTLD_DEFAULT, name);
    const int error = spawn ? spawn(&pidfd, file, &actions, NULL, (char *const[]){ "cat", NULL }, (char *const[]){ "A=b", NULL }) : -1;
    posix_spawn_file_actions_destroy(&actions);
    printf("%s %s: %s\n", name, file, error < 0 ? "none" : strerror(error));
    if (error)
        return;
    const int waited = waitid((idtype_t)pid_of_fd, (id_t)pidfd, &info, WEXITED);
    printf("%d %d\n", waited, info.si_status);
}

int main(void)
{
    const int of_a_pidfd = 3; /* P_PIDFD */
    use("pidfd_spawn", "/bin/cat", of_a_pidfd);
    use("pidfd_spawnp", "cat", of_a_pidfd);
    use("pidfd_spawn", "cat", of_a_pidfd);
    return 0;
}
#else
static int stand_in(const char *name, int *pidfd, const char *file, const posix_spawn_file_actions_t *actions,
                    const posix_spawnattr_t *attributes, char *const *argv, char *const *environment)
{
    pid_t pid;
    const int error = ((spawner *)dlsym(RTLD_NEXT, name))(&pid, file, actions, attributes, argv, environment);
    if (!error)
        *pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    return error;
}

int pidfd_spawn(int *pidfd, const char *path, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                char *const *argv, char *const *environment)
{
    return stand_in("posix_spawn", pidfd, path, actions, attributes, argv, environment);
}

int pidfd_spawnp(int *pidfd, const char *file, const posix_spawn_file_actions_t *actions, const posix_spawnattr_t *attributes,
                 char *const *argv, char *const *environment)
{
    return stand_in("posix_spawnp", pidfd, file, actions, attributes, argv, environment);
}
#endif
