/* Who must be alive for us to live on. */
#ifndef PC_LIFELINE_H
#define PC_LIFELINE_H

#include <poll.h>

enum { LIFELINE_FDS = 3 };

/* Finds out which descriptors pytest passed (options.h), and keeps them from commands. */
void lifeline_start(void);
/* Fills LIFELINE_FDS entries: the pipe whose write end pytest alone holds (a child that it
   forked may hold it too), pytest's pidfd, and the second process's. */
void lifeline_fill(struct pollfd *polls);
/* Whether, after poll(), one of them says that pytest is gone. */
int lifeline_cut(const struct pollfd *polls);
/* The same, asked now. */
int lifeline_is_cut(void);

#endif
