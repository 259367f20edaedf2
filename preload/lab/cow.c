#define _GNU_SOURCE
#include "cow.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/sys.h"
#include "machine.h"
#include "mount_request.h"
#include "template.h"

enum { LAYERS_MAX = 40, OPTIONS_MAX = 4, NAME_SIZE = 32, LOWERDIR_SIZE = 256 };

struct layer {
    const char *path;
    int staged;           /* on the stage, else a directory of the machine */
    int tree;             /* a clone of it that is mounted nowhere yet, or -1 */
    uint64_t identity[2]; /* device and inode of what the client means, or 0 */
};

struct request {
    uint32_t number, readonly;
    const char *store; /* of the machine; NULL: a tmpfs */
    struct layer layers[LAYERS_MAX];
    int layer_count;
    const char *options[OPTIONS_MAX]; /* of the tmpfs */
    int option_count;
    int stage; /* or -1: there is none yet */
    int rootless;
};

static int parse(struct pc_in *in, struct request *request, struct pc_failure *failure)
{
    struct pc_cursor cursor;
    uint64_t identity[2] = { 0 };
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        const uint32_t type = cursor.field.type;
        if (type == PC_F_VALUE && cursor.field.length == sizeof identity)
            memcpy(identity, value, sizeof identity);
        else if (type == PC_F_ID)
            request->number = pc_u32(&cursor, value);
        else if (type == PC_F_FLAGS)
            request->readonly = pc_u32(&cursor, value) & PC_FLAG_READONLY;
        else if (type == PC_F_PATH)
            request->store = value;
        else if (type == PC_F_OPTIONS && request->option_count < OPTIONS_MAX)
            request->options[request->option_count++] = value;
        else if ((type == PC_F_SOURCE || type == PC_F_TARGET) && request->layer_count < LAYERS_MAX)
            request->layers[request->layer_count++] = (struct layer){ value, type == PC_F_TARGET, -1, { identity[0], identity[1] } };
        else if (type == PC_F_SOURCE || type == PC_F_TARGET)
            return pc_fail_as(failure, "put a layer under", "a tree", E2BIG, "trees can be stacked 39 high: commit one of them");
        else
            return pc_fail_as(failure, "understand the request for", "a tree", EPROTO, NULL);
    }
    request->stage = in->fd_count == 1 ? in->fds[0] : -1;
    return request->number ? 0 : pc_fail_as(failure, "understand the request for", "a tree", EPROTO, NULL);
}

