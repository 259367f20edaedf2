/* Ways to drop, redirect and shape packets. Each is proved by packets on the loopback
   interface of our own namespace: one must be lost under the rule, the next one, after
   the rule is gone, must arrive. Order is kept there, so no time need be waited. */
#define _GNU_SOURCE
#include "probe.h"
#include "request.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/pkt_cls.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef NF_NETDEV_EGRESS
#define NF_NETDEV_EGRESS 1 /* Linux 5.16 */
#endif

/* A UDP socket of the loopback interface that sends to itself. */
static int self_socket(struct outcome *out)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, length) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &length) != 0 || connect(fd, (struct sockaddr *)&address, length) != 0) {
        fail(out, "open a socket of the loopback interface");
        return -1;
    }
    return fd;
}

/* The first datagram to arrive, or 0 when there is none. */
static char arriving(int fd)
{
    struct pollfd arrived = { .fd = fd, .events = POLLIN };
    char byte = 0;
    return poll(&arrived, 1, 500) == 1 && recv(fd, &byte, 1, 0) == 1 ? byte : 0;
}

/* --- nf_tables --- */

static int nft_ask(int fd, struct request *request, unsigned type, unsigned flags)
{
    request->head.nlmsg_type = (uint16_t)(NFNL_SUBSYS_NFTABLES << 8 | type);
    request->head.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
    return rq_ask_nft(fd, request);
}

static void nft_start(struct request *request)
{
    struct nfgenmsg body = { .nfgen_family = NFPROTO_NETDEV, .version = NFNETLINK_V0 };
    rq_start(request, 0, 0, &body, sizeof body);
}

/* A chain at a device's hook whose policy is to drop. */
static int nft_drop_all(int fd, unsigned hook)
{
    struct request request;
    nft_start(&request);
    rq_text(&request, NFTA_CHAIN_TABLE, "pcprobe");
    rq_text(&request, NFTA_CHAIN_NAME, "drop");
    size_t nest = rq_nest(&request, NLA_F_NESTED | NFTA_CHAIN_HOOK, NULL, 0);
    rq_number(&request, NFTA_HOOK_HOOKNUM, htonl(hook));
    rq_number(&request, NFTA_HOOK_PRIORITY, htonl(0));
    rq_text(&request, NFTA_HOOK_DEV, "lo");
    rq_close(&request, nest);
    rq_number(&request, NFTA_CHAIN_POLICY, htonl(NF_DROP));
    rq_text(&request, NFTA_CHAIN_TYPE, "filter");
    return nft_ask(fd, &request, NFT_MSG_NEWCHAIN, NLM_F_CREATE);
}

static int nft_hook(struct outcome *out, unsigned hook, const char *step)
{
    struct request request;
    int udp = self_socket(out), nft = rq_open(NETLINK_NETFILTER);
    if (udp < 0)
        return -1;
    nft_start(&request);
    rq_text(&request, NFTA_TABLE_NAME, "pcprobe");
    if (nft < 0 || nft_ask(nft, &request, NFT_MSG_NEWTABLE, NLM_F_CREATE) != 0)
        return fail(out, "make an nftables table of the netdev family");
    if (nft_drop_all(nft, hook) != 0)
        return fail(out, step);
    /* At the egress hook a drop is told to the sender: no matter here. */
    (void)!send(udp, "a", 1, 0);
    if (nft_ask(nft, &request, NFT_MSG_DELTABLE, 0) != 0)
        return fail(out, "delete an nftables table");
    if (send(udp, "b", 1, 0) != 1)
        return fail(out, "send over the loopback interface");
    return arriving(udp) == 'b' ? 0 : no_effect(out, "drop a packet by nftables");
}

int probe_nft_netdev(struct outcome *out)
{
    return nft_hook(out, NF_NETDEV_INGRESS, "make an nftables chain at the ingress hook");
}

int probe_nft_egress(struct outcome *out)
{
    return nft_hook(out, NF_NETDEV_EGRESS, "make an nftables chain at the egress hook");
}

/* --- queueing disciplines and classifiers --- */

