/* Root file systems that containers may have instead of the machine's.

   Each has a template of its own (template.h) in a mount namespace without a process, known by
   a descriptor. A container's first process enters it and leaves it again for a copy: so it
   has nothing of the other templates, and nothing must be unmounted. */
#ifndef PC_ROOTFS_H
#define PC_ROOTFS_H

#include <stdint.h>

#include "../common/message.h"
#include "template.h"

enum { ROOTFS_MAX = 64 };

struct rootfs {
    uint32_t number; /* 0: this place is free */
    int mounts;
    struct template template;
};

void rootfs_serve(const struct lab_options *options, struct pc_in *in);
void rootfs_serve_end(struct pc_in *in);
/* NULL: there is none of this number. */
const struct rootfs *rootfs_find(uint32_t number);

#endif
