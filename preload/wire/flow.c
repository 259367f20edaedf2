#define _GNU_SOURCE
#include "flow.h"

#include <stdlib.h>
#include <string.h>

/* Beyond so many conversations new ones share one number: fates are then still random, but
   not the same in the next run. */
enum { CONVERSATIONS_MAX = 1 << 16, PLACES_LEAST = 1 << 10, HOSTS_MAX = 4096, RESENT = 1024 };
/* Where Linux takes ephemeral ports from (ip-sysctl.rst, ip_local_port_range): such a
   server's port says nothing about it. */
enum { EPHEMERAL_FIRST = 32768, EPHEMERAL_LAST = 60999 };
/* Headers of TCP with timestamps, which Linux sends by default. */
enum { HEADERS4 = 20 + 20 + 12, HEADERS6 = 40 + 20 + 12, CELL_LEAST = 1, OPTIONS_MOST = 40 };
/* Sorts of packets, in the upper half of identity.again. */
enum { SORT_INDEX = 1, SORT_NEW = 2, SORT_REPEATED = 3, SORT_ACK = 4 };

/* The two ends of a conversation, the lesser first. */
struct ends {
    uint8_t address[2][16];
    uint16_t port[2];
    uint8_t version, protocol;
    uint16_t type;
};

/* What one of the two has sent. */
struct side {
    uint32_t base;            /* sequence number of its first byte */
    int has_base;
    uint64_t sent;            /* relative: beyond its newest byte */
    uint64_t cell, in_cell;   /* of its newest packet with data, and how many were in there */
    int was_full;             /* that was as large as can be */
    uint64_t ack_cell, in_ack_cell;
    uint64_t index;           /* packets of other sorts */
};

struct flow {
    struct ends ends;
    int used;
    int from;                 /* which end sent the frame that it was found for */
    uint32_t isn;             /* of the SYN that began it */
    int has_isn;
    uint64_t number;          /* identity.flow */
    uint32_t cell;
    struct side side[2];
    struct flows *flows;
};

/* Cells that were sent again, and how often. A new one takes an old one's place. */
struct resent {
    uint64_t flow, cell;
    uint64_t times;
    int side;
};

struct group {
    uint64_t name;
    uint32_t count;
};

struct host {
    uint8_t address[16];
    uint8_t size;
    uint64_t number;
};

