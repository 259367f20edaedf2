#define _GNU_SOURCE
#include "paths.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

void path_unescape(char *text)
{
    char *to = text;
    for (; *text; text++)
        if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] && text[3]) {
            *to++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
            text += 3;
        } else {
            *to++ = *text;
        }
    *to = 0;
}

int path_make(char *path, int known)
{
    const int length = (int)strlen(path);
    for (int i = known; i <= length; i++) {
        if (path[i] != '/' && path[i] != 0)
            continue;
        const char kept = path[i];
        path[i] = 0;
        if (mkdir(path, 0755) < 0 && errno != EEXIST)
            return -1;
        path[i] = kept;
    }
    return 0;
}
