#include "title.h"

#include <string.h>

static char *area;
static unsigned long size;

void title_keep(int argc, char **argv)
{
    area = argv[0];
    size = (unsigned long)(argv[argc - 1] + strlen(argv[argc - 1]) - area);
}

void title_shorten(const char *name)
{
    unsigned long length = strlen(name);
    if (length > size)
        length = size;
    memcpy(area, name, length);
    memset(area + length, 0, size - length);
}
