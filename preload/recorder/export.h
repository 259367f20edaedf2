/* What was recorded, as pytest gets it: records, or blocks of a pcapng file. */
#ifndef PC_EXPORT_H
#define PC_EXPORT_H

#include <stdint.h>

enum { EXPORT_MAX = 4096 }; /* interfaces at a time */

struct export {
    uint32_t interface[EXPORT_MAX];
    int count;
    uint64_t since, most; /* as track_view() takes them */
    int fd;
};

/* Writes the records of one interface after the other, each after a gap if there is one: 0, or -1. */
int export_records(const struct export *export);
/* Writes Enhanced Packet Blocks by time (draft-ietf-opsawg-pcapng): 0, or -1. */
int export_blocks(const struct export *export);

#endif
