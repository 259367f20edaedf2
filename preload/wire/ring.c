#define _GNU_SOURCE
#include "ring.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* A slot also has the kernel's header, an address, padding and the virtio header. */
enum { SLOT_OVERHEAD = 128, TAGS = 8, BLOCK = 1 << 20, TINY_SLOT = 512, SMALL_SLOT = 2048, LARGE_SLOT = 66 << 10 };
/* How much each is to hold: 80 ms of 200,000 small packets a second, 4,096 full ones, and more than
   the 6 MB that TCP has under way by default. A processor may be busy with others for that long. */
enum { TINY_BYTES = 8 << 20, SMALL_BYTES = 8 << 20, LARGE_BYTES = 17 << 20 };

/* The part of a ring that may be waiting before it is emptied in a hurry. */
enum { FILLING_SHARE = 8 };

/* Frames that are longer than `above` and at most `most`. */
static int set_filter(int fd, unsigned above, unsigned most)
{
    struct sock_filter code[] = {
        { BPF_LD | BPF_W | BPF_LEN, 0, 0, 0 },
        { BPF_JMP | BPF_JGT | BPF_K, 2, 0, most },
        { BPF_JMP | BPF_JGT | BPF_K, 0, 1, above },
        { BPF_RET | BPF_K, 0, 0, ~0U },
        { BPF_RET | BPF_K, 0, 0, 0 },
    };
    const struct sock_fprog program = { sizeof code / sizeof *code, code };
    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static int set_ring(struct ring *ring, unsigned above, unsigned most)
{
    const int version = TPACKET_V2, one = 1;
    /* Protocol 0: it receives nothing until it is bound to one. */
    ring->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (ring->fd < 0 || set_filter(ring->fd, above, most) < 0)
        return -1;
    if (setsockopt(ring->fd, SOL_PACKET, PACKET_VERSION, &version, sizeof version) < 0)
        return -1;
    if (setsockopt(ring->fd, SOL_PACKET, PACKET_VNET_HDR, &one, sizeof one) < 0)
        return -1;
    if (setsockopt(ring->fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof one) < 0)
        return -1;
    const unsigned blocks = (unsigned)(ring->size / BLOCK);
    ring->block_size = BLOCK;
    ring->per_block = BLOCK / ring->frame_size;
    ring->frames = blocks * ring->per_block;
    struct tpacket_req request = { BLOCK, blocks, ring->frame_size, ring->frames };
    if (setsockopt(ring->fd, SOL_PACKET, PACKET_RX_RING, &request, sizeof request) < 0)
        return -1;
    ring->map = mmap(NULL, ring->size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
    return ring->map == MAP_FAILED ? -1 : 0;
}

struct making {
    struct ring *ring;
    unsigned above, most;
    int error;
};

static void *make_one(void *argument)
{
    struct making *making = argument;
    making->error = set_ring(making->ring, making->above, making->most) < 0 ? errno : 0;
    return NULL;
}

static struct making plan(struct inlet *inlet, int which, unsigned mtu, unsigned divisor)
{
    static const size_t bytes[RINGS] = { TINY_BYTES, SMALL_BYTES, LARGE_BYTES };
    const unsigned most = mtu + ETH_HLEN + TAGS, tiny = TINY_SLOT - SLOT_OVERHEAD;
    unsigned slot = SMALL_SLOT;
    while (slot < most + SLOT_OVERHEAD && slot < LARGE_SLOT)
        slot *= 2;
    const unsigned slots[RINGS] = { TINY_SLOT, slot < LARGE_SLOT ? slot : LARGE_SLOT, LARGE_SLOT };
    const unsigned limits[RINGS + 1] = { 0, tiny, most > tiny ? most : tiny, ~0U };
    const size_t size = bytes[which] / divisor / BLOCK * BLOCK;
    inlet->ring[which] = (struct ring){ .fd = -1, .frame_size = slots[which], .size = size < BLOCK ? BLOCK : size };
    return (struct making){ &inlet->ring[which], limits[which], limits[which + 1], 0 };
}

int inlet_open_both(struct inlet inlet[2], const unsigned mtu[2], unsigned divisor, struct pc_failure *failure)
{
    struct making making[2 * RINGS];
    pthread_t thread[2 * RINGS];
    int started[2 * RINGS], error = 0;
    for (int i = 0; i < 2 * RINGS; i++) {
        making[i] = plan(&inlet[i / RINGS], i % RINGS, mtu[i / RINGS], divisor);
        /* Each waits for a grace period of RCU (8-16 ms): at the same time. */
        started[i] = pthread_create(&thread[i], NULL, make_one, &making[i]) == 0;
    }
    for (int i = 0; i < 2 * RINGS; i++) {
        if (started[i])
            pthread_join(thread[i], NULL);
        else
            make_one(&making[i]);
        if (making[i].error)
            error = making[i].error;
    }
    return error ? pc_fail_as(failure, "make packet rings for", "the plugs", error, "a wire takes 66 MB of memory") : 0;
}

int inlet_start(struct inlet *inlet, int index, struct pc_failure *failure)
{
    const struct sockaddr_ll address = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = index };
    for (int i = 0; i < RINGS; i++)
        if (bind(inlet->ring[i].fd, (const struct sockaddr *)&address, sizeof address) < 0)
            return pc_fail(failure, "listen on", "a plug");
    return 0;
}

static struct tpacket2_hdr *header(const struct ring *ring, unsigned slot)
{
    return (struct tpacket2_hdr *)(void *)(ring->map + (size_t)(slot / ring->per_block) * ring->block_size + (size_t)(slot % ring->per_block) * ring->frame_size);
}

/* The frame in the next slot, or NULL when the kernel has not filled it. */
static struct tpacket2_hdr *peek(const struct ring *ring)
{
    struct tpacket2_hdr *next = header(ring, ring->next);
    /* Every slot is taken: the kernel has had none back since. */
    if (!(atomic_load_explicit((_Atomic uint32_t *)&next->tp_status, memory_order_acquire) & TP_STATUS_USER))
        return NULL;
    return (ring->next + 1) % ring->frames == ring->released ? NULL : next;
}

static uint64_t time_of(const struct tpacket2_hdr *frame)
{
    return (uint64_t)frame->tp_sec * 1000000000 + frame->tp_nsec;
}

static void understand(const struct tpacket2_hdr *frame, struct arrival *arrival)
{
    arrival->data = (uint8_t *)(uintptr_t)frame + frame->tp_mac;
    arrival->length = frame->tp_snaplen;
    arrival->time = time_of(frame);
    arrival->truncated = frame->tp_snaplen != frame->tp_len;
    memcpy(&arrival->vnet, arrival->data - sizeof arrival->vnet, sizeof arrival->vnet);
    arrival->tag_protocol = 0;
    if (frame->tp_status & TP_STATUS_VLAN_VALID) {
        arrival->tag = frame->tp_vlan_tci;
        arrival->tag_protocol = frame->tp_status & TP_STATUS_VLAN_TPID_VALID ? frame->tp_vlan_tpid : ETH_P_8021Q;
    }
}

/* The ring with the oldest frame, or NULL. */
static struct ring *oldest(struct inlet *inlet)
{
    struct tpacket2_hdr *heads[RINGS] = { NULL };
    struct ring *first = NULL, *before;
    uint64_t time = UINT64_MAX;
    /* What came before the frame that is found is there when the other rings are looked at
       after it: so those that were empty are looked at again, until there is nothing older. */
    do {
        before = first;
        for (int i = 0; i < RINGS; i++) {
            if (!heads[i])
                heads[i] = peek(&inlet->ring[i]);
            if (heads[i] && time_of(heads[i]) < time) {
                first = &inlet->ring[i];
                time = time_of(heads[i]);
            }
        }
    } while (first != before);
    return first;
}

int inlet_take(struct inlet *inlet, struct arrival *arrival)
{
    struct ring *ring = oldest(inlet);
    if (!ring)
        return 0;
    const struct tpacket2_hdr *frame = header(ring, ring->next);
    ring->next = (ring->next + 1) % ring->frames;
    understand(frame, arrival);
    return 1;
}

int inlet_is_filling(const struct inlet *inlet)
{
    for (int i = 0; i < RINGS; i++) {
        const struct ring *ring = &inlet->ring[i];
        struct tpacket2_hdr *ahead = header(ring, (ring->next + ring->frames / FILLING_SHARE) % ring->frames);
        if (atomic_load_explicit((_Atomic uint32_t *)&ahead->tp_status, memory_order_acquire) & TP_STATUS_USER)
            return 1;
    }
    return 0;
}

static void release(struct ring *ring)
{
    for (; ring->released != ring->next; ring->released = (ring->released + 1) % ring->frames)
        atomic_store_explicit((_Atomic uint32_t *)&header(ring, ring->released)->tp_status, TP_STATUS_KERNEL, memory_order_release);
}

void inlet_release(struct inlet *inlet)
{
    for (int i = 0; i < RINGS; i++)
        release(&inlet->ring[i]);
}

void inlet_count_drops(struct inlet *inlet)
{
    for (int i = 0; i < RINGS; i++) {
        struct tpacket_stats stats = { 0 };
        socklen_t size = sizeof stats;
        if (getsockopt(inlet->ring[i].fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size) == 0)
            inlet->drops += stats.tp_drops;
    }
}

void inlet_clear_errors(struct inlet *inlet)
{
    for (int i = 0; i < RINGS; i++) {
        int error;
        socklen_t size = sizeof error;
        getsockopt(inlet->ring[i].fd, SOL_SOCKET, SO_ERROR, &error, &size);
    }
}
