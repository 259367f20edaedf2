/* Just enough of rtnetlink(7): messages collected into one datagram, sent once,
   and every acknowledgement read back. */
#ifndef PC_NETLINK_H
#define PC_NETLINK_H

#include <linux/netlink.h>
#include <stddef.h>
#include <stdint.h>

struct nl_batch {
    char *end;                /* where the next byte goes */
    struct nlmsghdr *message; /* the message being built */
    unsigned count;           /* messages so far */
    int overflow;             /* set when the buffer was too small */
    char buffer[4096];
};

void nl_begin(struct nl_batch *batch);
/* Starts a message; returns its zeroed body of `size` bytes. */
void *nl_message(struct nl_batch *batch, uint16_t type, uint16_t flags, size_t size);
void nl_put(struct nl_batch *batch, uint16_t type, const void *data, size_t length);
void nl_put_u32(struct nl_batch *batch, uint16_t type, uint32_t value);
void nl_put_string(struct nl_batch *batch, uint16_t type, const char *text);
/* Raw bytes inside an open attribute (a struct in front of nested attributes). */
void *nl_raw(struct nl_batch *batch, size_t length);
struct nlattr *nl_nest(struct nl_batch *batch, uint16_t type);
void nl_nest_end(struct nl_batch *batch, struct nlattr *nest);

/* Sends the batch and waits for an answer to every message. Returns -1 when all
   succeeded, else the number (from 0) of the first message that failed, with errno.
   Failure to send or receive counts as message 0. `seen`, when not NULL, is called for
   every answer that is no acknowledgement. */
int nl_send(int fd, struct nl_batch *batch, void (*seen)(const struct nlmsghdr *, void *), void *context);

int nl_open(void);

#endif
