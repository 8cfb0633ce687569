#include "ctl/lag.h"

#include <jansson.h>
#include <poll.h>
#include <unistd.h>

#include "common/clock.h"
#include "ctl/print.h"
#include "ctl/spread.h"

#define REGIONS_MAX 64
#define ALL 0 /* the series of what took longest each time */

struct series {
    char name[64];
    double *ms;
    uint32_t count;
};

struct lag {
    struct series series[1 + REGIONS_MAX];
    uint32_t series_count;
    uint32_t capacity;
};

static struct series *series_of(struct lag *lag, const char *name)
{
    for (uint32_t i = 1; i < lag->series_count; i++) {
        if (strcmp(lag->series[i].name, name) == 0) {
            return &lag->series[i];
        }
    }
    if (lag->series_count == ARRAY_LEN(lag->series)) {
        return NULL;
    }
    struct series *series = &lag->series[lag->series_count++];
    snprintf(series->name, sizeof series->name, "%s", name);
    series->ms = xcalloc(lag->capacity, sizeof *series->ms);
    return series;
}

static void add(struct lag *lag, struct series *series, double ms)
{
    if (series != NULL && series->count < lag->capacity) {
        series->ms[series->count++] = ms;
    }
}

static void take(struct lag *lag, const json_t *json)
{
    const json_t *regions = json_object_get(json, "regions");
    double longest_ms = 0;
    for (size_t i = 0; i < json_array_size(regions); i++) {
        const json_t *region = json_array_get(regions, i);
        const char *name = json_string_value(json_object_get(region, "region"));
        double ms = json_number_value(json_object_get(region, "ms"));
        longest_ms = MAX(longest_ms, ms);
        add(lag, series_of(lag, name != NULL ? name : "?"), ms);
    }
    add(lag, &lag->series[ALL], longest_ms);
}

/* One invalidation; EXIT_DONE when every region has it. */
static enum exit_status measure(const struct arguments *arguments, struct lag *lag, uint32_t number)
{
    char target[SPREAD_TARGET_MAX];
    char body[128];
    struct answer answer;
    snprintf(target, sizeof target, "/invalidate?wait=regions&timeout=%ums", MIN(spread_timeout_ms(arguments), SPREAD_ANSWER_MS));
    snprintf(body, sizeof body, "{\"keys\":[\"" LAG_PREFIX "%ld:%u\"]}", (long)getpid(), number);
    enum exit_status status = command_ask(arguments, &(struct question){"POST", target, span_str(body), true}, &answer);
    if (status != EXIT_DONE) {
        return status;
    }
    json_t *json = json_loadb(answer.response.body.data != NULL ? answer.response.body.data : "", answer.response.body.len, JSON_ALLOW_NUL, NULL);
    const char *message = json_string_value(json_object_get(json_object_get(json, "error"), "message"));
    const char *result = json_string_value(json_object_get(json_array_get(json_object_get(json, "results"), 0), "error"));
    if (answer.response.status == 200 && spread_is_whole(json) && json_array_size(json_object_get(json, "regions")) > 0) {
        take(lag, json);
    } else if (json_is_array(json_object_get(json, "regions")) && json_array_size(json_object_get(json, "regions")) == 0) {
        fputs("outriggerctl: there are no other regions\n", stderr);
        status = EXIT_FAILED;
    } else {
        fprintf(stderr, "outriggerctl: %u after %u invalidations: ", answer.response.status, number);
        print_text(stderr, span_str(message != NULL ? message : result != NULL ? result : "this sidecar does not say which regions have applied it"));
        fputc('\n', stderr);
        status = EXIT_FAILED;
    }
    json_decref(json);
    answer_free(&answer);
    return status;
}

/* --- what it comes to --- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

double lag_quantile(const double *sorted, uint32_t count, double share)
{
    if (count == 0) {
        return 0;
    }
    double rank = share * count;
    uint32_t index = (uint32_t)rank;
    index -= index > 0 && (double)index >= rank ? 1 : 0; /* the smallest that enough others do not exceed */
    return sorted[MIN(index, count - 1)];
}

static json_t *series_json(const struct series *series)
{
    uint32_t count = series->count;
    if (count > 0) {
        qsort(series->ms, count, sizeof *series->ms, by_value);
    }
    return json_pack("{s:s,s:i,s:f,s:f,s:f}", "region", series->name, "count", (int)count, "p50_ms", lag_quantile(series->ms, count, 0.5), "p99_ms",
                     lag_quantile(series->ms, count, 0.99), "max_ms", lag_quantile(series->ms, count, 1));
}

static void print(const struct arguments *arguments, const struct lag *lag)
{
    static const char *const columns[] = {"region", "count", "p50_ms", "p99_ms", "max_ms", NULL};
    json_t *regions = json_array();
    for (uint32_t i = 1; i < lag->series_count; i++) {
        json_array_append_new(regions, series_json(&lag->series[i]));
    }
    json_t *all = series_json(&lag->series[ALL]);
    if (arguments->is_json) {
        json_t *json = json_pack("{s:i,s:O,s:O}", "count", (int)lag->series[ALL].count, "regions", regions, "all", all);
        json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
        fputc('\n', stdout);
        json_decref(json);
    } else {
        json_array_append(regions, all);
        print_table(stdout, regions, columns);
    }
    json_decref(all);
    json_decref(regions);
}

enum exit_status lag_run(const struct arguments *arguments)
{
    uint32_t count = arguments->count != 0 ? arguments->count : LAG_COUNT;
    unsigned interval_ms = arguments->interval_ms != 0 ? arguments->interval_ms : LAG_INTERVAL_MS;
    struct lag lag = {.series_count = 1, .capacity = count};
    lag.series[ALL] = (struct series){.name = "(all)", .ms = xcalloc(count, sizeof(double))};
    enum exit_status status = EXIT_DONE;
    for (uint32_t i = 0; i < count && status == EXIT_DONE; i++) {
        uint64_t begun_us = clock_mono_us();
        status = measure(arguments, &lag, i);
        uint64_t spent_ms = (clock_mono_us() - begun_us) / 1000;
        if (i + 1 < count && status == EXIT_DONE && spent_ms < interval_ms) {
            poll(NULL, 0, (int)(interval_ms - spent_ms));
        }
    }
    if (lag.series[ALL].count > 0) {
        print(arguments, &lag);
    }
    for (uint32_t i = 0; i < lag.series_count; i++) {
        free(lag.series[i].ms);
    }
    return status;
}
