/* Frames that are under way: a buffer of bytes, first in, first out, since a cable keeps the
   order. Each is due not earlier than the one before it. */
#ifndef PC_WIRE_QUEUE_H
#define PC_WIRE_QUEUE_H

#include <stddef.h>
#include <stdint.h>

#include "outlet.h"

struct queue {
    uint8_t *bytes;
    size_t size;
    size_t kept, head, tail; /* in use from `kept` on; not taken yet from `head` on, up to `tail` */
    size_t count;            /* frames that were not taken yet */
    int64_t newest;          /* when the newest is due */
};

/* Reserves address space; memory is taken as it is used. */
int queue_open(struct queue *queue, size_t size);
/* Copies a frame. Returns -1 when it is full. A time before that of the newest becomes that. */
int queue_put(struct queue *queue, const struct parcel *parcel, int64_t due);
/* When the oldest is due; INT64_MAX: the queue is empty. */
int64_t queue_due(const struct queue *queue);
/* Takes the oldest out; its bytes stay valid until queue_settle. */
void queue_take(struct queue *queue, struct parcel *parcel);
/* What was taken has been sent. */
void queue_settle(struct queue *queue);
/* Forgets all. */
void queue_clear(struct queue *queue);

#endif
