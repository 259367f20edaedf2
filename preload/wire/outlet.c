#define _GNU_SOURCE
#include "outlet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { ADDRESSES = 2 * ETH_ALEN, TAG = 4 };

int outlet_open(struct outlet *outlet, int index, struct pc_failure *failure)
{
    const struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_ifindex = index };
    const int one = 1;
    /* Protocol 0: it only sends. */
    outlet->index = index;
    outlet->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (outlet->fd < 0 || setsockopt(outlet->fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) < 0 ||
        bind(outlet->fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return pc_fail(failure, "make a socket for sending to", "a plug");
    return 0;
}

/* Writes the headers with the VLAN tag that the kernel took out put in again. */
static uint32_t copy_headers(uint8_t *to, const struct parcel *parcel, struct virtio_net_hdr *vnet)
{
    if (!parcel->tag_protocol || parcel->headers_length < ADDRESSES) {
        memcpy(to, parcel->headers, parcel->headers_length);
        return parcel->headers_length;
    }
    const uint16_t tag[2] = { htons(parcel->tag_protocol), htons(parcel->tag) };
    memcpy(to, parcel->headers, ADDRESSES);
    memcpy(to + ADDRESSES, tag, TAG);
    memcpy(to + ADDRESSES + TAG, parcel->headers + ADDRESSES, parcel->headers_length - ADDRESSES);
    if (vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
        vnet->csum_start += TAG;
    if (vnet->hdr_len)
        vnet->hdr_len += TAG;
    return parcel->headers_length + TAG;
}

void outlet_put(struct outlet *outlet, const struct parcel *parcel)
{
    if (outlet->count == OUTLET_FRAMES)
        outlet_flush(outlet);
    const unsigned i = outlet->count++;
    struct iovec *part = outlet->parts[i];
    outlet->packets[i] = parcel->packets;
    if (parcel->whole && !parcel->tag_protocol) { /* one piece is what the kernel takes fastest */
        const size_t before = sizeof parcel->vnet;
        part[0] = (struct iovec){ (void *)(uintptr_t)(parcel->headers - before), before + parcel->headers_length + parcel->rest_length };
        outlet->messages[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = part, .msg_iovlen = 1 } };
        return;
    }
    outlet->vnet[i] = parcel->vnet;
    const uint32_t length = copy_headers(outlet->headers[i], parcel, &outlet->vnet[i]);
    part[0] = (struct iovec){ &outlet->vnet[i], sizeof outlet->vnet[i] };
    part[1] = (struct iovec){ outlet->headers[i], length };
    part[2] = (struct iovec){ (void *)(uintptr_t)parcel->rest, parcel->rest_length };
    outlet->messages[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = part, .msg_iovlen = parcel->rest_length ? 3 : 2 } };
}

/* Whether the interface has a carrier: a plug has none while its host's interface is down. */
static int is_running(const struct outlet *outlet)
{
    struct ifreq request = { .ifr_ifindex = outlet->index };
    return ioctl(outlet->fd, SIOCGIFNAME, &request) == 0 && ioctl(outlet->fd, SIOCGIFFLAGS, &request) == 0 && (request.ifr_flags & IFF_RUNNING);
}

/* ENOBUFS is what veth says when it drops: since the other end is down, or has too much to do. */
static void count_failure(struct outlet *outlet, unsigned packets, int error)
{
    if (error == ENETDOWN || error == ENXIO || error == ENODEV || (error == ENOBUFS && !is_running(outlet))) {
        outlet->down += packets;
        return;
    }
    outlet->refused += packets;
    outlet->error = error;
}

void outlet_flush(struct outlet *outlet)
{
    unsigned done = 0;
    if (outlet->count == 1 && outlet->messages[0].msg_hdr.msg_iovlen == 1) {
        /* A packet alone, whose sender may wait for the answer. */
        if (send(outlet->fd, outlet->parts[0][0].iov_base, outlet->parts[0][0].iov_len, 0) >= 0)
            outlet->sent += outlet->packets[done++];
        else if (errno != EINTR)
            count_failure(outlet, outlet->packets[done++], errno);
    }
    while (done < outlet->count) {
        int sent = sendmmsg(outlet->fd, outlet->messages + done, outlet->count - done, 0);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) /* of the first of them: the others may be better */
            count_failure(outlet, outlet->packets[done++], errno);
        for (; sent > 0; sent--)
            outlet->sent += outlet->packets[done++];
    }
    outlet->count = 0;
}
