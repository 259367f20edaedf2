/* From a PC_EXEC to a running program. */
#ifndef PC_LAUNCH_H
#define PC_LAUNCH_H

#include "../common/failure.h"
#include "../common/message.h"

/* Starts the command as a child of this process and returns its pid once exec has
   succeeded; -1 and what failed otherwise. in->fds are control (ignored), stdin,
   stdout, stderr, then one for each PC_F_FD_NUMBER. */
pid_t launch(struct pc_in *in, int rootless_ids, struct pc_failure *failure);

#endif
