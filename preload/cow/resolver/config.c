/* The configuration file: which trees there are. */
#define _GNU_SOURCE
#include <linux/stat.h>
#include <sys/mman.h>

#include "internal.h"

static const char *const UNREADABLE = "cannot read the configuration file";
static const char *const ANOTHER_USER = "the tree's changes are not this user's to reach (tree.run(..., user=) gives them to one user; backend='overlay' has them all)";

static int canonical(const char *path)
{
    const size_t length = strlen(path);
    if (length < 2 || length >= PATH_MAX - 64 || path[0] != '/' || path[length - 1] == '/')
        return 0;
    for (const char *p = path; (p = strchr(p, '/')); p++) {
        if (p[1] == '/' || (p[1] == '.' && (p[2] == '/' || !p[2] || (p[2] == '.' && (p[3] == '/' || !p[3])))))
            return 0;
    }
    return 1;
}

/* The value if the record is of this key, else NULL. */
static const char *value_of(const char *record, const char *key)
{
    const size_t length = strlen(key);
    return strncmp(record, key, length) == 0 && record[length] == '=' ? record + length + 1 : NULL;
}

static int inside(const char *path, const char *directory)
{
    const size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && (path[length] == '/' || !path[length]);
}

static const char *add_layer(struct cow_tree *tree, int at, const char *path)
{
    struct stat st;
    if (!canonical(path))
        return "a layer's path is not absolute and canonical";
    if (at > COW_LAYERS)
        return "a tree has more than eight lowers";
    if (SYS(SYS_newfstatat, AT_FDCWD, path, &st, 0) < 0 || !S_ISDIR(st.st_mode))
        return "a layer is not a directory that can be seen";
    tree->layer[at] = (struct cow_layer){ path, strlen(path), st.st_dev };
    tree->all |= 1u << at;
    if (at >= tree->layers)
        tree->layers = at + 1;
    return NULL;
}

static const char *take(struct cow_set *set, const char *record)
{
    const char *value;
    struct cow_tree *tree = set->count ? &set->tree[set->count - 1] : NULL;
    if ((value = value_of(record, "version")))
        return strcmp(value, "1") == 0 ? NULL : "the configuration is of another version";
    if ((value = value_of(record, "net"))) {
        set->net = strcmp(value, "1") == 0;
        return NULL;
    }
    if ((value = value_of(record, "log"))) {
        set->log = value;
        return NULL;
    }
    if ((value = value_of(record, "tree"))) {
        if (set->count == COW_TREES)
            return "there are more than 16 trees";
        if (!canonical(value))
            return "a mount's path is not absolute and canonical";
        tree = &set->tree[set->count++];
        tree->mount = value;
        tree->mount_length = strlen(value);
        tree->mount_hash = cow_hash(COW_HASH_START, value, tree->mount_length);
        tree->layers = 1;
        return NULL;
    }
    if (!tree)
        return "a record stands before the first tree";
    if ((value = value_of(record, "upper")))
        return add_layer(tree, 0, value);
    if ((value = value_of(record, "lower")))
        return add_layer(tree, tree->layers, value);
    if ((value = value_of(record, "work"))) {
        tree->work = value;
        tree->work_length = strlen(value);
        return canonical(value) ? NULL : "a work directory's path is not absolute and canonical";
    }
    return "a record's key is unknown";
}

static const char *check(struct cow_set *set)
{
    for (int i = 0; i < set->count; i++) {
        struct cow_tree *tree = &set->tree[i];
        const int last = tree->layers - 1;
        if (last < 1)
            return "a tree has no lower";
        if ((tree->all & 1) != (tree->work != NULL))
            return "upper and work belong together";
        struct stat st;
        const uid_t uid = (uid_t)SYS(SYS_geteuid);
        tree->others = uid != 0 && SYS(SYS_newfstatat, AT_FDCWD, tree->layer[last].path, &st, 0) == 0 && st.st_uid != uid;
        tree->has_lower_mount = strcmp(tree->layer[last].path, tree->mount) == 0 && last == 1;
        for (int j = 0; j < set->count && tree->work; j++) {
            const struct cow_tree *other = &set->tree[j];
            if (inside(tree->layer[0].path, other->mount) || inside(tree->work, other->mount))
                return "an upper or work lies inside a mount: writes to it would be seen as the tree's own";
            for (int k = 1; k < other->layers; k++)
                if (inside(tree->layer[0].path, other->layer[k].path) || inside(tree->work, other->layer[k].path))
                    return "an upper or work lies inside a lower";
        }
        if (tree->work && (inside(tree->work, tree->layer[0].path) || inside(tree->layer[0].path, tree->work)))
            return "upper and work lie inside each other";
    }
    return set->count ? NULL : "the configuration names no tree";
}

static long read_all(const char *path, char *buffer)
{
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    long used = 0;
    for (long got; used < COW_CONFIG_SIZE; used += got) {
        got = SYS(SYS_read, fd, buffer + used, COW_CONFIG_SIZE - used);
        if (got <= 0)
            return got < 0 ? got : used;
    }
    return -EFBIG;
}

long cow_load(struct cow_set *set, const char *path, const char **error)
{
    const size_t size = COW_CONFIG_SIZE + COW_TREES * sizeof *set->tree;
    long memory = cow_mmap(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    *error = UNREADABLE;
    if (memory < 0 && memory > -4096)
        return memory;
    *set = (struct cow_set){ .memory = (void *)memory };
    set->tree = (struct cow_tree *)memory;
    char *text = (char *)(set->tree + COW_TREES);
    long length = read_all(path, text);
    if (length == -EACCES)
        *error = ANOTHER_USER;
    if (length < 0)
        return length;
    *error = "the last record is not ended by a NUL byte";
    if (length == 0 || text[length - 1])
        return -EINVAL;
    *error = value_of(text, "version") ? NULL : "the first record is not version=1";
    for (const char *record = text; !*error && record < text + length; record += strlen(record) + 1)
        *error = take(set, record);
    if (!*error)
        *error = check(set);
    if (*error)
        return -EINVAL;
    const struct cow_asker self = { set, AT_FDCWD, 0, 0, NULL };
    for (int i = 0; i < set->count; i++) {
        long result = cow_state_open(&self, &set->tree[i], error);
        if (result == -EACCES)
            *error = ANOTHER_USER;
        if (result < 0)
            return result;
    }
    return 0;
}

void cow_unload(struct cow_set *set)
{
    for (int i = 0; i < set->count; i++)
        if (set->tree[i].state)
            SYS(SYS_munmap, set->tree[i].state, sizeof *set->tree[i].state);
    if (set->memory)
        SYS(SYS_munmap, set->memory, COW_CONFIG_SIZE + COW_TREES * sizeof *set->tree);
    *set = (struct cow_set){ 0 };
}
