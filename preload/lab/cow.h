/* Copy-on-write trees: an overlay each, on the stage.

   The stage is a mount namespace without a process, whose descriptor pytest has: on a tmpfs
   over its /proc each tree has a directory of its number,

     /proc/N/store    a tmpfs, or a directory of the machine: upper and work are in it
     /proc/N/l0..     its lowers, the topmost first
     /proc/N/merged   the overlay

   The overlay's root goes to pytest as a descriptor, which is a path to everybody whom pytest's
   /proc/PID/fd lets in. It has no other name on the machine, and ends with the descriptors. */
#ifndef PC_COW_H
#define PC_COW_H

#include "../common/message.h"
#include "options.h"

/* Each is done by a short-lived child, which also answers. */
void cow_serve(const struct lab_options *options, struct pc_in *in);
void cow_serve_end(struct pc_in *in);

#endif
