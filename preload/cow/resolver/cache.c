/* Directories that have been walked: which tree, which layers. A fact holds while the generation is the one it was
   found in: lowers do not change, and whoever changes an upper so that a directory of the view means something else adds to the
   generation. Entries are written under a sequence number: a reader that meets a writer has a miss, never a wait. */
#define _GNU_SOURCE
#include "internal.h"

enum { FACTS = 1024, FACT_PATH = 208 };

struct entry {
    uint32_t sequence; /* odd while it is written */
    uint32_t generation;
    uint64_t hash;
    const struct cow_set *set;
    struct cow_tree *tree;
    uint32_t mask, length;
    char path[FACT_PATH];
};

static struct entry facts[FACTS];

uint32_t cow_cache_generation(const struct cow_set *set, const struct cow_tree *tree)
{
    return tree ? __atomic_load_n(&tree->state->generation, __ATOMIC_ACQUIRE)
                : __atomic_load_n(&set->tree[0].state->outside, __ATOMIC_ACQUIRE);
}

int cow_cache_find(const struct cow_set *set, uint64_t hash, const char *a, size_t a_length, const char *b,
                   size_t b_length, struct cow_fact *fact)
{
    const struct entry *entry = &facts[(hash >> 20) % FACTS];
    const uint32_t sequence = __atomic_load_n(&entry->sequence, __ATOMIC_ACQUIRE);
    if ((sequence & 1) || entry->hash != hash || entry->set != set || entry->length != a_length + b_length ||
        memcmp(entry->path, a, a_length) != 0 || memcmp(entry->path + a_length, b, b_length) != 0)
        return 0;
    *fact = (struct cow_fact){ entry->tree, entry->mask };
    const uint32_t generation = entry->generation;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return __atomic_load_n(&entry->sequence, __ATOMIC_RELAXED) == sequence &&
           generation == cow_cache_generation(set, fact->tree);
}

