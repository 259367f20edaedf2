/* A link between two hosts: each host has one end of a veth pair, whose other end (the
   plug) is in the lab's fabric namespace, where the two plugs redirect to each other.
   So that nothing a host does with its own tc, nft or addresses can undo a fault,
   and that a plug can be pulled without touching the host's interface. */
#ifndef PC_LINK_H
#define PC_LINK_H

#include <stdint.h>
#include <sys/types.h>

#include "../common/failure.h"

enum { LINK_HOST_INDEX = 100, LINK_NAME_SIZE = 16, LINK_ENDS = 2 };

struct link_end {
    pid_t pid;              /* a process in the host's network namespace */
    int netlink;            /* a netlink socket of that namespace */
    char name[LINK_NAME_SIZE];
    uint8_t mac[6];
    uint8_t ip4[4], prefix4;
    uint8_t ip6[16], prefix6; /* prefix6 0: no IPv6 address */
};

/* The plug's interface index in the fabric; every index is used once. */
uint32_t link_plug_index(uint32_t link, int end);

/* Readies a new, empty network namespace to be the fabric. */
int link_fabric(int fabric, struct pc_failure *failure);

/* Creates link number `link` and returns when both ends are usable: 0, or -1. */
int link_wire(int fabric, uint32_t link, const struct link_end end[LINK_ENDS], struct pc_failure *failure);

/* Brings lo up, in whatever namespace the socket belongs to. */
int link_loopback(int netlink, struct pc_failure *failure);

#endif
