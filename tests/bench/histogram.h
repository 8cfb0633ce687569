/* What:    a latency histogram in the manner of HdrHistogram: linear within each power of two, so that no value is off by more
 *          than 1/256 (0.4 %) of itself; fixed size, recording is a few instructions.
 * Owns:    nothing beyond the caller's struct.
 * Threads: belongs to one thread.
 * Fails:   never; values of 2^40 and more (18 minutes in ns) count as the largest.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 7
#define HISTOGRAM_MAX_BITS 40
#define HISTOGRAM_SUB (1U << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_SLOTS ((HISTOGRAM_MAX_BITS - HISTOGRAM_SUB_BITS + 1) * HISTOGRAM_SUB)

struct histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t max; /* exact */
    uint64_t slots[HISTOGRAM_SLOTS];
};

void histogram_reset(struct histogram *h);

/* Values below 2^7 have a slot each; above, the seven bits behind the leading one pick the slot. */
static inline uint32_t histogram_slot(uint64_t value)
{
    if (value < HISTOGRAM_SUB)
        return (uint32_t)value;
    if (value >> HISTOGRAM_MAX_BITS != 0)
        return HISTOGRAM_SLOTS - 1;
    uint32_t shift = 63U - (uint32_t)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return (shift << HISTOGRAM_SUB_BITS) + (uint32_t)(value >> shift);
}

static inline void histogram_record(struct histogram *h, uint64_t value)
{
    h->count++;
    h->sum += value;
    if (value > h->max)
        h->max = value;
    h->slots[histogram_slot(value)]++;
}

/* The value that a share `quantile` (0 to 1) of all values does not exceed: the middle of its slot; 0 when empty. */
uint64_t histogram_quantile(const struct histogram *h, double quantile);

double histogram_mean(const struct histogram *h);

#endif
