#define _GNU_SOURCE
#include "netlink.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

void nl_begin(struct nl_batch *batch)
{
    batch->end = batch->buffer;
    batch->message = NULL;
    batch->count = 0;
    batch->overflow = 0;
}

/* Returns `length` zeroed bytes at the end, aligned, or a place to write to in vain. */
static void *reserve(struct nl_batch *batch, size_t length)
{
    size_t aligned = NLMSG_ALIGN(length);
    if (batch->end + aligned > batch->buffer + sizeof batch->buffer) {
        batch->overflow = 1;
        batch->end = batch->buffer;
    }
    void *place = batch->end;
    memset(place, 0, aligned);
    batch->end += aligned;
    if (batch->message)
        batch->message->nlmsg_len = (uint32_t)(batch->end - (char *)batch->message);
    return place;
}

void *nl_message(struct nl_batch *batch, uint16_t type, uint16_t flags, size_t size)
{
    batch->message = NULL;
    struct nlmsghdr *message = reserve(batch, NLMSG_HDRLEN);
    batch->message = message;
    message->nlmsg_type = type;
    message->nlmsg_flags = flags | NLM_F_REQUEST | NLM_F_ACK;
    message->nlmsg_seq = batch->count++;
    return reserve(batch, size);
}

void nl_put(struct nl_batch *batch, uint16_t type, const void *data, size_t length)
{
    struct nlattr *attr = reserve(batch, NLA_HDRLEN + length);
    attr->nla_type = type;
    attr->nla_len = (uint16_t)(NLA_HDRLEN + length);
    memcpy((char *)attr + NLA_HDRLEN, data, length);
}

void nl_put_u32(struct nl_batch *batch, uint16_t type, uint32_t value)
{
    nl_put(batch, type, &value, sizeof value);
}

void nl_put_string(struct nl_batch *batch, uint16_t type, const char *text)
{
    nl_put(batch, type, text, strlen(text) + 1);
}

void *nl_raw(struct nl_batch *batch, size_t length)
{
    return reserve(batch, length);
}

struct nlattr *nl_nest(struct nl_batch *batch, uint16_t type)
{
    struct nlattr *attr = reserve(batch, NLA_HDRLEN);
    attr->nla_type = type;
    return attr;
}

void nl_nest_end(struct nl_batch *batch, struct nlattr *nest)
{
    nest->nla_len = (uint16_t)(batch->end - (char *)nest);
}

/* Reads answers until every message of the batch has its acknowledgement. */
static int answers(int fd, unsigned count, void (*seen)(const struct nlmsghdr *, void *), void *context)
{
    char buffer[16384] __attribute__((aligned(NLMSG_ALIGNTO)));
    unsigned acknowledged = 0;
    int failed = -1, error = 0;
    while (acknowledged < count) {
        ssize_t length = recv(fd, buffer, sizeof buffer, 0);
        if (length < 0 && errno == EINTR)
            continue;
        if (length < 0)
            return 0;
        size_t left = (size_t)length;
        for (struct nlmsghdr *m = (struct nlmsghdr *)buffer; NLMSG_OK(m, left); m = NLMSG_NEXT(m, left)) {
            if (m->nlmsg_type != NLMSG_ERROR) {
                if (seen)
                    seen(m, context);
                continue;
            }
            acknowledged++;
            int code = -((struct nlmsgerr *)NLMSG_DATA(m))->error;
            if (code && failed < 0) {
                failed = (int)m->nlmsg_seq;
                error = code;
            }
        }
    }
    errno = error;
    return failed;
}

int nl_send(int fd, struct nl_batch *batch, void (*seen)(const struct nlmsghdr *, void *), void *context)
{
    if (batch->overflow) {
        errno = EMSGSIZE;
        return 0;
    }
    if (batch->count == 0)
        return -1;
    if (send(fd, batch->buffer, (size_t)(batch->end - batch->buffer), 0) < 0)
        return 0;
    return answers(fd, batch->count, seen, context);
}

int nl_open(void)
{
    /* A datagram socket, because pyroute2 refuses raw ones in use_socket=. */
    return socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_ROUTE);
}
