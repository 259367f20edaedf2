#define _GNU_SOURCE
#include "flow.h"

#include <stdlib.h>
#include <string.h>

#include "holes.h"

/* Beyond so many conversations new ones share one number: fates are then still random, but
   not the same in the next run. */
enum { CONVERSATIONS_MAX = 1 << 16, PLACES_LEAST = 1 << 10, RESENT_SETS = 1024, RESENT_WAYS = 4 };
/* Where Linux takes ephemeral ports from (ip-sysctl.rst, ip_local_port_range): such a
   server's port says nothing about it. */
enum { EPHEMERAL_FIRST = 32768, EPHEMERAL_LAST = 60999 };
/* Headers of TCP with timestamps, which Linux sends by default. */
enum { HEADERS4 = 20 + 20 + 12, HEADERS6 = 40 + 20 + 12, CELL_LEAST = 1 };
/* Sorts of packets, each with keys of its own. */
enum { SORT_INDEX = 1, SORT_DATA, SORT_ACK, SORT_SYN, SORT_FIN };

/* The two ends of a conversation, the lesser first. */
struct ends {
    uint8_t address[2][16];
    uint16_t port[2];
    uint8_t version, protocol;
    uint16_t type;
    uint64_t quoted; /* of an ICMP error: a hash of whose packet it tells of */
};

/* What one of the two has sent. */
struct side {
    uint32_t base;            /* sequence number of its first byte */
    int has_base;
    uint64_t sent;            /* relative: beyond its newest byte */
    struct holes *missing;    /* what was not seen of what is before that; NULL: nothing */
    uint64_t ack_cell, in_ack_cell;
    uint64_t syns, fins, index; /* how many were sent; index: packets of other sorts */
};

struct flow {
    struct ends ends;
    int used;
    int from;                 /* which end sent the frame that it was found for */
    int server;               /* which end is that */
    uint32_t isn;             /* of the SYN that began it */
    int has_isn;
    uint64_t number;          /* identity.flow */
    uint32_t cell;
    struct side side[2];
    struct flows *flows;
};

/* Places in streams that were sent again, and how often. Of one set the least used is forgotten first. */
struct resent {
    uint64_t flow, place, times;
    uint64_t used; /* when, by the count of such packets */
    int role;
};

struct group {
    uint64_t name;
    uint32_t count;
};

struct flows {
    struct flow *places;
    size_t size, count;
    struct group *groups; /* as many places as conversations have */
    struct resent resent[RESENT_SETS][RESENT_WAYS];
    uint64_t repeated; /* packets so far */
    const struct hosts *hosts;
    unsigned mtu;
    struct flow rest; /* when there is no more room */
};

static const uint64_t table_key[2] = { 0x706f6f72, 0x77697265 };

static uint64_t hash_bytes(const void *bytes, size_t size)
{
    uint64_t words[6] = { 0 };
    memcpy(words, bytes, size < sizeof words ? size : sizeof words);
    return fate_hash(table_key, words, 6);
}

static int set_size(struct flows *flows, size_t size)
{
    struct flow *places = calloc(size, sizeof *places);
    struct group *groups = calloc(size, sizeof *groups);
    if (!places || !groups) {
        free(places);
        free(groups);
        return -1;
    }
    for (size_t i = 0; i < flows->size; i++) {
        if (flows->places[i].used) {
            size_t at = hash_bytes(&flows->places[i].ends, sizeof(struct ends)) % size;
            while (places[at].used)
                at = (at + 1) % size;
            places[at] = flows->places[i];
        }
        if (flows->groups[i].count) {
            size_t at = flows->groups[i].name % size;
            while (groups[at].count)
                at = (at + 1) % size;
            groups[at] = flows->groups[i];
        }
    }
    free(flows->places);
    free(flows->groups);
    flows->places = places;
    flows->groups = groups;
    flows->size = size;
    return 0;
}

