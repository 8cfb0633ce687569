#include <check.h>
#include <inttypes.h>
#include <pthread.h>

#include "common/base.h"
#include "common/metrics.h"
#include "tests/unit/check_main.h"

enum { COLOURS, SIZES };

static const char *const colours[] = {"red", "a\"b\\c\nd\xff"};
static const char *const sizes[] = {"small", "large", "m\xc3\xb6glich"};
static const struct metric_dim dims[] = {{"colour", colours, 2}, {"size", sizes, 3}};

enum { PLAIN, NARROW, WIDE, LEVEL, SECONDS, PLAIN_SECONDS };

static const struct metric_def defs[] = {
    {"t_plain_total", "Help with \\ and\nnewline and \"quotes\".", METRIC_COUNTER, {-1, -1}},
    {"t_narrow_total", "One label.", METRIC_COUNTER, {COLOURS, -1}},
    {"t_wide_total", "Two labels.", METRIC_COUNTER, {COLOURS, SIZES}},
    {"t_level", "A gauge.", METRIC_GAUGE, {SIZES, -1}},
    {"t_seconds", "A histogram.", METRIC_HISTOGRAM, {COLOURS, -1}},
    {"t_plain_seconds", "A histogram without labels.", METRIC_HISTOGRAM, {-1, -1}},
};

static struct metrics *registry(void)
{
    return metrics_create(defs, ARRAY_LEN(defs), dims, ARRAY_LEN(dims));
}

static char *page(struct metrics *m)
{
    static char *text; /* static, because gcc 12 under TSan does not see that fclose() changes it, and warns of a pointer into the stack */
    static size_t size;
    FILE *out = open_memstream(&text, &size);
    metrics_write_prometheus(m, out);
    fclose(out);
    return text;
}

static unsigned occurrences(const char *text, const char *part)
{
    unsigned n = 0;
    for (const char *p = strstr(text, part); p != NULL; p = strstr(p + 1, part)) {
        n++;
    }
    return n;
}

/* What metrics_bucket() promises: a bucket holds exactly the values above the bound before it and up to its own. */
static uint64_t bound_of(uint32_t bucket)
{
    return bucket == 0 ? 1 : bucket % 2 == 0 ? 3ULL << (bucket / 2 - 1) : 1ULL << ((bucket + 1) / 2);
}

START_TEST(test_bucket_bounds)
{
    ck_assert_uint_eq(metrics_bucket(0), 0);
    for (uint32_t b = 0; b < METRIC_BUCKETS - 1; b++) {
        ck_assert_uint_eq(metrics_bucket(bound_of(b)), b);
        ck_assert_uint_eq(metrics_bucket(bound_of(b) + 1), b + 1);
    }
    uint32_t bucket = 0;
    for (uint64_t us = 0; us < 40000000; us += us < 200000 ? 1 : 997) {
        while (bucket < METRIC_BUCKETS - 1 && us > bound_of(bucket)) {
            bucket++;
        }
        ck_assert_uint_eq(metrics_bucket(us), bucket);
    }
    ck_assert_uint_eq(metrics_bucket(UINT64_MAX), METRIC_BUCKETS - 1);
}
END_TEST

/* Every bound as it is printed, read back by strtod, is exactly where metrics_bucket() changes bucket. */
START_TEST(test_printed_bounds)
{
    struct metrics *m = registry();
    struct metrics_shard *s = metrics_shard_create(m);
    for (uint32_t b = 0; b < METRIC_BUCKETS - 1; b++) {
        metrics_observe(s, PLAIN_SECONDS, 0, bound_of(b));
    }
    metrics_observe(s, PLAIN_SECONDS, 0, bound_of(METRIC_BUCKETS - 2) + 1);
    char *text = page(m);
    const char *p = text;
    for (uint32_t b = 0; b < METRIC_BUCKETS; b++) {
        p = strstr(p, "t_plain_seconds_bucket{le=\"");
        ck_assert_ptr_nonnull(p);
        p += strlen("t_plain_seconds_bucket{le=\"");
        char *end;
        double le = strtod(p, &end);
        unsigned long count = strtoul(end + 2, NULL, 10);
        ck_assert_int_eq(strncmp(end, "\"} ", 3), 0);
        ck_assert_uint_eq(count, b + 1);
        if (b < METRIC_BUCKETS - 1) {
            uint64_t us = (uint64_t)(le * 1e6 + 0.5);
            ck_assert_uint_eq(us, bound_of(b));
            ck_assert_uint_eq(metrics_bucket(us), b);
            ck_assert_uint_eq(metrics_bucket(us + 1), b + 1);
        } else {
            ck_assert_int_eq(strncmp(p, "+Inf", 4), 0);
        }
    }
    ck_assert_ptr_null(strstr(p, "_bucket{"));
    free(text);
    metrics_destroy(&m);
}
END_TEST

