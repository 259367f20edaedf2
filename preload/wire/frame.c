#define _GNU_SOURCE
#include "frame.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <string.h>

enum { IP4_LEAST = 20, IP6_LEAST = 40, TCP_LEAST = 20, UDP_SIZE = 8, ICMP_LEAST = 8, TAGS_MOST = 2, EXTENSIONS_MOST = 8 };
/* VIRTIO_NET_HDR_GSO_UDP_L4, which kernels have from 6.2 on, and headers later. */
enum { GSO_UDP_L4 = 5 };
enum { FRAGMENT = 0x3fff, LEAST_TYPE = 0x600, ECHO_REPLY = 0, ECHO = 8, ECHO6 = 128, ECHO6_REPLY = 129 };
/* Errors: RFC 792 (unreachable, quench, redirect, time, parameter), RFC 4443, 2.1. */
enum { UNREACHABLE = 3, QUENCH = 4, REDIRECT = 5, TIME = 11, PARAMETER = 12, INFORMATION6 = 128 };

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint32_t get32(const uint8_t *at)
{
    return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static void put16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
    put16(at, value >> 16);
    put16(at + 2, value);
}

/* Whether `size` more bytes are there from `offset` on. */
static int has(const struct frame *frame, uint32_t offset, uint32_t size)
{
    return offset <= frame->in.length && size <= frame->in.length - offset;
}

static int is_error(const struct frame *frame)
{
    const uint8_t type = frame->icmp_type;
    if (frame->protocol == IPPROTO_ICMPV6)
        return type < INFORMATION6;
    return (type >= UNREACHABLE && type <= REDIRECT) || type == TIME || type == PARAMETER;
}

static void parse_icmp(struct frame *frame, const uint8_t *at)
{
    frame->icmp_type = at[0];
    frame->kind = KIND_ICMP;
    if (frame->protocol == IPPROTO_ICMPV6 && ((at[0] >= 130 && at[0] <= 137) || at[0] == 143))
        frame->kind = KIND_CHATTER; /* MLD (RFC 2710, 3810) and neighbour discovery (RFC 4861) */
    else if (frame->protocol == IPPROTO_ICMPV6 ? at[0] == ECHO6 || at[0] == ECHO6_REPLY : at[0] == ECHO || at[0] == ECHO_REPLY)
        frame->source = get16(at + 4);
    else if (is_error(frame) && has(frame, frame->transport + ICMP_LEAST, frame->version == 4 ? IP4_LEAST : IP6_LEAST))
        frame->quoted = (uint16_t)(frame->transport + ICMP_LEAST);
}

static void parse_tcp(struct frame *frame, const uint8_t *at)
{
    const uint32_t size = (at[12] >> 4) * 4U;
    if (size < TCP_LEAST || !has(frame, frame->transport, size))
        return;
    frame->kind = KIND_TCP;
    frame->source = get16(at);
    frame->target = get16(at + 2);
    frame->sequence = get32(at + 4);
    frame->acknowledged = get32(at + 8);
    frame->tcp_flags = at[13];
    frame->payload = (uint16_t)(frame->transport + size);
}

static int begins_with_ports(uint8_t protocol)
{
    return protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP || protocol == IPPROTO_DCCP || protocol == IPPROTO_UDPLITE;
}

static void parse_transport(struct frame *frame)
{
    const uint8_t *at = frame->in.data + frame->transport;
    frame->kind = frame->protocol == IPPROTO_IGMP ? KIND_CHATTER : KIND_IP;
    if (frame->protocol == IPPROTO_TCP && has(frame, frame->transport, TCP_LEAST)) {
        parse_tcp(frame, at);
    } else if ((frame->protocol == IPPROTO_ICMP || frame->protocol == IPPROTO_ICMPV6) && has(frame, frame->transport, ICMP_LEAST)) {
        parse_icmp(frame, at);
    } else if (begins_with_ports(frame->protocol) && has(frame, frame->transport, UDP_SIZE)) {
        frame->kind = KIND_PORTS;
        frame->source = get16(at);
        frame->target = get16(at + 2);
        frame->payload = (uint16_t)(frame->transport + UDP_SIZE);
    }
}

