#define _GNU_SOURCE
#include "registry.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/sys.h"

enum { DEATH_PATIENCE_MS = 10000 };

/* One piece, to be given back as a whole. */
PC_PAGED static struct {
    uint32_t last_id;
    uint32_t used; /* places at and beyond this were never used */
    struct container containers[CONTAINERS_MAX];
} registry;

struct container *registry_add(void)
{
    for (uint32_t i = 0; i < CONTAINERS_MAX; i++) {
        if (registry.containers[i].id != 0)
            continue;
        if (i >= registry.used)
            registry.used = i + 1;
        registry.containers[i] = (struct container){ .id = ++registry.last_id, .pidfd = -1, .status = -1, .netlink = -1, .mounts = -1, .line = -1 };
        return &registry.containers[i];
    }
    return NULL;
}

void registry_forget(void)
{
    pc_forget(&registry, sizeof registry);
}

uint32_t registry_place(const struct container *container)
{
    return (uint32_t)(container - registry.containers);
}

struct container *registry_find(uint32_t id)
{
    for (uint32_t i = 0; i < registry.used; i++)
        if (registry.containers[i].id == id && id != 0)
            return &registry.containers[i];
    return NULL;
}

struct container *registry_next(uint32_t id)
{
    struct container *next = NULL;
    for (uint32_t i = 0; i < registry.used; i++)
        if (registry.containers[i].id > id && (!next || registry.containers[i].id < next->id))
            next = &registry.containers[i];
    return next;
}

struct container *registry_find_pid(pid_t pid)
{
    for (uint32_t i = 0; i < registry.used; i++)
        if (registry.containers[i].id != 0 && registry.containers[i].pid == pid)
            return &registry.containers[i];
    return NULL;
}

void registry_kill(struct container *container)
{
    if (container->pidfd >= 0)
        pc_pidfd_signal(container->pidfd, SIGKILL);
}

int registry_bury(struct container *container, int *mounts)
{
    *mounts = -1;
    /* The kernel calls an init dead when everything in its pid namespace is (the end of
       zap_pid_ns_processes), so this one wait is for all. */
    struct pollfd death = { .fd = container->pidfd, .events = POLLIN };
    if (container->pidfd >= 0) {
        int dead;
        do
            dead = poll(&death, 1, DEATH_PATIENCE_MS);
        while (dead < 0 && errno == EINTR);
        if (dead == 0) {
            errno = ETIMEDOUT;
            return -1;
        }
        waitid(P_PID, (id_t)container->pid, NULL, WEXITED);
        close(container->pidfd);
    }
    if (container->status >= 0)
        close(container->status);
    if (container->netlink >= 0)
        close(container->netlink);
    if (container->line >= 0)
        close(container->line);
    *mounts = container->mounts;
    container->id = 0;
    return 0;
}
