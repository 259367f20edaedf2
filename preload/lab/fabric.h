/* The fabric: the network namespace of all plugs and switches. No process is in it. */
#ifndef PC_FABRIC_H
#define PC_FABRIC_H

#include "../common/failure.h"
#include "../common/message.h"

/* Makes it, once; returns a netlink socket of it, or -1. */
int fabric_make(struct pc_failure *failure);
/* The namespace, as setns(2) takes it, for helpers that are to live in it. */
int fabric_namespace(void);
/* PC_FABRIC: hands out a socket of it. */
void fabric_serve(struct pc_in *in);

#endif
