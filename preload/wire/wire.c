#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <linux/if.h>
#include <poll.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Before a moment that is to be met exactly we are awake this long. */
#define SPIN_NS 150000LL
enum { ROUNDS_WITHOUT_POLL = 32, SECOND = 1000000000 };
/* What may be behind in a lane: a second of 200,000 small packets a second. */
enum { BACKLOG = 32 << 20 };

/* What is ready, beside the lanes by their numbers. */
enum { CONTROL_READY = ENDS, OTHER_READY };

/* Has wait_for_work look at a descriptor from now on: it looks at what has something, not at all. */
static int await(const struct wire *wire, int fd, uint32_t name)
{
    struct epoll_event event = { .events = EPOLLIN, .data.u32 = name };
    return epoll_ctl(wire->ready, EPOLL_CTL_ADD, fd, &event);
}

/* The MTU of an interface; -1 and ENODEV when it is gone. */
static int mtu_of(int fd, int index)
{
    struct ifreq request = { .ifr_ifindex = index };
    return ioctl(fd, SIOCGIFNAME, &request) < 0 || ioctl(fd, SIOCGIFMTU, &request) < 0 ? -1 : request.ifr_mtu;
}

int wire_open(struct wire *wire, const int plug[ENDS], unsigned divisor, struct pc_failure *failure)
{
    struct inlet inlet[ENDS] = { { .drops = 0 } };
    unsigned mtu[ENDS];
    memcpy(wire->plug, plug, sizeof wire->plug);
    wire->ready = epoll_create1(EPOLL_CLOEXEC);
    if (wire->ready < 0 || await(wire, wire->control, CONTROL_READY) < 0)
        return pc_fail(failure, "wait for", "requests");
    for (int i = 0; i < ENDS; i++) {
        if (outlet_open(&wire->lane[i].outlet, plug[i], failure) < 0)
            return -1;
        const int found = mtu_of(wire->lane[i].outlet.fd, plug[i]);
        if (found < 0)
            return pc_fail(failure, "read the MTU of", "a plug");
        mtu[i] = (unsigned)found;
    }
    wire->hosts = hosts_new();
    wire->flows = wire->hosts ? flows_new(mtu[0] < mtu[1] ? mtu[0] : mtu[1], wire->hosts) : NULL;
    if (!wire->flows)
        return pc_fail(failure, "find memory for", "conversations");
    if (inlet_open_both(inlet, mtu, divisor, failure) < 0)
        return -1;
    for (int i = 0; i < ENDS; i++) {
        if (queue_open(&wire->lane[i].backlog, BACKLOG) < 0)
            return pc_fail(failure, "find room for", "frames");
        wire->lane[i].inlet = inlet[!i];
        wire->lane[i].flows = wire->flows;
    }
    return 0;
}

int wire_start(struct wire *wire, struct pc_failure *failure)
{
    for (int i = 0; i < ENDS; i++) {
        if (inlet_start(&wire->lane[i].inlet, wire->plug[!i], failure) < 0)
            return -1;
        for (int j = 0; j < RINGS; j++)
            if (await(wire, wire->lane[i].inlet.ring[j].fd, (uint32_t)i) < 0)
                return pc_fail(failure, "wait for", "frames");
    }
    wire->started = 1;
    return 0;
}

static int move(struct wire *wire, int64_t now)
{
    int moved = 0;
    for (int i = 0; i < ENDS; i++) {
        moved += lane_receive(&wire->lane[i]);
        moved += lane_send(&wire->lane[i], now);
    }
    return moved;
}

static int64_t due(const struct wire *wire)
{
    const int64_t first = lane_due(&wire->lane[0]), second = lane_due(&wire->lane[1]);
    return first < second ? first : second;
}

/* epoll_pwait2(), which kernels have from 5.11 on. */
static int wait_ready(int fd, struct epoll_event *events, int most, const struct timespec *timeout)
{
    const int ready = epoll_pwait2(fd, events, most, timeout, NULL);
    if (ready >= 0 || errno != ENOSYS)
        return ready;
    struct pollfd all = { .fd = fd, .events = POLLIN };
    return ppoll(&all, 1, timeout, NULL) <= 0 ? 0 : epoll_wait(fd, events, most, 0);
}

/* A plug that was set down may come up again. Returns what wire_run does, or 0. */
static int see_to(struct wire *wire, struct lane *lane)
{
    inlet_clear_errors(&lane->inlet);
    return mtu_of(lane->outlet.fd, wire->plug[0]) < 0 || mtu_of(lane->outlet.fd, wire->plug[1]) < 0 ? 4 : 0;
}

/* Waits for frames and messages until `until`. Returns what wire_run does, or 0. */
static int wait_for_work(struct wire *wire, int64_t until, int64_t now)
{
    struct epoll_event events[RINGS * ENDS + 2];
    const int64_t left = until == INT64_MAX ? 0 : until > now ? until - now : 0;
    const struct timespec timeout = { left / SECOND, left % SECOND };
    const int ready = wait_ready(wire->ready, events, sizeof events / sizeof *events, until == INT64_MAX ? NULL : &timeout);
    int result = 0;
    for (int i = 0; i < ready; i++) {
        if (events[i].data.u32 < ENDS && events[i].events & EPOLLERR)
            result |= see_to(wire, &wire->lane[events[i].data.u32]);
        else if (events[i].data.u32 >= ENDS)
            result |= events[i].data.u32 == CONTROL_READY ? 1 : 2;
    }
    return result;
}

static int run(struct wire *wire, int64_t until)
{
    int rounds = 0;
    for (;;) {
        int64_t now = clock_ns();
        const int moved = wire->started && move(wire, now);
        int64_t next = due(wire);
        if (moved && ++rounds < ROUNDS_WITHOUT_POLL)
            continue;
        rounds = 0;
        now = clock_ns();
        if (until < next)
            next = until;
        int64_t wake = moved ? now : next;
        if (next != INT64_MAX && (lane_is_precise(&wire->lane[0]) || lane_is_precise(&wire->lane[1])))
            wake = wake - SPIN_NS < now ? now : wake - SPIN_NS;
        const int result = wait_for_work(wire, wake, now);
        if (result)
            return result;
        if (clock_ns() >= until)
            return 0;
    }
}

int wire_run(struct wire *wire, int other, int64_t until)
{
    if (other >= 0 && await(wire, other, OTHER_READY) < 0)
        return 4; /* nothing can be seen to come of it */
    const int result = run(wire, until);
    if (other >= 0)
        epoll_ctl(wire->ready, EPOLL_CTL_DEL, other, NULL);
    return result;
}

void wire_drain(struct wire *wire)
{
    enum { ROUNDS = 1000 };
    int64_t now = clock_ns();
    for (int rounds = 0; rounds < ROUNDS && wire->started && move(wire, now); rounds++)
        now = clock_ns();
    for (int i = 0; i < ENDS; i++)
        lane_drain(&wire->lane[i], now);
}
