/* Covers: an overlay mounted over a directory that the container cannot change, on which
   everything looks as before, mounts below included.

   All is prepared in a scratch mount namespace and attached at once: no process of the
   container ever sees it half done. What is mounted below comes as clones; the originals stay
   under the cover, where those who are in them already go on.

   The root directory cannot be covered, as processes do not look their root up. There
   pivot_root(2) helps: it moves every process of the mount namespace whose root is the old one.
   The old root goes away then, so its mounts are moved, each over its clone. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/sys.h"
#include "mount_request.h"
#include "paths.h"

enum { BELOW_MAX = 200, TABLE_SIZE = 512 << 10 };

struct below {
    const char *path; /* relative to the covered directory */
    int original, clone;
};

struct cover {
    char path[MOUNT_PATH_SIZE]; /* of the covered directory, without a slash at the end: "" is the root */
    size_t length;
    struct below below[BELOW_MAX];
    int count;
};

PC_LAST char cover_table[TABLE_SIZE];

static int read_table(struct mounting *m)
{
    size_t length = 0;
    CLEANUP_FD int fd = openat(m->proc, "self/mountinfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return pc_fail(m->failure, "read", "the container's mountinfo");
    for (ssize_t got; (got = read(fd, cover_table + length, sizeof cover_table - 1 - length)) != 0; length += (size_t)got)
        if (got < 0)
            return pc_fail(m->failure, "read", "the container's mountinfo");
    if (length == sizeof cover_table - 1)
        return pc_fail_as(m->failure, "read", "the container's mountinfo", E2BIG, "it has too many mounts");
    cover_table[length] = 0;
    return 0;
}

/* The fifth word of a line of mountinfo is where it is mounted. */
static char *take_path(char **line)
{
    char *start = *line, *end = strchr(start, '\n'), *word = start;
    *line = end ? end + 1 : start + strlen(start);
    for (int i = 0; i < 4 && word; i++)
        word = (word = strchr(word, ' ')) ? word + 1 : NULL;
    if (!word)
        return NULL;
    word[strcspn(word, " \n")] = 0;
    path_unescape(word);
    return word;
}

static int is_under(const char *path, const char *directory, size_t length)
{
    return strncmp(path, directory, length) == 0 && path[length] == '/' && path[length + 1];
}

/* A mount below is taken along, with all that is below it, if it can be seen. */
static int add(struct mounting *m, struct cover *cover, const char *path)
{
    uint64_t mount;
    int is_root = 0;
    const char *relative = path + cover->length + 1;
    for (int i = 0; i < cover->count; i++) {
        const char *known = cover->below[i].path;
        if (strcmp(known, relative) == 0 || is_under(relative, known, strlen(known)))
            return 0;
    }
    int original = mount_open(m, path, O_NOFOLLOW);
    if (original < 0 || mount_identify(original, &mount, &is_root) < 0 || !is_root) {
        pc_cleanup_fd(&original);
        return 0;
    }
    if (cover->count == BELOW_MAX)
        return pc_fail_as(m->failure, "cover", cover->length ? cover->path : "/", E2BIG, "there are too many mounts below it");
    struct below *below = &cover->below[cover->count++];
    *below = (struct below){ relative, original, pc_open_tree(original, "", OPEN_TREE_CLONE | AT_RECURSIVE | AT_EMPTY_PATH) };
    return below->clone < 0 ? pc_fail(m->failure, "take along the mount on", path) : 0;
}

/* Parents come before their children, whatever order the table has. */
static int take_along(struct mounting *m, struct cover *cover)
{
    if (read_table(m) < 0)
        return -1;
    static char *paths[4096];
    int count = 0;
    for (char *line = cover_table; *line;) {
        char *path = take_path(&line);
        if (path && is_under(path, cover->path, cover->length) && count < 4096)
            paths[count++] = path;
    }
    for (int i = 0; i < count; i++) {
        int hidden = 0;
        for (int j = 0; j < count && !hidden; j++)
            hidden = is_under(paths[i], paths[j], strlen(paths[j]));
        if (!hidden && add(m, cover, paths[i]) < 0)
            return -1;
    }
    return 0;
}

static int open_below(int root, const char *path)
{
    return mount_openat2(root, path, O_PATH | O_NOFOLLOW, RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS);
}

/* In the scratch namespace: completes the overlay, and returns a clone of all of it. */
static int complete(struct mounting *m, const struct cover *cover, int overlay, const char *rest, int is_directory)
{
    if (mkdir("whole", 0755) < 0 || pc_move_mount(overlay, AT_FDCWD, "whole") < 0)
        return pc_fail(m->failure, "prepare the cover of", cover->path);
    for (int i = 0; i < cover->count; i++) {
        CLEANUP_FD int place = open_below(overlay, cover->below[i].path);
        if (place < 0 || mount_move(cover->below[i].clone, place) < 0)
            return pc_fail(m->failure, "take along the mount on", cover->below[i].path);
    }
    if (rest && mount_make_point(overlay, rest, is_directory) < 0)
        return pc_fail(m->failure, "make the mount point", m->request->target);
    if (rest && pc_mount_setattr(overlay, "", AT_EMPTY_PATH, MOUNT_ATTR_RDONLY, 0) < 0)
        return pc_fail(m->failure, "make read-only the cover of", cover->path);
    int tree = pc_open_tree(overlay, "", OPEN_TREE_CLONE | AT_RECURSIVE | AT_EMPTY_PATH);
    return tree < 0 ? pc_fail(m->failure, "clone the cover of", cover->path) : tree;
}

/* The tree becomes the root of every process of the container. */
static int replace_root(struct mounting *m, const struct cover *cover, int tree)
{
    const int old = m->root;
    if (mount_move(tree, old) < 0 || fchdir(tree) < 0 || pc_pivot_root(".", ".") < 0) {
        const int error = errno;
        mount_detach(m, tree);
        return pc_fail_as(m->failure, "replace", "the container's root", error,
            error == EPERM ? "pivot_root is forbidden here, as container engines do: choose a mount point below a directory of the container's own, such as /srv" : NULL);
    }
    m->root = tree;
    for (int i = 0; i < cover->count; i++) {
        CLEANUP_FD int place = open_below(tree, cover->below[i].path);
        if (place < 0 || mount_move(cover->below[i].original, place) < 0)
            return pc_fail(m->failure, "move into the new root", cover->below[i].path);
    }
    if (mount_detach(m, old) < 0)
        return pc_fail(m->failure, "unmount", "the container's old root");
    return tree;
}

static int is_same(int one, int other)
{
    struct stat a, b;
    uint64_t first, second;
    return fstat(one, &a) == 0 && fstat(other, &b) == 0 && a.st_ino == b.st_ino && mount_identify(one, &first, NULL) == 0
        && mount_identify(other, &second, NULL) == 0 && first == second;
}

static int read_place(struct mounting *m, struct cover *cover, int place)
{
    char path[32];
    snprintf(path, sizeof path, "self/fd/%d", place);
    ssize_t length = readlinkat(m->proc, path, cover->path, sizeof cover->path - 1);
    if (length < 0)
        return pc_fail(m->failure, "find the path of", m->request->target);
    cover->path[length] = 0;
    cover->length = length == 1 ? 0 : (size_t)length;
    return 0;
}

int mount_cover(struct mounting *m, int place, int lower, const char *rest, int is_directory, int *upper)
{
    static struct cover cover;
    const int root = is_same(place, m->root);
    cover.count = 0;
    if (read_place(m, &cover, place) < 0)
        return -1;
    if (lower < 0) {
        if (take_along(m, &cover) < 0)
            return -1;
        lower = pc_open_tree(place, "", OPEN_TREE_CLONE | AT_EMPTY_PATH);
        if (lower < 0)
            return pc_fail_as(m->failure, "cover", cover.path, errno, errno == EINVAL ? "the machine has mounts below it, which cannot be left out in a user namespace" : NULL);
    }
    CLEANUP_FD int overlay = mount_make_overlay(m, lower, upper);
    if (overlay < 0)
        return -1;
    int tree = complete(m, &cover, overlay, rest, is_directory);
    if (tree < 0)
        return -1;
    const int before = m->root;
    if (mount_enter(m) < 0)
        return -1;
    close(m->root);
    m->root = before;
    if (root)
        return replace_root(m, &cover, tree);
    return mount_move(tree, place) < 0 ? pc_fail(m->failure, "cover", cover.path) : tree;
}
