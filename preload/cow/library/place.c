/* Where the process is, and names resolved: chdir, getcwd, realpath, and the calls that hand a real path to the kernel. */
#define _GNU_SOURCE
#include <linux/magic.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>

#include "library.h"
#include "start.h"

/* A child of vfork has a cwd of its own in its parent's memory. */
static void moved(void)
{
    if ((pid_t)SYS(SYS_getpid) != pl_pid)
        cow_cwd_never();
    cow_cwd_changed();
}

/* Stands in w's directory. Above a net the kernel's cwd is the lower's directory where it can be: most relative paths then mean
   the right file as they are, and the net sees what does not come through here. Without one it is always the upper's, made if
   need be, so that libc's own inner calls (gmon.out) and the kernel's core files do not fall into the original. */
static long stand(struct cow_walk *w)
{
    const struct cow_tree *tree = w->tree;
    long result = 0;
    if (tree && tree->work && !ME->set->net)
        result = cow_copy_up(w, 0);
    if (result < 0 || (result = cow_found_path(w)) < 0)
        return result == -COW_AGAIN ? -ESTALE : result;
    const int lower = ME->set->net && tree && tree->has_lower_mount && w->layer == 0 && (w->mask & 2);
    if (lower && SYS(SYS_faccessat, AT_FDCWD, w->real, X_OK) == 0 && SYS(SYS_chdir, w->view) == 0)
        return 0;
    return SYS(SYS_chdir, w->real);
}

static long walk_to(struct cow_walk *w, int dirfd, const char *path)
{
    long result = cow_walk_path(w, dirfd, path, 0);
    if (result < 0)
        return result;
    if (w->magic)
        return SYS(SYS_chdir, w->view);
    if (w->kind != COW_DIRECTORY)
        return w->kind == COW_ABSENT ? -ENOENT : -ENOTDIR;
    return stand(w);
}

long pl_chdir(const char *path)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w)
        return -ENOMEM;
    const long result = walk_to(w, AT_FDCWD, path);
    moved();
    return result;
}

long pl_fchdir(int fd)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w)
        return -ENOMEM;
    long result = SYS(SYS_fchdir, fd);
    moved();
    if (result == 0 && !ME->set->net && cow_fd_is_lower(ME, fd, w->link) == 1)
        result = walk_to(w, fd, ".");
    moved();
    return result;
}

void pl_begin_place(void)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(&pl_self);
    if (w && !pl_self.set->net && cow_walk_path(w, AT_FDCWD, ".", 0) == 0 && w->tree)
        stand(w);
    cow_cwd_changed();
}

long pl_unshare(int flags)
{
    (void)ME;
    cow_cwd_never();
    return SYS(SYS_unshare, flags);
}

char *pl_getcwd(char *buffer, size_t size)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    long result = w ? SYS(SYS_getcwd, w->link, sizeof w->link) : -ENOMEM;
    if (result >= 0 && w->link[0] != '/')
        result = -ENOENT;
    if (result >= 0)
        result = cow_view_of(ME->set, w->link, w->rest);
    const size_t length = result < 0 ? 0 : (size_t)result;
    /* A directory of the lower stays where it is when it goes from the view. */
    if (result >= 0 && cow_tree_of(ME->set, w->rest, length)) {
        result = cow_real_path(ME, AT_FDCWD, w->rest, 0, w->real);
        if (result < 0)
            result = -ENOENT;
    }
    if (result >= 0 && buffer && !size)
        result = -EINVAL;
    if (result >= 0 && size && size < length + 1)
        result = -ERANGE;
    if (pl_result(result) < 0)
        return NULL;
    if (!buffer && !(buffer = malloc(size ? size : length + 1)))
        return NULL;
    return memcpy(buffer, w->rest, length + 1);
}

char *pl_realpath(const char *path, char *buffer)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    long result = w ? 0 : -ENOMEM;
    if (result == 0)
        result = path ? cow_walk_path(w, AT_FDCWD, path, 0) : -EINVAL;
    if (result == 0 && (w->kind == COW_ABSENT || w->magic))
        result = -ENOENT;
    if (pl_result(result) < 0)
        return NULL;
    if (!w->length)
        memcpy(w->view, "/", w->length = 2);
    return buffer ? memcpy(buffer, w->view, strlen(w->view) + 1) : strdup(w->view);
}

long pl_remove(const char *path)
{
    long result = cow_unlinkat(ME, AT_FDCWD, path, 0);
    return result == -EISDIR || result == -EPERM ? cow_unlinkat(ME, AT_FDCWD, path, AT_REMOVEDIR) : result;
}

/* Whether the kernel's cwd is a lower's directory, which stays where it is when its view is renamed; its view path then. */
static int in_lower(char *view)
{
    const struct cow_set *set = ME->set;
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w || SYS(SYS_getcwd, w->real, sizeof w->real) < 0)
        return 0;
    for (int i = 0; i < set->count; i++)
        for (int j = 1; j < set->tree[i].layers; j++) {
            const struct cow_layer *layer = &set->tree[i].layer[j];
            if (strncmp(w->real, layer->path, layer->length) == 0 &&
                (w->real[layer->length] == '/' || !w->real[layer->length]))
                return cow_view_of(set, w->real, view) > 0;
        }
    return 0;
}

