/* Ports of a container for clients outside. */
#ifndef PC_PROXY_H
#define PC_PROXY_H

#include "../common/message.h"

/* Serves a PC_EXPOSE: a process of its own, a child of the container's init whoever calls,
   forwards what connects to the listening socket, until the container ends. It is that
   process that answers. */
void proxy_serve(int agent_socket, struct pc_in *in);

#endif
