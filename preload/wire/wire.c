#define _GNU_SOURCE
#include "wire.h"

#include <errno.h>
#include <linux/if.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* Before a moment that is to be met exactly we are awake this long. */
#define SPIN_NS 150000LL
enum { ROUNDS_WITHOUT_POLL = 32, SECOND = 1000000000 };

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
    for (int i = 0; i < ENDS; i++) {
        if (outlet_open(&wire->lane[i].outlet, plug[i], failure) < 0)
            return -1;
        const int found = mtu_of(wire->lane[i].outlet.fd, plug[i]);
        if (found < 0)
            return pc_fail(failure, "read the MTU of", "a plug");
        mtu[i] = (unsigned)found;
    }
    wire->flows = flows_new(mtu[0] < mtu[1] ? mtu[0] : mtu[1]);
    if (!wire->flows)
        return pc_fail(failure, "find memory for", "conversations");
    if (inlet_open_both(inlet, mtu, divisor, failure) < 0)
        return -1;
    for (int i = 0; i < ENDS; i++) {
        wire->lane[i].inlet = inlet[!i];
        wire->lane[i].flows = wire->flows;
    }
    return 0;
}

int wire_start(struct wire *wire, struct pc_failure *failure)
{
    for (int i = 0; i < ENDS; i++)
        if (inlet_start(&wire->lane[i].inlet, wire->plug[!i], failure) < 0)
            return -1;
    wire->started = 1;
    return 0;
}

static int move(struct wire *wire, int64_t now)
{
    int moved = 0;
    for (int i = 0; i < ENDS; i++) {
        moved += lane_receive(&wire->lane[i]);
        lane_send(&wire->lane[i], now);
    }
    return moved;
}

static int64_t due(const struct wire *wire)
{
    const int64_t first = lane_due(&wire->lane[0]), second = lane_due(&wire->lane[1]);
    return first < second ? first : second;
}

/* Waits for frames and messages until `until`. Returns what wire_run does, or 0. */
static int wait_for_work(struct wire *wire, int other, int64_t until, int64_t now)
{
    struct pollfd polls[2 + RINGS * ENDS] = { { .fd = wire->control, .events = POLLIN }, { .fd = other, .events = POLLIN } };
    int result = 0;
    for (int i = 0; i < RINGS * ENDS; i++)
        polls[2 + i] = (struct pollfd){ .fd = wire->started ? wire->lane[i / RINGS].inlet.ring[i % RINGS].fd : -1, .events = POLLIN };
    const int64_t left = until == INT64_MAX ? 0 : until > now ? until - now : 0;
    const struct timespec timeout = { left / SECOND, left % SECOND };
    if (ppoll(polls, 2 + RINGS * ENDS, until == INT64_MAX ? NULL : &timeout, NULL) <= 0)
        return 0;
    for (int i = 0; i < RINGS * ENDS; i++) {
        struct lane *lane = &wire->lane[i / RINGS];
        if (!(polls[2 + i].revents & (POLLERR | POLLNVAL)))
            continue;
        inlet_clear_errors(&lane->inlet); /* a plug that was set down: it may come up again */
        if (mtu_of(lane->outlet.fd, wire->plug[0]) < 0 || mtu_of(lane->outlet.fd, wire->plug[1]) < 0)
            result |= 4;
    }
    if (polls[0].revents)
        result |= 1;
    return result | (polls[1].revents ? 2 : 0);
}

int wire_run(struct wire *wire, int other, int64_t until)
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
        const int result = wait_for_work(wire, other, wake, now);
        if (result)
            return result;
        if (clock_ns() >= until)
            return 0;
    }
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