struct flows *flows_new(unsigned mtu, const struct hosts *hosts)
{
    struct flows *flows = calloc(1, sizeof *flows);
    if (!flows)
        return NULL;
    flows->mtu = mtu;
    flows->hosts = hosts;
    if (set_size(flows, PLACES_LEAST) == 0)
        return flows;
    free(flows);
    return NULL;
}

static void forget_sides(struct flow *flow)
{
    for (int i = 0; i < 2; i++)
        holes_drop(&flow->side[i].missing);
    memset(flow->side, 0, sizeof flow->side);
}

void flows_forget(struct flows *flows)
{
    for (size_t i = 0; i < flows->size; i++)
        forget_sides(&flows->places[i]);
    forget_sides(&flows->rest);
    memset(flows->places, 0, flows->size * sizeof *flows->places);
    memset(flows->groups, 0, flows->size * sizeof *flows->groups);
    memset(flows->resent, 0, sizeof flows->resent);
    flows->rest = (struct flow){ .used = 0 };
    flows->count = 0;
}

static uint64_t host_of(const struct flows *flows, const struct ends *ends, int end)
{
    const unsigned size = ends->version == 4 ? 4 : ends->version == 6 ? 16 : 6;
    return hosts_number(flows->hosts, ends->address[end], size);
}

/* Sender and receiver of an IP packet. */
static void addresses_of(const struct frame *frame, uint8_t address[2][16])
{
    const uint8_t *ip = frame->in.data + frame->network;
    const unsigned size = frame->version == 4 ? 4 : 16, at = frame->version == 4 ? 12 : 8;
    for (unsigned i = 0; i < 2; i++)
        memcpy(address[i], ip + at + i * size, size);
}

/* A hash of the conversation that an ICMP error tells of; 0 when it is none. */
static uint64_t quoted_of(const struct frame *frame)
{
    struct frame quoted;
    struct ends ends = { .type = 0 };
    if (!frame_parse_quoted(frame, &quoted))
        return 0;
    addresses_of(&quoted, ends.address);
    ends.port[0] = quoted.source;
    ends.port[1] = quoted.target;
    ends.protocol = quoted.protocol;
    return hash_bytes(&ends, sizeof ends);
}

/* Fills in both ends; returns which of them sent the frame. */
static int ends_of(const struct frame *frame, struct ends *ends)
{
    uint8_t address[2][16] = { { 0 } };
    memset(ends, 0, sizeof *ends);
    ends->version = (uint8_t)frame->version;
    ends->type = frame->type;
    if (frame->version) {
        ends->protocol = frame->protocol;
        addresses_of(frame, address);
    } else {
        /* Hardware addresses: source and destination. */
        memcpy(address[0], frame->in.data + 6, frame->in.length >= 14 ? 6 : 0);
        memcpy(address[1], frame->in.data, frame->in.length >= 14 ? 6 : 0);
    }
    uint16_t port[2] = { frame->source, frame->target };
    if (frame->kind == KIND_ICMP) {
        /* An echo's id is at both ends; other messages are told apart by their type. */
        const int echo = frame->source != 0 || frame->icmp_type == 0 || frame->icmp_type == 8;
        port[0] = port[1] = frame->source;
        ends->type = echo ? 0 : (uint16_t)(256 + frame->icmp_type);
        ends->quoted = quoted_of(frame);
    }
    const int order = memcmp(address[0], address[1], 16);
    const int first = order < 0 || (order == 0 && port[0] <= port[1]) ? 0 : 1;
    for (int i = 0; i < 2; i++) {
        memcpy(ends->address[i], address[first ^ i], 16);
        ends->port[i] = port[first ^ i];
    }
    return first;
}

static int is_ephemeral(uint16_t port)
{
    return port >= EPHEMERAL_FIRST && port <= EPHEMERAL_LAST;
}

/* Which end is the server: whom the first packet goes to, unless it is an answer. */
static int server_of(const struct flow *flow, const struct frame *frame)
{
    const int to = !flow->from;
    if (frame->kind == KIND_TCP && (frame->tcp_flags & TCP_SYN))
        return frame->tcp_flags & TCP_ACK ? flow->from : to;
    if (frame->kind == KIND_ICMP && (frame->icmp_type == 0 || frame->icmp_type == 129))
        return flow->from;
    if (is_ephemeral(flow->ends.port[to]) && !is_ephemeral(flow->ends.port[flow->from]))
        return flow->from;
    return to;
}

