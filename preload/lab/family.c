/* Ends processes that make others all the time. Who kills them one by one runs behind: as long as
   one is left it makes new ones, and each that dies leaves room for another. So they are stopped
   first, again and again until no new one is seen; what is stopped forks no more. */
#define _GNU_SOURCE
#include "family.h"

#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

#include "../common/numbered.h"
#include "../common/sys.h"

enum { FAMILY_MAX = 4096, STOPS_MAX = 200 };

static pid_t family[FAMILY_MAX];
static int count;

/* A file of proc_pid_task_children(5): pids, each with a space behind it. */
static void add_children(const char *path)
{
    char text[8192];
    pid_t pid = 0;
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return; /* it has ended meanwhile, and its children are ours */
    for (ssize_t length; (length = read(fd, text, sizeof text)) > 0;)
        for (ssize_t i = 0; i < length; i++) {
            if (text[i] >= '0' && text[i] <= '9') {
                pid = pid * 10 + (text[i] - '0');
            } else if (pid > 0) {
                if (count < FAMILY_MAX)
                    family[count++] = pid;
                pid = 0;
            }
        }
}

static int add_children_of_thread(int tasks, const char *name, void *what)
{
    char path[64];
    (void)tasks;
    snprintf(path, sizeof path, "/proc/%d/task/%.20s/children", (int)*(const pid_t *)what, name);
    add_children(path);
    return 0;
}

/* Each thread has children of its own. */
static void add_children_of(pid_t pid)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    CLEANUP_FD int tasks = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (tasks >= 0)
        pc_each_number(tasks, add_children_of_thread, &pid);
}

/* Returns a number that is another one when the family is. */
static uint64_t look(void)
{
    uint64_t sum = 0;
    count = 0;
    add_children("/proc/thread-self/children");
    for (int i = 0; i < count; i++) {
        add_children_of(family[i]);
        sum += (uint64_t)family[i] * (uint64_t)family[i] + 1;
    }
    return sum;
}

static void send(int signal)
{
    for (int i = 0; i < count; i++)
        kill(family[i], signal);
}

void family_kill(void)
{
    uint64_t before = look();
    /* One alone, which is the rule, needs no second look: what it makes meanwhile comes to us. */
    if (count > 1)
        for (int i = 0; i < STOPS_MAX; i++) {
            send(SIGSTOP);
            const uint64_t now = look();
            if (now == before)
                break;
            before = now;
        }
    send(SIGKILL);
}
