/* The watcher: a child subreaper between the agent and a command. All that the command
   starts and abandons becomes the watcher's child, so the whole tree can be ended. */
#define _GNU_SOURCE
#include "command.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/failure.h"
#include "../common/sys.h"
#include "family.h"
#include "launch.h"

enum { KILL_PATIENCE_MS = 4000, KILL_PAUSE_MS = 20, BUSY_AFTER_MS = 5 };

struct watcher {
    int control;
    int signals;
    int requests;        /* the agent's socket; -1: they are somebody else's business */
    void (*busy)(void);
    pid_t command; /* 0 once its death was reported */
    int killing;
    int64_t kill_until;
};

void umask_for_commands(void)
{
    umask(022);
}

/* Reaps; returns 0 when no child is left. */
static int reap_children(struct watcher *watcher)
{
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG | __WALL);
        if (pid == 0)
            return 1;
        if (pid < 0)
            return errno == EINTR;
        if (pid != watcher->command)
            continue;
        struct pc_out out;
        watcher->command = 0;
        pc_begin(&out, PC_EXITED, 0);
        pc_put_u32(&out, PC_F_STATUS, (uint32_t)status);
        pc_send(watcher->control, &out, NULL, 0, 0);
    }
}

static void leave_requests(struct watcher *watcher)
{
    if (watcher->requests < 0)
        return;
    watcher->requests = -1;
    watcher->busy();
}

static void serve(struct watcher *watcher)
{
    struct pc_in in;
    struct pc_cursor cursor;
    int got = pc_receive(watcher->control, &in);
    if (got == 0 || (got < 0 && errno != EPROTO)) {
        /* Nobody listens any more. The command goes on, as a child of subprocess would. */
        close(watcher->control);
        watcher->control = -1;
        return;
    }
    if (got > 0 && in.header.op == PC_KILL_TREE && !watcher->killing) {
        watcher->killing = 1;
        leave_requests(watcher); /* to kill takes its time */
        watcher->kill_until = pc_now_us() + KILL_PATIENCE_MS * 1000;
    }
    if (got > 0 && in.header.op == PC_SIGNAL && watcher->command > 0) {
        pc_fields(&cursor, &in);
        for (char *value; (value = pc_next(&cursor));)
            if (cursor.field.type == PC_F_SIGNAL)
                kill(watcher->command, (int)pc_u32(&cursor, value));
    }
    pc_release(&in);
}

/* Returns when nothing of the command is left. */
static void watch(struct watcher *watcher)
{
    struct pc_out out;
    while (reap_children(watcher)) {
        struct pollfd polls[3] = { { .fd = watcher->control, .events = POLLIN }, { .fd = watcher->signals, .events = POLLIN }, { .fd = watcher->requests, .events = POLLIN } };
        if (watcher->killing)
            family_kill();
        const int ready = poll(polls, 3, watcher->killing ? KILL_PAUSE_MS : watcher->requests >= 0 ? BUSY_AFTER_MS : -1);
        if (ready < 0 && errno != EINTR)
            _exit(1);
        if (ready == 0 || (ready > 0 && polls[2].revents))
            leave_requests(watcher);
        if (polls[1].revents & POLLIN) {
            struct signalfd_siginfo ignored;
            while (read(watcher->signals, &ignored, sizeof ignored) > 0)
                continue;
        }
        if (polls[0].revents & (POLLIN | POLLHUP))
            serve(watcher);
        if (watcher->killing && pc_now_us() > watcher->kill_until) {
            pc_send_error(watcher->control, 0, "end all that the command started", NULL, ETIMEDOUT, "something keeps forking faster than it can be killed: close the container");
            watcher->killing = 0;
        }
    }
    if (watcher->killing) {
        pc_begin(&out, PC_TREE_DEAD, 0);
        pc_send(watcher->control, &out, NULL, 0, 0);
    }
}

void command_watch(struct pc_in *in, const struct agent *agent, void (*busy)(void))
{
    struct watcher watcher = { .control = in->fd_count > 0 ? in->fds[0] : -1, .signals = agent->signals, .requests = busy ? agent->socket : -1, .busy = busy };
    struct pc_failure failure = { 0 };
    struct pc_out out;
    if (in->fd_count < 4) {
        pc_release(in); /* the sender sees the end of file on its control socket */
        return;
    }
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    in->fds[0] = -1;
    watcher.command = launch(in, agent->rootless_ids, &failure);
    /* Or a reader of the command's output would not see its end before ours. */
    pc_release(in);
    if (watcher.command < 0) {
        pc_send_failure(watcher.control, 0, &failure);
    } else {
        pc_begin(&out, PC_STARTED, 0);
        pc_put_u32(&out, PC_F_PID, (uint32_t)watcher.command);
        /* The kernel translates the pid in the credentials for who receives them. It may be a
           zombie already, never gone: we have not waited for it. */
        pc_send(watcher.control, &out, NULL, 0, watcher.command);
        watch(&watcher);
    }
    if (watcher.control >= 0)
        close(watcher.control); /* its end of file says that nothing of the command is left */
}
