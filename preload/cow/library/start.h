/* What every program that we start has to be told. */
#ifndef COW_START_H
#define COW_START_H

#include <sys/types.h>

extern char pl_preload[]; /* LD_PRELOAD=, and this library's path */
extern char pl_config[];  /* POOR_CONTAINER_COW=, and the configuration's path */
extern pid_t pl_pid;      /* of this process, unless it is a child of vfork */

#endif
