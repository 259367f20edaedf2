/* The launcher: makes the lab's namespaces, maps its ids, and exits. See README.md. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/message.h"
#include "../common/privilege.h"
#include "../common/sys.h"
#include "lab.h"
#include "launch.h"
#include "lifeline.h"
#include "skeleton.h"
#include "title.h"

extern char **environ;

enum { MAP_WORDS_MAX = 64 };

static void usage(void)
{
    static const char text[] = "pclab is the helper process of pytest-poorcontainer: pytest starts it, see preload/lab/README.md\n";
    if (write(2, text, sizeof text - 1) < 0)
        _exit(71);
    _exit(64);
}

/* "755:0:0:named" */
static int parse_run_directory(struct lab_options *options, const char *text)
{
    unsigned mode, uid, gid;
    int used = 0;
    if (options->run_directory_count == RUN_DIRECTORIES_MAX || sscanf(text, "%o:%u:%u:%n", &mode, &uid, &gid, &used) != 3 || used == 0)
        return -1;
    if (strlen(text + used) >= RUN_DIRECTORY_SIZE)
        return -1;
    struct run_directory *directory = &options->run_directories[options->run_directory_count++];
    *directory = (struct run_directory){ .mode = mode & 07777, .uid = uid, .gid = gid };
    strcpy(directory->path, text + used);
    return 0;
}

static void parse(int argc, char **argv, struct lab_options *options)
{
    struct stat info;
    if (fstat(FD_CONTROL, &info) < 0 || !S_ISSOCK(info.st_mode) || fcntl(FD_LIFELINE, F_GETFD) < 0)
        usage();
    for (int i = 1; i + 1 < argc; i += 2) {
        char *value = argv[i + 1];
        int writable = strcmp(argv[i], "--bind-rw") == 0;
        if (strcmp(argv[i], "--uid-map") == 0)
            options->uid_map = value;
        else if (strcmp(argv[i], "--gid-map") == 0)
            options->gid_map = value;
        else if (strcmp(argv[i], "--fail-step") == 0)
            options->fail_step = atoi(value);
        else if (strcmp(argv[i], "--run-directory") == 0 && parse_run_directory(options, value) == 0)
            continue;
        else if ((writable || strcmp(argv[i], "--bind-ro") == 0) && options->bind_count < OPTION_BINDS_MAX)
            options->binds[options->bind_count++] = (struct bind_option){ value, writable };
        else
            usage();
    }
}

/* How many ids the user namespace that we are in maps; 0 in the machine's own, which maps
   them all to themselves (user_namespaces(7)). */
static int count_mapped_ids(void)
{
    unsigned long inside, outside, count, total = 0;
    FILE *map = fopen("/proc/self/uid_map", "re");
    if (!map)
        return 0;
    while (fscanf(map, "%lu %lu %lu", &inside, &outside, &count) == 3)
        total += count;
    fclose(map);
    return total >= UINT32_MAX ? 0 : (int)(total < INT_MAX ? total : INT_MAX);
}

/* Runs newuidmap or newgidmap; returns 0 when it has written the map. */
static int run_mapper(const char *program, const char *pid, char *words)
{
    char *args[MAP_WORDS_MAX] = { (char *)program, (char *)pid };
    int count = 2, status;
    pid_t child;
    for (char *word = strtok(words, " "); word && count < MAP_WORDS_MAX - 1; word = strtok(NULL, " "))
        args[count++] = word;
    if (posix_spawnp(&child, program, NULL, NULL, args, environ) != 0)
        return -1;
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            return -1;
    return status == 0 ? 0 : -1;
}

static int write_map(const char *pid, const char *file, const char *text)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%s/%s", pid, file);
    return pc_write_file(AT_FDCWD, path, text, strlen(text));
}

/* How many ids a map's words give, for the report. */
static int count_ids(const char *words)
{
    long total = 0, number;
    int used;
    for (int i = 1; sscanf(words, "%ld%n", &number, &used) == 1; i++, words += used)
        if (i % 3 == 0)
            total += number;
    return (int)total;
}

static int map_ids(pid_t lab, struct lab_options *options, struct pc_failure *failure)
{
    char pid[16], one[48];
    pc_decimal(pid, (uint64_t)lab);
    if (options->uid_map && options->gid_map) {
        int ids = count_ids(options->uid_map);
        if (run_mapper("newuidmap", pid, options->uid_map) == 0) {
            if (run_mapper("newgidmap", pid, options->gid_map) < 0)
                return pc_fail_as(failure, "map the group ids of", "the lab", EPERM, "newgidmap refused them: compare /etc/subgid with /etc/subuid");
            options->ids = ids;
            return 0;
        }
    }
    options->ids = 1;
    if (write_map(pid, "setgroups", "deny") < 0)
        return pc_fail(failure, "forbid setgroups in", "the user namespace");
    snprintf(one, sizeof one, "0 %u 1", geteuid());
    if (write_map(pid, "uid_map", one) < 0)
        return pc_fail_as(failure, "map the user id of", "the lab", errno, "user namespaces may be restricted here (Ubuntu: kernel.apparmor_restrict_unprivileged_userns)");
    snprintf(one, sizeof one, "0 %u 1", getegid());
    return write_map(pid, "gid_map", one) < 0 ? pc_fail(failure, "map the group id of", "the lab") : 0;
}

/* What the launcher tells the lab, once its ids are mapped. */
struct go {
    int pid, ids;
};

static _Noreturn void become_lab(struct lab_options *options, int go_fd)
{
    struct go go;
    if (read(go_fd, &go, sizeof go) != sizeof go)
        _exit(1); /* the launcher failed and has said so, or was killed */
    close(go_fd);
    options->ids = go.ids;
    lab_run(options, go.pid);
}

static void prepare_process(void)
{
    sigset_t all;
    /* Python ignores SIGPIPE; what is ignored would stay so in every command. */
    for (int i = 1; i < NSIG; i++)
        signal(i, SIG_DFL);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    umask(0);
    launch_raise_limit();
    lifeline_start();
    fcntl(FD_CONTROL, F_SETFD, FD_CLOEXEC);
    pc_close_range(FD_SECOND + 1, ~0U, 0);
}

int main(int argc, char **argv)
{
    static struct lab_options options;
    struct pc_failure failure = { 0 };
    int pair[2];
    title_keep(argc, argv);
    parse(argc, argv, &options);
    prepare_process();
    if (lifeline_is_cut())
        return 0;
    const int own_users = !pc_is_privileged();
    uint64_t flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
    options.ids = count_mapped_ids();
    /* Root of somebody's user namespace can do without another, but not what only the
       machine's root can. */
    options.rootless = own_users || options.ids > 0;
    if (own_users)
        flags |= CLONE_NEWUSER;
    if (own_users && options.uid_map)
        skeleton_look();
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0) {
        pc_send_error(FD_CONTROL, 0, "make sockets for", "the lab", errno, NULL);
        return 1;
    }
    pid_t lab = pc_clone(flags, NULL);
    if (lab == 0) {
        close(pair[1]);
        become_lab(&options, pair[0]);
    }
    close(pair[0]);
    if (lab < 0) {
        pc_send_error(FD_CONTROL, 0, "make namespaces for", "the lab", errno, "`poor-container doctor` tells what this machine allows");
        return 1;
    }
    if (own_users && map_ids(lab, &options, &failure) < 0) {
        pc_send_failure(FD_CONTROL, 0, &failure);
        return 1;
    }
    struct go go = { lab, options.ids };
    return write(pair[1], &go, sizeof go) == sizeof go ? 0 : 1;
}
