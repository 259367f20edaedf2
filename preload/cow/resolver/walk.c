/* From a path to a place in the layers, component by component: links are followed in the view, .. goes up in the view. */
#define _GNU_SOURCE
#include "internal.h"

#include <sys/mman.h>

enum { SLOTS = 24 };
static struct cow_walk slots[SLOTS];
static uint32_t taken[SLOTS];

struct cow_walk *cow_walk_new(const struct cow_asker *asker)
{
    struct cow_walk *w = NULL;
    for (int i = 0; i < SLOTS && !w; i++) {
        uint32_t unused = 0;
        if (__atomic_compare_exchange_n(&taken[i], &unused, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            w = &slots[i];
    }
    if (!w) {
        long memory = cow_mmap(sizeof *w, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
        if (memory < 0 && memory > -4096)
            return NULL;
        w = (struct cow_walk *)memory;
    }
    w->asker = asker;
    w->source = -1;
    return w;
}

void cow_walk_free(struct cow_walk *w)
{
    if (w >= slots && w < slots + SLOTS)
        __atomic_store_n(&taken[w - slots], 0, __ATOMIC_RELEASE);
    else
        SYS(SYS_munmap, w, sizeof *w);
}

struct cow_tree *cow_tree_of(const struct cow_set *set, const char *path, size_t length)
{
    struct cow_tree *found = NULL;
    for (int i = 0; i < set->count; i++) {
        struct cow_tree *tree = &set->tree[i];
        if (length >= tree->mount_length && (length == tree->mount_length || path[tree->mount_length] == '/') &&
            memcmp(path, tree->mount, tree->mount_length) == 0 && (!found || tree->mount_length > found->mount_length))
            found = tree;
    }
    return found;
}

void cow_proc_path(const struct cow_asker *asker, const char *name, int fd, char out[64])
{
    char *end = memcpy(out, "/proc/", 6) + 6;
    if (asker->pid)
        end += cow_decimal(end, (uint64_t)asker->tid); /* a thread may have a directory of its own (unshare(2)) */
    else
        end = (char *)memcpy(end, "self", 4) + 4;
    const size_t length = strlen(name);
    memcpy(end, name, length + 1);
    if (fd >= 0)
        cow_decimal(end + length, (uint64_t)fd);
}

long cow_join(const struct cow_layer *layer, const char *relative, size_t length, char *out)
{
    if (layer->length + length >= PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(out, layer->path, layer->length);
    memcpy(out + layer->length, relative, length);
    out[layer->length + length] = 0;
    return (long)(layer->length + length);
}

long cow_layer_path(const struct cow_walk *w, int layer, char *out)
{
    return cow_join(&w->tree->layer[layer], cow_relative(w), w->length - w->tree->mount_length, out);
}

long cow_found_path(struct cow_walk *w)
{
    if (w->tree)
        return cow_layer_path(w, w->layer, w->real);
    memcpy(w->real, w->length ? w->view : "/", w->length ? w->length + 1 : 2);
    return (long)(w->length ? w->length : 1);
}

static int below(const char *path, const char *directory, size_t length)
{
    return strncmp(path, directory, length) == 0 && (path[length] == '/' || !path[length]);
}

long cow_view_of(const struct cow_set *set, const char *real, char *out)
{
    const char *rest = real, *mount = "";
    size_t deepest = 0, mount_length = 0;
    for (int i = 0; i < set->count; i++) {
        const struct cow_tree *tree = &set->tree[i];
        for (int j = tree->all & 1 ? 0 : 1; j < tree->layers; j++) {
            const struct cow_layer *layer = &tree->layer[j];
            if (layer->length > deepest && below(real, layer->path, layer->length)) {
                deepest = layer->length;
                rest = real + layer->length;
                mount = tree->mount;
                mount_length = tree->mount_length;
            }
        }
        if (tree->work && below(real, tree->work, tree->work_length))
            return -ENOENT;
    }
    const size_t length = strlen(rest);
    if (mount_length + length >= PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(out, mount, mount_length);
    memcpy(out + mount_length, rest, length + 1);
    return (long)(mount_length + length);
}

/* The view path of dirfd into w->view, "/" as "". */
static long base(struct cow_walk *w, int dirfd)
{
    const struct cow_asker *asker = w->asker;
    char proc[64];
    long length;
    size_t known;
    const char *view;
    if (dirfd == AT_FDCWD && !asker->pid && (view = cow_cwd(asker->set, &known))) {
        memcpy(w->view, view, known + 1);
        w->length = known;
        return 0;
    }
    if (dirfd == AT_FDCWD && !asker->pid) {
        length = SYS(SYS_getcwd, w->real, sizeof w->real);
        if (length < 0 || w->real[0] != '/')
            return length < 0 ? length : -ENOENT;
    } else {
        if (dirfd < 0 && dirfd != AT_FDCWD)
            return -EBADF;
        if (dirfd == AT_FDCWD && asker->ways) {
            length = asker->ways->read_cwd(asker->tid, w->real, sizeof w->real - 1);
        } else {
            cow_proc_path(asker, dirfd == AT_FDCWD ? "/cwd" : "/fd/", dirfd == AT_FDCWD ? -1 : dirfd, proc);
            length = SYS(SYS_readlinkat, AT_LOOK(asker, proc), w->real, sizeof w->real - 1);
        }
        if (length < 0)
            return length == -ENOENT ? -EBADF : length;
        w->real[length] = 0;
        if (w->real[0] != '/')
            return -ENOTDIR;
    }
    length = cow_view_of(asker->set, w->real, w->view);
    if (length == 1)
        w->view[length = 0] = 0;
    if (length >= 0)
        w->length = (size_t)length;
    return length < 0 ? length : 0;
}

long cow_step(struct cow_walk *w, unsigned parent_mask, uint64_t hash)
{
    struct cow_tree *tree = w->tree;
    struct stat st;
    w->kind = COW_ABSENT;
    w->layer = -1;
    w->mask = 0;
    w->whiteout = 0;
    w->parent_mask = parent_mask;
    for (int i = 0; i < tree->layers; i++) {
        if (!(parent_mask >> i & 1) || (i == 0 && (parent_mask & ~1u) && !cow_filter_has(tree, hash)))
            continue;
        long result = cow_layer_path(w, i, w->real);
        if (result < 0)
            return result;
        result = cow_lstat(w->asker, w->real, &st);
        if (result == -ENOENT || result == -ENOTDIR)
            continue;
        if (result < 0)
            return result;
        if (cow_is_whiteout(&st)) {
            w->whiteout = i == 0;
            break;
        }
        if (w->kind == COW_ABSENT) {
            w->kind = S_ISDIR(st.st_mode) ? COW_DIRECTORY : COW_OTHER;
            w->layer = i;
            w->stat = st;
        }
        if (!S_ISDIR(st.st_mode))
            break;
        w->mask |= 1u << i;
        if (parent_mask >> (i + 1) && cow_is_opaque(w->asker, w->real))
            break;
    }
    return 0;
}

/* Links of /proc whose text is no path: descriptors of pipes and of deleted files, namespaces. */
static int is_magic(const struct cow_walk *w)
{
    const size_t length = strlen(w->link);
    if (strncmp(w->view, "/proc/", 6) != 0)
        return 0;
    return (w->link[0] != '/' && strchr(w->link, ':')) ||
           (length > 10 && strcmp(w->link + length - 10, " (deleted)") == 0);
}

static long outside_step(struct cow_walk *w)
{
    const struct cow_asker *asker = w->asker;
    w->layer = -1;
    w->mask = w->parent_mask = 0;
    w->whiteout = 0;
    if (asker->pid && (strcmp(w->view, "/proc/self") == 0 || strcmp(w->view, "/proc/thread-self") == 0)) {
        w->kind = COW_OTHER;
        w->stat.st_mode = S_IFLNK | 0777;
        return 0;
    }
    long result = cow_lstat(asker, w->view, &w->stat);
    if (result == -ENOENT) {
        w->kind = COW_ABSENT;
        return 0;
    }
    w->kind = result < 0 ? COW_ABSENT : S_ISDIR(w->stat.st_mode) ? COW_DIRECTORY : COW_OTHER;
    return result;
}

long cow_read_link(struct cow_walk *w)
{
    const struct cow_asker *asker = w->asker;
    long length;
    if (!w->tree && asker->pid && strcmp(w->view, "/proc/self") == 0) {
        length = (long)cow_decimal(w->link, (uint64_t)asker->pid);
    } else if (!w->tree && asker->pid && strcmp(w->view, "/proc/thread-self") == 0) {
        length = (long)cow_decimal(w->link, (uint64_t)asker->pid);
        memcpy(w->link + length, "/task/", 6);
        length += 6 + (long)cow_decimal(w->link + length + 6, (uint64_t)asker->tid);
    } else {
        length = cow_found_path(w);
        if (length >= 0)
            length = SYS(SYS_readlinkat, AT_LOOK(asker, w->real), w->link, sizeof w->link - 1);
    }
    if (length == 0)
        return -ENOENT;
    if (length > 0)
        w->link[length] = 0;
    return length;
}

/* Puts text and a slash before what is left to walk. */
static long prepend(struct cow_walk *w, const char **left, const char *text, size_t length)
{
    const size_t rest = strlen(*left);
    if (length + rest + 2 > sizeof w->rest)
        return -ENAMETOOLONG;
    memmove(w->rest + length + 1, *left, rest + 1);
    memcpy(w->rest, text, length);
    w->rest[length] = '/';
    if (!rest)
        w->rest[length] = 0;
    *left = w->rest;
    return 0;
}

/* Stands at the canonical directory w->view; what is below a mount is walked again, for the layers that make it up. */
static long stand(struct cow_walk *w, const char **left, unsigned *mask, uint64_t *hash)
{
    w->tree = cow_tree_of(w->asker->set, w->view, w->length);
    *mask = 0;
    if (w->tree) {
        struct cow_fact fact;
        *hash = cow_hash(COW_HASH_START, w->view, w->length);
        if (w->asker->root == AT_FDCWD && cow_cache_find(w->asker->set, *hash, w->view, w->length, "", 0, &fact) &&
            fact.tree == w->tree) {
            *mask = fact.mask;
            return 0;
        }
        const size_t relative = w->length - w->tree->mount_length;
        memcpy(w->link, cow_relative(w), relative);
        w->length = w->tree->mount_length;
        w->view[w->length] = 0;
        *mask = w->tree->all;
        if (relative) {
            long result = prepend(w, left, w->link, relative);
            if (result < 0)
                return result;
        }
    }
    *hash = cow_hash(COW_HASH_START, w->view, w->length);
    return 0;
}

/* The path ended at the directory w->view itself. */
static long at_directory(struct cow_walk *w, unsigned mask)
{
    w->kind = COW_DIRECTORY;
    w->mask = mask;
    w->whiteout = 0;
    w->layer = w->tree ? __builtin_ctz(mask) : -1;
    w->name = w->length;
    while (w->name && w->view[w->name - 1] != '/')
        w->name--;
    w->parent_mask = 0;
    long result = cow_found_path(w);
    if (result >= 0)
        result = cow_lstat(w->asker, w->real, &w->stat);
    return result < 0 ? result : 0;
}

/* Whether it can be left to opening to tell what w->view's last component is. Then it is taken for a regular file. */
static int guess(struct cow_walk *w, unsigned mask, uint64_t directory, uint64_t own)
{
    const unsigned lowers = mask & ~1u;
    struct cow_tree *tree = w->tree;
    if (!tree || !lowers || (lowers & (lowers - 1)) || ((mask & 1) && cow_filter_has(tree, own)) ||
        __atomic_load_n(&tree->state->indexed, __ATOMIC_ACQUIRE))
        return 0;
    int quiet = cow_quiet_known(tree, directory);
    if (quiet < 0 && cow_join(&tree->layer[__builtin_ctz(lowers)], cow_relative(w), w->name - 1 - tree->mount_length, w->real) >= 0)
        quiet = cow_quiet_learn(w->asker, tree, directory, w->real[0] ? w->real : "/");
    if (quiet <= 0)
        return 0;
    w->kind = COW_OTHER;
    w->layer = __builtin_ctz(lowers);
    w->mask = 0;
    w->parent_mask = mask;
    w->whiteout = 0;
    w->stat = (struct stat){ .st_mode = S_IFREG };
    return w->guessed = 1;
}

/* One component. 0: go on; 1: the walk has ended; -errno. */
static long component(struct cow_walk *w, const char **left, unsigned *mask, uint64_t *hash, int flags)
{
    const char *name = *left;
    const size_t length = strcspn(name, "/");
    const char *after = name + length;
    const int slash = *after == '/', last = !after[strspn(after, "/")];
    if (length > NAME_MAX || w->length + length + 2 > PATH_MAX)
        return -ENAMETOOLONG;
    const uint32_t generation = cow_cache_generation(w->asker->set, w->tree);
    w->view[w->length] = '/';
    w->name = w->length + 1;
    memcpy(w->view + w->name, name, length);
    w->length = w->name + length;
    w->view[w->length] = 0;
    *left = after;
    const uint64_t own = cow_hash(cow_hash_byte(*hash, '/'), w->view + w->name, length);
    struct cow_tree *tree = cow_tree_of(w->asker->set, w->view, w->length);
    struct cow_fact fact;
    if (tree && tree->mount_length == w->length) {
        w->tree = tree;
        *mask = tree->all;
        *hash = own;
        if (w->asker->root == AT_FDCWD)
            cow_cache_put(w->asker->set, own, w->view, w->length, tree, tree->all, cow_cache_generation(w->asker->set, tree));
        return 0;
    }
    if (!last && w->asker->root == AT_FDCWD && cow_cache_find(w->asker->set, own, w->view, w->length, "", 0, &fact)) {
        w->tree = fact.tree;
        *mask = fact.mask;
        *hash = own;
        return 0;
    }
    if (last && !slash && (flags & WALK_GUESS) && guess(w, *mask, *hash, own))
        return 1;
    long result = w->tree ? cow_step(w, *mask, own) : outside_step(w);
    if (result < 0)
        return result;
    if (w->kind == COW_ABSENT) {
        w->directory_asked |= slash;
        return last ? 1 : -ENOENT;
    }
    if (S_ISLNK(w->stat.st_mode) && (!last || slash || !(flags & WALK_NOFOLLOW))) {
        if (++w->links > COW_LINKS_MAX || (flags & WALK_NO_LINKS))
            return -ELOOP;
        if ((result = cow_read_link(w)) < 0)
            return result;
        if (!w->tree && is_magic(w)) {
            w->magic = 1;
            return last ? 1 : -ENOTDIR;
        }
        if (!w->tree && w->link[0] == '/' && strncmp(w->view, "/proc/", 6) == 0) {
            /* A path as the kernel has it. */
            if ((result = cow_view_of(w->asker->set, w->link, w->real)) < 0)
                return result;
            memcpy(w->link, w->real, (size_t)result + 1);
        }
        if ((result = prepend(w, left, w->link, (size_t)result)) < 0)
            return result;
        w->length = w->name - 1;
        if (w->link[0] == '/')
            w->length = 0;
        w->view[w->length] = 0;
        return w->length || w->link[0] != '/' ? 0 : stand(w, left, mask, hash);
    }
    if (w->kind != COW_DIRECTORY)
        return last && !slash ? 1 : -ENOTDIR;
    *mask = w->mask;
    *hash = own;
    if (w->asker->root == AT_FDCWD)
        cow_cache_put(w->asker->set, own, w->view, w->length, w->tree, w->mask, generation);
    if (!last)
        return 0;
    w->directory_asked |= slash;
    return 1;
}

static long walk(struct cow_walk *w, const char *left, int flags)
{
    unsigned mask;
    uint64_t hash;
    long result = stand(w, &left, &mask, &hash);
    for (int steps = 0; result == 0 && steps < 2 * PATH_MAX; steps++) {
        left += strspn(left, "/");
        const size_t length = strcspn(left, "/");
        if (!length) {
            return at_directory(w, mask);
        }
        w->dotted = w->directory_asked = 0;
        if (length == 1 && left[0] == '.') {
            w->dotted = 1;
            w->directory_asked = 1;
            left += 1;
        } else if (length == 2 && left[0] == '.' && left[1] == '.') {
            w->dotted = 2;
            w->directory_asked = 1;
            left += 2;
            while (w->length && w->view[--w->length] != '/')
                ;
            w->view[w->length] = 0;
            result = stand(w, &left, &mask, &hash);
        } else {
            result = component(w, &left, &mask, &hash, flags);
        }
    }
    return result == 0 ? -ELOOP : result;
}

long cow_walk_path(struct cow_walk *w, int dirfd, const char *path, int flags)
{
    long result = 0;
    if (!path)
        return -EFAULT;
    const size_t length = strnlen(path, PATH_MAX);
    if (length == PATH_MAX)
        return -ENAMETOOLONG;
    if (!length && !(flags & WALK_EMPTY))
        return -ENOENT;
    w->tree = NULL;
    w->magic = w->directory_asked = w->dotted = w->links = w->whiteout = w->guessed = 0;
    w->length = 0;
    w->view[0] = 0;
    const char *left = path;
    if (path[0] != '/' && (result = base(w, dirfd)) < 0)
        return result;
    if (!length) {
        memcpy(w->rest, w->view, w->length + 1);
        left = w->rest;
        w->length = 0;
        w->view[0] = 0;
        flags |= WALK_NOFOLLOW;
    }
    result = walk(w, left, flags);
    if (result < 0)
        return result;
    if (w->kind == COW_OTHER && w->tree && w->layer > 0 && S_ISREG(w->stat.st_mode) && w->stat.st_nlink > 1 &&
        __atomic_load_n(&w->tree->state->indexed, __ATOMIC_ACQUIRE))
        return cow_follow_index(w);
    return 0;
}
