#define _GNU_SOURCE
#include "outlet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { ADDRESSES = 2 * ETH_ALEN, TAG = 4 };

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

/* How often the interface's carrier has come and gone; 0 when that is not to be found out. */
static uint32_t carrier_changes(const struct outlet *outlet)
{
    struct {
        struct nlmsghdr header;
        struct ifinfomsg link;
    } request = { { sizeof request, RTM_GETLINK, NLM_F_REQUEST, 0, 0 }, { .ifi_index = outlet->index } };
    union {
        struct nlmsghdr header;
        uint8_t bytes[8192];
    } answer;
    if (send(outlet->netlink, &request, sizeof request, 0) < 0)
        return 0;
    const ssize_t got = recv(outlet->netlink, &answer, sizeof answer, MSG_DONTWAIT); /* the kernel answers at once */
    if (got < 0 || !NLMSG_OK(&answer.header, (unsigned)got) || answer.header.nlmsg_type != RTM_NEWLINK)
        return 0;
    unsigned left = (unsigned)IFLA_PAYLOAD(&answer.header);
    uint32_t changes = 0;
    for (struct rtattr *at = IFLA_RTA(NLMSG_DATA(&answer.header)); RTA_OK(at, left); at = RTA_NEXT(at, left))
        if (at->rta_type == IFLA_CARRIER_CHANGES)
            memcpy(&changes, RTA_DATA(at), sizeof changes);
    return changes;
}

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
    outlet->netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (outlet->netlink < 0)
        return pc_fail(failure, "make a socket for asking about", "a plug");
    outlet->changes = carrier_changes(outlet);
    return 0;
}

/* ENOBUFS is what veth says when it drops: since the other end is down, or has too much to do. It
   may be up again by now, but not without its carrier having changed. */
static int was_down(struct outlet *outlet)
{
    if (!is_running(outlet))
        return 1;
    const uint32_t before = outlet->changes;
    outlet->changes = carrier_changes(outlet);
    return outlet->changes != before;
}

/* Counts packets that the kernel did not take; returns how many of them are to be counted by what
   the interface was. */
static unsigned failure(struct outlet *outlet, unsigned packets, int error)
{
    if (error == ENOBUFS)
        return packets;
    if (error == ENETDOWN || error == ENXIO || error == ENODEV) {
        outlet->down += packets;
        return 0;
    }
    outlet->refused += packets;
    outlet->error = error;
    return 0;
}

void outlet_flush(struct outlet *outlet)
{
    unsigned done = 0, failed = 0;
    if (outlet->count == 1 && outlet->messages[0].msg_hdr.msg_iovlen == 1) {
        /* A packet alone, whose sender may wait for the answer. */
        if (send(outlet->fd, outlet->parts[0][0].iov_base, outlet->parts[0][0].iov_len, 0) >= 0)
            outlet->sent += outlet->packets[done++];
        else if (errno != EINTR)
            failed += failure(outlet, outlet->packets[done++], errno);
    }
    while (done < outlet->count) {
        int sent = sendmmsg(outlet->fd, outlet->messages + done, outlet->count - done, 0);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0) /* of the first of them: the others may be better */
            failed += failure(outlet, outlet->packets[done++], errno);
        for (; sent > 0; sent--)
            outlet->sent += outlet->packets[done++];
    }
    if (failed && was_down(outlet)) {
        outlet->down += failed;
    } else if (failed) {
        outlet->refused += failed;
        outlet->error = ENOBUFS;
    }
    outlet->count = 0;
}