/* How many conversations of this kind there were before; it is one more now. */
static uint32_t count_of_kind(struct flows *flows, uint64_t name)
{
    size_t at = name % flows->size, tries = 0;
    while (flows->groups[at].count && flows->groups[at].name != name) {
        if (++tries == flows->size)
            return 0; /* as when there is no more room for conversations */
        at = (at + 1) % flows->size;
    }
    flows->groups[at].name = name;
    return flows->groups[at].count++;
}

/* Of two ports the one that says something: the server's, 0 when both are ephemeral. */
static uint16_t telling(uint16_t port, uint16_t other)
{
    return !is_ephemeral(port) ? port : !is_ephemeral(other) ? other : 0;
}

/* What an ICMP error tells of, by names that do not change. */
static uint64_t kind_of_quoted(const struct flows *flows, const struct frame *frame)
{
    struct frame quoted;
    struct ends ends = { .type = 0 };
    if (!frame_parse_quoted(frame, &quoted))
        return 0;
    addresses_of(&quoted, ends.address);
    ends.version = (uint8_t)quoted.version;
    const uint16_t port = quoted.kind == KIND_ICMP ? 0 : telling(quoted.target, quoted.source);
    const uint64_t words[4] = { host_of(flows, &ends, 0), host_of(flows, &ends, 1), quoted.protocol, port };
    return fate_hash(table_key, words, 4);
}

