/* The containers that exist. */
#ifndef PC_REGISTRY_H
#define PC_REGISTRY_H

#include <stdint.h>
#include <sys/types.h>

enum { CONTAINERS_MAX = 16384 };

struct container {
    uint32_t id;   /* 0: this place is free */
    int building;  /* not handed over yet: whoever builds it looks after it (create.h) */
    int ending;    /* killed, and about to be buried (end.h) */
    pid_t pid;     /* in the lab's pid namespace */
    int pidfd;     /* of its init */
    int status;    /* our end of the socket whose end of file ends the init */
    int netlink;   /* in its network namespace, or -1 */
    int mounts;    /* its mount namespace, or -1; see registry_bury */
    int line;      /* the socket to its agent when it is published (keep.h), or -1 */
};

/* A free place, with a new id and no descriptors; NULL when there is none. */
struct container *registry_add(void);
struct container *registry_find(uint32_t id);
/* The number of its place, below CONTAINERS_MAX. */
uint32_t registry_place(const struct container *container);
/* In a process that has nothing to do with them: gives back its copy of what was known. */
void registry_forget(void);
/* The one with the least id above this; NULL: there is none. */
struct container *registry_next(uint32_t id);
struct container *registry_find_pid(pid_t pid);
/* Kills a container's init, and with it all its processes. */
void registry_kill(struct container *container);
/* Waits until it is dead, gives its descriptors back and frees its place. Returns -1
   and ETIMEDOUT if it does not die (a process hangs in the kernel).
   What then still lives is its mount namespace, by our descriptor, which goes into *mounts:
   to close it is to unmount everything (some 0.3 ms), for which nobody need wait. */
int registry_bury(struct container *container, int *mounts);

#endif
