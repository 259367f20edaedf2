/* Whose the machine's directories are. In a user namespace every id that it does not map
   looks alike (the overflow id), also those that the lab maps to other ones; so the launcher
   looks before it makes one, and the lab, its child, has the table in its memory. */
#ifndef PC_OWNERS_H
#define PC_OWNERS_H

#include <sys/types.h>

/* Notes the owners of directories below `path` that are neither root's nor our own. */
void owners_note(const char *path);

/* Gives `name` in `directory`, whose path was `path` when it was noted, its owner, where that
   is mapped. Returns -1 and errno when it cannot be given. */
int owners_give(int directory, const char *name, const char *path);

#endif