START_TEST(test_page)
{
    struct metrics *m = registry();
    struct metrics_shard *a = metrics_shard_create(m);
    struct metrics_shard *b = metrics_shard_create(m);
    metrics_add(a, PLAIN, 0, 3);
    metrics_add(b, PLAIN, 0, 4);
    metrics_add(a, NARROW, 1, 5);
    metrics_add(b, WIDE, 1 * 3 + 2, 6);
    metrics_set(a, LEVEL, 0, 9);
    metrics_set(a, LEVEL, 0, 7);
    metrics_set(b, LEVEL, 0, 1);
    metrics_observe(a, SECONDS, 0, 1);
    metrics_observe(b, SECONDS, 0, 3);
    metrics_observe(b, SECONDS, 0, 1500000);
    metrics_observe(b, SECONDS, 0, 3600000000);
    char *text = page(m);
    const char *expected[] = {
        "# HELP t_plain_total Help with \\\\ and\\nnewline and \"quotes\".\n# TYPE t_plain_total counter\nt_plain_total 7\n",
        "# HELP t_narrow_total One label.\n# TYPE t_narrow_total counter\nt_narrow_total{colour=\"red\"} 0\n"
        "t_narrow_total{colour=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\"} 5\n",
        "# TYPE t_wide_total counter\nt_wide_total{colour=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\",size=\"m\xc3\xb6glich\"} 6\n# HELP",
        "# TYPE t_level gauge\nt_level{size=\"small\"} 8\nt_level{size=\"large\"} 0\n",
        "# TYPE t_seconds histogram\nt_seconds_bucket{colour=\"red\",le=\"0.000001\"} 1\n"
        "t_seconds_bucket{colour=\"red\",le=\"0.000002\"} 1\nt_seconds_bucket{colour=\"red\",le=\"0.000003\"} 2\n",
        "t_seconds_bucket{colour=\"red\",le=\"1.048576\"} 2\nt_seconds_bucket{colour=\"red\",le=\"1.572864\"} 3\n",
        "t_seconds_bucket{colour=\"red\",le=\"25.165824\"} 3\nt_seconds_bucket{colour=\"red\",le=\"+Inf\"} 4\n"
        "t_seconds_sum{colour=\"red\"} 3601.500004\nt_seconds_count{colour=\"red\"} 4\n",
        "# TYPE t_plain_seconds histogram\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
        ck_assert_msg(strstr(text, expected[i]) != NULL, "not on the page: %s\n%s", expected[i], text);
    }
    ck_assert_uint_eq(occurrences(text, "# HELP "), ARRAY_LEN(defs));
    ck_assert_uint_eq(occurrences(text, "# TYPE "), ARRAY_LEN(defs));
    ck_assert_uint_eq(occurrences(text, "\nt_wide_total{"), 1);
    ck_assert_uint_eq(occurrences(text, "t_plain_seconds_"), 0); /* nothing observed */
    ck_assert_uint_eq(occurrences(text, "\nt_seconds_bucket"), METRIC_BUCKETS);
    ck_assert_uint_eq(metrics_sum(m, PLAIN, 0), 7);
    ck_assert_uint_eq(metrics_sum(m, WIDE, 5), 6);
    ck_assert_uint_eq(metrics_sum(m, WIDE, 4), 0);
    ck_assert_uint_eq(text[strlen(text) - 1], '\n');
    free(text);
    metrics_destroy(&m);
    ck_assert_ptr_null(m);
}
END_TEST

static char *label_page(const char *label)
{
    const char *const values[] = {label};
    const struct metric_dim dim = {"l", values, 1};
    const struct metric_def def = {"x_total", "h", METRIC_COUNTER, {0, -1}};
    struct metrics *m = metrics_create(&def, 1, &dim, 1);
    char *text = page(m);
    metrics_destroy(&m);
    return text;
}

