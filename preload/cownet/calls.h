/* The system calls that can concern a tree of files, and what becomes of each: read by the filter (filter.c), by the
   supervisor (serve.c), and by a test that compares it with the kernel's own list (tests/native/test_cow_net.py).

   PATH    passes with the cookie of common/cow_cookie.h; without it the supervisor serves it
   REFUSE  always goes to the supervisor, which says no and names the call and its path in its log
   ABSENT  "not in this kernel" (ENOSYS), by the filter itself: every caller knows how to live without these

   IDS     goes to the supervisor, which notes that ids change now, and lets it through; only where root runs the command
   PRCTL, SETNS, LIMIT   as one argument says: our own question; into a mount namespace; our mark of a scope (scope.h)
   SENDTO  goes to the supervisor when it has an address; a message without one passes
   IOCTL   as PATH for those that change an inode by a descriptor that was opened for reading

   Calls above NET_LAST are newer than this table, and ABSENT as well: a table that ages must not let calls through. */
#ifndef PCCOW_CALLS_H
#define PCCOW_CALLS_H

#include <asm/unistd.h>

#ifdef __x86_64__
#define NET_OLD_CALLS(X) \
    X(__NR_open, "open", PATH) X(__NR_creat, "creat", PATH) X(__NR_stat, "stat", PATH) X(__NR_lstat, "lstat", PATH) \
    X(__NR_access, "access", PATH) X(__NR_readlink, "readlink", PATH) X(__NR_unlink, "unlink", PATH) \
    X(__NR_rmdir, "rmdir", PATH) X(__NR_rename, "rename", PATH) X(__NR_mkdir, "mkdir", PATH) \
    X(__NR_mknod, "mknod", PATH) X(__NR_link, "link", PATH) X(__NR_symlink, "symlink", PATH) \
    X(__NR_chmod, "chmod", PATH) X(__NR_chown, "chown", PATH) X(__NR_lchown, "lchown", PATH) \
    X(__NR_utime, "utime", PATH) X(__NR_utimes, "utimes", PATH) X(__NR_futimesat, "futimesat", PATH) \
    X(__NR_getdents, "getdents", REFUSE) X(__NR_uselib, "uselib", ABSENT) \
    X(__NR_setrlimit, "setrlimit", LIMIT)
#else
#define NET_OLD_CALLS(X)
#endif

/* Numbers that the headers of Debian 12 do not have are the same on every architecture (since 424). */
enum {
    NET_fchmodat2 = 452, NET_setxattrat = 463, NET_getxattrat = 464, NET_listxattrat = 465, NET_removexattrat = 466,
    NET_open_tree_attr = 467, NET_file_getattr = 468, NET_file_setattr = 469, NET_LAST = 470,
};

