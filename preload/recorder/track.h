/* The newest frames of each interface: a store each, which grows to its bound as frames come
   and then loses the oldest. All stores together have a bound too; then the one that has been
   silent for the longest time goes. */
#ifndef PC_TRACK_H
#define PC_TRACK_H

#include <stddef.h>
#include <stdint.h>

#include "recorder.h"

enum { TRACKS_MAX = 2048 };

/* Sets the bounds, in bytes. */
void track_limit(size_t each, size_t all);
/* Takes a frame in; without memory for it, does nothing. */
void track_add(const struct frame *frame);
void track_forget(uint32_t interface);
/* Where the records of an interface are that are wanted. */
struct track_view {
    const uint8_t *part[2], *end[2]; /* the older part, then the newer one; both may be empty */
    uint64_t gap; /* the time of the newest one that is not there, though not too old; 0: none */
};

/* Returns the records that are not older than `since`, of these the newest `most` (0: all). */
struct track_view track_view(uint32_t interface, uint64_t since, uint64_t most);
/* The next record of a view, NULL at its end. */
const struct record *track_next(struct track_view *view);

#endif
