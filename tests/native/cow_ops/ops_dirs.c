/* Directories: listing, walking, being in one. */
#include "ops.h"

#include <fts.h>
#include <ftw.h>
#include <glob.h>

static void change(void)
{
    put(open("dir/fresh", O_CREAT | O_WRONLY, 0644), "x");
    put(open("dir/f1", O_WRONLY), "x");
    R(unlink("dir/f2"));
}

OP(readdir_plain) { list("dir"); list("."); list("emptydir"); list("no"); list("a.txt"); list("dlink"); }
OP(readdir_merged) { change(); list("dir"); list("."); list(in_top("dir")); }
OP(readdir_fdopendir) { change(); int fd = open("dir", O_RDONLY | O_DIRECTORY); DIR *d = fdopendir(fd); int n = 0; while (readdir(d)) n++; R(n); R(dirfd(d) == fd); R(closedir(d)); R(fcntl(fd, F_GETFD)); }
OP(readdir_64) { change(); DIR *d = opendir("dir"); int n = 0; while (readdir64(d)) n++; R(n); closedir(d); }
OP(rewinddir_seek)
{
    change();
    DIR *d = opendir("dir");
    struct dirent *e = readdir(d);
    char first[256], third[256];
    strcpy(first, e->d_name);
    readdir(d);
    long at = telldir(d);
    strcpy(third, readdir(d)->d_name);
    rewinddir(d);
    R(strcmp(readdir(d)->d_name, first));
    seekdir(d, at);
    R(strcmp(readdir(d)->d_name, third));
    put(open("dir/later", O_CREAT | O_WRONLY, 0644), "x");
    rewinddir(d);
    int n = 0;
    while (readdir(d))
        n++;
    R(n);
    closedir(d);
}
OP(readdir_dirfd) { change(); DIR *d = opendir("dir"); put(openat(dirfd(d), "f1", O_WRONLY), "at"); cat("dir/f1"); R(unlinkat(dirfd(d), "fresh", 0)); closedir(d); list("dir"); }
OP(readdir_remove)
{
    change();
    DIR *d = opendir("dir");
    struct dirent *e;
    while ((e = readdir(d)))
        if (e->d_type == DT_REG)
            R(unlinkat(dirfd(d), e->d_name, 0) == 0);
    closedir(d);
    list("dir");
}
static int reverse(const struct dirent **a, const struct dirent **b) { return strcmp((*b)->d_name, (*a)->d_name); }
static int only_f(const struct dirent *e) { return e->d_name[0] == 'f'; }
OP(scandir)
{
    struct dirent **names;
    change();
    int n = scandir("dir", &names, only_f, reverse);
    for (int i = 0; i < n; i++)
        printf("%s\n", names[i]->d_name);
    int fd = open(".", O_RDONLY);
    R(scandirat(fd, "dir", &names, NULL, alphasort));
    R(scandir("no", &names, NULL, NULL));
}
OP(getdents)
{
    char buffer[4096];
    change();
    int fd = open("dir", O_RDONLY | O_DIRECTORY), n = 0;
    for (ssize_t got; (got = getdents64(fd, buffer, 120)) > 0;)
        for (ssize_t at = 0; at < got; at += ((struct dirent *)(buffer + at))->d_reclen)
            n++;
    R(n);
    R(lseek(fd, 0, SEEK_SET));
    R(getdents64(fd, buffer, sizeof buffer) > 0);
    fd = open("d", O_RDONLY | O_DIRECTORY);
    R(getdents64(fd, buffer, sizeof buffer) > 0);
    R(getdents64(fd, buffer, sizeof buffer));
    R(getdents64(open("a.txt", O_RDONLY), buffer, sizeof buffer));
}
OP(glob)
{
    glob_t g;
    change();
    R(glob("dir/f*", 0, NULL, &g)), R(g.gl_pathc);
    for (size_t i = 0; i < g.gl_pathc; i++)
        printf("%s\n", g.gl_pathv[i]);
    globfree(&g);
    R(glob("*/*", GLOB_MARK, NULL, &g));
    for (size_t i = 0; i < g.gl_pathc; i++)
        printf("%s\n", g.gl_pathv[i]);
    globfree(&g);
    R(glob("dir/f2", 0, NULL, &g));
    R(glob("dir/{fresh,f1}", GLOB_BRACE, NULL, &g)), R(g.gl_pathc);
}
static char lines[256][512];
static int count;
static int visit(const char *path, const struct stat *st, int kind, struct FTW *where)
{
    snprintf(lines[count++], 512, "%s %d %d %d %ld", path, kind, where->base, where->level, S_ISREG(st->st_mode) ? (long)st->st_size : 0L);
    return 0;
}
static int visit_old(const char *path, const struct stat *st, int kind)
{
    snprintf(lines[count++], 512, "%s %d %o", path, kind, st->st_mode);
    return 0;
}
static int by_text(const void *a, const void *b) { return strcmp(a, b); }
static void print_lines(void)
{
    qsort(lines, (size_t)count, sizeof lines[0], by_text);
    for (int i = 0; i < count; i++)
        puts(lines[i]);
    count = 0;
}
OP(nftw) { change(); R(nftw("dir", visit, 8, FTW_PHYS)); print_lines(); R(nftw(".", visit, 8, FTW_PHYS | FTW_DEPTH)); print_lines(); R(nftw("dlink", visit, 8, 0)); print_lines(); R(nftw("no", visit, 8, 0)); print_lines(); }
OP(nftw_chdir) { change(); R(nftw("dir", visit, 8, FTW_PHYS | FTW_CHDIR)); R(count); count = 0; cat("a.txt"); }
OP(ftw) { change(); R(ftw("dir", visit_old, 8)); print_lines(); }
static int fts_order(const FTSENT **a, const FTSENT **b) { return strcmp((*a)->fts_name, (*b)->fts_name); }
static void fts_walk(char *const *paths, int flags)
{
    FTS *f = fts_open(paths, flags, fts_order);
    FTSENT *e;
    while ((e = fts_read(f)))
        printf("%s %d %d %s\n", e->fts_path, e->fts_info, e->fts_level, e->fts_name);
    R(fts_close(f));
}
OP(fts)
{
    char dir[] = "dir", here[] = ".", link[] = "dlink", no[] = "no";
    char *const one[] = { dir, NULL }, *const two[] = { here, link, no, NULL };
    change();
    fts_walk(one, FTS_PHYSICAL);
    fts_walk(two, FTS_PHYSICAL | FTS_NOCHDIR);
    fts_walk(two, FTS_LOGICAL | FTS_NOCHDIR);
    FTS *f = fts_open(one, FTS_PHYSICAL | FTS_NOCHDIR, fts_order);
    FTSENT *e = fts_read(f);
    for (FTSENT *c = fts_children(f, 0); c; c = c->fts_link)
        printf("child %s %d\n", c->fts_name, c->fts_info);
    R(fts_set(f, e, FTS_SKIP));
    e = fts_read(f);
    R(e->fts_info);
    R(fts_close(f));
}
OP(chdir_getcwd)
{
    char path[4200];
    change();
    R(chdir("dir"));
    R(strcmp(getcwd(path, sizeof path), in_top("dir")));
    cat("f1"), cat("fresh"), cat("../a.txt");
    put(open("sub/g", O_WRONLY), "in sub");
    put(open("here", O_CREAT | O_WRONLY, 0644), "here");
    R(chdir("sub")), R(chdir("..")), list(".");
    R(chdir("../no")), R(chdir("../a.txt"));
    R(mkdir("nd", 0755)), R(chdir("nd")), R(strcmp(getcwd(path, sizeof path), in_top("dir/nd")));
    R(chdir("..")), R(strcmp(get_current_dir_name(), in_top("dir")));
    R(getcwd(path, 3) != NULL);
}
OP(fchdir) { int fd = open("dir", O_RDONLY); char path[4200]; R(fchdir(fd)); cat("f1"); put(open("f1", O_WRONLY), "x"); R(strcmp(getcwd(path, sizeof path), in_top("dir"))); R(fchdir(open("../a.txt", O_RDONLY))); }
OP(chdir_removed) { char path[4200]; R(chdir("emptydir")); R(rmdir("../emptydir")); R(getcwd(path, sizeof path) != NULL); FD(open("x", O_CREAT | O_WRONLY, 0644)); }
OP(realpath)
{
    char path[4200];
    change();
    R(strcmp(realpath("dlink/../link", path), in_top("a.txt")));
    R(strcmp(realpath("dir/fresh", NULL), in_top("dir/fresh")));
    R(realpath("dir/f2", path) != NULL), R(realpath("loop1", path) != NULL), R(realpath("a.txt/", path) != NULL);
    R(strcmp(canonicalize_file_name("dir/sub/.."), in_top("dir")));
    R(strcmp(realpath("/", path), "/")), R(strcmp(realpath(".", path), top));
}
OP(symlink_out_and_in)
{
    char name[4300], target[4300];
    snprintf(name, sizeof name, "%s.out", top);
    R(symlink(top, name));
    snprintf(target, sizeof target, "%s.out/a.txt", top);
    put(FD(open(target, O_WRONLY)) , "through");
    cat("a.txt");
    snprintf(target, sizeof target, "%s.out/made", top);
    R(mkdir(target, 0755));
    list(".");
    R(unlink(name));
}
OP(symlink_file_out)
{
    char name[4300];
    snprintf(name, sizeof name, "%s.out", top);
    R(symlink(in_top("a.txt"), name));
    put(open(name, O_WRONLY), "through");
    cat("a.txt");
    struct stat st;
    R(stat(name, &st)), R(st.st_size), R(truncate(name, 1)), R(chmod(name, 0600));
    R(unlink(name));
    stat_line("a.txt");
}
