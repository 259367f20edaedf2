/* From a PC_EXEC to a running program. */
#ifndef PC_LAUNCH_H
#define PC_LAUNCH_H

#include <stdint.h>

#include "../common/failure.h"
#include "../common/message.h"

/* Lets this process and its children open as many files as they may: the lab holds some for
   every container. Commands get back the limit that pytest has. */
void launch_raise_limit(void);

enum { RLIMITS_MAX = 16 };

/* What each command of a container is limited to: setrlimit(2). */
struct limit_spec {
    uint32_t resource;
    uint64_t soft, hard;
};

/* One more of them, RLIMITS_MAX at most. */
void launch_limit(const struct limit_spec *limit);

/* Starts the command as a child of this process and returns its pid once exec has
   succeeded; -1 and what failed otherwise. in->fds are control (ignored), stdin,
   stdout, stderr, then one for each PC_F_FD_NUMBER. */
pid_t launch(struct pc_in *in, int rootless_ids, struct pc_failure *failure);

#endif
