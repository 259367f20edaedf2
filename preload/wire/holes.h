/* What of a stream has not been seen yet although what is behind it has: lost before it came here, or on its
   way still, since packets that two processors send come in either order. */
#ifndef PC_WIRE_HOLES_H
#define PC_WIRE_HOLES_H

#include <stdint.h>

struct holes;

/* Notes that these bytes are missing, all of them behind those of the holes before. *holes is made when there is
   none; without memory, or where there are too many, bytes count as seen. */
void holes_add(struct holes **holes, uint64_t from, uint64_t to);
/* These bytes have come; returns whether the one at `place` was missing. Without holes (*holes NULL) none was. */
int holes_fill(struct holes **holes, uint64_t place, uint64_t from, uint64_t to);
/* Forgets all of them. */
void holes_drop(struct holes **holes);

#endif
