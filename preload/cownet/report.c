#define _GNU_SOURCE
#include "report.h"

#include <fcntl.h>
#include <limits.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/sys.h"
#include "../cow/resolver/resolver.h"
#include "pccow.h"

enum { LINE_SIZE = PATH_MAX + 256 };

static int line = -1;

void report_start(int fd)
{
    line = fd;
}

void report_stop(void)
{
    line = -1;
}

static void report(int kind, int status, const char *text)
{
    static __thread struct report report;
    const size_t length = strnlen(text, sizeof report.text - 1);
    report.kind = kind;
    report.status = status;
    memcpy(report.text, text, length);
    report.text[length] = 0;
    /* Nobody there any more: then the command has ended, and what it left behind has nobody to complain to. */
    send(line, &report, offsetof(struct report, text) + length + 1, MSG_NOSIGNAL);
}

void report_refusal(const struct cow_set *set, const char *call, const char *path, const char *reason)
{
    char text[LINE_SIZE];
    const int length = snprintf(text, sizeof text, "%s%s%s: %s\n", call, path ? " " : "", path ? path : "", reason);
    CLEANUP_FD int fd = set && set->log ? open(set->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd < 0 || write(fd, text, (size_t)length) != length) {
        memmove(text + 7, text, sizeof text - 7);
        memcpy(text, "pccow: ", 7);
        text[sizeof text - 1] = 0;
        report(REPORT_LOG, 0, text);
    }
}

void report_status(int status)
{
    report(REPORT_STATUS, status, "");
}

void report_failure(int status, const char *text)
{
    report(REPORT_FAILURE, status, text);
}
