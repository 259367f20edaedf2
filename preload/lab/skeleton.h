/* In a user namespace, files of ids that are not mapped cannot be changed, nor anything
   be made in their directories, not even through an overlay. So below /etc, /var, /srv and
   /opt the lab lays directories of its own, which merge with the machine's. */
#ifndef PC_SKELETON_H
#define PC_SKELETON_H

#include "../common/failure.h"

/* Whether a directory of the root directory gets one. */
int skeleton_has(const char *name);

/* Before there is a user namespace: notes whose the machine's directories are. */
void skeleton_look(void);

/* The same for one directory, in a mount that is being made: so that it can be changed. */
int skeleton_lay(int from, int to);

/* Fills them below `target` from the machine's root at `machine`: etc with directories, links
   and small files, the others with directories alone. */
int skeleton_build(const char *machine, const char *target, struct pc_failure *failure);

#endif
