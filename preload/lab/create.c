#define _GNU_SOURCE
#include "create.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../common/sys.h"
#include "container.h"
#include "end.h"
#include "lifeline.h"
#include "netlink.h"
#include "registry.h"
#include "rootfs.h"

/* Two descriptors of each go into one answer. */
enum { AT_ONCE = CREATE_AT_ONCE, SETTING_PATH_SIZE = 128, SETUP_PATIENCE_MS = 15000, FREE_PATIENCE_MS = 8000, FREE_PAUSE_MS = 4 };

/* What a container's first process tells the lab when its set-up has come to an end. The
   pointers in the failure are to our common program text, so they mean the same to both. */
enum { READY = 'R', FAILED = 'F' };

struct request {
    struct container_spec spec[AT_ONCE];
    struct container *container[AT_ONCE];
    int agent[AT_ONCE]; /* pytest's ends */
    int ready[AT_ONCE];
    int count; /* 0: nothing is being built here */
    int has_link;
    uint32_t link;
    uint32_t number; /* of the message to be answered */
    int64_t deadline;
};

/* What is being built: pytest asks ahead, and asks for other things meanwhile. */
PC_PAGED static struct request requests[CREATE_MAX];

/* For each container, by its place in the registry, what its processes of ours share: which of
   them waits for requests (init.c). One mapping for all: a page for each would be 4 KiB more. */
static _Atomic pid_t *spares;

void create_prepare(void)
{
    spares = mmap(NULL, CONTAINERS_MAX * sizeof *spares, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (spares == MAP_FAILED)
        _exit(1);
}

static int read_field(struct request *request, const struct pc_cursor *cursor, const char *value)
{
    size_t length = cursor->field.length;
    if (cursor->field.type == PC_F_NAME) {
        if (request->count == AT_ONCE || length == 0 || length >= NAME_SIZE)
            return -1;
        request->spec[request->count].capabilities = ~0ULL;
        memcpy(request->spec[request->count++].name, value, length + 1);
        return 0;
    }
    if (cursor->field.type == PC_F_LINK) {
        request->link = pc_u32(cursor, value);
        request->has_link = 1;
        return 0;
    }
    if (request->count == 0)
        return -1;
    return spec_read(&request->spec[request->count - 1], cursor, value);
}

static int parse(struct request *request, struct pc_in *in, struct pc_failure *failure)
{
    struct pc_cursor cursor;
    memset(request, 0, sizeof *request);
    request->number = in->header.request;
    request->deadline = pc_now_us() + SETUP_PATIENCE_MS * 1000;
    for (int i = 0; i < AT_ONCE; i++)
        request->agent[i] = -1;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));)
        if (read_field(request, &cursor, value) < 0)
            return pc_fail_as(failure, "understand the request for", "a container", EPROTO, NULL);
    int complete = request->count > 0 && (!request->has_link || request->count == LINK_ENDS);
    for (int i = 0; i < request->count; i++)
        complete = complete && request->spec[i].hosts && (!request->has_link || request->spec[i].end.name[0]);
    return complete ? 0 : pc_fail_as(failure, "understand the request for", "a container", EPROTO, "fields are missing");
}

/* A limit on namespaces counts those that are dead until the kernel has freed them, some
   tens of milliseconds later: so ENOSPC means to wait, though not for ever. */
static int wait_for_freed(int64_t deadline)
{
    if (errno != ENOSPC || pc_now_us() > deadline || lifeline_is_cut())
        return 0;
    nanosleep(&(struct timespec){ .tv_nsec = FREE_PAUSE_MS * 1000000L }, NULL);
    return 1;
}

static int fail_limit(struct pc_failure *failure, const char *step, const char *object)
{
    return pc_fail_as(failure, step, object, errno, errno == ENOSPC ? "a limit on namespaces is reached: see sysctl user.max_net_namespaces and its kin" : NULL);
}

/* Leaves this process with every namespace of its own but the network's. Not done by the
   clone, since the lab would wait for it: so both hosts do it side by side. */
static int leave_namespaces(const struct container_spec *spec, struct steps *steps)
{
    const int64_t deadline = pc_now_us() + FREE_PATIENCE_MS * 1000;
    if (!step_begins(steps, "make the namespaces of", spec->name))
        return -1;
    while (unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP) < 0)
        if (!wait_for_freed(deadline))
            return fail_limit(steps->failure, "make the namespaces of", spec->name);
    return 0;
}

