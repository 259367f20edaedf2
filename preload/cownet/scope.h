/* Which trees a process is on. A start within a start asks this same supervisor (a process has one listener at most) to
   know its trees as well, for itself and all that it starts: a scope.

   A process shows its scope in its limit of file locks (RLIMIT_LOCKS), which has had no meaning since Linux 2.4.25, is
   inherited over fork and exec, can be read by an ancestor for half a microsecond, and, hard and soft, only be lowered
   by who has no privileges. */
#ifndef PCCOW_SCOPE_H
#define PCCOW_SCOPE_H

#include <sys/types.h>

#include "../cow/resolver/resolver.h"

/* The first scope, that of the command itself. 0, or -1 with *error a sentence. */
int scope_start(const char *configuration, const char **error);
/* The trees of a process; NULL when its scope is unknown, that is, when somebody has tampered with it. */
struct cow_set *scope_of(pid_t tid);
/* Puts the caller into a new scope: its own trees and those of a configuration of its own. 0 or -errno. The path of the
   configuration for it goes to `path` (PATH_MAX). */
struct caller;
long scope_join(struct caller *caller, const char *configuration, char *path);
/* An O_PATH descriptor of the root directory, which all have: chroot(2) is refused. */
int scope_root(void);
/* One of a directory that has been removed: nothing is found in it, and nothing can be made there. -1 (EBADF for what
   goes there) where no directory can be made. */
int scope_nowhere(void);
int scope_restore_groups(void);

#endif
