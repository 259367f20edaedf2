/* The lab's own root, which is the template of every container's.

   What is the same for all containers is mounted here once, and comes to each with its
   copy of the mount namespace, for nothing: the machine's directories, read-only, and /dev.
   The machine's root is then unmounted: no container has it, so none needs to pivot.
   What the lab needs itself lies where every container mounts its own /proc over it:

   /proc/machine   the machine's proc
   /proc/lower     the machine's directories that containers get a private version of
   /proc/late      what is bound below such directories
   /proc/lower/root  another tree than the machine's: then there are no private directories
   /proc/skel      rootless only: copies of directories of ids that we do not map
   /proc/c, /proc/o   where a container mounts its tmpfs and its overlay

   All of it is on a tmpfs in the lab's mount namespace: nothing on the machine is touched,
   and nothing is left when the lab is gone. */
#ifndef PC_TEMPLATE_H
#define PC_TEMPLATE_H

#include "../common/failure.h"
#include "options.h"

enum { PATH_SIZE = 1024, PRIVATE_MAX = 8, LATE_BINDS_MAX = 64 };

#define MACHINE_PROC "/proc/machine"

enum private_kind {
    PRIVATE_COMMON,  /* as root: part of one overlay over the machine's root file system */
    PRIVATE_OVERLAY, /* an overlay of its own */
    PRIVATE_TMPFS,   /* an empty directory: the machine's is empty, or not readable for us */
    PRIVATE_READONLY /* overlay is impossible here (mounts below, an odd file system) */
};

struct private_directory {
    const char *name; /* "etc" */
    enum private_kind kind;
    char lower[160]; /* for overlay's lowerdir= */
};

/* A bind below a private directory: it must be made in each container, from
   /proc/late/N, which has its attributes already. */
struct late_bind {
    char path[PATH_SIZE]; /* without the leading slash */
    int make;             /* the place must be made first, on the container's tmpfs */
};

struct template {
    struct private_directory directories[PRIVATE_MAX];
    int directory_count;
    int common; /* whether any directory is PRIVATE_COMMON */
    struct late_bind late[LATE_BINDS_MAX];
    int late_count;
    const char *overlay_options; /* ",userxattr" in a user namespace */
    int rootless;
    int tree;     /* it is for containers whose root is an overlay over /proc/lower/root (tree.c) */
    int readonly; /* and nobody may change that */
    int itself;   /* their root is that tree itself: what they change is changed for all who see it */
    const struct run_directory *run_directories;
    int run_directory_count;
};

int template_build(struct template *template, const struct lab_options *options, struct pc_failure *failure);

/* The beginning: a tmpfs becomes this process's root, with the machine's at /proc/old. */
int template_begin(struct pc_failure *failure);
/* A /dev of harmless devices. */
int template_add_dev(struct pc_failure *failure);
/* The end: the machine's root is no longer seen. */
int template_end(struct pc_failure *failure);
/* Whether overlay takes this as lowerdir=; it is tried, since who knows all its conditions. errno tells. */
int template_overlay_works(const struct template *template, const char *lower);

/* Clones the mount (tree) at `from` and attaches it at `to`, read-only if asked for,
   always nosuid and nodev. Recursive: a mount below is as read-only as its parent. */
int template_bind(const char *from, const char *to, int readonly);

#endif
