#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lane.h"

/* What may be under way in a channel: a second of 500 Mbit/s. */
enum { QUEUE_SIZE = 64 << 20 };

static void drop_addresses(struct addresses *addresses)
{
    free(addresses->list);
    free(addresses->sizes);
    *addresses = (struct addresses){ .count = 0 };
}

int addresses_add(struct addresses *addresses, const uint8_t *address, unsigned size)
{
    const size_t count = addresses->count + 1U;
    uint8_t(*list)[16] = realloc(addresses->list, count * sizeof *list);
    if (list)
        addresses->list = list;
    uint8_t *sizes = realloc(addresses->sizes, count);
    if (sizes)
        addresses->sizes = sizes;
    if (!list || !sizes || size > sizeof *list)
        return -1;
    memset(list[addresses->count], 0, sizeof *list);
    memcpy(list[addresses->count], address, size);
    sizes[addresses->count++] = (uint8_t)size;
    return 0;
}

void lane_drop_rules(struct lane *lane)
{
    for (; lane->rules > 0; lane->rules--) {
        drop_addresses(&lane->channels[lane->rules - 1].senders);
        drop_addresses(&lane->channels[lane->rules - 1].receivers);
    }
}

int lane_reserve(struct lane *lane, unsigned rules)
{
    for (unsigned i = 0; i < rules; i++)
        if (!lane->channels[i].queue.bytes && queue_open(&lane->channels[i].queue, QUEUE_SIZE) < 0)
            return -1;
    return 0;
}

struct channel *lane_add_rule(struct lane *lane, const struct faults *faults)
{
    errno = ENOSPC;
    if (lane->rules == RULES_MAX || !lane->channels[lane->rules].queue.bytes)
        return NULL;
    struct channel *channel = &lane->channels[lane->rules];
    if (channel->faults.rate != faults->rate)
        channel->free = 0;
    channel->faults = *faults;
    channel->random = faults->loss || faults->duplicate || faults->reorder || faults->corrupt || faults->jitter;
    lane->rules++;
    if (lane->used < lane->rules)
        lane->used = lane->rules;
    return channel;
}
