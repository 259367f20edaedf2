/* A program to be started: where it lies, and what comes before its arguments when it is a script. */
#ifndef COW_PROGRAM_H
#define COW_PROGRAM_H

#include <limits.h>
#include <stddef.h>

enum { PROGRAM_WORDS = 12, PROGRAM_TEXT = 2048 };

struct program {
    char real[PATH_MAX];
    int words;                       /* interpreters and their arguments, and the script last; 0: no script */
    const char *word[PROGRAM_WORDS];
    char text[PROGRAM_TEXT];
    size_t used;
};

/* Finds what path means in the view, and refuses what could not be made to use the library. 0 or -errno. */
long pl_find_program(int dirfd, const char *path, int flags, struct program *program);
/* argv with the words before it; room for count(argv) + words + 2 pointers. */
char *const *pl_arguments(const struct program *program, char *const *argv, char **room);
size_t pl_count(char *const *list);

#endif
