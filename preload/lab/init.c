/* The first process of a container: reaps, and serves as pytest's agent inside.

   Serving a command means to become its watcher, so it takes a process of its own. From the
   second command on that process is there beforehand: a spare, which reads the requests
   itself and tells the init when it is used up, so that the fork is not waited for. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/message.h"
#include "../common/sys.h"
#include "command.h"
#include "container.h"
#include "lifeline.h"

static void answer_socket(int agent, struct pc_in *in)
{
    struct pc_cursor cursor;
    uint32_t family = 0, type = 0, protocol = 0;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        if (cursor.field.type == PC_F_FAMILY)
            family = pc_u32(&cursor, value);
        else if (cursor.field.type == PC_F_TYPE)
            type = pc_u32(&cursor, value);
        else if (cursor.field.type == PC_F_PROTOCOL)
            protocol = pc_u32(&cursor, value);
    }
    struct pc_out out;
    CLEANUP_FD int fd = socket((int)family, (int)type | SOCK_CLOEXEC, (int)protocol);
    if (fd < 0) {
        pc_send_error(agent, in->header.request, "make a socket", NULL, errno, NULL);
        return;
    }
    pc_begin(&out, PC_OK, in->header.request);
    pc_send(agent, &out, &fd, 1, 0);
}

static void answer_netns(int agent, struct pc_in *in)
{
    struct pc_out out;
    CLEANUP_FD int fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        pc_send_error(agent, in->header.request, "open the network namespace", NULL, errno, NULL);
        return;
    }
    pc_begin(&out, PC_OK, in->header.request);
    pc_send(agent, &out, &fd, 1, 0);
}

/* Serves a request other than PC_EXEC. */
static void serve(const struct agent *agent, struct pc_in *in)
{
    if (in->header.op == PC_SOCKET)
        answer_socket(agent->socket, in);
    else if (in->header.op == PC_NETNS)
        answer_netns(agent->socket, in);
    else
        pc_send_error(agent->socket, in->header.request, "do a request", "this agent knows no such one", ENOSYS, "not in this version");
}

/* 1: a request is in `in`. 0: pytest has closed its end. -1: one that could not be had. */
static int receive(const struct agent *agent, struct pc_in *in)
{
    int got = pc_receive(agent->socket, in);
    if (got >= 0)
        return got;
    if (errno != EMFILE && errno != EPROTO)
        return 0;
    pc_send_error(agent->socket, in->header.request, "receive a request", NULL, errno, NULL);
    pc_release(in);
    return -1;
}

/* An eventfd to the init: what watchers have to tell it, added up. */
static int news = -1;
enum { SPARE_TAKEN = 1, COMMAND_ENDED = 1 << 16 };

static void tell_taken(void)
{
    eventfd_write(news, SPARE_TAKEN);
}

static void tell_ended(void)
{
    eventfd_write(news, COMMAND_ENDED);
}

static void tell_nobody(void)
{
}

static const struct watcher_news from_spare = { tell_taken, tell_ended };
static const struct watcher_news from_other = { tell_nobody, tell_ended };

static _Noreturn void be_spare(const struct agent *agent)
{
    struct pc_in in;
    for (int got; (got = receive(agent, &in)) != 0;) {
        if (got < 0)
            continue;
        if (in.header.op == PC_EXEC)
            command_watch(&in, agent, &from_spare);
        serve(agent, &in);
        pc_release(&in);
    }
    _exit(0);
}

/* Returns the spare's pid; 0 when there is none, and the init has to serve itself. */
static pid_t fork_spare(const struct agent *agent)
{
    pid_t pid = pc_clone(0, NULL);
    if (pid == 0)
        be_spare(agent);
    return pid > 0 ? pid : 0;
}

/* Serves one request in the init, without a spare; returns 0 when pytest has closed.
   *wanted is set once there was a command: then there will be others. */
static int serve_once(const struct agent *agent, int *wanted)
{
    struct pc_in in;
    int got = receive(agent, &in);
    if (got <= 0)
        return got != 0;
    if (in.header.op == PC_EXEC) {
        pid_t pid = pc_clone(0, NULL);
        if (pid == 0)
            command_watch(&in, agent, &from_other);
        if (pid < 0 && in.fd_count > 0)
            pc_send_error(in.fds[0], 0, "start a process", "for the command", errno, NULL);
        pc_release(&in);
        *wanted = 1;
        return 1;
    }
    serve(agent, &in);
    pc_release(&in);
    return 1;
}