static void parse_ip4(struct frame *frame)
{
    const uint8_t *at = frame->in.data + frame->network;
    const uint32_t size = (at[0] & 15) * 4U, total = get16(at + 2);
    if (at[0] >> 4 != 4 || size < IP4_LEAST || !has(frame, frame->network, size))
        return;
    frame->version = 4;
    frame->kind = KIND_IP;
    frame->protocol = at[9];
    frame->transport = (uint16_t)(frame->network + size);
    if (total >= size && has(frame, frame->network, total))
        frame->length = frame->network + total;
    if (!(get16(at + 6) & FRAGMENT)) /* a fragment has no ports, or not all of its datagram */
        parse_transport(frame);
}

/* Walks over extension headers (RFC 8200, 4.1) to what they carry. */
static void parse_ip6(struct frame *frame)
{
    const uint8_t *data = frame->in.data;
    uint32_t at = frame->network + IP6_LEAST;
    const uint32_t total = IP6_LEAST + get16(data + frame->network + 4);
    uint8_t next = data[frame->network + 6];
    if (data[frame->network] >> 4 != 6)
        return;
    frame->version = 6;
    frame->kind = KIND_IP;
    if (total > IP6_LEAST && has(frame, frame->network, total))
        frame->length = frame->network + total;
    for (int i = 0; i < EXTENSIONS_MOST && has(frame, at, 8); i++) {
        if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS)
            break;
        next = data[at];
        at += (data[at + 1] + 1U) * 8;
    }
    frame->protocol = next;
    frame->transport = (uint16_t)at;
    if (next != IPPROTO_FRAGMENT && at < frame->in.length)
        parse_transport(frame);
}

int frame_parse_quoted(const struct frame *frame, struct frame *quoted)
{
    *quoted = (struct frame){ .in = frame->in, .network = frame->quoted };
    if (!frame->quoted)
        return 0;
    if (frame->version == 4)
        parse_ip4(quoted);
    else
        parse_ip6(quoted);
    /* Of TCP no more than the ports may be there (RFC 792: 64 bits). */
    if (quoted->kind == KIND_IP && quoted->protocol == IPPROTO_TCP && has(quoted, quoted->transport, 4)) {
        quoted->source = get16(frame->in.data + quoted->transport);
        quoted->target = get16(frame->in.data + quoted->transport + 2);
    }
    return quoted->version != 0;
}

