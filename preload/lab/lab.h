/* The lab: pid 1 of its own pid namespace, owner of every container. */
#ifndef PC_LAB_H
#define PC_LAB_H

#include "../common/failure.h"
#include "options.h"
#include "template.h"

/* Builds what all containers share, reports PC_STARTED (with `pid`, the lab's as pytest
   sees it) and serves requests until pytest is gone. */
_Noreturn void lab_run(struct lab_options *options, int pid);

#endif
