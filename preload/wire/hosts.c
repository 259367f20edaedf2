#include "hosts.h"

#include <stdlib.h>
#include <string.h>

#include "fate.h"

enum { HOSTS_MAX = 8192, PLACES = 2 * HOSTS_MAX, SUBNETS_MAX = 1024, LONGEST = 16, ETHERNET = 6 };

struct host {
    uint8_t address[LONGEST];
    uint8_t size; /* 0: a free place */
    uint64_t number;
};

struct subnet {
    uint8_t address[LONGEST];
    uint8_t size, prefix;
    uint64_t number;
};

struct hosts {
    struct host places[PLACES]; /* at the hash of the address, or behind it */
    unsigned count;
    struct subnet subnets[SUBNETS_MAX];
    unsigned subnet_count;
};

static const uint64_t hosts_key[2] = { 0x706f6f72, 0x686f737473 };

struct hosts *hosts_new(void)
{
    return calloc(1, sizeof(struct hosts));
}

/* Where an address is, or would be. */
static unsigned place_of(const struct hosts *hosts, const uint8_t *address, unsigned size)
{
    uint64_t words[3] = { 0, 0, size };
    memcpy(words, address, size);
    unsigned at = (unsigned)(fate_hash(hosts_key, words, 3) % PLACES);
    while (hosts->places[at].size && (hosts->places[at].size != size || memcmp(hosts->places[at].address, address, size) != 0))
        at = (at + 1) % PLACES;
    return at;
}

int hosts_know(struct hosts *hosts, const uint8_t *address, unsigned size, uint64_t number)
{
    struct host *host = &hosts->places[place_of(hosts, address, size)];
    if (!host->size && hosts->count == HOSTS_MAX)
        return -1;
    hosts->count += !host->size;
    memcpy(host->address, address, size);
    host->size = (uint8_t)size;
    host->number = number;
    return 0;
}

/* The address without the bits that are its subnet's. */
static void clear_prefix(uint8_t *address, unsigned prefix)
{
    memset(address, 0, prefix / 8);
    if (prefix % 8)
        address[prefix / 8] &= (uint8_t)(0xff >> prefix % 8);
}

static int is_in(const struct subnet *subnet, const uint8_t *address, unsigned size)
{
    uint8_t different[LONGEST] = { 0 };
    for (unsigned i = 0; i < size && subnet->size == size; i++)
        different[i] = address[i] ^ subnet->address[i];
    const unsigned whole = subnet->prefix / 8, rest = subnet->prefix % 8;
    for (unsigned i = 0; i < whole; i++)
        if (different[i])
            return 0;
    return subnet->size == size && !(rest && different[whole] >> (8 - rest));
}

static const struct subnet *subnet_of(const struct hosts *hosts, const uint8_t *address, unsigned size)
{
    for (unsigned i = 0; i < hosts->subnet_count; i++)
        if (is_in(&hosts->subnets[i], address, size))
            return &hosts->subnets[i];
    return NULL;
}

int hosts_know_subnet(struct hosts *hosts, const uint8_t *address, unsigned size, unsigned prefix, uint64_t number)
{
    unsigned at = 0;
    while (at < hosts->subnet_count && (hosts->subnets[at].prefix != prefix || !is_in(&hosts->subnets[at], address, size)))
        at++;
    if (at == SUBNETS_MAX)
        return -1;
    hosts->subnets[at] = (struct subnet){ .size = (uint8_t)size, .prefix = (uint8_t)prefix, .number = number };
    memcpy(hosts->subnets[at].address, address, size);
    hosts->subnet_count += at == hosts->subnet_count;
    return 0;
}

/* The interface whose Ethernet address an IPv6 address has in it, or NULL. */
static const struct host *interface_of(const struct hosts *hosts, const uint8_t *address)
{
    if (address[11] != 0xff || address[12] != 0xfe)
        return NULL;
    const uint8_t ethernet[ETHERNET] = { address[8] ^ 2, address[9], address[10], address[13], address[14], address[15] };
    const struct host *host = &hosts->places[place_of(hosts, ethernet, ETHERNET)];
    return host->size ? host : NULL;
}

uint64_t hosts_number(const struct hosts *hosts, const uint8_t *address, unsigned size)
{
    const struct host *host = &hosts->places[place_of(hosts, address, size)];
    if (host->size)
        return host->number;
    uint8_t rest[LONGEST] = { 0 };
    uint64_t words[4] = { size, 0, 0, 0 };
    const struct subnet *subnet = subnet_of(hosts, address, size);
    const struct host *interface = size == LONGEST ? interface_of(hosts, address) : NULL;
    memcpy(rest, address, size);
    if (subnet) {
        words[1] = subnet->number;
        clear_prefix(rest, subnet->prefix);
    }
    memcpy(&words[2], rest, sizeof rest);
    if (interface)
        words[3] = interface->number;
    return fate_hash(hosts_key, words, 4);
}
