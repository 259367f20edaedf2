/* What is in a frame, as far as its fate depends on it, and where its headers are. */
#ifndef PC_WIRE_FRAME_H
#define PC_WIRE_FRAME_H

#include <stdint.h>

#include "ring.h"

/* Ours: "local experimental" (IEEE Std 802, 0x88B5), these words, and a byte that is 0 when
   a host sends it and 1 when it has come through a wire. */
enum { CANARY_TYPE = 0x88b5, CANARY_MARK = 14 + 8, CANARY_SIZE = 60 };
#define CANARY_WORDS "pcwire01"

enum kind {
    KIND_OTHER,   /* not IP */
    KIND_IP,      /* IP, and neither of the next */
    KIND_TCP,
    KIND_PORTS,   /* UDP, SCTP, ...: begins with two ports */
    KIND_ICMP,
    KIND_CHATTER, /* what kernels say to each other by themselves: ARP, ND, MLD, IGMP, spanning trees */
    KIND_CANARY,
};

struct frame {
    struct arrival in;
    int64_t now;         /* CLOCK_MONOTONIC, ns: when it arrived */
    enum kind kind;
    int version;         /* 4, 6, or 0: not IP */
    uint16_t type;       /* ethertype, without tags */
    uint8_t protocol;    /* of IP's payload */
    uint16_t network, transport, payload; /* offsets; payload: of TCP and UDP only */
    uint32_t length;     /* where the payload ends: short frames are padded; 0: a datagram larger than that */
    uint16_t source, target; /* ports; ICMP: its id and 0 */
    uint32_t sequence, acknowledged;
    uint8_t tcp_flags, icmp_type;
    uint16_t quoted;     /* ICMP errors: where the packet begins that they tell of; 0: none */
    unsigned segment;    /* GSO: payload bytes in each packet */
    unsigned segments;   /* how many packets it is */
};

enum { TCP_FIN = 1, TCP_SYN = 2, TCP_RST = 4, TCP_PSH = 8, TCP_ACK = 16, TCP_CWR = 128 };

/* Fills in all but `in` and `now`. Whatever is in the frame is a stranger's: nothing beyond
   its length is read. */
void frame_parse(struct frame *frame);
/* The packet that an ICMP error tells of, as far as it is quoted: who sent it to whom. Returns 0 when
   there is none. */
int frame_parse_quoted(const struct frame *frame, struct frame *quoted);
/* Bytes of packet `i`, headers included, without a VLAN tag that the kernel took out. */
uint32_t frame_packet_size(const struct frame *frame, unsigned i);
/* Payload bytes of packet `i` of a TCP or UDP frame. */
uint32_t frame_payload_size(const struct frame *frame, unsigned i);

enum { HEADERS_MAX = 256 };

/* Writes the headers (bytes up to `payload`) of packets first .. first + count - 1 to `headers`, and what
   the kernel is to know of them to *vnet. Only for a frame of several packets. */
void frame_cut(const struct frame *frame, unsigned first, unsigned count, uint8_t *headers, struct virtio_net_hdr *vnet);
/* Computes the checksum that the sender's kernel left to a card; *vnet is then of no more use. */
void frame_finish_checksum(uint8_t *data, uint32_t length, struct virtio_net_hdr *vnet);

#endif