long pl_renameat(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
    struct cow_walk *CLEANUP_WALK at = cow_walk_new(ME), *CLEANUP_WALK w = cow_walk_new(ME);
    if (!at || !w)
        return -ENOMEM;
    const int follow = in_lower(at->view) && !flags && cow_walk_path(w, from_dirfd, from, WALK_NOFOLLOW) == 0 &&
                       w->kind == COW_DIRECTORY && strncmp(at->view, w->view, w->length) == 0 &&
                       (at->view[w->length] == '/' || !at->view[w->length]);
    const size_t old = w->length;
    const int known = follow && cow_walk_path(w, to_dirfd, to, WALK_NOFOLLOW) == 0;
    long result = cow_renameat(ME, from_dirfd, from, to_dirfd, to, flags);
    if (result < 0 || !known)
        return result;
    /* This process goes with its directory. */
    const size_t rest = strlen(at->view + old);
    if (w->length + rest < PATH_MAX) {
        memcpy(w->view + w->length, at->view + old, rest + 1);
        memcpy(at->real, w->view, w->length + rest + 1);
        pl_chdir(at->real);
    }
    return result;
}

long pl_acct(const char *path)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w || !path)
        return w ? SYS(SYS_acct, NULL) : -ENOMEM;
    long result = cow_real_path(ME, AT_FDCWD, path, COW_WRITE, w->real);
    return result < 0 ? result : SYS(SYS_acct, w->real);
}

/* What is watched must be what will change: the copy. */
long pl_inotify(int fd, const char *path, uint32_t mask)
{
    const int reads_only = !(mask & ~(IN_ACCESS | IN_OPEN | IN_CLOSE_NOWRITE | IN_ONLYDIR | IN_DONT_FOLLOW | IN_ONESHOT));
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w)
        return -ENOMEM;
    const int flags = (mask & IN_DONT_FOLLOW ? COW_NOFOLLOW : 0) | (reads_only ? 0 : COW_WRITE);
    long result = cow_real_path(ME, AT_FDCWD, path, flags, w->real);
    if (result == -EROFS)
        result = cow_real_path(ME, AT_FDCWD, path, flags & ~COW_WRITE, w->real);
    return result < 0 ? result : SYS(SYS_inotify_add_watch, fd, w->real, mask);
}

long pl_fanotify(int fd, unsigned flags, uint64_t mask, int dirfd, const char *path)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w || !path)
        return w ? SYS(SYS_fanotify_mark, fd, flags, mask, dirfd, NULL) : -ENOMEM;
    long result = cow_real_path(ME, dirfd, path, COW_WRITE | (flags & FAN_MARK_DONT_FOLLOW ? COW_NOFOLLOW : 0), w->real);
    return result < 0 ? result : SYS(SYS_fanotify_mark, fd, flags, mask, AT_FDCWD, w->real);
}

long pl_mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data)
{
    long result = pl_outside("mount", AT_FDCWD, target);
    if (result == 0 && source && source[0] == '/')
        result = pl_outside("mount", AT_FDCWD, source);
    if (result < 0)
        return result;
    result = SYS(SYS_mount, source, target, type, flags, data);
    cow_bump_outside(ME->set);
    return result;
}

/* utmp functions open the file that they are told by a call inside libc. */
long pl_update_log(const char *call, const char *path, const void *entry)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w || cow_real_path(ME, AT_FDCWD, path, COW_WRITE, w->real) < 0)
        return 0; /* there is no such file, which libc does not tell either */
    ((void (*)(const char *, const void *))pl_next(call))(w->real, entry);
    return 0;
}

int pl_daemon(int stay, int keep)
{
    int result = NEXT(daemon)(stay, keep);
    moved();
    return result;
}

long pl_statvfs(const char *path, struct statvfs *st)
{
    struct statfs fs;
    long result = cow_statfs(ME, path, &fs);
    if (result < 0)
        return result;
    *st = (struct statvfs){
        .f_bsize = (unsigned long)fs.f_bsize,
        .f_frsize = (unsigned long)(fs.f_frsize ? fs.f_frsize : fs.f_bsize),
        .f_blocks = fs.f_blocks,
        .f_bfree = fs.f_bfree,
        .f_bavail = fs.f_bavail,
        .f_files = fs.f_files,
        .f_ffree = fs.f_ffree,
        .f_favail = fs.f_ffree,
        .f_fsid = (unsigned long)(unsigned)fs.f_fsid.__val[0] | (unsigned long)(unsigned)fs.f_fsid.__val[1] << 32,
        .f_flag = (unsigned long)fs.f_flags & ~0x20UL, /* without ST_VALID, as libc */
        .f_namemax = (unsigned long)fs.f_namelen,
    };
    return 0;
}

long pl_pathconf(const char *path, int name)
{
    char real[PATH_MAX];
    if (pl_result(cow_real_path(ME, AT_FDCWD, path, 0, real)) < 0)
        return -1;
    return NEXT(pathconf)(real, name);
}
