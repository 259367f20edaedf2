/* Directory streams. They begin with a number that no stream of libc's own begins with (theirs is the descriptor). A directory of
   several layers, or of an upper, is merged at once; the records of others are read as libc would read them, but by calls that
   a net lets pass: libc's own fstat and getdents64 would each go through the supervisor. */
#define _GNU_SOURCE
#include "library.h"

enum { OURS = -0x70636f77, BUFFER = 1 << 15 };

struct stream {
    int32_t ours;
    int fd;
    uint32_t busy;              /* a thread reads it */
    int hides;                  /* whiteouts: it is a tree's */
    size_t at;                  /* in the records of listing, or of the buffer */
    struct cow_listing listing; /* data is NULL: it is read through the buffer */
    size_t filled;
    long position;              /* the offset of the record after the last one that was read through the buffer */
    _Alignas(8) char buffer[];
};

static inline struct stream *mine(DIR *dir)
{
    return *(const int32_t *)dir == OURS ? (struct stream *)dir : NULL;
}

/* The stream of the descriptor of a directory that w found. NULL: *result is an -errno. */
static struct stream *new_stream(struct cow_walk *w, int fd, long *result)
{
    const int merged = w->tree && ((w->mask & 1) || (w->mask & (w->mask - 1)));
    struct stream *stream = malloc(sizeof *stream + (merged ? 0 : BUFFER));
    *result = stream ? 0 : -ENOMEM;
    if (!stream)
        return NULL;
    *stream = (struct stream){ .ours = OURS, .fd = fd, .hides = w->tree != NULL };
    if (merged && (*result = cow_list_walk(w, &stream->listing)) < 0) {
        free(stream);
        stream = NULL;
    }
    return stream;
}

static DIR *failed(long result, long fd)
{
    if (fd >= 0)
        SYS(SYS_close, fd);
    pl_result(result);
    return NULL;
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
    struct stream *stream = new_stream(w, (int)fd, &result);
    return stream ? (DIR *)stream : failed(result, fd);
}

DIR *pl_fdopendir(int fd)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    struct stat st;
    long result = w ? SYS(SYS_fstat, fd, &st) : -ENOMEM;
    if (result == 0 && !S_ISDIR(st.st_mode))
        result = -ENOTDIR;
    if (result < 0)
        return failed(result, -1);
    if (cow_walk_path(w, fd, ".", 0) < 0 || w->kind != COW_DIRECTORY)
        w->tree = NULL; /* not in the view any more: what the kernel has of it */
    struct stream *stream = new_stream(w, fd, &result);
    if (!stream)
        return failed(result, -1);
    const off_t at = stream->listing.data ? SYS(SYS_lseek, fd, 0, SEEK_CUR) : 0;
    stream->at = at > 0 && (size_t)at <= stream->listing.size ? (size_t)at : 0;
    SYS(SYS_fcntl, fd, F_SETFD, FD_CLOEXEC);
    return (DIR *)stream;
}

/* A lower may be another tree's upper, which has whiteouts. */
static int is_hidden(const struct stream *stream, const struct dirent *entry)
{
    struct stat st;
    return stream->hides && (entry->d_type == DT_CHR || entry->d_type == DT_UNKNOWN) &&
           SYS(SYS_newfstatat, stream->fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && cow_is_whiteout(&st);
}

static struct dirent *read_entry(struct stream *stream)
{
    struct dirent *entry;
    do {
        if (stream->at >= stream->filled) {
            const long got = SYS(SYS_getdents64, stream->fd, stream->buffer, BUFFER);
            stream->at = 0;
            stream->filled = got > 0 ? (size_t)got : 0;
            if (got < 0 && got != -ENOENT) /* that is of a directory that was removed, and its end */
                errno = (int)-got;
            if (got <= 0)
                return NULL;
        }
        entry = (struct dirent *)(stream->buffer + stream->at);
        stream->at += entry->d_reclen;
        stream->position = entry->d_off;
    } while (is_hidden(stream, entry));
    return entry;
}

static struct dirent *next_entry(struct stream *stream)
{
    struct dirent *entry = NULL;
    while (__builtin_expect(__atomic_exchange_n(&stream->busy, 1, __ATOMIC_ACQUIRE), 0))
        SYS(SYS_sched_yield);
    if (!stream->listing.data) {
        entry = read_entry(stream);
    } else if (stream->at < stream->listing.size) {
        entry = (struct dirent *)(stream->listing.data + stream->at);
        stream->at = (size_t)entry->d_off;
    }
    __atomic_store_n(&stream->busy, 0, __ATOMIC_RELEASE);
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
    /* One that has come up since then goes on as a merged one. */
    if ((stream->listing.data || cow_is_merged(ME, stream->fd) > 0) && cow_list(ME, stream->fd, "", &fresh) == 0) {
        cow_list_free(&stream->listing);
        stream->listing = fresh;
    }
    if (!stream->listing.data)
        SYS(SYS_lseek, stream->fd, 0, SEEK_SET);
    stream->at = stream->filled = 0;
    stream->position = 0;
}

void pl_seekdir(DIR *dir, long position)
{
    struct stream *stream = mine(dir);
    if (!stream)
        NEXT(seekdir)(dir, position);
    else if (stream->listing.data && position >= 0 && (size_t)position <= stream->listing.size)
        stream->at = (size_t)position;
    else if (!stream->listing.data && SYS(SYS_lseek, stream->fd, position, SEEK_SET) >= 0) {
        stream->at = stream->filled = 0;
        stream->position = position;
    }
}

long pl_telldir(DIR *dir)
{
    const struct stream *stream = mine(dir);
    if (!stream)
        return NEXT(telldir)(dir);
    return stream->listing.data ? (long)stream->at : stream->position;
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