static void qdisc_start(struct request *request, unsigned type, unsigned flags, const char *device, uint32_t parent, const char *kind)
{
    struct tcmsg body = { .tcm_ifindex = (int)if_nametoindex(device), .tcm_parent = parent };
    /* The ingress place has its handle by definition; elsewhere the kernel chooses one. */
    body.tcm_handle = parent == TC_H_CLSACT ? TC_H_MAKE(TC_H_CLSACT, 0) : 0;
    rq_start(request, type, flags, &body, sizeof body);
    rq_text(request, TCA_KIND, kind);
}

static int clsact(int fd, const char *device, int add)
{
    struct request request;
    qdisc_start(&request, add ? RTM_NEWQDISC : RTM_DELQDISC, add ? NLM_F_CREATE | NLM_F_EXCL : 0, device, TC_H_CLSACT, "clsact");
    return rq_ask(fd, &request);
}

int probe_tc_clsact(struct outcome *out)
{
    int route = rq_open(NETLINK_ROUTE);
    if (route < 0 || clsact(route, "lo", 1) != 0)
        return fail(out, "add the clsact queueing discipline");
    return clsact(route, "lo", 0) == 0 ? 0 : fail(out, "delete the clsact queueing discipline");
}

/* A cls_bpf filter at the ingress of a device: drops all, or sends all out of `redirect`. */
static int bpf_filter(int fd, const char *device, unsigned redirect)
{
    struct tcmsg body = {
        .tcm_ifindex = (int)if_nametoindex(device),
        .tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS),
        .tcm_info = TC_H_MAKE(1u << 16, htons(ETH_P_ALL)),
    };
    struct sock_filter code[] = { BPF_STMT(BPF_RET | BPF_K, redirect ? 0xffffffff : TC_ACT_SHOT) };
    uint16_t length = sizeof code / sizeof *code;
    struct request request;
    rq_start(&request, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, &body, sizeof body);
    rq_text(&request, TCA_KIND, "bpf");
    size_t options = rq_nest(&request, TCA_OPTIONS, NULL, 0);
    rq_put(&request, TCA_BPF_OPS_LEN, &length, sizeof length);
    rq_put(&request, TCA_BPF_OPS, code, sizeof code);
    if (redirect) {
        struct tc_mirred mirred = { .action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = redirect };
        size_t actions = rq_nest(&request, TCA_BPF_ACT, NULL, 0), first = rq_nest(&request, 1, NULL, 0);
        rq_text(&request, TCA_ACT_KIND, "mirred");
        size_t parameters = rq_nest(&request, TCA_ACT_OPTIONS, NULL, 0);
        rq_put(&request, TCA_MIRRED_PARMS, &mirred, sizeof mirred);
        rq_close(&request, parameters);
        rq_close(&request, first);
        rq_close(&request, actions);
    } else {
        rq_number(&request, TCA_BPF_FLAGS, TCA_BPF_FLAG_ACT_DIRECT);
    }
    rq_close(&request, options);
    return rq_ask(fd, &request);
}

int probe_cls_bpf(struct outcome *out)
{
    int udp = self_socket(out), route = rq_open(NETLINK_ROUTE);
    if (udp < 0)
        return -1;
    if (route < 0 || clsact(route, "lo", 1) != 0)
        return fail(out, "add the clsact queueing discipline");
    if (bpf_filter(route, "lo", 0) != 0)
        return fail(out, "add a cls_bpf filter");
    (void)!send(udp, "a", 1, 0);
    if (clsact(route, "lo", 0) != 0)
        return fail(out, "delete the clsact queueing discipline");
    if (send(udp, "b", 1, 0) != 1)
        return fail(out, "send over the loopback interface");
    return arriving(udp) == 'b' ? 0 : no_effect(out, "drop a packet by cls_bpf");
}

static int packet_socket(const char *device)
{
    struct sockaddr_ll place = {
        .sll_family = AF_PACKET,
        .sll_protocol = htons(ETH_P_LOOPBACK),
        .sll_ifindex = (int)if_nametoindex(device),
    };
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    return fd >= 0 && bind(fd, (struct sockaddr *)&place, sizeof place) == 0 ? fd : -1;
}

