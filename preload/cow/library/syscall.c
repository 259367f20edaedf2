/* syscall(2): programs' own raw calls, where they make them by libc's function. What names a path goes the way that the
   function of that name goes; everything else goes to the kernel as it is, without the cookie. */
#define _GNU_SOURCE
#include <linux/openat2.h>

#include "library.h"

enum { ANOTHER = -4999 }; /* no answer of the kernel's */

struct numbers {
    long a, b, c, d, e, f;
};

#if defined(__x86_64__)
static long raw(long number, const struct numbers *n)
{
    register long r10 __asm__("r10") = n->d;
    register long r8 __asm__("r8") = n->e;
    register long r9 __asm__("r9") = n->f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(n->a), "S"(n->b), "d"(n->c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory", "cc");
    return result;
}
#else
static long raw(long number, const struct numbers *n)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = n->a;
    register long x1 __asm__("x1") = n->b;
    register long x2 __asm__("x2") = n->c;
    register long x3 __asm__("x3") = n->d;
    register long x4 __asm__("x4") = n->e;
    register long x5 __asm__("x5") = n->f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
    return x0;
}
#endif

#define PATH(x) ((const char *)(x))
#define FD(x) ((int)(x))

static long open_how(const struct numbers *n)
{
    struct open_how how = { 0 };
    if ((size_t)n->d < sizeof how)
        return -EINVAL;
    memcpy(&how, (const void *)n->c, sizeof how);
    return cow_openat(ME, FD(n->a), PATH(n->b), (int)how.flags, (mode_t)how.mode, how.resolve);
}

static long get_cwd(const struct numbers *n)
{
    const char *text = pl_getcwd((char *)n->a, (size_t)n->b);
    return text ? (long)strlen(text) + 1 : -errno;
}

/* ANOTHER: not one of these. */
static long open_and_look(long number, const struct numbers *n)
{
    switch (number) {
    case SYS_openat:
        return cow_openat(ME, FD(n->a), PATH(n->b), (int)n->c, (mode_t)n->d, 0);
    case SYS_openat2:
        return open_how(n);
    case SYS_newfstatat:
        return cow_fstatat(ME, FD(n->a), PATH(n->b), (struct stat *)n->c, (int)n->d);
    case SYS_statx:
        return cow_statx(ME, FD(n->a), PATH(n->b), (int)n->c, (unsigned)n->d, (struct statx *)n->e);
    case SYS_fstat:
        return pl_fstat(FD(n->a), (struct stat *)n->b);
    case SYS_faccessat:
        return cow_faccessat(ME, FD(n->a), PATH(n->b), (int)n->c, 0);
    case SYS_faccessat2:
        return cow_faccessat(ME, FD(n->a), PATH(n->b), (int)n->c, (int)n->d);
    case SYS_readlinkat:
        return cow_readlinkat(ME, FD(n->a), PATH(n->b), (char *)n->c, (size_t)n->d);
    case SYS_statfs:
        return cow_statfs(ME, PATH(n->a), (struct statfs *)n->b);
    case SYS_getdents64:
        return pl_getdents(FD(n->a), (void *)n->b, (size_t)n->c);
    case SYS_getcwd:
        return get_cwd(n);
    case SYS_chdir:
        return pl_chdir(PATH(n->a));
    case SYS_fchdir:
        return pl_fchdir(FD(n->a));
    case SYS_execve:
        return pl_execve(AT_FDCWD, PATH(n->a), (char *const *)n->b, (char *const *)n->c, 0);
    case SYS_execveat:
        return pl_execve(FD(n->a), PATH(n->b), (char *const *)n->c, (char *const *)n->d, (int)n->e);
    case SYS_name_to_handle_at:
        return pl_name_to_handle(FD(n->a), PATH(n->b), (struct file_handle *)n->c, (int *)n->d, (int)n->e);
    case SYS_open_by_handle_at:
        return pl_open_by_handle(FD(n->a), (struct file_handle *)n->b, (int)n->c);
    case SYS_inotify_add_watch:
        return pl_inotify(FD(n->a), PATH(n->b), (uint32_t)n->c);
    case SYS_bind:
        return pl_bind(FD(n->a), (const struct sockaddr *)n->b, (socklen_t)n->c);
    case SYS_connect:
        return pl_connect(FD(n->a), (const struct sockaddr *)n->b, (socklen_t)n->c);
    default:
        return ANOTHER;
    }
}