START_TEST(test_labels_are_utf8)
{
    const struct {
        const char *label;
        const char *shown;
    } cases[] = {
        {"", ""},
        {"plain", "plain"},
        {"\xe2\x82\xac", "\xe2\x82\xac"},                         /* the euro sign */
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},                 /* an emoji */
        {"\xc3", "\xef\xbf\xbd"},                                 /* cut off */
        {"\xe2\x82", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* cut off */
        {"\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"},                 /* overlong */
        {"\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"}, /* a surrogate */
        {"\xf5z", "\xef\xbf\xbdz"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *text = label_page(cases[i].label);
        char line[128];
        snprintf(line, sizeof line, "\nx_total{l=\"%s\"} 0\n", cases[i].shown);
        ck_assert_msg(strstr(text, line) != NULL, "case %zu: %s", i, text);
        free(text);
    }
}
END_TEST

static void *count(void *arg)
{
    struct metrics *m = arg;
    struct metrics_shard *s = metrics_shard_create(m);
    for (uint32_t i = 0; i < 100000; i++) {
        metrics_add(s, WIDE, i % 6, 1);
        metrics_observe(s, SECONDS, i % 2, i);
    }
    return NULL;
}

/* Shards are made and written while another thread reads the page: nothing is lost, and a histogram never contradicts itself. */
START_TEST(test_threads)
{
    struct metrics *m = registry();
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_create(&threads[i], NULL, count, m);
    }
    for (int i = 0; i < 20; i++) {
        char *text = page(m);
        const char *last = strstr(text, "t_seconds_bucket{colour=\"red\",le=\"+Inf\"} ");
        if (last != NULL) {
            uint64_t inf = strtoull(last + strlen("t_seconds_bucket{colour=\"red\",le=\"+Inf\"} "), NULL, 10);
            const char *total = strstr(text, "t_seconds_count{colour=\"red\"} ");
            ck_assert_uint_eq(strtoull(total + strlen("t_seconds_count{colour=\"red\"} "), NULL, 10), inf);
        }
        free(text);
    }
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    uint64_t sum = 0;
    for (uint32_t i = 0; i < 6; i++) {
        sum += metrics_sum(m, WIDE, i);
    }
    ck_assert_uint_eq(sum, 400000);
    metrics_destroy(&m);
}
END_TEST

START_TEST(test_baseline)
{
    struct metrics *m = registry();
    struct metrics_shard *a = metrics_shard_create(m);
    struct metrics_shard *b = metrics_shard_create(m);
    struct metrics_baseline *baseline = metrics_baseline_create(m);
    metrics_add(a, WIDE, 4, 3);
    metrics_add(b, WIDE, 4, 5);
    ck_assert_uint_eq(metrics_since(baseline, WIDE, 4), 8);
    metrics_baseline_take(baseline);
    ck_assert_uint_eq(metrics_since(baseline, WIDE, 4), 0);
    metrics_add(b, WIDE, 4, 2);
    metrics_add(b, WIDE, 5, 1);
    ck_assert_uint_eq(metrics_since(baseline, WIDE, 4), 2);
    ck_assert_uint_eq(metrics_since(baseline, WIDE, 5), 1);
    ck_assert_uint_eq(metrics_sum(m, WIDE, 4), 10);
    metrics_baseline_destroy(&baseline);
    ck_assert_ptr_null(baseline);
    metrics_destroy(&m);
}
END_TEST

START_TEST(test_histogram_sums)
{
    struct metrics *m = registry();
    struct metrics_shard *a = metrics_shard_create(m);
    struct metrics_shard *b = metrics_shard_create(m);
    metrics_observe(a, SECONDS, 1, 10);
    metrics_observe(b, SECONDS, 1, 5000000);
    metrics_observe(b, SECONDS, 0, 7);
    ck_assert_uint_eq(metrics_histogram_count(m, SECONDS, 1), 2);
    ck_assert_uint_eq(metrics_histogram_sum_us(m, SECONDS, 1), 5000010);
    ck_assert_uint_eq(metrics_histogram_count(m, SECONDS, 0), 1);
    ck_assert_uint_eq(metrics_histogram_count(m, PLAIN_SECONDS, 0), 0);
    metrics_destroy(&m);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("metrics");
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, test_bucket_bounds);
    tcase_add_test(tests, test_printed_bounds);
    tcase_add_test(tests, test_page);
    tcase_add_test(tests, test_labels_are_utf8);
    tcase_add_test(tests, test_baseline);
    tcase_add_test(tests, test_histogram_sums);
    tcase_add_test(tests, test_threads);
    Suite *suite = suite_create("metrics");
    suite_add_tcase(suite, tests);
    return check_main(suite);
}
