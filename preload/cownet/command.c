/* The command's process, before it is the command. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../common/cow_cookie.h"
#include "filter.h"
#include "pccow.h"

/* Sends errno (0: none), and the listener with it if there is one. */
static void tell(int line, int error, int listener)
{
    char space[CMSG_SPACE(sizeof(int))] = { 0 };
    struct iovec part = { &error, sizeof error };
    struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
    if (listener >= 0) {
        message.msg_control = space;
        message.msg_controllen = sizeof space;
        struct cmsghdr *control = CMSG_FIRSTHDR(&message);
        control->cmsg_level = SOL_SOCKET;
        control->cmsg_type = SCM_RIGHTS;
        control->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(control), &listener, sizeof listener);
    }
    /* The filter is above us already, and nobody serves it yet. */
    const long cookie = pccow_cookie(SYS_sendmsg, line, (long)&message);
    if (syscall(SYS_sendmsg, (long)line, &message, (long)MSG_NOSIGNAL, 0L, 0L, cookie) < 0)
        _exit(125); /* the supervisor is gone */
}

static void set_environment(const struct options *options)
{
    static char preload[2 * PATH_MAX];
    const char *others = getenv("LD_PRELOAD");
    setenv("POOR_CONTAINER_COW", options->configuration, 1);
    if (!options->library)
        return;
    snprintf(preload, sizeof preload, "%s%s%s", options->library, others && *others ? ":" : "", others ? others : "");
    setenv("LD_PRELOAD", preload, 1);
}

_Noreturn void command_run(const struct options *options, int line)
{
    char word;
    set_environment(options);
    if (recv(line, &word, sizeof word, 0) != sizeof word)
        _exit(125);
    if (word == WORD_NET) {
        const int listener = filter_install();
        tell(line, listener < 0 ? errno : 0, listener);
        /* What the supervisor thinks of it. Without a net where one has to be, it does not answer. */
        if (recv(line, &word, sizeof word, 0) != sizeof word)
            _exit(125);
        if (listener >= 0)
            close(listener);
    }
    sigprocmask(SIG_SETMASK, &options->mask, NULL);
    execvp(options->command[0], options->command);
    const int error = errno;
    fprintf(stderr, "pccow: cannot execute %s: %s\n", options->command[0], strerror(error));
    _exit(error == ENOENT ? 127 : 126);
}
