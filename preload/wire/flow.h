/* Who is talking: conversations, and which of their packets is which.

   flow = (client's host, server's host, protocol, server's port, n-th conversation of that
   kind): neither the ephemeral port nor the initial sequence number, which no two runs share. Of an
   ICMP error also whose packet it tells of.
   key  = TCP data: its place in the stream (the first full segment's beginning in it, else its own)
          and how often what is there was sent; TCP without data: the cell of what it acknowledges;
          SYN and FIN: how often they were sent;
          everything else: the n-th packet of that flow in that direction.
   Hosts are known by numbers (hosts.h), since addresses too change from run to run. */
#ifndef PC_WIRE_FLOW_H
#define PC_WIRE_FLOW_H

#include "fate.h"
#include "frame.h"
#include "hosts.h"

struct flows;

/* `mtu` of the link: TCP's cells follow from it. NULL without memory. */
struct flows *flows_new(unsigned mtu, const struct hosts *hosts);
/* Forgets all conversations: the next packet of each is its first. Hosts stay known. */
void flows_forget(struct flows *flows);
/* The conversation of a frame, which stays valid until the next call. */
struct flow *flows_find(struct flows *flows, const struct frame *frame);
/* Who packet `i` of the frame is; each packet is to be asked for once, in order. */
struct identity flow_identify(struct flow *flow, const struct frame *frame, unsigned i);

#endif
