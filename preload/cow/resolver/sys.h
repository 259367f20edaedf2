/* Raw system calls that carry the cookie, by which the seccomp net knows that a path has been resolved.
   They return what the kernel returns: -errno on failure; errno itself is not touched. */
#ifndef COW_SYS_H
#define COW_SYS_H

#include <stdint.h>
#include <sys/syscall.h>

#include "../../common/cow_cookie.h"

#if defined(__x86_64__)
/* The cookie is cleared at once: left in r9, it would vouch for the next call of libc's own. */
static inline long cow_sys5(long number, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = pccow_cookie(number, a, b);
    long result;
    __asm__ volatile("syscall\n\txor %%r9d, %%r9d"
                     : "=a"(result), "+r"(r9)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory", "cc");
    return result;
}

/* mmap(2) has six arguments, so no cookie. */
static inline long cow_mmap(unsigned long size, int protection, int flags, int fd)
{
    register long r10 __asm__("r10") = flags;
    register long r8 __asm__("r8") = fd;
    register long r9 __asm__("r9") = 0;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"((long)SYS_mmap), "D"(0L), "S"(size), "d"((long)protection), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory", "cc");
    return result;
}
#elif defined(__aarch64__)
static inline long cow_sys5(long number, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = pccow_cookie(number, a, b);
    __asm__ volatile("svc #0\n\tmov x5, xzr"
                     : "+r"(x0), "+r"(x5)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4)
                     : "memory", "cc");
    return x0;
}

/* mmap(2) has six arguments, so no cookie. */
static inline long cow_mmap(unsigned long size, int protection, int flags, int fd)
{
    register long x8 __asm__("x8") = SYS_mmap;
    register long x0 __asm__("x0") = 0;
    register long x1 __asm__("x1") = (long)size;
    register long x2 __asm__("x2") = protection;
    register long x3 __asm__("x3") = flags;
    register long x4 __asm__("x4") = fd;
    register long x5 __asm__("x5") = 0;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
    return x0;
}
#ifndef SYS_newfstatat
#define SYS_newfstatat __NR3264_fstatat
#endif
#else
#error "libpccow knows the system calls of x86-64 and arm64 only"
#endif

/* The arguments may be pointers or any integers. */
#define COW_SYS_1(n, a) cow_sys5(n, (long)(a), 0, 0, 0, 0)
#define COW_SYS_2(n, a, b) cow_sys5(n, (long)(a), (long)(b), 0, 0, 0)
#define COW_SYS_3(n, a, b, c) cow_sys5(n, (long)(a), (long)(b), (long)(c), 0, 0)
#define COW_SYS_4(n, a, b, c, d) cow_sys5(n, (long)(a), (long)(b), (long)(c), (long)(d), 0)
#define COW_SYS_5(n, a, b, c, d, e) cow_sys5(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define COW_SYS_0(n) cow_sys5(n, 0, 0, 0, 0, 0)
#define COW_SYS_PICK(n, a, b, c, d, e, name, ...) name
#define SYS(...)                                                                                                     \
    COW_SYS_PICK(__VA_ARGS__, COW_SYS_5, COW_SYS_4, COW_SYS_3, COW_SYS_2, COW_SYS_1, COW_SYS_0)(__VA_ARGS__)

#endif