/* A frame into one cable must come out of another: in at b, redirected to c, out at d. */
int probe_mirred(struct outcome *out)
{
    int route = rq_open(NETLINK_ROUTE);
    if (route < 0 || link_make(route, "pca", "veth", "pcb", -1) != 0 || link_make(route, "pcc", "veth", "pcd", -1) != 0)
        return fail(out, "make a veth");
    if (link_up(route, "pca") != 0 || link_up(route, "pcb") != 0 || link_up(route, "pcc") != 0 || link_up(route, "pcd") != 0)
        return fail(out, "set a veth up");
    if (clsact(route, "pcb", 1) != 0)
        return fail(out, "add the clsact queueing discipline");
    if (bpf_filter(route, "pcb", if_nametoindex("pcc")) != 0)
        return fail(out, "add a filter that redirects");
    if (links_usable(route, "pca", route, "pcb") != 0 || links_usable(route, "pcc", route, "pcd") != 0)
        return fail(out, "wait until a veth is usable");
    int from = packet_socket("pca"), to = packet_socket("pcd");
    if (from < 0 || to < 0)
        return fail(out, "open a packet socket");
    struct ethhdr frame = { .h_dest = { 255, 255, 255, 255, 255, 255 }, .h_source = { 2, 0, 0, 0, 0, 1 }, .h_proto = htons(ETH_P_LOOPBACK) };
    if (send(from, &frame, sizeof frame, 0) != sizeof frame)
        return fail(out, "send a frame");
    struct pollfd arrived = { .fd = to, .events = POLLIN };
    return poll(&arrived, 1, 500) == 1 ? 0 : no_effect(out, "redirect a frame");
}

int probe_netem(struct outcome *out)
{
    struct tc_netem_qopt options = { .limit = 1000, .loss = 0xffffffff };
    struct request request;
    int udp = self_socket(out), route = rq_open(NETLINK_ROUTE);
    if (udp < 0)
        return -1;
    qdisc_start(&request, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, "lo", TC_H_ROOT, "netem");
    rq_put(&request, TCA_OPTIONS, &options, sizeof options);
    if (route < 0 || rq_ask(route, &request) != 0)
        return fail(out, "add the netem queueing discipline");
    (void)!send(udp, "a", 1, 0);
    qdisc_start(&request, RTM_DELQDISC, 0, "lo", TC_H_ROOT, "netem");
    if (rq_ask(route, &request) != 0)
        return fail(out, "delete the netem queueing discipline");
    if (send(udp, "b", 1, 0) != 1)
        return fail(out, "send over the loopback interface");
    return arriving(udp) == 'b' ? 0 : no_effect(out, "lose a packet by netem");
}

int probe_tbf(struct outcome *out)
{
    /* 1 Gbit/s: nothing is to be seen of it but that the packet still arrives. */
    struct tc_tbf_qopt options = { .rate = { .linklayer = TC_LINKLAYER_ETHERNET, .rate = 125000000 }, .limit = 1000000 };
    struct request request;
    int udp = self_socket(out), route = rq_open(NETLINK_ROUTE);
    if (udp < 0)
        return -1;
    qdisc_start(&request, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, "lo", TC_H_ROOT, "tbf");
    size_t nest = rq_nest(&request, TCA_OPTIONS, NULL, 0);
    rq_put(&request, TCA_TBF_PARMS, &options, sizeof options);
    rq_number(&request, TCA_TBF_BURST, 1000000);
    rq_close(&request, nest);
    if (route < 0 || rq_ask(route, &request) != 0)
        return fail(out, "add the tbf queueing discipline");
    if (send(udp, "a", 1, 0) != 1 || arriving(udp) != 'a')
        return no_effect(out, "send through the tbf queueing discipline");
    qdisc_start(&request, RTM_DELQDISC, 0, "lo", TC_H_ROOT, "tbf");
    return rq_ask(route, &request) == 0 ? 0 : fail(out, "delete the tbf queueing discipline");
}
