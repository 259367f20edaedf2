/* dlopen of a file in the view. A name without a slash is looked for along the caller's own paths: libc finds the caller by the
   return address, so the call must stay the last one (gcc makes it a jump). */
#define _GNU_SOURCE
#include <dlfcn.h>

#include "library.h"

static const char *real_name(const char *name, char *real)
{
    if (!name || !strchr(name, '/') || strchr(name, '$'))
        return name;
    return cow_real_path(ME, AT_FDCWD, name, 0, real) < 0 ? name : real;
}

/* Inside a tree, or nothing: outside, the name that was given is the better one for dladdr and messages. */
static int in_tree(const char *name)
{
    struct cow_walk *CLEANUP_WALK w = cow_walk_new(ME);
    return name && strchr(name, '/') && !strchr(name, '$') && w && cow_walk_path(w, AT_FDCWD, name, 0) == 0 && w->tree;
}

static void *open_real(const char *name, int mode)
{
    char real[PATH_MAX];
    return NEXT(dlopen)(real_name(name, real), mode);
}

EXPORT void *dlopen(const char *name, int mode)
{
    static void *(*real)(const char *, int);
    if (!real)
        real = NEXT(dlopen);
    if (in_tree(name))
        return open_real(name, mode);
    return real(name, mode);
}

static void *open_real_in(Lmid_t space, const char *name, int mode)
{
    char real[PATH_MAX];
    return NEXT(dlmopen)(space, real_name(name, real), mode);
}

EXPORT void *dlmopen(Lmid_t space, const char *name, int mode)
{
    static void *(*real)(Lmid_t, const char *, int);
    if (!real)
        real = NEXT(dlmopen);
    if (in_tree(name))
        return open_real_in(space, name, mode);
    return real(space, name, mode);
}