static long names(long number, const struct numbers *n)
{
    switch (number) {
    case SYS_mkdirat:
        return cow_mkdirat(ME, FD(n->a), PATH(n->b), (mode_t)n->c);
    case SYS_mknodat:
        return cow_mknodat(ME, FD(n->a), PATH(n->b), (mode_t)n->c, (dev_t)n->d);
    case SYS_symlinkat:
        return cow_symlinkat(ME, PATH(n->a), FD(n->b), PATH(n->c));
    case SYS_linkat:
        return cow_linkat(ME, FD(n->a), PATH(n->b), FD(n->c), PATH(n->d), (int)n->e);
    case SYS_unlinkat:
        return cow_unlinkat(ME, FD(n->a), PATH(n->b), (int)n->c);
#ifdef SYS_renameat
    case SYS_renameat:
        return pl_renameat(FD(n->a), PATH(n->b), FD(n->c), PATH(n->d), 0);
#endif
    case SYS_renameat2:
        return pl_renameat(FD(n->a), PATH(n->b), FD(n->c), PATH(n->d), (unsigned)n->e);
    case SYS_truncate:
        return cow_truncate(ME, PATH(n->a), n->b);
    case SYS_chroot:
    case SYS_pivot_root:
        cow_refused(ME->set, "chroot", PATH(n->a), "the trees' directories could not be found any more");
        return -EPERM;
    case SYS_mount:
        return pl_mount(PATH(n->a), PATH(n->b), PATH(n->c), (unsigned long)n->d, (const void *)n->e);
    case SYS_umount2:
        return pl_outside("umount2", AT_FDCWD, PATH(n->a)) ?: raw(number, n);
    case 425: /* io_uring_setup: opens files past all of this */
        return -ENOSYS;
    default:
        return ANOTHER;
    }
}

static long attributes(long number, const struct numbers *n)
{
    const int l = number == SYS_lgetxattr || number == SYS_llistxattr || number == SYS_lsetxattr || number == SYS_lremovexattr;
    switch (number) {
    case SYS_fchmod:
        return pl_own(FD(n->a)) ?: raw(number, n);
    case SYS_fchmodat:
        return cow_fchmodat(ME, FD(n->a), PATH(n->b), (mode_t)n->c, 0);
    case 452: /* fchmodat2 */
        return cow_fchmodat(ME, FD(n->a), PATH(n->b), (mode_t)n->c, (int)n->d);
    case SYS_fchown:
        return pl_own(FD(n->a)) ?: raw(number, n);
    case SYS_fchownat:
        return cow_fchownat(ME, FD(n->a), PATH(n->b), (uid_t)n->c, (gid_t)n->d, (int)n->e);
    case SYS_utimensat:
        if (!n->b)
            return pl_own(FD(n->a)) ?: raw(number, n);
        return cow_utimensat(ME, FD(n->a), PATH(n->b), (const struct timespec *)n->c, (int)n->d);
    case SYS_getxattr:
    case SYS_lgetxattr:
        return cow_getxattr(ME, PATH(n->a), PATH(n->b), (void *)n->c, (size_t)n->d, l);
    case SYS_listxattr:
    case SYS_llistxattr:
        return cow_listxattr(ME, PATH(n->a), (char *)n->b, (size_t)n->c, l);
    case SYS_setxattr:
    case SYS_lsetxattr:
        return cow_setxattr(ME, PATH(n->a), PATH(n->b), (const void *)n->c, (size_t)n->d, (int)n->e, l);
    case SYS_removexattr:
    case SYS_lremovexattr:
        return cow_removexattr(ME, PATH(n->a), PATH(n->b), l);
    case SYS_fsetxattr:
        return pl_fsetxattr(FD(n->a), PATH(n->b), (const void *)n->c, (size_t)n->d, (int)n->e);
    case SYS_fremovexattr:
        return pl_fremovexattr(FD(n->a), PATH(n->b));
    case SYS_fgetxattr:
        return pl_fgetxattr(FD(n->a), PATH(n->b), (void *)n->c, (size_t)n->d);
    case SYS_flistxattr:
        return pl_flistxattr(FD(n->a), (char *)n->b, (size_t)n->c);
    default:
        return ANOTHER;
    }
}

