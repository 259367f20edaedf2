/* Directories of lowers in which everything may be opened to see what it is: there are regular files, directories and links only. Opening a
   FIFO waits for its other end, or wakes a program that waits there; so elsewhere the kind of each file is asked for first.
   All processes of a tree share what has been found out (a lower does not change), and each directory is listed once. */
#define _GNU_SOURCE
#include "internal.h"

enum { PROBES = 4, ENTRIES_MAX = 8192, DIRECTORY = 4, REGULAR = 8, LINK = 10 /* d_type */ };

static int list(const struct cow_asker *asker, const char *directory)
{
    struct entry { uint64_t ino, off; uint16_t size; uint8_t type; char name[]; };
    _Alignas(8) char buffer[2048];
    int count = 0;
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_LOOK(asker, directory), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0)
        return 0;
    for (long got; (got = SYS(SYS_getdents64, fd, buffer, sizeof buffer)) != 0;) {
        if (got < 0)
            return 0;
        for (long at = 0; at < got; at += ((const struct entry *)(buffer + at))->size) {
            const uint8_t type = ((const struct entry *)(buffer + at))->type;
            if ((type != DIRECTORY && type != REGULAR && type != LINK) || ++count > ENTRIES_MAX)
                return 0;
        }
    }
    return 1;
}

static uint64_t *slot_of(const struct cow_tree *tree, uint64_t hash, unsigned probe)
{
    return &tree->state->quiet[((hash >> 24) + probe) % COW_QUIET];
}

int cow_quiet_known(const struct cow_tree *tree, uint64_t hash)
{
    const uint64_t key = cow_epoch_key(tree, hash);
    if (__atomic_load_n(&tree->state->filter_off, __ATOMIC_ACQUIRE))
        return 0; /* somebody changes trees from outside, perhaps by a commit to the lower */
    for (unsigned i = 0; i < PROBES; i++) {
        const uint64_t found = __atomic_load_n(slot_of(tree, key, i), __ATOMIC_ACQUIRE);
        if ((found & ~1ULL) == (key & ~1ULL))
            return (int)(found & 1);
        if (!found)
            return -1;
    }
    return 0;
}

int cow_quiet_learn(const struct cow_asker *asker, const struct cow_tree *tree, uint64_t hash, const char *directory)
{
    const uint64_t key = cow_epoch_key(tree, hash); /* as of now, whatever happens while it is listed */
    const int quiet = list(asker, directory);
    const uint64_t known = (key & ~1ULL) | (uint64_t)quiet;
    for (unsigned i = 0; i < PROBES; i++) {
        uint64_t unused = 0;
        if (__atomic_compare_exchange_n(slot_of(tree, key, i), &unused, known, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            break;
    }
    return quiet;
}
