/* Operations on a tree by bare system calls, as a program does that has no libc in between (Go, static programs, inline
   assembly).  raw OPERATION ROOT  does one in the current directory, which is ROOT, says what each call returned, and then
   prints the tree;  raw list  names the operations. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utime.h>

#include "raw.h"

static const char *root;
static const struct timespec then[2] = { { 86400, 5 }, { 2 * 86400, 7 } };

/* A result: 0 for any success, so that numbers of descriptors and such do not matter. */
static long say(const char *what, long result)
{
    printf("%s: %s\n", what, result < 0 ? strerrorname_np((int)-result) : "ok");
    return result;
}

static void put(long fd, const char *text)
{
    say("open", fd);
    if (fd >= 0) {
        say("write", RAW(SYS_write, fd, text, strlen(text)));
        RAW(SYS_close, fd);
    }
}

static const char *absolute(const char *relative)
{
    static char path[2][4200];
    static int turn;
    turn = !turn;
    snprintf(path[turn], sizeof path[turn], "%s/%s", root, relative);
    return path[turn];
}

static long directory(const char *path)
{
    return say("open directory", RAW(SYS_openat, AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0));
}

static void op_none(void) {}
static void op_open(void) { put(RAW(SYS_open, "a.txt", O_WRONLY, 0), "new"); }
static void op_open_absolute(void) { put(RAW(SYS_open, absolute("d/b.txt"), O_WRONLY, 0), "new"); }
static void op_open_dots(void) { put(RAW(SYS_open, "d/../d/.//e/../b.txt", O_WRONLY, 0), "new"); }
static void op_open_trunc(void) { put(RAW(SYS_open, "a.txt", O_WRONLY | O_TRUNC, 0), "new"); }
static void op_open_append(void) { put(RAW(SYS_open, "a.txt", O_WRONLY | O_APPEND, 0), "new"); }
static void op_open_rdonly_trunc(void) { say("open", RAW(SYS_open, "a.txt", O_RDONLY | O_TRUNC, 0)); }
static void op_open_empty(void) { put(RAW(SYS_open, "empty", O_RDWR, 0), "new"); }
static void op_open_new(void) { put(RAW(SYS_open, "d/new", O_WRONLY | O_CREAT, 0640), "new"); }
static void op_open_excl(void) { put(RAW(SYS_open, "a.txt", O_WRONLY | O_CREAT | O_EXCL, 0640), "new"); }
static void op_open_missing(void) { put(RAW(SYS_open, "d/none/x", O_WRONLY | O_CREAT, 0640), "new"); }
static void op_open_directory(void) { put(RAW(SYS_open, "d", O_WRONLY, 0), "new"); }
static void op_creat(void) { put(RAW(SYS_creat, "a.txt", 0644), "new"); }
static void op_openat(void) { put(RAW(SYS_openat, AT_FDCWD, "a.txt", O_WRONLY, 0), "new"); }
static void op_openat_dirfd(void) { put(RAW(SYS_openat, directory("d"), "b.txt", O_RDWR, 0), "new"); }
static void op_openat_dirfd_new(void) { put(RAW(SYS_openat, directory("d/e"), "../new", O_RDWR | O_CREAT, 0600), "new"); }
static void op_openat_path_dirfd(void)
{
    const long fd = say("open", RAW(SYS_openat, AT_FDCWD, "d", O_PATH | O_DIRECTORY, 0));
    put(RAW(SYS_openat, fd, "b.txt", O_RDWR, 0), "new");
}
static void op_openat2(void)
{
    const struct open_how how = { .flags = O_WRONLY | O_CREAT, .mode = 0640 };
    put(RAW(SYS_openat2, AT_FDCWD, "d/b.txt", &how, sizeof how), "new");
}
static void op_openat2_beneath(void)
{
    const struct open_how how = { .flags = O_WRONLY, .resolve = RESOLVE_BENEATH };
    put(RAW(SYS_openat2, directory("d"), "b.txt", &how, sizeof how), "new");
    put(RAW(SYS_openat2, directory("d"), "../a.txt", &how, sizeof how), "new");
}
static void op_symlink_write(void) { put(RAW(SYS_open, "link", O_WRONLY, 0), "new"); }
static void op_symlink_directory(void) { put(RAW(SYS_open, "dirlink/b.txt", O_WRONLY | O_APPEND, 0), "new"); }
static void op_symlink_nofollow(void) { put(RAW(SYS_open, "link", O_WRONLY | O_NOFOLLOW, 0), "new"); }
static void op_reopen_by_proc(void)
{
    char path[64];
    const long fd = say("open", RAW(SYS_open, "a.txt", O_RDONLY, 0));
    snprintf(path, sizeof path, "/proc/self/fd/%ld", fd);
    put(RAW(SYS_open, path, O_WRONLY, 0), "new");
}
static void op_proc_cwd(void) { put(RAW(SYS_open, "/proc/self/cwd/d/b.txt", O_WRONLY, 0), "new"); }
static void op_tmpfile(void)
{
    char path[64];
    const long fd = say("open", RAW(SYS_open, "d", O_RDWR | O_TMPFILE, 0600));
    say("write", RAW(SYS_write, fd, "tmp", 3));
    snprintf(path, sizeof path, "/proc/self/fd/%ld", fd);
    say("linkat", RAW(SYS_linkat, AT_FDCWD, path, AT_FDCWD, "d/named", AT_SYMLINK_FOLLOW));
}
static void op_mmap(void)
{
    const long fd = say("open", RAW(SYS_open, "a.txt", O_RDWR, 0));
    char *data = mmap(NULL, 4, PROT_READ | PROT_WRITE, MAP_SHARED, (int)fd, 0);
    if (data != MAP_FAILED)
        memcpy(data, "mmap", 4);
}
static void op_mmap_rdonly(void)
{
    const long fd = say("open", RAW(SYS_open, "a.txt", O_RDONLY, 0));
    say("mmap", RAW(SYS_mmap, 0, 4, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) < 0 ? -EACCES : 0);
}
static void op_copy_file_range(void)
{
    const long from = say("open", RAW(SYS_open, "d/b.txt", O_RDONLY, 0)), to = say("open", RAW(SYS_open, "a.txt", O_WRONLY, 0));
    say("copy", RAW(SYS_copy_file_range, from, 0, to, 0, 5, 0));
}
static void op_truncate(void) { say("truncate", RAW(SYS_truncate, "a.txt", 3)); }
static void op_truncate_up(void) { say("truncate", RAW(SYS_truncate, "a.txt", 30)); }
static void op_ftruncate(void)
{
    const long fd = say("open", RAW(SYS_open, "a.txt", O_RDWR, 0));
    say("ftruncate", RAW(SYS_ftruncate, fd, 2));
}
static void op_ftruncate_rdonly(void)
{
    const long fd = say("open", RAW(SYS_open, "a.txt", O_RDONLY, 0));
    say("ftruncate", RAW(SYS_ftruncate, fd, 2));
}
static void op_chmod(void) { say("chmod", RAW(SYS_chmod, "a.txt", 0600)); }
static void op_chmod_directory(void) { say("chmod", RAW(SYS_chmod, "d/e", 0700)); }
static void op_chmod_symlink(void) { say("chmod", RAW(SYS_chmod, "link", 0640)); }
static void op_fchmodat(void) { say("fchmodat", RAW(SYS_fchmodat, directory("d"), "b.txt", 0600)); }
static void op_fchmod(void)
{
    char text[8] = { 0 };
    const long fd = say("open", RAW(SYS_open, "a.txt", O_RDONLY | O_NONBLOCK, 0));
    say("read", RAW(SYS_read, fd, text, 2));
    say("fchmod", RAW(SYS_fchmod, fd, 0604));
    say("read", RAW(SYS_read, fd, text + 2, 3));
    printf("read %s, flags %lo\n", text, RAW(SYS_fcntl, fd, F_GETFL) & ~(long)O_NOFOLLOW);
}
static void op_fchmod_directory(void)
{
    const long fd = directory("d/e");
    say("fchmod", RAW(SYS_fchmod, fd, 0711));
}
static void op_chown(void) { say("chown", RAW(SYS_chown, "a.txt", geteuid(), getegid())); }
static void op_lchown(void) { say("lchown", RAW(SYS_lchown, "link", geteuid(), getegid())); }
static void op_fchownat(void) { say("fchownat", RAW(SYS_fchownat, AT_FDCWD, "link", geteuid(), getegid(), AT_SYMLINK_NOFOLLOW)); }
static void op_fchown(void)
{
    const long fd = say("open", RAW(SYS_open, "a.txt", O_RDONLY, 0));
    say("fchown", RAW(SYS_fchown, fd, geteuid(), getegid()));
}
static void op_utimensat(void) { say("utimensat", RAW(SYS_utimensat, AT_FDCWD, "a.txt", then, 0)); }
static void op_utimensat_symlink(void) { say("utimensat", RAW(SYS_utimensat, AT_FDCWD, "link", then, AT_SYMLINK_NOFOLLOW)); }
static void op_futimens(void)
{
    const long fd = say("open", RAW(SYS_open, "a.txt", O_RDONLY, 0));
    say("utimensat", RAW(SYS_utimensat, fd, NULL, then, 0));
}
static void op_utimes(void)
{
    const struct timeval times[2] = { { 86400, 1 }, { 86401, 2 } };
    say("utimes", RAW(SYS_utimes, "a.txt", times));
    say("futimesat", RAW(SYS_futimesat, directory("d"), "b.txt", times));
}
static void op_utime(void)
{
    const struct utimbuf times = { 86400, 86402 };
    say("utime", RAW(SYS_utime, "a.txt", &times));
}
static void op_setxattr(void)
{
    say("setxattr", RAW(SYS_setxattr, "a.txt", "user.new", "v", 1, 0));
    say("lsetxattr", RAW(SYS_lsetxattr, "d/b.txt", "user.new", "w", 1, 0));
}
static void op_fsetxattr(void)
{
    const long fd = say("open", RAW(SYS_open, "a.txt", O_RDONLY, 0));
    say("fsetxattr", RAW(SYS_fsetxattr, fd, "user.new", "v", 1, 0));
}
static void op_removexattr(void) { say("removexattr", RAW(SYS_removexattr, "a.txt", "user.test")); }
static void op_fremovexattr(void)
{
    const long fd = say("open", RAW(SYS_open, "a.txt", O_RDONLY, 0));
    say("fremovexattr", RAW(SYS_fremovexattr, fd, "user.test"));
}
static void op_unlink(void)
{
    say("unlink", RAW(SYS_unlink, "a.txt"));
    say("unlink", RAW(SYS_unlink, "a.txt"));
    say("unlink", RAW(SYS_unlink, "link"));
    say("unlink", RAW(SYS_unlink, "d"));
}
static void op_unlinkat(void)
{
    const long fd = directory("d");
    say("unlinkat", RAW(SYS_unlinkat, fd, "b.txt", 0));
    say("unlinkat", RAW(SYS_unlinkat, fd, "e", AT_REMOVEDIR));
}
static void op_unlink_create(void)
{
    say("unlink", RAW(SYS_unlink, "a.txt"));
    put(RAW(SYS_open, "a.txt", O_WRONLY | O_CREAT | O_EXCL, 0600), "again");
}
static void op_rmdir(void)
{
    say("rmdir", RAW(SYS_rmdir, "d"));
    say("unlink", RAW(SYS_unlink, "d/e/deep.txt"));
    say("rmdir", RAW(SYS_rmdir, "d/e"));
    say("mkdir", RAW(SYS_mkdir, "d/e", 0755));
    put(RAW(SYS_open, "d/e/fresh", O_WRONLY | O_CREAT, 0600), "fresh");
}
static void op_rename(void) { say("rename", RAW(SYS_rename, "a.txt", "moved")); }
static void op_rename_over(void) { say("rename", RAW(SYS_rename, "a.txt", "d/b.txt")); }
static void op_rename_back(void)
{
    say("rename", RAW(SYS_rename, "a.txt", "d/x"));
    say("rename", RAW(SYS_rename, "d/x", "a.txt"));
}
static void op_renameat(void) { say("renameat", RAW(SYS_renameat, directory("d"), "b.txt", AT_FDCWD, "c.txt")); }
static void op_rename_exchange(void) { say("renameat2", RAW(SYS_renameat2, AT_FDCWD, "a.txt", AT_FDCWD, "d/b.txt", 2)); }
static void op_rename_noreplace(void)
{
    say("renameat2", RAW(SYS_renameat2, AT_FDCWD, "a.txt", AT_FDCWD, "d/b.txt", 1));
    say("renameat2", RAW(SYS_renameat2, AT_FDCWD, "a.txt", AT_FDCWD, "d/c.txt", 1));
}
static void op_rename_directory(void) { say("rename", RAW(SYS_rename, "d", "f")); }
static void op_atomic_replace(void)
{
    put(RAW(SYS_open, "a.txt.tmp", O_WRONLY | O_CREAT | O_EXCL, 0644), "replaced");
    say("rename", RAW(SYS_rename, "a.txt.tmp", "a.txt"));
}
static void op_mkdir(void)
{
    say("mkdir", RAW(SYS_mkdir, "n", 0750));
    say("mkdirat", RAW(SYS_mkdirat, directory("d"), "n", 0700));
    say("mkdir", RAW(SYS_mkdir, "d", 0700));
    put(RAW(SYS_open, "n/x", O_WRONLY | O_CREAT, 0600), "x");
}
static void op_umask(void)
{
    RAW(SYS_umask, 027);
    say("mkdir", RAW(SYS_mkdir, "n", 0777));
    put(RAW(SYS_open, "u", O_WRONLY | O_CREAT, 0666), "x");
}
static void op_mknod(void)
{
    say("mknod", RAW(SYS_mknod, "fifo", S_IFIFO | 0600, 0));
    say("mknodat", RAW(SYS_mknodat, directory("d"), "fifo", S_IFIFO | 0640, 0));
    say("mknod", RAW(SYS_mknod, "a.txt", S_IFIFO | 0600, 0));
}
static void op_symlink(void)
{
    say("symlink", RAW(SYS_symlink, "a.txt", "s"));
    say("symlinkat", RAW(SYS_symlinkat, "../a.txt", directory("d"), "s"));
    put(RAW(SYS_open, "d/s", O_WRONLY, 0), "by link");
}
static void op_link(void)
{
    say("link", RAW(SYS_link, "a.txt", "hard"));
    say("linkat", RAW(SYS_linkat, AT_FDCWD, "d/b.txt", directory("d"), "hard", 0));
    put(RAW(SYS_open, "hard", O_WRONLY, 0), "both");
}
static void op_readlink(void)
{
    char text[256] = { 0 };
    say("readlink", RAW(SYS_readlink, "link", text, sizeof text - 1));
    printf("%s\n", text);
    memset(text, 0, sizeof text);
    say("readlinkat", RAW(SYS_readlinkat, AT_FDCWD, "dirlink", text, 1));
    printf("%s\n", text);
}
static void op_access(void)
{
    say("access", RAW(SYS_access, "a.txt", R_OK));
    say("access", RAW(SYS_access, "none", F_OK));
    say("faccessat", RAW(SYS_faccessat, AT_FDCWD, "a.txt", X_OK));
    say("faccessat2", RAW(SYS_faccessat2, AT_FDCWD, "d", X_OK, AT_EACCESS));
}
static void op_statx(void)
{
    struct statx info;
    struct stat old;
    put(RAW(SYS_open, "a.txt", O_WRONLY | O_APPEND, 0), "longer");
    say("statx", RAW(SYS_statx, AT_FDCWD, "a.txt", 0, STATX_BASIC_STATS, &info));
    printf("size %llu\n", (unsigned long long)info.stx_size);
    say("stat", RAW(SYS_stat, "a.txt", &old));
    printf("size %lld\n", (long long)old.st_size);
    const long fd = RAW(SYS_open, "a.txt", O_RDONLY, 0);
    struct stat open_one;
    say("fstat", RAW(SYS_fstat, fd, &open_one));
    printf("same %d\n", open_one.st_ino == old.st_ino && open_one.st_dev == old.st_dev && info.stx_ino == old.st_ino);
    say("fstatat", RAW(SYS_newfstatat, fd, "", &open_one, AT_EMPTY_PATH));
    printf("same %d\n", open_one.st_ino == old.st_ino && open_one.st_dev == old.st_dev);
}
static void op_chdir(void)
{
    char text[4200] = { 0 };
    say("chdir", RAW(SYS_chdir, "d"));
    put(RAW(SYS_open, "b.txt", O_WRONLY, 0), "new");
    put(RAW(SYS_open, "../a.txt", O_WRONLY, 0), "new");
    say("getcwd", RAW(SYS_getcwd, text, sizeof text));
    printf("%s\n", text);
    say("chdir", RAW(SYS_chdir, root));
}
static void op_chdir_new(void)
{
    char text[4200] = { 0 };
    say("mkdir", RAW(SYS_mkdir, "d/n", 0755));
    say("chdir", RAW(SYS_chdir, "d/n"));
    put(RAW(SYS_open, "x", O_WRONLY | O_CREAT, 0600), "new");
    put(RAW(SYS_open, "../b.txt", O_WRONLY, 0), "new");
    say("getcwd", RAW(SYS_getcwd, text, sizeof text));
    printf("%s\n", text);
    say("chdir", RAW(SYS_chdir, "../.."));
}
static void op_fchdir(void)
{
    say("fchdir", RAW(SYS_fchdir, directory("d/e")));
    put(RAW(SYS_open, "deep.txt", O_WRONLY, 0), "new");
    put(RAW(SYS_open, "../new", O_WRONLY | O_CREAT, 0600), "new");
    say("chdir", RAW(SYS_chdir, root));
}
static void *in_a_thread(void *argument)
{
    say("unshare", RAW(SYS_unshare, CLONE_FS));
    say("chdir", RAW(SYS_chdir, "d"));
    put(RAW(SYS_open, "b.txt", O_WRONLY, 0), "thread");
    RAW(SYS_umask, 077);
    put(RAW(SYS_open, "private", O_WRONLY | O_CREAT, 0666), "thread");
    return argument;
}
static void op_thread_directory(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, in_a_thread, NULL);
    pthread_join(thread, NULL);
    put(RAW(SYS_open, "a.txt", O_WRONLY, 0), "first");
    put(RAW(SYS_open, "public", O_WRONLY | O_CREAT, 0666), "first");
}
#include "raw_sockets.h"
static void op_inotify(void)
{
    char events[512];
    const long fd = RAW(SYS_inotify_init1, IN_NONBLOCK);
    say("mkdir", RAW(SYS_mkdir, "n", 0755));
    say("watch", RAW(SYS_inotify_add_watch, fd, "n", IN_CREATE));
    put(RAW(SYS_open, "n/x", O_WRONLY | O_CREAT, 0600), "new");
    say("event", RAW(SYS_read, fd, events, sizeof events));
}
static void op_statfs(void)
{
    char buffer[256];
    say("statfs", RAW(SYS_statfs, "d", buffer));
    say("statfs", RAW(SYS_statfs, "none", buffer));
}
static void op_fork(void)
{
    const long pid = RAW(SYS_fork);
    if (pid == 0) {
        RAW(SYS_truncate, "a.txt", 1);
        RAW(SYS_exit_group, 0);
    }
    RAW(SYS_wait4, pid, 0, 0, 0);
    put(RAW(SYS_open, "a.txt", O_WRONLY | O_APPEND, 0), "parent");
}
static void op_vfork_exec(void)
{
    static char *arguments[] = { "./program", "argument", NULL }, *none[] = { NULL };
    put(RAW(SYS_open, "program", O_WRONLY | O_CREAT, 0755), "#!/bin/sh\necho \"$0 $1\" >from-program\necho by-program >>a.txt\n");
    const pid_t pid = vfork();
    if (pid == 0) {
        const long failed = RAW(SYS_execve, arguments[0], arguments, none);
        _exit(failed ? 99 : 98);
    }
    int status = 0;
    RAW(SYS_wait4, pid, &status, 0, 0);
    printf("status %d\n", status);
}
static void op_exec_missing(void)
{
    static char *arguments[] = { "none", NULL };
    say("execve", RAW(SYS_execve, "./none", arguments, NULL));
    say("execve", RAW(SYS_execve, "./a.txt", arguments, NULL));
    say("execve", RAW(SYS_execve, "./d", arguments, NULL));
}
static void op_faults(void)
{
    say("open", RAW(SYS_open, 8, O_RDONLY, 0));
    say("open", RAW(SYS_open, "", O_RDONLY, 0));
    say("stat", RAW(SYS_stat, "a.txt", 8));
    say("openat", RAW(SYS_openat, 999, "a.txt", O_RDONLY, 0));
    say("mkdir", RAW(SYS_mkdir, 8, 0755));
    say("rename", RAW(SYS_rename, "a.txt", 8));
    static char longest[5000];
    memset(longest, 'x', sizeof longest - 1);
    say("open", RAW(SYS_open, longest, O_RDONLY, 0));
    longest[256] = 0;
    say("open", RAW(SYS_open, longest, O_RDWR | O_CREAT, 0600));
    longest[255] = 0;
    put(RAW(SYS_open, longest, O_RDWR | O_CREAT, 0600), "255");
    put(RAW(SYS_open, "\377\376 \n", O_RDWR | O_CREAT, 0600), "bytes");
    /* A string that ends just before memory that is not there. */
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    memcpy(page + 4096 - 6, "a.txt", 6);
    put(RAW(SYS_open, page + 4096 - 6, O_WRONLY, 0), "edge");
    page[4095] = 'x';
    say("open", RAW(SYS_open, page + 4096 - 6, O_WRONLY, 0));
}

