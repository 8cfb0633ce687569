#include "ctl/stats.h"

#include <jansson.h>

#include "ctl/samples.h"

static bool ends_with(struct span text, struct span end)
{
    return text.len >= end.len && memcmp(text.data + text.len - end.len, end.data, end.len) == 0;
}

static bool is_wanted(const struct sample *sample, const char *part)
{
    if (ends_with(sample->name, SPAN_LIT("_bucket"))) {
        return false;
    }
    return part == NULL || memmem(sample->name.data, sample->name.len, part, strlen(part)) != NULL;
}

/* {"name": [{"labels": "command=\"get\"", "value": 1}, …], …} */
static void add_json(json_t *json, const struct sample *sample)
{
    char name[256];
    snprintf(name, sizeof name, "%.*s", SPAN_FMT(sample->name));
    json_t *series = json_object_get(json, name);
    if (series == NULL) {
        series = json_array();
        json_object_set_new(json, name, series);
    }
    json_t *labels = json_stringn(sample->labels.data, sample->labels.len);
    json_array_append_new(series, json_pack("{s:o,s:f}", "labels", labels != NULL ? labels : json_string(""), "value", sample->value));
}

static uint32_t print(const char *text, const struct arguments *arguments)
{
    const char *part = arguments->word_count > 0 ? arguments->words[0] : NULL;
    json_t *json = arguments->is_json ? json_object() : NULL;
    struct sample sample;
    uint32_t count = 0;
    while (samples_next(&text, &sample)) {
        if (!is_wanted(&sample, part)) {
            continue;
        }
        count++;
        if (json != NULL) {
            add_json(json, &sample);
            continue;
        }
        char series[512];
        bool has_labels = sample.labels.len > 0;
        snprintf(series, sizeof series, "%.*s%s%.*s%s", SPAN_FMT(sample.name), has_labels ? "{" : "", SPAN_FMT(sample.labels), has_labels ? "}" : "");
        printf("%-72s %.15g\n", series, sample.value);
    }
    if (json != NULL) {
        json_dumpf(json, stdout, JSON_INDENT(1));
        fputc('\n', stdout);
        json_decref(json);
    }
    return count;
}

enum exit_status stats_run(const struct arguments *arguments)
{
    char *text;
    enum exit_status status = command_fetch_metrics(arguments, &text);
    if (status == EXIT_DONE && print(text, arguments) == 0) {
        fputs("outriggerctl: there is no such metric\n", stderr);
        status = EXIT_FAILED;
    }
    free(text);
    return status;
}
