/* Directory streams. Where a directory lies in one lower alone, the stream is libc's; else it is one of ours, which
   begins with a number that no libc stream begins with (theirs is the descriptor). Above a net all streams of the trees'
   directories are ours: libc's own fstat and getdents64 would each go through the supervisor. */
#define _GNU_SOURCE
#include "library.h"

enum { OURS = -0x70636f77 };

struct stream {
    int32_t ours;
    int fd;
    size_t at;
    struct cow_listing listing;
};

static inline struct stream *mine(DIR *dir)
{
    return *(const int32_t *)dir == OURS ? (struct stream *)dir : NULL;
}

static struct stream *new_stream(int fd)
{
    struct stream *stream = malloc(sizeof *stream);
    if (stream)
        *stream = (struct stream){ .ours = OURS, .fd = fd };
    return stream;
}

static DIR *failed(long result, long fd)
{
    if (fd >= 0)
        SYS(SYS_close, fd);
    pl_result(result);
    return NULL;
}

static int is_ours(const struct cow_walk *w)
{
    return w->tree && ((w->mask & 1) || (w->mask & (w->mask - 1)) || ME->set->net);
}

DIR *pl_opendir(int dirfd, const char *path)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    if (!w)
        return failed(-ENOMEM, -1);
    long result = cow_walk_path(w, dirfd, path, 0);
    if (result == 0 && w->kind == COW_ABSENT && !w->magic)
        result = -ENOENT;
    if (result == 0 && !w->magic)
        result = w->kind == COW_DIRECTORY ? cow_found_path(w) : -ENOTDIR;
    if (result < 0)
        return failed(result, -1);
    long fd = SYS(SYS_openat, AT_FDCWD, w->magic ? w->view : w->real, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0)
        return failed(fd, -1);
    if (w->magic || !is_ours(w)) {
        DIR *dir = NEXT(fdopendir)((int)fd);
        return dir ? dir : failed(-errno, fd);
    }
    struct stream *stream = new_stream((int)fd);
    if (!stream)
        return failed(-ENOMEM, fd);
    if ((result = cow_list_walk(w, &stream->listing)) < 0) {
        free(stream);
        return failed(result, fd);
    }
    return (DIR *)stream;
}

