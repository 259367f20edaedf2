/* What the two kinds of roots are made with: the machine's (root.c) and another tree (tree.c). */
#ifndef PC_ROOT_H
#define PC_ROOT_H

#include <errno.h>

#include "container.h"

/* Does one step unless it is the one to fail; `done` is evaluated only then. */
#define STEP(step, object, done) \
    do { \
        if (!step_begins(steps, step, object)) \
            return -1; \
        if ((done) < 0) \
            return pc_fail(steps->failure, step, object); \
    } while (0)

/* Clones the mount at the directory `from` and attaches it at `to`. */
int root_place(const char *from, const char *to);
/* The same, with all mounts below it. */
int root_place_tree(const char *from, const char *to);
/* The container's own tmpfs at /proc/c, and the directories in it that the rest is made of. */
int root_make_storage(const struct template *template, struct steps *steps);
/* A directory on it, to be an overlay's upper, and the work directory beside it. */
int root_make_upper(const char *name, int overlay, struct steps *steps);
/* The files that name this host. They are written straight into the upper, before it is
   one: what an overlay shows of a changed upper is undefined. */
int root_write_names(const char *etc, const struct container_spec *spec, struct steps *steps);
int root_mount_overlay(const char *lower, const char *name, const char *target, const char *more, struct steps *steps);
/* What the kernel shows: terminals, message queues, processes. */
int root_mount_views(const struct template *template, const struct container_spec *spec, struct steps *steps);

/* Makes an overlay over the template's tree this process's root. */
int tree_build(const struct template *template, const struct container_spec *spec, struct steps *steps);

#endif
