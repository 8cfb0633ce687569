#include "tests/bench/histogram.h"

#include <math.h>
#include <string.h>

void histogram_reset(struct histogram *h)
{
    memset(h, 0, sizeof(*h));
}

static uint64_t slot_middle(uint32_t slot)
{
    if (slot < 2 * HISTOGRAM_SUB) /* one value a slot */
        return slot;
    uint32_t shift = (slot >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t low = (uint64_t)(HISTOGRAM_SUB + (slot & (HISTOGRAM_SUB - 1))) << shift;
    return low + (((uint64_t)1 << shift) >> 1);
}

uint64_t histogram_quantile(const struct histogram *h, double quantile)
{
    if (h->count == 0)
        return 0;
    uint64_t rank = (uint64_t)ceil(quantile * (double)h->count);
    if (rank == 0)
        rank = 1;
    if (rank >= h->count)
        return h->max;
    uint64_t seen = 0;
    for (uint32_t slot = 0; slot < HISTOGRAM_SLOTS; slot++) {
        seen += h->slots[slot];
        if (seen >= rank) {
            uint64_t value = slot_middle(slot);
            return value < h->max ? value : h->max;
        }
    }
    return h->max;
}

double histogram_mean(const struct histogram *h)
{
    return h->count == 0 ? 0.0 : (double)h->sum / (double)h->count;
}
