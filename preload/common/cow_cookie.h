/* How libpccow's own system calls are told from all others: by a number in the sixth argument, which none of the calls
   that pccow's filter looks at uses (setxattrat(2) and getxattrat(2) use it; they are never let through by it).

   The number depends on the call and on its first two arguments, so a number that was left in the register does not let
   another call through: neither the next call of libc's, which does not set that register, nor one of a signal handler
   that began between the call and the instruction after it. It keeps accidents out, not attackers: a program that
   computes it has only itself to fool. Still, clear the register after the call:

       register long cookie __asm__("r9") = pccow_cookie(nr, first, second);
       __asm__ volatile("syscall\n\txor %%r9d, %%r9d" : "=a"(result), "+r"(cookie) : ... : "rcx", "r11", "memory"); */
#ifndef PC_COW_COOKIE_H
#define PC_COW_COOKIE_H

#include <stdint.h>

#define PCCOW_COOKIE_LOW 0x9e1c5a37u
#define PCCOW_COOKIE_HIGH 0xb7c0d3a5u

static inline long pccow_cookie(long nr, long first, long second)
{
    const uint32_t low = PCCOW_COOKIE_LOW ^ (uint32_t)first ^ (uint32_t)second;
    const uint32_t high = PCCOW_COOKIE_HIGH ^ (uint32_t)nr;
    return (long)((uint64_t)high << 32 | low);
}

/* prctl(2) with this option is answered by pccow's supervisor, and by a kernel without one with EINVAL:
   PCCOW_PING    1: path calls without the number above are resolved below libc
   PCCOW_JOIN    (configuration, buffer of PATH_MAX bytes): adds trees for this process and what it starts; the path of a
                 configuration of all its trees is written to the buffer
   PCCOW_COUNT   how many calls have been served so far, modulo 2^31 */
enum { PCCOW_PRCTL = 0x70634377, PCCOW_PING = 0, PCCOW_JOIN = 1, PCCOW_COUNT = 2 };

#endif
