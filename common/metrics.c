#include "common/metrics.h"

#include <inttypes.h>
#include <string.h>

#include "common/base.h"

#define CACHE_LINE 64

struct metrics {
    const struct metric_def *defs;
    const struct metric_dim *dims;
    uint32_t def_count;
    uint32_t cell_count;
    uint32_t *base;                         /* family -> first cell */
    _Atomic(struct metrics_shard *) shards; /* newest first; only ever grows */
};

static uint32_t dim_size(const struct metrics *m, const struct metric_def *def, int dim)
{
    return def->dims[dim] < 0 ? 1 : m->dims[def->dims[dim]].count;
}

static uint32_t series_cells(const struct metric_def *def)
{
    return def->type == METRIC_HISTOGRAM ? METRIC_BUCKETS + 1 : 1;
}

struct metrics *metrics_create(const struct metric_def *defs, uint32_t def_count, const struct metric_dim *dims,
                               uint32_t dim_count)
{
    struct metrics *m = xcalloc(1, sizeof *m);
    m->defs = defs;
    m->dims = dims;
    m->def_count = def_count;
    m->base = xcalloc(def_count + 1, sizeof *m->base);
    atomic_init(&m->shards, NULL);
    uint64_t cells = 0;
    for (uint32_t i = 0; i < def_count; i++) {
        m->base[i] = (uint32_t)cells;
        cells += (uint64_t)dim_size(m, &defs[i], 0) * dim_size(m, &defs[i], 1) * series_cells(&defs[i]);
        if (cells > UINT32_MAX) { /* labels are bounded by the configuration: this is not a program that can run */
            fputs("metrics: too many series\n", stderr);
            abort();
        }
    }
    m->cell_count = (uint32_t)cells;
    return m;
}

void metrics_destroy(struct metrics **metrics)
{
    struct metrics *m = *metrics;
    *metrics = NULL;
    if (m == NULL) {
        return;
    }
    struct metrics_shard *s = atomic_load_explicit(&m->shards, memory_order_acquire);
    while (s != NULL) {
        struct metrics_shard *next = s->next;
        free(s->cells);
        free(s);
        s = next;
    }
    free(m->base);
    free(m);
}

struct metrics_shard *metrics_shard_create(struct metrics *m)
{
    struct metrics_shard *s = xcalloc(1, sizeof *s);
    size_t size = ((size_t)m->cell_count * sizeof *s->cells + CACHE_LINE) / CACHE_LINE * CACHE_LINE;
    s->metrics = m;
    s->base = m->base;
    s->cells = aligned_alloc(CACHE_LINE, size); /* no cache line is shared with another thread's cells */
    if (s->cells == NULL) {
        fputs("out of memory\n", stderr);
        abort();
    }
    for (uint32_t i = 0; i < m->cell_count; i++) {
        atomic_init(&s->cells[i], 0);
    }
    struct metrics_shard *head = atomic_load_explicit(&m->shards, memory_order_relaxed);
    do {
        s->next = head;
    } while (!atomic_compare_exchange_weak_explicit(&m->shards, &head, s, memory_order_release, memory_order_relaxed));
    return s;
}

static uint64_t cell_sum(struct metrics *m, uint32_t cell)
{
    uint64_t sum = 0;
    for (struct metrics_shard *s = atomic_load_explicit(&m->shards, memory_order_acquire); s != NULL; s = s->next) {
        sum += atomic_load_explicit(&s->cells[cell], memory_order_relaxed);
    }
    return sum;
}

uint64_t metrics_sum(struct metrics *m, uint32_t family, uint32_t index)
{
    return cell_sum(m, m->base[family] + index);
}

uint64_t metrics_histogram_count(struct metrics *m, uint32_t family, uint32_t index)
{
    uint32_t first = m->base[family] + index * (METRIC_BUCKETS + 1);
    uint64_t total = 0;
    for (uint32_t b = 0; b < METRIC_BUCKETS; b++) {
        total += cell_sum(m, first + b);
    }
    return total;
}

uint64_t metrics_histogram_sum_us(struct metrics *m, uint32_t family, uint32_t index)
{
    return cell_sum(m, m->base[family] + index * (METRIC_BUCKETS + 1) + METRIC_BUCKETS);
}

struct metrics_baseline {
    struct metrics *metrics;
    _Atomic uint64_t cells[];
};

struct metrics_baseline *metrics_baseline_create(struct metrics *m)
{
    struct metrics_baseline *baseline = xcalloc(1, sizeof *baseline + m->cell_count * sizeof baseline->cells[0]);
    baseline->metrics = m;
    return baseline;
}

void metrics_baseline_destroy(struct metrics_baseline **baseline)
{
    free(*baseline);
    *baseline = NULL;
}

void metrics_baseline_take(struct metrics_baseline *baseline)
{
    for (uint32_t i = 0; i < baseline->metrics->cell_count; i++) {
        atomic_store_explicit(&baseline->cells[i], cell_sum(baseline->metrics, i), memory_order_relaxed);
    }
}

uint64_t metrics_since(const struct metrics_baseline *baseline, uint32_t family, uint32_t index)
{
    uint32_t cell = baseline->metrics->base[family] + index;
    uint64_t now = cell_sum(baseline->metrics, cell);
    uint64_t then = atomic_load_explicit(&baseline->cells[cell], memory_order_relaxed);
    return now > then ? now - then : 0; /* the one who took it may have seen what we do not see yet */
}

