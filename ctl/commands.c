#include "ctl/commands.h"

#include <jansson.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/uri.h"
#include "ctl/lag.h"
#include "ctl/print.h"
#include "ctl/spread.h"
#include "ctl/stats.h"
#include "ctl/top.h"

#define VALUE_MAX (128UL << 20)
#define WAIT_LOOK_S 1

/* --- asking --- */

enum exit_status command_ask(const struct arguments *arguments, const struct question *question, struct answer *answer)
{
    char why[WHY_SIZE] = "";
    if (client_ask(&arguments->server, question, answer, why) != OK) {
        fprintf(stderr, "outriggerctl: %s: %s\n", arguments->address, why);
        return EXIT_UNREACHABLE;
    }
    return EXIT_DONE;
}

static json_t *body_json(const struct answer *answer)
{
    return json_loadb(answer->response.body.data != NULL ? answer->response.body.data : "", answer->response.body.len, JSON_ALLOW_NUL, NULL);
}

/* What the sidecar says is wrong. */
static void complain(const struct answer *answer)
{
    json_t *json = body_json(answer);
    const char *message = json_string_value(json_object_get(json_object_get(json, "error"), "message"));
    fprintf(stderr, "outriggerctl: %u", answer->response.status);
    if (message != NULL) {
        fputs(": ", stderr);
        print_text(stderr, span_str(message));
    }
    fputc('\n', stderr);
    json_decref(json);
}

enum exit_status command_fetch_metrics(const struct arguments *arguments, char **text)
{
    struct answer answer;
    *text = NULL;
    enum exit_status status = command_ask(arguments, &(struct question){.method = "GET", .target = "/metrics"}, &answer);
    if (status != EXIT_DONE) {
        return status;
    }
    if (answer.response.status != 200) {
        complain(&answer);
        status = EXIT_FAILED;
    } else {
        *text = xstrndup(answer.response.body.data, answer.response.body.len);
    }
    answer_free(&answer);
    return status;
}

static void write_body(const struct answer *answer)
{
    fwrite(answer->response.body.data, 1, answer->response.body.len, stdout);
}

/* "/cache/" or "/route?key=" and a key. */
static char *target_of(const char *path, const char *key, const char *query)
{
    size_t len = strlen(key);
    size_t path_len = strlen(path);
    char *target = xmalloc(path_len + 3 * len + strlen(query) + 1);
    memcpy(target, path, path_len);
    size_t at = path_len + uri_encode(span_of(key, len), target + path_len);
    strcpy(target + at, query);
    return target;
}

/* Prints an answer, as it is or by `print`; EXIT_FAILED for anything but 200. */
static enum exit_status present(const struct arguments *arguments, const struct answer *answer, json_t *json, void (*print)(const json_t *json))
{
    if (arguments->is_json && json != NULL) {
        write_body(answer);
    } else if (answer->response.status == 200 && json != NULL) {
        print(json);
    } else if (json_object_get(json, "results") != NULL) { /* some failed, some did not */
        print(json);
    } else if (json_object_get(json, "entry") != NULL) {
        print(json_object_get(json, "entry"));
    }
    if (answer->response.status != 200) {
        complain(answer);
        return EXIT_FAILED;
    }
    if (json == NULL) {
        fprintf(stderr, "outriggerctl: %s does not answer with JSON\n", arguments->address);
        return EXIT_FAILED;
    }
    return EXIT_DONE;
}

static enum exit_status show(const struct arguments *arguments, const struct question *question, void (*print)(const json_t *json))
{
    struct answer answer;
    enum exit_status status = command_ask(arguments, question, &answer);
    if (status != EXIT_DONE) {
        return status;
    }
    json_t *json = body_json(&answer);
    status = present(arguments, &answer, json, print);
    json_decref(json);
    answer_free(&answer);
    return status;
}

/* --- entries --- */

static void print_entry(const json_t *json)
{
    print_object(stdout, json, NULL);
}

static enum exit_status run_get(const struct arguments *arguments)
{
    char *target = target_of("/cache/", arguments->words[0], arguments->is_peek ? "?peek=1" : "");
    struct question question = {.method = "GET", .target = target, .wants_json = true};
    struct answer answer;
    enum exit_status status;
    if (arguments->is_json || arguments->is_info || arguments->is_peek) {
        status = show(arguments, &question, print_entry);
        free(target);
        return status;
    }
    question.wants_json = false;
    status = command_ask(arguments, &question, &answer);
    free(target);
    if (status != EXIT_DONE) {
        return status;
    }
    if (answer.response.status == 200) {
        write_body(&answer);
        if (isatty(STDOUT_FILENO)) {
            fputc('\n', stdout);
        }
    } else {
        complain(&answer);
        status = EXIT_FAILED;
    }
    answer_free(&answer);
    return status;
}

