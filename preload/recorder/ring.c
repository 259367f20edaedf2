#define _GNU_SOURCE
#include "ring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/sys.h"

/* Older headers do not have it; the kernel does since 4.20. */
#ifndef PACKET_IGNORE_OUTGOING
#define PACKET_IGNORE_OUTGOING 23
#endif

enum { ETH_P_EVERY = 0x0003, LOOPBACK = 1, WHOLE = 1 << 18 };
/* A marker must not fit in what is left of a block that has a frame. It is for nobody: an
   experimental type (IEEE 802a), and loopback in a namespace without a process. */
enum { MARKER_TYPE = 0x88b5, MARKER_SIZE = RING_BLOCK - 256, FLUSH_PATIENCE_MS = 2 * RING_RETIRE_MS };

static const char NAME[] = "the recorder's packet socket";

static int set_filter(int fd, uint32_t snaplen)
{
    struct sock_filter code[] = {
        { BPF_LD | BPF_W | BPF_ABS, 0, 0, (uint32_t)(SKF_AD_OFF + SKF_AD_IFINDEX) },
        { BPF_JMP | BPF_JEQ | BPF_K, 0, 1, LOOPBACK },
        { BPF_RET | BPF_K, 0, 0, WHOLE },
        { BPF_RET | BPF_K, 0, 0, snaplen },
    };
    const struct sock_fprog program = { sizeof code / sizeof *code, code };
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static int raise_loopback(int fd)
{
    struct ifreq request = { .ifr_name = "lo" };
    if (ioctl(fd, SIOCGIFFLAGS, &request) < 0)
        return -1;
    request.ifr_flags |= IFF_UP;
    return ioctl(fd, SIOCSIFFLAGS, &request);
}

int ring_open(struct ring *ring, uint32_t snaplen, struct pc_failure *failure)
{
    const int version = TPACKET_V3, one = 1;
    const struct tpacket_req3 request = {
        .tp_block_size = RING_BLOCK,
        .tp_block_nr = RING_BLOCKS,
        .tp_frame_size = RING_BLOCK,
        .tp_frame_nr = RING_BLOCKS,
        .tp_retire_blk_tov = RING_RETIRE_MS,
    };
    const struct sockaddr_ll every = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_EVERY) };
    *ring = (struct ring){ .fd = -1, .marker = -1 };
    /* Without a protocol it receives nothing until it is bound, when all of it is set. */
    ring->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    ring->marker = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (ring->fd < 0 || ring->marker < 0)
        return pc_fail(failure, "open", NAME);
    if (raise_loopback(ring->fd) < 0)
        return pc_fail(failure, "bring up lo for", NAME);
    if (setsockopt(ring->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) < 0 || set_filter(ring->fd, snaplen) < 0 ||
        setsockopt(ring->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) < 0)
        return pc_fail_as(failure, "set the options of", NAME, errno, "kernel >= 4.20 is needed for PACKET_IGNORE_OUTGOING");
    if (setsockopt(ring->fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof request) < 0)
        return pc_fail(failure, "make a ring for", NAME);
    ring->blocks = mmap(NULL, (size_t)RING_BLOCK * RING_BLOCKS, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
    if (ring->blocks == MAP_FAILED)
        return pc_fail(failure, "map the ring of", NAME);
    if (bind(ring->fd, (const struct sockaddr *)&every, sizeof every) < 0)
        return pc_fail(failure, "bind", NAME);
    return 0;
}

static void hand_out(struct ring *ring, const struct tpacket3_hdr *header, ring_sink *sink, void *context)
{
    const struct sockaddr_ll *from = (const void *)((const uint8_t *)header + TPACKET_ALIGN(sizeof *header));
    if (from->sll_ifindex == LOOPBACK) {
        ring->marks_seen += from->sll_protocol == htons(MARKER_TYPE);
        return;
    }
    const struct frame frame = {
        .record = {
            .time = (uint64_t)header->tp_sec * 1000000000 + header->tp_nsec,
            .interface = (uint32_t)from->sll_ifindex,
            .captured = header->tp_snaplen,
            .length = header->tp_len,
            .way = RECORDER_OUT, /* of the host, into the plug */
        },
        .bytes = (const uint8_t *)header + header->tp_mac,
        .tagged = (header->tp_status & TP_STATUS_VLAN_VALID) != 0,
        .tag_protocol = header->tp_status & TP_STATUS_VLAN_TPID_VALID ? header->hv1.tp_vlan_tpid : 0x8100,
        .tag = (uint16_t)header->hv1.tp_vlan_tci,
    };
    ring->seen++;
    sink(context, &frame);
}

static void count_lost(struct ring *ring)
{
    struct tpacket_stats_v3 stats;
    socklen_t size = sizeof stats;
    if (getsockopt(ring->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size) == 0)
        ring->lost += stats.tp_drops; /* since it was asked last */
}

void ring_drain(struct ring *ring, ring_sink *sink, void *context)
{
    for (int i = 0; i < RING_BLOCKS; i++) {
        struct tpacket_block_desc *block = (void *)(ring->blocks + (size_t)RING_BLOCK * ring->next);
        if (!(__atomic_load_n(&block->hdr.bh1.block_status, __ATOMIC_ACQUIRE) & TP_STATUS_USER))
            return;
        const uint8_t *at = (const uint8_t *)block + block->hdr.bh1.offset_to_first_pkt;
        for (uint32_t left = block->hdr.bh1.num_pkts; left > 0; left--) {
            const struct tpacket3_hdr *header = (const void *)at;
            hand_out(ring, header, sink, context);
            at += header->tp_next_offset;
        }
        __atomic_store_n(&block->hdr.bh1.block_status, TP_STATUS_KERNEL, __ATOMIC_RELEASE);
        ring->next = (ring->next + 1) % RING_BLOCKS;
    }
}

static int send_marker(const struct ring *ring)
{
    static uint8_t frame[MARKER_SIZE] = { [12] = MARKER_TYPE >> 8, [13] = MARKER_TYPE & 0xff };
    const struct sockaddr_ll loopback = { .sll_family = AF_PACKET, .sll_protocol = htons(MARKER_TYPE), .sll_ifindex = LOOPBACK, .sll_halen = 6 };
    return sendto(ring->marker, frame, sizeof frame, 0, (const struct sockaddr *)&loopback, sizeof loopback) == sizeof frame ? 0 : -1;
}

/* The first marker does not fit beside what is in the block, so that is handed over; the
   second does so with the first, and when that has come, everything before it has. Without
   markers (no memory) the block's own time limit does the same, later. */
void ring_flush(struct ring *ring, ring_sink *sink, void *context)
{
    struct pollfd readable = { .fd = ring->fd, .events = POLLIN };
    const int64_t until = pc_now_us() + FLUSH_PATIENCE_MS * 1000;
    if (send_marker(ring) == 0)
        ring->marks_sent++;
    const uint64_t awaited = ring->marks_sent;
    if (send_marker(ring) == 0)
        ring->marks_sent++;
    for (;;) {
        ring_drain(ring, sink, context);
        const int64_t left = until - pc_now_us();
        if ((awaited > 0 && ring->marks_seen >= awaited) || left <= 0)
            break;
        poll(&readable, 1, (int)(left / 1000) + 1);
    }
    ring->marks_sent = ring->marks_seen + (ring->marks_sent > awaited); /* one that was lost is awaited no more */
    count_lost(ring);
}
