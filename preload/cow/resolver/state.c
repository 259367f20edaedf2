/* What all processes of a tree share: work/state, work/lock, temporary names. */
#define _GNU_SOURCE
#include <linux/stat.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>

#include "internal.h"

static const char MAGIC[8] = "pccow 1\n";

/* Two bits of one word, so that a lookup waits for memory once. */
static uint64_t filter_bits(uint64_t hash, unsigned *word)
{
    const uint64_t mixed = hash * 0x9e3779b97f4a7c15ULL;
    *word = (unsigned)(mixed >> 48) & (COW_FILTER_WORDS - 1);
    return 1ULL << (mixed >> 42 & 63) | 1ULL << (mixed >> 36 & 63);
}

int cow_filter_has(const struct cow_tree *tree, uint64_t hash)
{
    unsigned word;
    const uint64_t bits = filter_bits(hash, &word);
    if (__atomic_load_n(&tree->state->filter_off, __ATOMIC_ACQUIRE))
        return 1;
    return (__atomic_load_n(&tree->state->filter[word], __ATOMIC_ACQUIRE) & bits) == bits;
}

void cow_filter_add(struct cow_tree *tree, uint64_t hash)
{
    unsigned word;
    const uint64_t bits = filter_bits(hash, &word);
    __atomic_or_fetch(&tree->state->filter[word], bits, __ATOMIC_SEQ_CST);
}

void cow_bump_outside(const struct cow_set *set)
{
    for (int i = 0; i < set->count; i++)
        __atomic_add_fetch(&set->tree[i].state->outside, 1, __ATOMIC_SEQ_CST);
}

/* Numbers that were given one after another lie side by side, so few pages are touched. */
static unsigned inode_slot(uint64_t dev, uint64_t ino)
{
    return (unsigned)(ino ^ dev << 7) & (COW_INODES - 1);
}

