/* What arrives at a plug: packets in memory that the kernel writes and we read (packet(7),
   PACKET_RX_RING, TPACKET_V2). Every slot of a ring is as large as its largest frame, so a plug
   has three: for small frames (floods, acknowledgements), for those of at most the MTU, and for
   what the sender's kernel left unsegmented (64 KiB). Their order is that of the timestamps. */
#ifndef PC_WIRE_RING_H
#define PC_WIRE_RING_H

#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <stddef.h>
#include <stdint.h>

#include "../common/failure.h"

struct ring {
    int fd;
    uint8_t *map;
    size_t size;
    unsigned block_size, frame_size, per_block, frames;
    unsigned next;     /* the slot to be read */
    unsigned released; /* the slot to be given back */
};

enum { RINGS = 3 };

struct inlet {
    struct ring ring[RINGS]; /* by the size of their slots */
    uint64_t drops; /* frames for which there was no room */
};

/* A frame in its slot. */
struct arrival {
    uint8_t *data;
    uint32_t length;
    uint64_t time; /* CLOCK_REALTIME, ns */
    struct virtio_net_hdr vnet;
    uint16_t tag_protocol, tag; /* the VLAN tag that the kernel took out; protocol 0: none */
    int truncated;
};

/* Makes the rings of both plugs, for interfaces of these MTUs, `divisor` times smaller than they
   are best; nothing arrives yet. */
int inlet_open_both(struct inlet inlet[2], const unsigned mtu[2], unsigned divisor, struct pc_failure *failure);
/* From now on what arrives at the interface is in the rings. */
int inlet_start(struct inlet *inlet, int index, struct pc_failure *failure);
/* The oldest frame that was not taken yet; 0 when there is none. */
int inlet_take(struct inlet *inlet, struct arrival *arrival);
/* Whether a ring is so full that it may soon have no room. */
int inlet_is_filling(const struct inlet *inlet);
/* Gives all slots that were taken back to the kernel. */
void inlet_release(struct inlet *inlet);
/* Adds to `drops` what the kernel has counted since it was last asked. */
void inlet_count_drops(struct inlet *inlet);
/* Clears errors (an interface that went down). */
void inlet_clear_errors(struct inlet *inlet);

#endif
