/* What the library's files share. Names of libc are defined here, so none of these files may call a wrapped one: the resolver's
   functions and SYS() are used instead, and next() for libc's own. */
#ifndef COW_LIBRARY_H
#define COW_LIBRARY_H

#include <dirent.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/mount.h>
#include <sys/time.h>
#include <unistd.h>
#include <shadow.h>
#include <utime.h>
#include <utmp.h>
#include <utmpx.h>

#include "../resolver/internal.h"

#define EXPORT __attribute__((visibility("default")))

extern struct cow_asker pl_self;
extern int pl_ready;
void pl_start(void);

static inline const struct cow_asker *pl_me(void)
{
    if (__builtin_expect(!__atomic_load_n(&pl_ready, __ATOMIC_ACQUIRE), 0))
        pl_start();
    return &pl_self;
}
#define ME pl_me()

static inline long pl_result(long result)
{
    if (__builtin_expect(result < 0 && result >= -4095, 0)) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

/* libc's own function of that name. */
void *pl_next(const char *name);
#define NEXT(name)                                                                                                    \
    ({                                                                                                                \
        static __typeof__(&name) found_;                                                                              \
        if (__builtin_expect(!found_, 0))                                                                             \
            found_ = (__typeof__(&name))pl_next(#name);                                                               \
        found_;                                                                                                       \
    })

/* Says no: writes the line to the log. Returns -number. */
long pl_refuse(const char *call, const char *path, const char *reason, int number);
/* -EPERM if the path lies in a tree or holds one, else 0; of calls that would change what the trees stand on. */
long pl_outside(const char *call, int dirfd, const char *path);

long pl_name_to_handle(int dirfd, const char *path, struct file_handle *handle, int *mount, int flags);
long pl_open_by_handle(int mount, struct file_handle *handle, int flags);
FILE *pl_fopen(const char *path, const char *mode);
FILE *pl_freopen(const char *path, const char *mode, FILE *stream);
FILE *pl_tmpfile(void);
long pl_mkostemps(char *name, int suffix, int flags);
char *pl_mkdtemp(char *name);
char *pl_mktemp(char *name);
char *pl_tempnam(const char *directory, const char *prefix);
char *pl_tmpnam(char *name);
long pl_fstat(int fd, struct stat *st);
long pl_statvfs(const char *path, struct statvfs *st);
long pl_pathconf(const char *path, int name);

DIR *pl_opendir(int dirfd, const char *path);
DIR *pl_fdopendir(int fd);
struct dirent *pl_readdir(DIR *dir);
int pl_readdir_r(DIR *dir, struct dirent *entry, struct dirent **result);
void pl_rewinddir(DIR *dir);
void pl_seekdir(DIR *dir, long position);
long pl_telldir(DIR *dir);
int pl_closedir(DIR *dir);
int pl_dirfd(DIR *dir);
int pl_scandirat(int dirfd, const char *path, struct dirent ***list, int (*filter)(const struct dirent *),
                 int (*compare)(const struct dirent **, const struct dirent **));
long pl_getdents(int fd, void *buffer, size_t size);

long pl_chdir(const char *path);
long pl_fchdir(int fd);
/* At the start of a program: see place.c. */
void pl_begin_place(void);
long pl_update_log(const char *call, const char *path, const void *entry);
int pl_daemon(int stay, int keep);
long pl_unshare(int flags);
char *pl_getcwd(char *buffer, size_t size);
char *pl_realpath(const char *path, char *buffer);
long pl_remove(const char *path);
long pl_renameat(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags);
long pl_acct(const char *path);

/* Before an inode is changed through a descriptor: if it is a lower's, the descriptor is made one of a copy. 0 or -errno. */
long pl_own(int fd);
long pl_utime(const char *path, const struct utimbuf *times);
long pl_utimes(int dirfd, const char *path, const struct timeval times[2], int flags);
long pl_futimes(int fd, const struct timeval times[2]);
long pl_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
long pl_fremovexattr(int fd, const char *name);
long pl_fgetxattr(int fd, const char *name, void *value, size_t size);
long pl_flistxattr(int fd, char *list, size_t size);

/* The environment with what keeps the library in the next program. extra is room for count(environment) + 3
   pointers and text for two strings, of pl_environment_size(). Returns environment itself where it is complete. */
size_t pl_environment_size(char *const *environment);
char *const *pl_environment(char *const *environment, void *extra);
/* execve of what path means in the view; returns only with -errno. */
long pl_execve(int dirfd, const char *path, char *const *argv, char *const *environment, int flags);

long pl_bind(int fd, const struct sockaddr *address, socklen_t length);
long pl_connect(int fd, const struct sockaddr *address, socklen_t length);
long pl_inotify(int fd, const char *path, uint32_t mask);
long pl_fanotify(int fd, unsigned flags, uint64_t mask, int dirfd, const char *path);
long pl_mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data);

#endif
