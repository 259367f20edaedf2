#define _GNU_SOURCE
#include "privilege.h"

#include <linux/capability.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

int pc_is_privileged(void)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[2] = { 0 };
    if (geteuid() != 0 || syscall(SYS_capget, &header, data) < 0)
        return 0;
    const uint32_t needed = 1U << CAP_SYS_ADMIN | 1U << CAP_NET_ADMIN | 1U << CAP_SYS_CHROOT;
    return (data[0].effective & needed) == needed;
}
