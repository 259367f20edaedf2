/* Bytes are moved by splice(2), which copies none of them, and a direction whose receiver is
   slow is not read from: so the sender's own window closes, as without a proxy.

   The sockets are watched edge-triggered: after each event all that is possible is done,
   until the kernel says EAGAIN, and an event that cannot be served does not come again. */
#define _GNU_SOURCE
#include "relay.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <unistd.h>

/* What one splice asks for, and how many of them in a row a connection may have. */
enum { MOST_BYTES = 1 << 20, MOST_ROUNDS = 8 };

/* Empty pipes, for whichever connection has something to move next: one that waits for its
   peers needs none. */
enum { SPARE_PIPES = 64 };
static int spare_pipes[SPARE_PIPES][2];
static int spare_count;

static int take_pipe(struct flow *flow)
{
    if (spare_count == 0)
        return pipe2(flow->pipe, O_NONBLOCK | O_CLOEXEC);
    spare_count--;
    flow->pipe[0] = spare_pipes[spare_count][0];
    flow->pipe[1] = spare_pipes[spare_count][1];
    return 0;
}

static void drop_pipe(struct flow *flow)
{
    if (flow->pipe[0] >= 0) {
        if (flow->held == 0 && spare_count < SPARE_PIPES) {
            spare_pipes[spare_count][0] = flow->pipe[0];
            spare_pipes[spare_count][1] = flow->pipe[1];
            spare_count++;
        } else {
            close(flow->pipe[0]);
            close(flow->pipe[1]);
        }
    }
    flow->pipe[0] = flow->pipe[1] = -1;
}

static int fill(struct flow *flow, int from)
{
    if (flow->pipe[0] < 0 && take_pipe(flow) < 0)
        return -1;
    ssize_t got = splice(from, NULL, flow->pipe[1], NULL, MOST_BYTES, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    if (got < 0)
        return -1;
    flow->held = (size_t)got;
    flow->ended = got == 0;
    return 0;
}

static int drain(struct flow *flow, int to)
{
    while (flow->held > 0) {
        ssize_t sent = splice(flow->pipe[0], NULL, to, NULL, flow->held, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
        if (sent < 0)
            return -1;
        flow->held -= (size_t)sent;
    }
    if (flow->ended && !flow->passed_on) {
        flow->passed_on = 1;
        return shutdown(to, SHUT_WR);
    }
    return 0;
}

/* Moves what can be moved. 1: there may be more. 0: not now. -1: the connection is broken. */
static int move(struct flow *flow, int from, int to)
{
    int failed = 0;
    for (int round = 0; round < MOST_ROUNDS && !failed && !flow->passed_on; round++)
        failed = (flow->held == 0 && fill(flow, from) < 0) || drain(flow, to) < 0;
    if (failed && errno != EAGAIN)
        return -1;
    if (flow->held == 0)
        drop_pipe(flow);
    return !failed && !flow->passed_on;
}

static socklen_t size_of(const struct sockaddr *address)
{
    return address->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static int watch(int epoll, int operation, int fd, uint64_t tag)
{
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u64 = tag };
    return epoll_ctl(epoll, operation, fd, &event);
}

/* Both ends send as they like: what they gathered is not to be gathered once more. */
static void send_at_once(int fd)
{
    const int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Closes by a reset. */
static void reset(int fd)
{
    const struct linger at_once = { .l_onoff = 1 };
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    close(fd);
}

/* `broken`: the peers learn it by a reset, since an end of file would mean success. */
static int end(struct relay *relay, int broken)
{
    const int fds[] = { relay->client, relay->server };
    for (int i = 0; i < 2; i++) {
        if (fds[i] >= 0 && broken)
            reset(fds[i]);
        else if (fds[i] >= 0)
            close(fds[i]);
    }
    relay->client = relay->server = -1;
    drop_pipe(&relay->up);
    drop_pipe(&relay->down);
    return -1;
}

/* TCP lets a socket connect to itself, when the port that the kernel chose for it happens to
   be the one that it calls: nobody answered then. */
static int is_own_echo(int fd)
{
    struct sockaddr_in6 own = { 0 }, peer = { 0 }; /* the port is at the same place in sockaddr_in */
    socklen_t own_size = sizeof own, peer_size = sizeof peer;
    return getsockname(fd, (struct sockaddr *)&own, &own_size) == 0 && getpeername(fd, (struct sockaddr *)&peer, &peer_size) == 0 && own.sin6_port == peer.sin6_port;
}

/* Begins with the present target, or the next one that there is a way to. */
static int try_targets(struct relay *relay, int epoll, uint64_t tag, const struct targets *targets)
{
    for (; relay->target < targets->count; relay->target++) {
        const struct sockaddr *address = &targets->address[relay->target].any;
        relay->server = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (relay->server < 0)
            continue;
        send_at_once(relay->server);
        if ((connect(relay->server, address, size_of(address)) == 0 || errno == EINPROGRESS) && watch(epoll, EPOLL_CTL_ADD, relay->server, tag + 1) == 0)
            return 0;
        close(relay->server);
        relay->server = -1;
    }
    return end(relay, 1);
}

/* After an event of the server's socket. 1: it is reached. 0: not yet. -1: no target is left. */
static int try_further(struct relay *relay, int epoll, uint64_t tag, const struct targets *targets)
{
    const struct sockaddr *address = &targets->address[relay->target].any;
    /* Asked again, connect(2) tells how it went. */
    if (connect(relay->server, address, size_of(address)) == 0 || errno == EISCONN) {
        if (!is_own_echo(relay->server))
            return 1;
    } else if (errno == EALREADY || errno == EINPROGRESS) {
        return 0;
    }
    reset(relay->server);
    relay->server = -1;
    relay->target++;
    return try_targets(relay, epoll, tag, targets);
}

int relay_open(struct relay *relay, int client, int epoll, uint64_t tag, const struct targets *targets)
{
    const struct flow none = { .pipe = { -1, -1 } };
    *relay = (struct relay){ .client = client, .server = -1, .up = none, .down = none };
    send_at_once(client);
    if (watch(epoll, EPOLL_CTL_ADD, client, tag) < 0)
        return end(relay, 1);
    return try_targets(relay, epoll, tag, targets);
}

int relay_advance(struct relay *relay, int of_server, uint32_t events, int epoll, uint64_t tag, const struct targets *targets)
{
    if (!relay->connected) {
        if (!of_server)
            return events & (EPOLLERR | EPOLLHUP) ? end(relay, 1) : 0;
        const int reached = try_further(relay, epoll, tag, targets);
        if (reached <= 0)
            return reached;
        relay->connected = 1;
        events = 0;
    }
    int up = move(&relay->up, relay->client, relay->server);
    int down = move(&relay->down, relay->server, relay->client);
    if (up < 0 || down < 0 || events & EPOLLERR) {
        /* What was sent before a reset is still there to be read. */
        for (int i = 0; i < MOST_ROUNDS && (up > 0 || down > 0); i++) {
            up = up > 0 ? move(&relay->up, relay->client, relay->server) : up;
            down = down > 0 ? move(&relay->down, relay->server, relay->client) : down;
        }
        return end(relay, 1);
    }
    if (relay->up.passed_on && relay->down.passed_on)
        return end(relay, 0);
    /* It has had its turn. Asked to watch anew, epoll reports it again, behind the others. */
    if ((up > 0 && watch(epoll, EPOLL_CTL_MOD, relay->client, tag) < 0) || (down > 0 && watch(epoll, EPOLL_CTL_MOD, relay->server, tag + 1) < 0))
        return end(relay, 1);
    return 0;
}
