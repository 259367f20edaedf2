/* Modes, owners, times, sizes, attributes; and what stat, access and their kin say. */
#include "ops.h"

#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <sys/xattr.h>
#include <utime.h>

int __xstat(int, const char *, struct stat *);
int __lxstat(int, const char *, struct stat *);
int __fxstat(int, int, struct stat *);
int __fxstatat(int, int, const char *, struct stat *, int);

static const struct timespec PAST[2] = { { 1000000000, 5 }, { 1100000000, 7 } };

static void times_of(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        printf("%s: %ld.%ld %ld.%ld\n", path, (long)st.st_atim.tv_sec, st.st_atim.tv_nsec, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

static void mtime_of(const char *path)
{
    struct stat st;
    if (lstat(path, &st) == 0)
        printf("%s: %ld.%ld\n", path, st.st_mtime > 1600000000 ? 0L : (long)st.st_mtim.tv_sec, st.st_mtime > 1600000000 ? 0L : st.st_mtim.tv_nsec);
}

OP(chmod) { R(chmod("a.txt", 0600)); stat_line("a.txt"); cat("a.txt"); R(chmod("no", 0600)); R(chmod("link", 0640)); stat_line("a.txt"); stat_line("link"); }
OP(chmod_dir) { R(chmod("dir", 0700)); stat_line("dir"); list("dir"); R(chmod("dir/.", 0711)); stat_line("dir"); R(chmod(".", 0710)); stat_line("."); }
OP(fchmodat) { int dir = open("dir", O_RDONLY | O_DIRECTORY); R(fchmodat(dir, "f1", 0600, 0)); stat_line("dir/f1"); R(fchmodat(AT_FDCWD, "link", 0600, AT_SYMLINK_NOFOLLOW)); }
OP(fchmod_rdonly) { int fd = open("a.txt", O_RDONLY); char c; R(read(fd, &c, 1)); R(fchmod(fd, 0600)); stat_line("a.txt"); R(lseek(fd, 0, SEEK_CUR)); R(read(fd, &c, 1)); R(c); R(fcntl(fd, F_GETFL) & O_ACCMODE); }
OP(fchmod_dir) { int fd = open("dir", O_RDONLY | O_DIRECTORY | O_CLOEXEC); R(fchmod(fd, 0700)); stat_line("dir"); R(fcntl(fd, F_GETFD)); R(openat(fd, "f1", O_RDONLY) >= 0); }
OP(fchmod_gone) { int fd = open("fresh", O_RDWR | O_CREAT, 0644); R(unlink("fresh")); R(fchmod(fd, 0600)); struct stat st; R(fstat(fd, &st)); R(st.st_mode); }
OP(lchmod) { R(lchmod("a.txt", 0600)); stat_line("a.txt"); R(lchmod("link", 0600)); }
OP(chown) { R(chown("a.txt", 1, 2)); stat_line("a.txt"); R(chown("link", 3, -1)); stat_line("a.txt"); R(chown("no", 1, 1)); }
OP(fchownat) { R(fchownat(AT_FDCWD, "dir/f1", 5, 6, 0)); stat_line("dir/f1"); R(fchownat(AT_FDCWD, "link", 5, 6, AT_SYMLINK_NOFOLLOW)); stat_line("link"); int fd = open("dir/f2", O_RDONLY); R(fchownat(fd, "", 8, 9, AT_EMPTY_PATH)); stat_line("dir/f2"); }
OP(lchown_sym) { R(lchown("link", 4, 4)); stat_line("link"); stat_line("a.txt"); R(lchown("dangling", 4, 4)); stat_line("dangling"); }
OP(fchown_rdonly) { int fd = open("a.txt", O_RDONLY); R(fchown(fd, 7, 7)); stat_line("a.txt"); }
OP(setuid_kept) { R(chmod("exec.sh", 04755)); put(open("exec.sh", O_WRONLY | O_APPEND), "#\n"); stat_line("exec.sh"); }
OP(utimensat) { R(utimensat(AT_FDCWD, "a.txt", PAST, 0)); times_of("a.txt"); R(utimensat(AT_FDCWD, "link", PAST, AT_SYMLINK_NOFOLLOW)); times_of("link"); R(utimensat(AT_FDCWD, "no", PAST, 0)); struct timespec omit[2] = { { 0, UTIME_OMIT }, { 1200000000, 0 } }; R(utimensat(AT_FDCWD, "a.txt", omit, 0)); times_of("a.txt"); }
OP(utimes) { struct timeval t[2] = { { 1000000000, 5 }, { 1100000000, 7 } }; R(utimes("a.txt", t)); times_of("a.txt"); R(lutimes("link", t)); times_of("link"); R(futimesat(AT_FDCWD, "dir/f1", t)); times_of("dir/f1"); t[0].tv_usec = 1000000; R(utimes("a.txt", t)); }
OP(utime) { struct utimbuf t = { 1000000000, 1100000000 }; R(utime("a.txt", &t)); times_of("a.txt"); R(utime("dir", &t)); times_of("dir"); list("dir"); }
OP(utime_now) { struct stat st; R(utime("a.txt", NULL)); stat("a.txt", &st); R(st.st_mtime > 1600000000); }
OP(futimens_rdonly) { int fd = open("a.txt", O_RDONLY); R(futimens(fd, PAST)); times_of("a.txt"); struct timeval t[2] = { { 1, 0 }, { 2, 0 } }; R(futimes(fd, t)); times_of("a.txt"); fd = open("dir", O_RDONLY); R(futimens(fd, PAST)); times_of("dir"); }
OP(times_kept) { mtime_of("dir"); put(open("dir/f1", O_WRONLY), "x"); mtime_of("dir"); R(chmod("dir/f2", 0600)); mtime_of("dir"); mtime_of("dir/f2"); mtime_of("d/e"); put(open("d/e/e/p/x", O_WRONLY), "x"); mtime_of("d/e"); mtime_of("d/e/e/p"); }
OP(truncate) { R(truncate("a.txt", 2)); cat("a.txt"); R(truncate("a.txt", 0)); cat("a.txt"); R(truncate("dir", 0)); R(truncate("no", 0)); R(truncate("a.txt", -1)); R(truncate64("big", 10)); stat_line("big"); R(truncate("link", 1)); stat_line("a.txt"); }
OP(ftruncate) { int fd = open("a.txt", O_RDWR); R(ftruncate(fd, 1)); R(fallocate(fd, 0, 0, 10)); R(close(fd)); stat_line("a.txt"); fd = open("dir/f1", O_RDONLY); R(ftruncate(fd, 0)); }
OP(setxattr) { char v[16]; R(setxattr("a.txt", "user.x", "1", 1, 0)); R(getxattr("a.txt", "user.x", v, 16)); R(setxattr("attr", "user.color", "blue", 4, XATTR_CREATE)); R(setxattr("attr", "user.color", "blue", 4, XATTR_REPLACE)); R(setxattr("link", "user.y", "2", 1, 0)); R(listxattr("a.txt", NULL, 0)); R(lsetxattr("dir", "user.d", "d", 1, 0)); R(setxattr("no", "user.x", "1", 1, 0)); }
OP(fsetxattr_rdonly) { int fd = open("a.txt", O_RDONLY); R(fsetxattr(fd, "user.x", "1", 1, 0)); char v[16]; R(fgetxattr(fd, "user.x", v, 16)); R(getxattr("a.txt", "user.x", v, 16)); R(flistxattr(fd, v, 16)); R(fremovexattr(fd, "user.x")); R(getxattr("a.txt", "user.x", v, 16)); }
OP(removexattr) { R(removexattr("attr", "user.color")); R(removexattr("attr", "user.color")); char v[64]; R(llistxattr("attr", v, 64)); R(lremovexattr("a.txt", "user.no")); }
OP(xattr_read) { char v[64]; R(getxattr("attr", "user.color", v, 64)); R(lgetxattr("attr", "user.color", v, 1)); R(listxattr("attr", v, 64)); R(getxattr("a.txt", "user.color", v, 64)); R(listxattr("dir", v, 64)); R(getxattr("dir", "user.overlay.opaque", v, 64)); }
OP(xattr_survives) { char v[64] = ""; put(open("attr", O_WRONLY | O_APPEND), "x"); R(getxattr("attr", "user.color", v, 64)); R(strcmp(v, "red")); }
OP(stat_all)
{
    struct stat st;
    struct stat64 st64;
    R(stat("link", &st)), R(st.st_size), R(lstat("link", &st)), R(S_ISLNK(st.st_mode));
    R(stat64("a.txt", &st64)), R(lstat64("link", &st64)), R(fstatat(AT_FDCWD, "dir/f1", &st, 0)), R(fstatat64(AT_FDCWD, "link", &st64, AT_SYMLINK_NOFOLLOW));
    R(__xstat(1, "a.txt", &st)), R(st.st_size), R(__lxstat(1, "link", &st)), R(__fxstatat(1, AT_FDCWD, "a.txt", &st, 0));
    int fd = open("a.txt", O_RDONLY);
    R(fstat(fd, &st)), R(fstat64(fd, &st64)), R(__fxstat(1, fd, &st)), R(fstatat(fd, "", &st, AT_EMPTY_PATH)), R(st.st_size);
    R(stat("no", &st)), R(stat("a.txt/", &st)), R(stat("dangling", &st)), R(stat("loop1", &st)), R(stat("", &st)), R(fstatat(77, "x", &st, 0));
    R(unlink("a.txt"));
    R(stat("a.txt", &st)), R(stat("link", &st)), R(lstat("link", &st)), R(__xstat(1, "a.txt", &st));
}
OP(statx)
{
    struct statx sx;
    R(statx(AT_FDCWD, "a.txt", 0, STATX_ALL, &sx)), R(sx.stx_size);
    put(open("a.txt", O_WRONLY | O_APPEND), "more");
    R(statx(AT_FDCWD, "a.txt", 0, STATX_ALL, &sx)), R(sx.stx_size), R(sx.stx_nlink), R(sx.stx_ino == ino_of("a.txt"));
    R(statx(AT_FDCWD, "link", AT_SYMLINK_NOFOLLOW, STATX_ALL, &sx)), R(S_ISLNK(sx.stx_mode));
    int fd = open("a.txt", O_RDONLY);
    R(statx(fd, "", AT_EMPTY_PATH, STATX_ALL, &sx)), R(sx.stx_ino == ino_of("a.txt"));
    R(statx(AT_FDCWD, "no", 0, STATX_ALL, &sx)), R(statx(AT_FDCWD, "fresh/x", 0, STATX_ALL, &sx));
}
OP(fstat_same_ino)
{
    struct stat a, b;
    const ino_t before = ino_of("a.txt"), dir = ino_of("dir"), below = ino_of("dir/f1");
    put(open("a.txt", O_WRONLY), "x"), put(open("dir/f1", O_WRONLY), "x");
    R(before == ino_of("a.txt")), R(dir == ino_of("dir")), R(below == ino_of("dir/f1"));
    int fd = open("a.txt", O_RDONLY);
    R(fstat(fd, &a)), R(lstat("a.txt", &b)), R(a.st_ino == b.st_ino && a.st_dev == b.st_dev), R(a.st_ino == before);
    fd = open("dir", O_RDONLY);
    R(fstat(fd, &a)), R(lstat("dir", &b)), R(a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    R(rename("a.txt", "z")), R(before == ino_of("z"));
}
OP(access) { R(access("a.txt", R_OK | W_OK)); R(access("exec.sh", X_OK)); R(access("a.txt", X_OK)); R(access("no", F_OK)); R(access("dangling", F_OK)); R(faccessat(AT_FDCWD, "dangling", F_OK, AT_SYMLINK_NOFOLLOW)); R(eaccess("dir/f1", W_OK)); R(euidaccess("dir", X_OK)); R(unlink("dir/f1")); R(access("dir/f1", F_OK)); R(access("a.txt", 99)); }
OP(readlink) { char t[64]; R(readlink("link", t, 64)); R(readlink("link", t, 2)); R(readlink("a.txt", t, 64)); R(readlink("no", t, 64)); R(readlinkat(AT_FDCWD, "dangling", t, 64)); R(unlink("link")); R(readlink("link", t, 64)); R(symlink("longer/target", "link")); R(readlink("link", t, 64)); R(readlink("link", t, 0)); }
OP(statfs) { struct statfs s; struct statvfs v; R(statfs("a.txt", &s)); R(statvfs("dir", &v)); R(v.f_namemax); R(statfs("no", &s)); R(pathconf("dir", _PC_NAME_MAX)); R(pathconf("no", _PC_NAME_MAX)); int fd = open("a.txt", O_RDONLY); R(fstatfs(fd, &s)); }
OP(umask) { umask(077); close(open("u1", O_CREAT | O_WRONLY, 0666)); R(mkdir("u2", 0777)); R(unlink("a.txt")); close(open("a.txt", O_CREAT | O_WRONLY, 0666)); R(rmdir("emptydir")); R(mkdir("emptydir", 0777)); stat_line("u1"), stat_line("u2"), stat_line("a.txt"), stat_line("emptydir"); }
OP(setgid_dir) { R(chown("dir", -1, 7)); R(chmod("dir", 02775)); close(open("dir/n", O_CREAT | O_WRONLY, 0644)); R(mkdir("dir/nd", 0755)); R(unlink("dir/f1")); close(open("dir/f1", O_CREAT | O_WRONLY, 0644)); R(unlink("dir/f2")); R(mkdir("dir/f2", 0755)); stat_line("dir/n"), stat_line("dir/nd"), stat_line("dir/f1"), stat_line("dir/f2"); }
OP(sparse) { struct stat st; put(open("sparse", O_WRONLY), "s"); R(stat("sparse", &st)); R(st.st_size); R(st.st_blocks < 200); }
OP(big_copy) { put(open("big", O_WRONLY), "B"); stat_line("big"); }
OP(chattr) { int fd = open("fresh", O_RDWR | O_CREAT, 0644); struct stat st; R(fstat(fd, &st)); R(fchmod(fd, 0600)); stat_line("fresh"); }
