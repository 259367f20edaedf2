#define _GNU_SOURCE
#include "request.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

int rq_open(int protocol)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol);
    /* An answer that never comes must not cost the probe all of its time. */
    struct timeval limit = { .tv_sec = 1 };
    if (fd >= 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
}

/* All requests here are constant and small, so the buffer's end is never reached. */
static void append(struct request *request, const void *data, size_t length)
{
    size_t end = NLMSG_ALIGN(request->head.nlmsg_len);
    if (end + length > sizeof request->bytes)
        __builtin_trap();
    if (length)
        memcpy(request->bytes + end, data, length);
    request->head.nlmsg_len = (uint32_t)(end + length);
}

void rq_start(struct request *request, unsigned type, unsigned flags, const void *body, size_t length)
{
    memset(request, 0, sizeof *request);
    request->head.nlmsg_len = NLMSG_HDRLEN;
    request->head.nlmsg_type = (uint16_t)type;
    request->head.nlmsg_flags = (uint16_t)(flags | NLM_F_REQUEST | NLM_F_ACK);
    request->head.nlmsg_seq = 1;
    append(request, body, length);
}

void rq_put(struct request *request, unsigned type, const void *data, size_t length)
{
    struct nlattr attribute = { .nla_len = (uint16_t)(NLA_HDRLEN + length), .nla_type = (uint16_t)type };
    append(request, &attribute, sizeof attribute);
    append(request, data, length);
}

void rq_text(struct request *request, unsigned type, const char *text)
{
    rq_put(request, type, text, strlen(text) + 1);
}

void rq_number(struct request *request, unsigned type, uint32_t value)
{
    rq_put(request, type, &value, sizeof value);
}

size_t rq_nest(struct request *request, unsigned type, const void *body, size_t length)
{
    size_t place = NLMSG_ALIGN(request->head.nlmsg_len);
    rq_put(request, type, body, length);
    return place;
}

void rq_close(struct request *request, size_t nest)
{
    struct nlattr *attribute = (struct nlattr *)(request->bytes + nest);
    request->head.nlmsg_len = NLMSG_ALIGN(request->head.nlmsg_len);
    attribute->nla_len = (uint16_t)(request->head.nlmsg_len - nest);
}

/* Reads until the acknowledgement of `sequence`, or any error. */
static int await(int fd, unsigned sequence)
{
    char buffer[8192] __attribute__((aligned(4)));
    for (;;) {
        ssize_t got = recv(fd, buffer, sizeof buffer, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            errno = errno == EAGAIN ? ETIMEDOUT : errno;
            return -1;
        }
        size_t left = (size_t)got;
        for (struct nlmsghdr *head = (void *)buffer; NLMSG_OK(head, left); head = NLMSG_NEXT(head, left)) {
            if (head->nlmsg_type != NLMSG_ERROR)
                continue;
            const struct nlmsgerr *answer = NLMSG_DATA(head);
            if (answer->error) {
                errno = -answer->error;
                return -1;
            }
            if (head->nlmsg_seq == sequence)
                return 0;
        }
    }
}

int rq_ask(int fd, struct request *request)
{
    struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
    if (sendto(fd, request, request->head.nlmsg_len, 0, (struct sockaddr *)&kernel, sizeof kernel) < 0)
        return -1;
    return await(fd, request->head.nlmsg_seq);
}

struct nlmsghdr *rq_query(int fd, struct request *request, void *buffer, size_t size)
{
    request->head.nlmsg_flags = NLM_F_REQUEST; /* the answer is acknowledgement enough */
    if (send(fd, request, request->head.nlmsg_len, 0) < 0)
        return NULL;
    ssize_t got = recv(fd, buffer, size, 0);
    struct nlmsghdr *head = buffer;
    if (got < 0)
        return NULL;
    if (NLMSG_OK(head, (size_t)got) && head->nlmsg_type != NLMSG_ERROR)
        return head;
    errno = NLMSG_OK(head, (size_t)got) ? -((struct nlmsgerr *)NLMSG_DATA(head))->error : EPROTO;
    return NULL;
}

int rq_ask_nft(int fd, struct request *request)
{
    struct {
        struct nlmsghdr head;
        struct nfgenmsg body;
    } begin = { .head = { .nlmsg_len = sizeof begin, .nlmsg_type = NFNL_MSG_BATCH_BEGIN, .nlmsg_flags = NLM_F_REQUEST },
                .body = { .nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(NFNL_SUBSYS_NFTABLES) } },
      end = begin;
    end.head.nlmsg_type = NFNL_MSG_BATCH_END;
    request->head.nlmsg_len = NLMSG_ALIGN(request->head.nlmsg_len);
    struct iovec parts[] = {
        { &begin, sizeof begin },
        { request, request->head.nlmsg_len },
        { &end, sizeof end },
    };
    struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
    struct msghdr message = { .msg_name = &kernel, .msg_namelen = sizeof kernel, .msg_iov = parts, .msg_iovlen = 3 };
    if (sendmsg(fd, &message, 0) < 0)
        return -1;
    return await(fd, request->head.nlmsg_seq);
}
