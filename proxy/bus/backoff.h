/* What:    how long to wait before trying again: doubling from min to max, with jitter.
 * Owns:    nothing beyond the caller's struct.
 * Threads: one at a time.
 */
#ifndef PROXY_BUS_BACKOFF_H
#define PROXY_BUS_BACKOFF_H

#include "common/base.h"
#include "common/random.h"

struct backoff {
    uint32_t min_ms;
    uint32_t max_ms;
    uint32_t next_ms;
    uint64_t random;
};

static inline void backoff_init(struct backoff *b, uint32_t min_ms, uint32_t max_ms, uint64_t seed)
{
    *b = (struct backoff){min_ms, max_ms, min_ms, seed * 2654435769U + 1};
}

static inline void backoff_reset(struct backoff *b)
{
    b->next_ms = b->min_ms;
}

/* Between half and all of the current step, in microseconds. */
static inline uint64_t backoff_next_us(struct backoff *b)
{
    uint64_t us = 1000ULL * b->next_ms;
    b->next_ms = MIN(b->next_ms * 2, b->max_ms);
    return random_jitter(&b->random, us);
}

#endif
