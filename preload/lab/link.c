#define _GNU_SOURCE
#include "link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/pkt_cls.h>
#include <linux/rtnetlink.h>
#include <linux/tc_act/tc_mirred.h>
#include <linux/veth.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "../common/sys.h"
#include "netlink.h"

/* Faults have filters before it (network/fabric.py). */
#define REDIRECT_PRIORITY 10U

enum { WAIT_TRIES = 4000, EAGER_TRIES = 20, PAUSE_US = 50, MTU = 1500 };

uint32_t link_plug_index(uint32_t link, int end)
{
    return 1000 + 2 * link + (uint32_t)end;
}

static struct ifinfomsg *put_link(struct nl_batch *batch, uint16_t type, uint16_t flags, uint32_t index, unsigned up)
{
    struct ifinfomsg *info = nl_message(batch, type, flags, sizeof *info);
    info->ifi_index = (int)index;
    info->ifi_flags = up;
    info->ifi_change = IFF_UP;
    return info;
}

/* One queue each way (the default is one a processor) makes a veth 100 us cheaper, and
   costs it nothing: it sends without a lock of its own. */
static void put_size(struct nl_batch *batch)
{
    nl_put_u32(batch, IFLA_MTU, MTU);
    nl_put_u32(batch, IFLA_NUM_TX_QUEUES, 1);
    nl_put_u32(batch, IFLA_NUM_RX_QUEUES, 1);
}

/* One veth: the plug in the fabric, its peer placed straight into the host. */
static void put_veth(struct nl_batch *batch, uint32_t plug, const struct link_end *end)
{
    char name[LINK_NAME_SIZE] = "p";
    pc_decimal(name + 1, plug);
    put_link(batch, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, plug, 0);
    nl_put_string(batch, IFLA_IFNAME, name);
    put_size(batch);
    struct nlattr *kind = nl_nest(batch, IFLA_LINKINFO);
    nl_put_string(batch, IFLA_INFO_KIND, "veth");
    struct nlattr *data = nl_nest(batch, IFLA_INFO_DATA);
    struct nlattr *peer = nl_nest(batch, VETH_INFO_PEER);
    struct ifinfomsg *info = nl_raw(batch, sizeof *info);
    info->ifi_index = LINK_HOST_INDEX;
    nl_put_string(batch, IFLA_IFNAME, end->name);
    nl_put(batch, IFLA_ADDRESS, end->mac, sizeof end->mac);
    put_size(batch);
    nl_put_u32(batch, IFLA_NET_NS_PID, (uint32_t)end->pid);
    nl_nest_end(batch, peer);
    nl_nest_end(batch, data);
    nl_nest_end(batch, kind);
}

static struct tcmsg *put_tc(struct nl_batch *batch, uint16_t type, uint16_t flags, uint32_t plug)
{
    struct tcmsg *tc = nl_message(batch, type, flags, sizeof *tc);
    tc->tcm_ifindex = (int)plug;
    return tc;
}

/* The hook at which frames that leave the host arrive in the fabric. */
static void put_clsact(struct nl_batch *batch, uint32_t plug)
{
    struct tcmsg *tc = put_tc(batch, RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, plug);
    tc->tcm_parent = TC_H_CLSACT;
    tc->tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
    nl_put_string(batch, TCA_KIND, "clsact");
}

static struct tcmsg *put_filter(struct nl_batch *batch, uint16_t type, uint16_t flags, uint32_t plug)
{
    struct tcmsg *tc = put_tc(batch, type, flags, plug);
    tc->tcm_parent = TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS);
    tc->tcm_info = TC_H_MAKE(REDIRECT_PRIORITY << 16, htons(0x0003 /* ETH_P_ALL */));
    return tc;
}

/* Everything that arrives on `plug` goes out of `other`. The classifier is a classic
   BPF program that says yes to all, since cls_bpf is in more kernels than matchall. */
