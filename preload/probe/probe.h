/* pcprobe: finds out what this machine can do by doing it.

   Every probe runs in a forked child that is killed after two seconds, works only in
   namespaces which that child made, and leaves no mount, process or file behind. */
#ifndef PC_PROBE_H
#define PC_PROBE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* What came of one probe. It lies in memory shared with the children, so that the
   process which fails, however deep, writes it down itself. */
struct outcome {
    int error;         /* errno of the step that failed; 0 when it just did not have the effect */
    char step[80];     /* the step that failed, in words */
    char detail[200];  /* a fact worth knowing, whether it works or not */
    char scratch[300]; /* a directory to remove should the probe be killed; else "" */
};

/* Returns 0 when the feature works; else -1, with the outcome filled in by fail(). */
typedef int probe_function(struct outcome *out);

/* Notes errno and the step; always -1, so that a probe can return it. */
int fail(struct outcome *out, const char *step);
/* Like fail, for a step that the kernel accepted but that had no effect. */
int no_effect(struct outcome *out, const char *step);
void note(struct outcome *out, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A probe under way in a bounded child. */
struct job {
    struct outcome *out;
    pid_t pid;        /* -1 when there is none (any more) */
    int answer;       /* pipe: one byte, whether it works */
    int64_t deadline; /* on the monotonic clock, microseconds */
};

/* Starts a probe; finish() waits for its answer, 0 when the feature works. The child may
   take longer to end than to answer (closing a packet socket makes the kernel wait), so
   that is reap()'s part. */
int start(struct job *job, probe_function *probe, struct outcome *out);
int finish(struct job *job);
void reap(struct job *job);
/* All three in a row. */
int run_bounded(probe_function *probe, struct outcome *out);
/* Runs `body` in a child made with the CLONE_* flags and waits for it; a refused clone
   is noted as `step`. Returns 0 when the body did. */
int in_child(uint64_t flags, const char *step, probe_function *body, struct outcome *out);
/* To be called once, by main, before any of the following. */
int make_lifeline(void);
/* Makes the calling process end with its parent.
   To be called again after a change of credentials, which undoes it. */
void follow(pid_t parent);
/* The same, and the calling process ends a second after its probe's time is over in any case. */
void arm(pid_t parent);
/* fork(2) for everything here: no process may outlive main. */
pid_t fork_armed(void);

/* Whether the namespaces that follow belong to a user namespace of ours. */
extern int rootless;

/* Maps root of a new user namespace to one id outside, from inside. */
int map_own_id(struct outcome *out, unsigned uid, unsigned gid);
/* A private mount namespace, and in it an empty tmpfs as the working directory. */
int own_mounts(struct outcome *out);
int playground(struct outcome *out);
/* A network namespace, waiting a little where dead ones still use up the limit. */
int own_network(struct outcome *out);
/* Writes a new file below the working directory. */
int put_file(const char *path, const char *text);
/* The first bytes of a file as a string; -1 and errno when it cannot be read. */
int get_file(const char *path, char *buffer, size_t size);

/* calls.c: single system calls, as the caller of pcprobe. */
probe_function probe_clone3, probe_pidfd, probe_close_range, probe_openat2, probe_chroot, probe_ptrace;
probe_function probe_seccomp_notify, probe_landlock;
/* files.c */
probe_function probe_reflink, probe_preload;
/* groups.c */
probe_function probe_cgroup_limits;
/* spaces.c */
probe_function probe_userns, probe_idranges, probe_mountns, probe_pidns, probe_netns, probe_utsns;
probe_function probe_ipcns, probe_cgroupns;
/* mounts.c */
probe_function probe_overlay, probe_fresh_proc, probe_pivot_root, probe_mount_move, probe_mount_setattr;
probe_function probe_private_dev, probe_sysfs;
/* links.c: these run in a network namespace made for them, as do those after. */
probe_function probe_veth, probe_ipv6, probe_bridge, probe_dummy, probe_ifb, probe_tun;
probe_function probe_raw_socket, probe_packet_socket;
/* drops.c */
probe_function probe_nft_netdev, probe_nft_egress, probe_tc_clsact, probe_cls_bpf, probe_mirred;
probe_function probe_netem, probe_tbf;

#endif
