/* Interfaces and sockets, in a network namespace that was made for these probes. */
#define _GNU_SOURCE
#include "probe.h"
#include "request.h"

#include "../common/sys.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

extern unsigned if_nametoindex(const char *name); /* <net/if.h> clashes with <linux/if.h> */

int link_make(int fd, const char *name, const char *kind, const char *peer, int peer_netns)
{
    struct ifinfomsg body = { .ifi_family = AF_UNSPEC };
    struct request request;
    rq_start(&request, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
    rq_text(&request, IFLA_IFNAME, name);
    size_t info = rq_nest(&request, IFLA_LINKINFO, NULL, 0);
    rq_text(&request, IFLA_INFO_KIND, kind);
    if (peer) {
        size_t data = rq_nest(&request, IFLA_INFO_DATA, NULL, 0);
        size_t other = rq_nest(&request, VETH_INFO_PEER, &body, sizeof body);
        rq_text(&request, IFLA_IFNAME, peer);
        if (peer_netns >= 0)
            rq_number(&request, IFLA_NET_NS_FD, (uint32_t)peer_netns);
        rq_close(&request, other);
        rq_close(&request, data);
    }
    rq_close(&request, info);
    return rq_ask(fd, &request);
}

int link_up(int fd, const char *name)
{
    struct ifinfomsg body = { .ifi_family = AF_UNSPEC, .ifi_flags = IFF_UP, .ifi_change = IFF_UP };
    struct request request;
    rq_start(&request, RTM_NEWLINK, 0, &body, sizeof body);
    rq_text(&request, IFLA_IFNAME, name);
    return rq_ask(fd, &request);
}

/* The state and the index of an interface; fields that are -1 did not come. */
struct link_facts {
    int operstate, index;
};

static int link_ask(int fd, const char *name, struct link_facts *facts)
{
    struct ifinfomsg body = { .ifi_family = AF_UNSPEC };
    struct request request;
    char buffer[16384] __attribute__((aligned(4)));
    rq_start(&request, RTM_GETLINK, 0, &body, sizeof body);
    rq_text(&request, IFLA_IFNAME, name);
    struct nlmsghdr *head = rq_query(fd, &request, buffer, sizeof buffer);
    if (!head)
        return -1;
    facts->index = ((struct ifinfomsg *)NLMSG_DATA(head))->ifi_index;
    facts->operstate = -1;
    int left = (int)IFLA_PAYLOAD(head);
    for (struct rtattr *at = IFLA_RTA(NLMSG_DATA(head)); RTA_OK(at, left); at = RTA_NEXT(at, left))
        if (at->rta_type == IFLA_OPERSTATE)
            facts->operstate = *(unsigned char *)RTA_DATA(at);
    return 0;
}

int links_usable(int fd, const char *name, int other_fd, const char *other_name)
{
    /* From Linux 6.8 on the query itself runs the pending work (commit facd15dfd691); older ones need the time. */
    for (int tries = 0; tries < 150; tries++) {
        struct link_facts one, other;
        if (link_ask(fd, name, &one) != 0 || link_ask(other_fd, other_name, &other) != 0)
            return -1;
        if (one.operstate == IF_OPER_UP && other.operstate == IF_OPER_UP)
            return 0;
        struct timespec pause = { .tv_nsec = 10000000 };
        nanosleep(&pause, NULL);
    }
    errno = ETIMEDOUT;
    return -1;
}

static int add_address(int fd, int family, const char *name, const void *address, size_t length, unsigned prefix)
{
    /* Asked by netlink, because the socket's namespace need not be the one we are in. */
    struct link_facts facts;
    if (link_ask(fd, name, &facts) != 0)
        return -1;
    struct ifaddrmsg body = {
        .ifa_family = (uint8_t)family,
        .ifa_prefixlen = (uint8_t)prefix,
        /* Without it an IPv6 address cannot be used for nearly two seconds. */
        .ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0,
        .ifa_index = (unsigned)facts.index,
    };
    struct request request;
    rq_start(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
    rq_put(&request, IFA_LOCAL, address, length);
    rq_put(&request, IFA_ADDRESS, address, length);
    return rq_ask(fd, &request);
}

/* The end in the namespace we come from, by sockets that were made there. */
static int receive_end(struct outcome *out, int route, int udp)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0xc6120001) };
    if (add_address(route, AF_INET, "pcprobe0", &address.sin_addr, 4, 30) != 0 || link_up(route, "pcprobe0") != 0)
        return fail(out, "set a veth up");
    return bind(udp, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : fail(out, "bind to the address of a veth");
}

int probe_veth(struct outcome *out)
{
    /* 198.18.0.0/15 is set aside for tests of networks (RFC 2544); it leaves neither namespace. */
    struct sockaddr_in from = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(0xc6120002) };
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0xc6120001) };
    int near = rq_open(NETLINK_ROUTE), here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (near < 0 || here < 0 || udp < 0)
        return fail(out, "open our network namespace");
    if (own_network(out) != 0)
        return -1;
    int64_t start = pc_now_us();
    int far = rq_open(NETLINK_ROUTE);
    if (far < 0 || link_make(far, "pcprobe1", "veth", "pcprobe0", here) != 0)
        return fail(out, "make a veth with its peer in another namespace");
    if (receive_end(out, near, udp) != 0)
        return -1;
    if (add_address(far, AF_INET, "pcprobe1", &from.sin_addr, 4, 30) != 0 || link_up(far, "pcprobe1") != 0)
        return fail(out, "set a veth up");
    if (links_usable(near, "pcprobe0", far, "pcprobe1") != 0)
        return fail(out, "wait until a veth is usable");
    note(out, "usable after %.1f ms", (double)(pc_now_us() - start) / 1000);
    int sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sender < 0 || sendto(sender, "x", 1, 0, (struct sockaddr *)&to, sizeof to) != 1)
        return fail(out, "send over a veth");
    struct pollfd arrived = { .fd = udp, .events = POLLIN };
    return poll(&arrived, 1, 500) == 1 ? 0 : no_effect(out, "receive over a veth");
}

