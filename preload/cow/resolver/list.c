/* A directory's entries, merged: an upper's first, each name once, without whiteouts. */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "internal.h"

struct entry {
    uint64_t ino, off;
    uint16_t size;
    uint8_t type;
    char name[];
};

enum { HIDDEN = 0xff, UNKNOWN = 0, CHARACTER = 2, FIRST_SIZE = 1 << 13 };

struct merge {
    struct cow_walk *w;
    struct cow_listing *out;
    uint32_t *slot; /* offsets + 1 into out->data, by the hash of the name */
    size_t slots, slots_mapped, count;
    int single; /* one layer only: no name can come twice */
};

static long map(size_t size)
{
    return cow_mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static int failed(long memory)
{
    return memory < 0 && memory > -4096;
}

void cow_list_free(struct cow_listing *listing)
{
    if (listing->mapped)
        SYS(SYS_munmap, listing->data, listing->mapped);
    *listing = (struct cow_listing){ 0 };
}

static long room(struct cow_listing *out, size_t more)
{
    if (out->size + more <= out->mapped)
        return 0;
    const size_t size = out->mapped ? out->mapped * 2 : FIRST_SIZE;
    long memory = out->mapped ? SYS(SYS_mremap, out->data, out->mapped, size, MREMAP_MAYMOVE) : map(size);
    if (failed(memory))
        return memory;
    out->data = (char *)memory;
    out->mapped = size;
    return 0;
}

static uint32_t *find(struct merge *m, const char *name, size_t length)
{
    size_t at = cow_hash(COW_HASH_START, name, length) * 0x9e3779b97f4a7c15ULL >> 32;
    for (;; at++) {
        uint32_t *slot = &m->slot[at & (m->slots - 1)];
        if (!*slot || strcmp(((struct entry *)(m->out->data + *slot - 1))->name, name) == 0)
            return slot;
    }
}

static long grow_slots(struct merge *m)
{
    const size_t slots = m->slots ? m->slots * 4 : 1024;
    long memory = map(slots * sizeof *m->slot);
    if (failed(memory))
        return memory;
    if (m->slots)
        SYS(SYS_munmap, m->slot, m->slots_mapped);
    m->slot = (uint32_t *)memory;
    m->slots = slots;
    m->slots_mapped = slots * sizeof *m->slot;
    for (size_t at = 0; at < m->out->size;) {
        const struct entry *entry = (const struct entry *)(m->out->data + at);
        *find(m, entry->name, strlen(entry->name)) = (uint32_t)at + 1;
        at += entry->size;
    }
    return 0;
}

/* Notes one entry of a layer's directory that fd is of. */
static long take(struct merge *m, int fd, int layer, int last, const struct entry *entry)
{
    const int dots = entry->name[0] == '.' && (!entry->name[1] || (entry->name[1] == '.' && !entry->name[2]));
    const size_t length = strlen(entry->name);
    struct stat st;
    long result = 0;
    if (dots && !last)
        return 0;
    if (!m->single && m->count * 2 >= m->slots && (result = grow_slots(m)) < 0)
        return result;
    uint32_t *slot = m->single ? NULL : find(m, entry->name, length);
    if (slot && *slot)
        return 0;
    if ((result = room(m->out, entry->size)) < 0)
        return result;
    struct entry *own = memcpy(m->out->data + m->out->size, entry, entry->size);
    if (entry->type == CHARACTER || entry->type == UNKNOWN) {
        result = SYS(SYS_newfstatat, fd, entry->name, &st, AT_SYMLINK_NOFOLLOW);
        if (result == -ENOENT)
            return 0;
        if (result < 0)
            return result;
        if (cow_is_whiteout(&st))
            own->type = HIDDEN;
    }
    if (layer == 0 && own->type != HIDDEN && m->w->tree->state->inodes)
        own->ino = cow_origin_number(m->w->tree, fd, own->name, own->ino);
    if (slot)
        *slot = (uint32_t)m->out->size + 1;
    m->out->size += own->size;
    m->count++;
    return 0;
}

static long take_layer(struct merge *m, int layer, int last)
{
    _Alignas(8) char buffer[4096];
    struct cow_walk *w = m->w;
    long result = cow_layer_path(w, layer, w->real);
    if (result < 0)
        return result;
    COW_CLEANUP_FD int fd =
        (int)SYS(SYS_openat, AT_LOOK(w->asker, w->real), O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    for (long got; (got = SYS(SYS_getdents64, fd, buffer, sizeof buffer)) != 0;) {
        if (got < 0)
            return got;
        for (long at = 0; at < got; at += ((const struct entry *)(buffer + at))->size) {
            result = take(m, fd, layer, last, (const struct entry *)(buffer + at));
            if (result < 0)
                return result;
        }
    }
    return 0;
}

/* Takes out what is hidden, and says where each record ends. */
static void pack(struct cow_listing *out)
{
    size_t size = 0;
    for (size_t at = 0; at < out->size;) {
        struct entry *entry = (struct entry *)(out->data + at);
        const size_t length = entry->size;
        if (entry->type != HIDDEN) {
            memmove(out->data + size, entry, length);
            size += length;
            ((struct entry *)(out->data + size - length))->off = size;
        }
        at += length;
    }
    out->size = size;
}

long cow_list_walk(struct cow_walk *w, struct cow_listing *listing)
{
    struct merge m = { .w = w, .out = listing, .single = !(w->mask & (w->mask - 1)) };
    *listing = (struct cow_listing){ 0 };
    long result = m.single ? 0 : grow_slots(&m);
    for (int i = 0; result == 0 && i < w->tree->layers; i++)
        if (w->mask >> i & 1)
            result = take_layer(&m, i, !(w->mask >> (i + 1)));
    if (m.slots)
        SYS(SYS_munmap, m.slot, m.slots_mapped);
    if (result < 0)
        cow_list_free(listing);
    else
        pack(listing);
    return result;
}

/* A directory of the trees: 0, or -errno; -ENOTDIR also for one outside, which the kernel lists itself. */
static long walk_directory(struct cow_walk *w, int dirfd, const char *path)
{
    long result = cow_walk_path(w, dirfd, *path ? path : ".", 0);
    if (result < 0)
        return result;
    if (w->kind == COW_ABSENT)
        return -ENOENT;
    return w->kind == COW_DIRECTORY && w->tree ? 0 : -ENOTDIR;
}

long cow_list(const struct cow_asker *asker, int dirfd, const char *path, struct cow_listing *listing)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    *listing = (struct cow_listing){ 0 };
    if (!w)
        return -ENOMEM;
    long result = walk_directory(w, dirfd, path);
    return result < 0 ? result : cow_list_walk(w, listing);
}

long cow_is_merged(const struct cow_asker *asker, int fd)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(asker);
    if (!w)
        return -ENOMEM;
    long result = walk_directory(w, fd, "");
    if (result < 0)
        return 0;
    return (w->mask & 1) || (w->mask & (w->mask - 1));
}
