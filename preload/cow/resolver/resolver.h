/* The resolver: what a path means in the merged view of trees, and every operation on it.

   All functions return what the system call of their name returns: >= 0, or -errno (errno itself is not touched).
   They use raw system calls and memory of their own, so they may be called from signal handlers, in the child of vfork
   and from several threads. No operation ever writes to a lower: what cannot be served is an errno. */
#ifndef COW_RESOLVER_H
#define COW_RESOLVER_H

#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>

struct statx;
struct cow_tree;

enum { COW_TREES = 16, COW_LAYERS = 8, COW_CONFIG_SIZE = 65536 };

/* The trees of one configuration file. Zeroed before cow_load(); several may live in one process. */
struct cow_set {
    int count;
    int net;             /* a seccomp net is below */
    const char *log;     /* where refused operations are written to, or NULL */
    struct cow_tree *tree;
    void *memory;        /* all of the above points into it */
};

/* Reads a configuration and maps the state of its trees. On failure *error is a sentence (static, or in *set). */
long cow_load(struct cow_set *set, const char *path, const char **error);
void cow_unload(struct cow_set *set);

/* Who asks. The library asks for its own process: { &set, AT_FDCWD, 0, 0 }. A supervisor asks for another:
   root is an O_PATH descriptor of that process's root (/proc/PID/root), pid and tid its ids as the supervisor's
   /proc has them. Descriptors among the arguments (dirfd) are then the asker's numbers; descriptors returned are the supervisor's own.
   The supervisor sets its umask to the asker's first (Umask: in /proc/PID/status) and has the asker's credentials. */
struct cow_asker {
    struct cow_set *set;
    int root;
    int pid, tid;
    struct cow_ways *ways; /* NULL: an exchange of directories for links during the call is not looked out for */
};

/* Descriptors of directories that one request's calls went through. nowhere is one of a removed directory, the supervisor's
   own; count is 0 before the first request, and cow_ways_close() is called after each. read_cwd gives what the link
   /proc/TID/cwd says, as readlink(2) does without the 0 at its end, or -errno. */
enum { COW_WAYS = 4 };
struct cow_ways {
    int nowhere;
    long (*read_cwd)(int tid, char *out, size_t size);
    int count, fd[COW_WAYS];
};
void cow_ways_close(struct cow_ways *ways);

/* resolve is openat2's (RESOLVE_NO_SYMLINKS, ...); 0 for openat. O_CREAT, O_EXCL, O_TRUNC, O_TMPFILE, O_PATH as
   the kernel has them. O_CLOEXEC is as given. */
long cow_openat(const struct cow_asker *, int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve);
/* AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH, AT_NO_AUTOMOUNT. */
long cow_fstatat(const struct cow_asker *, int dirfd, const char *path, struct stat *, int flags);
long cow_statx(const struct cow_asker *, int dirfd, const char *path, int flags, unsigned mask, struct statx *);
long cow_faccessat(const struct cow_asker *, int dirfd, const char *path, int mode, int flags);
long cow_readlinkat(const struct cow_asker *, int dirfd, const char *path, char *buffer, size_t size);
long cow_statfs(const struct cow_asker *, const char *path, struct statfs *);
long cow_mkdirat(const struct cow_asker *, int dirfd, const char *path, mode_t mode);
long cow_mknodat(const struct cow_asker *, int dirfd, const char *path, mode_t mode, dev_t device);
long cow_symlinkat(const struct cow_asker *, const char *target, int dirfd, const char *path);
long cow_unlinkat(const struct cow_asker *, int dirfd, const char *path, int flags);
/* AT_SYMLINK_FOLLOW, AT_EMPTY_PATH. */
long cow_linkat(const struct cow_asker *, int from_dirfd, const char *from, int to_dirfd, const char *to, int flags);
/* RENAME_NOREPLACE, RENAME_EXCHANGE. */
long cow_renameat(const struct cow_asker *, int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags);
long cow_fchmodat(const struct cow_asker *, int dirfd, const char *path, mode_t mode, int flags);
long cow_fchownat(const struct cow_asker *, int dirfd, const char *path, uid_t uid, gid_t gid, int flags);
long cow_utimensat(const struct cow_asker *, int dirfd, const char *path, const struct timespec times[2], int flags);
long cow_truncate(const struct cow_asker *, const char *path, off_t length);
/* nofollow: 1 for the l... calls. Names user.overlay.* are hidden and refused. */
long cow_getxattr(const struct cow_asker *, const char *path, const char *name, void *value, size_t size, int nofollow);
long cow_listxattr(const struct cow_asker *, const char *path, char *list, size_t size, int nofollow);
long cow_setxattr(const struct cow_asker *, const char *path, const char *name, const void *value, size_t size, int flags, int nofollow);
long cow_removexattr(const struct cow_asker *, const char *path, const char *name, int nofollow);

/* The real path for the kernel, in out (of at least PATH_MAX bytes), for what has no function here: chdir, execve,
   bind, connect, inotify_add_watch, dlopen, mount. Returns its length. */
enum {
    COW_NOFOLLOW = 1, /* the last component is not followed */
    COW_WRITE = 2,    /* it will be changed: copied up first; must exist */
    COW_CREATE = 4,   /* it will be created: its parent is made in upper; EEXIST if it exists */
    COW_INSIDE = 8,   /* returns -EXDEV instead of a path outside of every tree */
};
long cow_real_path(const struct cow_asker *, int dirfd, const char *path, int flags, char *out);

/* The view path, in out (PATH_MAX), of a path as the kernel reports it (/proc/PID/cwd, /proc/PID/fd/N, getcwd, sun_path):
   a layer's prefix becomes its mount. Returns its length; -ENOENT for what lies in a work directory. */
long cow_view_of(const struct cow_set *, const char *real, char *out);

/* What a descriptor of the asker's is: 1 if it is of a lower file of a tree (its inode must not be changed through the
   descriptor: fchmod, fchown, futimens, fsetxattr, ioctl), else 0. The path of its view goes to out (PATH_MAX). */
long cow_fd_is_lower(const struct cow_asker *, int fd, char *out);
/* Copies up the lower file that fd is of and returns a new descriptor (CLOEXEC) of the copy with the same access mode, status flags
   and offset, to be put over fd; -EROFS when the view no longer has that file there. */
long cow_reopen_upper(const struct cow_asker *, int fd);

/* Corrects st_dev, st_ino, st_nlink after a raw fstat of an own descriptor. */
void cow_fix_stat(const struct cow_set *, int fd, struct stat *);
void cow_fix_statx(const struct cow_set *, int fd, struct statx *);

/* A directory's merged entries as records of getdents64(2), "." and ".." first, d_off of each the offset of the next in data.
   data is memory of its own (mmap); NULL and -ENOSYS-free 0 entries cannot happen. */
struct cow_listing {
    char *data;
    size_t size;     /* bytes of records */
    size_t mapped;
};
/* path may be "" for dirfd itself. */
long cow_list(const struct cow_asker *, int dirfd, const char *path, struct cow_listing *);
void cow_list_free(struct cow_listing *);
/* 1 if the directory that the asker's descriptor is of has to be read by cow_list(), 0 if the kernel's own getdents64 is right. */
long cow_is_merged(const struct cow_asker *, int fd);

#endif
