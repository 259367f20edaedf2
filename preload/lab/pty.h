/* Terminals for commands, of the container's own devpts. */
#ifndef PC_PTY_H
#define PC_PTY_H

#include "../common/message.h"

/* Serves a PC_PTY. Who shares the agent's socket with others brings one to be answered on. */
void pty_serve(int agent, struct pc_in *in);

#endif
