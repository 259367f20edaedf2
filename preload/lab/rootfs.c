#define _GNU_SOURCE
#include "rootfs.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/sys.h"
#include "machine.h"

#define TREE "/proc/lower/root"

PC_LAST struct rootfs rootfs_table[ROOTFS_MAX];
static uint32_t last;

struct request {
    const char *path; /* NULL: an empty tree */
    const char *sources[LATE_BINDS_MAX], *targets[LATE_BINDS_MAX];
    int bind_count;
    uint32_t flags;
    int stage; /* on which `path` is (cow.h), or -1: on the machine */
};

/* What the child that builds tells the lab, in memory that both share. */
struct outcome {
    struct template template;
    struct pc_failure failure;
};

const struct rootfs *rootfs_find(uint32_t number)
{
    for (int i = 0; i < ROOTFS_MAX; i++)
        if (number != 0 && rootfs_table[i].number == number)
            return &rootfs_table[i];
    return NULL;
}

static int parse(struct pc_in *in, struct request *request, struct pc_failure *failure)
{
    struct pc_cursor cursor;
    int targets = 0;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        if (cursor.field.type == PC_F_PATH)
            request->path = value;
        else if (cursor.field.type == PC_F_FLAGS)
            request->flags = pc_u32(&cursor, value);
        else if (cursor.field.type == PC_F_SOURCE && request->bind_count < LATE_BINDS_MAX)
            request->sources[request->bind_count++] = value;
        else if (cursor.field.type == PC_F_TARGET && targets < request->bind_count)
            request->targets[targets++] = value;
        else if (cursor.field.type == PC_F_SOURCE)
            return pc_fail_as(failure, "bind", value, E2BIG, "a root file system can have 64 directories of the machine");
        else
            return pc_fail_as(failure, "understand the request for", "a root file system", EPROTO, NULL);
    }
    for (int i = 0; i < targets; i++)
        if (request->targets[i][0] != '/' || strlen(request->targets[i]) >= PATH_SIZE)
            return pc_fail_as(failure, "bind", request->targets[i], EINVAL, "an absolute path is needed, shorter than 1024 bytes");
    return targets == request->bind_count ? 0 : pc_fail_as(failure, "understand the request for", "a root file system", EPROTO, NULL);
}

/* Clones a tree of the mounts that we are among, for somebody else's eyes. */
static int open_mounts(const char *path, int writable, struct pc_failure *failure)
{
    struct stat info;
    const uint64_t attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (writable ? 0 : MOUNT_ATTR_RDONLY);
    CLEANUP_FD int tree = pc_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree < 0)
        return pc_fail_as(failure, "open", path, errno, errno == EINVAL ? "what is mounted below it cannot be shown without it" : NULL);
    if (fstat(tree, &info) < 0 || !S_ISDIR(info.st_mode))
        return pc_fail_as(failure, "open", path, ENOTDIR, NULL);
    if (pc_mount_setattr(tree, "", AT_EMPTY_PATH | AT_RECURSIVE, attributes, 0) < 0)
        return pc_fail(failure, "set the attributes of", path);
    return dup(tree);
}

static int place(int tree, const char *to, struct pc_failure *failure)
{
    if (mkdir(to, 0755) < 0 || pc_move_mount(tree, AT_FDCWD, to) < 0)
        return pc_fail(failure, "keep", to);
    return close(tree);
}

/* Opens what is to be the root, and leaves us among the machine's mounts. */
static int open_root(const struct request *request, struct pc_failure *failure)
{
    const int writable = request->flags & PC_FLAG_ITSELF;
    if (request->stage < 0)
        return open_mounts(request->path, writable, failure);
    if (setns(request->stage, CLONE_NEWNS) < 0)
        return pc_fail(failure, "enter", "the stage of copy-on-write trees");
    int tree = open_mounts(request->path, writable, failure);
    return tree < 0 || machine_enter(failure) < 0 ? -1 : tree;
}

