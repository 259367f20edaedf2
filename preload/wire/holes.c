#include "holes.h"

#include <stdlib.h>
#include <string.h>

/* 6 MB under way, as TCP has by default, with 6 % lost. */
enum { HOLES_MAX = 256 };

struct hole {
    uint64_t from, to;
};

struct holes {
    struct hole hole[HOLES_MAX + 1]; /* in order; one more while there are too many */
    unsigned count;
};

static void forget_oldest(struct holes *holes)
{
    if (holes->count > HOLES_MAX)
        memmove(holes->hole, holes->hole + 1, --holes->count * sizeof *holes->hole);
}

void holes_add(struct holes **holes, uint64_t from, uint64_t to)
{
    if (!*holes)
        *holes = calloc(1, sizeof **holes);
    if (!*holes)
        return;
    (*holes)->hole[(*holes)->count++] = (struct hole){ from, to };
    forget_oldest(*holes);
}

/* Takes the range out of one hole; returns how many are left of it: at most one is made two, that in which all
   of the range lies. */
static unsigned cut(struct holes *holes, unsigned i, uint64_t from, uint64_t to)
{
    struct hole *hole = &holes->hole[i];
    const struct hole before = { hole->from, from < hole->to ? from : hole->to };
    const struct hole behind = { to > hole->from ? to : hole->from, hole->to };
    const unsigned left = (before.from < before.to) + (behind.from < behind.to);
    memmove(hole + left, hole + 1, (holes->count - i - 1) * sizeof *hole);
    if (before.from < before.to)
        *hole++ = before;
    if (behind.from < behind.to)
        *hole = behind;
    holes->count += left;
    holes->count--;
    return left;
}

int holes_fill(struct holes **holes, uint64_t place, uint64_t from, uint64_t to)
{
    int was_missing = 0;
    if (!*holes)
        return 0;
    for (unsigned i = 0; i < (*holes)->count; i += cut(*holes, i, from, to))
        was_missing |= (*holes)->hole[i].from <= place && place < (*holes)->hole[i].to;
    forget_oldest(*holes);
    if ((*holes)->count == 0)
        holes_drop(holes);
    return was_missing;
}

void holes_drop(struct holes **holes)
{
    free(*holes);
    *holes = NULL;
}
