/* The machine's own mounts, for what is taken from them while the lab runs: the source of a
   bind, the directory that is to be a root.

   The lab and its containers do not have them. What remains is a mount namespace without a
   process, known by a descriptor, into which a short-lived child of the lab may go. What the
   machine mounts and unmounts later shows there too. */
#ifndef PC_MACHINE_H
#define PC_MACHINE_H

#include "../common/failure.h"

/* At the lab's start: keeps the mounts that we have, and gives us others of our own. */
int machine_keep(struct pc_failure *failure);
/* In a child of the lab: its root and its mounts become the machine's. */
int machine_enter(struct pc_failure *failure);

#endif
