/* What: tests of histogram.c against sorted values; plain C, so that the bench needs no test framework. Exits 1 with a line per
 *       failure. */
#include "tests/bench/histogram.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int failures;

#define CHECK(condition, ...)                            \
    do {                                                 \
        if (!(condition)) {                              \
            printf("%s:%d: ", __FILE__, __LINE__);       \
            printf(__VA_ARGS__);                         \
            putchar('\n');                               \
            failures++;                                  \
        }                                                \
    } while (0)

static uint64_t next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void test_slots(void)
{
    /* Slots grow by one at most, never fall, and the first and last of a power of two lie in different ones. */
    uint32_t last = 0;
    for (uint64_t value = 0; value < 1U << 16; value++) {
        uint32_t slot = histogram_slot(value);
        CHECK(slot == last || slot == last + 1, "value %lu: slot %u after %u", (unsigned long)value, slot, last);
        last = slot;
    }
    uint64_t largest = ((uint64_t)1 << HISTOGRAM_MAX_BITS) - 1;
    CHECK(histogram_slot(largest) == HISTOGRAM_SLOTS - 1, "largest value: slot %u", histogram_slot(largest));
    CHECK(histogram_slot(UINT64_MAX) == HISTOGRAM_SLOTS - 1, "value out of range: slot %u", histogram_slot(UINT64_MAX));
}

static void test_quantiles(void)
{
    enum { COUNT = 200000 };
    static uint64_t values[COUNT];
    static struct histogram h;
    uint64_t state = 88172645463325252ULL;
    double sum = 0;
    histogram_reset(&h);
    for (int i = 0; i < COUNT; i++) {
        values[i] = next_random(&state) >> (24 + next_random(&state) % 36); /* all magnitudes */
        sum += (double)values[i];
        histogram_record(&h, values[i]);
    }
    qsort(values, COUNT, sizeof(values[0]), compare);
    const double quantiles[] = {0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 1};
    for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++) {
        size_t rank = (size_t)ceil(quantiles[i] * COUNT);
        double exact = (double)values[rank == 0 ? 0 : rank - 1];
        double found = (double)histogram_quantile(&h, quantiles[i]);
        CHECK(fabs(found - exact) <= exact / 256 + 0.5, "quantile %g: %.0f, exact %.0f", quantiles[i], found, exact);
    }
    CHECK(fabs(histogram_mean(&h) - sum / COUNT) < 1, "mean %f, exact %f", histogram_mean(&h), sum / COUNT);
    CHECK(h.max == values[COUNT - 1], "max");
}

static void test_few(void)
{
    static struct histogram h;
    histogram_reset(&h);
    CHECK(histogram_quantile(&h, 0.5) == 0 && histogram_mean(&h) == 0, "empty");
    histogram_record(&h, 1000003);
    CHECK(histogram_quantile(&h, 0.5) == 1000003, "one value is exact");
    CHECK(histogram_quantile(&h, 0) == 1000003 || histogram_quantile(&h, 0) <= 1000003, "never above the largest");
}

int main(void)
{
    test_slots();
    test_quantiles();
    test_few();
    if (failures == 0)
        puts("histogram: ok");
    return failures == 0 ? 0 : 1;
}
