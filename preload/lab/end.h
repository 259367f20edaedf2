/* Ending containers, several at once. */
#ifndef PC_END_H
#define PC_END_H

#include "registry.h"

enum { END_AT_ONCE = 64 };
#define END_REMEDY "one of its processes hangs in the kernel (state D in ps)"

/* Containers that were killed: waits for their deaths, later drops their mounts. */
struct ending {
    struct container *container[END_AT_ONCE];
    int mounts[END_AT_ONCE];
    int count;
};

/* Kills one. As many as fit are killed before the first is waited for; returns whether, in
   making room, one was found that does not die. */
int end_one(struct ending *ending, struct container *container);
/* Returns, when all are dead, whether one does not die. */
int end_await(struct ending *ending);
/* Unmounts what was theirs: some 0.3 ms each, for which nobody need wait. */
void end_drop_mounts(struct ending *ending);

#endif
