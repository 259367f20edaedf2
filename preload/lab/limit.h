/* Limits of a container: its control groups (cgroups(7)).

   pytest makes them and puts the container's init into them. They are directories, which
   outlive their processes: so that none is left whatever happens to pytest, the lab
   removes them when the container is dead. */
#ifndef PC_LIMIT_H
#define PC_LIMIT_H

#include <stdint.h>

#include "../common/message.h"

/* PC_LIMIT: from now on the group NAME in each of the directories that come with it goes
   when the container does. */
void limit_serve(struct pc_in *in);

/* The container is dead and nobody will ask any more what it used: removes its groups. */
void limit_end(uint32_t id);

/* Before the lab ends: kills the containers that have groups, and removes these. */
void limit_end_all(void);

#endif
