#define _GNU_SOURCE
#include "packet.h"

#include <linux/if_ether.h>
#include <stdlib.h>
#include <string.h>

/* How long a packet that is to be overtaken waits for another one. */
#define OVERTAKING_NS 10000000LL
/* With a rate, packets that take together no longer than this are sent as one piece. */
#define PIECE_NS 50000ULL
#define SECOND_NS 1000000000ULL

/* Where an outcome of this probability lies. */
static int happens(uint64_t fate, enum question question, uint64_t share)
{
    return share && (share == UINT64_MAX || fate_answer(fate, question) < share);
}

void packet_whole(const struct frame *frame, struct parcel *parcel)
{
    const uint32_t headers = frame->in.length < ETH_HLEN ? frame->in.length : ETH_HLEN;
    *parcel = (struct parcel){ frame->in.vnet, frame->in.tag_protocol, frame->in.tag, frame->in.data, headers,
                               frame->in.data + headers, frame->in.length - headers, frame->segments, 1 };
}

/* Some of a frame's packets; `headers` has room for HEADERS_MAX bytes. */
static void make_parcel(const struct frame *frame, unsigned first, unsigned count, uint8_t *headers, struct parcel *parcel)
{
    if (count == frame->segments) {
        packet_whole(frame, parcel);
        return;
    }
    *parcel = (struct parcel){ .tag_protocol = frame->in.tag_protocol, .tag = frame->in.tag, .headers = headers, .headers_length = frame->payload, .packets = count };
    parcel->rest = frame->in.data + frame->payload + (size_t)first * frame->segment;
    parcel->rest_length = (count - 1) * frame->segment + frame_payload_size(frame, first + count - 1);
    frame_cut(frame, first, count, headers, &parcel->vnet);
}

/* When bytes that arrive now have left, as fast as the rate lets them; -1: the queue is full. */
static int64_t pass_rate(struct channel *channel, int64_t now, uint64_t bytes)
{
    const uint64_t rate = channel->faults.rate;
    if (!rate)
        return now;
    const int64_t start = channel->free > now ? channel->free : now;
    const uint64_t waiting = (uint64_t)(start - now);
    if ((unsigned __int128)waiting * rate / 8 / SECOND_NS > channel->faults.queue)
        return -1;
    channel->free = start + (int64_t)((unsigned __int128)bytes * 8 * SECOND_NS / rate);
    return channel->free;
}

static uint32_t size_of(const struct parcel *parcel, const struct frame *frame)
{
    const uint32_t more = (parcel->packets - 1) * (uint32_t)frame->payload; /* headers that are not written out */
    return parcel->headers_length + parcel->rest_length + more;
}

/* Sends it now, or puts it with what is under way. */
static void put(struct lane *lane, struct channel *channel, const struct parcel *parcel, const struct frame *frame, int64_t due)
{
    if (due <= frame->now && channel->queue.count == 0)
        lane_pass(lane, parcel);
    else if (queue_put(&channel->queue, parcel, due) < 0)
        lane->counts.overflow += parcel->packets;
    if (channel->held_count)
        packet_release_held(lane, channel, due, 1);
}

void packet_release_held(struct lane *lane, struct channel *channel, int64_t due, int overtaken)
{
    for (unsigned i = 0; i < channel->held_count; i++) {
        struct parcel *parcel = &channel->held[i].parcel;
        if (queue_put(&channel->queue, parcel, due) < 0)
            lane->counts.overflow += parcel->packets;
        else if (overtaken)
            lane->counts.reordered += parcel->packets;
        free((void *)(uintptr_t)parcel->headers);
    }
    channel->held_count = 0;
}

/* Keeps a packet until another one has passed it. Without room or memory it goes as it would. */
static int hold(struct channel *channel, const struct parcel *parcel, int64_t until)
{
    uint8_t *bytes = channel->held_count < HELD_MAX ? malloc(parcel->headers_length + parcel->rest_length + 1UL) : NULL;
    if (!bytes)
        return -1;
    struct held *held = &channel->held[channel->held_count++];
    memcpy(bytes, parcel->headers, parcel->headers_length);
    if (parcel->rest_length)
        memcpy(bytes + parcel->headers_length, parcel->rest, parcel->rest_length);
    *held = (struct held){ *parcel, until };
    held->parcel.headers = bytes;
    held->parcel.whole = 0;
    held->parcel.rest = bytes + parcel->headers_length;
    return 0;
}

/* Some packets of a frame that all have the same to come. */
static void emit(struct lane *lane, struct channel *channel, const struct frame *frame, unsigned first, unsigned count, int64_t jitter)
{
    uint8_t headers[HEADERS_MAX];
    struct parcel parcel;
    if (count == 0)
        return;
    make_parcel(frame, first, count, headers, &parcel);
    const int64_t left = pass_rate(channel, frame->now, size_of(&parcel, frame));
    if (left < 0)
        lane->counts.overrun += count;
    else
        put(lane, channel, &parcel, frame, left + (int64_t)channel->faults.delay + jitter);
}

/* Flips one bit of the packet, where a checksum tells its receiver: not in the hardware addresses, and not in the
   header of IPv6, which has none (RFC 8200, 8.1). The one that the sender's kernel left open is that of the right packet. */