/* All of stdin. */
static char *read_stdin(size_t *len)
{
    char *data = NULL;
    size_t cap = 0;
    *len = 0;
    for (;;) {
        if (*len == cap) {
            cap = MAX(cap * 2, 65536UL);
            char *grown = cap <= 2 * VALUE_MAX ? realloc(data, cap) : NULL;
            if (grown == NULL) {
                free(data);
                return NULL;
            }
            data = grown;
        }
        size_t n = fread(data + *len, 1, cap - *len, stdin);
        if (n == 0) {
            return data;
        }
        *len += n;
    }
}

static void print_result(const json_t *json)
{
    const char *result = json_string_value(json_object_get(json, "result"));
    const char *node = json_string_value(json_object_get(json, "node"));
    const char *namespace = json_string_value(json_object_get(json, "namespace"));
    printf("%s (namespace %s, node %s)\n", result != NULL ? result : "done", namespace != NULL ? namespace : "?", node != NULL ? node : "?");
}

static enum exit_status run_set(const struct arguments *arguments)
{
    char query[64];
    char *data = NULL;
    struct span value;
    if (strlen(arguments->ttl) > 20 || strlen(arguments->flags) > 20) {
        fputs("outriggerctl: --ttl and --flags take numbers\n", stderr);
        return EXIT_USAGE;
    }
    snprintf(query, sizeof query, "?ttl=%s&flags=%s", arguments->ttl, arguments->flags);
    if (arguments->word_count == 1 || strcmp(arguments->words[1], "-") == 0) {
        size_t len;
        data = read_stdin(&len);
        if (data == NULL) {
            fputs("outriggerctl: the value is too large\n", stderr);
            return EXIT_FAILED;
        }
        value = span_of(data, len);
    } else {
        value = span_str(arguments->words[1]);
    }
    char *target = target_of("/cache/", arguments->words[0], query);
    enum exit_status status = show(arguments, &(struct question){"SET", target, value, true}, print_result);
    free(target);
    free(data);
    return status;
}

/* Behind deletions that have been answered: what has been published by now is enough to wait for. */
static enum exit_status wait_for_deletions(const struct arguments *arguments)
{
    json_t *json = NULL;
    enum exit_status status = spread_wait(arguments, clock_mono_us(), &json);
    if (status == EXIT_DONE) {
        status = arguments->is_json ? spread_dump(json) : spread_print(json, false);
    }
    json_decref(json);
    return status;
}

static enum exit_status run_del(const struct arguments *arguments)
{
    enum exit_status worst = EXIT_DONE;
    for (uint32_t i = 0; i < arguments->word_count && worst != EXIT_UNREACHABLE; i++) {
        char *target = target_of("/cache/", arguments->words[i], "");
        enum exit_status status = show(arguments, &(struct question){.method = "DEL", .target = target, .wants_json = true}, print_result);
        worst = MAX(worst, status);
        free(target);
    }
    if (arguments->is_wait && worst != EXIT_UNREACHABLE) {
        enum exit_status status = wait_for_deletions(arguments);
        worst = MAX(worst, status);
    }
    return worst;
}

/* --- what is where --- */

static enum exit_status run_route(const struct arguments *arguments)
{
    char *target = target_of("/route?key=", arguments->words[0], "");
    enum exit_status status = show(arguments, &(struct question){.method = "GET", .target = target, .wants_json = true}, print_entry);
    free(target);
    return status;
}

/* Of every region with a lease one row, and of every witness. */
static json_t *leases_of(const json_t *json)
{
    json_t *rows = json_array();
    json_t *item;
    size_t i;
    json_array_foreach (json_object_get(json, "regions"), i, item) {
        json_t *row = json_copy(json_object_get(item, "strong"));
        if (row != NULL) {
            json_object_set(row, "region", json_object_get(item, "region"));
            json_array_append_new(rows, row);
        }
    }
    json_array_foreach (json_object_get(json, "witnesses"), i, item) {
        json_t *row = json_copy(item);
        json_object_set(row, "region", json_object_get(item, "name"));
        json_object_set_new(row, "lease", json_string("(witness)"));
        json_array_append_new(rows, row);
    }
    return rows;
}