static void inode_add(struct cow_state *state, uint32_t kind, const struct cow_inode *fresh)
{
    const unsigned first = inode_slot(fresh->dev, fresh->ino);
    for (unsigned i = 0; i < COW_PROBES; i++) {
        struct cow_inode *slot = &state->inode[(first + i) & (COW_INODES - 1)];
        uint32_t unused = 0;
        if (!__atomic_compare_exchange_n(&slot->used, &unused, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            continue;
        slot->names = fresh->names;
        slot->dev = fresh->dev;
        slot->ino = fresh->ino;
        slot->born = fresh->born;
        slot->as_dev = fresh->as_dev;
        slot->as_ino = fresh->as_ino;
        __atomic_store_n(&slot->used, kind, __ATOMIC_SEQ_CST);
        __atomic_add_fetch(&state->inodes, 1, __ATOMIC_SEQ_CST);
        return;
    }
}

static struct cow_inode *inode_find(struct cow_state *state, uint32_t kind, uint64_t dev, uint64_t ino, unsigned *probe)
{
    const unsigned first = inode_slot(dev, ino);
    for (; *probe < COW_PROBES; (*probe)++) {
        struct cow_inode *slot = &state->inode[(first + *probe) & (COW_INODES - 1)];
        const uint32_t used = __atomic_load_n(&slot->used, __ATOMIC_ACQUIRE);
        if (!used)
            return NULL;
        if (used == kind && slot->dev == dev && slot->ino == ino)
            return slot;
    }
    return NULL;
}

static uint64_t born_of(const struct cow_asker *asker, const char *real, int fd)
{
    struct statx stx;
    const unsigned flags = AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC;
    long result = real ? SYS(SYS_statx, AT_LOOK(asker, real), flags, STATX_BTIME, &stx)
                       : SYS(SYS_statx, fd, "", flags | AT_EMPTY_PATH, STATX_BTIME, &stx);
    if (result < 0 || !(stx.stx_mask & STATX_BTIME))
        return 0;
    return (uint64_t)stx.stx_btime.tv_sec * 1000000000u + stx.stx_btime.tv_nsec;
}

void cow_origin_born(struct cow_tree *tree, const struct stat *made, const struct stat *origin, uint64_t born)
{
    struct cow_inode fresh = { .dev = made->st_dev, .ino = made->st_ino, .as_dev = origin->st_dev, .as_ino = origin->st_ino,
                               .born = born };
    inode_add(tree->state, 2, &fresh);
}

void cow_origin_add(const struct cow_asker *asker, struct cow_tree *tree, const char *real, const struct stat *made,
                    const struct stat *origin, int32_t names)
{
    struct cow_inode fresh = { .names = names, .dev = made->st_dev, .ino = made->st_ino, .as_dev = origin->st_dev,
                               .as_ino = origin->st_ino, .born = born_of(asker, real, -1) };
    inode_add(tree->state, 2, &fresh);
}

uint64_t cow_origin_number(struct cow_tree *tree, int directory, const char *name, uint64_t ino)
{
    unsigned probe = 0;
    const struct cow_asker here = { NULL, directory, 0, 0, NULL };
    const uint64_t dev = tree->layer[0].dev;
    const struct cow_inode *found;
    for (; (found = inode_find(tree->state, 2, dev, ino, &probe)); probe++)
        if (found->born == born_of(&here, name, -1))
            return found->as_ino;
    return ino;
}

void cow_origin_names(struct cow_tree *tree, const struct stat *made, int32_t names)
{
    unsigned probe = 0;
    struct cow_inode *found = inode_find(tree->state, 2, made->st_dev, made->st_ino, &probe), *last = NULL;
    for (; found; probe++, found = inode_find(tree->state, 2, made->st_dev, made->st_ino, &probe))
        last = found; /* the youngest: earlier ones are of inodes that are gone */
    if (last)
        __atomic_add_fetch(&last->names, names, __ATOMIC_SEQ_CST);
}

void cow_names_add(struct cow_tree *tree, const struct stat *lower, int32_t names)
{
    unsigned probe = 0;
    struct cow_inode *found = inode_find(tree->state, 3, lower->st_dev, lower->st_ino, &probe);
    if (found) {
        __atomic_add_fetch(&found->names, names, __ATOMIC_SEQ_CST);
        return;
    }
    struct cow_inode fresh = { .names = names, .dev = lower->st_dev, .ino = lower->st_ino };
    inode_add(tree->state, 3, &fresh);
    __atomic_store_n(&tree->state->renamed, 1, __ATOMIC_SEQ_CST);
}

void cow_identity(const struct cow_asker *asker, struct cow_tree *tree, const char *real, int fd, struct stat *st)
{
    struct cow_state *state = tree->state;
    if (!__atomic_load_n(&state->inodes, __ATOMIC_ACQUIRE))
        return;
    unsigned probe = 0;
    struct cow_inode *found;
    if (st->st_dev == tree->layer[0].dev) {
        for (; (found = inode_find(state, 2, st->st_dev, st->st_ino, &probe)); probe++) {
            if (found->born != born_of(asker, real, fd))
                continue;
            st->st_dev = found->as_dev;
            st->st_ino = found->as_ino;
            st->st_nlink += (unsigned long)(long)found->names;
            if (S_ISDIR(st->st_mode))
                st->st_nlink = 1; /* not known, as overlayfs says it */
            break;
        }
    }
    if (!__atomic_load_n(&state->renamed, __ATOMIC_ACQUIRE) || S_ISDIR(st->st_mode))
        return;
    probe = 0;
    found = inode_find(state, 3, st->st_dev, st->st_ino, &probe);
    if (found)
        st->st_nlink += (unsigned long)(long)__atomic_load_n(&found->names, __ATOMIC_ACQUIRE);
}

size_t cow_decimal(char *out, uint64_t value)
{
    char digits[20];
    size_t count = 0;
    do {
        digits[count++] = (char)('0' + value % 10);
    } while (value /= 10);
    for (size_t i = 0; i < count; i++)
        out[i] = digits[count - 1 - i];
    out[count] = 0;
    return count;
}

static long work_path(const struct cow_tree *tree, const char *name, char *out)
{
    const size_t length = strlen(name);
    if (tree->work_length + length + 60 > PATH_MAX)
        return -ENAMETOOLONG;
    memcpy(out, tree->work, tree->work_length);
    memcpy(out + tree->work_length, name, length + 1);
    return (long)(tree->work_length + length);
}

long cow_temporary(struct cow_tree *tree, char *out)
{
    long length = work_path(tree, "/tmp/", out);
    if (length < 0)
        return length;
    return length + (long)cow_decimal(out + length, __atomic_add_fetch(&tree->state->serial, 1, __ATOMIC_SEQ_CST));
}

static size_t hexadecimal(char *out, uint64_t value)
{
    for (int i = 0; i < 16; i++)
        out[i] = "0123456789abcdef"[value >> (60 - 4 * i) & 15];
    return 16;
}

long cow_index_path(const struct cow_tree *tree, const struct stat *lower, char *out)
{
    long length = work_path(tree, "/index/", out);
    if (length < 0)
        return length;
    length += (long)hexadecimal(out + length, lower->st_dev);
    out[length++] = '-';
    length += (long)hexadecimal(out + length, lower->st_ino);
    out[length] = 0;
    return length;
}

long cow_lock(const struct cow_asker *asker, const struct cow_tree *tree, struct cow_hold *hold)
{
    char path[PATH_MAX];
    const uint64_t all = ~0ULL;
    hold->fd = -1;
    long result = work_path(tree, "/lock", path);
    if (result < 0)
        return result;
    SYS(SYS_rt_sigprocmask, SIG_SETMASK, &all, &hold->mask, 8);
    hold->fd = (int)SYS(SYS_openat, AT_PATH(asker, path), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    result = hold->fd;
    if (hold->fd >= 0 && !tree->state->magic[0])
        SYS(SYS_fchmod, hold->fd, 0666);
    if (hold->fd >= 0)
        result = SYS(SYS_flock, hold->fd, LOCK_EX);
    if (result < 0) {
        if (hold->fd >= 0)
            SYS(SYS_close, hold->fd);
        hold->fd = -1;
        SYS(SYS_rt_sigprocmask, SIG_SETMASK, &hold->mask, NULL, 8);
        return result;
    }
    return 0;
}

void cow_unlock(struct cow_hold *hold)
{
    if (hold->fd < 0)
        return;
    SYS(SYS_flock, hold->fd, LOCK_UN); /* also for the child of a fork, which holds it too */
    SYS(SYS_close, hold->fd);
    hold->fd = -1;
    SYS(SYS_rt_sigprocmask, SIG_SETMASK, &hold->mask, NULL, 8);
}

void cow_refused(const struct cow_set *set, const char *call, const char *path, const char *reason)
{
    char line[PATH_MAX + 256];
    const char *const parts[] = { call, " ", path, ": ", reason, "\n" };
    size_t used = 0;
    if (!set->log)
        return;
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_FDCWD, set->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        const size_t length = strnlen(parts[i], sizeof line - used);
        memcpy(line + used, parts[i], length);
        used += length;
    }
    if (fd >= 0)
        SYS(SYS_write, fd, line, used);
}

/* Adds all that is in an upper that somebody else has written. 0, or -errno: then the filter is not used. */
static long filter_fill(struct cow_tree *tree, char *path, size_t length, uint64_t hash, int depth)
{
    struct entry { uint64_t ino, off; uint16_t size; uint8_t type; char name[]; };
    _Alignas(8) char buffer[2048];
    if (depth > 100)
        return -EOVERFLOW;
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    for (long got; (got = SYS(SYS_getdents64, fd, buffer, sizeof buffer)) != 0;) {
        if (got < 0)
            return got;
        for (long at = 0; at < got;) {
            const struct entry *entry = (const struct entry *)(buffer + at);
            const size_t size = strlen(entry->name);
            at += entry->size;
            if (entry->name[0] == '.' && (!entry->name[1] || (entry->name[1] == '.' && !entry->name[2])))
                continue;
            const uint64_t own = cow_hash(cow_hash_byte(hash, '/'), entry->name, size);
            cow_filter_add(tree, own);
            if (entry->type == 2 /* a device */ || entry->type == 0)
                tree->state->foreign = 1;
            if (entry->type != 4 && entry->type != 0)
                continue;
            if (length + size + 2 > PATH_MAX)
                return -ENAMETOOLONG;
            path[length] = '/';
            memcpy(path + length + 1, entry->name, size + 1);
            long result = filter_fill(tree, path, length + 1 + size, own, depth + 1);
            /* Those of what is no directory, or was there a moment ago: its new name is in the filter, or below an opaque directory. */
            if (result < 0 && result != -ENOTDIR && result != -ELOOP && result != -ENOENT)
                return result;
        }
    }
    return 0;
}

/* Nobody uses the filter from now on: it cannot hold all names, or there is a view of this upper at another mount, whose names have
   other hashes. */
static void filter_never(struct cow_state *state)
{
    __atomic_store_n(&state->unfilled, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&state->filter_off, 1, __ATOMIC_SEQ_CST);
}

static long fill(const struct cow_asker *asker, struct cow_tree *tree)
{
    char path[PATH_MAX];
    struct stat upper, lower;
    static const char *const names[] = { "/tmp", "/index" };
    for (size_t i = 0; i < 2; i++) {
        work_path(tree, names[i], path);
        long made = SYS(SYS_mkdirat, AT_FDCWD, path, 0777);
        if (made < 0 && made != -EEXIST)
            return made;
        SYS(SYS_fchmodat, AT_FDCWD, path, 0777); /* a program may go on as another user */
    }
    /* st_nlink of a directory counts its subdirectories on most file systems only; so list it. */
    COW_CLEANUP_FD int index = (int)SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    _Alignas(8) char entries[256];
    if (index >= 0 && SYS(SYS_getdents64, index, entries, sizeof entries) > 48)
        tree->state->indexed = 1;
    memcpy(path, tree->layer[0].path, tree->layer[0].length + 1);
    tree->state->foreign = 0;
    if (filter_fill(tree, path, tree->layer[0].length, tree->mount_hash, 0) < 0)
        filter_never(tree->state);
    if (cow_lstat(asker, tree->layer[0].path, &upper) < 0 || cow_lstat(asker, tree->layer[1].path, &lower) < 0)
        return -ENOENT;
    /* The view's root is the lower's in all that can be set; a mere user cannot give it to another owner. */
    long result = cow_copy_attributes(asker, tree->layer[1].path, &lower, tree->layer[0].path);
    cow_origin_add(asker, tree, tree->layer[0].path, &upper, &lower, 0);
    tree->state->mount = tree->mount_hash;
    return result;
}

/* Somebody else has changed upper. The filter is never made empty, so it goes on being right for who uses it; it is used again when
   it has all that is in upper now, if nobody has said meanwhile that he has changed upper: then filter_off is another number. */
static void filter_again(const struct cow_asker *asker, struct cow_tree *tree)
{
    struct cow_state *state = tree->state;
    char path[PATH_MAX];
    COW_HOLD struct cow_hold hold;
    if (cow_lock(asker, tree, &hold) < 0)
        return; /* without a filter upper is asked each time */
    uint32_t off = __atomic_load_n(&state->filter_off, __ATOMIC_SEQ_CST);
    if (!off || state->unfilled)
        return;
    memcpy(path, tree->layer[0].path, tree->layer[0].length + 1);
    if (filter_fill(tree, path, tree->layer[0].length, tree->mount_hash, 0) < 0)
        filter_never(state);
    else
        __atomic_compare_exchange_n(&state->filter_off, &off, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    if (state->unfilled)
        filter_never(state);
}

long cow_state_open(const struct cow_asker *asker, struct cow_tree *tree, const char **error)
{
    char path[PATH_MAX];
    *error = "cannot map the state in the work directory";
    const size_t size = sizeof *tree->state;
    if (!tree->work) {
        long memory = cow_mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1);
        tree->state = memory < 0 && memory > -4096 ? NULL : (struct cow_state *)memory;
        return tree->state ? 0 : memory;
    }
    long result = work_path(tree, "/state", path);
    if (result < 0)
        return result;
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_FDCWD, path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0666);
    struct stat st;
    if (fd < 0 || (result = SYS(SYS_fstat, fd, &st)) < 0)
        return fd < 0 ? fd : result;
    if (st.st_size != (off_t)size && (result = SYS(SYS_ftruncate, fd, size)) < 0)
        return result;
    if ((st.st_mode & 0666) != 0666)
        SYS(SYS_fchmod, fd, 0666); /* a program may go on as another user */
    long memory = cow_mmap(size, PROT_READ | PROT_WRITE, MAP_SHARED, fd);
    if (memory < 0 && memory > -4096)
        return memory;
    tree->state = (struct cow_state *)memory;
    if (memcmp(tree->state->magic, MAGIC, sizeof MAGIC) == 0) {
        if (tree->state->mount != tree->mount_hash)
            filter_never(tree->state);
        else if (tree->state->filter_off && !tree->state->unfilled)
            filter_again(asker, tree);
        return 0;
    }
    COW_HOLD struct cow_hold hold;
    *error = "cannot prepare upper and work";
    if ((result = cow_lock(asker, tree, &hold)) < 0)
        return result;
    if (memcmp(tree->state->magic, MAGIC, sizeof MAGIC) != 0) {
        if ((result = fill(asker, tree)) < 0)
            return result;
        memcpy(tree->state->magic, MAGIC, sizeof MAGIC);
    }
    return 0;
}