/* Writes a setting of this process's network. Either proc shows the network of who looks. */
static int write_setting(const struct container_spec *spec, const char *setting, const char *value)
{
    char path[SETTING_PATH_SIZE];
    if (snprintf(path, sizeof path, "%s/sys/net/%s", spec->network_last ? "/proc" : MACHINE_PROC, setting) >= SETTING_PATH_SIZE) {
        errno = ENAMETOOLONG;
        return -1;
    }
    return pc_write_file(AT_FDCWD, path, value, strlen(value));
}

/* Sets a number of this process's network to 0, where the kernel has it: without IPv6 there is
   no such file. */
static int set_network(const struct container_spec *spec, struct steps *steps, const char *step, const char *setting)
{
    if (!step_begins(steps, step, spec->name))
        return -1;
    if (write_setting(spec, setting, "0") < 0 && errno != ENOENT && errno != EROFS && errno != EACCES)
        return pc_fail(steps->failure, step, spec->name);
    return 0;
}

/* What was asked for: "ipv4/ip_forward=1". One that begins with "-" need not be there. */
static int apply_settings(const struct container_spec *spec, struct steps *steps)
{
    char name[SETTING_PATH_SIZE];
    for (int i = 0; i < spec->setting_count; i++) {
        const char *setting = spec->settings[i];
        const int optional = setting[0] == '-';
        const char *equals = strchr(setting, '=');
        if (!step_begins(steps, "set", setting))
            return -1;
        if (!equals || equals - setting >= SETTING_PATH_SIZE)
            return pc_fail_as(steps->failure, "set", setting, EINVAL, NULL);
        memcpy(name, setting + optional, (size_t)(equals - setting - optional));
        name[equals - setting - optional] = '\0';
        if (write_setting(spec, name, equals + 1) < 0 && !(optional && errno == ENOENT))
            return pc_fail_as(steps->failure, "set", setting, errno, "see sysctl(8): it is below net. of the host");
    }
    return 0;
}

/* Gives this process a network of its own; *netlink becomes a socket of it. */
static int enter_network(int *netlink, const struct container_spec *spec, struct steps *steps)
{
    const int64_t deadline = pc_now_us() + FREE_PATIENCE_MS * 1000;
    if (spec->host_network)
        return 0;
    if (!step_begins(steps, "make a network namespace for", spec->name))
        return -1;
    while (unshare(CLONE_NEWNET) < 0)
        if (!wait_for_freed(deadline))
            return fail_limit(steps->failure, "make a network namespace for", spec->name);
    if (set_network(spec, steps, "switch off address detection for", "ipv6/conf/default/accept_dad") < 0)
        return -1;
    /* As container engines do: a daemon need not be root to listen on its port, which it
       cannot be where one id alone is mapped and it drops its own. */
    if (set_network(spec, steps, "open the low ports of", "ipv4/ip_unprivileged_port_start") < 0)
        return -1;
    if (apply_settings(spec, steps) < 0 || !step_begins(steps, "open a netlink socket in", spec->name))
        return -1;
    *netlink = nl_open();
    return *netlink < 0 ? pc_fail(steps->failure, "open a netlink socket in", spec->name) : 0;
}

/* Closes everything that came with the lab's memory but what this container needs. The line
   between pytest and the lab gives its place to the template's mounts. */
static void close_others(int first, int second, const struct rootfs *rootfs)
{
    int low = first < second ? first : second, high = first < second ? second : first;
    if (!rootfs || dup3(rootfs->mounts, FD_CONTROL, O_CLOEXEC) < 0)
        close(FD_CONTROL);
    if (low > FD_SECOND + 1)
        pc_close_range(FD_SECOND + 1, (unsigned)low - 1, 0);
    if (high > low + 1)
        pc_close_range((unsigned)low + 1, (unsigned)high - 1, 0);
    pc_close_range((unsigned)high + 1, ~0U, 0);
}

/* Whoever is to have another root starts from that one's template. */
static int enter_rootfs(struct steps *steps)
{
    if (!step_begins(steps, "enter", "the template of the root file system"))
        return -1;
    if (setns(FD_CONTROL, CLONE_NEWNS) < 0)
        return pc_fail(steps->failure, "enter", "the template of the root file system");
    return close(FD_CONTROL);
}

