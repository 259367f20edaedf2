/* The filter on a command and all that it starts: which of their system calls the supervisor sees. */
#ifndef PCCOW_FILTER_H
#define PCCOW_FILTER_H

/* Puts the filter on this process, without privileges (so also no_new_privs: set-id programs run with the caller's
   ids from now on). Returns the listener, close-on-exec; -1 with errno: EBUSY, an ancestor's filter has a listener
   already (a process has one at most, seccomp(2)); ENOSYS, EINVAL or EPERM: this machine does not give one. */
int filter_install(void);
/* Of whose system calls the filter knows the numbers: an AUDIT_ARCH_*. */
unsigned filter_architecture(void);

#endif
