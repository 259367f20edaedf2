/* The first process of a container: reaps, and serves as pytest's agent inside.

   Serving a command means to watch over it, which takes a process of its own. That of the
   first one stays when the command has ended, as a spare: it reads the requests itself, so
   that no fork is waited for. While it has a command that goes on, there is another. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
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
#include "create.h"
#include "file.h"
#include "launch.h"
#include "lifeline.h"
#include "proxy.h"
#include "pty.h"
#include "registry.h"

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

static int rewrite(const char *path, const char *text, size_t length)
{
    CLEANUP_FD int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return fd >= 0 && write(fd, text, length) == (ssize_t)length ? 0 : -1;
}

/* A host that was built ahead gets its name when somebody wants it. */
static int rename_host(struct pc_in *in, const char **object)
{
    struct pc_cursor cursor;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        const size_t length = cursor.field.length;
        if (cursor.field.type == PC_F_HOSTS) {
            *object = "/etc/hosts";
            if (rewrite("/etc/hosts", value, length) < 0)
                return -1;
        } else if (cursor.field.type == PC_F_NAME) {
            *object = "the host name";
            if (sethostname(value, length) < 0)
                return -1;
            *object = "/etc/hostname";
            value[length] = '\n'; /* the byte behind a value may be written, see message.h */
            if (rewrite("/etc/hostname", value, length + 1) < 0)
                return -1;
        }
    }
    return 0;
}

static void answer_rename(int agent, struct pc_in *in)
{
    struct pc_out out;
    const char *object = NULL;
    pc_begin(&out, PC_OK, in->header.request);
    if (rename_host(in, &object) < 0)
        pc_send_error(agent, in->header.request, "set", object, errno, NULL);
    else
        pc_send(agent, &out, NULL, 0, 0);
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
    else if (in->header.op == PC_RENAME)
        answer_rename(agent->socket, in);
    else if (in->header.op == PC_EXPOSE)
        proxy_serve(agent->socket, in);
    else if (in->header.op == PC_OPEN)
        file_serve(agent->socket, in);
    else if (in->header.op == PC_PTY)
        pty_serve(agent->socket, in);
    else
        pc_send_error(agent->socket, in->header.request, "do a request", "this agent knows no such one", ENOSYS, "not in this version");
}

/* 1: a request is in `in`. 0: pytest has closed its end. -1: there is none, or one that
   could not be had. */
static int receive(const struct agent *agent, struct pc_in *in, int flags)
{
    int got = pc_receive_with(agent->socket, in, flags);
    if (got >= 0)
        return got;
    if (errno == EAGAIN)
        return -1;
    if (errno != EMFILE && errno != EPROTO)
        return 0;
    pc_send_error(agent->socket, in->header.request, "receive a request", NULL, errno, NULL);
    pc_release(in);
    return -1;
}

/* Which watcher waits for requests in the init's place, 0: none. It is in memory that all
   of the container's watchers share with the init. */
static _Atomic pid_t *spare;
/* An eventfd to the init: look at `spare` again. */
static int news = -1;

/* A watcher that dies while it says so cannot be mistaken: the init reaps it. */
static int become_spare(void)
{
    pid_t nobody = 0;
    if (!atomic_compare_exchange_strong(spare, &nobody, getpid()))
        return 0;
    eventfd_write(news, 1);
    return 1;
}

/* What is asked for while our command runs is the init's business again. Not said at once: to wake the init twice
   is a tenth of what a short command takes. */
static void be_taken(void)
{
    pid_t own = getpid();
    atomic_compare_exchange_strong(spare, &own, 0);
    eventfd_write(news, 1);
}

#define WATCHER "pc-watcher"

/* A spare that was killed must leave alone what is asked for afterwards. recvmsg(2) would not:
   woken by a signal it takes what has come meanwhile, and the request dies with us. */
static int receive_when_alive(const struct agent *agent, struct pc_in *in)
{
    struct pollfd request = { .fd = agent->socket, .events = POLLIN };
    while (poll(&request, 1, -1) < 0 && errno == EINTR)
        continue;
    return receive(agent, in, MSG_DONTWAIT);
}

/* The life of a watcher, from command to command. */
static _Noreturn void attend(const struct agent *agent)
{
    struct pc_in in;
    if (!become_spare())
        _exit(0);
    for (int got; (got = receive_when_alive(agent, &in)) != 0;) {
        if (got < 0)
            continue;
        if (in.header.op != PC_EXEC) {
            serve(agent, &in);
            pc_release(&in);
            continue;
        }
        command_watch(&in, agent, be_taken);
        if (atomic_load(spare) != getpid() && !become_spare())
            break; /* another took our place meanwhile */
    }
    _exit(0);
}

static void fork_spare(const struct agent *agent)
{
    if (pc_clone(0, NULL) == 0) {
        prctl(PR_SET_NAME, WATCHER, 0, 0, 0);
        attend(agent);
    }
}

/* Serves one request in the init, without a spare; returns 0 when pytest has closed.
   *wanted is set once there was a command: then there will be others. */
