/* What:    random numbers for jitter, for choices and for names that must not meet; not for secrets. xorshift64*.
 * Owns:    nothing; the state is the caller's, one for each thread, and never 0.
 * Threads: one at a time for each state.
 * Source:  Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016.
 */
#ifndef COMMON_RANDOM_H
#define COMMON_RANDOM_H

#include <stdint.h>

/* The kernel's, never 0. */
uint64_t random_seed(void);

/* A number below `limit`, which is at most 2^44. */
static inline uint64_t random_below(uint64_t *state, uint64_t limit)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return (x * 2685821657736338717ULL >> 20) % limit;
}

/* Between half and all of `most`. */
static inline uint64_t random_jitter(uint64_t *state, uint64_t most)
{
    return most / 2 + random_below(state, most / 2 + 1);
}

#endif
