/* What:    the requests of a run, built before it starts: GETs of one or several random keys, a SET of every key, and which one is
 *          sent next.
 * Owns:    the texts, until requests_deinit(); the body is the shape's value.
 * Threads: belongs to one thread.
 * Fails:   aborts when out of memory.
 */
#ifndef BENCH_REQUESTS_H
#define BENCH_REQUESTS_H

#include "tests/bench/protocol.h"

struct requests {
    struct request *gets;
    struct request *sets;
    uint32_t get_count;
    uint32_t set_count; /* as many as keys */
    char *text;
    const char *body; /* of every SET */
    size_t body_len;
    size_t longest; /* request with its body */
    uint64_t random;
    uint32_t set_share; /* of 2^32 */
};

struct requests_options {
    uint32_t keys;
    uint32_t multi_get; /* keys of a GET */
    double set_ratio;   /* 0.1: every tenth request is a SET */
    uint64_t seed;
};

void requests_init(struct requests *r, const struct protocol *protocol, const struct shape *shape, const struct requests_options *o);
void requests_deinit(struct requests *r);

/* xorshift64*: uniform 32 bits. */
static inline uint32_t random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (uint32_t)((*state * 2685821657736338717ULL) >> 32);
}

static inline uint32_t random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(((uint64_t)random_next(state) * limit) >> 32);
}

static inline const struct request *requests_next(struct requests *r)
{
    if (r->set_share != 0 && random_next(&r->random) < r->set_share)
        return &r->sets[random_below(&r->random, r->set_count)];
    return &r->gets[random_below(&r->random, r->get_count)];
}

#endif