static int serve_once(const struct agent *agent, int *wanted)
{
    struct pc_in in;
    /* Not waiting: a watcher may have become the spare just now, and have read it. */
    int got = receive(agent, &in, MSG_DONTWAIT);
    if (got <= 0)
        return got != 0;
    if (in.header.op == PC_EXEC) {
        pid_t pid = pc_clone(0, NULL);
        if (pid == 0) {
            prctl(PR_SET_NAME, WATCHER, 0, 0, 0);
            command_watch(&in, agent, NULL);
            attend(agent);
        }
        if (pid < 0 && in.fd_count > 0)
            pc_send_error(in.fds[0], 0, "start a process", "for the command", errno, NULL);
        *wanted = 1;
    } else {
        serve(agent, &in);
    }
    pc_release(&in);
    return 1;
}

/* What a service may need of root, and nothing that reaches out of the container.
   (CAP_DAC_READ_SEARCH would: open_by_handle_at(2) finds any file of a file system of
   which one directory is bound writable.) The bounding set holds for every exec, so one
   place is enough. */
static void drop_capabilities(const struct container_spec *spec)
{
    uint64_t kept = 1ULL << CAP_CHOWN | 1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_FOWNER
        | 1ULL << CAP_FSETID | 1ULL << CAP_KILL | 1ULL << CAP_SETGID | 1ULL << CAP_SETUID | 1ULL << CAP_SETPCAP
        | 1ULL << CAP_NET_BIND_SERVICE | 1ULL << CAP_NET_BROADCAST | 1ULL << CAP_NET_ADMIN | 1ULL << CAP_NET_RAW
        | 1ULL << CAP_IPC_LOCK | 1ULL << CAP_SYS_CHROOT | 1ULL << CAP_AUDIT_WRITE | 1ULL << CAP_SETFCAP;
    kept &= spec->capabilities;
    if (spec->host_network)
        kept &= ~(1ULL << CAP_NET_ADMIN); /* it would be the machine's network that is administered */
    for (int capability = 0; capability < 64; capability++)
        if (!(kept >> capability & 1) && prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0)
            break; /* EINVAL: past the last one that this kernel has */
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}

/* A command may stop all that it sees (kill -STOP -1), but not what serves the others: that
   alone is of our session, since each command has one of its own. */
static void reap(void)
{
    int status;
    for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG | __WALL | WUNTRACED)) > 0;) {
        if (!WIFSTOPPED(status))
            atomic_compare_exchange_strong(spare, &pid, 0);
        else if (getsid(pid) == getsid(0))
            kill(pid, SIGCONT);
    }
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

/* So long after a spare was taken another is forked, when its command goes on: not while
   that starts, when it would be in its way. */
enum { SPARE_AFTER_MS = 5 };

_Noreturn void init_run(int agent_socket, int lab, int rootless_ids, const struct container_spec *spec, _Atomic pid_t *shared)
{
    enum { AGENT = LIFELINE_FDS, LAB, SIGNALS, NEWS, COUNT };
    struct pollfd polls[COUNT];
    struct agent agent = { .socket = agent_socket, .signals = open_signals(), .rootless_ids = rootless_ids };
    struct signalfd_siginfo ignored;
    eventfd_t told;
    struct pc_in in;
    int wanted = 0, kept = 0;
    news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    spare = shared;
    drop_capabilities(spec);
    for (int i = 0; i < spec->limit_count; i++)
        launch_limit(&spec->limits[i]);
    /* Or what the lab writes there from now on would be a copy, for as long as we live. */
    create_forget();
    registry_forget();
    prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    umask_for_commands();
    prctl(PR_SET_NAME, "pc-init", 0, 0, 0);
    lifeline_fill(polls);
    polls[LAB] = (struct pollfd){ .fd = lab, .events = POLLIN };
    polls[SIGNALS] = (struct pollfd){ .fd = agent.signals, .events = POLLIN };
    polls[NEWS] = (struct pollfd){ .fd = news, .events = POLLIN };
    for (;;) {
        /* While there is a spare, requests are its business. */
        const int attended = atomic_load(spare) != 0;
        polls[AGENT] = (struct pollfd){ .fd = attended ? -1 : agent.socket, .events = POLLIN };
        int ready = poll(polls, COUNT, wanted && !attended ? SPARE_AFTER_MS : -1);
        if (ready < 0 && errno != EINTR)
            _exit(1);
        if (ready == 0)
            fork_spare(&agent);
        if (ready <= 0)
            continue;
        /* The lab says one thing only: from now on it alone is what we live by (keep.h). */
        if ((polls[LAB].revents & POLLIN) && !kept && pc_receive(lab, &in) > 0) {
            kept = 1;
            for (int i = 0; i < LIFELINE_FDS; i++)
                polls[i].fd = -1;
            continue;
        }
        if (lifeline_cut(polls) || (polls[LAB].revents & (POLLHUP | POLLERR)))
            _exit(0); /* the kernel ends everything else in this pid namespace */
        if (polls[SIGNALS].revents & POLLIN) {
            while (read(agent.signals, &ignored, sizeof ignored) > 0)
                continue;
            reap();
        }
        if (polls[NEWS].revents & POLLIN)
            eventfd_read(news, &told);
        /* Who made the container holds the line to us. When nobody does any more, be it that
           an interrupted pytest lost it before anybody owned it, nobody can end it but we. */
        if ((polls[AGENT].revents & (POLLIN | POLLHUP)) && !serve_once(&agent, &wanted))
            _exit(0);
    }
}