/* Also of a frame that says to be one packet: then it is. */
static void parse_segments(struct frame *frame)
{
    const uint8_t gso = frame->in.vnet.gso_type & (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
    const int tcp = gso == VIRTIO_NET_HDR_GSO_TCPV4 || gso == VIRTIO_NET_HDR_GSO_TCPV6;
    const uint32_t size = frame->in.vnet.gso_size;
    frame->segments = 1;
    if (size == 0 || frame->payload == 0 || frame->payload > HEADERS_MAX || frame->in.length <= frame->payload + size)
        return;
    if (!(tcp && frame->kind == KIND_TCP) && !(gso == GSO_UDP_L4 && frame->protocol == IPPROTO_UDP && frame->kind == KIND_PORTS))
        return;
    frame->segment = size;
    frame->segments = (frame->in.length - frame->payload + size - 1) / size;
}

void frame_parse(struct frame *frame)
{
    uint32_t at = ETH_HLEN;
    frame->kind = KIND_OTHER;
    frame->version = 0;
    frame->segments = 1;
    frame->segment = 0;
    frame->payload = frame->source = frame->target = 0;
    frame->length = 0;
    frame->protocol = frame->tcp_flags = frame->icmp_type = 0;
    frame->quoted = 0;
    if (frame->in.length < ETH_HLEN)
        return;
    frame->type = get16(frame->in.data + 12);
    for (int i = 0; i < TAGS_MOST && (frame->type == ETH_P_8021Q || frame->type == ETH_P_8021AD) && has(frame, at, 4); i++, at += 4)
        frame->type = get16(frame->in.data + at + 2);
    frame->network = (uint16_t)at;
    if (frame->type == CANARY_TYPE && has(frame, at, sizeof CANARY_WORDS) && memcmp(frame->in.data + at, CANARY_WORDS, 8) == 0)
        frame->kind = KIND_CANARY;
    else if (frame->type == ETH_P_ARP || frame->type == ETH_P_LLDP || frame->type < LEAST_TYPE)
        frame->kind = KIND_CHATTER;
    else if (frame->type == ETH_P_IP && has(frame, at, IP4_LEAST))
        parse_ip4(frame);
    else if (frame->type == ETH_P_IPV6 && has(frame, at, IP6_LEAST))
        parse_ip6(frame);
    parse_segments(frame);
}

uint32_t frame_payload_size(const struct frame *frame, unsigned i)
{
    const uint32_t end = frame->segments == 1 && frame->length ? frame->length : frame->in.length;
    const uint32_t all = end > frame->payload ? end - frame->payload : 0;
    if (frame->segments == 1)
        return all;
    return i + 1 < frame->segments ? frame->segment : all - i * frame->segment;
}

uint32_t frame_packet_size(const struct frame *frame, unsigned i)
{
    return frame->segments == 1 ? frame->in.length : frame->payload + frame_payload_size(frame, i);
}

static uint32_t sum(uint32_t start, const uint8_t *at, uint32_t length)
{
    uint64_t total = start;
    for (; length > 1; at += 2, length -= 2)
        total += get16(at);
    if (length)
        total += (uint32_t)at[0] << 8;
    while (total >> 16)
        total = (total & 0xffff) + (total >> 16);
    return (uint32_t)total;
}

/* Patches the network header; returns the sum of the pseudo header (RFC 9293, 3.1; RFC 8200, 8.1). */
static uint32_t cut_network(const struct frame *frame, unsigned first, uint32_t size, uint8_t *headers)
{
    uint8_t *ip = headers + frame->network;
    const uint32_t below = size - (uint32_t)(frame->transport - frame->network);
    if (frame->version == 6) {
        put16(ip + 4, size - IP6_LEAST);
        return sum(below + frame->protocol, ip + 8, 32);
    }
    put16(ip + 2, size);
    put16(ip + 4, get16(ip + 4) + first);
    put16(ip + 10, 0);
    put16(ip + 10, ~sum(0, ip, (uint32_t)(frame->transport - frame->network)));
    return sum(below + frame->protocol, ip + 12, 8);
}

void frame_cut(const struct frame *frame, unsigned first, unsigned count, uint8_t *headers, struct virtio_net_hdr *vnet)
{
    const int tcp = frame->kind == KIND_TCP;
    const unsigned last = first + count - 1;
    uint8_t *transport = headers + frame->transport;
    memcpy(headers, frame->in.data, frame->payload);
    *vnet = frame->in.vnet;
    const uint32_t data = (count - 1) * frame->segment + frame_payload_size(frame, last);
    const uint32_t pseudo = cut_network(frame, first, (uint32_t)(frame->payload - frame->network) + data, headers);
    if (tcp) {
        put32(transport + 4, frame->sequence + first * frame->segment);
        if (last + 1 < frame->segments)
            transport[13] &= (uint8_t)~(TCP_FIN | TCP_PSH);
        if (first > 0) {
            transport[13] &= (uint8_t)~TCP_CWR;
            vnet->gso_type &= (uint8_t)~VIRTIO_NET_HDR_GSO_ECN;
        }
    } else {
        put16(transport + 4, UDP_SIZE + data);
    }
    put16(transport + (tcp ? 16 : 6), pseudo);
    vnet->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    /* In what a router has passed on there may be data beside the headers, more than is left here. */
    vnet->hdr_len = frame->payload;
    vnet->csum_start = frame->transport;
    vnet->csum_offset = tcp ? 16 : 6;
    if (count == 1) {
        vnet->gso_type = VIRTIO_NET_HDR_GSO_NONE;
        vnet->gso_size = 0;
    }
}

void frame_finish_checksum(uint8_t *data, uint32_t length, struct virtio_net_hdr *vnet)
{
    const uint32_t start = vnet->csum_start, at = start + vnet->csum_offset;
    if ((vnet->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) && start <= length && at + 2 <= length) {
        const uint32_t total = ~sum(0, data + start, length - start) & 0xffff;
        put16(data + at, total ? total : 0xffff); /* 0 says "none" in UDP; in TCP the two are equal */
    }
    *vnet = (struct virtio_net_hdr){ .flags = 0 };
}
