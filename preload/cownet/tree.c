#define _GNU_SOURCE
#include "tree.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../common/sys.h"

enum { PATIENCE_US = 4000000, PAUSE_MS = 5 };

static void kill_children(void)
{
    char text[8192];
    CLEANUP_FD int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    const ssize_t length = read(fd, text, sizeof text);
    pid_t pid = 0;
    for (ssize_t i = 0; i < length; i++) {
        if (text[i] >= '0' && text[i] <= '9') {
            pid = pid * 10 + (text[i] - '0');
        } else if (pid > 0) {
            kill(pid, SIGKILL);
            pid = 0;
        }
    }
}

void tree_kill(void)
{
    const int64_t until = pc_now_us() + PATIENCE_US;
    while (pc_now_us() < until) {
        pid_t pid;
        kill_children();
        while ((pid = waitpid(-1, NULL, WNOHANG | __WALL)) > 0)
            continue;
        if (pid < 0 && errno == ECHILD)
            return;
        poll(NULL, 0, PAUSE_MS);
    }
}
