/* Users as the container's own /etc/passwd and /etc/group have them. */
#ifndef PC_USER_H
#define PC_USER_H

#include <sys/types.h>

enum { GROUPS_MAX = 64, HOME_SIZE = 256 };

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[GROUPS_MAX];
    int group_count;
    char home[HOME_SIZE];
};

/* Looks a name or a number up. A number that the file does not have is a user without a
   name, with the group of the same number. Returns -1 and ENOENT for an unknown name. */
int user_find(const char *who, struct user *user);

#endif
