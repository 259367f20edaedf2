/* Namespaces, and the ids in them. */
#define _GNU_SOURCE
#include "probe.h"

#include "../common/privilege.h"
#include "../common/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int map_own_id(struct outcome *out, unsigned uid, unsigned gid)
{
    char map[40];
    /* Without CAP_SETGID outside, gid_map can be written only after this (CVE-2014-8989). */
    if (pc_write_file(AT_FDCWD, "/proc/self/setgroups", "deny", 4) != 0 && errno != ENOENT)
        return fail(out, "write setgroups of a user namespace");
    snprintf(map, sizeof map, "0 %u 1", uid);
    if (pc_write_file(AT_FDCWD, "/proc/self/uid_map", map, strlen(map)) != 0)
        return fail(out, "write uid_map of a user namespace");
    snprintf(map, sizeof map, "0 %u 1", gid);
    if (pc_write_file(AT_FDCWD, "/proc/self/gid_map", map, strlen(map)) != 0)
        return fail(out, "write gid_map of a user namespace");
    return 0;
}

static unsigned outer_uid, outer_gid;

/* Where AppArmor strips the capabilities, making the namespace succeeds and this does not. */
static int mount_in_userns(struct outcome *out)
{
    if (map_own_id(out, outer_uid, outer_gid) != 0)
        return -1;
    return playground(out);
}

int probe_userns(struct outcome *out)
{
    outer_uid = geteuid();
    outer_gid = getegid();
    return in_child(CLONE_NEWUSER, "make a user namespace", mount_in_userns, out);
}

/* --- ranges of ids --- */

static int wait_for_maps = -1;

static int become_second_id(struct outcome *out)
{
    char byte;
    if (read(wait_for_maps, &byte, 1) != 1)
        return -1; /* the parent has noted why */
    if (setresgid(1, 1, 1) != 0 || setresuid(1, 1, 1) != 0)
        return fail(out, "take a second id in a user namespace");
    return 0;
}

static int run_mapper(struct outcome *out, const char *program, pid_t pid, unsigned own, const char *start, const char *count)
{
    char target[16], self[16], path[64];
    snprintf(target, sizeof target, "%d", (int)pid);
    snprintf(self, sizeof self, "%u", own);
    char *const command[] = { (char *)program, target, "0", self, "1", "1", (char *)start, (char *)count, NULL };
    pid_t child = fork_armed();
    if (child < 0)
        return fail(out, "fork");
    if (child == 0) {
        dup2(open("/dev/null", O_RDWR | O_CLOEXEC), STDERR_FILENO);
        static const char *const directories[] = { "/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin" };
        for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
            snprintf(path, sizeof path, "%s/%s", directories[i], program);
            execv(path, command);
        }
        _exit(127);
    }
    int status = 0;
    waitpid(child, &status, 0);
    if (status == 0)
        return 0;
    errno = WIFEXITED(status) && WEXITSTATUS(status) == 127 ? ENOENT : EPERM;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)
        note(out, "no_new_privs is set, so setuid programs have no effect");
    snprintf(path, sizeof path, "run %s", program);
    return fail(out, path);
}

/* The name of our uid from /etc/passwd ("" when it has none). */
static void own_name(char *name, size_t size)
{
    static char text[65536];
    char wanted[24], *rest = NULL;
    name[0] = 0;
    snprintf(wanted, sizeof wanted, "%u", geteuid());
    if (get_file("/etc/passwd", text, sizeof text) < 0)
        return;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char user[64], uid[24];
        if (sscanf(line, "%63[^:]:%*[^:]:%23[^:]", user, uid) == 2 && strcmp(uid, wanted) == 0)
            snprintf(name, size, "%s", user);
    }
}

/* Our first range in /etc/subuid or /etc/subgid, by name or by number. */
static int own_range(const char *path, char start[24], char count[24])
{
    static char text[65536];
    char name[64], number[24], *rest = NULL;
    own_name(name, sizeof name);
    snprintf(number, sizeof number, "%u", geteuid());
    if (get_file(path, text, sizeof text) < 0)
        return -1;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char user[64];
        if (sscanf(line, "%63[^:]:%23[0-9]:%23[0-9]", user, start, count) == 3 &&
            (strcmp(user, name) == 0 || strcmp(user, number) == 0))
            return 0;
    }
    errno = ENOENT;
    return -1;
}

/* With privilege outside, the maps are written directly. */
static int map_as_root(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/uid_map", (int)pid);
    if (pc_write_file(AT_FDCWD, path, "0 0 65536", 9) != 0)
        return -1;
    snprintf(path, sizeof path, "/proc/%d/gid_map", (int)pid);
    return pc_write_file(AT_FDCWD, path, "0 0 65536", 9);
}

