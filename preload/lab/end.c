#include "end.h"

#include <unistd.h>

#include "limit.h"

int end_one(struct ending *ending, struct container *container)
{
    int failed = 0;
    if (container->ending)
        return 0; /* it was named twice */
    container->ending = 1;
    registry_kill(container);
    ending->container[ending->count++] = container;
    if (ending->count == END_AT_ONCE) {
        failed = end_await(ending);
        end_drop_mounts(ending);
    }
    return failed;
}

int end_await(struct ending *ending)
{
    int failed = 0;
    for (int i = 0; i < ending->count; i++) {
        const uint32_t id = ending->container[i]->id;
        const int alive = registry_bury(ending->container[i], &ending->mounts[i]) < 0;
        if (!alive)
            limit_end(id);
        failed |= alive;
        ending->container[i]->ending = 0;
    }
    return failed;
}

void end_drop_mounts(struct ending *ending)
{
    for (int i = 0; i < ending->count; i++)
        if (ending->mounts[i] >= 0)
            close(ending->mounts[i]);
    ending->count = 0;
}
