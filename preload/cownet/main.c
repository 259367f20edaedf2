/* pccow: arguments, and the start of the three processes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/cow_cookie.h"
#include "../common/sys.h"
#include "pccow.h"

enum { EXIT_USAGE = 64, EXIT_OURS = 125 };

static _Noreturn void usage(void)
{
    static const char text[] =
        "usage: pccow [OPTION VALUE]... -- COMMAND [ARGUMENT]...\n"
        "Runs COMMAND on the copy-on-write trees of a configuration (preload/cow/README.md).\n"
        "  --config FILE    the configuration; without it POOR_CONTAINER_COW of the environment\n"
        "  --library FILE   libpccow.so, put in front of LD_PRELOAD; without it all goes through the net\n"
        "  --net MODE       required, auto (where this machine gives it; the default), off\n"
        "  --lifeline FD    when this pipe hangs up, the command and all that it started are killed\n"
        "  --owner FD       when the process of this pidfd ends, too\n"
        "  --status FD      gets one line: \"net\", or \"preload: \" and why there is no net\n";
    if (write(2, text, sizeof text - 1) < 0)
        _exit(EXIT_OURS);
    _exit(EXIT_USAGE);
}

static _Noreturn void fail(const char *what, const char *object, const char *why)
{
    fprintf(stderr, "pccow: cannot %s %s: %s\n", what, object, why);
    _exit(EXIT_OURS);
}

static int descriptor(const char *text)
{
    char *end;
    const long fd = strtol(text, &end, 10);
    if (end == text || *end || fd < 0 || fcntl((int)fd, F_SETFD, FD_CLOEXEC) < 0)
        fail("use the descriptor", text, "a number of an open descriptor was expected");
    return (int)fd;
}

static enum net_mode mode(const char *text)
{
    if (strcmp(text, "required") == 0)
        return NET_REQUIRED;
    if (strcmp(text, "off") == 0)
        return NET_OFF;
    if (strcmp(text, "auto") != 0)
        usage();
    return NET_AUTO;
}

static void parse(int argc, char **argv, struct options *options)
{
    int i = 1;
    for (; i + 1 < argc && strcmp(argv[i], "--") != 0; i += 2) {
        if (strcmp(argv[i], "--config") == 0)
            options->configuration = argv[i + 1];
        else if (strcmp(argv[i], "--library") == 0)
            options->library = argv[i + 1];
        else if (strcmp(argv[i], "--net") == 0)
            options->net = mode(argv[i + 1]);
        else if (strcmp(argv[i], "--lifeline") == 0)
            options->lifeline = descriptor(argv[i + 1]);
        else if (strcmp(argv[i], "--owner") == 0)
            options->owner = descriptor(argv[i + 1]);
        else if (strcmp(argv[i], "--status") == 0)
            options->status = descriptor(argv[i + 1]);
        else
            usage();
    }
    if (i + 1 >= argc || strcmp(argv[i], "--") != 0)
        usage();
    options->command = &argv[i + 1];
}

/* A process has one listener at most, so a start within a start asks the outer supervisor to know our trees as well. */
static void join_outer(struct options *options)
{
    static char joined[PATH_MAX];
    if (prctl(PCCOW_PRCTL, PCCOW_PING, 0, 0, 0) != 1)
        return;
    if (prctl(PCCOW_PRCTL, PCCOW_JOIN, options->configuration, joined, 0) < 0)
        fail("add to the outer pccow's trees those of", options->configuration, strerror(errno));
    options->nested = 1;
    options->configuration = joined;
}

int main(int argc, char **argv)
{
    struct options options = { .lifeline = -1, .owner = -1, .status = -1, .configuration = getenv("POOR_CONTAINER_COW") };
    int line[2];
    char real[PATH_MAX];
    parse(argc, argv, &options);
    if (!options.configuration)
        fail("find", "the configuration", "neither --config nor POOR_CONTAINER_COW is given");
    if (!realpath(options.configuration, real))
        fail("read the configuration", options.configuration, strerror(errno));
    options.configuration = real;
    join_outer(&options);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, line) < 0)
        fail("make", "a socket pair", strerror(errno));
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &options.mask);
    const pid_t supervisor = fork();
    if (supervisor < 0)
        fail("start", "the supervisor", strerror(errno));
    if (supervisor == 0) {
        close(line[0]);
        supervise(&options, line[1]);
    }
    close(line[1]);
    front_run(supervisor, line[0]);
}
