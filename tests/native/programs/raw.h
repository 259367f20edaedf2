/* Bare system calls, and a tree shown by them; for raw.c. */
#ifndef RAW_H
#define RAW_H

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static long raw6(long number, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return result;
}

#define PICK(a, b, c, d, e, f, g, name, ...) name
#define RAW(...) PICK(__VA_ARGS__, RAW6, RAW5, RAW4, RAW3, RAW2, RAW1, RAW0)(__VA_ARGS__)
#define RAW0(n) raw6(n, 0, 0, 0, 0, 0, 0)
#define RAW1(n, a) raw6(n, (long)(a), 0, 0, 0, 0, 0)
#define RAW2(n, a, b) raw6(n, (long)(a), (long)(b), 0, 0, 0, 0)
#define RAW3(n, a, b, c) raw6(n, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define RAW4(n, a, b, c, d) raw6(n, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define RAW5(n, a, b, c, d, e) raw6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
#define RAW6(n, a, b, c, d, e, f) raw6(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void show_content(const char *path)
{
    char text[256];
    const long fd = RAW(SYS_open, path, O_RDONLY, 0), length = RAW(SYS_read, fd, text, sizeof text);
    printf(" [");
    for (long i = 0; i < length; i++)
        printf(text[i] >= ' ' && text[i] <= '~' ? "%c" : "\\x%02x", (unsigned char)text[i]);
    printf("]");
    RAW(SYS_close, fd);
}

static void show_attribute(const char *path, const char *name)
{
    char text[64], list[1024];
    const long length = RAW(SYS_lgetxattr, path, name, text, sizeof text);
    if (length < 0)
        return;
    const long all = RAW(SYS_llistxattr, path, list, sizeof list);
    printf(" %s=%.*s%s", name, (int)length, text, all > 0 && memmem(list, (size_t)all, name, strlen(name) + 1) ? "" : " (not listed)");
}

static void show(const char *path);

static void show_directory(const char *path)
{
    char *names[4096], buffer[2048], inner[4300];
    int count = 0;
    const long fd = RAW(SYS_open, path, O_RDONLY | O_DIRECTORY, 0);
    for (long got; (got = RAW(SYS_getdents64, fd, buffer, sizeof buffer)) > 0;) {
        for (long at = 0; at < got;) {
            const struct dirent64 *entry = (const void *)(buffer + at);
            at += entry->d_reclen;
            if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..") && count < 4096)
                names[count++] = strdup(entry->d_name);
        }
    }
    RAW(SYS_close, fd);
    qsort(names, (size_t)count, sizeof names[0], by_name);
    for (int i = 0; i < count; i++) {
        snprintf(inner, sizeof inner, "%s/%s", path, names[i]);
        show(inner);
        free(names[i]);
    }
}

static void show(const char *path)
{
    struct stat info;
    char target[256];
    const long error = RAW(SYS_lstat, path, &info);
    printf("%s ", path);
    if (error < 0) {
        printf("%s\n", strerrorname_np((int)-error));
        return;
    }
    printf("%o %u:%u", info.st_mode, info.st_uid, info.st_gid);
    if (!S_ISDIR(info.st_mode))
        printf(" links %lu size %lld", (unsigned long)info.st_nlink, (long long)info.st_size);
    if (info.st_mtime < 1500000000)
        printf(" mtime %lld.%ld", (long long)info.st_mtime, info.st_mtim.tv_nsec);
    show_attribute(path, "user.test");
    show_attribute(path, "user.new");
    if (S_ISREG(info.st_mode))
        show_content(path);
    if (S_ISLNK(info.st_mode))
        printf(" -> %.*s", (int)RAW(SYS_readlink, path, target, sizeof target), target);
    printf("\n");
    if (S_ISDIR(info.st_mode))
        show_directory(path);
}

#endif