/* A directory as a mount of its own; what is mounted below it is left out. */
static int open_layer(const char *path, int writable, struct pc_failure *failure)
{
    struct stat info;
    const uint64_t attributes = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (writable ? 0 : MOUNT_ATTR_RDONLY);
    CLEANUP_FD int tree = pc_open_tree(AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return pc_fail_as(failure, "open", path, errno, errno == EINVAL ? "something is mounted below it, which cannot be left out in a user namespace" : NULL);
    if (fstat(tree, &info) < 0 || !S_ISDIR(info.st_mode))
        return pc_fail_as(failure, "open", path, ENOTDIR, NULL);
    if (pc_mount_setattr(tree, "", AT_EMPTY_PATH, attributes, 0) < 0)
        return pc_fail(failure, "set the attributes of", path);
    return dup(tree);
}

/* Afterwards we are on the stage, in its /proc. */
static int enter_stage(const struct request *request, struct pc_failure *failure)
{
    if (request->stage >= 0) {
        if (setns(request->stage, CLONE_NEWNS) < 0)
            return pc_fail(failure, "enter", "the stage of copy-on-write trees");
    } else if (unshare(CLONE_NEWNS) < 0 || mount("cow", "/proc", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755") < 0) {
        return pc_fail(failure, "make a mount namespace for", "copy-on-write trees");
    }
    return chdir("/proc") < 0 ? pc_fail(failure, "enter", "the stage of copy-on-write trees") : 0;
}

static int attach(int tree, const char *place)
{
    if (mkdir(place, 0755) < 0 && errno != EEXIST)
        return -1;
    return pc_move_mount(tree, AT_FDCWD, place);
}

static int fail_context(struct pc_failure *failure, int context, const char *step, const char *object)
{
    struct mounting m = { .failure = failure };
    return mount_fail_with(&m, context, step, object);
}

static int make_tmpfs(const struct request *request, struct pc_failure *failure)
{
    static const char step[] = "make a tmpfs for";
    char key[NAME_SIZE];
    CLEANUP_FD int context = mount_fsopen("tmpfs");
    if (context < 0)
        return pc_fail(failure, step, "a tree");
    for (int i = 0; i < request->option_count; i++) {
        const char *value = strchr(request->options[i], '=');
        snprintf(key, sizeof key, "%.*s", value ? (int)(value - request->options[i]) : 0, request->options[i]);
        if (mount_configure(context, FSCONFIG_SET_STRING, key, value ? value + 1 : "") < 0)
            return fail_context(failure, context, step, request->options[i]);
    }
    if (mount_configure(context, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
        return fail_context(failure, context, step, "a tree");
    int tree = mount_fsmount(context, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    return tree < 0 ? fail_context(failure, context, step, "a tree") : tree;
}

/* The merged root has the mode, owner and times of its upper's. */
static int make_upper(int lower)
{
    struct stat info;
    if (mkdir("store/work", 0700) < 0 && errno != EEXIST)
        return -1;
    if (mkdir("store/upper", 0700) < 0)
        return errno == EEXIST ? 0 : -1;
    if (fstat(lower, &info) < 0)
        return -1;
    /* Ids that are not mapped stay ours. */
    if (chown("store/upper", info.st_uid, info.st_gid) < 0 && errno != EINVAL && errno != EPERM)
        return -1;
    const struct timespec times[] = { info.st_atim, info.st_mtim };
    if (chmod("store/upper", info.st_mode & 07777) < 0)
        return -1;
    return utimensat(AT_FDCWD, "store/upper", times, 0);
}

static void take_down(int with_store)
{
    char name[NAME_SIZE];
    umount2("merged", MNT_DETACH);
    for (int i = 0; i < LAYERS_MAX; i++) {
        snprintf(name, sizeof name, "l%d", i);
        if (umount2(name, MNT_DETACH) < 0 && errno == ENOENT)
            break;
        rmdir(name);
    }
    if (with_store) {
        umount2("store", MNT_DETACH);
        rmdir("store");
        rmdir("merged");
    }
}

static int make_overlay(const struct request *request, struct pc_failure *failure)
{
    static const char step[] = "mount the overlay of";
    char lowerdir[LOWERDIR_SIZE] = "";
    const char *object = request->layers[0].path;
    for (int i = 0; i < request->layer_count; i++)
        snprintf(lowerdir + strlen(lowerdir), sizeof lowerdir - strlen(lowerdir), i ? ":l%d" : "l%d", i);
    CLEANUP_FD int context = mount_fsopen("overlay");
    if (context < 0)
        return pc_fail(failure, step, object);
    const char *const writable[][2] = { { "upperdir", "store/upper" }, { "workdir", "store/work" }, { "index", "on" } };
    int failed = mount_configure(context, FSCONFIG_SET_STRING, "source", "cow") < 0 || mount_configure(context, FSCONFIG_SET_STRING, "lowerdir", lowerdir) < 0;
    /* Hard links stay whole with an index, which a user namespace may not have: it needs file handles. */
    for (int i = 0; !request->readonly && !failed && i < (request->rootless ? 2 : 3); i++)
        failed = mount_configure(context, FSCONFIG_SET_STRING, writable[i][0], writable[i][1]) < 0;
    if (failed || mount_configure(context, FSCONFIG_SET_FLAG, "userxattr", NULL) < 0 || mount_configure(context, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
        return fail_context(failure, context, step, object);
    int tree = mount_fsmount(context, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    return tree < 0 ? fail_context(failure, context, step, object) : tree;
}

static int place_layers(struct request *request, struct pc_failure *failure)
{
    char name[NAME_SIZE];
    for (int i = 0; i < request->layer_count; i++) {
        struct layer *layer = &request->layers[i];
        snprintf(name, sizeof name, "l%d", i);
        if (layer->staged && (layer->tree = open_layer(layer->path, 0, failure)) < 0)
            return -1;
        if (attach(layer->tree, name) < 0)
            return pc_fail(failure, "prepare the lower", layer->path);
    }
    return 0;
}

static int build(struct request *request, int store, struct pc_failure *failure)
{
    if (request->readonly || access("store", F_OK) == 0)
        store = -1;
    else if (!request->store && (store = make_tmpfs(request, failure)) < 0)
        return -1;
    if (store >= 0 && attach(store, "store") < 0)
        return pc_fail(failure, "prepare the upper of", request->layers[0].path);
    if (place_layers(request, failure) < 0)
        return -1;
    if (!request->readonly && make_upper(request->layers[0].tree) < 0)
        return pc_fail(failure, "prepare the upper of", request->layers[0].path);
    int tree = -1;
    if (request->readonly && request->layer_count == 1)
        tree = pc_open_tree(AT_FDCWD, "l0", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    else if ((tree = make_overlay(request, failure)) < 0)
        return -1;
    if (tree < 0 || attach(tree, "merged") < 0)
        return pc_fail(failure, "mount the tree of", request->layers[0].path);
    return close(tree);
}

/* Mounts of the machine that are younger than the lab may not be seen here; then it would be another
   directory that is shown. */
static int check_identity(const struct layer *layer, struct pc_failure *failure)
{
    struct stat info;
    if (!layer->identity[1] || fstat(layer->tree, &info) < 0 || (info.st_dev == layer->identity[0] && info.st_ino == layer->identity[1]))
        return 0;
    return pc_fail_as(failure, "find", layer->path, ESTALE, "something was mounted or unmounted there after the lab had been started: start the program anew, or mount it before the first container is made");
}

static int make(struct request *request, int fds[3], struct pc_failure *failure)
{
    char number[NAME_SIZE];
    CLEANUP_FD int store = -1;
    CLEANUP_FD int proc = open(MACHINE_PROC, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (proc < 0)
        return pc_fail(failure, "open", "the machine's /proc");
    if (machine_enter(failure) < 0)
        return -1;
    for (int i = 0; i < request->layer_count; i++)
        if (!request->layers[i].staged && ((request->layers[i].tree = open_layer(request->layers[i].path, 0, failure)) < 0 || check_identity(&request->layers[i], failure) < 0))
            return -1;
    if (request->store && (store = open_layer(request->store, 1, failure)) < 0)
        return -1;
    if (enter_stage(request, failure) < 0)
        return -1;
    snprintf(number, sizeof number, "%u", request->number);
    const int fresh = mkdir(number, 0755) == 0;
    if (chdir(number) < 0)
        return pc_fail(failure, "enter the place of", "a tree");
    take_down(0);
    if (build(request, store, failure) < 0) {
        take_down(fresh);
        if (fresh && chdir("..") == 0)
            rmdir(number);
        return -1;
    }
    fds[0] = open("merged", O_PATH | O_DIRECTORY | O_CLOEXEC);
    fds[1] = openat(proc, "self/ns/mnt", O_RDONLY | O_CLOEXEC);
    fds[2] = access("store", F_OK) == 0 ? open("store", O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    return fds[0] < 0 || fds[1] < 0 ? pc_fail(failure, "hand over", "a tree") : 0;
}

static _Noreturn void serve(struct request *request, uint32_t number)
{
    struct pc_failure failure = { 0 };
    struct pc_out out;
    int fds[3] = { -1, -1, -1 };
    umask(0);
    if (make(request, fds, &failure) < 0) {
        pc_send_failure(FD_CONTROL, number, &failure);
        _exit(0);
    }
    pc_begin(&out, PC_OK, number);
    _exit(pc_send(FD_CONTROL, &out, fds, fds[2] < 0 ? 2 : 3, 0) < 0);
}

static _Noreturn void serve_end(const struct request *request, uint32_t number)
{
    struct pc_failure failure = { 0 };
    struct pc_out out;
    char place[NAME_SIZE];
    snprintf(place, sizeof place, "%u", request->number);
    if (enter_stage(request, &failure) < 0) {
        pc_send_failure(FD_CONTROL, number, &failure);
        _exit(0);
    }
    if (chdir(place) == 0) {
        take_down(1);
        if (chdir("..") == 0)
            rmdir(place);
    }
    pc_begin(&out, PC_OK, number);
    _exit(pc_send(FD_CONTROL, &out, NULL, 0, 0) < 0);
}

static void start(pid_t pid, const struct pc_in *in)
{
    if (pid < 0)
        pc_send_error(FD_CONTROL, in->header.request, "start a process", "for a tree", errno, NULL);
}

void cow_serve(const struct lab_options *options, struct pc_in *in)
{
    struct request request = { .stage = -1, .rootless = options->rootless };
    struct pc_failure failure = { 0 };
    if (parse(in, &request, &failure) < 0 || request.layer_count == 0) {
        if (!failure.step)
            pc_fail_as(&failure, "understand the request for", "a tree", EPROTO, "it has no lower");
        pc_send_failure(FD_CONTROL, in->header.request, &failure);
        return;
    }
    pid_t pid = pc_clone(0, NULL);
    if (pid == 0)
        serve(&request, in->header.request);
    start(pid, in);
}

void cow_serve_end(struct pc_in *in)
{
    struct request request = { .stage = -1 };
    struct pc_failure failure = { 0 };
    if (parse(in, &request, &failure) < 0 || request.stage < 0) {
        if (!failure.step)
            pc_fail_as(&failure, "end", "a tree", EPROTO, "the stage is missing");
        pc_send_failure(FD_CONTROL, in->header.request, &failure);
        return;
    }
    pid_t pid = pc_clone(0, NULL);
    if (pid == 0)
        serve_end(&request, in->header.request);
    start(pid, in);
}
