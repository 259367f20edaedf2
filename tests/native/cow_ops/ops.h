/* Operations on the tree in the current directory, each a function; what it prints is compared with a plain copy's. */
#ifndef OPS_H
#define OPS_H

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct op {
    const char *name;
    void (*run)(void);
    long pad[6]; /* so that the linker's own alignment of the section fits the size */
};

#define OP(name)                                                                                                     \
    static void op_##name(void);                                                                                     \
    static const struct op entry_##name __attribute__((used, section("ops"), aligned(64))) = { #name, op_##name, { 0 } }; \
    static void op_##name(void)

extern char top[4096]; /* the tree's absolute path */

/* Prints a call and what it gave; descriptors are said to be there, not which. */
long show(const char *call, long result);
#define R(call) (errno = 0, show(#call, (long)(call)))
#define FD(call) (errno = 0, show_fd(#call, (call)))
int show_fd(const char *call, int fd);
/* Content of a file, by open and read. */
void cat(const char *path);
/* Writes text by the descriptor, closes it. */
void put(int fd, const char *text);
const char *in_top(const char *name);
void stat_line(const char *path);
ino_t ino_of(const char *path);
/* Entries of a directory, sorted. */
void list(const char *path);
void run_sequence(void);
/* Runs f in a child, waits. */
void in_child(void (*f)(void));

#endif
