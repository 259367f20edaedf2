#define _GNU_SOURCE
#include "track.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { BUCKETS = 1024, FIRST_SIZE = 1 << 14, NONE = -1 };

/* Records are at [start, end), or, once it has come to its end and began anew, at
   [start, edge) and then at [0, end). */
struct track {
    uint32_t interface;
    int next; /* in its bucket, or among the free ones */
    uint8_t *bytes;
    size_t size, start, end, edge;
    int wrapped;
    uint64_t newest, gone; /* times of the newest record, and of the newest that had to go */
};

static struct track tracks[TRACKS_MAX];
static int buckets[BUCKETS], unused = NONE, used;
static int ready;
static size_t most_each = 1 << 20, most_all = (size_t)256 << 20, total;

void track_limit(size_t each, size_t all)
{
    most_each = each;
    most_all = all;
}

static int *bucket_of(uint32_t interface)
{
    if (!ready)
        memset(buckets, 0xff, sizeof buckets); /* all of them NONE */
    ready = 1;
    return &buckets[interface % BUCKETS];
}

static struct track *find(uint32_t interface)
{
    for (int i = *bucket_of(interface); i != NONE; i = tracks[i].next)
        if (tracks[i].interface == interface)
            return &tracks[i];
    return NULL;
}

void track_forget(uint32_t interface)
{
    for (int *link = bucket_of(interface); *link != NONE; link = &tracks[*link].next) {
        struct track *track = &tracks[*link];
        if (track->interface != interface)
            continue;
        const int place = *link;
        if (track->bytes)
            munmap(track->bytes, track->size);
        total -= track->size;
        *link = track->next;
        *track = (struct track){ .next = unused };
        unused = place;
        return;
    }
}

static int forget_quietest(const struct track *but)
{
    const struct track *quietest = NULL;
    for (int i = 0; i < used; i++)
        if (tracks[i].bytes && &tracks[i] != but && (!quietest || tracks[i].newest < quietest->newest))
            quietest = &tracks[i];
    if (!quietest)
        return -1;
    track_forget(quietest->interface);
    return 0;
}

static struct track *make(uint32_t interface)
{
    if (unused == NONE && used == TRACKS_MAX && forget_quietest(NULL) < 0)
        return NULL;
    const int place = unused != NONE ? unused : used++;
    struct track *track = &tracks[place];
    if (place == unused)
        unused = track->next;
    int *bucket = bucket_of(interface);
    *track = (struct track){ .interface = interface, .next = *bucket };
    *bucket = place;
    return track;
}

static int grow(struct track *track, size_t need)
{
    size_t size = track->size ? track->size : FIRST_SIZE;
    while (size < track->end + need)
        size *= 2;
    if (size > most_each)
        size = most_each;
    while (total + size - track->size > most_all)
        if (forget_quietest(track) < 0)
            return -1;
    void *bytes = track->bytes ? mremap(track->bytes, track->size, size, MREMAP_MAYMOVE)
                               : mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (bytes == MAP_FAILED)
        return -1;
    total += size - track->size;
    track->bytes = bytes;
    track->size = size;
    return 0;
}

static void drop_oldest(struct track *track)
{
    const struct record *oldest = (const void *)(track->bytes + track->start);
    track->gone = oldest->time;
    track->start += record_size(oldest->captured);
    if (track->start >= track->edge) {
        track->start = 0;
        track->wrapped = 0;
    }
}

/* Returns where `need` bytes may be written, at the end of what is there. */
static uint8_t *reserve(struct track *track, size_t need)
{
    if (need > most_each)
        return NULL;
    if (track->end + need > track->size && track->size < most_each && grow(track, need) < 0 && track->size < need)
        return NULL;
    if (track->end + need > track->size) {
        while (track->wrapped)
            drop_oldest(track);
        track->edge = track->end;
        track->end = 0;
        track->wrapped = track->edge > 0;
    }
    while (track->wrapped && track->start < track->end + need)
        drop_oldest(track);
    return track->bytes + track->end;
}

void track_add(const struct frame *frame)
{
    struct track *track = find(frame->record.interface);
    if (!track && !(track = make(frame->record.interface)))
        return;
    uint8_t *to = reserve(track, record_size(frame->record.captured + 4));
    if (!to)
        return;
    track->end += record_write(to, frame);
    track->newest = frame->record.time;
}

static struct track_view whole(const struct track *track)
{
    if (!track || !track->bytes)
        return (struct track_view){ .gap = 0 };
    if (!track->wrapped)
        return (struct track_view){ .part = { track->bytes + track->start }, .end = { track->bytes + track->end } };
    return (struct track_view){
        .part = { track->bytes + track->start, track->bytes },
        .end = { track->bytes + track->edge, track->bytes + track->end },
    };
}

const struct record *track_next(struct track_view *view)
{
    const int part = view->part[0] == view->end[0];
    const struct record *record = (const void *)view->part[part];
    if (view->part[part] == view->end[part])
        return NULL;
    view->part[part] += record_size(record->captured);
    return record;
}

struct track_view track_view(uint32_t interface, uint64_t since, uint64_t most)
{
    const struct track *track = find(interface);
    struct track_view view = whole(track), ahead = view;
    uint64_t old = 0, count = 0;
    for (const struct record *record; (record = track_next(&ahead));) {
        old += count == 0 && record->time < since;
        count += count > 0 || record->time >= since;
    }
    while (old-- > 0)
        track_next(&view);
    if (track && track->gone >= since)
        view.gap = track->gone;
    for (; most > 0 && count > most; count--)
        view.gap = track_next(&view)->time;
    return view;
}