/* The largest value that metrics_bucket() puts into this bucket; the last bucket has none. */
static uint64_t bucket_bound_us(uint32_t bucket)
{
    if (bucket == 0) {
        return 1;
    }
    return bucket % 2 == 0 ? 3ULL << (bucket / 2 - 1) : 1ULL << ((bucket + 1) / 2);
}

/* Length of the well-formed UTF-8 sequence at s (a zero byte ends the text), 0 if there is none. */
static size_t utf8_len(const unsigned char *s)
{
    if (s[0] < 0x80) {
        return 1;
    }
    size_t len = s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f)) {
        return 0; /* overlong, surrogate, or beyond U+10FFFF */
    }
    return len;
}

/* One byte that is not UTF-8 would make Prometheus refuse the whole page. */
static void write_escaped(FILE *out, const char *text, bool in_quotes)
{
    const unsigned char *s = (const unsigned char *)text;
    while (*s != '\0') {
        size_t len = utf8_len(s);
        if (len == 0) {
            fputs("\xef\xbf\xbd", out);
            len = 1;
        } else if (*s == '\n') {
            fputs("\\n", out);
        } else if (*s == '\\' || (*s == '"' && in_quotes)) {
            fprintf(out, "\\%c", *s);
        } else {
            fwrite(s, 1, len, out);
        }
        s += len;
    }
}

/* Microseconds as seconds, exactly, in the shortest form. */
static void write_seconds(FILE *out, uint64_t us)
{
    fprintf(out, "%" PRIu64, us / 1000000);
    uint32_t rest = (uint32_t)(us % 1000000);
    if (rest == 0) {
        return;
    }
    int digits = 6;
    while (rest % 10 == 0) {
        rest /= 10;
        digits--;
    }
    fprintf(out, ".%0*" PRIu32, digits, rest);
}

/* The labels of a series without their braces; returns whether there are any. */
static bool write_labels(struct metrics *m, FILE *out, const struct metric_def *def, uint32_t index)
{
    uint32_t n2 = dim_size(m, def, 1);
    uint32_t values[METRIC_DIMS] = {index / n2, index % n2};
    bool any = false;
    for (int d = 0; d < METRIC_DIMS; d++) {
        if (def->dims[d] >= 0) {
            const struct metric_dim *dim = &m->dims[def->dims[d]];
            fprintf(out, "%s%s=\"", any ? "," : "", dim->label);
            write_escaped(out, dim->values[values[d]], true);
            fputc('"', out);
            any = true;
        }
    }
    return any;
}

static void write_name(struct metrics *m, FILE *out, const struct metric_def *def, const char *suffix, uint32_t index)
{
    fprintf(out, "%s%s", def->name, suffix);
    if (def->dims[0] >= 0 || def->dims[1] >= 0) {
        fputc('{', out);
        write_labels(m, out, def, index);
        fputc('}', out);
    }
    fputc(' ', out);
}

static void write_histogram(struct metrics *m, FILE *out, uint32_t family, uint32_t index)
{
    const struct metric_def *def = &m->defs[family];
    uint32_t first = m->base[family] + index * (METRIC_BUCKETS + 1);
    uint64_t counts[METRIC_BUCKETS];
    uint64_t total = 0; /* of the same reading as the buckets, so that the page never contradicts itself */
    for (uint32_t b = 0; b < METRIC_BUCKETS; b++) {
        counts[b] = cell_sum(m, first + b);
        total += counts[b];
    }
    if (total == 0) {
        return;
    }
    uint64_t cumulative = 0;
    for (uint32_t b = 0; b < METRIC_BUCKETS; b++) {
        cumulative += counts[b];
        fprintf(out, "%s_bucket{", def->name);
        if (write_labels(m, out, def, index)) {
            fputc(',', out);
        }
        fputs("le=\"", out);
        if (b == METRIC_BUCKETS - 1) {
            fputs("+Inf", out);
        } else {
            write_seconds(out, bucket_bound_us(b));
        }
        fprintf(out, "\"} %" PRIu64 "\n", cumulative);
    }
    write_name(m, out, def, "_sum", index);
    write_seconds(out, cell_sum(m, first + METRIC_BUCKETS));
    fputc('\n', out);
    write_name(m, out, def, "_count", index);
    fprintf(out, "%" PRIu64 "\n", total);
}

static void write_family(struct metrics *m, FILE *out, uint32_t family)
{
    const char *const types[] = {[METRIC_COUNTER] = "counter", [METRIC_GAUGE] = "gauge", [METRIC_HISTOGRAM] = "histogram"};
    const struct metric_def *def = &m->defs[family];
    fprintf(out, "# HELP %s ", def->name);
    write_escaped(out, def->help, false);
    fprintf(out, "\n# TYPE %s %s\n", def->name, types[def->type]);
    bool is_wide = def->dims[0] >= 0 && def->dims[1] >= 0;
    uint32_t count = dim_size(m, def, 0) * dim_size(m, def, 1);
    for (uint32_t i = 0; i < count; i++) {
        if (def->type == METRIC_HISTOGRAM) {
            write_histogram(m, out, family, i);
            continue;
        }
        uint64_t value = metrics_sum(m, family, i);
        if (value != 0 || !is_wide) {
            write_name(m, out, def, "", i);
            fprintf(out, "%" PRIu64 "\n", value);
        }
    }
}

void metrics_write_prometheus(struct metrics *m, FILE *out)
{
    for (uint32_t i = 0; i < m->def_count; i++) {
        write_family(m, out, i);
    }
}
