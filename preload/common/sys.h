/* System calls that the C library of Debian 12 does not wrap, and small helpers.
   Everything here is safe between fork and exec: no allocation, no locks. */
#ifndef PC_SYS_H
#define PC_SYS_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* For a large table of which few pages are used: it comes after all other variables, so that those lie
   together. Each container's processes would have page tables for whatever lies between (4 KiB for 2 MiB). */
#define PC_LAST __attribute__((common))
/* For what a forked child gives back: so that its first page is its own. */
#define PC_PAGED __attribute__((aligned(4096)))
/* Gives this process's copy of some memory back, of which only whole pages go: it is zero from now on. */
void pc_forget(void *memory, size_t size);

/* Closes a descriptor when the variable goes out of scope; -1 means none. */
#define CLEANUP_FD __attribute__((cleanup(pc_cleanup_fd)))
void pc_cleanup_fd(int *fd);

int pc_pidfd_open(pid_t pid);
int pc_pidfd_signal(int pidfd, int signal);
int pc_open_tree(int dirfd, const char *path, unsigned flags);
int pc_move_mount(int from_fd, int to_dirfd, const char *to_path);
/* Sets mount attributes (MOUNT_ATTR_*) on a mount, with flags AT_RECURSIVE for all below. */
int pc_mount_setattr(int dirfd, const char *path, unsigned flags, uint64_t set, uint64_t clear);
int pc_pivot_root(const char *new_root, const char *put_old);
int pc_close_range(unsigned first, unsigned last, unsigned flags);

/* clone3 with the flags given and SIGCHLD; where clone3 is refused (seccomp
   filters of container engines answer ENOSYS), clone. *pidfd gets a pidfd. */
pid_t pc_clone(uint64_t flags, int *pidfd);

/* Writes all of a small string to a file that exists; -1 and errno on failure. */
int pc_write_file(int dirfd, const char *path, const char *text, size_t length);

int64_t pc_now_us(void);
/* Decimal digits of a number into a buffer of at least 21 bytes; returns its end. */
char *pc_decimal(char *buffer, uint64_t value);

#endif