#if defined(__x86_64__)
/* The calls without a directory, which newer architectures do not have. */
static long older(long number, const struct numbers *n)
{
    switch (number) {
    case SYS_open:
        return cow_openat(ME, AT_FDCWD, PATH(n->a), (int)n->b, (mode_t)n->c, 0);
    case SYS_creat:
        return cow_openat(ME, AT_FDCWD, PATH(n->a), O_CREAT | O_WRONLY | O_TRUNC, (mode_t)n->b, 0);
    case SYS_stat:
    case SYS_lstat:
        return cow_fstatat(ME, AT_FDCWD, PATH(n->a), (struct stat *)n->b, number == SYS_lstat ? AT_SYMLINK_NOFOLLOW : 0);
    case SYS_access:
        return cow_faccessat(ME, AT_FDCWD, PATH(n->a), (int)n->b, 0);
    case SYS_readlink:
        return cow_readlinkat(ME, AT_FDCWD, PATH(n->a), (char *)n->b, (size_t)n->c);
    case SYS_mkdir:
        return cow_mkdirat(ME, AT_FDCWD, PATH(n->a), (mode_t)n->b);
    case SYS_mknod:
        return cow_mknodat(ME, AT_FDCWD, PATH(n->a), (mode_t)n->b, (dev_t)n->c);
    case SYS_symlink:
        return cow_symlinkat(ME, PATH(n->a), AT_FDCWD, PATH(n->b));
    case SYS_link:
        return cow_linkat(ME, AT_FDCWD, PATH(n->a), AT_FDCWD, PATH(n->b), 0);
    case SYS_unlink:
    case SYS_rmdir:
        return cow_unlinkat(ME, AT_FDCWD, PATH(n->a), number == SYS_rmdir ? AT_REMOVEDIR : 0);
    case SYS_rename:
        return pl_renameat(AT_FDCWD, PATH(n->a), AT_FDCWD, PATH(n->b), 0);
    case SYS_chmod:
        return cow_fchmodat(ME, AT_FDCWD, PATH(n->a), (mode_t)n->b, 0);
    case SYS_chown:
    case SYS_lchown:
        return cow_fchownat(ME, AT_FDCWD, PATH(n->a), (uid_t)n->b, (gid_t)n->c, number == SYS_lchown ? AT_SYMLINK_NOFOLLOW : 0);
    case SYS_utime:
        return pl_utime(PATH(n->a), (const struct utimbuf *)n->b);
    case SYS_utimes:
        return pl_utimes(AT_FDCWD, PATH(n->a), (const struct timeval *)n->b, 0);
    case SYS_futimesat:
        return n->b ? pl_utimes(FD(n->a), PATH(n->b), (const struct timeval *)n->c, 0)
                    : pl_futimes(FD(n->a), (const struct timeval *)n->c);
    case SYS_getdents:
        return cow_is_merged(ME, FD(n->a)) ? -ENOSYS : raw(number, n);
    case SYS_uselib:
        return -ENOSYS;
    default:
        return ANOTHER;
    }
}
#else
static long older(long number, const struct numbers *n)
{
    (void)number, (void)n;
    return ANOTHER;
}
#endif

EXPORT long syscall(long number, ...)
{
    struct numbers n;
    va_list more;
    va_start(more, number);
    n.a = va_arg(more, long);
    n.b = va_arg(more, long);
    n.c = va_arg(more, long);
    n.d = va_arg(more, long);
    n.e = va_arg(more, long);
    n.f = va_arg(more, long);
    va_end(more);
    long result = open_and_look(number, &n);
    if (result == ANOTHER)
        result = names(number, &n);
    if (result == ANOTHER)
        result = attributes(number, &n);
    if (result == ANOTHER)
        result = older(number, &n);
    if (result == ANOTHER)
        result = raw(number, &n);
    return pl_result(result);
}
