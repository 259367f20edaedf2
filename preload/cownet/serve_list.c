/* getdents64(2): a merged directory's entries. How far a reader has got is the offset of its open directory, as always
   (lseek(2) and a copy of the descriptor in another process work on it); the list is kept from the first read to the
   next first read, so that what is removed while it is read does not shift the rest. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/sys.h"
#include "caller.h"
#include "serve.h"

enum { LISTS_MAX = 128, AT_ONCE = 65536 };

static struct list {
    pid_t pid; /* 0: free */
    int fd;
    dev_t device;
    ino_t inode;
    uint64_t used; /* when; for finding the oldest */
    struct cow_listing listing;
} lists[LISTS_MAX];
static uint64_t now;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* With the lock held: this reader's list, or the place for it. */
static struct list *find_list(pid_t pid, int fd, const struct stat *info, int *found)
{
    struct list *oldest = &lists[0];
    *found = 1;
    for (int i = 0; i < LISTS_MAX; i++) {
        struct list *list = &lists[i];
        if (list->pid == pid && list->fd == fd && list->device == info->st_dev && list->inode == info->st_ino)
            return list;
        if (list->used < oldest->used)
            oldest = list;
    }
    *found = 0;
    return oldest;
}

/* As many records from `offset` on as fit: their size, -EINVAL when not even one does. */
static long cut(const struct cow_listing *listing, uint64_t offset, size_t size, char *out)
{
    size_t at = 0, length = 0;
    while (at < listing->size) {
        const struct dirent64 *entry = (const void *)(listing->data + at);
        /* From a record's beginning: an offset may come from anywhere. */
        if (at >= offset) {
            if (length + entry->d_reclen > size)
                return length ? (long)length : -EINVAL;
            memcpy(out + length, entry, entry->d_reclen);
            length += entry->d_reclen;
        }
        at += entry->d_reclen;
    }
    return (long)length;
}

static long read_list(struct caller *caller, int ours, const struct stat *info, off_t offset, char *out, size_t size)
{
    const int fd = ARG_INT(caller, 0);
    int found;
    long result = 0;
    pthread_mutex_lock(&lock);
    struct list *list = find_list(caller->asker.pid, fd, info, &found);
    if (!found || offset == 0) {
        struct cow_listing fresh = { 0 };
        result = cow_list(&caller->asker, fd, "", &fresh);
        if (result >= 0) {
            if (list->pid)
                cow_list_free(&list->listing);
            *list = (struct list){ caller->asker.pid, fd, info->st_dev, info->st_ino, 0, fresh };
        }
    }
    if (result >= 0) {
        list->used = ++now;
        result = cut(&list->listing, (uint64_t)offset, size, out);
        if (result > 0) {
            /* The last record's d_off is where the next one begins. */
            const struct dirent64 *last = NULL;
            for (long at = 0; at < result; at += last->d_reclen)
                last = (const void *)(out + at);
            if (lseek(ours, last->d_off, SEEK_SET) < 0)
                result = -errno;
        }
    }
    pthread_mutex_unlock(&lock);
    return result;
}

long serve_getdents64(struct caller *caller)
{
    static __thread char out[AT_ONCE];
    struct stat info;
    caller->asker.pid = caller_pid(caller); /* whose descriptor it is */
    const size_t asked = (unsigned)ARG(caller, 2), size = asked < sizeof out ? asked : sizeof out;
    CLEANUP_FD int ours = caller_fd(caller, ARG_INT(caller, 0));
    long result = ours < 0 ? ours : caller_enter(caller, 0);
    if (result < 0)
        return result;
    if (fstat(ours, &info) < 0)
        return -errno;
    if (!S_ISDIR(info.st_mode))
        return -ENOTDIR;
    if (cow_is_merged(&caller->asker, ARG_INT(caller, 0)) > 0) {
        const off_t offset = lseek(ours, 0, SEEK_CUR);
        result = offset < 0 ? -errno : read_list(caller, ours, &info, offset, out, size);
    } else {
        result = syscall(SYS_getdents64, ours, out, size);
        if (result < 0)
            result = -errno;
    }
    if (result <= 0)
        return result;
    const long error = caller_write(caller, ARG(caller, 1), out, (size_t)result);
    return error < 0 ? error : result;
}
