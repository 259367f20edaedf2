#define _GNU_SOURCE
#include "export.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "recorder.h"
#include "track.h"

enum { BUFFER = 1 << 18, ENHANCED_PACKET = 6, EPB_FLAGS = 2, INBOUND = 1, OUTBOUND = 2 };

/* Enhanced Packet Block up to the bytes of the packet, and what follows them. */
struct head {
    uint32_t type, total, interface, time_high, time_low, captured, length;
};
struct tail {
    uint16_t option, option_length;
    uint32_t flags;
    uint32_t no_more_options, total;
};

static uint8_t buffer[BUFFER];
static size_t filled;

static int flush(int fd)
{
    const uint8_t *at = buffer;
    while (filled > 0) {
        const ssize_t written = write(fd, at, filled);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            filled = 0;
            return -1;
        }
        at += written;
        filled -= (size_t)written;
    }
    return 0;
}

/* Room for `size` bytes in the buffer, after what is there. */
static uint8_t *room(int fd, size_t size)
{
    if (size > sizeof buffer || (filled + size > sizeof buffer && flush(fd) < 0))
        return NULL;
    filled += size;
    return buffer + filled - size;
}

static int put_record(int fd, const struct record *record)
{
    const size_t size = record_size(record->captured);
    uint8_t *to = room(fd, size);
    if (!to)
        return -1;
    memcpy(to, record, size);
    return 0;
}

int export_records(const struct export *export)
{
    filled = 0;
    for (int i = 0; i < export->count; i++) {
        struct track_view view = track_view(export->interface[i], export->since, export->most);
        const struct record gap = { .time = view.gap, .interface = export->interface[i], .way = RECORDER_GAP };
        if (view.gap && put_record(export->fd, &gap) < 0)
            return -1;
        for (const struct record *record; (record = track_next(&view));)
            if (put_record(export->fd, record) < 0)
                return -1;
    }
    return flush(export->fd);
}

static int put_block(int fd, uint32_t interface, const struct record *record)
{
    const size_t padded = (record->captured + 3U) & ~3U;
    const size_t total = sizeof(struct head) + padded + sizeof(struct tail);
    uint8_t *to = room(fd, total);
    if (!to)
        return -1;
    const struct head head = { ENHANCED_PACKET, (uint32_t)total, interface, (uint32_t)(record->time >> 32), (uint32_t)record->time, record->captured, record->length };
    const struct tail tail = { EPB_FLAGS, 4, record->way == RECORDER_OUT ? OUTBOUND : INBOUND, 0, (uint32_t)total };
    memcpy(to, &head, sizeof head);
    memcpy(to + sizeof head, record + 1, record->captured);
    memset(to + sizeof head + record->captured, 0, padded - record->captured);
    memcpy(to + sizeof head + padded, &tail, sizeof tail);
    return 0;
}

int export_blocks(const struct export *export)
{
    static struct track_view views[EXPORT_MAX];
    static const struct record *next[EXPORT_MAX];
    filled = 0;
    for (int i = 0; i < export->count; i++) {
        views[i] = track_view(export->interface[i], export->since, export->most);
        next[i] = track_next(&views[i]);
    }
    for (;;) {
        int first = -1;
        for (int i = 0; i < export->count; i++)
            if (next[i] && (first < 0 || next[i]->time < next[first]->time))
                first = i;
        if (first < 0)
            return flush(export->fd);
        if (put_block(export->fd, (uint32_t)first, next[first]) < 0)
            return -1;
        next[first] = track_next(&views[first]);
    }
}