#define NET_CALLS(X) \
    NET_OLD_CALLS(X) \
    X(__NR_openat, "openat", PATH) X(__NR_openat2, "openat2", PATH) X(__NR_newfstatat, "newfstatat", PATH) \
    X(__NR_fstat, "fstat", PATH) X(__NR_statx, "statx", PATH) X(__NR_statfs, "statfs", PATH) \
    X(__NR_faccessat, "faccessat", PATH) X(__NR_faccessat2, "faccessat2", PATH) \
    X(__NR_readlinkat, "readlinkat", PATH) X(__NR_getcwd, "getcwd", PATH) X(__NR_chdir, "chdir", PATH) \
    X(__NR_getdents64, "getdents64", PATH) X(__NR_unlinkat, "unlinkat", PATH) X(__NR_renameat, "renameat", PATH) \
    X(__NR_renameat2, "renameat2", PATH) X(__NR_mkdirat, "mkdirat", PATH) X(__NR_mknodat, "mknodat", PATH) \
    X(__NR_linkat, "linkat", PATH) X(__NR_symlinkat, "symlinkat", PATH) X(__NR_truncate, "truncate", PATH) \
    X(__NR_fchmod, "fchmod", PATH) X(__NR_fchmodat, "fchmodat", PATH) X(NET_fchmodat2, "fchmodat2", PATH) \
    X(__NR_fchown, "fchown", PATH) X(__NR_fchownat, "fchownat", PATH) X(__NR_utimensat, "utimensat", PATH) \
    X(__NR_setxattr, "setxattr", PATH) X(__NR_lsetxattr, "lsetxattr", PATH) X(__NR_fsetxattr, "fsetxattr", PATH) \
    X(__NR_getxattr, "getxattr", PATH) X(__NR_lgetxattr, "lgetxattr", PATH) \
    X(__NR_listxattr, "listxattr", PATH) X(__NR_llistxattr, "llistxattr", PATH) \
    X(__NR_removexattr, "removexattr", PATH) X(__NR_lremovexattr, "lremovexattr", PATH) \
    X(__NR_fremovexattr, "fremovexattr", PATH) X(__NR_inotify_add_watch, "inotify_add_watch", PATH) \
    X(__NR_bind, "bind", PATH) X(__NR_connect, "connect", PATH) X(__NR_sendto, "sendto", SENDTO) \
    X(__NR_sendmsg, "sendmsg", PATH) X(__NR_sendmmsg, "sendmmsg", PATH) \
    X(__NR_execve, "execve", PATH) X(__NR_execveat, "execveat", PATH) \
    X(__NR_ioctl, "ioctl", IOCTL) X(__NR_prctl, "prctl", PRCTL) X(__NR_setns, "setns", SETNS) X(__NR_prlimit64, "prlimit64", LIMIT) \
    X(__NR_chroot, "chroot", REFUSE) X(__NR_pivot_root, "pivot_root", REFUSE) X(__NR_mount, "mount", REFUSE) \
    X(__NR_umount2, "umount2", REFUSE) X(__NR_move_mount, "move_mount", REFUSE) X(__NR_open_tree, "open_tree", REFUSE) \
    X(__NR_mount_setattr, "mount_setattr", REFUSE) X(__NR_fspick, "fspick", REFUSE) \
    X(__NR_fsmount, "fsmount", REFUSE) X(__NR_fsopen, "fsopen", REFUSE) X(__NR_acct, "acct", REFUSE) \
    X(__NR_swapon, "swapon", REFUSE) X(__NR_swapoff, "swapoff", REFUSE) \
    X(__NR_name_to_handle_at, "name_to_handle_at", REFUSE) X(__NR_open_by_handle_at, "open_by_handle_at", REFUSE) \
    X(__NR_fanotify_mark, "fanotify_mark", REFUSE) X(__NR_quotactl, "quotactl", REFUSE) \
    X(__NR_setuid, "setuid", IDS) X(__NR_setgid, "setgid", IDS) X(__NR_setreuid, "setreuid", IDS) \
    X(__NR_setregid, "setregid", IDS) X(__NR_setresuid, "setresuid", IDS) X(__NR_setresgid, "setresgid", IDS) \
    X(__NR_setfsuid, "setfsuid", IDS) X(__NR_setfsgid, "setfsgid", IDS) X(__NR_setgroups, "setgroups", IDS) \
    X(__NR_capset, "capset", IDS) \
    X(__NR_io_uring_setup, "io_uring_setup", ABSENT) X(__NR_io_uring_enter, "io_uring_enter", ABSENT) \
    X(__NR_io_uring_register, "io_uring_register", ABSENT) X(NET_setxattrat, "setxattrat", ABSENT) \
    X(NET_getxattrat, "getxattrat", ABSENT) X(NET_listxattrat, "listxattrat", ABSENT) \
    X(NET_removexattrat, "removexattrat", ABSENT) X(NET_open_tree_attr, "open_tree_attr", ABSENT) \
    X(NET_file_getattr, "file_getattr", ABSENT) X(NET_file_setattr, "file_setattr", ABSENT)

#endif
