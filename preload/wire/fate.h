/* The fate of a packet: a keyed hash of who it is, so that the same conversation under the
   same seed meets the same fate, whatever else is on the link and however fast it goes. */
#ifndef PC_WIRE_FATE_H
#define PC_WIRE_FATE_H

#include <stdint.h>

/* Who a packet is (flow.h finds it out). */
struct identity {
    uint64_t flow;  /* hosts, protocol, server's port, which connection of that kind */
    uint64_t key;   /* its place in the flow */
    uint64_t nth;   /* which packet at that place, where it is not a repetition */
    uint64_t times; /* how often that one was sent by now; 1: the first time */
    unsigned sort;  /* what the key is */
};

/* What is asked; each question has an answer of its own. */
enum question { FATE_LOSS = 1, FATE_DUPLICATE, FATE_REORDER, FATE_CORRUPT, FATE_JITTER, FATE_WHERE };

/* SipHash-2-4 (Aumasson and Bernstein, 2012) of whole words. */
uint64_t fate_hash(const uint64_t key[2], const uint64_t *words, unsigned count);
/* The hash that all answers for one packet come from. */
uint64_t fate_of(uint64_t seed, unsigned direction, const struct identity *identity);
/* An answer, evenly spread over all 64-bit numbers. */
uint64_t fate_answer(uint64_t fate, enum question question);

#endif
