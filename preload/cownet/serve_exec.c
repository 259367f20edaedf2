/* execve(2): the caller becomes the program that the path means in the trees. What the kernel would read by itself, a
   script's interpreter, is found in the trees too, and put in front of the arguments as execve(2) describes it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/cow_cookie.h"
#include "../common/sys.h"
#include "own.h"
#include "serve.h"

enum { HEAD = 256, SCRIPTS_MAX = 4, POINTERS_AT_ONCE = 512, POINTERS_MAX = 1 << 20, FRONT_MAX = 2 * SCRIPTS_MAX + 1 };

struct program {
    char real[PATH_MAX];
    char call[PATH_MAX];     /* the same file, for the kernel */
    struct stat info;        /* of that file */
    int is_elf;
    /* What comes before the second of the given arguments; none: the given ones as they are. */
    int front_count;
    char front[FRONT_MAX][PATH_MAX];
};

/* What is to be executed: its real path; `outside` says whether that is outside of the trees. */
static long find(struct caller *caller, int dirfd, const char *path, int flags, char *real, int *outside)
{
    const long inside = cow_real_path(&caller->asker, dirfd, path, flags | COW_INSIDE, real);
    *outside = inside == -EXDEV;
    return *outside ? cow_real_path(&caller->asker, dirfd, path, flags, real) : inside;
}

/* Whether the path, as the kernel will understand it from the caller, is of this file: then it stays as the caller has it,
   since programs look at their own (a link of several names). */
static int is_as_good(const struct caller *caller, int dirfd, const char *path, const struct stat *info)
{
    char cwd[64];
    struct stat there;
    if (path[0] != '/' && dirfd != AT_FDCWD)
        return 0;
    snprintf(cwd, sizeof cwd, "/proc/%d/cwd", caller->asker.tid);
    CLEANUP_FD int directory = path[0] == '/' ? -1 : open(cwd, O_PATH | O_CLOEXEC);
    return (path[0] == '/' || directory >= 0) && fstatat(directory, path, &there, 0) == 0 && there.st_dev == info->st_dev && there.st_ino == info->st_ino;
}

/* Reads the first line of a script: 1, with the interpreter and its one argument (or ""); 0: it is none. */
static int read_script(char head[HEAD + 1], char **interpreter, char **argument)
{
    if (head[0] != '#' || head[1] != '!')
        return 0;
    char *end = head + strcspn(head, "\n");
    *end = 0;
    while (end > head && (end[-1] == ' ' || end[-1] == '\t'))
        *--end = 0;
    *interpreter = head + 2 + strspn(head + 2, " \t");
    *argument = *interpreter + strcspn(*interpreter, " \t");
    if (**argument) {
        *(*argument)++ = 0;
        *argument += strspn(*argument, " \t");
    }
    return **interpreter != 0;
}

/* Puts words in front of the arguments; the first of those so far, the script's name as it was called, is replaced. */
static void put_in_front(struct program *program, const char *interpreter, const char *argument, const char *script)
{
    const int new_count = *argument ? 3 : 2, kept = program->front_count > 0 ? program->front_count - 1 : 0;
    memmove(program->front[new_count], program->front[1], (size_t)kept * PATH_MAX);
    snprintf(program->front[0], PATH_MAX, "%s", interpreter);
    if (*argument)
        snprintf(program->front[1], PATH_MAX, "%s", argument);
    snprintf(program->front[new_count - 1], PATH_MAX, "%s", script);
    program->front_count = new_count + kept;
}

static long prepare(struct caller *caller, int dirfd, const char *path, int flags, struct program *program)
{
    char name[PATH_MAX], head[HEAD + 1], *interpreter, *argument;
    int outside;
    snprintf(name, sizeof name, "%s", path);
    program->front_count = 0;
    for (int depth = 0;; depth++) {
        const long error = find(caller, dirfd, name, flags, program->real, &outside);
        if (error < 0)
            return error;
        CLEANUP_FD int file = open(program->real, O_PATH | O_CLOEXEC | (flags & COW_NOFOLLOW ? O_NOFOLLOW : 0));
        if (file < 0 || fstat(file, &program->info) < 0)
            return -errno;
        if (S_ISLNK(program->info.st_mode))
            return -ELOOP;
        strcpy(program->call, outside && is_as_good(caller, dirfd, name, &program->info) ? name : program->real);
        /* A FIFO must not be opened; what cannot be read is no script, as the kernel could not run one either. */
        CLEANUP_FD int readable = S_ISREG(program->info.st_mode) ? open(program->real, O_RDONLY | O_CLOEXEC) : -1;
        const ssize_t length = readable < 0 ? 0 : read(readable, head, HEAD);
        head[length < 0 ? 0 : length] = 0;
        program->is_elf = length >= 4 && memcmp(head, "\177ELF", 4) == 0;
        if (program->is_elf || !(program->info.st_mode & 0111) || !read_script(head, &interpreter, &argument))
            return 0;
        if (depth == SCRIPTS_MAX)
            return -ELOOP;
        char view[PATH_MAX];
        snprintf(view, sizeof view, "%s", name);
        if (dirfd != AT_FDCWD && name[0] != '/' && cow_view_of(caller->asker.set, program->real, view) < 0)
            return -ENOENT;
        put_in_front(program, interpreter, argument, view);
        snprintf(name, sizeof name, "%s", interpreter);
        dirfd = AT_FDCWD;
        flags = 0;
    }
}

