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

/* What a watcher tells the agent. */
struct watcher_news {
    void (*taken)(void); /* the command runs, or could not be started */
    void (*ended)(void); /* its end has been reported */
};

/* Serves a PC_EXEC in this process, which becomes the command's watcher and answers on
   the control descriptor that came with it. */
_Noreturn void command_watch(struct pc_in *in, const struct agent *agent, const struct watcher_news *news);

#endif
