/* What a rule does to each packet. */
#ifndef PC_WIRE_PACKET_H
#define PC_WIRE_PACKET_H

#include "lane.h"

/* The frame as it came. Its bytes stay in their slot. */
void packet_whole(const struct frame *frame, struct parcel *parcel);
/* Does to the packets of a frame what the channel's rule says. */
void packet_treat(struct lane *lane, struct channel *channel, const struct frame *frame);
/* Lets packets go that were held back to be overtaken; `overtaken` when they were. */
void packet_release_held(struct lane *lane, struct channel *channel, int64_t due, int overtaken);

#endif
