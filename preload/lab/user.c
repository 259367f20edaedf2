#define _GNU_SOURCE
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../common/sys.h"

enum { FIELDS = 7, FILE_SIZE = 256 << 10 };

PC_LAST char user_file[FILE_SIZE + 1];

/* The C library's getpwnam would load plug-ins (nsswitch); a static program cannot. */
static int load(const char *path)
{
    CLEANUP_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t done = 0;
    for (ssize_t got; (got = read(fd, user_file + done, FILE_SIZE - done)) > 0;)
        done += (size_t)got;
    user_file[done] = 0;
    return 0;
}

/* Cuts the next line into its fields at the colons; returns how many, or -1 at the end. */
static int next_line(char **at, char *fields[FIELDS])
{
    char *line = *at;
    if (!*line)
        return -1;
    char *end = strchrnul(line, '\n');
    *at = *end ? end + 1 : end;
    *end = 0;
    int count = 0;
    for (char *field = line; field && count < FIELDS; count++) {
        fields[count] = field;
        field = strchr(field, ':');
        if (field)
            *field++ = 0;
    }
    return count;
}

/* Whether a comma separated list has the name. */
static int lists(const char *members, const char *name)
{
    size_t length = strlen(name);
    while (*members) {
        size_t member = strcspn(members, ",");
        if (member == length && strncmp(members, name, length) == 0)
            return 1;
        members += member;
        members += *members == ',';
    }
    return 0;
}

static int is_number(const char *who, unsigned long *number)
{
    char *end;
    errno = 0;
    *number = strtoul(who, &end, 10);
    return *who >= '0' && *who <= '9' && *end == 0 && errno == 0 && *number < 0xffffffffUL;
}

int user_find(const char *who, struct user *user)
{
    char *fields[FIELDS], *at = user_file;
    static char name[64];
    unsigned long number;
    int numeric = is_number(who, &number), found = 0;
    memset(user, 0, sizeof *user);
    name[0] = 0;
    if (load("/etc/passwd") < 0 && !numeric)
        return -1;
    for (int count; !found && (count = next_line(&at, fields)) >= 0;) {
        if (count < 6 || (strcmp(fields[0], who) != 0 && !(numeric && strtoul(fields[2], NULL, 10) == number)))
            continue;
        found = 1;
        user->uid = (uid_t)strtoul(fields[2], NULL, 10);
        user->gid = (gid_t)strtoul(fields[3], NULL, 10);
        strncpy(user->home, fields[5], sizeof user->home - 1);
        strncpy(name, fields[0], sizeof name - 1);
    }
    if (!found && !numeric) {
        errno = ENOENT;
        return -1;
    }
    if (!found) {
        user->uid = (uid_t)number;
        user->gid = (gid_t)number;
    }
    if (!user->home[0])
        strcpy(user->home, "/");
    user->groups[user->group_count++] = user->gid;
    if (!name[0] || load("/etc/group") < 0)
        return 0;
    at = user_file;
    for (int count; (count = next_line(&at, fields)) >= 0;)
        if (count >= 4 && lists(fields[3], name) && user->group_count < GROUPS_MAX)
            user->groups[user->group_count++] = (gid_t)strtoul(fields[2], NULL, 10);
    return 0;
}
