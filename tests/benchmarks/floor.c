/* The floor of docs/benchmarks.md: the least that two joined network namespaces cost.
 *
 * A line on standard input is one round, answered by one line of JSON on standard output:
 * two unshare(CLONE_NEWNET), one rtnetlink datagram each (the first makes the veth pair with
 * both ends placed at once), reading IFLA_OPERSTATE of both ends back until it is UP (RFC 2863;
 * "up" without it is not usable: the first packet may be lost in the noop queueing discipline,
 * kernel commit facd15dfd691), then a TCP connect from A to a listening socket in B.
 * There is no pause and no sleep in here: who writes the lines decides when a round begins.
 *
 * Nothing more is done on purpose: no other namespace, no mount, no process, IPv4 alone, `lo`
 * stays down. With -6 each end gets an IPv6 address and `lo` comes up too, as in a host of ours.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { INDEX = 1001, PORT = 8000, STALLED_READS = 100000 };

struct batch {
    _Alignas(struct nlmsghdr) char bytes[2048];
    size_t used;
    struct nlmsghdr *message;
    uint32_t sequence;
};

static int with_ipv6;

static void die(const char *what)
{
    fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
    exit(1);
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void *append(struct batch *batch, const void *data, size_t size)
{
    char *place = batch->bytes + batch->used;
    memcpy(place, data, size);
    batch->used += NLMSG_ALIGN(size);
    return place;
}

static void open_message(struct batch *batch, int type, int flags)
{
    struct nlmsghdr header = { .nlmsg_type = (uint16_t)type, .nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags) };
    header.nlmsg_seq = ++batch->sequence;
    batch->message = append(batch, &header, sizeof header);
}

static void close_message(struct batch *batch)
{
    batch->message->nlmsg_len = (uint32_t)(batch->bytes + batch->used - (char *)batch->message);
}

static struct rtattr *attribute(struct batch *batch, int type, const void *data, size_t size)
{
    struct rtattr head = { .rta_len = (uint16_t)RTA_LENGTH(size), .rta_type = (uint16_t)type };
    struct rtattr *place = append(batch, &head, sizeof head);
    if (size > 0)
        append(batch, data, size);
    return place;
}

static void close_nest(struct batch *batch, struct rtattr *nest)
{
    nest->rta_len = (uint16_t)(batch->bytes + batch->used - (char *)nest);
}

static void add_veth(struct batch *batch, int peer_namespace)
{
    struct ifinfomsg link = { .ifi_index = INDEX };
    open_message(batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL);
    append(batch, &link, sizeof link);
    attribute(batch, IFLA_IFNAME, "eth0", 5);
    struct rtattr *info = attribute(batch, IFLA_LINKINFO, NULL, 0);
    attribute(batch, IFLA_INFO_KIND, "veth", 5);
    struct rtattr *data = attribute(batch, IFLA_INFO_DATA, NULL, 0);
    struct rtattr *peer = attribute(batch, VETH_INFO_PEER, NULL, 0);
    append(batch, &link, sizeof link);
    attribute(batch, IFLA_IFNAME, "eth0", 5);
    attribute(batch, IFLA_NET_NS_FD, &peer_namespace, sizeof peer_namespace);
    close_nest(batch, peer);
    close_nest(batch, data);
    close_nest(batch, info);
    close_message(batch);
}

static void add_address(struct batch *batch, int family, const char *text)
{
    unsigned char address[16];
    size_t size = family == AF_INET ? 4 : 16;
    struct ifaddrmsg header = { .ifa_family = (uint8_t)family, .ifa_index = INDEX };
    header.ifa_prefixlen = family == AF_INET ? 24 : 64;
    header.ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0;
    if (inet_pton(family, text, address) != 1)
        die("inet_pton");
    open_message(batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL);
    append(batch, &header, sizeof header);
    attribute(batch, IFA_LOCAL, address, size);
    attribute(batch, IFA_ADDRESS, address, size);
    close_message(batch);
}

static void set_up(struct batch *batch, int index, int flags)
{
    struct ifinfomsg link = { .ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
    open_message(batch, RTM_NEWLINK, flags);
    append(batch, &link, sizeof link);
    close_message(batch);
}

/* Only the last message asks for an answer; a failed one answers anyway (RFC 3549, NLMSG_ERROR). */
static void transact(int netlink, const struct batch *batch)
{
    char answer[8192];
    if (send(netlink, batch->bytes, batch->used, 0) != (ssize_t)batch->used)
        die("send");
    for (;;) {
        ssize_t got = recv(netlink, answer, sizeof answer, 0);
        if (got < (ssize_t)sizeof(struct nlmsghdr))
            die("recv");
        const struct nlmsghdr *header = (const void *)answer;
        if (header->nlmsg_type != NLMSG_ERROR)
            continue;
        const struct nlmsgerr *result = NLMSG_DATA(header);
        errno = -result->error;
        if (result->error != 0)
            die("rtnetlink");
        if (header->nlmsg_seq == batch->sequence)
            return;
    }
}