/* The first process of a container. */
static _Noreturn void set_up(const struct template *machine, const struct rootfs *rootfs, const struct lab_options *options, const struct container_spec *spec, int agent, int lab, _Atomic pid_t *spare)
{
    struct pc_failure failure = { 0 };
    struct steps steps = { .fail_at = options->fail_step, .failure = &failure };
    struct pc_out out;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* a belt to the braces of the lifelines */
    close_others(agent, lab, rootfs);
    setsid();
    /* The kernel makes one network namespace at a time, so the second host of a pair builds
       its root first and comes to it when the first has its own. */
    int failed = 0, netlink = -1;
    if (!spec->network_last)
        failed = enter_network(&netlink, spec, &steps) < 0;
    if (rootfs)
        failed = failed || enter_rootfs(&steps) < 0;
    failed = failed || leave_namespaces(spec, &steps) < 0 || root_build(rootfs ? &rootfs->template : machine, spec, &steps) < 0;
    if (spec->network_last)
        failed = failed || enter_network(&netlink, spec, &steps) < 0;
    if (failed || root_show_network(spec, &steps) < 0) {
        pc_begin(&out, FAILED, 0);
        pc_put(&out, 0, &failure, sizeof failure);
        pc_send(lab, &out, NULL, 0, 0);
        _exit(1);
    }
    int fds[] = { open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC), netlink };
    pc_begin(&out, READY, 0);
    if (fds[0] < 0 || pc_send(lab, &out, fds, netlink >= 0 ? 2 : 1, 0) < 0)
        _exit(1);
    close(fds[0]);
    if (netlink >= 0)
        close(netlink);
    init_run(agent, lab, options->rootless ? options->ids : 0, spec, spare);
}

static int start(const struct template *template, const struct lab_options *options, struct request *request, int i, struct pc_failure *failure)
{
    const int64_t deadline = pc_now_us() + FREE_PATIENCE_MS * 1000;
    int agent[2], status[2];
    const struct rootfs *rootfs = rootfs_find(request->spec[i].rootfs);
    if (request->spec[i].rootfs && !rootfs)
        return pc_fail_as(failure, "find the root file system of", request->spec[i].name, ENOENT, "it was given up");
    struct container *container = registry_add();
    if (!container)
        return pc_fail_as(failure, "create", request->spec[i].name, EMFILE, "too many containers in one lab");
    request->container[i] = container;
    container->building = 1;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) < 0)
        return pc_fail(failure, "make sockets for", request->spec[i].name);
    container->status = status[0];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, agent) < 0) {
        close(status[1]);
        return pc_fail(failure, "make sockets for", request->spec[i].name);
    }
    request->agent[i] = agent[0];
    _Atomic pid_t *spare = &spares[registry_place(container)];
    atomic_store(spare, 0);
    do
        container->pid = pc_clone(CLONE_NEWPID, &container->pidfd);
    while (container->pid < 0 && wait_for_freed(deadline));
    if (container->pid == 0)
        set_up(template, rootfs, options, &request->spec[i], agent[1], status[1], spare);
    int error = errno;
    close(agent[1]);
    close(status[1]);
    errno = error;
    if (container->pid > 0)
        return 0;
    container->pidfd = -1;
    return fail_limit(failure, "make the namespaces of", request->spec[i].name);
}

/* Takes the news that container i is set up, and what comes with it: its mount namespace,
   and a netlink socket in its network. */
static int receive_ready(struct request *request, int i, struct pc_failure *failure)
{
    struct container *container = request->container[i];
    struct pc_in in;
    struct pc_cursor cursor;
    if (pc_receive(container->status, &in) <= 0)
        return pc_fail_as(failure, "set up", request->spec[i].name, ECHILD, "its first process was killed");
    pc_fields(&cursor, &in);
    const char *value = pc_next(&cursor);
    if (in.header.op == FAILED && value)
        memcpy(failure, value, sizeof *failure);
    if (in.fd_count >= 1)
        container->mounts = in.fds[0];
    if (in.fd_count == 2)
        container->netlink = in.fds[1];
    in.fd_count = 0;
    pc_release(&in);
    return in.header.op == READY ? 0 : -1;
}

/* Both hosts are built side by side, and wired when they stand. To overlap that was tried in
   three ways: the kernel's locks (rtnl, kernfs) make them wait for each other in turns, and
   its grace periods come late while both processors are busy, so it took longer. */