static void print_regions(const json_t *json)
{
    static const char *const lease_columns[] = {"region", "lease", "number", "is_suspended", "is_connected", "is_vote", "problem", NULL};
    static const char *const columns[] = {"region", "is_own", "is_connected", "lag_ms", "backlog", "last_seen", "applied", "failed", "problem", NULL};
    print_table(stdout, json_object_get(json, "regions"), columns);
    json_t *leases = leases_of(json);
    if (json_array_size(leases) > 0) {
        printf("\nLeases of strong namespaces, and who votes on them:\n");
        print_table(stdout, leases, lease_columns);
    }
    json_decref(leases);
}

static enum exit_status run_regions(const struct arguments *arguments)
{
    return show(arguments, &(struct question){.method = "GET", .target = "/regions", .wants_json = true}, print_regions);
}

static void print_indented(const json_t *json)
{
    json_dumpf(json, stdout, JSON_INDENT(2));
    fputc('\n', stdout);
}

static enum exit_status run_config(const struct arguments *arguments)
{
    return show(arguments, &(struct question){.method = "GET", .target = "/config", .wants_json = true}, print_indented);
}

/* --- rules --- */

static void print_rules(const json_t *json)
{
    static const char *const columns[] = {"pattern", "region", "since", "version", NULL};
    json_t *rules = json_object_get(json, "rules");
    if (json_array_size(rules) == 0) {
        puts("no rules in force");
        return;
    }
    for (size_t i = 0; i < json_array_size(rules); i++) {
        json_t *rule = json_array_get(rules, i);
        time_t at_s = (time_t)(json_integer_value(json_object_get(rule, "timestamp")) / 1000);
        struct tm tm;
        char text[40];
        if (gmtime_r(&at_s, &tm) != NULL && strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0) {
            json_object_set_new(rule, "since", json_string(text));
        }
    }
    print_table(stdout, rules, columns);
}

static enum exit_status run_rules(const struct arguments *arguments)
{
    return show(arguments, &(struct question){.method = "GET", .target = "/rules", .wants_json = true}, print_rules);
}

static json_t *texts(const char *const *words, uint32_t count)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < count; i++) {
        json_t *text = json_string(words[i]);
        if (text == NULL) {
            fputs("outriggerctl: keys and patterns must be UTF-8 here (del takes any key)\n", stderr);
            json_decref(array);
            return NULL;
        }
        json_array_append_new(array, text);
    }
    return array;
}

/* How many of our patterns are in force; -1: the server does not say. */
static int count_ours(const struct arguments *arguments, enum exit_status *status)
{
    struct answer answer;
    int count = 0;
    *status = command_ask(arguments, &(struct question){.method = "GET", .target = "/rules", .wants_json = true}, &answer);
    if (*status != EXIT_DONE) {
        return -1;
    }
    json_t *json = body_json(&answer);
    const json_t *rules = answer.response.status == 200 ? json_object_get(json, "rules") : NULL;
    for (size_t r = 0; r < json_array_size(rules); r++) {
        const char *pattern = json_string_value(json_object_get(json_array_get(rules, r), "pattern"));
        for (uint32_t i = 0; pattern != NULL && i < arguments->pattern_count; i++) {
            count += strcmp(pattern, arguments->patterns[i]) == 0;
        }
    }
    count = rules == NULL ? -1 : count;
    json_decref(json);
    answer_free(&answer);
    return count;
}

/* A pattern holds at once; what is waited for is that the pool has been swept, so that the rule could be retired. */
static enum exit_status wait_for_rules(const struct arguments *arguments)
{
    enum exit_status status;
    int last = 0;
    for (;;) {
        int count = count_ours(arguments, &status);
        if (status != EXIT_DONE) {
            return status;
        }
        if (count < 0) {
            fputs("outriggerctl: this sidecar does not say which rules are in force; the patterns hold all the same\n", stderr);
            return EXIT_DONE;
        }
        if (count != last) {
            fprintf(stderr, "%d of %u patterns still being swept\n", count, arguments->pattern_count);
            last = count;
        }
        if (count == 0) {
            return EXIT_DONE;
        }
        sleep(WAIT_LOOK_S);
    }
}

