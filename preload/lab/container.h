/* A container as the lab sees it: what was asked for, and what runs. */
#ifndef PC_CONTAINER_H
#define PC_CONTAINER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "../common/failure.h"
#include "../common/message.h"
#include "launch.h"
#include "link.h"
#include "template.h"

enum { NAME_SIZE = 65, SETTINGS_MAX = 24 };

/* What a container is to be. The strings belong to the request's message. */
struct container_spec {
    char name[NAME_SIZE];
    const char *hosts; /* the text of /etc/hosts */
    size_t hosts_length;
    int host_network; /* share the machine's network instead of having one */
    int network_last; /* build the root first, then the network */
    uint32_t rootfs;  /* 0: the machine's */
    uint64_t capabilities; /* those that it keeps of what containers have */
    struct limit_spec limits[RLIMITS_MAX];
    int limit_count;
    const char *settings[SETTINGS_MAX]; /* of its network, as sysctl(8) writes them, with slashes */
    int setting_count;
    struct link_end end;
};

/* Takes a field of a request that comes behind the container's name; -1: it is none of them. */
int spec_read(struct container_spec *spec, const struct pc_cursor *cursor, const char *value);

/* Counts the steps of a set-up, so that a test can make any of them fail. */
struct steps {
    int done, fail_at;
    struct pc_failure *failure;
};

/* Whether the next step may be done; records a made-up EIO when it is the one to fail. */
int step_begins(struct steps *steps, const char *step, const char *object);

/* Builds the container's root in this process's own mount namespace; afterwards nothing of
   the lab's own directories can be seen. */
int root_build(const struct template *template, const struct container_spec *spec, struct steps *steps);

/* The last piece: /sys, which shows the network namespace of who mounts it. */
int root_show_network(const struct container_spec *spec, struct steps *steps);

/* The rest of the life of a container's first process: it never returns. `agent` is the
   socket to pytest, `lab` the one to the lab, whose end of file is a lifeline too. `spare` is
   zero, and in memory that the container's processes of ours share. */
_Noreturn void init_run(int agent, int lab, int rootless_ids, const struct container_spec *spec, _Atomic pid_t *spare);

#endif
