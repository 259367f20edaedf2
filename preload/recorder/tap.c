#define _GNU_SOURCE
#include "tap.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../common/sys.h"
#include "recorder.h"

enum { ETH_P_EVERY = 0x0003, LOOPBACK = 1, BUFFER = 32 << 20, LARGEST = 1 << 18, AT_ONCE = 4096 };

static struct tap taps[TAPS_MAX];
static uint32_t last_id;

static int set_up(int fd, uint32_t interface)
{
    const int buffer = BUFFER, one = 1;
    const struct sockaddr_ll where = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_EVERY), .sll_ifindex = (int)interface };
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer); /* as large as the machine allows */
    if (setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &one, sizeof one) < 0 || setsockopt(fd, SOL_PACKET, PACKET_AUXDATA, &one, sizeof one) < 0)
        return -1;
    return bind(fd, (const struct sockaddr *)&where, sizeof where);
}

struct tap *tap_add(int fd, uint32_t interface, uint32_t flags, uint64_t most)
{
    struct tap *tap = NULL;
    for (int i = 0; i < TAPS_MAX && !tap; i++)
        if (!taps[i].id)
            tap = &taps[i];
    if (!tap) {
        errno = EMFILE;
        return NULL;
    }
    const int file = memfd_create("poor-container-capture", MFD_CLOEXEC);
    if (file < 0)
        return NULL;
    if (set_up(fd, interface) < 0) {
        const int error = errno;
        close(file);
        errno = error;
        return NULL;
    }
    *tap = (struct tap){ .id = ++last_id, .fd = fd, .file = file, .flags = flags, .most = most };
    return tap;
}

struct tap *tap_find(uint32_t id)
{
    for (int i = 0; id && i < TAPS_MAX; i++)
        if (taps[i].id == id)
            return &taps[i];
    return NULL;
}

static void read_control(struct msghdr *message, struct frame *frame)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec time;
            memcpy(&time, CMSG_DATA(c), sizeof time);
            frame->record.time = (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
        } else if (c->cmsg_level == SOL_PACKET && c->cmsg_type == PACKET_AUXDATA) {
            struct tpacket_auxdata data;
            memcpy(&data, CMSG_DATA(c), sizeof data);
            frame->record.length = data.tp_len;
            frame->tagged = (data.tp_status & TP_STATUS_VLAN_VALID) != 0;
            frame->tag_protocol = data.tp_status & TP_STATUS_VLAN_TPID_VALID ? data.tp_vlan_tpid : 0x8100;
            frame->tag = data.tp_vlan_tci;
        }
    }
}

static void store(struct tap *tap, const struct frame *frame)
{
    static uint8_t buffer[LARGEST + sizeof(struct record) + 16];
    const size_t size = record_write(buffer, frame);
    if (tap->size + size > tap->most || pwrite(tap->file, buffer, size, (off_t)tap->size) != (ssize_t)size)
        tap->lost++;
    else
        tap->size += size;
}

static int take_one(struct tap *tap)
{
    static uint8_t bytes[LARGEST];
    union {
        struct cmsghdr align;
        char space[256];
    } control;
    struct sockaddr_ll from;
    struct iovec part = { bytes, sizeof bytes };
    struct msghdr message = { .msg_name = &from, .msg_namelen = sizeof from, .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control };
    const ssize_t length = recvmsg(tap->fd, &message, MSG_DONTWAIT);
    if (length < 0)
        return -1;
    const int own = from.sll_pkttype == PACKET_OUTGOING;
    /* lo shows each frame twice, as it goes and as it comes. */
    if (from.sll_ifindex == LOOPBACK && (own || tap->flags & TAP_WITHOUT_LOOPBACK))
        return 0;
    struct frame frame = {
        .record = {
            .interface = (uint32_t)from.sll_ifindex,
            .captured = (uint32_t)length,
            .length = (uint32_t)length,
            .way = own ? RECORDER_OUT : RECORDER_IN,
        },
        .bytes = bytes,
    };
    read_control(&message, &frame);
    store(tap, &frame);
    return 0;
}

int tap_drain(struct tap *tap)
{
    struct tpacket_stats stats;
    socklen_t size = sizeof stats;
    int taken = 0;
    /* Bounded: who floods a host must not keep us from the others. */
    while (taken < AT_ONCE && take_one(tap) == 0)
        taken++;
    if (getsockopt(tap->fd, SOL_PACKET, PACKET_STATISTICS, &stats, &size) == 0)
        tap->lost += stats.tp_drops; /* since it was asked last */
    return taken == AT_ONCE;
}

/* The last close of a packet socket waits for an RCU grace period, and there are frames to be
   recorded meanwhile: a child has it. */
void tap_end(struct tap *tap)
{
    const pid_t pid = pc_clone(0, NULL);
    if (pid == 0)
        _exit(0);
    close(tap->fd);
    close(tap->file);
    *tap = (struct tap){ 0 };
}

void tap_polls(struct pollfd *polls)
{
    for (int i = 0; i < TAPS_MAX; i++)
        polls[i] = (struct pollfd){ .fd = taps[i].id ? taps[i].fd : -1, .events = POLLIN };
}

void tap_serve(const struct pollfd *polls)
{
    for (int i = 0; i < TAPS_MAX; i++)
        if (taps[i].id && polls[i].revents)
            tap_drain(&taps[i]);
}