static void begin(struct flows *flows, struct flow *flow, const struct frame *frame)
{
    const struct ends *ends = &flow->ends;
    const int server = server_of(flow, frame);
    const uint16_t port = frame->kind == KIND_ICMP || is_ephemeral(ends->port[server]) ? 0 : ends->port[server];
    const uint64_t words[6] = { host_of(flows, ends, !server), host_of(flows, ends, server), (uint64_t)ends->version << 8 | ends->protocol, ends->type, port, kind_of_quoted(flows, frame) };
    const uint64_t kind = fate_hash(table_key, words, 6);
    const uint64_t which[2] = { kind, count_of_kind(flows, kind) };
    const unsigned headers = frame->version == 6 ? HEADERS6 : HEADERS4;
    flow->number = fate_hash(table_key, which, 2);
    flow->server = server;
    flow->cell = flows->mtu > headers ? flows->mtu - headers : CELL_LEAST;
    flow->flows = flows;
    forget_sides(flow);
    flow->has_isn = frame->kind == KIND_TCP && (frame->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
    flow->isn = frame->sequence;
}

struct flow *flows_find(struct flows *flows, const struct frame *frame)
{
    struct ends ends;
    const int from = ends_of(frame, &ends);
    if (flows->count * 2 >= flows->size && flows->count < CONVERSATIONS_MAX)
        set_size(flows, flows->size * 2); /* without memory it goes on in what it has */
    size_t at = hash_bytes(&ends, sizeof ends) % flows->size;
    while (flows->places[at].used && memcmp(&flows->places[at].ends, &ends, sizeof ends) != 0)
        at = (at + 1) % flows->size;
    struct flow *flow = &flows->places[at];
    const int fresh = !flow->used;
    if (fresh && flows->count + 1 >= flows->size) {
        flow = &flows->rest;
        flow->flows = flows;
    }
    flow->from = from;
    flow->ends = ends;
    /* Ports are used again: another SYN is another connection. */
    const int again = frame->kind == KIND_TCP && (frame->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN && !(flow->has_isn && flow->isn == frame->sequence);
    if (flow != &flows->rest && (fresh || again)) {
        flow->used = 1;
        flows->count += (size_t)fresh;
        begin(flows, flow, frame);
    }
    return flow;
}

/* The relative position of a sequence number near `near`, in 64 bits; before the first: 0. */
static uint64_t unwrap(uint32_t sequence, uint32_t base, uint64_t near)
{
    const int32_t distance = (int32_t)(sequence - (uint32_t)(base + near));
    return distance < 0 && (uint64_t)-(int64_t)distance > near ? 0 : near + (uint64_t)(int64_t)distance;
}

/* How often what is at a place of the stream was sent again, this time included. */
static uint64_t times_resent(struct flow *flow, uint64_t at)
{
    struct flows *flows = flow->flows;
    const int role = flow->from == flow->server;
    const uint64_t words[3] = { flow->number, at, (uint64_t)role };
    struct resent *set = flows->resent[fate_hash(table_key, words, 3) % RESENT_SETS], *found = set;
    for (int i = 0; i < RESENT_WAYS; i++) {
        if (set[i].flow == flow->number && set[i].place == at && set[i].role == role) {
            found = &set[i];
            break;
        }
        if (set[i].used < found->used)
            found = &set[i];
    }
    if (found->flow != flow->number || found->place != at || found->role != role)
        *found = (struct resent){ .flow = flow->number, .place = at, .role = role };
    found->used = ++flows->repeated;
    return ++found->times;
}

/* A segment is known by where the first cell that begins in it does: of full ones each has one, so a
   short one, which a sender makes of a stream when its buffer is full, shifts nothing behind it. One
   in which none begins is a small write, and known by where it begins itself. */
static void identify_data(struct flow *flow, uint32_t sequence, uint32_t size, struct identity *identity)
{
    struct side *side = &flow->side[flow->from];
    if (!side->has_base) {
        side->base = sequence;
        side->has_base = 1;
    }
    const uint64_t at = unwrap(sequence, side->base, side->sent);
    const uint64_t cell = (at + flow->cell - 1) / flow->cell * flow->cell;
    const uint64_t place = cell < at + size ? cell : at;
    identity->sort = SORT_DATA;
    identity->key = place;
    if (at > side->sent)
        holes_add(&side->missing, side->sent, at);
    const int was_missing = holes_fill(&side->missing, place, at, at + size);
    identity->times = was_missing || place >= side->sent ? 1 : 1 + times_resent(flow, place);
    if (at + size > side->sent)
        side->sent = at + size;
}

static void identify_ack(struct flow *flow, uint32_t acknowledged, struct identity *identity)
{
    struct side *side = &flow->side[flow->from], *other = &flow->side[!flow->from];
    if (!other->has_base) {
        other->base = acknowledged;
        other->has_base = 1;
    }
    const uint64_t cell = unwrap(acknowledged, other->base, other->sent) / flow->cell;
    side->in_ack_cell = cell == side->ack_cell ? side->in_ack_cell + 1 : 1;
    side->ack_cell = cell;
    identity->sort = SORT_ACK;
    identity->key = cell;
    identity->nth = side->in_ack_cell;
}

struct identity flow_identify(struct flow *flow, const struct frame *frame, unsigned i)
{
    struct identity identity = { .flow = flow->number, .times = 1 };
    struct side *side = &flow->side[flow->from];
    const int tcp = frame->kind == KIND_TCP;
    const uint8_t flags = frame->tcp_flags;
    const uint32_t size = tcp ? frame_payload_size(frame, i) : 0;
    if (tcp && (flags & TCP_SYN)) {
        side->base = frame->sequence + 1;
        side->has_base = 1;
        side->sent = 0;
        holes_drop(&side->missing);
    }
    if (size > 0 && !(flags & (TCP_SYN | TCP_RST))) {
        identify_data(flow, frame->sequence + i * frame->segment, size, &identity);
    } else if (tcp && (flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) == TCP_ACK) {
        identify_ack(flow, frame->acknowledged, &identity);
    } else if (tcp && (flags & (TCP_SYN | TCP_FIN)) && !(flags & TCP_RST)) {
        identity.sort = flags & TCP_SYN ? SORT_SYN : SORT_FIN;
        identity.times = flags & TCP_SYN ? ++side->syns : ++side->fins;
    } else {
        identity.sort = SORT_INDEX;
        identity.key = side->index++;
    }
    return identity;
}
