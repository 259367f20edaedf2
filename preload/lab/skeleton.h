/* In a user namespace, files of ids that are not mapped cannot be changed, nor anything
   be made in their directories, not even through an overlay. So below /etc and /var
   the lab lays directories of its own, which merge with the machine's. */
#ifndef PC_SKELETON_H
#define PC_SKELETON_H

#include "../common/failure.h"

/* Fills etc (directories, links and small files) and var (directories) below `target`
   from the machine's root at `machine`. */
int skeleton_build(const char *machine, const char *target, struct pc_failure *failure);

#endif
