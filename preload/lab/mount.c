#define _GNU_SOURCE
#include "mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/sys.h"
#include "mount_request.h"
#include "options.h"
#include "registry.h"
#include "template.h"

enum { PENDING_MAX = 64 };

/* Children that have not ended yet, and what they are to answer. */
static struct pending {
    pid_t pid; /* 0: a free place */
    uint32_t request;
} pending[PENDING_MAX];

void mount_reaped(pid_t pid, int status)
{
    for (struct pending *one = pending; one < pending + PENDING_MAX; one++) {
        if (one->pid != pid)
            continue;
        one->pid = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            pc_send_error(FD_CONTROL, one->request, "mount", NULL, ECHILD, "the process that did it was killed");
    }
}

static void note(pid_t pid, uint32_t request)
{
    for (struct pending *one = pending; one < pending + PENDING_MAX; one++)
        if (one->pid == 0) {
            *one = (struct pending){ pid, request };
            return;
        }
}

static int parse(struct pc_in *in, struct mount_request *request, struct pc_failure *failure)
{
    struct pc_cursor cursor;
    const struct container *container = NULL;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        const uint32_t type = cursor.field.type;
        if (type == PC_F_ID)
            container = registry_find(pc_u32(&cursor, value));
        else if (type == PC_F_KIND)
            request->kind = pc_u32(&cursor, value);
        else if (type == PC_F_FLAGS)
            request->flags = pc_u32(&cursor, value);
        else if (type == PC_F_SOURCE)
            request->source = value;
        else if (type == PC_F_TARGET)
            request->target = value;
        else if (type == PC_F_OPTIONS && request->option_count < MOUNT_OPTIONS_MAX)
            request->options[request->option_count++] = value;
        else if (type == PC_F_VALUE && request->value_count < MOUNT_VALUES_MAX)
            request->values[request->value_count++] = pc_u32(&cursor, value);
        else
            return pc_fail_as(failure, "understand the request for", "a mount", EPROTO, NULL);
    }
    request->fd = in->fd_count == 1 ? in->fds[0] : -1;
    if (!container || container->building || container->mounts < 0)
        return pc_fail_as(failure, "mount in", "the container", ESRCH, "it has ended");
    request->container = container->mounts;
    if (!request->target || request->target[0] != '/' || (request->source && request->source[0] != '/'))
        return pc_fail_as(failure, "mount on", request->target, EINVAL, "an absolute path is needed");
    return strlen(request->target) < MOUNT_PATH_SIZE ? 0 : pc_fail_as(failure, "mount on", request->target, ENAMETOOLONG, NULL);
}

static int is_directory(int fd)
{
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISDIR(info.st_mode);
}

static int attach_bind(struct mounting *m)
{
    int tree = -1;
    if (m->request->source && (tree = mount_make_bind(m)) < 0)
        return -1;
    if (mount_enter(m) < 0)
        return -1;
    if (m->request->source)
        return mount_attach(m, tree, is_directory(tree));
    CLEANUP_FD int place = mount_open_target(m);
    if (place < 0 || (tree = mount_make_itself(m, place)) < 0)
        return -1;
    uint64_t mount;
    if (mount_move(tree, place) < 0 || mount_identify(tree, &mount, NULL) < 0)
        return pc_fail(m->failure, "mount on", m->request->target);
    m->answer[m->answer_count++] = mount;
    m->answer[m->answer_count++] = 0;
    return 0;
}

static int attach_made(struct mounting *m, int (*make)(struct mounting *))
{
    int tree = make(m);
    if (tree < 0 || mount_enter(m) < 0)
        return -1;
    return mount_attach(m, tree, 1);
}

static int attach_overlay(struct mounting *m)
{
    int lower = -1, upper = -1;
    uint64_t mount;
    if (m->request->source && (lower = mount_make_bind(m)) < 0)
        return -1;
    if (lower >= 0 && !is_directory(lower))
        return pc_fail_as(m->failure, "mount overlay over", m->request->source, ENOTDIR, NULL);
    if (mount_enter(m) < 0)
        return -1;
    int place = mount_open(m, m->request->target, O_NOFOLLOW);
    if (place < 0)
        return pc_fail_as(m->failure, "mount overlay on", m->request->target, errno, errno == ENOENT ? "there is nothing to be changed: a tmpfs can be mounted where there is no directory" : NULL);
    if (!is_directory(place))
        return pc_fail_as(m->failure, "mount overlay on", m->request->target, ENOTDIR, "a directory is needed, and no symbolic link to one");
    int cover = mount_cover(m, place, lower, NULL, 1, &upper);
    if (cover < 0)
        return -1;
    if (mount_identify(cover, &mount, NULL) < 0)
        return pc_fail(m->failure, "identify the mount on", m->request->target);
    m->answer[m->answer_count++] = mount;
    m->answer[m->answer_count++] = 0;
    m->answer_fd = upper;
    return 0;
}

