/* What:    counters, gauges and latency histograms, kept per thread and summed when somebody asks.
 * Owns:    struct metrics owns the shards; a shard belongs to the one thread that writes it.
 * Threads: metrics_add/set/observe only by the shard's thread, without locks (relaxed single-writer stores);
 *          metrics_shard_create and metrics_write_prometheus from any thread.
 * Fails:   creation aborts on lack of memory; families and labels are fixed at creation, so nothing grows later.
 *
 * A family has up to two label dimensions whose values are fixed when the registry is made; a series' index is
 * i1 * n2 + i2. Histograms take microseconds and are exported in seconds.
 */
#ifndef COMMON_METRICS_H
#define COMMON_METRICS_H

#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

#define METRIC_DIMS 2

/* One label dimension: the label's name and its values, in index order. Borrowed for the registry's life. */
struct metric_dim {
    const char *label;
    const char *const *values;
    uint32_t count;
};

struct metric_def {
    const char *name; /* full, with unit: outrigger_loads_total */
    const char *help;
    enum metric_type type;
    int dims[METRIC_DIMS]; /* index into the table of dimensions, -1: none */
};

/* Upper bounds in µs are 2^k, with one bound half way between (1, 2, 3, 4, 6, 8, 12, …); the last is +Inf. */
#define METRIC_BUCKETS 50

struct metrics;

struct metrics_shard {
    struct metrics *metrics;
    const uint32_t *base; /* family -> first cell; shared by all shards */
    _Atomic uint64_t *cells;
    struct metrics_shard *next;
};

/* `defs` and `dims` are borrowed for the registry's life. */
struct metrics *metrics_create(const struct metric_def *defs, uint32_t def_count, const struct metric_dim *dims, uint32_t dim_count);
void metrics_destroy(struct metrics **m);

/* A new shard; it lives as long as the registry. */
struct metrics_shard *metrics_shard_create(struct metrics *m);

static inline void metrics_cell_add(_Atomic uint64_t *cell, uint64_t n)
{
    atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void metrics_add(struct metrics_shard *s, uint32_t family, uint32_t index, uint64_t n)
{
    metrics_cell_add(&s->cells[s->base[family] + index], n);
}

/* Gauges are summed over the shards, so each thread sets only its own part. */
static inline void metrics_set(struct metrics_shard *s, uint32_t family, uint32_t index, uint64_t value)
{
    atomic_store_explicit(&s->cells[s->base[family] + index], value, memory_order_relaxed);
}

static inline uint32_t metrics_bucket(uint64_t us)
{
    if (us <= 1) {
        return 0;
    }
    uint32_t top = 63 - (uint32_t)__builtin_clzll(us - 1); /* us in (2^top, 2^(top+1)] */
    if (top == 0) {
        return 1;
    }
    uint32_t bucket = 2 * top + (us > (3ULL << (top - 1)) ? 1 : 0);
    return bucket < METRIC_BUCKETS ? bucket : METRIC_BUCKETS - 1;
}

static inline void metrics_observe(struct metrics_shard *s, uint32_t family, uint32_t index, uint64_t us)
{
    _Atomic uint64_t *cells = &s->cells[s->base[family] + index * (METRIC_BUCKETS + 1)];
    metrics_cell_add(&cells[metrics_bucket(us)], 1);
    metrics_cell_add(&cells[METRIC_BUCKETS], us);
}

/* Sum over all shards of one counter's or gauge's series. */
uint64_t metrics_sum(struct metrics *m, uint32_t family, uint32_t index);

/* Counts and sums of a histogram's series, over all shards. */
uint64_t metrics_histogram_count(struct metrics *m, uint32_t family, uint32_t index);
uint64_t metrics_histogram_sum_us(struct metrics *m, uint32_t family, uint32_t index);

/* What all series were at some moment, so that it can be told what has been counted since; all zero at first. Any thread may take or ask; one
 * that asks while another takes sees some series from before and some from after. */
struct metrics_baseline;
struct metrics_baseline *metrics_baseline_create(struct metrics *m);
void metrics_baseline_destroy(struct metrics_baseline **baseline);
void metrics_baseline_take(struct metrics_baseline *baseline);
/* Of a counter. */
uint64_t metrics_since(const struct metrics_baseline *baseline, uint32_t family, uint32_t index);

/* The whole registry in the Prometheus text format, version 0.0.4. */
void metrics_write_prometheus(struct metrics *m, FILE *out);

#endif
