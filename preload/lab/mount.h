/* Mounts that are made, changed and taken away while a container runs.

   Each request is done by a short-lived child of the lab, which may wait for a slow disk and
   which goes into other mount namespaces; it also answers. */
#ifndef PC_MOUNT_H
#define PC_MOUNT_H

#include <sys/types.h>

#include "../common/message.h"

void mount_serve(struct pc_in *in);
/* A child of the lab has ended so (waitpid(2)): if it was one of ours and did not come to
   answer, since somebody killed it, this answers. */
void mount_reaped(pid_t pid, int status);

#endif
