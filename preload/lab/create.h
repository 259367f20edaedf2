/* PC_CREATE: containers; two of them may be joined by a link. */
#ifndef PC_CREATE_H
#define PC_CREATE_H

#include <poll.h>

#include "../common/message.h"
#include "options.h"
#include "template.h"

/* How many requests may be under way, and how many containers may be in one. */
enum { CREATE_MAX = 8, CREATE_AT_ONCE = 30, CREATE_TICK_MS = 1000 };

/* Once, before the first request. */
void create_prepare(void);

/* Begins to serve a request: its containers build themselves. */
void create_serve(const struct template *template, const struct lab_options *options, struct pc_in *in);

/* Whether one is under way: then one must look every CREATE_TICK_MS whether it takes too long. */
int create_is_busy(void);
/* Fills in CREATE_MAX entries of what to poll for. */
void create_polls(struct pollfd *polls);
/* Goes on with what has news, after poll(); answers what is complete or has failed. */
void create_progress(int fabric, const struct pollfd *polls);
/* In a container's first process: gives back its copy of all requests, and with it what it was told to be. */
void create_forget(void);
/* Ends what is under way. */
void create_abandon(void);

#endif
