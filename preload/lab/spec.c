/* What a container is to be, as a request says it. */
#include <string.h>

#include "../common/message.h"
#include "container.h"

/* As Python packs it: resource, soft, hard, without gaps. */
static int read_limit(struct container_spec *spec, const char *value, size_t length)
{
    if (spec->limit_count == RLIMITS_MAX || length != 20)
        return -1;
    struct limit_spec *limit = &spec->limits[spec->limit_count++];
    memcpy(&limit->resource, value, 4);
    memcpy(&limit->soft, value + 4, 8);
    memcpy(&limit->hard, value + 12, 8);
    return 0;
}

int spec_read(struct container_spec *spec, const struct pc_cursor *cursor, const char *value)
{
    const size_t length = cursor->field.length;
    switch (cursor->field.type) {
    case PC_F_HOSTS:
        spec->hosts = value;
        spec->hosts_length = length;
        return 0;
    case PC_F_NETWORK:
        spec->host_network = pc_u32(cursor, value) == PC_NETWORK_HOST;
        return 0;
    case PC_F_INTERFACE:
        if (length == 0 || length >= LINK_NAME_SIZE)
            return -1;
        memcpy(spec->end.name, value, length + 1);
        return 0;
    case PC_F_MAC:
        if (length != 6)
            return -1;
        memcpy(spec->end.mac, value, 6);
        return 0;
    case PC_F_IP4:
        if (length != 5)
            return -1;
        memcpy(spec->end.ip4, value, 4);
        spec->end.prefix4 = (uint8_t)value[4];
        return 0;
    case PC_F_IP6:
        if (length != 17)
            return -1;
        memcpy(spec->end.ip6, value, 16);
        spec->end.prefix6 = (uint8_t)value[16];
        return 0;
    case PC_F_ROOTFS:
        spec->rootfs = pc_u32(cursor, value);
        return 0;
    case PC_F_CAPABILITIES:
        if (length != sizeof spec->capabilities)
            return -1;
        memcpy(&spec->capabilities, value, length);
        return 0;
    case PC_F_RLIMIT:
        return read_limit(spec, value, length);
    case PC_F_SETTING:
        if (spec->setting_count == SETTINGS_MAX)
            return -1;
        spec->settings[spec->setting_count++] = value;
        return 0;
    default:
        return -1;
    }
}
