/* One direction of a wire: what arrives at one plug goes out of the other, or what its rules
   make of it. */
#ifndef PC_WIRE_LANE_H
#define PC_WIRE_LANE_H

#include <stdint.h>

#include "flow.h"
#include "outlet.h"
#include "queue.h"
#include "ring.h"

enum { RULES_MAX = 32, HELD_MAX = 64 };
enum rule_flag { RULE_PRECISE = 1, RULE_SENDERS = 2, RULE_RECEIVERS = 4 };

/* What happens to packets; network/wire.py packs the same. Shares are of 2^64, and all ones
   is "each"; times in ns, rate in bit/s, queue in bytes. */
struct faults {
    uint64_t towards; /* which end they travel to */
    uint64_t loss, duplicate, reorder, corrupt;
    uint64_t delay, jitter;
    uint64_t rate, queue;
    uint64_t seed;
    uint64_t flags;
};

/* Addresses, each 16 bytes; one of IPv4 is in the first 4 of them, the rest is zero. */
struct addresses {
    uint8_t (*list)[16];
    uint8_t *sizes;
    unsigned count;
};

struct held {
    struct parcel parcel; /* in memory of its own */
    int64_t until;
};

/* A rule, and the packets under way that it has delayed. */
struct channel {
    struct faults faults;
    struct addresses senders, receivers;
    int random; /* packets have fates */
    struct queue queue;
    int64_t free; /* when the next packet may begin, for its rate */
    struct held held[HELD_MAX]; /* until another one has overtaken them */
    unsigned held_count;
};

/* Packets, as network/wire.py unpacks them. */
struct counts {
    uint64_t packets;    /* that arrived, but for chatter and canaries */
    uint64_t lost, duplicated, reordered, corrupted;
    uint64_t overrun;    /* more than the rate, and more than its queue holds */
    uint64_t overflow;   /* lost though nobody asked for it: no room in a ring or for what is delayed */
    uint64_t refused;    /* the kernel did not take them */
    uint64_t down;       /* the interface was down */
    uint64_t cut;
    uint64_t chatter, canaries;
    uint64_t error;      /* errno of the last refusal */
};

struct lane {
    struct inlet inlet;
    struct outlet outlet;
    struct flows *flows;
    struct queue backlog; /* frames that are to go at once, out of rings that were filling up */
    int behind;           /* there are some, and those that come go there too */
    struct channel channels[RULES_MAX];
    unsigned rules;      /* as many of them are in force; what others delayed still comes */
    unsigned used;       /* as many of them ever were: the rest is memory that is not looked at */
    struct counts counts;
    int cut;
};

/* Handles frames that have arrived, a bounded number; returns how many. */
int lane_receive(struct lane *lane);
/* Sends what is due, a bounded number of what is behind; returns how many of those. */
int lane_send(struct lane *lane, int64_t now);
/* Lets a parcel go now, behind those before it. */
void lane_pass(struct lane *lane, const struct parcel *parcel);
/* When lane_send has something to do next; INT64_MAX: never. */
int64_t lane_due(const struct lane *lane);
/* Whether a rule wants to be exact at any price. */
int lane_is_precise(const struct lane *lane);
/* Gets the memory for so many rules, RULES_MAX at most, beside those in force. */
int lane_reserve(struct lane *lane, unsigned rules);
/* Puts another rule in force behind the others. Returns NULL when there is no room for it. */
struct channel *lane_add_rule(struct lane *lane, const struct faults *faults);
int addresses_add(struct addresses *addresses, const uint8_t *address, unsigned size);
void lane_drop_rules(struct lane *lane);
/* Silence from now on: what is under way is lost too. */
void lane_cut(struct lane *lane, int cut);
/* Sends everything that is under way, at once. */
void lane_drain(struct lane *lane, int64_t now);
void lane_read_counts(struct lane *lane, struct counts *counts);

int64_t clock_ns(void);

#endif
