#include "ctl/spread.h"

#include <unistd.h>

#include "common/clock.h"
#include "common/uri.h"
#include "ctl/print.h"

#define SHOW_MS 500U /* how often what is missing is shown */
#define POSITION_MAX 120
#define CLEAR_LINE "\r\033[K"

unsigned spread_timeout_ms(const struct arguments *arguments)
{
    return arguments->timeout_ms != 0 ? arguments->timeout_ms : SPREAD_DEFAULT_MS;
}

void spread_target(const struct arguments *arguments, const char *path, unsigned left_ms, char out[SPREAD_TARGET_MAX])
{
    unsigned ms = MIN(left_ms, isatty(STDERR_FILENO) ? SHOW_MS : SPREAD_ANSWER_MS);
    snprintf(out, SPREAD_TARGET_MAX, "%s%ctimeout=%ums", path, strchr(path, '?') != NULL ? '&' : '?', MAX(ms, 1U));
}

static unsigned left_ms(const struct arguments *arguments, uint64_t begun_us)
{
    uint64_t spent_ms = (clock_mono_us() - begun_us) / 1000;
    unsigned timeout_ms = spread_timeout_ms(arguments);
    return spent_ms < timeout_ms ? timeout_ms - (unsigned)spent_ms : 0;
}

static const char *code_of(const json_t *json)
{
    const char *code = json_string_value(json_object_get(json_object_get(json, "error"), "code"));
    return code != NULL ? code : "";
}

static bool is_applied(const json_t *region)
{
    return json_is_true(json_object_get(region, "is_applied"));
}

static const char *name_of(const json_t *region)
{
    const char *name = json_string_value(json_object_get(region, "region"));
    return name != NULL ? name : "?";
}

bool spread_is_whole(const json_t *json)
{
    const json_t *regions = json_object_get(json, "regions");
    bool is_whole = json_is_array(regions);
    for (size_t i = 0; i < json_array_size(regions); i++) {
        is_whole = is_whole && is_applied(json_array_get(regions, i));
    }
    return is_whole;
}

static void show(const json_t *json, uint64_t begun_us)
{
    const json_t *regions = json_object_get(json, "regions");
    if (!isatty(STDERR_FILENO)) {
        return;
    }
    fputs(CLEAR_LINE "waiting for", stderr);
    for (size_t i = 0; i < json_array_size(regions); i++) {
        const json_t *region = json_array_get(regions, i);
        if (is_applied(region)) {
            continue;
        }
        const char *reason = json_string_value(json_object_get(region, "reason"));
        fputc(' ', stderr);
        print_text(stderr, span_str(name_of(region)));
        fputs(" (", stderr);
        print_text(stderr, span_str(reason != NULL ? reason : "?"));
        fputc(')', stderr);
    }
    fprintf(stderr, ", %llu s", (unsigned long long)((clock_mono_us() - begun_us) / 1000000));
}

static void hide(void)
{
    if (isatty(STDERR_FILENO)) {
        fputs(CLEAR_LINE, stderr);
    }
}

/* A region that had it keeps its time; that of the others counts from when the last question was asked, `asked_us`. */
static void merge(json_t *json, const json_t *newer, uint64_t begun_us, uint64_t asked_us)
{
    const json_t *before = json_object_get(json, "regions");
    json_t *regions = json_deep_copy(json_object_get(newer, "regions"));
    for (size_t i = 0; i < json_array_size(regions); i++) {
        json_t *region = json_array_get(regions, i);
        json_t *old = json_array_get(before, i);
        double ms = json_number_value(json_object_get(region, "ms")) + (double)(asked_us - begun_us) / 1000;
        if (is_applied(old) && strcmp(name_of(old), name_of(region)) == 0) {
            json_array_set(regions, i, old);
        } else if (is_applied(region)) {
            json_object_set_new(region, "ms", json_real(ms));
        }
    }
    json_object_set_new(json, "regions", regions);
    json_object_set(json, "position", json_object_get(newer, "position"));
    json_t *error = json_object_get(newer, "error");
    if (error != NULL) {
        json_object_set(json, "error", error);
    } else {
        json_object_del(json, "error");
    }
}

