/* Paths as texts. */
#ifndef PC_LAB_PATHS_H
#define PC_LAB_PATHS_H

/* Undoes the \040 of proc(5) mountinfo, in place. */
void path_unescape(char *text);

/* Makes every directory of `path`, those that end before its first `known` bytes excepted. 0, or -1 with errno. */
int path_make(char *path, int known);

#endif
