#define _GNU_SOURCE
#include "compose.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

struct tree {
    const char *mount, *upper, *work;
    const char *lowers[COW_LAYERS];
    int lower_count;
};

struct plan {
    struct tree trees[COW_TREES];
    int count;
    const char *log;
};

/* Where composed paths lie, and what has been written of the configuration. */
struct writer {
    char *out;
    size_t used;
    int full;
};

static const char *value_of(const char *record, const char *key)
{
    const size_t length = strlen(key);
    return strncmp(record, key, length) == 0 && record[length] == '=' ? record + length + 1 : NULL;
}

static long parse(struct plan *plan, const char *text, size_t size)
{
    if (size == 0 || text[size - 1])
        return -EINVAL;
    for (const char *record = text; record < text + size; record += strlen(record) + 1) {
        struct tree *tree = plan->count ? &plan->trees[plan->count - 1] : NULL;
        const char *value;
        if ((value = value_of(record, "log"))) {
            plan->log = value;
        } else if ((value = value_of(record, "tree"))) {
            if (plan->count == COW_TREES)
                return -E2BIG;
            plan->trees[plan->count++] = (struct tree){ .mount = value };
        } else if (tree && (value = value_of(record, "upper"))) {
            tree->upper = value;
        } else if (tree && (value = value_of(record, "work"))) {
            tree->work = value;
        } else if (tree && (value = value_of(record, "lower"))) {
            if (tree->lower_count == COW_LAYERS)
                return -E2BIG;
            tree->lowers[tree->lower_count++] = value;
        } else if (!value_of(record, "version") && !value_of(record, "net")) {
            return -EINVAL;
        }
    }
    return plan->count ? 0 : -EINVAL;
}

static int inside(const char *path, const char *directory)
{
    const size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static void put(struct writer *writer, const char *key, const char *first, const char *second)
{
    const size_t room = COW_CONFIG_SIZE - writer->used;
    const int length = snprintf(writer->out + writer->used, room, "%s=%s%s", key, first, second);
    if (length < 0 || (size_t)length >= room)
        writer->full = 1;
    else
        writer->used += (size_t)length + 1;
}

enum look { GOES_ON, ENDS, HIDES };

/* What of `relative` a layer has: a directory (and whether it hides what is below), or something that hides it all. */
static enum look look_at(const char *layer, const char *relative, int *has)
{
    char path[PATH_MAX], value;
    const size_t start = strlen(layer);
    struct stat info;
    enum look look = GOES_ON;
    *has = 0;
    if (snprintf(path, sizeof path, "%s%s", layer, relative) >= (int)sizeof path)
        return HIDES;
    /* Every directory on the way may hide what is below it. */
    for (size_t end = start;; end++) {
        if (path[end] && path[end] != '/')
            continue;
        const char kept = path[end];
        path[end] = 0;
        if (end > start || kept == 0) {
            if (lstat(path, &info) < 0)
                return look;
            if (!S_ISDIR(info.st_mode))
                return HIDES; /* a whiteout, or a file where the layers below have a directory */
            if (lgetxattr(path, "user.overlay.opaque", &value, 1) == 1 && value == 'y')
                look = ENDS;
        }
        path[end] = kept;
        if (kept == 0)
            break;
    }
    *has = 1;
    return look;
}

static const struct tree *tree_of(const struct plan *plan, const char *path)
{
    const struct tree *found = NULL;
    for (int i = 0; i < plan->count; i++)
        if (inside(path, plan->trees[i].mount) && (!found || strlen(plan->trees[i].mount) > strlen(found->mount)))
            found = &plan->trees[i];
    return found;
}

/* A lower that lies in an outer tree is all that makes it up there. Returns how many layers were written. */
static int put_lower(struct writer *writer, const struct plan *outer, const char *lower)
{
    const struct tree *tree = tree_of(outer, lower);
    const char *relative = tree ? lower + strlen(tree->mount) : "";
    int written = 0, has;
    if (!tree) {
        put(writer, "lower", lower, "");
        return 1;
    }
    for (int i = tree->upper ? -1 : 0; i < tree->lower_count; i++) {
        const char *layer = i < 0 ? tree->upper : tree->lowers[i];
        const enum look look = look_at(layer, relative, &has);
        if (has) {
            put(writer, "lower", layer, relative);
            written++;
        }
        if (look != GOES_ON)
            break;
    }
    return written;
}

/* Where a directory of the asker's really is. */
static long put_directory(struct writer *writer, const struct cow_asker *asker, const char *key, const char *path, char real[PATH_MAX])
{
    const long length = cow_real_path(asker, AT_FDCWD, path, COW_WRITE | COW_INSIDE, real);
    if (length == -EXDEV)
        snprintf(real, PATH_MAX, "%s", path);
    else if (length < 0)
        return length;
    put(writer, key, real, "");
    return 0;
}

static void put_outer(struct writer *writer, const struct tree *tree, char *work)
{
    put(writer, "tree", tree->mount, "");
    if (tree->upper) {
        put(writer, "upper", tree->upper, "");
        put(writer, "work", tree->work, "");
        snprintf(work, PATH_MAX, "%s", tree->work);
    }
    for (int i = 0; i < tree->lower_count; i++)
        put(writer, "lower", tree->lowers[i], "");
}

static long put_inner(struct writer *writer, const struct cow_asker *asker, const struct plan *outer, const struct tree *tree, char *work)
{
    char real[PATH_MAX];
    int layers = 0;
    put(writer, "tree", tree->mount, "");
    if (tree->upper && tree->work) {
        long error = put_directory(writer, asker, "upper", tree->upper, real);
        if (error == 0)
            error = put_directory(writer, asker, "work", tree->work, work);
        if (error < 0)
            return error;
    }
    for (int i = 0; i < tree->lower_count; i++)
        layers += put_lower(writer, outer, tree->lowers[i]);
    return layers > COW_LAYERS ? -E2BIG : layers == 0 ? -ENOENT : 0;
}

long compose(const struct cow_asker *asker, const char *outer_text, size_t outer_size, const char *inner_text, size_t inner_size, char *out, char *work)
{
    struct plan outer = { 0 }, inner = { 0 };
    struct writer writer = { .out = out };
    long error = parse(&outer, outer_text, outer_size);
    if (error == 0)
        error = parse(&inner, inner_text, inner_size);
    if (error < 0)
        return error;
    work[0] = 0;
    put(&writer, "version", "1", "");
    put(&writer, "net", "1", "");
    if (inner.log || outer.log)
        put(&writer, "log", inner.log ? inner.log : outer.log, "");
    for (int i = 0; i < outer.count; i++) {
        int replaced = 0;
        for (int j = 0; j < inner.count; j++) {
            replaced |= strcmp(outer.trees[i].mount, inner.trees[j].mount) == 0;
            if (inside(outer.trees[i].mount, inner.trees[j].mount) && !replaced)
                return -EXDEV; /* what is below the outer mount would stay the outer tree's, and be changed there */
        }
        if (!replaced)
            put_outer(&writer, &outer.trees[i], work);
    }
    for (int i = 0; i < inner.count && error == 0; i++)
        error = put_inner(&writer, asker, &outer, &inner.trees[i], work);
    return error < 0 ? error : writer.full ? -E2BIG : (long)writer.used;
}
