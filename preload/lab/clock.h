/* Clocks that go wrong: a time namespace (time_namespaces(7)) for one command and what it
   starts. It has the monotonic clock and that since boot; the time of day has none. */
#ifndef PC_CLOCK_H
#define PC_CLOCK_H

#include <stdint.h>

#include "../common/failure.h"

/* From now on our children's clocks are `offset` ns ahead of ours, for good: in a user namespace
   there is no way back to the machine's clocks. Not for children that share our memory: up to
   Linux 6.2 they would keep our clocks. */
int clock_shift(int64_t offset, struct pc_failure *failure);

#endif
