#define _GNU_SOURCE
#include "create.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../common/sys.h"
#include "container.h"
#include "lifeline.h"
#include "netlink.h"
#include "registry.h"

enum { AT_ONCE = 2, SETUP_PATIENCE_MS = 15000, FREE_PATIENCE_MS = 8000, FREE_PAUSE_MS = 4 };

/* What a container's first process tells the lab when its set-up has come to an end. The
   pointers in the failure are to our common program text, so they mean the same to both. */
enum { READY = 'R', FAILED = 'F' };

struct request {
    struct container_spec spec[AT_ONCE];
    struct container *container[AT_ONCE];
    int agent[AT_ONCE]; /* pytest's ends */
    int count;
    int has_link;
    uint32_t link;
};

static int read_field(struct request *request, const struct pc_cursor *cursor, const char *value)
{
    size_t length = cursor->field.length;
    if (cursor->field.type == PC_F_NAME) {
        if (request->count == AT_ONCE || length == 0 || length >= NAME_SIZE)
            return -1;
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
    struct container_spec *spec = &request->spec[request->count - 1];
    switch (cursor->field.type) {
    case PC_F_HOSTS:
        spec->hosts = value;
        spec->hosts_length = length;
        return 0;
    case PC_F_NETWORK:
        spec->host_network = pc_u32(cursor, value) == PC_NETWORK_HOST;
        return 0;
    case PC_F_INTERFACE:
        if (length == 0 || length >= LINK_NAME_SIZE)
            return -1;
        memcpy(spec->end.name, value, length + 1);
        return 0;
    case PC_F_MAC:
        if (length != 6)
            return -1;
        memcpy(spec->end.mac, value, 6);
        return 0;
    case PC_F_IP4:
        if (length != 5)
            return -1;
        memcpy(spec->end.ip4, value, 4);
        spec->end.prefix4 = (uint8_t)value[4];
        return 0;
    case PC_F_IP6:
        if (length != 17)
            return -1;
        memcpy(spec->end.ip6, value, 16);
        spec->end.prefix6 = (uint8_t)value[16];
        return 0;
    default:
        return -1;
    }
}

static int parse(struct request *request, struct pc_in *in, struct pc_failure *failure)
{
    struct pc_cursor cursor;
    memset(request, 0, sizeof *request);
    request->agent[0] = request->agent[1] = -1;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));)
        if (read_field(request, &cursor, value) < 0)
            return pc_fail_as(failure, "understand the request for", "a container", EPROTO, NULL);
    int complete = request->count > 0 && (!request->has_link || request->count == AT_ONCE);
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
    if (!step_begins(steps, "switch off address detection for", spec->name))
        return -1;
    /* Either proc shows the network of who looks. Without IPv6 there is no file. */
    const char *setting = spec->network_last ? "/proc/sys/net/ipv6/conf/default/accept_dad" : MACHINE_PROC "/sys/net/ipv6/conf/default/accept_dad";
    if (pc_write_file(AT_FDCWD, setting, "0", 1) < 0 && errno != ENOENT && errno != EROFS && errno != EACCES)
        return pc_fail(steps->failure, "switch off address detection for", spec->name);
    if (!step_begins(steps, "open a netlink socket in", spec->name))
        return -1;
    *netlink = nl_open();
    return *netlink < 0 ? pc_fail(steps->failure, "open a netlink socket in", spec->name) : 0;
}

/* Closes everything that came with the lab's memory but what this container needs. */
static void close_others(int first, int second)
{
    int low = first < second ? first : second, high = first < second ? second : first;
    close(FD_CONTROL);
    if (low > FD_SECOND + 1)
        pc_close_range(FD_SECOND + 1, (unsigned)low - 1, 0);
    if (high > low + 1)
        pc_close_range((unsigned)low + 1, (unsigned)high - 1, 0);
    pc_close_range((unsigned)high + 1, ~0U, 0);
}

/* The first process of a container. */
static _Noreturn void set_up(const struct template *template, const struct lab_options *options, const struct container_spec *spec, int agent, int lab)
{
    struct pc_failure failure = { 0 };
    struct steps steps = { .fail_at = options->fail_step, .failure = &failure };
    struct pc_out out;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* a belt to the braces of the lifelines */
    close_others(agent, lab);
    setsid();
    /* The kernel makes one network namespace at a time, so the second host of a pair builds
       its root first and comes to it when the first has its own. */
    int failed = 0, netlink = -1;
    if (!spec->network_last)
        failed = enter_network(&netlink, spec, &steps) < 0;
    failed = failed || leave_namespaces(spec, &steps) < 0 || root_build(template, spec, &steps) < 0;
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
    init_run(agent, lab, options->rootless ? options->ids : 0, spec->host_network);
}