/* A line for each key and pattern. */
static void print_results(const json_t *json)
{
    const json_t *results = json_object_get(json, "results");
    for (size_t i = 0; i < json_array_size(results); i++) {
        const json_t *one = json_array_get(results, i);
        const char *pattern = json_string_value(json_object_get(one, "pattern"));
        const char *key = json_string_value(json_object_get(one, "key"));
        const char *error = json_string_value(json_object_get(one, "error"));
        const char *result = json_string_value(json_object_get(one, "result"));
        print_text(stdout, span_str(pattern != NULL ? pattern : key != NULL ? key : "?"));
        fputs(": ", stdout);
        print_text(stdout, span_str(error != NULL ? error : result == NULL ? "hidden" : strcmp(result, "deleted") == 0 ? "deleted" : "was not there"));
        fputc('\n', stdout);
    }
}

/* The body of POST /invalidate; NULL: one of them is no text. */
static char *invalidate_body(const struct arguments *arguments)
{
    json_t *keys = texts(arguments->words, arguments->word_count);
    json_t *patterns = keys != NULL ? texts(arguments->patterns, arguments->pattern_count) : NULL;
    if (patterns == NULL) {
        json_decref(keys);
        return NULL;
    }
    json_t *json = json_pack("{s:o,s:o}", "keys", keys, "patterns", patterns);
    char *body = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    return body;
}

/* Everything has been done here (or an error is told); then the regions, as they follow. */
static enum exit_status invalidate_and_wait(const struct arguments *arguments, const char *body)
{
    char target[SPREAD_TARGET_MAX];
    struct answer answer;
    uint64_t begun_us = clock_mono_us();
    spread_target(arguments, "/invalidate?wait=regions", spread_timeout_ms(arguments), target);
    enum exit_status status = command_ask(arguments, &(struct question){"POST", target, span_str(body), true}, &answer);
    if (status != EXIT_DONE) {
        return status;
    }
    json_t *json = body_json(&answer);
    bool is_done = json_is_integer(json_object_get(json, "failed")) && json_integer_value(json_object_get(json, "failed")) == 0;
    if (is_done) {
        status = spread_wait(arguments, begun_us, &json);
        if (!arguments->is_json) {
            print_results(json);
        }
        enum exit_status spread = arguments->is_json ? spread_dump(json) : spread_print(json, true);
        status = MAX(status, spread);
    } else {
        status = present(arguments, &answer, json, print_results);
    }
    json_decref(json);
    answer_free(&answer);
    return status;
}

static enum exit_status run_invalidate(const struct arguments *arguments)
{
    if (arguments->word_count + arguments->pattern_count == 0) {
        fputs("outriggerctl: invalidate needs keys, or --pattern\n", stderr);
        return EXIT_USAGE;
    }
    char *body = invalidate_body(arguments);
    if (body == NULL) {
        return EXIT_USAGE;
    }
    enum exit_status status = arguments->is_wait ? invalidate_and_wait(arguments, body)
                                                 : show(arguments, &(struct question){"POST", "/invalidate", span_str(body), true}, print_results);
    free(body);
    if (status == EXIT_DONE && arguments->is_wait_sweep && arguments->pattern_count > 0) {
        status = wait_for_rules(arguments);
    }
    return status;
}

const struct command commands[] = {
    {"get", "KEY", "prints the value of a key as it is; with --info or --peek what is known of it", "pi", 1, 1, run_get},
    {"set", "KEY [VALUE|-]", "stores a value, from the command line or from stdin", "tf", 1, 2, run_set},
    {"del", "KEY...", "deletes keys, and tells the other regions", "w", 1, WORDS_MAX, run_del},
    {"invalidate", "[KEY...] [--pattern PATTERN]...", "invalidates keys and patterns in every region", "wWP", 0, WORDS_MAX, run_invalidate},
    {"route", "KEY", "shows the namespace, node and place on the ring of a key", "", 1, 1, run_route},
    {"regions", "", "shows this region and its peers: connected, lag, backlog", "", 0, 0, run_regions},
    {"rules", "", "shows the patterns that are in force", "", 0, 0, run_rules},
    {"config", "", "shows the configuration in force, secrets hidden", "", 0, 0, run_config},
    {"stats", "[PART]", "shows the metrics, or those with PART in their name", "", 0, 1, stats_run},
    {"top", "", "shows rates, hit rate and latencies, live; q ends it", "on", 0, 0, top_run},
    {"bench-lag", "", "measures how long invalidations take into every region, with keys that nobody has", "cn", 0, 0, lag_run},
};
const uint32_t command_count = ARRAY_LEN(commands);
