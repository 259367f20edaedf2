/* What is done for each notified call. */
#ifndef PCCOW_SERVE_H
#define PCCOW_SERVE_H

#include <linux/seccomp.h>

struct caller;

/* Before the first call, in each thread. */
void serve_prepare(int listener);
/* Does the call and answers it. */
void serve(const struct seccomp_notif *call);

/* How many calls were served. */
unsigned serve_count(void);

/* What a handler returns besides a result (>= 0) or -errno: the call is answered already. */
enum { ANSWERED = -100000 };
typedef long handler(struct caller *caller);

extern handler serve_open, serve_openat, serve_openat2, serve_creat;
extern handler serve_stat, serve_lstat, serve_fstatat, serve_fstat, serve_statx, serve_statfs, serve_access, serve_faccessat, serve_faccessat2;
extern handler serve_readlink, serve_readlinkat, serve_getcwd, serve_getdents64;
extern handler serve_unlink, serve_unlinkat, serve_rmdir, serve_rename, serve_renameat, serve_renameat2, serve_mkdir, serve_mkdirat;
extern handler serve_mknod, serve_mknodat, serve_link, serve_linkat, serve_symlink, serve_symlinkat;
extern handler serve_truncate, serve_chmod, serve_fchmod, serve_fchmodat, serve_fchmodat2, serve_chown, serve_lchown, serve_fchown, serve_fchownat;
extern handler serve_utime, serve_utimes, serve_futimesat, serve_utimensat;
extern handler serve_setxattr, serve_lsetxattr, serve_fsetxattr, serve_getxattr, serve_lgetxattr, serve_listxattr, serve_llistxattr;
extern handler serve_removexattr, serve_lremovexattr, serve_fremovexattr;
extern handler serve_inotify_add_watch, serve_bind, serve_connect, serve_sendto, serve_sendmsg, serve_sendmmsg, serve_chdir, serve_execve, serve_execveat, serve_prctl, serve_ids, serve_ioctl;

/* Writes "CALL PATH: REASON" to the log; path may be NULL. */
void serve_log(const struct caller *caller, const char *path, const char *reason);
/* The same, and returns -error. */
long serve_refuse(const struct caller *caller, const char *path, int error, const char *reason);
/* Lets the kernel do the call as it stands. Only where nothing was decided by what the caller's memory said. */
long serve_let_through(const struct caller *caller);
/* The name of a call. */
const char *serve_name(int number);
/* Gives the caller a descriptor for `fd`, which is closed, as its call's result. */
long serve_give_fd(struct caller *caller, int fd, int cloexec);
/* Puts the open file of `fd`, which is closed, in the place of the caller's descriptor. 0 or -errno. */
long serve_put_fd(const struct caller *caller, int fd, int place);

/* The caller's arguments. */
#define ARG(caller, number) ((caller)->call->data.args[number])
#define ARG_INT(caller, number) ((int)ARG(caller, number))
/* Declares char name[PATH_MAX] with a path from the caller's memory, or returns. */
#define PATH_ARGUMENT(caller, number, name) \
    char name[PATH_MAX]; \
    do { \
        const long path_length_ = serve_path(caller, number, name); \
        if (path_length_ < 0) \
            return path_length_; \
    } while (0)
/* Reads a path; -EFAULT, -ENAMETOOLONG, -ESRCH when the caller has gone. */
long serve_path(const struct caller *caller, int number, char *path);
/* The same for calls that change nothing, neither files nor memory: if it was not this caller's memory, nobody gets the answer. */
long serve_path_to_look(const struct caller *caller, int number, char *path);

#endif
