#define _GNU_SOURCE
#include "lane.h"

#include <linux/if_ether.h>
#include <string.h>
#include <time.h>

#include "packet.h"

/* Frames to be taken and sent in one go; of those that fill the rings many more are taken than sent,
   since taking them is what nobody else does. */
enum { AT_ONCE = 48, AT_ONCE_BEHIND = 512 };
/* Reading a frame's time from another clock gives something to be believed up to this age. */
#define BELIEVED_NS 1000000000LL

int64_t clock_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int64_t real_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int is_among(const struct addresses *addresses, const uint8_t *address, unsigned size)
{
    for (unsigned i = 0; i < addresses->count; i++)
        if (addresses->sizes[i] == size && memcmp(addresses->list[i], address, size) == 0)
            return 1;
    return 0;
}

static int concerns(const struct channel *channel, const struct frame *frame)
{
    const uint64_t flags = channel->faults.flags;
    if (!(flags & (RULE_SENDERS | RULE_RECEIVERS)))
        return 1;
    if (!frame->version)
        return 0;
    const unsigned size = frame->version == 4 ? 4 : 16;
    const uint8_t *source = frame->in.data + frame->network + (frame->version == 4 ? 12 : 8);
    return (!(flags & RULE_SENDERS) || is_among(&channel->senders, source, size)) &&
           (!(flags & RULE_RECEIVERS) || is_among(&channel->receivers, source + size, size));
}

static struct channel *channel_of(struct lane *lane, const struct frame *frame)
{
    for (unsigned i = 0; i < lane->rules; i++)
        if (concerns(&lane->channels[i], frame))
            return &lane->channels[i];
    return NULL;
}

void lane_pass(struct lane *lane, const struct parcel *parcel)
{
    if (!lane->behind)
        outlet_put(&lane->outlet, parcel);
    else if (queue_put(&lane->backlog, parcel, 0) < 0)
        lane->counts.overflow += parcel->packets;
}

static void pass(struct lane *lane, const struct frame *frame)
{
    struct parcel parcel;
    packet_whole(frame, &parcel);
    lane_pass(lane, &parcel);
}

static void handle(struct lane *lane, struct frame *frame)
{
    frame_parse(frame);
    if (frame->kind == KIND_CANARY) {
        lane->counts.canaries++;
        if (frame->in.length > CANARY_MARK)
            frame->in.data[CANARY_MARK] = 1; /* "came through a wire" */
        pass(lane, frame);
        return;
    }
    if (lane->cut) {
        lane->counts.cut += frame->segments;
        return;
    }
    if (frame->kind == KIND_CHATTER) {
        lane->counts.chatter++;
        pass(lane, frame);
        return;
    }
    lane->counts.packets += frame->segments;
    if (frame->in.truncated) {
        lane->counts.overflow += frame->segments;
        return;
    }
    struct channel *channel = channel_of(lane, frame);
    if (channel)
        packet_treat(lane, channel, frame);
    else
        pass(lane, frame);
}

/* What is to be added to a frame's time to have it by our clock; *now becomes the present by that.
   Whoever else gets the processor in between makes it later, never earlier, than it is. */
static int64_t read_offset(int64_t *now)
{
    int64_t offset = 0;
    for (int tries = 0; tries < 4; tries++) {
        const int64_t before = clock_ns(), real = real_ns();
        *now = clock_ns();
        offset = *now - real;
        if (*now - before < 2000)
            break;
    }
    return offset;
}

int lane_receive(struct lane *lane)
{
    struct frame frame;
    int taken = 0;
    int64_t now = 0, offset = 0;
    if (!lane->behind)
        lane->behind = inlet_is_filling(&lane->inlet);
    const int most = lane->behind ? AT_ONCE_BEHIND : AT_ONCE;
    for (; taken < most && inlet_take(&lane->inlet, &frame.in); taken++) {
        if (taken == 0)
            offset = read_offset(&now);
        frame.now = (int64_t)frame.in.time + offset;
        if (frame.now > now + BELIEVED_NS || frame.now < now - BELIEVED_NS)
            frame.now = now; /* somebody has set the machine's time */
        handle(lane, &frame);
    }
    if (taken) {
        outlet_flush(&lane->outlet);
        inlet_release(&lane->inlet);
    }
    return taken;
}

static void send_all(struct lane *lane, struct channel *channel, int64_t now)
{
    struct parcel parcel;
    if (queue_due(&channel->queue) > now)
        return;
    while (queue_due(&channel->queue) <= now) {
        queue_take(&channel->queue, &parcel);
        lane_pass(lane, &parcel);
    }
    outlet_flush(&lane->outlet);
    queue_settle(&channel->queue);
}

/* Sends some of what is behind; returns how many. */
static int catch_up(struct lane *lane, int most)
{
    struct parcel parcel;
    int sent = 0;
    for (; sent < most && lane->backlog.count; sent++) {
        queue_take(&lane->backlog, &parcel);
        outlet_put(&lane->outlet, &parcel);
    }
    outlet_flush(&lane->outlet);
    queue_settle(&lane->backlog);
    lane->behind = lane->backlog.count > 0;
    return sent;
}

int lane_send(struct lane *lane, int64_t now)
{
    const int sent = lane->behind ? catch_up(lane, OUTLET_FRAMES) : 0;
    for (unsigned i = 0; i < lane->used; i++) {
        struct channel *channel = &lane->channels[i];
        if (channel->held_count && channel->held[0].until <= now)
            packet_release_held(lane, channel, now, 0);
        if (channel->queue.count)
            send_all(lane, channel, now);
    }
    return sent;
}

int64_t lane_due(const struct lane *lane)
{
    int64_t due = lane->behind ? 0 : INT64_MAX;
    for (unsigned i = 0; i < lane->used; i++) {
        const struct channel *channel = &lane->channels[i];
        if (queue_due(&channel->queue) < due)
            due = queue_due(&channel->queue);
        if (channel->held_count && channel->held[0].until < due)
            due = channel->held[0].until;
    }
    return due;
}

int lane_is_precise(const struct lane *lane)
{
    for (unsigned i = 0; i < lane->rules; i++)
        if (lane->channels[i].faults.flags & RULE_PRECISE)
            return 1;
    return 0;
}

void lane_cut(struct lane *lane, int cut)
{
    lane->cut = cut;
    while (cut && lane->backlog.count) {
        struct parcel parcel;
        queue_take(&lane->backlog, &parcel);
        lane->counts.cut += parcel.packets;
    }
    queue_settle(&lane->backlog);
    for (unsigned i = 0; cut && i < lane->used; i++) {
        struct channel *channel = &lane->channels[i];
        struct parcel parcel;
        packet_release_held(lane, channel, 0, 0);
        while (channel->queue.count) {
            queue_take(&channel->queue, &parcel);
            lane->counts.cut += parcel.packets;
        }
        queue_settle(&channel->queue);
    }
}

void lane_drain(struct lane *lane, int64_t now)
{
    while (lane->backlog.count)
        catch_up(lane, OUTLET_FRAMES);
    lane->behind = 0;
    for (unsigned i = 0; i < lane->used; i++) {
        packet_release_held(lane, &lane->channels[i], now, 0);
        send_all(lane, &lane->channels[i], INT64_MAX - 1);
    }
}

void lane_read_counts(struct lane *lane, struct counts *counts)
{
    inlet_count_drops(&lane->inlet);
    *counts = lane->counts;
    counts->overflow += lane->inlet.drops;
    counts->refused = lane->outlet.refused;
    counts->down = lane->outlet.down;
    counts->error = (uint64_t)lane->outlet.error;
}
