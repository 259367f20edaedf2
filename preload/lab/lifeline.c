#include "lifeline.h"

#include <fcntl.h>

#include "options.h"

static int watched[LIFELINE_FDS] = { FD_LIFELINE, FD_OWNER, FD_SECOND };

void lifeline_start(void)
{
    for (int i = 0; i < LIFELINE_FDS; i++)
        if (fcntl(watched[i], F_SETFD, FD_CLOEXEC) < 0 && i > 0)
            watched[i] = -1; /* not passed: poll() ignores it */
}

void lifeline_fill(struct pollfd *polls)
{
    /* A pidfd becomes readable at the process's death; the pipe has nothing to read, so
       only its hang-up counts. */
    for (int i = 0; i < LIFELINE_FDS; i++)
        polls[i] = (struct pollfd){ .fd = watched[i], .events = i == 0 ? 0 : POLLIN };
}

int lifeline_cut(const struct pollfd *polls)
{
    return (polls[0].revents & (POLLHUP | POLLERR | POLLNVAL)) || (polls[1].revents & POLLIN) || (polls[2].revents & POLLIN);
}

int lifeline_is_cut(void)
{
    struct pollfd polls[LIFELINE_FDS];
    lifeline_fill(polls);
    return poll(polls, LIFELINE_FDS, 0) > 0 && lifeline_cut(polls);
}
