#define _GNU_SOURCE
#include "limit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../common/failure.h"
#include "../common/sys.h"
#include "options.h"
#include "registry.h"

enum { PLACES_MAX = 8, GROUP_NAME_SIZE = 64 };
/* A dead process leaves its group a moment after its death is known (cgroup_task_dead in
   the kernel): until then rmdir(2) says EBUSY. */
enum { LEAVING_PATIENCE_US = 50000, LEAVING_PAUSE_NS = 100000, DEATH_PATIENCE_US = 2000000 };

/* The directories in which pytest makes groups: the same few for all containers. */
struct place {
    int fd;
    dev_t device;
    ino_t inode;
};
static struct place places[PLACES_MAX];
static int place_count;

struct limited {
    uint32_t container; /* its id; 0: this entry is free */
    uint32_t where;     /* bit mask: in which places its group still is */
    int ended;          /* the container is dead, the group only has to go */
    char name[GROUP_NAME_SIZE];
};
PC_LAST struct limited limit_table[CONTAINERS_MAX];
static uint32_t used; /* entries at and beyond this were never used */

static struct limited *find(uint32_t container)
{
    for (uint32_t i = 0; i < used; i++)
        if (limit_table[i].container == container)
            return &limit_table[i];
    return NULL;
}

static struct limited *add(void)
{
    struct limited *free = find(0);
    if (!free && used < CONTAINERS_MAX)
        free = &limit_table[used++];
    return free;
}

/* The number of a directory's place, which takes the descriptor over if it is new; -1 and
   errno when it is no directory or there are too many. */
static int place_of(int *fd)
{
    struct stat info;
    if (fstat(*fd, &info) < 0)
        return -1;
    if (!S_ISDIR(info.st_mode)) {
        errno = ENOTDIR;
        return -1;
    }
    for (int i = 0; i < place_count; i++)
        if (places[i].device == info.st_dev && places[i].inode == info.st_ino)
            return i;
    if (place_count == PLACES_MAX) {
        errno = ENOSPC;
        return -1;
    }
    places[place_count] = (struct place){ *fd, info.st_dev, info.st_ino };
    *fd = -1;
    return place_count++;
}

/* Returns whether all of them are gone. */
static int remove_groups(struct limited *group)
{
    for (int i = 0; i < place_count; i++)
        if ((group->where >> i & 1) && (unlinkat(places[i].fd, group->name, AT_REMOVEDIR) == 0 || errno != EBUSY))
            group->where &= ~(1U << i); /* gone, by our hand or another's, or not to be removed at all */
    if (group->where == 0)
        group->container = 0;
    return group->where == 0;
}

static void remove_soon(struct limited *group)
{
    const int64_t deadline = pc_now_us() + LEAVING_PATIENCE_US;
    group->ended = 1;
    while (!remove_groups(group) && pc_now_us() < deadline)
        nanosleep(&(struct timespec){ .tv_nsec = LEAVING_PAUSE_NS }, NULL);
}

/* Those that were still busy when their time had come. */
static void remove_late(void)
{
    for (uint32_t i = 0; i < used; i++)
        if (limit_table[i].container && limit_table[i].ended)
            remove_groups(&limit_table[i]);
}

static int is_name(const char *text, size_t length)
{
    return length > 0 && length < GROUP_NAME_SIZE && strlen(text) == length && text[0] != '.' && !strchr(text, '/');
}

static int take(struct pc_in *in, struct pc_failure *failure)
{
    static const char step[] = "look after the control groups of";
    struct pc_cursor cursor;
    uint32_t id = 0;
    const char *name = NULL;
    pc_fields(&cursor, in);
    for (char *value; (value = pc_next(&cursor));) {
        if (cursor.field.type == PC_F_ID)
            id = pc_u32(&cursor, value);
        else if (cursor.field.type == PC_F_NAME && is_name(value, cursor.field.length))
            name = value;
    }
    const struct container *container = registry_find(id);
    if (!name || in->fd_count == 0)
        return pc_fail_as(failure, step, "a container", EPROTO, "fields are missing");
    if (!container || container->building)
        return pc_fail_as(failure, step, "the container", ESRCH, "it has ended");
    struct limited *group = find(id) ? NULL : add();
    if (!group)
        return pc_fail_as(failure, step, "the container", EBUSY, "it has some already");
    struct limited taken = { .container = id };
    for (int i = 0; i < in->fd_count; i++) {
        const int place = place_of(&in->fds[i]);
        if (place < 0)
            return pc_fail(failure, step, "the container");
        taken.where |= 1U << place;
    }
    memcpy(taken.name, name, strlen(name) + 1);
    *group = taken;
    return 0;
}

void limit_serve(struct pc_in *in)
{
    struct pc_failure failure = { 0 };
    struct pc_out out;
    remove_late();
    if (take(in, &failure) < 0) {
        pc_send_failure(FD_CONTROL, in->header.request, &failure);
        return;
    }
    pc_begin(&out, PC_OK, in->header.request);
    pc_send(FD_CONTROL, &out, NULL, 0, 0);
}

void limit_end(uint32_t id)
{
    struct limited *group = id ? find(id) : NULL;
    if (group)
        remove_soon(group);
}

void limit_end_all(void)
{
    const int64_t deadline = pc_now_us() + DEATH_PATIENCE_US;
    for (uint32_t i = 0; i < used; i++) {
        struct container *container = limit_table[i].container ? registry_find(limit_table[i].container) : NULL;
        if (container)
            registry_kill(container);
    }
    for (uint32_t i = 0; i < used; i++) {
        const struct container *container = limit_table[i].container ? registry_find(limit_table[i].container) : NULL;
        struct pollfd death = { .fd = container ? container->pidfd : -1, .events = POLLIN };
        const int64_t left = deadline - pc_now_us();
        if (container && left > 0)
            poll(&death, 1, (int)(left / 1000));
        if (limit_table[i].container)
            remove_soon(&limit_table[i]);
    }
}
