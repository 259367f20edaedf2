/* Whose an address is. A lab gives each subnet to one cable only, so the same network has other
   addresses when it is built again; packets are to meet the same fate there. Who starts the wire
   says what does not change: numbers that follow from the names of hosts, interfaces and subnets. */
#ifndef PC_WIRE_HOSTS_H
#define PC_WIRE_HOSTS_H

#include <stdint.h>

struct hosts;

/* NULL without memory. */
struct hosts *hosts_new(void);
/* An address (4 or 16 bytes, 6 of Ethernet) is this one's; what was said of it before is forgotten.
   Returns -1 when there is no more room. */
int hosts_know(struct hosts *hosts, const uint8_t *address, unsigned size, uint64_t number);
/* The same of a subnet (4 or 16 bytes), for the addresses in it that are nobody's yet. */
int hosts_know_subnet(struct hosts *hosts, const uint8_t *address, unsigned size, unsigned prefix, uint64_t number);
/* The number of whose an address is; of a stranger's one that follows from its place in its subnet, from
   the interface whose Ethernet address is in it (RFC 4291, appendix A), or else from all its bytes. */
uint64_t hosts_number(const struct hosts *hosts, const uint8_t *address, unsigned size);

#endif
