/* pcprobe: prints one JSON object a line, {feature, works, errno, step, detail, via}.

   `via` says with what privilege it was tried: "root" (the caller's own), "userns" (that of
   a user namespace made for it), "" (none, because none was needed or to be had). */
#define _GNU_SOURCE
#include "probe.h"

#include "../common/privilege.h"
#include "../common/sys.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

int rootless;

struct feature {
    const char *name;
    probe_function *probe;
};

static const struct feature as_caller[] = {
    { "idranges", probe_idranges },
    { "clone3", probe_clone3 },
    { "pidfd", probe_pidfd },
    { "close_range", probe_close_range },
    { "openat2", probe_openat2 },
    { "chroot", probe_chroot },
    { "ptrace", probe_ptrace },
    { "preload", probe_preload },
    { "seccomp_notify", probe_seccomp_notify },
    { "landlock", probe_landlock },
    { "cgroup_limits", probe_cgroup_limits },
    { "reflink", probe_reflink },
    { 0 },
};

static const struct feature in_spaces[] = {
    { "mountns", probe_mountns },
    { "pidns", probe_pidns },
    { "netns", probe_netns },
    { "utsns", probe_utsns },
    { "ipcns", probe_ipcns },
    { "cgroupns", probe_cgroupns },
    { "overlay", probe_overlay },
    { "fresh_proc", probe_fresh_proc },
    { "private_dev", probe_private_dev },
    { "pivot_root", probe_pivot_root },
    { "mount_move", probe_mount_move },
    { "mount_setattr", probe_mount_setattr },
    { 0 },
};

static const struct feature in_network[] = {
    { "veth", probe_veth },
    { "ipv6", probe_ipv6 },
    { "raw_socket", probe_raw_socket },
    { "packet_socket", probe_packet_socket },
    { "tun", probe_tun },
    { "sysfs", probe_sysfs },
    { "bridge", probe_bridge },
    { "dummy", probe_dummy },
    { "ifb", probe_ifb },
    { "nft_netdev", probe_nft_netdev },
    { "nft_egress", probe_nft_egress },
    { "tc_clsact", probe_tc_clsact },
    { "cls_bpf", probe_cls_bpf },
    { "mirred", probe_mirred },
    { "netem", probe_netem },
    { "tbf", probe_tbf },
    { 0 },
};

static const char *via = "";

/* Appends a JSON string; our texts are ASCII, anything else is shown as '?'. */
static char *quoted(char *to, const char *text)
{
    *to++ = '"';
    for (; *text; text++) {
        if (*text == '"' || *text == '\\')
            *to++ = '\\';
        *to++ = *text >= ' ' && *text < 127 ? *text : '?';
    }
    *to++ = '"';
    return to;
}

static void print(const char *name, int works, const struct outcome *out)
{
    char line[1024];
    char *end = line;
    end += sprintf(end, "{\"feature\": \"%s\", \"works\": %s, \"errno\": %d, \"step\": ", name, works ? "true" : "false",
                   works ? 0 : out->error);
    end = quoted(end, works ? "" : out->step);
    end += sprintf(end, ", \"detail\": ");
    end = quoted(end, out->detail);
    end += sprintf(end, ", \"via\": \"%s\"}\n", via);
    for (const char *from = line; from < end;) {
        ssize_t written = write(STDOUT_FILENO, from, (size_t)(end - from));
        if (written < 0 && errno != EINTR)
            _exit(1); /* nobody reads any more */
        from += written > 0 ? written : 0;
    }
}

/* One slot a probe, in memory shared with all children. */
static struct outcome *slots;

enum { SLOTS = 64, OWN_SLOT = SLOTS - 1 };

/* Probes that do not touch each other run side by side: some make the kernel wait. */
static size_t start_all(const struct feature *feature, struct job *jobs, struct outcome *outcomes)
{
    size_t count = 0;
    for (; feature[count].name; count++)
        start(&jobs[count], feature[count].probe, &outcomes[count]);
    return count;
}

static void finish_all(const struct feature *feature, struct job *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++)
        print(feature[i].name, finish(&jobs[i]) == 0, jobs[i].out);
    for (size_t i = 0; i < count; i++)
        reap(&jobs[i]);
}

/* All network probes share one namespace, since each costs the kernel more than a probe;
   so they run one after the other, and only their ends overlap. */
static void network_stage(struct outcome *outcomes)
{
    struct job jobs[sizeof in_network / sizeof *in_network];
    size_t count = 0;
    int refused = own_network(&outcomes[0]) != 0;
    for (; in_network[count].name; count++) {
        if (refused) {
            print(in_network[count].name, 0, &outcomes[0]);
            continue;
        }
        start(&jobs[count], in_network[count].probe, &outcomes[count]);
        print(in_network[count].name, finish(&jobs[count]) == 0, &outcomes[count]);
    }
    for (size_t i = 0; i < count && !refused; i++)
        reap(&jobs[i]);
}

static void spaces_stage(pid_t parent, unsigned uid, unsigned gid, struct outcome *outcomes)
{
    struct job jobs[sizeof in_spaces / sizeof *in_spaces];
    /* No arm(): a stage takes longer than a single probe may. */
    follow(parent);
    if (rootless && map_own_id(outcomes, uid, gid) != 0)
        _exit(1);
    follow(parent); /* again: the change of credentials undid it */
    size_t count = start_all(in_spaces, jobs, outcomes);
    finish_all(in_spaces, jobs, count);
    memset(outcomes, 0, sizeof *outcomes);
    network_stage(outcomes);
    _exit(0);
}

int main(void)
{
    struct job jobs[sizeof as_caller / sizeof *as_caller];
    /* An ignored SIGCHLD, inherited, would reap our children before we ask for them. */
    signal(SIGCHLD, SIG_DFL);
    /* What a killed probe had started comes to us, so that we can say that nothing is left. */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    slots = mmap(NULL, SLOTS * sizeof *slots, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (slots == MAP_FAILED || make_lifeline() != 0) {
        perror("pcprobe: cannot make shared memory and a pipe");
        return 1;
    }
    /* The lab decides by the same rule, and what it does is what is to be tried. */
    int privileged = pc_is_privileged();
    int userns = run_bounded(probe_userns, &slots[OWN_SLOT]) == 0;
    print("userns", userns, &slots[OWN_SLOT]);
    rootless = !privileged && userns;
    size_t count = start_all(as_caller, jobs, slots);

    via = privileged ? "root" : userns ? "userns" : "";
    unsigned uid = geteuid(), gid = getegid();
    pid_t parent = getpid(), stage = pc_clone(rootless ? CLONE_NEWUSER : 0, NULL);
    if (stage == 0)
        spaces_stage(parent, uid, gid, slots + count);
    via = "";
    finish_all(as_caller, jobs, count);
    int status = 0;
    int ended = stage < 0 ? -1 : waitpid(stage, &status, 0);
    while (waitpid(-1, NULL, 0) > 0)
        continue;
    if (ended != stage || stage < 0 || status != 0) {
        fprintf(stderr, "pcprobe: the process that probes namespaces ended early (wait status %d)\n", status);
        return 1;
    }
    return 0;
}