static int map_ranges(struct outcome *out, pid_t pid)
{
    char start[24], count[24];
    if (pc_is_privileged() && map_as_root(pid) == 0) {
        note(out, "written directly, with the caller's privilege");
        return 0;
    }
    if (own_range("/etc/subuid", start, count) != 0)
        return fail(out, "find our range in /etc/subuid");
    if (run_mapper(out, "newuidmap", pid, geteuid(), start, count) != 0)
        return -1;
    note(out, "newuidmap, %s ids", count);
    if (own_range("/etc/subgid", start, count) != 0)
        return fail(out, "find our range in /etc/subgid");
    return run_mapper(out, "newgidmap", pid, getegid(), start, count);
}

int probe_idranges(struct outcome *out)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return fail(out, "pipe");
    wait_for_maps = ends[0];
    pid_t parent = getpid(), pid = pc_clone(CLONE_NEWUSER, NULL);
    if (pid < 0)
        return fail(out, "make a user namespace");
    if (pid == 0) {
        arm(parent);
        close(ends[1]);
        _exit(become_second_id(out) != 0);
    }
    int mapped = map_ranges(out, pid);
    if (mapped == 0 && write(ends[1], "", 1) != 1)
        mapped = fail(out, "tell a child to go on");
    close(ends[1]);
    int status = 0;
    waitpid(pid, &status, 0);
    return mapped == 0 && status == 0 ? 0 : -1;
}

/* --- one namespace each --- */

int own_mounts(struct outcome *out)
{
    if (unshare(CLONE_NEWNS) != 0)
        return fail(out, "make a mount namespace");
    /* First of all: without it our mounts reach the machine where / is shared. */
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        return fail(out, "make all mounts private");
    return 0;
}

int probe_mountns(struct outcome *out)
{
    if (playground(out) != 0)
        return -1;
    return access("pcprobe", F_OK) != 0 && put_file("pcprobe", "x") == 0 ? 0 : no_effect(out, "write to a private tmpfs");
}

static int is_first(struct outcome *out)
{
    return getpid() == 1 ? 0 : no_effect(out, "be process 1 of a pid namespace");
}

int probe_pidns(struct outcome *out)
{
    return in_child(CLONE_NEWPID, "make a pid namespace", is_first, out);
}

int own_network(struct outcome *out)
{
    /* The kernel frees dead network namespaces late, and they count until then. */
    for (int tries = 0; unshare(CLONE_NEWNET) != 0; tries++) {
        struct timespec pause = { .tv_nsec = 10000000 };
        if (errno != ENOSPC || tries == 30)
            return fail(out, "make a network namespace");
        nanosleep(&pause, NULL);
    }
    struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
    CLEANUP_FD int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) != 0)
        return fail(out, "set the loopback interface up");
    return 0;
}

int probe_netns(struct outcome *out)
{
    if (own_network(out) != 0)
        return -1;
    /* Nobody else can listen in a namespace that is ours alone: this port is free. */
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    CLEANUP_FD int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CLEANUP_FD int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(server, (struct sockaddr *)&address, sizeof address) != 0 || listen(server, 1) != 0)
        return fail(out, "listen on port 80 of a network namespace");
    if (connect(client, (struct sockaddr *)&address, sizeof address) != 0)
        return fail(out, "connect over the loopback interface of a network namespace");
    return 0;
}

int probe_utsns(struct outcome *out)
{
    char name[16] = "";
    if (unshare(CLONE_NEWUTS) != 0)
        return fail(out, "make a uts namespace");
    if (sethostname("pcprobe", 7) != 0)
        return fail(out, "set the host name of a uts namespace");
    return gethostname(name, sizeof name) == 0 && strcmp(name, "pcprobe") == 0 ? 0 : no_effect(out, "set the host name");
}

int probe_ipcns(struct outcome *out)
{
    if (unshare(CLONE_NEWIPC) != 0)
        return fail(out, "make an ipc namespace");
    /* A segment of our own, which ends with the namespace. */
    if (shmget(0x70630001, 4096, IPC_CREAT | IPC_EXCL | 0600) < 0)
        return fail(out, "make shared memory in an ipc namespace");
    return 0;
}

int probe_cgroupns(struct outcome *out)
{
    char groups[4096];
    if (unshare(CLONE_NEWCGROUP) != 0)
        return fail(out, "make a cgroup namespace");
    if (get_file("/proc/self/cgroup", groups, sizeof groups) < 0)
        return fail(out, "read /proc/self/cgroup");
    char *rest = NULL;
    for (char *line = strtok_r(groups, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        if (strcmp(strrchr(line, ':'), ":/") != 0)
            return no_effect(out, "see our own control group as the root");
    return 0;
}