struct flows {
    struct flow *places;
    size_t size, count;
    struct group *groups; /* as many places as conversations have */
    struct resent resent[RESENT];
    struct host hosts[HOSTS_MAX];
    size_t host_count;
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

struct flows *flows_new(unsigned mtu)
{
    struct flows *flows = calloc(1, sizeof *flows);
    if (!flows)
        return NULL;
    flows->mtu = mtu;
    if (set_size(flows, PLACES_LEAST) == 0)
        return flows;
    free(flows);
    return NULL;
}

void flows_forget(struct flows *flows)
{
    memset(flows->places, 0, flows->size * sizeof *flows->places);
    memset(flows->groups, 0, flows->size * sizeof *flows->groups);
    memset(flows->resent, 0, sizeof flows->resent);
    flows->rest = (struct flow){ .used = 0 };
    flows->count = 0;
}

int flows_know(struct flows *flows, const uint8_t *address, unsigned size, uint64_t host)
{
    size_t at = 0;
    while (at < flows->host_count && (flows->hosts[at].size != size || memcmp(flows->hosts[at].address, address, size) != 0))
        at++;
    if (at == HOSTS_MAX)
        return -1;
    flows->hosts[at].size = (uint8_t)size;
    memcpy(flows->hosts[at].address, address, size);
    flows->hosts[at].number = host;
    flows->host_count += at == flows->host_count;
    return 0;
}

static uint64_t host_of(const struct flows *flows, const struct ends *ends, int end)
{
    const unsigned size = ends->version == 4 ? 4 : 16;
    for (size_t i = 0; ends->version && i < flows->host_count; i++)
        if (flows->hosts[i].size == size && memcmp(flows->hosts[i].address, ends->address[end], size) == 0)
            return flows->hosts[i].number;
    return hash_bytes(ends->address[end], 16);
}

/* Fills in both ends; returns which of them sent the frame. */
static int ends_of(const struct frame *frame, struct ends *ends)
{
    const uint8_t *ip = frame->in.data + frame->network;
    const unsigned size = frame->version == 4 ? 4 : 16, at = frame->version == 4 ? 12 : 8;
    uint8_t address[2][16] = { { 0 } };
    memset(ends, 0, sizeof *ends);
    ends->version = (uint8_t)frame->version;
    ends->type = frame->type;
    if (frame->version) {
        ends->protocol = frame->protocol;
        memcpy(address[0], ip + at, size);
        memcpy(address[1], ip + at + size, size);
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

static void begin(struct flows *flows, struct flow *flow, const struct frame *frame)
{
    const struct ends *ends = &flow->ends;
    const int server = server_of(flow, frame);
    const uint16_t port = frame->kind == KIND_ICMP || is_ephemeral(ends->port[server]) ? 0 : ends->port[server];
    const uint64_t words[5] = { host_of(flows, ends, !server), host_of(flows, ends, server), (uint64_t)ends->version << 8 | ends->protocol, ends->type, port };
    const uint64_t kind = fate_hash(table_key, words, 5);
    const uint64_t which[2] = { kind, count_of_kind(flows, kind) };
    const unsigned headers = frame->version == 6 ? HEADERS6 : HEADERS4;
    flow->number = fate_hash(table_key, which, 2);
    flow->cell = flows->mtu > headers ? flows->mtu - headers : CELL_LEAST;
    flow->flows = flows;
    memset(flow->side, 0, sizeof flow->side);
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

static uint64_t times_resent(struct flow *flow, uint64_t cell)
{
    const uint64_t words[3] = { flow->number, cell, (uint64_t)flow->from };
    struct resent *place = &flow->flows->resent[fate_hash(table_key, words, 3) % RESENT];
    if (place->flow != flow->number || place->cell != cell || place->side != flow->from)
        *place = (struct resent){ .flow = flow->number, .cell = cell, .side = flow->from };
    return ++place->times;
}

static void identify_data(struct flow *flow, uint32_t sequence, uint32_t size, struct identity *identity)
{
    struct side *side = &flow->side[flow->from];
    if (!side->has_base) {
        side->base = sequence;
        side->has_base = 1;
    }
    const uint64_t at = unwrap(sequence, side->base, side->sent);
    /* The cell that begins in it: of full segments each has one, wherever they begin. Else that
       in which it lies. */
    const uint64_t next = (at + flow->cell - 1) / flow->cell;
    const int begins = next * flow->cell < at + size;
    const uint64_t cell = begins ? next : at / flow->cell;
    identity->key = cell;
    if (at < side->sent) {
        identity->again = (uint64_t)SORT_REPEATED << 32 | times_resent(flow, cell);
        identity->first = size + OPTIONS_MOST >= flow->cell ? (uint64_t)SORT_NEW << 32 | 1 : 0;
        if (at + size > side->sent)
            side->sent = at + size;
        return;
    }
    /* Small writes have fates of their own. A short segment behind a full one is what a sender
       whose buffer was full has made of a stream, now and then: it shares the fate of its cell,
       so that the stream loses the same cells without it. */
    if (begins)
        side->in_cell = 1;
    else if (!side->was_full || cell != side->cell)
        side->in_cell = cell == side->cell ? side->in_cell + 1 : 1;
    side->was_full = size + OPTIONS_MOST >= flow->cell;
    side->cell = cell;
    side->sent = at + size;
    identity->again = (uint64_t)SORT_NEW << 32 | side->in_cell;
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
    identity->key = cell;
    identity->again = (uint64_t)SORT_ACK << 32 | side->in_ack_cell;
}

struct identity flow_identify(struct flow *flow, const struct frame *frame, unsigned i)
{
    struct identity identity = { .flow = flow->number };
    struct side *side = &flow->side[flow->from];
    const int tcp = frame->kind == KIND_TCP;
    const uint32_t size = tcp ? frame_payload_size(frame, i) : 0;
    if (tcp && (frame->tcp_flags & TCP_SYN)) {
        side->base = frame->sequence + 1;
        side->has_base = 1;
        side->sent = 0;
    }
    if (size > 0 && !(frame->tcp_flags & (TCP_SYN | TCP_RST))) {
        identify_data(flow, frame->sequence + i * frame->segment, size, &identity);
    } else if (tcp && (frame->tcp_flags & (TCP_SYN | TCP_FIN | TCP_RST | TCP_ACK)) == TCP_ACK) {
        identify_ack(flow, frame->acknowledged, &identity);
    } else {
        identity.key = side->index++;
        identity.again = (uint64_t)SORT_INDEX << 32;
    }
    return identity;
}