static int start(const struct template *template, const struct lab_options *options, struct request *request, int i, struct pc_failure *failure)
{
    const int64_t deadline = pc_now_us() + FREE_PATIENCE_MS * 1000;
    int agent[2], status[2];
    struct container *container = registry_add();
    if (!container)
        return pc_fail_as(failure, "create", request->spec[i].name, EMFILE, "too many containers in one lab");
    request->container[i] = container;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) < 0)
        return pc_fail(failure, "make sockets for", request->spec[i].name);
    container->status = status[0];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, agent) < 0) {
        close(status[1]);
        return pc_fail(failure, "make sockets for", request->spec[i].name);
    }
    request->agent[i] = agent[0];
    do
        container->pid = pc_clone(CLONE_NEWPID, &container->pidfd);
    while (container->pid < 0 && wait_for_freed(deadline));
    if (container->pid == 0)
        set_up(template, options, &request->spec[i], agent[1], status[1]);
    int error = errno;
    close(agent[1]);
    close(status[1]);
    errno = error;
    if (container->pid > 0)
        return 0;
    container->pidfd = -1;
    return fail_limit(failure, "make the namespaces of", request->spec[i].name);
}

/* Waits until container i is set up; takes what comes with the news: its mount namespace,
   and a netlink socket in its network. */
static int await(struct request *request, int i, struct pc_failure *failure)
{
    struct container *container = request->container[i];
    struct pollfd polls[LIFELINE_FDS + 1];
    lifeline_fill(polls);
    polls[LIFELINE_FDS] = (struct pollfd){ .fd = container->status, .events = POLLIN };
    int ready;
    do
        ready = poll(polls, LIFELINE_FDS + 1, SETUP_PATIENCE_MS);
    while (ready < 0 && errno == EINTR);
    if (ready > 0 && lifeline_cut(polls))
        _exit(0);
    struct pc_in in;
    struct pc_cursor cursor;
    if (ready == 0)
        return pc_fail_as(failure, "set up", request->spec[i].name, ETIMEDOUT, NULL);
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
static int build(const struct template *template, const struct lab_options *options, int fabric, struct request *request, struct pc_failure *failure)
{
    struct link_end end[LINK_ENDS];
    for (int i = 0; i < request->count; i++) {
        request->spec[i].network_last = i > 0;
        if (start(template, options, request, i, failure) < 0)
            return -1;
    }
    for (int i = 0; i < request->count; i++) {
        struct container *container = request->container[i];
        if (await(request, i, failure) < 0)
            return -1;
        container->link = request->link;
        container->which = i;
        container->end = request->spec[i].end;
        container->end.pid = container->pid;
        container->end.netlink = container->netlink;
        end[i] = container->end;
        if (!request->has_link && container->netlink >= 0 && link_loopback(container->netlink, failure) < 0)
            return -1;
    }
    return request->has_link ? link_wire(fabric, request->link, end, failure) : 0;
}

static int answer(struct request *request, uint32_t number)
{
    int fds[2 * AT_ONCE];
    struct pc_out out;
    pc_begin(&out, PC_OK, number);
    for (int i = 0; i < request->count; i++) {
        pc_put_u32(&out, PC_F_ID, request->container[i]->id);
        fds[2 * i] = request->agent[i];
        fds[2 * i + 1] = request->container[i]->pidfd;
    }
    return pc_send(FD_CONTROL, &out, fds, 2 * request->count, 0);
}

void create_serve(const struct template *template, const struct lab_options *options, int fabric, struct pc_in *in)
{
    struct request request;
    struct pc_failure failure = { 0 };
    const uint32_t number = in->header.request;
    int failed = parse(&request, in, &failure) < 0 || build(template, options, fabric, &request, &failure) < 0 || answer(&request, number) < 0;
    for (int i = 0; i < request.count; i++)
        if (request.agent[i] >= 0)
            close(request.agent[i]);
    if (!failed)
        return;
    int mounts;
    for (int i = 0; i < request.count; i++)
        if (request.container[i])
            registry_kill(request.container[i]);
    for (int i = 0; i < request.count; i++)
        if (request.container[i] && registry_bury(request.container[i], &mounts) == 0 && mounts >= 0)
            close(mounts);
    if (!failure.step)
        pc_fail_as(&failure, "hand over", request.spec[0].name, EIO, NULL);
    pc_send_failure(FD_CONTROL, number, &failure);
}
