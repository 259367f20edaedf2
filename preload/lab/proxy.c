#define _GNU_SOURCE
#include "proxy.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/sys.h"
#include "relay.h"

/* Connections beyond the limit wait in the listener's queue. RESERVED are the standard
   descriptors, the listener, the epoll, the agent's socket, and some for good measure. */
enum { RELAYS_MOST = 4096, RESERVED_FDS = 16, EVENTS_AT_ONCE = 64, ACCEPTS_AT_ONCE = 64 };
enum { PATIENCE_MS = 100 }; /* after an accept that failed: the machine is out of something */

static const uint64_t OF_LISTENER = UINT64_MAX;

struct proxy {
    int listener, epoll;
    int accepting; /* the listener is watched */
    int64_t retry; /* pc_now_us() at which it is again; 0: when a connection has ended */
    struct targets targets;
    struct relay *relays, *free;
    size_t used, most;
};

static int read_request(struct targets *targets, struct pc_in *in)
{
    struct pc_cursor cursor;
    uint32_t port = 0;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        const uint32_t length = cursor.field.length;
        if (cursor.field.type == PC_F_PORT)
            port = pc_u32(&cursor, value);
        if (cursor.field.type != PC_F_ADDRESS)
            continue;
        if (targets->count == TARGETS_MAX || (length != 4 && length != 16))
            return -1;
        if (length == 4) {
            targets->address[targets->count].ip4.sin_family = AF_INET;
            memcpy(&targets->address[targets->count++].ip4.sin_addr, value, length);
        } else {
            targets->address[targets->count].ip6.sin6_family = AF_INET6;
            memcpy(&targets->address[targets->count++].ip6.sin6_addr, value, length);
        }
    }
    for (int i = 0; i < targets->count; i++) {
        if (targets->address[i].any.sa_family == AF_INET)
            targets->address[i].ip4.sin_port = htons((uint16_t)port);
        else
            targets->address[i].ip6.sin6_port = htons((uint16_t)port);
    }
    return targets->count > 0 && port > 0 && port <= UINT16_MAX ? 0 : -1;
}

static int is_listening(int fd)
{
    int listening = 0;
    socklen_t size = sizeof listening;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

/* Everything that came with the agent's memory but the two, which are above the standard
   descriptors. Pytest waits for the end of file on some of the rest. */
static void close_others(int first, int second)
{
    const unsigned low = (unsigned)(first < second ? first : second), high = (unsigned)(first < second ? second : first);
    if (low > 3)
        pc_close_range(3, low - 1, 0);
    if (high > low + 1)
        pc_close_range(low + 1, high - 1, 0);
    pc_close_range(high + 1, ~0U, 0);
}

/* Returns how many connections the limit on descriptors lets us have, having raised it. */
static size_t raise_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return 1;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < RESERVED_FDS + RELAY_FDS)
        return 1;
    const rlim_t most = (limit.rlim_cur - RESERVED_FDS) / RELAY_FDS;
    return most < RELAYS_MOST ? (size_t)most : RELAYS_MOST;
}

static int set_accepting(struct proxy *proxy, int accepting)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u64 = OF_LISTENER };
    if (proxy->accepting == accepting)
        return 0;
    proxy->accepting = accepting;
    /* Taken out, since its errors would be reported whatever it is watched for. */
    return epoll_ctl(proxy->epoll, accepting ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, proxy->listener, &event);
}

