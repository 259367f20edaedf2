/* Streams and temporary names: libc opens their files itself, so they are made anew on top of our open. */
#define _GNU_SOURCE
#include "library.h"

/* -1 if it is a mode that libc has to interpret (",ccs=") or none at all. */
static int flags_of(const char *mode)
{
    int flags;
    switch (*mode) {
    case 'r':
        flags = O_RDONLY;
        break;
    case 'w':
        flags = O_WRONLY | O_CREAT | O_TRUNC;
        break;
    case 'a':
        flags = O_WRONLY | O_CREAT | O_APPEND;
        break;
    default:
        return -1;
    }
    for (mode++; *mode && *mode != ','; mode++) {
        if (*mode == '+')
            flags = (flags & ~O_ACCMODE) | O_RDWR;
        else if (*mode == 'x')
            flags |= O_EXCL;
        else if (*mode == 'e')
            flags |= O_CLOEXEC;
    }
    return flags;
}

/* libc opens the file once more, by its descriptor, for what fdopen cannot do. The mode without x: it exists now. */
static FILE *by_descriptor(long fd, const char *mode, FILE *stream)
{
    char path[64], plain[64];
    size_t used = 0;
    const char *comma = strchr(mode, ',');
    for (; *mode && used < sizeof plain - 1; mode++)
        if (*mode != 'x' || (comma && mode > comma))
            plain[used++] = *mode;
    plain[used] = 0;
    cow_proc_path(ME, "/fd/", (int)fd, path);
    FILE *file = stream ? NEXT(freopen)(path, plain, stream) : NEXT(fopen)(path, plain);
    const int saved = errno;
    SYS(SYS_close, fd);
    errno = saved;
    return file;
}

FILE *pl_fopen(const char *path, const char *mode)
{
    const int flags = flags_of(mode);
    if (flags < 0) {
        errno = EINVAL;
        return NULL;
    }
    long fd = pl_result(cow_openat(ME, AT_FDCWD, path, flags, 0666, 0));
    if (fd < 0)
        return NULL;
    if (strchr(mode, ','))
        return by_descriptor(fd, mode, NULL);
    FILE *file = fdopen((int)fd, mode);
    if (!file) {
        const int saved = errno;
        SYS(SYS_close, fd);
        errno = saved;
    }
    return file;
}

FILE *pl_freopen(const char *path, const char *mode, FILE *stream)
{
    const int flags = flags_of(mode);
    if (!path)
        return NEXT(freopen)(path, mode, stream);
    long fd = pl_result(flags < 0 ? -EINVAL : cow_openat(ME, AT_FDCWD, path, flags | O_CLOEXEC, 0666, 0));
    if (fd < 0) {
        const int saved = errno;
        fclose(stream);
        errno = saved;
        return NULL;
    }
    return by_descriptor(fd, mode, stream);
}

static const char LETTERS[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

static void fill(char *at)
{
    uint64_t random = 0;
    if (SYS(SYS_getrandom, &random, sizeof random, 0) < 0) {
        struct timespec now;
        SYS(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
        random = (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15ULL ^ (uint64_t)SYS(SYS_gettid) << 20;
    }
    for (int i = 0; i < 6; i++, random /= sizeof LETTERS - 1)
        at[i] = LETTERS[random % (sizeof LETTERS - 1)];
}

/* The six letters to be filled, or NULL. */
static char *letters(char *name, int suffix)
{
    const size_t length = strlen(name);
    if (suffix < 0 || length < (size_t)suffix + 6)
        return NULL;
    char *at = name + length - (size_t)suffix - 6;
    return memcmp(at, "XXXXXX", 6) == 0 ? at : NULL;
}

static long try_names(char *name, int suffix, long (*make)(const char *, int), int flags)
{
    char *at = letters(name, suffix);
    if (!at)
        return -EINVAL;
    for (int i = 0; i < 1000; i++) {
        fill(at);
        long result = make(name, flags);
        if (result != -EEXIST)
            return result;
    }
    return -EEXIST;
}

static long make_file(const char *name, int flags)
{
    return cow_openat(ME, AT_FDCWD, name, O_RDWR | O_CREAT | O_EXCL | (flags & ~O_ACCMODE), 0600, 0);
}

static long make_directory(const char *name, int flags)
{
    (void)flags;
    return cow_mkdirat(ME, AT_FDCWD, name, 0700);
}

static long make_nothing(const char *name, int flags)
{
    struct stat st;
    (void)flags;
    long result = cow_fstatat(ME, AT_FDCWD, name, &st, AT_SYMLINK_NOFOLLOW);
    return result == 0 ? -EEXIST : result == -ENOENT ? 0 : result;
}

long pl_mkostemps(char *name, int suffix, int flags)
{
    return try_names(name, suffix, make_file, flags);
}

char *pl_mkdtemp(char *name)
{
    return pl_result(try_names(name, 0, make_directory, 0)) < 0 ? NULL : name;
}

char *pl_mktemp(char *name)
{
    if (pl_result(try_names(name, 0, make_nothing, 0)) < 0)
        *name = 0;
    return name;
}

static int is_directory(const char *path)
{
    struct stat st;
    return path && *path && cow_fstatat(ME, AT_FDCWD, path, &st, 0) == 0 && S_ISDIR(st.st_mode);
}

char *pl_tempnam(const char *directory, const char *prefix)
{
    const char *const wanted[] = { secure_getenv("TMPDIR"), directory, P_tmpdir };
    for (size_t i = 0; i < 3; i++) {
        char *name;
        if (!is_directory(wanted[i]))
            continue;
        if (asprintf(&name, "%s/%.5sXXXXXX", wanted[i], prefix ? prefix : "file") < 0)
            return NULL;
        if (pl_result(try_names(name, 0, make_nothing, 0)) == 0)
            return name;
        free(name);
        return NULL;
    }
    errno = ENOENT;
    return NULL;
}

char *pl_tmpnam(char *name)
{
    static char own[L_tmpnam];
    char fresh[L_tmpnam] = P_tmpdir "/fileXXXXXX";
    if (pl_result(try_names(fresh, 0, make_nothing, 0)) < 0)
        return NULL;
    return memcpy(name ? name : own, fresh, sizeof fresh);
}

FILE *pl_tmpfile(void)
{
    long fd = cow_openat(ME, AT_FDCWD, P_tmpdir, O_RDWR | O_TMPFILE | O_EXCL, 0600, 0);
    if (fd < 0) { /* a file system without files that have no name */
        char name[] = P_tmpdir "/tmpfXXXXXX";
        fd = pl_result(pl_mkostemps(name, 0, 0));
        if (fd < 0)
            return NULL;
        cow_unlinkat(ME, AT_FDCWD, name, 0);
    }
    FILE *file = fdopen((int)fd, "w+");
    if (!file)
        SYS(SYS_close, fd);
    return file;
}
