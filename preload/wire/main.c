#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/failure.h"
#include "wire.h"

/* What strangers send goes through this process: it gives up all that it could do beyond its
   open sockets. */
static int drop_privileges(struct pc_failure *failure)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_capset, &header, none) < 0)
        return pc_fail(failure, "drop the privileges of", "a wire");
    return 0;
}

/* To be awake soon when there are frames: a slice that is short comes earlier (Linux 6.12,
   kernel/sched/syscalls.c: sched_runtime of SCHED_OTHER), and where we may, a priority. Neither
   is needed for anything but speed, so a refusal is none of our concern. */
static void be_prompt(void)
{
    struct {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime, deadline, period;
    } attributes = { .size = 48, .nice = -10, .runtime = 100000 };
    if (syscall(SYS_sched_setattr, 0, &attributes, 0) == 0)
        return;
    attributes.nice = 0;
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

static int set_up(struct wire *wire, char **argv, struct pc_failure *failure)
{
    const int plug[ENDS] = { atoi(argv[1]), atoi(argv[2]) };
    prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0); /* the default makes each wait 50 us longer */
    be_prompt();
    const int divisor = argv[3] ? atoi(argv[3]) : 1;
    if (wire_open(wire, plug, divisor > 0 ? (unsigned)divisor : 1, failure) < 0)
        return -1;
    return drop_privileges(failure);
}

static int serve(struct wire *wire)
{
    struct pc_in in;
    int go_on = 1;
    in.header = (struct pc_header){ .request = 0 }; /* of a message that is too short */
    const int got = pc_receive_with(wire->control, &in, MSG_DONTWAIT);
    if (got > 0) {
        go_on = control_serve(wire, &in);
    } else if (got < 0 && (errno == EPROTO || errno == EMFILE)) {
        pc_send_error(wire->control, in.header.request, "receive a request", NULL, errno, "the client and pcwire must be of one version");
    } else if (got == 0 || errno != EAGAIN) {
        close(wire->control);
        wire->control = -1;
    }
    pc_release(&in);
    return go_on;
}

int main(int argc, char **argv)
{
    static struct wire wire;
    struct pc_failure failure = { 0 };
    struct pc_out out;
    if (argc < 3 || argc > 4 || fcntl(CONTROL, F_SETFD, FD_CLOEXEC) < 0)
        return 2;
    wire.control = CONTROL;
    if (set_up(&wire, argv, &failure) < 0) {
        pc_send_failure(CONTROL, 0, &failure);
        return 1;
    }
    pc_begin(&out, PC_STARTED, 0);
    pc_put_u32(&out, PC_F_PID, (uint32_t)getpid());
    pc_send(CONTROL, &out, NULL, 0, 0);
    for (;;) {
        const int what = wire_run(&wire, -1, INT64_MAX);
        if ((what & 1) && !serve(&wire))
            return 0;
        if (what & 4)
            return 0; /* a plug is gone, and with it the cable */
        if (!wire.started && wire.control < 0)
            return 0;
    }
}
