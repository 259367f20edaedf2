/* Helper programs of the lab's: a wire, a recorder, in a network namespace that nobody else
   may enter. They are children of the lab in its pid namespace, so they die with it. */
#ifndef PC_HELPER_H
#define PC_HELPER_H

#include "../common/message.h"

/* The descriptor at which a helper finds the socket to who asked for it. */
enum { HELPER_CONTROL = 3 };

/* Serves a PC_HELPER. `fabric` is a netlink socket of the fabric. */
void helper_serve(int fabric, struct pc_in *in);

#endif