/* What a service may need of root, and nothing that reaches out of the container.
   (CAP_DAC_READ_SEARCH would: open_by_handle_at(2) finds any file of a file system of
   which one directory is bound writable.) The bounding set holds for every exec, so one
   place is enough. */
static void drop_capabilities(int host_network)
{
    uint64_t kept = 1ULL << CAP_CHOWN | 1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_FOWNER
        | 1ULL << CAP_FSETID | 1ULL << CAP_KILL | 1ULL << CAP_SETGID | 1ULL << CAP_SETUID | 1ULL << CAP_SETPCAP
        | 1ULL << CAP_NET_BIND_SERVICE | 1ULL << CAP_NET_BROADCAST | 1ULL << CAP_NET_ADMIN | 1ULL << CAP_NET_RAW
        | 1ULL << CAP_IPC_LOCK | 1ULL << CAP_SYS_CHROOT | 1ULL << CAP_AUDIT_WRITE | 1ULL << CAP_SETFCAP;
    if (host_network)
        kept &= ~(1ULL << CAP_NET_ADMIN); /* it would be the machine's network that is administered */
    for (int capability = 0; capability < 64; capability++)
        if (!(kept >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
            break; /* EINVAL: past the last one that this kernel has */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* Reaps; returns whether `spare` was among the dead. */
static int reap(pid_t spare)
{
    int lost = 0;
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0;)
        lost |= pid == spare;
    return lost;
}

static int open_signals(void)
{
    sigset_t set;
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* A spare is forked when a command has ended, since the next one is asked for then, or
   after this time beside a long one: not while it starts, when it would be in its way. */
enum { SPARE_AFTER_MS = 5 };

_Noreturn void init_run(int agent_socket, int lab, int rootless_ids, int host_network)
{
    enum { AGENT = LIFELINE_FDS, LAB, SIGNALS, NEWS, COUNT };
    struct pollfd polls[COUNT];
    struct agent agent = { .socket = agent_socket, .signals = open_signals(), .rootless_ids = rootless_ids };
    struct signalfd_siginfo ignored;
    pid_t spare = 0;
    int wanted = 0;
    news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    drop_capabilities(host_network);
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    umask_for_commands();
    lifeline_fill(polls);
    polls[LAB] = (struct pollfd){ .fd = lab, .events = POLLIN };
    polls[SIGNALS] = (struct pollfd){ .fd = agent.signals, .events = POLLIN };
    polls[NEWS] = (struct pollfd){ .fd = news, .events = POLLIN };
    for (;;) {
        /* While there is a spare, requests are its business. */
        polls[AGENT] = (struct pollfd){ .fd = spare ? -1 : agent.socket, .events = POLLIN };
        int ready = poll(polls, COUNT, wanted && !spare ? SPARE_AFTER_MS : -1);
        eventfd_t told = 0;
        if (ready < 0 && errno != EINTR)
            _exit(1);
        if (ready > 0 && (lifeline_cut(polls) || (polls[LAB].revents & (POLLHUP | POLLERR))))
            _exit(0); /* the kernel ends everything else in this pid namespace */
        if (ready > 0 && (polls[SIGNALS].revents & POLLIN)) {
            while (read(agent.signals, &ignored, sizeof ignored) > 0)
                continue;
            if (reap(spare))
                spare = 0;
        }
        if (ready > 0 && (polls[NEWS].revents & POLLIN) && eventfd_read(news, &told) == 0 && told % COMMAND_ENDED)
            spare = 0;
        /* Who made the container holds the line to us. When nobody does any more, be it that
           an interrupted pytest lost it before anybody owned it, nobody can end it but we. */
        if (ready > 0 && (polls[AGENT].revents & (POLLIN | POLLHUP)) && !serve_once(&agent, &wanted))
            _exit(0);
        if (wanted && !spare && (ready == 0 || told >= COMMAND_ENDED))
            spare = fork_spare(&agent);
    }
}
