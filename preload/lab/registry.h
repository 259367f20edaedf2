/* The containers that exist. */
#ifndef PC_REGISTRY_H
#define PC_REGISTRY_H

#include <stdint.h>
#include <sys/types.h>

#include "link.h"

enum { CONTAINERS_MAX = 16384 };

struct container {
    uint32_t id;   /* 0: this place is free */
    uint32_t link; /* the link that it is on, when it has a netlink socket */
    int which;     /* which end of that link */
    struct link_end end;
    pid_t pid;     /* in the lab's pid namespace */
    int pidfd;     /* of its init */
    int status;    /* our end of the socket whose end of file ends the init */
    int netlink;   /* in its network namespace, or -1 */
    int mounts;    /* its mount namespace, or -1; see registry_bury */
};

/* A free place, with a new id and no descriptors; NULL when there is none. */
struct container *registry_add(void);
struct container *registry_find(uint32_t id);
struct container *registry_find_pid(pid_t pid);
struct container *registry_find_end(uint32_t link, int which);
/* Kills a container's init, and with it all its processes. */
void registry_kill(struct container *container);
/* Waits until it is dead, gives its descriptors back and frees its place. Returns -1
   and ETIMEDOUT if it does not die (a process hangs in the kernel).
   What then still lives is its mount namespace, by our descriptor, which goes into *mounts:
   to close it is to unmount everything (some 0.3 ms), for which nobody need wait. */
int registry_bury(struct container *container, int *mounts);

#endif