/* Waits until packets to an IPv6 address end here. The kernel adds an address at once, but its
   route from a work queue; a connection begun in between loses its first packet, and a second. */
static int wait_until_local(int fd, const struct in6_addr *address)
{
    for (int tries = 0; tries < 500; tries++) {
        char buffer[4096] __attribute__((aligned(4)));
        struct rtmsg body = { .rtm_family = AF_INET6, .rtm_dst_len = 128 };
        struct request request;
        rq_start(&request, RTM_GETROUTE, 0, &body, sizeof body);
        rq_put(&request, RTA_DST, address, sizeof *address);
        struct nlmsghdr *head = rq_query(fd, &request, buffer, sizeof buffer);
        if (head && head->nlmsg_type == RTM_NEWROUTE && ((struct rtmsg *)NLMSG_DATA(head))->rtm_type == RTN_LOCAL)
            return 0;
        struct timespec pause = { .tv_nsec = 1000000 };
        nanosleep(&pause, NULL);
    }
    errno = ETIMEDOUT;
    return -1;
}

int probe_ipv6(struct outcome *out)
{
    struct sockaddr_in6 address = { .sin6_family = AF_INET6, .sin6_port = htons(9) };
    inet_pton(AF_INET6, "fd00::5043", &address.sin6_addr);
    int route = rq_open(NETLINK_ROUTE);
    if (route < 0 || add_address(route, AF_INET6, "lo", &address.sin6_addr, 16, 128) != 0)
        return fail(out, "add an IPv6 address");
    if (wait_until_local(route, &address.sin6_addr) != 0)
        return fail(out, "wait for the route of an IPv6 address");
    int server = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0), client = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server < 0 || client < 0)
        return fail(out, "make an IPv6 socket");
    if (bind(server, (struct sockaddr *)&address, sizeof address) != 0 || listen(server, 1) != 0)
        return fail(out, "listen on an IPv6 address");
    return connect(client, (struct sockaddr *)&address, sizeof address) == 0 ? 0 : fail(out, "connect over IPv6");
}

/* --- one interface of a kind; it ends with the namespace --- */

static int make_kind(struct outcome *out, const char *name, const char *kind, const char *step)
{
    int route = rq_open(NETLINK_ROUTE);
    return route >= 0 && link_make(route, name, kind, NULL, -1) == 0 && link_up(route, name) == 0 ? 0 : fail(out, step);
}

int probe_bridge(struct outcome *out)
{
    return make_kind(out, "pcbridge", "bridge", "make a bridge");
}

int probe_dummy(struct outcome *out)
{
    return make_kind(out, "pcdummy", "dummy", "make a dummy interface");
}

int probe_ifb(struct outcome *out)
{
    return make_kind(out, "pcifb", "ifb", "make an ifb interface");
}

int probe_tun(struct outcome *out)
{
    struct ifreq request = { .ifr_name = "pctap", .ifr_flags = IFF_TAP | IFF_NO_PI };
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return fail(out, "open /dev/net/tun");
    return ioctl(fd, TUNSETIFF, &request) == 0 ? 0 : fail(out, "make a tap interface");
}

/* --- sockets that see more than their own connection --- */

int probe_raw_socket(struct outcome *out)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct icmphdr echo = { .type = ICMP_ECHO, .checksum = (uint16_t)~htons(ICMP_ECHO << 8) };
    int fd = socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
    if (fd < 0)
        return fail(out, "open a raw socket");
    if (sendto(fd, &echo, sizeof echo, 0, (struct sockaddr *)&address, sizeof address) != sizeof echo)
        return fail(out, "send by a raw socket");
    struct pollfd arrived = { .fd = fd, .events = POLLIN };
    while (poll(&arrived, 1, 500) == 1) {
        char packet[256];
        ssize_t got = recv(fd, packet, sizeof packet, 0);
        size_t header = (size_t)(packet[0] & 15) * 4;
        if (got >= (ssize_t)(header + sizeof echo) && packet[header] == ICMP_ECHOREPLY)
            return 0;
    }
    return no_effect(out, "receive an echo reply by a raw socket");
}

int probe_packet_socket(struct outcome *out)
{
    struct sockaddr_ll place = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_IP), .sll_ifindex = (int)if_nametoindex("lo") };
    struct sockaddr_in target = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    /* Protocol 0 until bound: to change a live one makes the kernel wait for all its CPUs. */
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fail(out, "open a packet socket");
    if (bind(fd, (struct sockaddr *)&place, sizeof place) != 0)
        return fail(out, "bind a packet socket");
    int udp = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (udp < 0 || sendto(udp, "x", 1, 0, (struct sockaddr *)&target, sizeof target) != 1)
        return fail(out, "send over the loopback interface");
    struct pollfd seen = { .fd = fd, .events = POLLIN };
    return poll(&seen, 1, 500) == 1 ? 0 : no_effect(out, "see a packet by a packet socket");
}