static int build_template(struct template *template, const struct request *request, struct pc_failure *failure)
{
    int tree = -1, binds[LATE_BINDS_MAX];
    char to[32];
    if (machine_enter(failure) < 0)
        return -1;
    if (request->path && (tree = open_root(request, failure)) < 0)
        return -1;
    if (unshare(CLONE_NEWNS) < 0)
        return pc_fail(failure, "make a mount namespace for", "a root file system");
    for (int i = 0; i < request->bind_count; i++)
        if ((binds[i] = open_mounts(request->sources[i], 0, failure)) < 0)
            return -1;
    if (template_begin(failure) < 0)
        return -1;
    if (mkdir("/dev", 0755) < 0 || mkdir("/sys", 0755) < 0)
        return pc_fail(failure, "make", "/dev and /sys");
    if (template_add_dev(failure) < 0)
        return -1;
    if (request->path ? place(tree, TREE, failure) < 0 : mkdir(TREE, 0755) < 0 || mount("rootfs", TREE, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0)
        return failure->step ? -1 : pc_fail(failure, "mount a tmpfs for", "a root file system");
    for (int i = 0; i < request->bind_count; i++) {
        snprintf(to, sizeof to, "/proc/late/%d", i);
        if (place(binds[i], to, failure) < 0)
            return -1;
        snprintf(template->late[i].path, PATH_SIZE, "%s", request->targets[i] + 1);
    }
    template->late_count = request->bind_count;
    if (!template->itself && !template_overlay_works(template, TREE))
        return pc_fail_as(failure, "mount overlay on", request->path ? request->path : "a tmpfs", errno,
            template->rootless ? "in a user namespace this needs Linux 5.11 or newer, and nothing may be mounted below the directory" : "its file system cannot be the lower of an overlay");
    return template_end(failure);
}

/* The child: never returns. */
static _Noreturn void build(struct outcome *outcome, const struct request *request, int line)
{
    struct pc_out out;
    int fds[2] = { -1, -1 };
    if (build_template(&outcome->template, request, &outcome->failure) < 0)
        _exit(1);
    fds[0] = open(MACHINE_PROC "/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    fds[1] = open(TREE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* A container covers the template's root, and not just its /proc: better that there is nothing.
       In a user namespace a new proc may be mounted only where another can be seen. */
    if (fds[0] < 0 || fds[1] < 0 || (!outcome->template.rootless && umount2(MACHINE_PROC, MNT_DETACH) < 0))
        pc_fail(&outcome->failure, "hand over", "a root file system");
    pc_begin(&out, PC_OK, 0);
    _exit(outcome->failure.step || pc_send(line, &out, fds, 2, 0) < 0);
}

static int build_in_child(const struct request *request, struct outcome *outcome, int fds[2], struct pc_failure *failure)
{
    int pair[2];
    struct pc_in in;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return pc_fail(failure, "make sockets for", "a root file system");
    pid_t pid = pc_clone(0, NULL);
    if (pid == 0)
        build(outcome, request, pair[1]);
    close(pair[1]);
    int got = pid < 0 ? -1 : pc_receive(pair[0], &in);
    if (got > 0 && in.fd_count == 2) {
        fds[0] = in.fds[0];
        fds[1] = in.fds[1];
    }
    close(pair[0]);
    while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    if (fds[0] >= 0)
        return 0;
    *failure = outcome->failure;
    return failure->step ? -1 : pc_fail_as(failure, "make", "a root file system", ECHILD, "the process that made it was killed");
}

static struct rootfs *free_place(void)
{
    for (int i = 0; i < ROOTFS_MAX; i++)
        if (rootfs_table[i].number == 0)
            return &rootfs_table[i];
    return NULL;
}

static int make(const struct lab_options *options, const struct request *request, struct rootfs *rootfs, int *tree, struct pc_failure *failure)
{
    int fds[2] = { -1, -1 };
    struct outcome *outcome = mmap(NULL, sizeof *outcome, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (outcome == MAP_FAILED)
        return pc_fail(failure, "get memory for", "a root file system");
    outcome->template.tree = 1;
    outcome->template.readonly = (request->flags & PC_FLAG_READONLY) != 0;
    outcome->template.itself = (request->flags & PC_FLAG_ITSELF) != 0;
    outcome->template.rootless = options->rootless;
    outcome->template.overlay_options = options->rootless ? ",userxattr" : "";
    int result = build_in_child(request, outcome, fds, failure);
    if (result == 0) {
        rootfs->template = outcome->template;
        rootfs->mounts = fds[0];
        rootfs->number = ++last;
        *tree = fds[1];
    }
    munmap(outcome, sizeof *outcome);
    return result;
}

void rootfs_serve(const struct lab_options *options, struct pc_in *in)
{
    struct request request = { .stage = in->fd_count == 1 ? in->fds[0] : -1 };
    struct pc_failure failure = { 0 };
    struct pc_out out;
    CLEANUP_FD int tree = -1;
    struct rootfs *rootfs = free_place();
    if (!rootfs)
        pc_fail_as(&failure, "make", "a root file system", EMFILE, "a lab can have 64 of them at a time: give up those that are no longer used");
    if (!rootfs || parse(in, &request, &failure) < 0 || make(options, &request, rootfs, &tree, &failure) < 0) {
        pc_send_failure(FD_CONTROL, in->header.request, &failure);
        return;
    }
    pc_begin(&out, PC_OK, in->header.request);
    pc_put_u32(&out, PC_F_ROOTFS, rootfs->number);
    pc_send(FD_CONTROL, &out, &tree, request.path ? 0 : 1, 0);
}

void rootfs_serve_end(struct pc_in *in)
{
    struct pc_cursor cursor;
    struct pc_out out;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        const struct rootfs *found = cursor.field.type == PC_F_ROOTFS ? rootfs_find(pc_u32(&cursor, value)) : NULL;
        if (!found)
            continue;
        struct rootfs *rootfs = &rootfs_table[found - rootfs_table];
        close(rootfs->mounts);
        rootfs->number = 0;
    }
    pc_begin(&out, PC_OK, in->header.request);
    pc_send(FD_CONTROL, &out, NULL, 0, 0);
}
