/* cow_ops list | run NAME | view | seq: names of the operations; does one in the current directory; tells all that can be seen
   there; does those that stdin names. */
#include "ops.h"

#include <sys/xattr.h>

char top[4096];
extern const struct op __start_ops[], __stop_ops[];

long show(const char *call, long result)
{
    const int error = errno;
    if (result == -1)
        printf("%s: -1 %s\n", call, strerrorname_np(error));
    else
        printf("%s: %ld\n", call, result);
    fflush(stdout);
    return result;
}

int show_fd(const char *call, int fd)
{
    const int error = errno;
    printf("%s: %s\n", call, fd >= 0 ? "descriptor" : strerrorname_np(error));
    fflush(stdout);
    return fd;
}

void cat(const char *path)
{
    char text[256];
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (got < 0) {
        printf("cat %s: %s\n", path, strerrorname_np(errno));
    } else {
        text[got] = 0;
        printf("cat %s: [%s]\n", path, text);
    }
    if (fd >= 0)
        close(fd);
    fflush(stdout);
}

void put(int fd, const char *text)
{
    if (fd < 0)
        return;
    R(write(fd, text, strlen(text)));
    R(close(fd));
}

const char *in_top(const char *name)
{
    static char path[4][8192];
    static int next;
    char *out = path[next++ % 4];
    snprintf(out, sizeof path[0], "%s/%s", top, name);
    return out;
}

ino_t ino_of(const char *path)
{
    struct stat st;
    return lstat(path, &st) < 0 ? 0 : st.st_ino;
}

void stat_line(const char *path)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        printf("stat %s: %s\n", path, strerrorname_np(errno));
    else
        printf("stat %s: %o %u:%u %ld nlink %ld\n", path, st.st_mode, st.st_uid, st.st_gid,
               S_ISDIR(st.st_mode) ? 0L : (long)st.st_size, S_ISDIR(st.st_mode) ? 0L : (long)st.st_nlink);
    fflush(stdout);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return strcmp((*a)->d_name, (*b)->d_name);
}

void list(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry, *all[512];
    int count = 0;
    if (!dir) {
        printf("list %s: %s\n", path, strerrorname_np(errno));
        return;
    }
    while ((entry = readdir(dir)) && count < 512) {
        all[count] = malloc(entry->d_reclen);
        memcpy(all[count++], entry, entry->d_reclen);
    }
    closedir(dir);
    qsort(all, (size_t)count, sizeof *all, (int (*)(const void *, const void *))by_name);
    printf("list %s:", path);
    for (int i = 0; i < count; i++) {
        printf(" %s/%d", all[i]->d_name, all[i]->d_type);
        free(all[i]);
    }
    printf("\n");
    fflush(stdout);
}

void in_child(void (*f)(void))
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        f();
        fflush(stdout);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    printf("child: %d\n", status);
}

static unsigned long hash_of(const char *path)
{
    unsigned long hash = 5381;
    char buffer[4096];
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    for (ssize_t got; fd >= 0 && (got = read(fd, buffer, sizeof buffer)) > 0;)
        for (ssize_t i = 0; i < got; i++)
            hash = hash * 33 + (unsigned char)buffer[i];
    if (fd < 0)
        return (unsigned long)-errno;
    close(fd);
    return hash;
}

static void xattrs(const char *path)
{
    char names[1024], value[256];
    ssize_t length = llistxattr(path, names, sizeof names);
    for (const char *name = names; length > 0 && name < names + length; name += strlen(name) + 1) {
        if (strncmp(name, "security.", 9) == 0)
            continue;
        ssize_t size = lgetxattr(path, name, value, sizeof value);
        printf(" %s=%.*s", name, (int)(size < 0 ? 0 : size), value);
    }
}

/* Times that the test has set are years ago; those of this run cannot be compared. */
static void view(const char *path)
{
    struct stat st;
    char target[4096];
    struct dirent **names;
    if (lstat(path, &st) < 0) {
        printf("%s: %s\n", path, strerrorname_np(errno));
        return;
    }
    printf("%s %o %u:%u", path, st.st_mode, st.st_uid, st.st_gid);
    if (st.st_mtim.tv_sec < 1500000000)
        printf(" mtime %ld.%09ld", (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    if (!S_ISDIR(st.st_mode))
        printf(" nlink %ld size %ld", (long)st.st_nlink, (long)st.st_size);
    if (S_ISREG(st.st_mode))
        printf(" hash %lx", hash_of(path));
    if (S_ISLNK(st.st_mode)) {
        ssize_t length = readlink(path, target, sizeof target - 1);
        printf(" -> %.*s", (int)length, target);
    }
    xattrs(path);
    printf("\n");
    if (!S_ISDIR(st.st_mode))
        return;
    int count = scandir(path, &names, NULL, by_name);
    if (count < 0)
        printf("%s: scandir %s\n", path, strerrorname_np(errno));
    for (int i = 0; i < count; i++) {
        const char *name = names[i]->d_name;
        char below[8192];
        snprintf(below, sizeof below, "%s/%s", path, name);
        if (strcmp(name, ".") != 0 && strcmp(name, "..") != 0) {
            struct stat entry;
            if (lstat(below, &entry) == 0 && names[i]->d_type != IFTODT(entry.st_mode))
                printf("%s: d_type %d\n", below, names[i]->d_type);
            if (lstat(below, &entry) == 0 && names[i]->d_ino != entry.st_ino)
                printf("%s: d_ino differs from st_ino\n", below);
            view(below);
        }
        free(names[i]);
    }
    if (count >= 0)
        free(names);
}

int main(int argc, char **argv)
{
    umask(022);
    if (argc == 2 && strcmp(argv[1], "list") == 0) {
        for (const struct op *op = __start_ops; op < __stop_ops; op++)
            puts(op->name);
        return 0;
    }
    if (!getcwd(top, sizeof top))
        return 3;
    if (argc == 2 && strcmp(argv[1], "view") == 0) {
        view(".");
        return 0;
    }
    if (argc == 2 && strcmp(argv[1], "seq") == 0) {
        run_sequence();
        return 0;
    }
    for (const struct op *op = __start_ops; argc == 3 && op < __stop_ops; op++)
        if (strcmp(op->name, argv[2]) == 0) {
            op->run();
            return 0;
        }
    return 2;
}
