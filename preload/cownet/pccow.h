/* pccow: runs a command on copy-on-write trees, with a net below libc. README.md tells how.

   Three processes: the front, which the starter sees; the supervisor, its child; the command, that one's child. */
#ifndef PCCOW_H
#define PCCOW_H

#include <limits.h>
#include <signal.h>
#include <sys/types.h>

enum net_mode { NET_AUTO, NET_OFF, NET_REQUIRED };

struct options {
    char **command;
    enum net_mode net;
    int nested;    /* an outer pccow's net is below already, and has been told of our trees */
    int lifeline;  /* read end of a pipe; its hang-up ends the command and all that it started. -1: none */
    int owner;     /* a pidfd; its process's death ends them as well. -1: none */
    int status;    /* where the level is told, one line. -1: nowhere */
    const char *configuration;
    const char *library;
    sigset_t mask; /* of signals, as pccow was started with */
};

/* What the supervisor tells the front, one datagram each. */
enum report_kind { REPORT_LOG = 'l', REPORT_STATUS = 's', REPORT_FAILURE = 'f' };
struct report {
    int kind;
    int status; /* of REPORT_STATUS: as wait(2) gives it. Of REPORT_FAILURE: what to exit with */
    char text[PATH_MAX + 512];
};

/* The supervisor: starts the command, serves its calls, and lives until nothing of it is left. `line` is a SEQPACKET
   socket to the front; numbers of signals for the command (int) come from it. */
_Noreturn void supervise(const struct options *options, int line);
/* A process whose calls were being changed has died, and the one thread that may tell has waited for it. */
void supervise_died(pid_t pid, int status);

/* The command's process, until exec. The word on `line` from the supervisor says whether to put the filter on; the
   listener, or the errno, goes back. */
enum command_word { WORD_NET = 'n', WORD_PLAIN = 'p' };
_Noreturn void command_run(const struct options *options, int line);

/* The front: waits, passes signals on, ends as the command ended. */
_Noreturn void front_run(pid_t supervisor, int line);

/* Closes all descriptors from 3 on but those given; ones below 3 become /dev/null but for the standard error if kept. */
void keep_only(const int *fds, int count, int keep_stderr);

#endif
