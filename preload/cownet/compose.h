/* The trees of a start within a start: the outer ones, and its own on top of them. */
#ifndef PCCOW_COMPOSE_H
#define PCCOW_COMPOSE_H

#include <stddef.h>

#include "../cow/resolver/resolver.h"

/* `outer` and `inner` are configurations as read (records ended by NUL). Writes the one of all trees to `out` (of
   COW_CONFIG_SIZE bytes): the asker, on the outer trees, names the inner ones, so their directories are found in the
   outer view; a lower that is in an outer tree becomes that tree's layers. Returns its size, or -errno:
   -EXDEV an inner mount is above an outer one, -E2BIG too many trees or layers. work (PATH_MAX) gets the directory where
   such a configuration may lie, "" if none. */
long compose(const struct cow_asker *asker, const char *outer, size_t outer_size, const char *inner, size_t inner_size, char *out, char *work);

#endif
