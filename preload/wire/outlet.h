/* The way out of a plug: frames are collected, and sent by one system call. */
#ifndef PC_WIRE_OUTLET_H
#define PC_WIRE_OUTLET_H

#include <linux/virtio_net.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "../common/failure.h"
#include "frame.h"

enum { OUTLET_FRAMES = 64, OUTLET_PARTS = 4 };

/* A frame to be sent: `headers` are copied by who takes it, the rest is not; unless it is `whole`:
   then the virtio header, headers and rest lie behind each other, and nothing is copied. */
struct parcel {
    struct virtio_net_hdr vnet;
    uint16_t tag_protocol, tag;
    const uint8_t *headers;
    uint32_t headers_length;
    const uint8_t *rest;
    uint32_t rest_length;
    unsigned packets;
    int whole;
};

struct outlet {
    int fd, index;
    int netlink;      /* asks how often the carrier has changed */
    uint32_t changes; /* what the answer was */
    unsigned count;
    struct mmsghdr messages[OUTLET_FRAMES];
    struct iovec parts[OUTLET_FRAMES][OUTLET_PARTS];
    struct virtio_net_hdr vnet[OUTLET_FRAMES];
    uint8_t headers[OUTLET_FRAMES][HEADERS_MAX + 4];
    unsigned packets[OUTLET_FRAMES];
    uint64_t sent;    /* packets */
    uint64_t down;    /* packets for an interface that was down: it is unplugged */
    uint64_t refused; /* packets that the kernel did not take, for other reasons */
    int error;        /* the last of those reasons */
};

int outlet_open(struct outlet *outlet, int index, struct pc_failure *failure);
/* What `rest` points at must stay until the next outlet_flush. */
void outlet_put(struct outlet *outlet, const struct parcel *parcel);
void outlet_flush(struct outlet *outlet);

#endif