void cow_cache_put(const struct cow_set *set, uint64_t hash, const char *path, size_t length, const struct cow_tree *tree,
                   unsigned mask, uint32_t generation)
{
    struct entry *entry = &facts[(hash >> 20) % FACTS];
    uint32_t sequence = __atomic_load_n(&entry->sequence, __ATOMIC_ACQUIRE);
    if (length > FACT_PATH || (sequence & 1) ||
        !__atomic_compare_exchange_n(&entry->sequence, &sequence, sequence + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return;
    entry->hash = hash;
    entry->set = set;
    entry->tree = (struct cow_tree *)tree;
    entry->mask = mask;
    entry->generation = generation;
    entry->length = (uint32_t)length;
    memcpy(entry->path, path, length);
    __atomic_store_n(&entry->sequence, sequence + 2, __ATOMIC_SEQ_CST);
}

static uint64_t absent[512];

uint64_t cow_absent_key(const struct cow_tree *tree, uint64_t hash)
{
    return cow_epoch_key(tree, hash);
}

void cow_absent_note(uint64_t key)
{
    __atomic_store_n(&absent[key >> 40 & 511], key, __ATOMIC_RELAXED);
}

int cow_absent_known(const struct cow_tree *tree, uint64_t key)
{
    if (__atomic_load_n(&tree->state->filter_off, __ATOMIC_ACQUIRE))
        return 0; /* a commit may have given it to the lower */
    return __atomic_load_n(&absent[key >> 40 & 511], __ATOMIC_RELAXED) == key;
}

/* The cwd of this process. Shared by its threads; never kept once a thread or a child of vfork may have another. */
static struct {
    uint32_t sequence, generation;
    uint64_t hash;
    size_t length;
    const struct cow_set *set;
    const struct cow_tree *below; /* the kernel's cwd is at or below this one's mount */
    char view[512], begin[512];   /* begin: with a slash at its end */
} cwd;
static int never;

void cow_cwd_changed(void)
{
    __atomic_store_n(&cwd.set, NULL, __ATOMIC_SEQ_CST);
}

void cow_cwd_never(void)
{
    __atomic_store_n(&never, 1, __ATOMIC_SEQ_CST);
}

/* Changes when anything does, in any tree or outside. */
static uint32_t all_generations(const struct cow_set *set)
{
    uint32_t sum = __atomic_load_n(&set->tree[0].state->outside, __ATOMIC_ACQUIRE);
    for (int i = 0; i < set->count; i++)
        sum += __atomic_load_n(&set->tree[i].state->generation, __ATOMIC_ACQUIRE);
    return sum;
}

static int cwd_learn(const struct cow_set *set)
{
    char real[512], view[PATH_MAX];
    uint32_t sequence = __atomic_load_n(&cwd.sequence, __ATOMIC_ACQUIRE);
    const uint32_t generation = all_generations(set);
    if (SYS(SYS_getcwd, real, sizeof real) < 0 || real[0] != '/')
        return 0;
    const long length = cow_view_of(set, real, view);
    if (length < 0 || length >= 511 || (sequence & 1) ||
        !__atomic_compare_exchange_n(&cwd.sequence, &sequence, sequence + 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
        return 0;
    cwd.length = (size_t)(length == 1 ? 0 : length);
    memcpy(cwd.view, view, (size_t)length + 1);
    memcpy(cwd.begin, view, cwd.length);
    cwd.begin[cwd.length] = '/';
    cwd.below = cow_tree_of(set, real, strlen(real));
    cwd.hash = cow_hash(COW_HASH_START, cwd.view, cwd.length);
    cwd.generation = generation;
    __atomic_store_n(&cwd.set, set, __ATOMIC_SEQ_CST);
    __atomic_store_n(&cwd.sequence, sequence + 2, __ATOMIC_SEQ_CST);
    return 1;
}

/* The view's path stays where it is until chdir or a new generation; 0: ask the kernel each time. */
static int cwd_known(const struct cow_set *set)
{
    if (__atomic_load_n(&never, __ATOMIC_ACQUIRE))
        return 0;
    return (__atomic_load_n(&cwd.set, __ATOMIC_ACQUIRE) == set && cwd.generation == all_generations(set)) || cwd_learn(set);
}

const char *cow_cwd(const struct cow_set *set, size_t *length)
{
    if (!cwd_known(set))
        return NULL;
    *length = cwd.length;
    return cwd.view;
}

/* The short way is for paths whose components need no thought: no empty ones, no . and .., no slash at the end. */
static const char *scan(const char *path, uint64_t *hash, uint64_t *directory_hash, size_t *length)
{
    const char *last = path, *p = path;
    uint64_t h = *hash;
    *directory_hash = h;
    for (char c; (c = *p); p++) {
        if (c == '/') {
            const char next = p[1];
            if (next == '/' || !next)
                return NULL;
            *directory_hash = h;
            last = p + 1;
        }
        if (c == '.' && p == last && (!p[1] || p[1] == '/' || (p[1] == '.' && (!p[2] || p[2] == '/'))))
            return NULL;
        h = cow_hash_byte(h, c);
    }
    *hash = h;
    *length = (size_t)(p - path);
    return last;
}

int cow_fast(const struct cow_asker *asker, int dirfd, const char *path, struct cow_hit *hit)
{
    const struct cow_set *set = asker->set;
    uint64_t hash = COW_HASH_START, directory_hash;
    struct cow_fact fact;
    if (asker->root != AT_FDCWD || !path || !path[0])
        return 0;
    const int relative = path[0] != '/';
    hit->base = "";
    hit->base_length = 0;
    if (relative) {
        if (dirfd != AT_FDCWD || !cwd_known(set))
            return 0;
        hit->base = cwd.view;
        hit->base_length = cwd.length;
        hash = cow_hash_byte(cwd.hash, '/');
    }
    const char *name = scan(path, &hash, &directory_hash, &hit->path_length);
    if (!name || hit->path_length >= PATH_MAX)
        return 0;
    const size_t directory_length = name == path ? 0 : (size_t)(name - path) - 1;
    if (relative && name == path) /* the cwd itself: the hash before the slash that was added */
        directory_hash = cwd.hash;
    if (!cow_cache_find(set, directory_hash, cwd.begin, relative ? hit->base_length + (name != path) : 0, path, directory_length, &fact))
        return 0;
    for (int i = 0; i < set->count; i++)
        if (set->tree[i].mount_hash == hash)
            return 0; /* a mount itself, seen from its parent */
    hit->tree = fact.tree;
    hit->mask = fact.mask;
    hit->hash = hash;
    hit->directory = directory_hash;
    hit->path = path;
    hit->pass = 1;
    if (!fact.tree)
        return 1;
    hit->maybe_upper = (fact.mask & 1) && ((fact.mask & ~1u) == 0 || cow_filter_has(fact.tree, hash));
    /* A relative path goes down from where the kernel's cwd is. */
    hit->pass = fact.tree->has_lower_mount && (!relative || cwd.below == fact.tree);
    return 1;
}

const char *cow_hit_path(const struct cow_hit *hit, int layer, char *out, size_t size)
{
    const struct cow_tree *tree = hit->tree;
    const struct cow_layer *real = &tree->layer[layer];
    const size_t separator = hit->path[0] != '/';
    if (layer > 0 && hit->pass)
        return hit->path;
    const size_t whole = hit->base_length + separator + hit->path_length;
    const size_t length = real->length + whole - tree->mount_length;
    if (length >= size || whole < tree->mount_length)
        return NULL;
    memcpy(out, real->path, real->length);
    char *end = out + real->length;
    if (separator) {
        if (hit->base_length < tree->mount_length)
            return NULL; /* the mount is below the cwd: the long way */
        memcpy(end, hit->base + tree->mount_length, hit->base_length - tree->mount_length);
        end += hit->base_length - tree->mount_length;
        *end++ = '/';
        memcpy(end, hit->path, hit->path_length + 1);
    } else {
        memcpy(end, hit->path + tree->mount_length, hit->path_length - tree->mount_length + 1);
    }
    return out;
}
