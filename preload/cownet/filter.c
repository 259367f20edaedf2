/* Builds the filter from the table in calls.h: a binary search over intervals of call numbers. Where every path through
   it depends on the number alone, the kernel works the answer out once and never runs the filter for that call
   (seccomp_cache_prepare, Linux 5.11); so read(2) or futex(2) cost next to nothing. */
#define _GNU_SOURCE
#include "filter.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/btrfs.h>
#include <linux/filter.h>
#include <linux/fs.h>
#include <linux/fscrypt.h>
#include <linux/fsverity.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/cow_cookie.h"
#include "calls.h"

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "which AUDIT_ARCH_* is this?"
#endif
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the halves of an argument are looked at where little-endian has them");

#define ARG(number, half) (uint32_t)(offsetof(struct seccomp_data, args) + 8 * (number) + (half))
enum { LOW = 0, HIGH = 4, PROGRAM_MAX = 512, INTERVALS_MAX = NET_LAST + 1 };
enum kind { ALLOW, PATH, REFUSE, ABSENT, IDS, PRCTL, SETNS, LIMIT, IOCTL, SENDTO };

static struct sock_filter program[PROGRAM_MAX];
static unsigned length;
static struct interval {
    unsigned first; /* up to the next one's */
    enum kind kind;
} intervals[INTERVALS_MAX];
static unsigned waiting[INTERVALS_MAX], waiting_count; /* jumps to the cookie's check */

static void emit(uint16_t code, uint32_t value, unsigned yes, unsigned no)
{
    if (length < PROGRAM_MAX)
        program[length] = (struct sock_filter){ .code = code, .jt = (uint8_t)yes, .jf = (uint8_t)no, .k = value };
    length++;
}

static void load(uint32_t offset)
{
    emit(BPF_LD | BPF_W | BPF_ABS, offset, 0, 0);
}

static void give(uint32_t verdict)
{
    emit(BPF_RET | BPF_K, verdict, 0, 0);
}

/* X := A, A := the call's number ^ high; then compares the other half with X. Allows if both halves are right. */
static void emit_cookie(void)
{
    load(ARG(0, LOW));
    emit(BPF_MISC | BPF_TAX, 0, 0, 0);
    load(ARG(1, LOW));
    emit(BPF_ALU | BPF_XOR | BPF_X, 0, 0, 0);
    emit(BPF_ALU | BPF_XOR | BPF_K, PCCOW_COOKIE_LOW, 0, 0);
    emit(BPF_MISC | BPF_TAX, 0, 0, 0);
    load(ARG(5, LOW));
    emit(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 6);
    load(offsetof(struct seccomp_data, nr));
    emit(BPF_ALU | BPF_XOR | BPF_K, PCCOW_COOKIE_HIGH, 0, 0);
    emit(BPF_MISC | BPF_TAX, 0, 0, 0);
    load(ARG(5, HIGH));
    emit(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1);
    give(SECCOMP_RET_ALLOW);
    give(SECCOMP_RET_USER_NOTIF);
}

/* Goes to the cookie's check. It is long, so it stands once, at the end, and the jumps are filled in when that is known. */
static void emit_to_cookie(void)
{
    waiting[waiting_count++] = length;
    emit(BPF_JMP | BPF_JA, 0, 0, 0);
}

/* ioctl_fs.h: what changes an inode. btrfs changes whole trees by its ioctls; its type's other ones are refused. */
static void emit_ioctl(void)
{
    static const uint32_t asked[] = {
        FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR, FS_IOC_SETVERSION, FS_IOC_ENABLE_VERITY, FS_IOC_SET_ENCRYPTION_POLICY, FS_IOC_SETFSLABEL,
    };
    static const uint32_t harmless[] = { FICLONE, FICLONERANGE, FIDEDUPERANGE }; /* they need a descriptor for writing */
    enum { ASKED = sizeof asked / sizeof asked[0], HARMLESS = sizeof harmless / sizeof harmless[0], TYPE = 3 };
    load(ARG(1, LOW));
    for (unsigned i = 0; i < ASKED; i++)
        emit(BPF_JMP | BPF_JEQ | BPF_K, asked[i], ASKED - i - 1 + HARMLESS + TYPE, 0);
    for (unsigned i = 0; i < HARMLESS; i++)
        emit(BPF_JMP | BPF_JEQ | BPF_K, harmless[i], HARMLESS - i - 1 + TYPE + 1, 0);
    emit(BPF_ALU | BPF_RSH | BPF_K, 8, 0, 0);
    emit(BPF_ALU | BPF_AND | BPF_K, 0xff, 0, 0);
    emit(BPF_JMP | BPF_JEQ | BPF_K, BTRFS_IOCTL_MAGIC, 0, 1);
    emit_to_cookie();
}

