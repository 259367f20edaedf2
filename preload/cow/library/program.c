/* What exec has to know of a file. A script's interpreter is found in the view, and is given the script's path in the view: the
   kernel would look for both in the real directories. */
#define _GNU_SOURCE
#include <elf.h>
#include <sys/prctl.h>

#include "library.h"
#include "program.h"

enum { HEAD = 1024 };

size_t pl_count(char *const *list)
{
    size_t count = 0;
    while (list && list[count])
        count++;
    return count;
}

static long refuse(const char *path, const char *reason)
{
    cow_refused(ME->set, "execve", path, reason);
    return -EACCES;
}

/* Whether ld.so will run in the new program, and will look at LD_PRELOAD. */
static long check_elf(const char *path, const char *real, const unsigned char *head, size_t size, const struct stat *st)
{
    const Elf64_Ehdr *elf = (const Elf64_Ehdr *)head;
    int interpreter = 0, glibc = 1;
    char capability;
    if (ME->set->net)
        return 0;
    if (size < sizeof *elf || elf->e_ident[EI_CLASS] != ELFCLASS64)
        return refuse(path, "a program of another kind than this library; without the net below libc it would change the original");
    for (size_t i = 0; i < elf->e_phnum; i++) {
        const size_t at = elf->e_phoff + i * elf->e_phentsize;
        if (at + sizeof(Elf64_Phdr) > size)
            break;
        const Elf64_Phdr *part = (const Elf64_Phdr *)(head + at);
        if (part->p_type != PT_INTERP)
            continue;
        interpreter = 1;
        if (part->p_offset + part->p_filesz <= size)
            glibc = memmem(head + part->p_offset, part->p_filesz, "/ld-linux", 9) != NULL;
    }
    if (!interpreter)
        return refuse(path, "a static program; without the net below libc it would change the original");
    if (!glibc)
        return refuse(path, "a program of another C library; without the net below libc it would change the original");
    if (SYS(SYS_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1)
        return 0;
    if (((st->st_mode & S_ISUID) && st->st_uid != (uid_t)SYS(SYS_geteuid)) ||
        ((st->st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && st->st_gid != (gid_t)SYS(SYS_getegid)) ||
        (SYS(SYS_getuid) != 0 && SYS(SYS_lgetxattr, real, "security.capability", &capability, 0) > 0))
        return refuse(path, "a set-id program, in which ld.so loads no library of ours");
    return 0;
}

/* The words of a #! line into the program's text: 1 or 2 of them. */
static long read_line(struct program *program, const char *line, size_t size, const char **interpreter, const char **argument)
{
    size_t at = 2, end;
    for (end = at; end < size && line[end] != '\n' && line[end]; end++)
        ;
    if (end == size && size >= 256)
        return -ENOEXEC;
    while (at < end && (line[at] == ' ' || line[at] == '\t'))
        at++;
    while (end > at && (line[end - 1] == ' ' || line[end - 1] == '\t'))
        end--;
    if (at == end || program->used + end - at + 2 > PROGRAM_TEXT)
        return -ENOEXEC;
    char *text = program->text + program->used;
    memcpy(text, line + at, end - at);
    text[end - at] = 0;
    program->used += end - at + 1;
    char *rest = text + strcspn(text, " \t");
    *interpreter = text;
    *argument = NULL;
    if (*rest) {
        *rest++ = 0;
        rest += strspn(rest, " \t");
        *argument = *rest ? rest : NULL;
    }
    return 0;
}

/* Puts the words before those that are there. */
static long push(struct program *program, const char *interpreter, const char *argument)
{
    const int more = argument ? 2 : 1;
    if (program->words + more > PROGRAM_WORDS)
        return -ELOOP;
    memmove(program->word + more, program->word, (size_t)program->words * sizeof *program->word);
    program->word[0] = interpreter;
    if (argument)
        program->word[1] = argument;
    program->words += more;
    return 0;
}

static long look(int dirfd, const char *path, int flags, struct program *program, unsigned char *head, struct stat *st)
{
    char proc[64];
    if ((flags & AT_EMPTY_PATH) && !*path) {
        cow_proc_path(ME, "/fd/", dirfd, proc);
        path = proc;
    }
    long result = cow_real_path(ME, dirfd, path, flags & AT_SYMLINK_NOFOLLOW ? COW_NOFOLLOW : 0, program->real);
    if (result < 0)
        return result;
    COW_CLEANUP_FD int fd = (int)SYS(SYS_openat, AT_FDCWD, program->real, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);
    if (fd < 0 && ME->set->net && fd == -EACCES)
        return 0; /* may be run though it may not be read */
    if (fd < 0 || (result = SYS(SYS_fstat, fd, st)) < 0)
        return fd < 0 ? fd : result;
    if (!S_ISREG(st->st_mode))
        return -EACCES;
    result = SYS(SYS_faccessat2, AT_FDCWD, program->real, X_OK, AT_EACCESS);
    if (result == -ENOSYS)
        result = SYS(SYS_faccessat, AT_FDCWD, program->real, X_OK);
    return result < 0 ? result : SYS(SYS_pread64, fd, head, HEAD, 0);
}

long pl_find_program(int dirfd, const char *path, int flags, struct program *program)
{
    _Alignas(8) unsigned char head[HEAD];
    const char *interpreter, *argument, *next = path;
    struct stat st;
    program->words = 0;
    program->used = 0;
    if (!path)
        return -EFAULT;
    for (int depth = 0; depth < 5; depth++) {
        long size = look(dirfd, next, flags, program, head, &st);
        if (size < 0)
            return size;
        if (size < 2 || head[0] != '#' || head[1] != '!')
            return size >= SELFMAG && memcmp(head, ELFMAG, SELFMAG) == 0
                       ? check_elf(next, program->real, head, (size_t)size, &st) : 0;
        if (depth == 0) {
            program->word[0] = path;
            program->words = 1;
            if ((flags & AT_EMPTY_PATH) && !*path) {
                char *text = program->text;
                memcpy(text, "/dev/fd/", 8);
                program->used = 9 + cow_decimal(text + 8, (uint64_t)dirfd);
                program->word[0] = text;
            }
        }
        if ((size = read_line(program, (const char *)head, (size_t)size, &interpreter, &argument)) < 0 ||
            (size = push(program, interpreter, argument)) < 0)
            return size;
        next = interpreter;
        dirfd = AT_FDCWD;
        flags = 0;
    }
    return -ELOOP;
}

char *const *pl_arguments(const struct program *program, char *const *argv, char **room)
{
    size_t used = 0;
    if (!program->words)
        return argv;
    for (int i = 0; i < program->words; i++)
        room[used++] = (char *)program->word[i];
    for (size_t i = 1; argv && argv[0] && argv[i]; i++)
        room[used++] = argv[i];
    room[used] = NULL;
    return room;
}
