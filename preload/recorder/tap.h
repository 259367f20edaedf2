/* A capture: a packet socket in a host, whose frames go whole, and as they come, into a memfd
   that pytest reads. A socket's buffer is small (net.core.rmem_max without root), so somebody
   has to empty it while the test is busy. */
#ifndef PC_TAP_H
#define PC_TAP_H

#include <poll.h>
#include <stdint.h>

enum { TAPS_MAX = 64 };
enum tap_flag { TAP_WITHOUT_LOOPBACK = 1 };

struct tap {
    uint32_t id; /* 0: this place is free */
    int fd, file;
    uint32_t flags;
    uint64_t size, most, lost;
};

/* Takes the socket over, and begins to capture at this interface (0: at all of them); returns
   NULL with errno. The socket's filter is set already. */
struct tap *tap_add(int fd, uint32_t interface, uint32_t flags, uint64_t most);
struct tap *tap_find(uint32_t id);
/* Takes what is in the socket, or a good part of it; returns whether there may be more. */
int tap_drain(struct tap *tap);
void tap_end(struct tap *tap);
/* Fills TAPS_MAX entries. */
void tap_polls(struct pollfd *polls);
void tap_serve(const struct pollfd *polls);

#endif
