/* What pytest tells the lab once, at its start. */
#ifndef PC_OPTIONS_H
#define PC_OPTIONS_H

#include <sys/types.h>

enum { OPTION_BINDS_MAX = 32, RUN_DIRECTORIES_MAX = 64, RUN_DIRECTORY_SIZE = 96 };
/* The descriptors that pytest passes; see README.md. */
enum { FD_CONTROL = 3, FD_LIFELINE = 4, FD_OWNER = 5, FD_SECOND = 6 };

struct bind_option {
    const char *path;
    int writable;
};

/* A directory that every container has in its /run. */
struct run_directory {
    char path[RUN_DIRECTORY_SIZE]; /* below /run */
    mode_t mode;
    uid_t uid;
    gid_t gid;
};

struct lab_options {
    char *uid_map, *gid_map; /* words for newuidmap(1), or NULL */
    struct bind_option binds[OPTION_BINDS_MAX];
    int bind_count;
    struct run_directory run_directories[RUN_DIRECTORIES_MAX];
    int run_directory_count;
    int fail_step;
    int ids;      /* how many ids the user namespace maps; 0: there is none */
    int rootless; /* in a user namespace of our own */
};

#endif
