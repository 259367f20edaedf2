/* Who is talking: conversations, and which of their packets is which.

   flow = (client's host, server's host, protocol, server's port, n-th conversation of that
   kind): neither the ephemeral port nor the initial sequence number, which no two runs share.
   key  = TCP data: the cell (a full segment's worth of the stream) that begins in it; TCP without
          data: the cell of what it acknowledges, or for SYN, FIN and RST the n-th of them;
          everything else: the n-th packet of that flow in that direction.
   Hosts are known by numbers that who starts the wire gives to addresses, since addresses too
   change from run to run. */
#ifndef PC_WIRE_FLOW_H
#define PC_WIRE_FLOW_H

#include "fate.h"
#include "frame.h"

struct flows;

/* `mtu` of the link: TCP's cells follow from it. NULL without memory. */
struct flows *flows_new(unsigned mtu);
/* Forgets all conversations: the next packet of each is its first. Hosts stay known. */
void flows_forget(struct flows *flows);
/* An address (4 or 16 bytes) is this host's. Returns -1 when there is no more room. */
int flows_know(struct flows *flows, const uint8_t *address, unsigned size, uint64_t host);
/* The conversation of a frame, which stays valid until the next call. */
struct flow *flows_find(struct flows *flows, const struct frame *frame);
/* Who packet `i` of the frame is; each packet is to be asked for once, in order. */
struct identity flow_identify(struct flow *flow, const struct frame *frame, unsigned i);

#endif