static void put_redirect(struct nl_batch *batch, uint32_t plug, uint32_t other)
{
    static const struct sock_filter yes = { .code = BPF_RET | BPF_K, .k = 0xffffffff };
    const uint16_t one = 1;
    struct tc_mirred mirred = { .action = TC_ACT_STOLEN, .eaction = TCA_EGRESS_REDIR, .ifindex = other };
    struct tcmsg *tc = put_filter(batch, RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_EXCL, plug);
    tc->tcm_handle = 1;
    nl_put_string(batch, TCA_KIND, "bpf");
    struct nlattr *options = nl_nest(batch, TCA_OPTIONS);
    struct nlattr *actions = nl_nest(batch, TCA_BPF_ACT);
    struct nlattr *first = nl_nest(batch, 1);
    nl_put_string(batch, TCA_ACT_KIND, "mirred");
    struct nlattr *parameters = nl_nest(batch, TCA_ACT_OPTIONS | NLA_F_NESTED);
    nl_put(batch, TCA_MIRRED_PARMS, &mirred, sizeof mirred);
    nl_nest_end(batch, parameters);
    nl_nest_end(batch, first);
    nl_nest_end(batch, actions);
    nl_put(batch, TCA_BPF_OPS_LEN, &one, sizeof one);
    nl_put(batch, TCA_BPF_OPS, &yes, sizeof yes);
    nl_nest_end(batch, options);
}

static void put_address(struct nl_batch *batch, int family, const void *address, size_t size, uint8_t prefix)
{
    struct ifaddrmsg *message = nl_message(batch, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof *message);
    message->ifa_family = (uint8_t)family;
    message->ifa_prefixlen = prefix;
    message->ifa_index = LINK_HOST_INDEX;
    /* Without nodad an IPv6 address is tentative, and unusable, for 1.8 s. */
    message->ifa_flags = family == AF_INET6 ? IFA_F_NODAD : 0;
    message->ifa_scope = RT_SCOPE_UNIVERSE;
    nl_put(batch, IFA_LOCAL, address, size);
    nl_put(batch, IFA_ADDRESS, address, size);
}

static void put_query(struct nl_batch *batch, uint32_t index)
{
    struct ifinfomsg *info = nl_message(batch, RTM_GETLINK, 0, sizeof *info);
    info->ifi_index = (int)index;
}

/* What the answers to the queries of one batch say. */
struct seen {
    unsigned up; /* interfaces that are operationally up */
    int own;     /* the route to the address that was asked for is a local one */
};

static void see(const struct nlmsghdr *message, void *context)
{
    struct seen *seen = context;
    if (message->nlmsg_type == RTM_NEWROUTE)
        seen->own = ((const struct rtmsg *)NLMSG_DATA(message))->rtm_type == RTN_LOCAL;
    if (message->nlmsg_type != RTM_NEWLINK)
        return;
    const struct ifinfomsg *info = NLMSG_DATA(message);
    int left = (int)IFLA_PAYLOAD(message);
    for (const struct rtattr *a = IFLA_RTA(info); RTA_OK(a, left); a = RTA_NEXT(a, left))
        if (a->rta_type == IFLA_OPERSTATE && *(const uint8_t *)RTA_DATA(a) == IF_OPER_UP)
            seen->up++;
}

static void pause_after(int tries)
{
    if (tries > EAGER_TRIES)
        nanosleep(&(struct timespec){ .tv_nsec = PAUSE_US * 1000 }, NULL);
}

/* "Up" is not "usable": until the kernel's link watch has run, an interface drops
   frames. Asking for the state runs it (kernel commit facd15dfd691, 6.8); on older
   kernels asking again is all that one can do. `batch` ends with the queries. */
static int send_until_up(int fd, struct nl_batch *batch, const uint32_t *index, unsigned wanted)
{
    for (int tries = 0; tries < WAIT_TRIES; tries++) {
        struct seen seen = { 0 };
        int failed = nl_send(fd, batch, see, &seen);
        if (failed >= 0)
            return failed;
        if (seen.up == wanted)
            return -1;
        pause_after(tries);
        nl_begin(batch);
        for (unsigned i = 0; i < wanted; i++)
            put_query(batch, index[i]);
    }
    errno = ETIMEDOUT;
    return 0;
}

/* Waits until the host's interface is up, and its IPv6 address its own: an address is
   acknowledged before that. Its local route comes from a work queue, also without duplicate
   address detection, and a SYN that comes earlier is lost, for a second. */
static int wait_until_usable(const struct link_end *end)
{
    struct nl_batch batch;
    for (int tries = 0; tries < WAIT_TRIES; tries++) {
        struct seen seen = { .own = !end->prefix6 };
        nl_begin(&batch);
        put_query(&batch, LINK_HOST_INDEX);
        if (end->prefix6) {
            struct rtmsg *message = nl_message(&batch, RTM_GETROUTE, 0, sizeof *message);
            message->rtm_family = AF_INET6;
            message->rtm_dst_len = 128;
            nl_put(&batch, RTA_DST, end->ip6, sizeof end->ip6);
        }
        if (nl_send(end->netlink, &batch, see, &seen) >= 0 && errno != ENETUNREACH)
            return -1;
        if (seen.up == 1 && seen.own)
            return 0;
        pause_after(tries);
    }
    errno = ETIMEDOUT;
    return -1;
}