static int wire(struct request *request, int fabric, struct pc_failure *failure)
{
    struct link_end end[LINK_ENDS];
    for (int i = 0; i < request->count; i++) {
        struct container *container = request->container[i];
        if (request->has_link) {
            end[i] = request->spec[i].end;
            end[i].pid = container->pid;
            end[i].netlink = container->netlink;
        } else if (container->netlink >= 0 && link_loopback(container->netlink, failure) < 0) {
            return -1;
        }
    }
    return request->has_link ? link_wire(fabric, request->link, end, failure) : 0;
}

static int answer(struct request *request)
{
    int fds[2 * AT_ONCE];
    struct pc_out out;
    pc_begin(&out, PC_OK, request->number);
    for (int i = 0; i < request->count; i++) {
        pc_put_u32(&out, PC_F_ID, request->container[i]->id);
        fds[2 * i] = request->agent[i];
        fds[2 * i + 1] = request->container[i]->pidfd;
    }
    return pc_send(FD_CONTROL, &out, fds, 2 * request->count, 0);
}

static void finish(struct request *request)
{
    for (int i = 0; i < request->count; i++) {
        if (request->agent[i] >= 0)
            close(request->agent[i]);
        if (request->container[i])
            request->container[i]->building = 0;
    }
    request->count = 0;
}

static void fail(struct request *request, struct pc_failure *failure)
{
    struct ending ending = { .count = 0 };
    for (int i = 0; i < request->count; i++)
        if (request->container[i])
            end_one(&ending, request->container[i]);
    end_await(&ending);
    end_drop_mounts(&ending);
    if (!failure->step)
        pc_fail_as(failure, "hand over", request->spec[0].name, EIO, NULL);
    pc_send_failure(FD_CONTROL, request->number, failure);
    finish(request);
}

void create_serve(const struct template *template, const struct lab_options *options, struct pc_in *in)
{
    struct request *request = requests;
    struct pc_failure failure = { 0 };
    while (request < requests + CREATE_MAX && request->count > 0)
        request++;
    if (request == requests + CREATE_MAX) {
        pc_send_error(FD_CONTROL, in->header.request, "create", "so many containers at once", EBUSY, "wait for one of those that were asked for");
        return;
    }
    int failed = parse(request, in, &failure) < 0;
    for (int i = 0; i < request->count && !failed; i++) {
        request->spec[i].network_last = i & 1;
        failed = start(template, options, request, i, &failure) < 0;
    }
    if (failed)
        fail(request, &failure);
}

/* The first of its containers that does not stand yet; request->count: all do. */
static int awaited(const struct request *request)
{
    int i = 0;
    while (i < request->count && request->ready[i])
        i++;
    return i;
}

void create_polls(struct pollfd *polls)
{
    for (int i = 0; i < CREATE_MAX; i++) {
        const struct request *request = &requests[i];
        const int fd = request->count > 0 ? request->container[awaited(request)]->status : -1;
        polls[i] = (struct pollfd){ .fd = fd, .events = POLLIN };
    }
}

static int progress(struct request *request, int fabric, int has_news, struct pc_failure *failure)
{
    if (!has_news)
        return pc_now_us() < request->deadline ? 0 : pc_fail_as(failure, "set up", request->spec[0].name, ETIMEDOUT, NULL);
    const int i = awaited(request);
    if (receive_ready(request, i, failure) < 0)
        return -1;
    request->ready[i] = 1;
    if (awaited(request) < request->count)
        return 0;
    if (wire(request, fabric, failure) < 0 || answer(request) < 0)
        return -1;
    finish(request);
    return 0;
}

void create_progress(int fabric, const struct pollfd *polls)
{
    for (int i = 0; i < CREATE_MAX; i++) {
        struct pc_failure failure = { 0 };
        if (requests[i].count > 0 && progress(&requests[i], fabric, polls[i].revents != 0, &failure) < 0)
            fail(&requests[i], &failure);
    }
}

void create_forget(void)
{
    pc_forget(requests, sizeof requests);
}

int create_is_busy(void)
{
    for (int i = 0; i < CREATE_MAX; i++)
        if (requests[i].count > 0)
            return 1;
    return 0;
}

void create_abandon(void)
{
    struct pc_failure failure = { 0 };
    pc_fail_as(&failure, "go on building", "containers", ECANCELED, NULL);
    for (struct request *request = requests; request < requests + CREATE_MAX; request++)
        if (request->count > 0)
            fail(request, &failure);
}
