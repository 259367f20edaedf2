/* Opening, by every way that libc has. */
#include "ops.h"

#include <linux/openat2.h>

int __open_2(const char *, int);
int __open64_2(const char *, int);
int __openat_2(int, const char *, int);

OP(open_wronly) { put(FD(open("a.txt", O_WRONLY)), "XY"); cat("a.txt"); }
OP(open_rdwr) { put(FD(open("dir/f1", O_RDWR)), "XY"); cat("dir/f1"); }
OP(open_append) { put(FD(open("a.txt", O_WRONLY | O_APPEND)), "more"); cat("a.txt"); }
OP(open_trunc) { put(FD(open("a.txt", O_WRONLY | O_TRUNC)), "T"); cat("a.txt"); }
OP(open_rdonly_trunc) { FD(open("a.txt", O_RDONLY | O_TRUNC)); cat("a.txt"); }
OP(open_empty) { put(FD(open("empty", O_WRONLY)), "now full"); cat("empty"); }
OP(open_creat_existing) { put(FD(open("a.txt", O_WRONLY | O_CREAT, 0600)), "Z"); cat("a.txt"); }
OP(open_creat_new) { put(FD(open("fresh", O_WRONLY | O_CREAT, 0640)), "new"); cat("fresh"); stat_line("fresh"); }
OP(open_creat_deep) { put(FD(open("d/e/e/p/fresh", O_WRONLY | O_CREAT, 0644)), "new"); cat("d/e/e/p/fresh"); }
OP(open_excl_existing) { FD(open("a.txt", O_WRONLY | O_CREAT | O_EXCL, 0644)); }
OP(open_excl_link) { FD(open("dangling", O_WRONLY | O_CREAT | O_EXCL, 0644)); }
OP(open_dangling) { put(FD(open("dangling", O_WRONLY | O_CREAT, 0644)), "made"); cat("nowhere"); }
OP(open_directory) { FD(open("dir", O_WRONLY)); FD(open("dir", O_RDONLY | O_CREAT, 0644)); FD(open("dir", O_RDONLY)); FD(open("dir", O_RDONLY | O_TRUNC)); }
OP(open_missing) { FD(open("no", O_RDONLY)); FD(open("no/no", O_WRONLY | O_CREAT, 0644)); FD(open("a.txt/x", O_RDONLY)); FD(open("", O_RDONLY)); }
OP(open_slash) { FD(open("a.txt/", O_RDONLY)); FD(open("fresh/", O_WRONLY | O_CREAT, 0644)); FD(open("dir/", O_RDONLY)); FD(open("dlink/", O_RDONLY)); }
OP(open_nofollow) { FD(open("link", O_RDONLY | O_NOFOLLOW)); FD(open("link", O_WRONLY | O_NOFOLLOW)); FD(open("link", O_PATH | O_NOFOLLOW)); }
OP(open_loop) { FD(open("loop1", O_RDONLY)); FD(open("loop1", O_WRONLY | O_CREAT, 0644)); }
OP(open_read_only_file)
{
    stat_line("ro");
    int fd = FD(open("ro", O_WRONLY));
    if (fd >= 0)
        put(fd, "root");
    cat("ro");
}
OP(open_fortify) { put(FD(__open_2("a.txt", O_WRONLY)), "2"); put(FD(__open64_2("dir/f1", O_WRONLY)), "6"); put(FD(__openat_2(AT_FDCWD, "dir/f2", O_WRONLY)), "a"); cat("a.txt"); cat("dir/f1"); cat("dir/f2"); }
OP(open_64) { put(FD(open64("a.txt", O_WRONLY)), "64"); put(FD(openat64(AT_FDCWD, "dir/f1", O_WRONLY)), "64"); put(FD(creat64("dir/f2", 0644)), "64"); cat("a.txt"); cat("dir/f1"); cat("dir/f2"); }
OP(openat_cwd) { put(FD(openat(AT_FDCWD, "a.txt", O_WRONLY)), "XY"); cat("a.txt"); }
OP(openat_dirfd)
{
    int dir = FD(open("dir", O_RDONLY | O_DIRECTORY));
    put(FD(openat(dir, "f1", O_WRONLY)), "XY");
    put(FD(openat(dir, "sub/g", O_WRONLY | O_APPEND)), "XY");
    put(FD(openat(dir, "../a.txt", O_WRONLY)), "XY");
    cat("dir/f1"), cat("dir/sub/g"), cat("a.txt");
}
OP(openat_new_dirfd)
{
    R(mkdir("newdir", 0755));
    int dir = FD(open("newdir", O_RDONLY | O_DIRECTORY));
    put(FD(openat(dir, "f", O_WRONLY | O_CREAT, 0644)), "in");
    cat("newdir/f");
    list("newdir");
}
OP(openat_path_fd)
{
    int dir = FD(open("dir", O_PATH | O_DIRECTORY));
    put(FD(openat(dir, "f1", O_WRONLY)), "XY");
    cat("dir/f1");
}
OP(openat_bad) { FD(openat(77, "x", O_RDONLY)); int fd = open("a.txt", O_RDONLY); FD(openat(fd, "x", O_RDONLY)); }
OP(openat_absolute) { put(FD(openat(77, in_top("a.txt"), O_WRONLY)), "abs"); cat(in_top("a.txt")); }
OP(creat) { put(FD(creat("a.txt", 0600)), "c"); put(FD(creat("fresh", 0600)), "c"); cat("a.txt"); stat_line("a.txt"); stat_line("fresh"); }
OP(via_symlink) { put(FD(open("link", O_WRONLY)), "L"); cat("a.txt"); cat("link"); stat_line("link"); }
OP(via_symdir) { put(FD(open("dlink/f1", O_WRONLY)), "L"); cat("dir/f1"); put(FD(open("dlink/fresh", O_WRONLY | O_CREAT, 0644)), "L"); list("dir"); }
OP(via_dotdot) { put(FD(open("dir/../a.txt", O_WRONLY)), "D"); put(FD(open("dlink/sub/../f1", O_WRONLY)), "D"); put(FD(open("./dir//./f2", O_WRONLY)), "D"); cat("a.txt"), cat("dir/f1"), cat("dir/f2"); }
OP(fopen_w) { FILE *f = fopen("a.txt", "w"); R(fputs("w", f)); R(fclose(f)); cat("a.txt"); }
OP(fopen_a) { FILE *f = fopen("a.txt", "a"); R(fputs("a", f)); R(ftell(f)); R(fclose(f)); cat("a.txt"); }
OP(fopen_rplus) { FILE *f = fopen("a.txt", "r+"); R(fputs("+", f)); R(fclose(f)); cat("a.txt"); }
OP(fopen_we) { FILE *f = fopen("a.txt", "we"); R(fcntl(fileno(f), F_GETFD)); R(fputs("e", f)); R(fclose(f)); cat("a.txt"); }
OP(fopen_x) { R(fopen("a.txt", "wx") != NULL); FILE *f = fopen("fresh", "wx"); R(f != NULL); R(fclose(f)); stat_line("fresh"); }
OP(fopen_bad) { R(fopen("no/x", "r") != NULL); R(fopen("a.txt", "q") != NULL); }
OP(fopen_64) { FILE *f = fopen64("a.txt", "w"); R(fputs("64", f)); R(fclose(f)); cat("a.txt"); }
OP(fopen_ccs) { FILE *f = fopen("a.txt", "w,ccs=UTF-8"); R(f != NULL); R(fclose(f)); stat_line("a.txt"); }
OP(freopen_w) { FILE *f = fopen("dir/f1", "r"); f = freopen("a.txt", "w", f); R(f != NULL); R(fputs("re", f)); R(fclose(f)); cat("a.txt"); }
OP(freopen_a) { FILE *f = fopen("dir/f1", "r"); f = freopen("fresh", "a+", f); R(f != NULL); R(fputs("re", f)); R(fclose(f)); cat("fresh"); }
OP(freopen_missing) { FILE *f = fopen("dir/f1", "r"); R(freopen("no/x", "r", f) != NULL); }
OP(o_tmpfile)
{
    char name[64];
    int fd = FD(open("dir", O_TMPFILE | O_RDWR, 0644));
    R(write(fd, "tmp", 3));
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    R(linkat(AT_FDCWD, name, AT_FDCWD, "dir/linked", AT_SYMLINK_FOLLOW));
    cat("dir/linked");
    list("dir");
}
OP(o_tmpfile_read) { FD(open("dir", O_TMPFILE | O_RDONLY, 0644)); FD(open("a.txt", O_TMPFILE | O_RDWR, 0644)); }
OP(mkstemp) { char name[] = "dir/tmpXXXXXX"; int fd = mkstemp(name); R(fd >= 0); R(write(fd, "t", 1)); R(unlink(name)); list("dir"); char bad[] = "dir/x"; R(mkstemp(bad)); }
OP(mkostemps) { char name[] = "dir/tmpXXXXXX.txt"; int fd = mkostemps(name, 4, O_APPEND); R(fd >= 0); R(rename(name, "dir/kept.txt")); stat_line("dir/kept.txt"); }
OP(mkdtemp) { char name[] = "dir/tmpXXXXXX"; R(mkdtemp(name) != NULL); R(rename(name, "dir/made")); stat_line("dir/made"); }
OP(mkstemp_absolute) { char name[4200]; snprintf(name, sizeof name, "%s/XXXXXX", top); int fd = mkstemp(name); R(fd >= 0); R(rename(name, "got")); stat_line("got"); }
OP(tempnam) { setenv("TMPDIR", in_top("dir"), 1); char *name = tempnam(NULL, "pre"); R(strncmp(name, in_top("dir/pre"), strlen(top) + 8)); put(FD(open(name, O_CREAT | O_WRONLY, 0644)), "x"); R(rename(name, "got")); }
OP(tmpfile) { FILE *f = tmpfile(); R(f != NULL); R(fputs("x", f)); R(fclose(f)); }
OP(openat2)
{
    struct open_how how = { .flags = O_WRONLY };
    put(FD((int)syscall(SYS_openat2, AT_FDCWD, "a.txt", &how, sizeof how)), "o2");
    how.resolve = RESOLVE_NO_SYMLINKS;
    FD((int)syscall(SYS_openat2, AT_FDCWD, "link", &how, sizeof how));
    how.resolve = RESOLVE_BENEATH;
    int dir = open("dir", O_RDONLY | O_DIRECTORY);
    put(FD((int)syscall(SYS_openat2, dir, "f1", &how, sizeof how)), "b");
    FD((int)syscall(SYS_openat2, dir, "../a.txt", &how, sizeof how));
    cat("a.txt"), cat("dir/f1");
}
OP(syscall_open) { put(FD((int)syscall(SYS_openat, AT_FDCWD, "a.txt", O_WRONLY)), "sys"); cat("a.txt"); }
OP(syscall_unlink) { R(syscall(SYS_unlinkat, AT_FDCWD, "a.txt", 0)); stat_line("a.txt"); }
OP(syscall_many)
{
    R(syscall(SYS_renameat2, AT_FDCWD, "a.txt", AT_FDCWD, "b.txt", 0));
    R(syscall(SYS_mkdirat, AT_FDCWD, "made", 0755));
    R(syscall(SYS_fchmodat, AT_FDCWD, "dir/f1", 0600));
    R(syscall(SYS_truncate, "dir/f2", 1));
    R(syscall(SYS_symlinkat, "x", AT_FDCWD, "ln"));
    R(syscall(SYS_linkat, AT_FDCWD, "b.txt", AT_FDCWD, "c.txt", 0));
    list(".");
    stat_line("dir/f1"), stat_line("dir/f2");
}
OP(proc_fd_reopen)
{
    char name[64];
    int fd = FD(open("a.txt", O_RDONLY));
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    put(open(name, O_WRONLY), "re");
    cat("a.txt");
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    put(open(name, O_WRONLY | O_APPEND), "re");
    cat("a.txt");
}
OP(proc_fd_readlink)
{
    char name[64], text[4200];
    int fd = FD(open("a.txt", O_RDWR));
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, text, sizeof text - 1);
    text[length < 0 ? 0 : length] = 0;
    R(strcmp(text, in_top("a.txt")));
    length = readlink("/proc/self/cwd", text, sizeof text - 1);
    text[length < 0 ? 0 : length] = 0;
    R(strcmp(text, top));
}
OP(proc_cwd_path) { put(FD(open("/proc/self/cwd/a.txt", O_WRONLY)), "cwd"); cat("a.txt"); }
OP(dup_write) { int fd = FD(open("a.txt", O_RDWR)); int other = dup(fd); R(write(other, "dup", 3)); R(close(other)); R(lseek(fd, 0, SEEK_CUR)); cat("a.txt"); }
OP(reader_sees_copy)
{
    char text[16] = "";
    int reader = open("empty", O_RDONLY), writer = FD(open("empty", O_RDWR));
    R(write(writer, "w", 1));
    close(reader);
    reader = open("empty", O_RDONLY);
    R(read(reader, text, sizeof text));
}