/* What is done with a call of one kind. */
static void emit_leaf(enum kind kind)
{
    switch (kind) {
    case PRCTL:
        load(ARG(0, LOW));
        emit(BPF_JMP | BPF_JEQ | BPF_K, PCCOW_PRCTL, 0, 1);
        give(SECCOMP_RET_USER_NOTIF);
        break;
    case SETNS:
        load(ARG(1, LOW));
        emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0); /* a namespace of any kind */
        emit(BPF_JMP | BPF_JSET | BPF_K, CLONE_NEWNS, 0, 1);
        give(SECCOMP_RET_USER_NOTIF);
        break;
    case LIMIT: /* setrlimit(RLIMIT_LOCKS, ...), prlimit64(pid, RLIMIT_LOCKS, ...) */
        load(offsetof(struct seccomp_data, nr));
        emit(BPF_JMP | BPF_JEQ | BPF_K, __NR_prlimit64, 0, 4);
        load(ARG(2, LOW));
        emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 5, 0); /* it only asks */
        load(ARG(1, LOW));
        emit(BPF_JMP | BPF_JA, 1, 0, 0);
        load(ARG(0, LOW));
        emit(BPF_JMP | BPF_JEQ | BPF_K, RLIMIT_LOCKS, 0, 1);
        give(SECCOMP_RET_ERRNO | EPERM);
        break;
    case SENDTO: /* its sixth argument is in use: there is no cookie */
        load(ARG(4, LOW));
        emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 2);
        load(ARG(4, HIGH));
        emit(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0);
        give(SECCOMP_RET_USER_NOTIF);
        break;
    case IOCTL:
        emit_ioctl();
        break;
    case ABSENT:
        give(SECCOMP_RET_ERRNO | ENOSYS);
        return;
    case REFUSE:
    case IDS:
        give(SECCOMP_RET_USER_NOTIF);
        return;
    default:
        break;
    }
    give(SECCOMP_RET_ALLOW);
}

/* The search over intervals first..last of `intervals` for the number in A. */
static void emit_search(unsigned first, unsigned last)
{
    if (first == last) {
        if (intervals[first].kind == PATH)
            emit_to_cookie();
        else
            emit_leaf(intervals[first].kind);
        return;
    }
    const unsigned middle = (first + last + 1) / 2, jump = length;
    emit(BPF_JMP | BPF_JGE | BPF_K, intervals[middle].first, 0, 0);
    emit_search(first, middle - 1);
    if (length - jump - 1 > UINT8_MAX)
        length = PROGRAM_MAX + 1; /* a table with too many intervals: filter_build() says so */
    else
        program[jump].jt = (uint8_t)(length - jump - 1);
    emit_search(middle, last);
}

static int filter_build(void)
{
    static uint8_t kinds[NET_LAST + 1];
    unsigned count = 0;
#define FILL(number, name, kind) kinds[number] = kind;
    NET_CALLS(FILL)
    for (unsigned call = 0; call <= NET_LAST; call++) {
        if (kinds[call] == IDS && geteuid() != 0)
            kinds[call] = ALLOW;
        if (call == 0 || kinds[call] != kinds[call - 1])
            intervals[count++] = (struct interval){ call, kinds[call] };
    }
    length = waiting_count = 0;
    load(offsetof(struct seccomp_data, arch));
    emit(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    give(SECCOMP_RET_USER_NOTIF); /* of another architecture: all its calls, and all are refused */
    load(offsetof(struct seccomp_data, nr));
    emit(BPF_JMP | BPF_JGT | BPF_K, NET_LAST, 0, 1);
    give(SECCOMP_RET_ERRNO | ENOSYS); /* also those of the x32 ABI */
    emit_search(0, count - 1);
    for (unsigned i = 0; i < waiting_count && i < INTERVALS_MAX && length <= PROGRAM_MAX; i++)
        program[waiting[i]].k = length - waiting[i] - 1;
    emit_cookie();
    if (length <= PROGRAM_MAX)
        return 0;
    errno = E2BIG;
    return -1;
}

int filter_install(void)
{
#ifndef __x86_64__
    errno = ENOSYS; /* remote.c does not know this machine's registers */
    return -1;
#endif
    if (filter_build() < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -1;
    const struct sock_fprog filter = { .len = (unsigned short)length, .filter = program };
    /* A signal must not interrupt a call that is already being done for somebody: it would be done twice. */
    const unsigned long flags = SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, &filter);
}

unsigned filter_architecture(void)
{
    return ARCHITECTURE;
}