/* How many arguments the caller gives (without the NULL at the end), or -errno. */
static long count_arguments(const struct caller *caller, uint64_t list)
{
    uint64_t pointer;
    long count = 0;
    for (; list && count < POINTERS_MAX; count++) {
        if (caller_read(caller, list + 8 * (uint64_t)count, &pointer, sizeof pointer) < 0)
            return -EFAULT;
        if (pointer == 0)
            break;
    }
    return count == POINTERS_MAX ? -E2BIG : count;
}

/* Writes the real path, the words in front, and a new list of arguments into the caller's new memory. Returns the list's
   address, or -errno. */
static long write_arguments(struct own *own, const struct program *program, uint64_t list, long count)
{
    uint64_t pointers[POINTERS_AT_ONCE];
    size_t at = strlen(program->call) + 1, used = 0;
    long error = own_write(own, 0, program->call, at);
    for (int i = 0; i < program->front_count && error == 0; i++) {
        const size_t size = strlen(program->front[i]) + 1;
        pointers[used++] = own->memory + at;
        error = own_write(own, at, program->front[i], size);
        at += size;
    }
    at = (at + 15) & ~(size_t)15;
    const uint64_t start = own->memory + at;
    for (long i = 1; i <= count && error == 0; i++) { /* the last one is the NULL, also where there were no arguments */
        if (used == POINTERS_AT_ONCE) {
            error = own_write(own, at, pointers, sizeof pointers);
            at += sizeof pointers;
            used = 0;
        }
        pointers[used] = 0;
        if (error == 0 && i < count)
            error = caller_read(own->caller, list + 8 * (uint64_t)i, &pointers[used], sizeof pointers[used]);
        used++;
    }
    if (count == 0)
        pointers[used++] = 0;
    if (error == 0)
        error = own_write(own, at, pointers, used * sizeof pointers[0]);
    return error < 0 ? error : (long)start;
}

/* After exec, before the program's first instruction: is it the file that was decided about? */
static int is_the_one(pid_t pid, const struct program *program)
{
    char path[64];
    struct stat info;
    snprintf(path, sizeof path, "/proc/%d/exe", pid);
    if (stat(path, &info) < 0)
        return 0;
    /* What is neither a program nor a script may have an interpreter by binfmt_misc, which is the machine's. */
    return !program->is_elf || (info.st_dev == program->info.st_dev && info.st_ino == program->info.st_ino);
}

static long execute(struct caller *caller, const char *path, const struct program *program, int list_number)
{
    struct own own;
    pid_t pid;
    uint64_t list = ARG(caller, list_number);
    const long count = program->front_count ? count_arguments(caller, list) : 0;
    if (count < 0)
        return count;
    size_t size = (size_t)(count + FRONT_MAX + 2) * 8 + strlen(program->call) + 32;
    for (int i = 0; i < program->front_count; i++)
        size += strlen(program->front[i]) + 1;
    long result = own_begin(&own, caller, size);
    if (result < 0)
        return result;
    result = program->front_count ? write_arguments(&own, program, list, count) : own_write(&own, 0, program->call, strlen(program->call) + 1);
    if (result < 0)
        return own_end(&own, result);
    if (program->front_count)
        list = (uint64_t)result;
    const uint64_t arguments[6] = { own.memory, list, ARG(caller, list_number + 1), 0, 0, (uint64_t)pccow_cookie(SYS_execve, (long)own.memory, (long)list) };
    result = remote_exec(&own.remote, SYS_execve, arguments, &pid);
    if (result < 0)
        return own_end(&own, result);
    const int right = is_the_one(pid, program);
    if (!right)
        serve_log(caller, path, "the path was changed while the call was made; the process was killed");
    remote_release(&own.remote, pid, !right);
    return ANSWERED;
}

static long exec_path(struct caller *caller, int dirfd, const char *path, int flags, int list_number)
{
    static __thread struct program program;
    long error = caller_enter(caller, 0);
    if (error == 0)
        error = prepare(caller, dirfd, path, flags, &program);
    caller_leave(); /* ptrace is the supervisor's own doing */
    return error < 0 ? error : execute(caller, path, &program, list_number);
}

long serve_execve(struct caller *caller)
{
    PATH_ARGUMENT(caller, 0, path);
    return exec_path(caller, AT_FDCWD, path, 0, 1);
}

/* A descriptor is what it is: no path is read, but for the empty one that the caller gets anew. */
static long exec_descriptor(struct caller *caller)
{
    struct own own;
    pid_t pid;
    long result = own_begin(&own, caller, 1); /* mapped memory is zeros: the empty path */
    if (result < 0)
        return result;
    const uint64_t arguments[6] = {
        ARG(caller, 0), own.memory, ARG(caller, 2), ARG(caller, 3), ARG(caller, 4), (uint64_t)pccow_cookie(SYS_execveat, (long)ARG(caller, 0), (long)own.memory),
    };
    result = remote_exec(&own.remote, SYS_execveat, arguments, &pid);
    if (result < 0)
        return own_end(&own, result);
    remote_release(&own.remote, pid, 0);
    return ANSWERED;
}

long serve_execveat(struct caller *caller)
{
    const int flags = ARG_INT(caller, 4);
    PATH_ARGUMENT(caller, 1, path);
    if (path[0] == 0 && flags & AT_EMPTY_PATH)
        return exec_descriptor(caller);
    if (flags & ~(AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
        return -EINVAL;
    return exec_path(caller, ARG_INT(caller, 0), path, flags & AT_SYMLINK_NOFOLLOW ? COW_NOFOLLOW : 0, 2);
}
