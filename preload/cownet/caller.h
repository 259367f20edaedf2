/* Who made a notified call: its memory, its descriptors, its ids. All of it is read anew for each call. */
#ifndef PCCOW_CALLER_H
#define PCCOW_CALLER_H

#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../cow/resolver/resolver.h"

struct caller {
    const struct seccomp_notif *call;
    int listener;
    struct cow_asker asker; /* its trees, its root; tid, which as pid is as good: /proc/TID is there for every thread */
    struct cow_ways ways;
};

/* Finds out who made the call: 0 or -errno. */
long caller_find(struct caller *caller, const struct seccomp_notif *call, int listener);
/* The number of its process. */
pid_t caller_pid(const struct caller *caller);
/* Whether the call still waits for its answer. After this said yes, what was read before was this caller's: its number
   in /proc cannot have gone to another process in between. */
int caller_waits(const struct caller *caller);

/* Its memory. 0 or -EFAULT; reading also -EACCES, when it keeps others from its memory (PR_SET_DUMPABLE). */
long caller_read(const struct caller *caller, uint64_t address, void *buffer, size_t size);
long caller_write(const struct caller *caller, uint64_t address, const void *buffer, size_t size);
/* A C string of at most size - 1 bytes: its length, -EFAULT or -ENAMETOOLONG. */
long caller_string(const struct caller *caller, uint64_t address, char *buffer, size_t size);

/* A descriptor of this process for the same open file as its descriptor; or -errno. To be closed. */
int caller_fd(const struct caller *caller, int fd);

/* Whether its descriptor is closed at exec. */
int caller_cloexec(const struct caller *caller, int fd);

/* Until caller_leave() this thread creates files with the caller's umask and does all with the caller's ids. */
long caller_enter(const struct caller *caller, int creates);
void caller_leave(void);
/* A process changed its ids or capabilities, so from now on they are looked up for each call. */
void caller_ids_change(void);

#endif
