/* Containers that people may enter from outside pytest while it looks on (published), or
   that live on after it (kept): then the lab itself is their keeper. */
#ifndef PC_KEEP_H
#define PC_KEEP_H

#include "../common/message.h"

/* Serves a PC_KEEP of pytest's. */
void keep_serve(struct pc_in *in);

/* Where people ask for what is published: a listening socket, or -1. */
int keep_listener(void);
/* Serves one connection to it. */
void keep_answer(void);

/* Whether pytest has left the lab to itself. */
int keep_is_detached(void);
/* Whether then nothing is left to be kept. */
int keep_is_over(void);

#endif
