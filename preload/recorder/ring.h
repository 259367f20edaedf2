/* A packet socket whose frames the kernel writes into memory that it shares with us: packet(7)
   and the kernel's Documentation/networking/packet_mmap.rst (TPACKET_V3). Blocks are handed
   over when they are full, or RING_RETIRE_MS after their first frame: so an idle network wakes
   nobody up, and a flood some hundred times a second. */
#ifndef PC_RING_H
#define PC_RING_H

#include <stdint.h>

#include "../common/failure.h"
#include "recorder.h"

enum { RING_BLOCK = 1 << 16, RING_BLOCKS = 64, RING_RETIRE_MS = 100 };

struct ring {
    int fd;
    int marker; /* sends frames that make the kernel hand over what it has (ring_flush) */
    uint8_t *blocks;
    unsigned next;
    uint64_t seen, lost;
    uint64_t marks_sent, marks_seen;
};

typedef void ring_sink(void *context, const struct frame *frame);

/* Opens it for every interface of our network namespace, for frames that come in; of each the
   first `snaplen` bytes. It waits for an RCU grace period (some 10 ms). */
int ring_open(struct ring *ring, uint32_t snaplen, struct pc_failure *failure);
/* Gives all frames of the blocks that are handed over to the sink, and the blocks back. */
void ring_drain(struct ring *ring, ring_sink *sink, void *context);
/* The same with all that were seen before the call: does not wait for RING_RETIRE_MS. */
void ring_flush(struct ring *ring, ring_sink *sink, void *context);

#endif
