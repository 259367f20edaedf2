/* A request for a mount, and what its parts share. All of this is done in a child that ends
   with it, so what stays open on the way ends too.

   kind      SOURCE                     TARGET             others                answer
   BIND      of the machine, or none:   the mount point,   FLAGS                 VALUE: the mount, and
             the target itself          made if missing    fd: the stage (cow.h) the cover or 0
                                                           whose path it is
   TMPFS     -                          the same           OPTIONS, FLAGS        the same
   DEVPTS    -                          the same           FLAGS                 the same
   OVERLAY   the lower of the machine,  the mount point    OPTIONS of its tmpfs  the same; fd: that tmpfs
             or none: what is seen there
   LOOK      -                          a path             -                     VALUE: mount, is its root,
                                                                                 device; fd
   CHANGE    -                          a mount point      VALUE: the mount;     -
                                                           FLAGS to set, or
                                                           with CLEAR to clear
   RESIZE    -                          for messages       fd on a tmpfs;        VALUE: bytes and inodes
                                                           OPTIONS               that it had
   FILL      -                          for messages       fd on a tmpfs; FLAGS  the same; fd: ballast
   UNMOUNT   -                          a mount point      VALUE: the mount      -

   A cover is an overlay that was mounted for the sake of a mount point below it, which could
   not be made otherwise. VALUE.. of the first four are the covers so far. */
#ifndef PC_MOUNT_REQUEST_H
#define PC_MOUNT_REQUEST_H

#include <stdint.h>

#include "../common/failure.h"
#include "protocol.h"

enum { MOUNT_OPTIONS_MAX = 8, MOUNT_VALUES_MAX = 64, MOUNT_PATH_SIZE = 4096, MOUNT_FDS_MAX = 1 };

struct mount_request {
    uint32_t kind, flags;
    const char *source, *target; /* the source may be NULL; the target begins with a slash */
    const char *options[MOUNT_OPTIONS_MAX];
    int option_count;
    uint32_t values[MOUNT_VALUES_MAX];
    int value_count;
    int fd;        /* that came with it, or -1 */
    int container; /* the container's mount namespace */
};

struct mounting {
    const struct mount_request *request;
    struct pc_failure *failure;
    int proc; /* the machine's, where we are "self" */
    int root; /* the container's, once it was entered */
    int in_user_namespace;
    uint64_t answer[MOUNT_OPTIONS_MAX];
    int answer_count;
    int answer_fd; /* or -1 */
};

/* Makes what is to be mounted, seen by nobody yet (mount_make.c). */
int mount_make_bind(struct mounting *m);
int mount_make_itself(struct mounting *m, int place);
int mount_make_tmpfs(struct mounting *m);
int mount_make_devpts(struct mounting *m);
/* An overlay over a detached tree, in a scratch mount namespace that this process is in
   afterwards, with its tmpfs as current directory. *upper becomes a descriptor of that. */
int mount_make_overlay(struct mounting *m, int lower, int *upper);
/* MOUNT_ATTR_* of the request's flags. */
uint64_t mount_attributes(uint32_t flags);

/* Enters the container's mount namespace, also a second time. */
int mount_enter(struct mounting *m);
/* A descriptor of a path as the container resolves it, or -1 and errno. */
int mount_open(const struct mounting *m, const char *path, uint64_t flags);
/* Opens the path that the request names, all links followed, or fails. */
int mount_open_target(struct mounting *m);
/* Attaches a detached tree to the target, which is made if there is none (mount_place.c). */
int mount_attach(struct mounting *m, int tree, int is_directory);
/* Detaches the mount whose root is this descriptor. */
int mount_detach(const struct mounting *m, int root);

/* Covers the directory `place` by an overlay over what is seen there, mounts below included;
   before it is seen `rest` is made in it, whose last part is a file if so asked. With rest NULL
   it can be written, else nobody can. `lower` is a tree to be shown instead, or -1.
   Returns a descriptor of the new mount's root (mount_cover.c). */
int mount_cover(struct mounting *m, int place, int lower, const char *rest, int is_directory, int *upper);
/* Makes the directories `rest` below `place`, as the container sees them, or removes them. */
int mount_make_point(int place, const char *rest, int is_directory);
void mount_unmake_point(int place, const char *rest, int is_directory);

int mount_change(struct mounting *m);
int mount_resize(struct mounting *m);
int mount_fill(struct mounting *m);

/* Who of the container's processes runs this file, or has files of this mount open for
   writing: a text that ends a message, or NULL (mount_busy.c). */
const char *mount_find_runner(const struct mounting *m, int file);
const char *mount_find_writers(const struct mounting *m, uint64_t mount);

/* System calls (mount_call.c). */
int mount_openat2(int directory, const char *path, uint64_t flags, uint64_t resolve);
int mount_move(int tree, int place);
/* The number of the mount that the descriptor is on, as in mountinfo; *is_root tells if it is its root. */
int mount_identify(int fd, uint64_t *mount, int *is_root);
int mount_fsopen(const char *type);
int mount_fspick(int directory, const char *path, unsigned flags);
int mount_configure(int context, unsigned command, const char *key, const char *value);
int mount_fsmount(int context, uint64_t attributes);
/* Fails with what the file system says of it, which errno alone does not. */
int mount_fail_with(struct mounting *m, int context, const char *step, const char *object);

#endif
