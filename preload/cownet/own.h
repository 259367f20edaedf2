/* What only the caller itself can do (remote.h), with a path that the supervisor has found for it. It lies in memory that
   was mapped for it alone; another thread of the caller's that finds and changes it there can make it open, enter or
   execute something else, but nothing of that writes: what such a descriptor or directory is used for comes here again,
   and a program that is not the one that was decided about is killed before its first instruction. */
#ifndef PCCOW_OWN_H
#define PCCOW_OWN_H

#include "caller.h"
#include "remote.h"

struct own {
    struct remote remote;
    struct caller *caller;
    uint64_t memory; /* in the caller */
    size_t size;
};

/* Stops the caller and gives it `size` bytes of memory. 0, or -errno, then nothing was answered. */
long own_begin(struct own *own, struct caller *caller, size_t size);
long own_write(struct own *own, size_t offset, const void *data, size_t size);
/* One call; the number of common/cow_cookie.h is added. */
long own_call(struct own *own, long number, uint64_t first, uint64_t second, uint64_t third, uint64_t fourth);
/* Takes the memory back and lets the caller go on; returns ANSWERED. */
long own_end(struct own *own, long result);

/* open(2) with O_PATH; answers the call. */
long own_open_path(struct caller *caller, int dirfd, const char *path, int flags);

#endif
