/* Names that go, come and move. */
#include "ops.h"

#include <linux/fs.h>

OP(unlink) { R(unlink("a.txt")); stat_line("a.txt"); cat("link"); list("."); R(unlink("a.txt")); }
OP(unlink_new) { close(open("fresh", O_CREAT, 0644)); R(unlink("fresh")); stat_line("fresh"); list("."); }
OP(unlink_errors) { R(unlink("dir")); R(unlink("no")); R(unlink("a.txt/")); R(unlink("a.txt/x")); R(unlink("dir/.")); }
OP(unlink_link) { R(unlink("link")); R(unlink("dangling")); cat("a.txt"); list("."); }
OP(unlink_create) { R(unlink("a.txt")); put(FD(open("a.txt", O_CREAT | O_EXCL | O_WRONLY, 0600)), "again"); cat("a.txt"); stat_line("a.txt"); R(unlink("a.txt")); stat_line("a.txt"); }
OP(unlink_mkdir) { R(unlink("a.txt")); R(mkdir("a.txt", 0755)); list("a.txt"); put(open("a.txt/in", O_CREAT | O_WRONLY, 0644), "x"); list("a.txt"); }
OP(unlink_open) { int fd = open("a.txt", O_RDWR); R(unlink("a.txt")); R(write(fd, "gone", 4)); stat_line("a.txt"); struct stat st; R(fstat(fd, &st)); R(st.st_nlink); }
OP(unlinkat) { int dir = open("dir", O_RDONLY | O_DIRECTORY); R(unlinkat(dir, "f1", 0)); R(unlinkat(dir, "sub", 0)); R(unlinkat(dir, "sub", AT_REMOVEDIR)); R(unlinkat(dir, "nodir", AT_REMOVEDIR)); list("dir"); }
OP(remove) { R(remove("a.txt")); R(remove("emptydir")); R(remove("dir")); list("."); }
OP(rmdir) { R(rmdir("emptydir")); stat_line("emptydir"); R(rmdir("emptydir")); }
OP(rmdir_errors) { R(rmdir("dir")); R(rmdir("a.txt")); R(rmdir("emptydir/.")); R(rmdir("dir/..")); R(rmdir("dlink")); R(rmdir("/")); }
OP(rmdir_tree) { R(unlink("dir/f1")); R(unlink("dir/f2")); R(unlink("dir/sub/g")); R(rmdir("dir/sub")); R(rmdir("dir")); list("."); FD(open("dir/f1", O_RDONLY)); FD(open("dir/fresh", O_CREAT | O_WRONLY, 0644)); }
OP(rmdir_mkdir_opaque) { R(unlink("dir/f1")); R(unlink("dir/f2")); R(unlink("dir/sub/g")); R(rmdir("dir/sub")); R(rmdir("dir")); R(mkdir("dir", 0700)); list("dir"); R(mkdir("dir/sub", 0700)); list("dir/sub"); FD(open("dir/f1", O_RDONLY)); R(rmdir("dir/sub")); R(rmdir("dir")); R(mkdir("dir", 0755)); }
OP(rmdir_changed) { put(open("emptydir/x", O_CREAT | O_WRONLY, 0644), "x"); R(rmdir("emptydir")); R(unlink("emptydir/x")); R(rmdir("emptydir")); }
OP(mkdir) { R(mkdir("made", 0751)); stat_line("made"); R(mkdir("made", 0755)); R(mkdir("dir", 0755)); R(mkdir("a.txt", 0755)); R(mkdir("dangling", 0755)); R(mkdir("made/in/", 0755)); R(mkdir("no/x", 0755)); R(mkdir("a.txt/x", 0755)); R(mkdir("d/e/new", 0755)); list("d/e"); }
OP(mkdirat) { int dir = open("dir", O_RDONLY | O_DIRECTORY); R(mkdirat(dir, "made", 0755)); R(mkdirat(dir, "made/b", 0755)); list("dir"); }
OP(rename_file) { R(rename("a.txt", "b.txt")); cat("b.txt"); stat_line("a.txt"); list("."); }
OP(rename_over) { R(rename("a.txt", "dir/f1")); cat("dir/f1"); stat_line("a.txt"); list("dir"); }
OP(rename_new_over) { put(open("fresh", O_CREAT | O_WRONLY, 0600), "fresh"); R(rename("fresh", "a.txt")); cat("a.txt"); stat_line("a.txt"); list("."); }
OP(atomic_replace) { put(open("a.txt.tmp", O_CREAT | O_WRONLY, 0644), "v2"); R(rename("a.txt.tmp", "a.txt")); put(open("a.txt.tmp", O_CREAT | O_WRONLY, 0644), "v3"); R(rename("a.txt.tmp", "a.txt")); cat("a.txt"); list("."); }
OP(rename_back) { R(rename("a.txt", "b.txt")); R(rename("b.txt", "a.txt")); cat("a.txt"); list("."); }
OP(rename_same) { R(rename("a.txt", "a.txt")); R(rename("a.txt", "./dir/../a.txt")); cat("a.txt"); R(link("a.txt", "same")); R(rename("a.txt", "same")); list("."); }
OP(rename_errors) { R(rename("no", "x")); R(rename("a.txt", "dir")); R(rename("dir", "a.txt")); R(rename("dir", "dir/sub/x")); R(rename("d", "dir")); R(rename("a.txt", "no/x")); R(rename("a.txt", "x/")); R(rename("dir/.", "x")); R(rename("dir/sub", "dir/..")); list("."); }
OP(renameat) { int a = open("dir", O_RDONLY | O_DIRECTORY), b = open("d/e", O_RDONLY | O_DIRECTORY); R(renameat(a, "f1", b, "moved")); cat("d/e/moved"); list("dir"); list("d/e"); }
OP(renameat2_exchange) { R(renameat2(AT_FDCWD, "a.txt", AT_FDCWD, "dir/f1", RENAME_EXCHANGE)); cat("a.txt"); cat("dir/f1"); R(renameat2(AT_FDCWD, "a.txt", AT_FDCWD, "no", RENAME_EXCHANGE)); }
OP(exchange_directories) { R(renameat2(AT_FDCWD, "dir", AT_FDCWD, "d", RENAME_EXCHANGE)); list("dir"); list("d"); cat("d/f1"); list("dir/e"); }
OP(exchange_mixed) { R(renameat2(AT_FDCWD, "dir", AT_FDCWD, "a.txt", RENAME_EXCHANGE)); list("a.txt"); cat("dir"); }
OP(renameat2_noreplace) { R(renameat2(AT_FDCWD, "a.txt", AT_FDCWD, "dir/f1", RENAME_NOREPLACE)); R(renameat2(AT_FDCWD, "a.txt", AT_FDCWD, "fresh", RENAME_NOREPLACE)); R(unlink("dir/f2")); R(renameat2(AT_FDCWD, "fresh", AT_FDCWD, "dir/f2", RENAME_NOREPLACE)); cat("dir/f2"); }
OP(rename_dir) { R(rename("dir", "moved")); list("moved"); list("moved/sub"); cat("moved/sub/g"); stat_line("dir"); put(open("moved/f1", O_WRONLY), "M"); cat("moved/f1"); }
OP(rename_dir_deep) { R(rename("d/e", "e2")); list("d"); cat("e2/e/p/x"); R(rename("e2", "d/e")); cat("d/e/e/p/x"); list("."); }
OP(rename_dir_over_empty) { R(rename("dir", "emptydir")); list("emptydir"); cat("emptydir/f1"); list("."); }
OP(rename_dir_over_emptied) { R(unlink("dir/f1")); R(unlink("dir/f2")); R(unlink("dir/sub/g")); R(rmdir("dir/sub")); R(rename("d", "dir")); list("dir"); list("dir/e"); list("."); }
OP(rename_dir_onto_gone) { R(rename("dir", "x")); R(rename("d", "dir")); list("dir"); R(mkdir("d", 0755)); list("d"); list("."); }
OP(rename_new_dir) { R(mkdir("n", 0755)); put(open("n/f", O_CREAT | O_WRONLY, 0644), "n"); R(rename("n", "m")); R(rename("m", "dir/m")); cat("dir/m/f"); list("dir"); list("."); }
OP(rename_dir_cwd) { char path[4200]; R(chdir("dir")); R(rename("../dir", "../moved")); R(strcmp(getcwd(path, sizeof path) ? path + strlen(top) : "", "/moved")); cat("f1"); }
OP(rename_link) { R(rename("link", "l2")); cat("l2"); R(rename("l2", "a.txt")); stat_line("a.txt"); list("."); }
OP(rename_fifo) { R(rename("fifo", "ff")); stat_line("ff"); list("."); }
OP(link_new) { R(link("a.txt", "hard")); stat_line("a.txt"); stat_line("hard"); R(ino_of("a.txt") == ino_of("hard")); put(open("hard", O_WRONLY), "H"); cat("a.txt"); }
OP(link_errors) { R(link("no", "x")); R(link("a.txt", "dir/f1")); R(link("dir", "x")); R(link("a.txt", "no/x")); R(link("a.txt", "x/")); }
OP(link_symlink) { R(link("link", "l2")); stat_line("l2"); R(linkat(AT_FDCWD, "link", AT_FDCWD, "l3", AT_SYMLINK_FOLLOW)); stat_line("l3"); }
OP(link_gone) { R(unlink("dir/f1")); R(link("a.txt", "dir/f1")); cat("dir/f1"); stat_line("a.txt"); }
OP(linkat_fd) { int fd = open("a.txt", O_RDONLY); char name[64]; snprintf(name, sizeof name, "/proc/self/fd/%d", fd); R(linkat(AT_FDCWD, name, AT_FDCWD, "byfd", AT_SYMLINK_FOLLOW)); cat("byfd"); stat_line("byfd"); }
OP(hardlink_pair) { R(ino_of("hard1") == ino_of("hard2")); put(open("hard1", O_WRONLY), "P"); cat("hard2"); R(ino_of("hard1") == ino_of("hard2")); stat_line("hard1"); stat_line("hard2"); put(open("hard2", O_WRONLY | O_APPEND), "Q"); cat("hard1"); stat_line("hard1"); }
OP(hardlink_unlink) { stat_line("hard1"); R(unlink("hard1")); stat_line("hard2"); put(open("hard2", O_WRONLY), "P"); cat("hard2"); stat_line("hard2"); }
OP(hardlink_unlink_after) { put(open("hard1", O_WRONLY), "P"); R(unlink("hard1")); stat_line("hard2"); cat("hard2"); R(link("hard2", "hard3")); stat_line("hard2"); }
OP(hardlink_rename) { R(rename("hard1", "dir/h")); stat_line("hard2"); put(open("dir/h", O_WRONLY), "R"); cat("hard2"); R(rename("a.txt", "hard2")); stat_line("dir/h"); cat("hard2"); }
OP(hardlink_chmod) { R(chmod("hard1", 0600)); stat_line("hard2"); struct stat st; int fd = open("hard2", O_RDONLY); R(fstat(fd, &st)); R(st.st_nlink); R(st.st_mode); }
OP(symlink) { R(symlink("a.txt", "s")); cat("s"); R(symlink("x", "a.txt")); R(symlink("", "e")); R(symlink("dir", "d/e/s")); R(symlinkat("../a.txt", AT_FDCWD, "dir/up")); cat("dir/up"); list("dir"); R(unlink("link")); R(symlink("dir/f1", "link")); cat("link"); }
OP(mkfifo) { R(mkfifo("ff", 0600)); stat_line("ff"); R(mkfifo("a.txt", 0600)); R(mkfifoat(AT_FDCWD, "dir/ff", 0644)); list("dir"); }
OP(mknod) { R(mknod("n", S_IFREG | 0640, 0)); stat_line("n"); R(mknodat(AT_FDCWD, "dir/n", S_IFIFO | 0640, 0)); R(mknod("a.txt", S_IFREG | 0600, 0)); list("dir"); }
OP(fifo_talk) { char c = 0; int fd = open("fifo", O_RDWR | O_NONBLOCK); R(write(fd, "f", 1)); R(read(fd, &c, 1)); R(c); }
OP(long_names) { char name[300]; memset(name, 'n', 255); name[255] = 0; put(FD(open(name, O_CREAT | O_WRONLY, 0644)), "255"); cat(name); R(rename(name, "short")); memset(name, 'n', 256); name[256] = 0; FD(open(name, O_CREAT | O_WRONLY, 0644)); }
OP(long_path) { char name[5000]; memset(name, 0, sizeof name); while (strlen(name) < 4200) strcat(name, "dir/../"); FD(open(strcat(name, "a.txt"), O_RDONLY)); R(rename(name, "x")); }
OP(odd_names) { put(FD(open("caf\xe9 \n\x01", O_CREAT | O_WRONLY, 0644)), "odd"); put(FD(open("latin\xe9", O_WRONLY)), "L"); R(rename("latin\xe9", "\xff\xfe")); list("."); R(unlink("sp ace")); R(mkdir(".wh.x", 0755)); R(mkdir("sp ace", 0755)); list("."); }
OP(many_files)
{
    char name[64];
    for (int i = 0; i < 300; i++) {
        snprintf(name, sizeof name, "dir/many%d", i);
        close(open(name, O_CREAT | O_WRONLY, 0644));
    }
    list("dir");
    for (int i = 0; i < 300; i += 2) {
        snprintf(name, sizeof name, "dir/many%d", i);
        R(unlink(name));
    }
    list("dir");
}