static int set_up(struct proxy *proxy)
{
    proxy->most = raise_limit();
    proxy->relays = mmap(NULL, proxy->most * sizeof *proxy->relays, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    proxy->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (proxy->relays == MAP_FAILED || proxy->epoll < 0 || fcntl(proxy->listener, F_SETFL, O_NONBLOCK) < 0)
        return -1;
    return set_accepting(proxy, 1);
}

static void discard(struct proxy *proxy, struct relay *relay)
{
    relay->next_free = proxy->free;
    proxy->free = relay;
}

/* Places are taken from those that ended, then from those that were never used. */
static struct relay *find_place(struct proxy *proxy)
{
    struct relay *relay = proxy->free;
    if (relay)
        proxy->free = relay->next_free;
    else if (proxy->used < proxy->most)
        relay = &proxy->relays[proxy->used++];
    return relay;
}

static void accept_some(struct proxy *proxy)
{
    for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
        struct relay *relay = find_place(proxy);
        if (!relay) {
            set_accepting(proxy, 0);
            return;
        }
        const int client = accept4(proxy->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        const int error = errno;
        if (client < 0 || relay_open(relay, client, proxy->epoll, 2 * (uint64_t)(relay - proxy->relays), &proxy->targets) < 0)
            discard(proxy, relay);
        if (client >= 0 || error == ECONNABORTED || error == EINTR)
            continue;
        if (error != EAGAIN) {
            set_accepting(proxy, 0);
            proxy->retry = pc_now_us() + PATIENCE_MS * 1000;
        }
        return;
    }
}

static _Noreturn void forward(struct proxy *proxy)
{
    struct epoll_event events[EVENTS_AT_ONCE];
    for (;;) {
        const int count = epoll_wait(proxy->epoll, events, EVENTS_AT_ONCE, proxy->retry ? PATIENCE_MS : -1);
        int incoming = 0, room = proxy->retry && pc_now_us() >= proxy->retry;
        if (count < 0 && errno != EINTR)
            _exit(1);
        for (int i = 0; i < count; i++) {
            const uint64_t tag = events[i].data.u64;
            if (tag == OF_LISTENER) {
                incoming = 1; /* at the end: a new connection must not get an old one's event */
                continue;
            }
            struct relay *relay = &proxy->relays[tag / 2];
            if (relay->client >= 0 && relay_advance(relay, tag & 1, events[i].events, proxy->epoll, tag & ~1ULL, &proxy->targets) < 0) {
                discard(proxy, relay);
                room = 1;
            }
        }
        if (room) {
            proxy->retry = 0;
            set_accepting(proxy, 1);
        }
        if (incoming)
            accept_some(proxy);
    }
}

static _Noreturn void run(int agent_socket, uint32_t request, struct proxy *proxy)
{
    struct pc_out out;
    prctl(PR_SET_NAME, "pc-expose", 0, 0, 0);
    signal(SIGPIPE, SIG_IGN); /* splice(2) has no MSG_NOSIGNAL */
    close_others(agent_socket, proxy->listener);
    if (set_up(proxy) < 0) {
        pc_send_error(agent_socket, request, "start a proxy for", "the port", errno, NULL);
        _exit(1);
    }
    pc_begin(&out, PC_OK, request);
    pc_send(agent_socket, &out, NULL, 0, 0);
    close(agent_socket);
    forward(proxy);
}

/* A watcher waits for all its children, and kills them when asked to: so the new process
   becomes its sibling. (Only the init has no parent in its namespace to give it to.) The raw
   clone(2), as clone3(2) takes no SIGCHLD here and seccomp filters refuse it. */
static pid_t fork_beside(void)
{
    if (getpid() == 1)
        return pc_clone(0, NULL);
    return (pid_t)syscall(SYS_clone, (unsigned long)CLONE_PARENT | SIGCHLD, 0, NULL, 0, 0);
}

void proxy_serve(int agent_socket, struct pc_in *in)
{
    struct proxy proxy = { .listener = in->fd_count == 1 ? in->fds[0] : -1 };
    if (read_request(&proxy.targets, in) < 0 || !is_listening(proxy.listener)) {
        pc_send_error(agent_socket, in->header.request, "understand the request for", "a port to expose", EINVAL, NULL);
        return;
    }
    const pid_t pid = fork_beside();
    if (pid == 0)
        run(agent_socket, in->header.request, &proxy);
    if (pid < 0)
        pc_send_error(agent_socket, in->header.request, "start a process", "for the port to expose", errno, NULL);
}