static int look(struct mounting *m)
{
    uint64_t mount;
    int is_root;
    struct stat info;
    if (mount_enter(m) < 0 || (m->answer_fd = mount_open_target(m)) < 0)
        return -1;
    if (mount_identify(m->answer_fd, &mount, &is_root) < 0 || fstat(m->answer_fd, &info) < 0)
        return pc_fail(m->failure, "look at", m->request->target);
    const uint64_t found[] = { mount, (uint64_t)is_root, major(info.st_dev), minor(info.st_dev) };
    memcpy(m->answer, found, sizeof found);
    m->answer_count = 4;
    return 0;
}

static int detach(struct mounting *m)
{
    uint64_t mount;
    int is_root;
    if (mount_enter(m) < 0)
        return -1;
    CLEANUP_FD int place = mount_open_target(m);
    if (place < 0)
        return -1;
    if (mount_identify(place, &mount, &is_root) < 0)
        return pc_fail(m->failure, "look at", m->request->target);
    if (!is_root || m->request->value_count != 1 || m->request->values[0] != mount)
        return pc_fail_as(m->failure, "unmount", m->request->target, EBUSY, "something else is mounted there by now");
    return mount_detach(m, place) < 0 ? pc_fail(m->failure, "unmount", m->request->target) : 0;
}

static int work(struct mounting *m)
{
    switch (m->request->kind) {
    case PC_MOUNT_BIND:
        return attach_bind(m);
    case PC_MOUNT_TMPFS:
        return attach_made(m, mount_make_tmpfs);
    case PC_MOUNT_OVERLAY:
        return attach_overlay(m);
    case PC_MOUNT_DEVPTS:
        return attach_made(m, mount_make_devpts);
    case PC_MOUNT_LOOK:
        return look(m);
    case PC_MOUNT_CHANGE:
        return mount_enter(m) < 0 ? -1 : mount_change(m);
    case PC_MOUNT_RESIZE:
        return mount_enter(m) < 0 ? -1 : mount_resize(m);
    case PC_MOUNT_FILL:
        return mount_enter(m) < 0 ? -1 : mount_fill(m);
    case PC_MOUNT_UNMOUNT:
        return detach(m);
    default:
        return pc_fail_as(m->failure, "mount", m->request->target, ENOSYS, "the lab knows no such kind");
    }
}

/* Overlay keeps its notes elsewhere where it may not use the "trusted" ones (user_namespaces(7)). */
static int is_in_user_namespace(int proc)
{
    static const char all[] = "4294967295";
    char map[128];
    CLEANUP_FD int fd = openat(proc, "self/uid_map", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, map, sizeof map - 1);
    map[length < 0 ? 0 : length] = 0;
    return length >= 0 && !strstr(map, all);
}

static _Noreturn void serve(const struct mount_request *request, uint32_t number)
{
    struct pc_failure failure = { 0 };
    struct mounting m = { .request = request, .failure = &failure, .root = -1, .answer_fd = -1 };
    struct pc_out out;
    m.proc = open(MACHINE_PROC, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int failed = m.proc < 0 ? pc_fail(&failure, "open", "the machine's /proc") : 0;
    m.in_user_namespace = !failed && is_in_user_namespace(m.proc);
    umask(0);
    if (failed || work(&m) < 0) {
        pc_send_failure(FD_CONTROL, number, &failure);
        _exit(0);
    }
    pc_begin(&out, PC_OK, number);
    for (int i = 0; i < m.answer_count; i++)
        pc_put(&out, PC_F_VALUE, &m.answer[i], sizeof m.answer[i]);
    _exit(pc_send(FD_CONTROL, &out, &m.answer_fd, m.answer_fd >= 0, 0) < 0);
}

void mount_serve(struct pc_in *in)
{
    struct mount_request request = { .fd = -1 };
    struct pc_failure failure = { 0 };
    if (parse(in, &request, &failure) < 0) {
        pc_send_failure(FD_CONTROL, in->header.request, &failure);
        return;
    }
    pid_t pid = pc_clone(0, NULL);
    if (pid == 0)
        serve(&request, in->header.request);
    if (pid < 0)
        pc_send_error(FD_CONTROL, in->header.request, "start a process", "for a mount", errno, NULL);
    else
        note(pid, in->header.request);
}
