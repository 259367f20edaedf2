/* One command of pytest's in a container, under a watcher of its own. */
#ifndef PC_COMMAND_H
#define PC_COMMAND_H

#include "../common/message.h"

void umask_for_commands(void);

/* What a watcher needs of the agent. */
struct agent {
    int socket;       /* to pytest */
    int signals;      /* a signalfd: one reads one's own signals from it */
    int rootless_ids; /* how many ids are mapped, 0 when there is no user namespace */
};

/* Serves a PC_EXEC in this process, which is the command's watcher until nothing of it is
   left, and answers on the control descriptor that came with it. Who waits for requests
   otherwise gives `busy`: it is called when the command goes on for a while, or something
   else is asked for meanwhile. Most commands end before. */
void command_watch(struct pc_in *in, const struct agent *agent, void (*busy)(void));

#endif
