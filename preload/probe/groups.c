/* Whether a control group below our own can be made, limited and joined. */
#define _GNU_SOURCE
#include "probe.h"

#include "../common/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Our path in the hierarchy of `controller` ("" is version 2), from /proc/self/cgroup. */
static char *own_path(char *groups, const char *controller)
{
    char wanted[32], *rest = NULL;
    snprintf(wanted, sizeof wanted, ":%s:", controller);
    for (char *line = strtok_r(groups, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        char *found = strstr(line, wanted);
        if (found)
            return found + strlen(wanted);
    }
    return NULL;
}

/* Our own directory in that hierarchy; -1 and ENOENT when it is not mounted. */
static int own_directory(const char *controller, char *directory, size_t size)
{
    static char groups[4096], mounts[65536];
    if (get_file("/proc/self/cgroup", groups, sizeof groups) < 0 ||
        get_file("/proc/self/mountinfo", mounts, sizeof mounts) < 0)
        return -1;
    const char *own = own_path(groups, controller);
    char *rest = NULL;
    for (char *line = strtok_r(mounts, "\n", &rest); own && line; line = strtok_r(NULL, "\n", &rest)) {
        char root[256], place[256], type[32], options[256];
        char *tail = strstr(line, " - ");
        if (!tail || sscanf(line, "%*s %*s %*s %255s %255s", root, place) != 2 ||
            sscanf(tail, " - %31s %*s %255s", type, options) != 2)
            continue;
        int two = *controller == 0;
        if (two ? strcmp(type, "cgroup2") != 0 : strcmp(type, "cgroup") != 0 || !strstr(options, controller))
            continue;
        /* In a bind of a subtree, as engines make it, the path starts below that subtree. */
        size_t above = strcmp(root, "/") != 0 && strncmp(own, root, strlen(root)) == 0 ? strlen(root) : 0;
        snprintf(directory, size, "%.120s%.150s", place, own + above);
        return 0;
    }
    errno = ENOENT;
    return -1;
}

/* A limit that no process can stand under is none. */
static int join(struct outcome *out)
{
    char path[400];
    snprintf(path, sizeof path, "%s/cgroup.procs", out->scratch);
    return pc_write_file(AT_FDCWD, path, "0", 1) == 0 ? 0 : fail(out, "join a control group");
}

static int limit_and_join(struct outcome *out, const char *file, const char *value)
{
    char path[400];
    snprintf(path, sizeof path, "%.300s/%s", out->scratch, file);
    if (pc_write_file(AT_FDCWD, path, value, strlen(value)) != 0)
        return fail(out, "limit a control group");
    return in_child(0, "fork", join, out);
}

/* Makes a group below ours, limits it, lets a process join it, removes it. */
static int limit(struct outcome *out, const char *controller, const char *file, const char *value)
{
    char path[400];
    if (own_directory(controller, path, sizeof path) != 0)
        return fail(out, "find our own control group");
    /* Ours by this process's id, and noted so that it goes even if this process is killed. */
    snprintf(out->scratch, sizeof out->scratch, "%.280s/pcprobe.%d", path, (int)getpid());
    if (mkdir(out->scratch, 0700) != 0) {
        out->scratch[0] = 0;
        return fail(out, "make a control group");
    }
    int result = limit_and_join(out, file, value);
    if (rmdir(out->scratch) != 0)
        return fail(out, "remove a control group");
    out->scratch[0] = 0;
    return result;
}

int probe_cgroup_limits(struct outcome *out)
{
    /* Groups outlive processes: so this probe goes on, and cleans up, even if we are killed. */
    prctl(PR_SET_PDEATHSIG, 0);
    if (limit(out, "", "memory.max", "67108864") == 0 && limit(out, "", "pids.max", "64") == 0) {
        note(out, "control groups v2");
        return 0;
    }
    struct outcome two = *out;
    if (limit(out, "memory", "memory.limit_in_bytes", "67108864") == 0 && limit(out, "pids", "pids.max", "64") == 0) {
        note(out, "control groups v1");
        return 0;
    }
    /* Where version 1 is not even mounted, version 2's answer is the one that matters. */
    if (strcmp(out->step, "find our own control group") == 0)
        *out = two;
    return -1;
}
