/* For LD_PRELOAD: FRR's daemons ask for CAP_SYS_ADMIN, and end when they do not get it, though they need it for VRFs
   alone. Hosts do not have it; so here it is taken out of what they ask for (cap_set_proc(3) of libcap). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/capability.h>

typedef struct _cap_struct *cap_t;
extern int cap_set_flag(cap_t caps, int flag, int count, const int *values, int value);

int cap_set_proc(cap_t caps)
{
    static const int unwanted[] = { CAP_SYS_ADMIN };
    int (*real)(cap_t) = (int (*)(cap_t))dlsym(RTLD_NEXT, "cap_set_proc");
    for (int flag = 0; flag < 3; flag++) /* effective, permitted, inheritable */
        cap_set_flag(caps, flag, 1, unwanted, 0);
    return real(caps);
}