int link_fabric(int fabric, struct pc_failure *failure)
{
    /* The first clsact of a machine, and the end of the last, make the kernel rewrite its
       own code (static keys), which stops all processors. One that stays spares that. */
    struct nl_batch batch;
    nl_begin(&batch);
    put_clsact(&batch, 1);
    return nl_send(fabric, &batch, NULL, NULL) < 0 ? 0 : pc_fail(failure, "add a clsact qdisc to", "the fabric");
}

int link_loopback(int netlink, struct pc_failure *failure)
{
    struct nl_batch batch;
    nl_begin(&batch);
    put_link(&batch, RTM_NEWLINK, 0, 1, IFF_UP);
    return nl_send(netlink, &batch, NULL, NULL) < 0 ? 0 : pc_fail(failure, "bring up", "lo");
}

/* Gives a host its interface and addresses, and plugs it in. It has no carrier yet. */
static int attach(int fabric, uint32_t link, int which, const struct link_end *end, struct pc_failure *failure)
{
    struct nl_batch batch;
    nl_begin(&batch);
    put_veth(&batch, link_plug_index(link, which), end);
    /* Now, as long as the plug is down: on one that is up the kernel would wait for an RCU
       grace period. */
    put_clsact(&batch, link_plug_index(link, which));
    int failed = nl_send(fabric, &batch, NULL, NULL);
    if (failed >= 0)
        return pc_fail(failure, failed == 0 ? "create the veth of" : "add a clsact qdisc to the plug of", end->name);
    nl_begin(&batch);
    put_link(&batch, RTM_NEWLINK, 0, 1, IFF_UP);
    put_link(&batch, RTM_NEWLINK, 0, LINK_HOST_INDEX, IFF_UP);
    put_address(&batch, AF_INET, end->ip4, sizeof end->ip4, end->prefix4);
    if (end->prefix6)
        put_address(&batch, AF_INET6, end->ip6, sizeof end->ip6, end->prefix6);
    static const char *const steps[] = { "bring up lo beside", "bring up", "give an IPv4 address to", "give an IPv6 address to" };
    failed = nl_send(end->netlink, &batch, NULL, NULL);
    return failed < 0 ? 0 : pc_fail(failure, steps[failed], end->name);
}

/* Joins the two plugs, and waits until both ends are usable. */
static int join(int fabric, uint32_t link, const struct link_end end[LINK_ENDS], struct pc_failure *failure)
{
    const uint32_t plug[LINK_ENDS] = { link_plug_index(link, 0), link_plug_index(link, 1) };
    struct nl_batch batch;
    nl_begin(&batch);
    /* Before the first filter of a qdisc the kernel waits for a grace period in any case;
       both qdiscs are there, so one wait is for both. */
    for (int i = 0; i < LINK_ENDS; i++)
        put_redirect(&batch, plug[i], plug[!i]);
    for (int i = 0; i < LINK_ENDS; i++)
        put_link(&batch, RTM_NEWLINK, 0, plug[i], IFF_UP);
    for (int i = 0; i < LINK_ENDS; i++)
        put_query(&batch, plug[i]);
    static const char *const steps[] = { "redirect the plug of", "bring up the plug of", "wait for the plug of" };
    int failed = send_until_up(fabric, &batch, plug, LINK_ENDS);
    if (failed >= 0)
        return pc_fail(failure, steps[errno == ETIMEDOUT ? LINK_ENDS : failed / LINK_ENDS], end[failed % LINK_ENDS].name);
    for (int i = 0; i < LINK_ENDS; i++)
        if (wait_until_usable(&end[i]) < 0)
            return pc_fail(failure, "wait for", end[i].name);
    return 0;
}

int link_wire(int fabric, uint32_t link, const struct link_end end[LINK_ENDS], struct pc_failure *failure)
{
    for (int i = 0; i < LINK_ENDS; i++)
        if (attach(fabric, link, i, &end[i], failure) < 0)
            return -1;
    return join(fabric, link, end, failure);
}
