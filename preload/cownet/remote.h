/* Calls made in another process's name, for what only it can do: become another program, change its directory.

   A notified call can be answered, but not changed. So the caller is stopped on its way back (ptrace(2), which an
   ancestor may do without privileges), made to do the calls it is told, and let go. Who is traced already (by a debugger,
   by strace) cannot be: EPERM. */
#ifndef PCCOW_REMOTE_H
#define PCCOW_REMOTE_H

#include <linux/seccomp.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/user.h>

struct remote {
    pid_t tid;
    int listener;
    uint64_t held;   /* signals that came meanwhile */
    int gone;        /* it has died */
    struct user_regs_struct registers; /* as its call was */
};

/* Stops the caller within the call. 0, or -1 with errno; then the call is not answered yet. After 0 the caller's call
   must end by remote_end(), or by a successful remote_exec(). */
int remote_begin(struct remote *remote, int listener, const struct seccomp_notif *call);
/* Does one system call there; returns its result (-errno), -ESRCH when the caller has died. */
long remote_call(struct remote *remote, long number, const uint64_t arguments[6]);
/* execve or execveat there. 0: it is another program now, stopped at its beginning as `*pid` (a thread's exec takes its process's
   number). Else -errno. */
long remote_exec(struct remote *remote, long number, const uint64_t arguments[6], pid_t *pid);
/* Lets it, a thread of process `pid`, go on after its call with this result. */
void remote_end(struct remote *remote, pid_t pid, long result);
/* Lets a new program begin; or not, if it is not what was wanted. */
void remote_release(struct remote *remote, pid_t pid, int kill_it);

#endif