static void corrupt(const struct frame *frame, struct parcel *parcel, uint8_t *copy, uint64_t where)
{
    const uint32_t length = parcel->headers_length + parcel->rest_length;
    uint32_t from = ETH_HLEN;
    memcpy(copy, parcel->headers, parcel->headers_length);
    if (parcel->rest_length)
        memcpy(copy + parcel->headers_length, parcel->rest, parcel->rest_length);
    if (parcel->vnet.gso_type == VIRTIO_NET_HDR_GSO_NONE)
        frame_finish_checksum(copy, length, &parcel->vnet);
    if (frame->version == 6 && frame->transport < length)
        from = frame->transport;
    if (length > from)
        copy[from + where / 8 % (length - from)] ^= (uint8_t)(1 << where % 8);
    parcel->headers = copy;
    parcel->whole = 0;
    parcel->headers_length = length < ETH_HLEN ? length : ETH_HLEN;
    parcel->rest = copy + parcel->headers_length;
    parcel->rest_length = length - parcel->headers_length;
}

/* One packet with a fate of its own. */
static void emit_special(struct lane *lane, struct channel *channel, const struct frame *frame, unsigned i, uint64_t fate, int64_t jitter)
{
    static uint8_t copy[HEADERS_MAX + (1 << 17)];
    const struct faults *faults = &channel->faults;
    uint8_t headers[HEADERS_MAX];
    struct parcel parcel;
    make_parcel(frame, i, 1, headers, &parcel);
    if (happens(fate, FATE_CORRUPT, faults->corrupt) && parcel.headers_length + parcel.rest_length <= sizeof copy) {
        lane->counts.corrupted++;
        corrupt(frame, &parcel, copy, fate_answer(fate, FATE_WHERE));
    }
    const int twice = happens(fate, FATE_DUPLICATE, faults->duplicate);
    for (int times = 0; times <= twice; times++) {
        const int64_t left = pass_rate(channel, frame->now, size_of(&parcel, frame));
        const int64_t due = left + (int64_t)faults->delay + jitter;
        if (left < 0)
            lane->counts.overrun++;
        else if (times > 0 || !happens(fate, FATE_REORDER, faults->reorder) || hold(channel, &parcel, due + OVERTAKING_NS) < 0)
            put(lane, channel, &parcel, frame, due);
        lane->counts.duplicated += (uint64_t)(times > 0 && left >= 0);
    }
    if (parcel.headers == copy)
        outlet_flush(&lane->outlet); /* the next one will be in the same memory */
}

/* A sender in doubt repeats what has arrived, more or less of it in each run. So that this loses
   nothing that another run does not lose, what has come through once does so ever after: a packet of TCP
   is lost the first so and so many times that it is sent, and how many is a matter of the seed alone. */
static uint64_t fate_in(const struct faults *faults, const struct identity *identity)
{
    struct identity one = *identity;
    uint64_t fate = 0;
    for (one.times = 1; one.times <= identity->times; one.times++) {
        fate = fate_of(faults->seed, (unsigned)faults->towards, &one);
        if (!happens(fate, FATE_LOSS, faults->loss) && !happens(fate, FATE_CORRUPT, faults->corrupt))
            break;
    }
    return fate;
}

static int64_t jitter_of(uint64_t fate, uint64_t width)
{
    return (int64_t)((__int128)(int64_t)fate_answer(fate, FATE_JITTER) * (int64_t)width >> 63);
}

void packet_treat(struct lane *lane, struct channel *channel, const struct frame *frame)
{
    const struct faults *faults = &channel->faults;
    struct flow *flow = channel->random ? flows_find(lane->flows, frame) : NULL;
    unsigned first = 0, most = frame->segments;
    if (faults->rate && frame->segments > 1) {
        const uint64_t fits = PIECE_NS * faults->rate / 8 / SECOND_NS / frame_packet_size(frame, 0);
        most = fits > frame->segments ? frame->segments : fits > 0 ? (unsigned)fits : 1;
    }
    if (faults->jitter)
        most = 1;
    for (unsigned i = 0; i < frame->segments; i++) {
        int64_t jitter = 0;
        if (flow) {
            const struct identity identity = flow_identify(flow, frame, i);
            const uint64_t fate = fate_in(faults, &identity);
            const int lost = happens(fate, FATE_LOSS, faults->loss);
            jitter = faults->jitter ? jitter_of(fate, faults->jitter) : 0;
            if (lost || happens(fate, FATE_CORRUPT, faults->corrupt) || happens(fate, FATE_DUPLICATE, faults->duplicate) || happens(fate, FATE_REORDER, faults->reorder)) {
                emit(lane, channel, frame, first, i - first, 0);
                first = i + 1;
                if (lost)
                    lane->counts.lost++;
                else
                    emit_special(lane, channel, frame, i, fate, jitter);
                continue;
            }
        }
        /* One that is held back is to be overtaken by one packet, not by all of a large frame. */
        if (i + 1 - first >= most || channel->held_count) {
            emit(lane, channel, frame, first, i + 1 - first, jitter);
            first = i + 1;
        }
    }
    emit(lane, channel, frame, first, frame->segments - first, 0);
}