static int operstate(int netlink)
{
    char answer[8192];
    struct batch batch = { 0 };
    struct ifinfomsg link = { .ifi_index = INDEX };
    open_message(&batch, RTM_GETLINK, 0);
    append(&batch, &link, sizeof link);
    close_message(&batch);
    if (send(netlink, batch.bytes, batch.used, 0) != (ssize_t)batch.used)
        die("send RTM_GETLINK");
    ssize_t got = recv(netlink, answer, sizeof answer, 0);
    const struct nlmsghdr *header = (const void *)answer;
    if (got < (ssize_t)sizeof *header || header->nlmsg_type != RTM_NEWLINK)
        die("RTM_GETLINK");
    int left = (int)IFLA_PAYLOAD(header);
    for (const struct rtattr *at = IFLA_RTA(NLMSG_DATA(header)); RTA_OK(at, left); at = RTA_NEXT(at, left))
        if (at->rta_type == IFLA_OPERSTATE)
            return *(const unsigned char *)RTA_DATA(at);
    return IF_OPER_UNKNOWN;
}

static void wait_until_up(int netlink)
{
    for (int reads = 0; operstate(netlink) != IF_OPER_UP; reads++)
        if (reads == STALLED_READS)
            die("operstate never became UP");
}

static void new_namespace(int *namespace, int *netlink)
{
    if (unshare(CLONE_NEWNET) != 0)
        die("unshare(CLONE_NEWNET)");
    *namespace = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    *netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (*namespace < 0 || *netlink < 0)
        die("namespace");
}

static void configure(int netlink, const char *ipv4, const char *ipv6, int peer_namespace)
{
    struct batch batch = { 0 };
    if (peer_namespace >= 0)
        add_veth(&batch, peer_namespace);
    add_address(&batch, AF_INET, ipv4);
    if (with_ipv6) {
        add_address(&batch, AF_INET6, ipv6);
        set_up(&batch, 1, 0);
    }
    set_up(&batch, INDEX, NLM_F_ACK);
    transact(netlink, &batch);
}

static void one_round(int home)
{
    int spaces[2], netlinks[2];
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(PORT) };
    int64_t start = now_ns();
    new_namespace(&spaces[0], &netlinks[0]);
    new_namespace(&spaces[1], &netlinks[1]);
    configure(netlinks[0], "10.0.0.1", "fd00::1", spaces[1]);
    configure(netlinks[1], "10.0.0.2", "fd00::2", -1);
    wait_until_up(netlinks[0]);
    wait_until_up(netlinks[1]);
    int64_t ready = now_ns();
    inet_pton(AF_INET, "10.0.0.2", &address.sin_addr);
    int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server < 0 || bind(server, (void *)&address, sizeof address) != 0 || listen(server, 8) != 0)
        die("listen");
    if (setns(spaces[0], CLONE_NEWNET) != 0)
        die("setns");
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (client < 0 || connect(client, (void *)&address, sizeof address) != 0)
        die("connect");
    int64_t connected = now_ns();
    /* Back home before the next round, or the last namespace would die in the middle of it. */
    if (setns(home, CLONE_NEWNET) != 0)
        die("setns home");
    close(client), close(server);
    for (int end = 0; end < 2; end++)
        close(netlinks[end]), close(spaces[end]);
    int64_t gone = now_ns();
    printf("{\"setup\": %.1f, \"connect\": %.1f, \"cycle\": %.1f, \"down\": %.1f}\n", (double)(ready - start) / 1e3,
           (double)(connected - ready) / 1e3, (double)(connected - start) / 1e3, (double)(gone - connected) / 1e3);
}

int main(int argc, char **argv)
{
    char line[64];
    with_ipv6 = argc > 1 && strcmp(argv[1], "-6") == 0;
    int home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    if (home < 0)
        die("/proc/self/ns/net");
    setvbuf(stdout, NULL, _IOLBF, 0);
    while (fgets(line, sizeof line, stdin) != NULL)
        one_round(home);
    return 0;
}
