/* Directories of /proc whose names are numbers: processes, threads, descriptors. */
#ifndef PC_NUMBERED_H
#define PC_NUMBERED_H

/* Calls `look` with each numeric name in a directory until it returns something; 1 then, else 0.
   Allocates nothing, which readdir(3) would. */
int pc_each_number(int directory, int (*look)(int directory, const char *name, void *what), void *what);

#endif
