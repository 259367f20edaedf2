#include "fate.h"

static uint64_t rotate(uint64_t x, int by)
{
    return x << by | x >> (64 - by);
}

static void round_once(uint64_t v[4])
{
    v[0] += v[1];
    v[1] = rotate(v[1], 13) ^ v[0];
    v[0] = rotate(v[0], 32);
    v[2] += v[3];
    v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3];
    v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1];
    v[1] = rotate(v[1], 17) ^ v[2];
    v[2] = rotate(v[2], 32);
}

uint64_t fate_hash(const uint64_t key[2], const uint64_t *words, unsigned count)
{
    uint64_t v[4] = { key[0] ^ 0x736f6d6570736575ULL, key[1] ^ 0x646f72616e646f6dULL, key[0] ^ 0x6c7967656e657261ULL, key[1] ^ 0x7465646279746573ULL };
    for (unsigned i = 0; i <= count; i++) {
        const uint64_t word = i < count ? words[i] : (uint64_t)count * 8 << 56; /* last, the length in bytes */
        v[3] ^= word;
        round_once(v);
        round_once(v);
        v[0] ^= word;
    }
    v[2] ^= 0xff;
    for (int i = 0; i < 4; i++)
        round_once(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

uint64_t fate_of(uint64_t seed, unsigned direction, const struct identity *identity)
{
    const uint64_t key[2] = { seed, 0x70637769726531ULL };
    const uint64_t words[6] = { direction, identity->flow, identity->sort, identity->key, identity->nth, identity->times };
    return fate_hash(key, words, 6);
}

/* SplitMix64 (Steele, Lea and Flood, 2014) of the hash, which is random already. */
uint64_t fate_answer(uint64_t fate, enum question question)
{
    uint64_t x = fate + (uint64_t)question * 0x9e3779b97f4a7c15ULL;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}