static const struct {
    const char *name;
    void (*run)(void);
} operations[] = {
#define OP(name) { #name, op_##name },
    OP(none) OP(open) OP(open_absolute) OP(open_dots) OP(open_trunc) OP(open_append) OP(open_rdonly_trunc) OP(open_empty)
    OP(open_new) OP(open_excl) OP(open_missing) OP(open_directory) OP(creat) OP(openat) OP(openat_dirfd)
    OP(openat_dirfd_new) OP(openat_path_dirfd) OP(openat2) OP(openat2_beneath) OP(symlink_write) OP(symlink_directory)
    OP(symlink_nofollow) OP(reopen_by_proc) OP(proc_cwd) OP(tmpfile) OP(mmap) OP(mmap_rdonly) OP(copy_file_range)
    OP(truncate) OP(truncate_up) OP(ftruncate) OP(ftruncate_rdonly) OP(chmod) OP(chmod_directory) OP(chmod_symlink)
    OP(fchmodat) OP(fchmod) OP(fchmod_directory) OP(chown) OP(lchown) OP(fchownat) OP(fchown) OP(utimensat)
    OP(utimensat_symlink) OP(futimens) OP(utimes) OP(utime) OP(setxattr) OP(fsetxattr) OP(removexattr) OP(fremovexattr)
    OP(unlink) OP(unlinkat) OP(unlink_create) OP(rmdir) OP(rename) OP(rename_over) OP(rename_back) OP(renameat)
    OP(rename_exchange) OP(rename_noreplace) OP(rename_directory) OP(atomic_replace) OP(mkdir) OP(umask) OP(mknod)
    OP(symlink) OP(link) OP(readlink) OP(access) OP(statx) OP(chdir) OP(chdir_new) OP(fchdir) OP(thread_directory) OP(socket) OP(datagrams) OP(inotify)
    OP(statfs) OP(fork) OP(vfork_exec) OP(exec_missing) OP(faults)
};

int main(int argc, char **argv)
{
    const size_t count = sizeof operations / sizeof operations[0];
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    if (argc == 2 && strcmp(argv[1], "list") == 0)
        for (size_t i = 0; i < count; i++)
            puts(operations[i].name);
    if (argc != 3)
        return argc == 2 ? 0 : 2;
    root = argv[2];
    RAW(SYS_umask, 022);
    size_t found = 0;
    while (found < count && strcmp(argv[1], operations[found].name) != 0)
        found++;
    if (found == count)
        return 2;
    operations[found].run();
    show(".");
    return 0;
}