DIR *pl_fdopendir(int fd)
{
    if (!ME->set->net && cow_is_merged(ME, fd) <= 0)
        return NEXT(fdopendir)(fd);
    struct stream *stream = new_stream(fd);
    long result = stream ? cow_list(ME, fd, "", &stream->listing) : -ENOMEM;
    if (result < 0) {
        free(stream);
        /* Outside of the trees, or not a directory: libc knows what to say. */
        return result == -ENOTDIR ? NEXT(fdopendir)(fd) : failed(result, -1);
    }
    const off_t at = SYS(SYS_lseek, fd, 0, SEEK_CUR);
    stream->at = at > 0 && (size_t)at <= stream->listing.size ? (size_t)at : 0;
    SYS(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
    return (DIR *)stream;
}

static struct dirent *next_entry(struct stream *stream)
{
    if (stream->at >= stream->listing.size)
        return NULL;
    struct dirent *entry = (struct dirent *)(stream->listing.data + stream->at);
    stream->at = (size_t)entry->d_off;
    return entry;
}

struct dirent *pl_readdir(DIR *dir)
{
    static struct dirent *(*real)(DIR *);
    struct stream *stream = mine(dir);
    if (__builtin_expect(stream != NULL, 0))
        return next_entry(stream);
    if (__builtin_expect(!real, 0))
        real = (struct dirent * (*)(DIR *)) pl_next("readdir");
    return real(dir);
}

int pl_readdir_r(DIR *dir, struct dirent *entry, struct dirent **result)
{
    struct stream *stream = mine(dir);
    if (!stream)
        return ((int (*)(DIR *, struct dirent *, struct dirent **))pl_next("readdir_r"))(dir, entry, result);
    const struct dirent *found = next_entry(stream);
    if (found)
        memcpy(entry, found, found->d_reclen);
    *result = found ? entry : NULL;
    return 0;
}

void pl_rewinddir(DIR *dir)
{
    struct stream *stream = mine(dir);
    struct cow_listing fresh;
    if (!stream) {
        NEXT(rewinddir)(dir);
        return;
    }
    if (cow_list(ME, stream->fd, "", &fresh) == 0) {
        cow_list_free(&stream->listing);
        stream->listing = fresh;
    }
    stream->at = 0;
}

void pl_seekdir(DIR *dir, long position)
{
    struct stream *stream = mine(dir);
    if (!stream)
        NEXT(seekdir)(dir, position);
    else if (position >= 0 && (size_t)position <= stream->listing.size)
        stream->at = (size_t)position;
}

long pl_telldir(DIR *dir)
{
    const struct stream *stream = mine(dir);
    return stream ? (long)stream->at : NEXT(telldir)(dir);
}

int pl_closedir(DIR *dir)
{
    struct stream *stream;
    if (!dir || !(stream = mine(dir)))
        return NEXT(closedir)(dir);
    long result = SYS(SYS_close, stream->fd);
    cow_list_free(&stream->listing);
    stream->ours = 0;
    free(stream);
    return (int)pl_result(result);
}

int pl_dirfd(DIR *dir)
{
    const struct stream *stream = mine(dir);
    return stream ? stream->fd : NEXT(dirfd)(dir);
}

static void forget(struct dirent **list, size_t count)
{
    while (count)
        free(list[--count]);
    free(list);
}

int pl_scandirat(int dirfd, const char *path, struct dirent ***list, int (*filter)(const struct dirent *),
                 int (*compare)(const struct dirent **, const struct dirent **))
{
    DIR *dir = pl_opendir(dirfd, path);
    struct dirent **found = NULL, *entry;
    size_t count = 0, room = 0;
    if (!dir)
        return -1;
    while ((entry = pl_readdir(dir))) {
        if (filter && !filter(entry))
            continue;
        if (count == room) {
            room = room ? room * 2 : 32;
            struct dirent **more = realloc(found, room * sizeof *more);
            if (!more)
                break;
            found = more;
        }
        if (!(found[count] = malloc(entry->d_reclen)))
            break;
        memcpy(found[count++], entry, entry->d_reclen);
    }
    pl_closedir(dir);
    if (entry) {
        forget(found, count);
        errno = ENOMEM;
        return -1;
    }
    if (compare && count)
        qsort(found, count, sizeof *found, (int (*)(const void *, const void *))compare);
    if (!found && !(found = malloc(sizeof *found)))
        return -1;
    *list = found;
    return (int)count;
}

/* The descriptor's own offset says how far it has been read; so it may be duplicated, inherited and rewound. */
long pl_getdents(int fd, void *buffer, size_t size)
{
    struct cow_listing listing;
    long result = cow_is_merged(ME, fd);
    if (result <= 0)
        return result < 0 ? result : SYS(SYS_getdents64, fd, buffer, size);
    if ((result = cow_list(ME, fd, "", &listing)) < 0)
        return result;
    size_t at = (size_t)SYS(SYS_lseek, fd, 0, SEEK_CUR), used = 0;
    while (at < listing.size) {
        const struct dirent *entry = (const struct dirent *)(listing.data + at);
        if (used + entry->d_reclen > size)
            break;
        memcpy((char *)buffer + used, entry, entry->d_reclen);
        used += entry->d_reclen;
        at = (size_t)entry->d_off;
    }
    result = !used && at < listing.size ? -EINVAL : (long)used;
    if (result > 0 && SYS(SYS_lseek, fd, at, SEEK_SET) < 0)
        result = -EIO;
    cow_list_free(&listing);
    return result;
}
