/* The mtimes of upper's directories while copies are made in them. Making one sets the time, which is set back at once; who looks in
   between, to make a copy there too, would take the wrong time for the directory's. So all processes of a tree share what was read first. */
#define _GNU_SOURCE
#include "internal.h"

static struct cow_time *slot_of(const struct cow_tree *tree, uint64_t directory)
{
    return &tree->state->time[(directory >> 24) % COW_TIMES];
}

int cow_time_find(const struct cow_tree *tree, uint64_t directory, struct timespec *mtime, uint32_t *changes)
{
    const struct cow_time *slot = slot_of(tree, directory);
    /* Both only grow, so their sum stays the same when they do. */
    *changes = __atomic_load_n(&tree->state->changes, __ATOMIC_ACQUIRE) + __atomic_load_n(&tree->state->generation, __ATOMIC_ACQUIRE);
    const uint32_t sequence = __atomic_load_n(&slot->sequence, __ATOMIC_ACQUIRE);
    if (!sequence || (sequence & 1) || slot->directory != directory || slot->changes != *changes)
        return 0;
    *mtime = slot->mtime;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&slot->sequence, __ATOMIC_RELAXED) == sequence;
}

/* A process that is killed in here leaves the slot odd: then the file system is asked, as without it. */
void cow_time_put(const struct cow_tree *tree, uint64_t directory, const struct timespec *mtime, uint32_t changes)
{
    struct cow_time *slot = slot_of(tree, directory);
    uint32_t sequence = __atomic_load_n(&slot->sequence, __ATOMIC_ACQUIRE);
    if ((sequence & 1) ||
        !__atomic_compare_exchange_n(&slot->sequence, &sequence, sequence + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return;
    slot->directory = directory;
    slot->changes = changes;
    slot->mtime = *mtime;
    __atomic_store_n(&slot->sequence, sequence + 2, __ATOMIC_SEQ_CST);
}
