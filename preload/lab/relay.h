/* One connection through the proxy: a client outside, the server inside, and what is between. */
#ifndef PC_RELAY_H
#define PC_RELAY_H

#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

/* The descriptors of a relay at its most: two sockets, and a pipe for each direction. */
enum { RELAY_FDS = 6, TARGETS_MAX = 16 };

/* Where the server may be, in the order of the attempts. */
struct targets {
    union {
        struct sockaddr any;
        struct sockaddr_in ip4;
        struct sockaddr_in6 ip6;
    } address[TARGETS_MAX];
    int count;
};

struct flow {
    int pipe[2];   /* there while bytes are in it, -1 otherwise */
    size_t held;    /* bytes in the pipe */
    int ended;      /* the sender's end of file was read */
    int passed_on;  /* and the receiver was told */
};

struct relay {
    int client, server; /* sockets that do not block, or -1 */
    int target; /* the one that is tried, or was reached */
    int connected;
    struct flow up, down; /* to the server, to the client */
    struct relay *next_free; /* for the owner */
};

/* Takes over the client and tries to reach a server. `tag` comes back in the epoll events of
   the client, `tag` + 1 in the server's. Returns 0, or -1 when it is over already. */
int relay_open(struct relay *relay, int client, int epoll, uint64_t tag, const struct targets *targets);
/* Does what can be done after these events. Returns 0, or -1 when it is over. */
int relay_advance(struct relay *relay, int of_server, uint32_t events, int epoll, uint64_t tag, const struct targets *targets);

#endif