static void applied_target(const struct arguments *arguments, const json_t *json, unsigned left, char out[SPREAD_TARGET_MAX])
{
    const char *position = json_string_value(json_object_get(json, "position"));
    char path[3 * POSITION_MAX + 32] = "/applied"; /* without one: all that has been published by now, which is no less */
    if (position != NULL && strlen(position) <= POSITION_MAX) {
        int used = snprintf(path, sizeof path, "/applied?position=");
        path[(size_t)used + uri_encode(span_str(position), path + used)] = '\0';
    }
    if (strlen(path) + sizeof "&timeout=4294967295ms" > SPREAD_TARGET_MAX) {
        snprintf(path, sizeof path, "/applied");
    }
    spread_target(arguments, path, left, out);
}

static enum exit_status go_on(const struct arguments *arguments, uint64_t begun_us, unsigned left, json_t **json)
{
    char target[SPREAD_TARGET_MAX];
    struct answer answer;
    uint64_t asked_us = clock_mono_us();
    applied_target(arguments, *json, left, target);
    enum exit_status status = command_ask(arguments, &(struct question){.method = "GET", .target = target, .wants_json = true}, &answer);
    if (status != EXIT_DONE) {
        return status;
    }
    json_t *newer = json_loadb(answer.response.body.data != NULL ? answer.response.body.data : "", answer.response.body.len, JSON_ALLOW_NUL, NULL);
    answer_free(&answer);
    if (!json_is_object(newer)) {
        fprintf(stderr, "outriggerctl: %s does not answer with JSON\n", arguments->address);
        json_decref(newer);
        return EXIT_FAILED;
    }
    if (*json == NULL) {
        *json = json_object();
    }
    merge(*json, newer, begun_us, asked_us);
    json_decref(newer);
    return EXIT_DONE;
}

enum exit_status spread_wait(const struct arguments *arguments, uint64_t begun_us, json_t **json)
{
    enum exit_status status = EXIT_DONE;
    bool is_first = *json == NULL;
    while (status == EXIT_DONE && (is_first || strcmp(code_of(*json), "regions_timeout") == 0)) {
        unsigned left = is_first ? MAX(left_ms(arguments, begun_us), 1U) : left_ms(arguments, begun_us);
        if (left == 0) {
            break;
        }
        if (!is_first) {
            show(*json, begun_us);
        }
        is_first = false;
        status = go_on(arguments, begun_us, left, json);
    }
    hide();
    return status;
}

enum exit_status spread_print(const json_t *json, bool has_times)
{
    const json_t *regions = json_object_get(json, "regions");
    const char *message = json_string_value(json_object_get(json_object_get(json, "error"), "message"));
    for (size_t i = 0; i < json_array_size(regions); i++) {
        const json_t *region = json_array_get(regions, i);
        const char *why = json_string_value(json_object_get(region, "message"));
        fputs("region ", stdout);
        print_text(stdout, span_str(name_of(region)));
        if (!is_applied(region)) {
            fputs(": not applied: ", stdout);
            print_text(stdout, span_str(why != NULL ? why : "no reason given"));
            fputc('\n', stdout);
        } else if (has_times) {
            printf(": applied after %.1f ms\n", json_number_value(json_object_get(region, "ms")));
        } else {
            puts(": applied");
        }
    }
    if (spread_is_whole(json)) {
        return EXIT_DONE;
    }
    fputs("outriggerctl: ", stderr);
    print_text(stderr, span_str(message != NULL ? message : "this sidecar does not say which regions have applied it"));
    fputc('\n', stderr);
    return EXIT_FAILED;
}

enum exit_status spread_dump(const json_t *json)
{
    json_dumpf(json, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    fputc('\n', stdout);
    return spread_is_whole(json) ? EXIT_DONE : EXIT_FAILED;
}
