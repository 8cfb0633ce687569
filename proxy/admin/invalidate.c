#include "proxy/admin/invalidate.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdatomic.h>
#include <strings.h>

#include "proxy/admin/wait.h"

struct item {
    struct job *job;
    bool is_pattern;
    union {
        struct rules_request rule;
        struct errand errand;
    };
};

struct job {
    const struct invalidator *invalidator;
    void (*on_done)(void *ctx);
    void *ctx;
    _Atomic uint32_t pending;
    uint32_t count;
    struct item *items;
};

/* --- made --- */

static struct job *allocate(const struct invalidator *invalidator, uint32_t count)
{
    struct job *job = xcalloc(1, sizeof *job);
    job->invalidator = invalidator;
    job->items = calloc(count, sizeof *job->items);
    if (job->items == NULL) {
        free(job);
        return NULL;
    }
    return job;
}

static enum err add_pattern(struct job *job, struct span pattern, char *why, size_t why_size)
{
    char problem[80];
    if (glob_check(pattern, problem, sizeof problem) != OK) {
        snprintf(why, why_size, "pattern %u: %s", job->count + 1, problem);
        return ERR_INVALID;
    }
    struct item *item = &job->items[job->count++];
    item->job = job;
    item->is_pattern = true;
    item->rule.pattern_len = (uint16_t)pattern.len;
    memcpy(item->rule.pattern, pattern.data, pattern.len);
    return OK;
}

static enum err add_key(struct job *job, struct span key, char *why, size_t why_size)
{
    if (key.len == 0 || key.len > KEY_MAX) {
        snprintf(why, why_size, "a key has 1 to %d bytes, not %zu", KEY_MAX, key.len);
        return ERR_INVALID;
    }
    struct item *item = &job->items[job->count++];
    item->job = job;
    item->errand.key_len = (uint16_t)key.len;
    memcpy(item->errand.key, key.data, key.len);
    return OK;
}

enum err job_create(const struct invalidator *invalidator, struct span pattern, struct job **out, char *why, size_t why_size)
{
    struct job *job = allocate(invalidator, 1);
    snprintf(why, why_size, "%s", err_text(ERR_NOMEM));
    enum err err = job == NULL ? ERR_NOMEM : add_pattern(job, pattern, why, why_size);
    if (err != OK) {
        job_destroy(&job);
    }
    *out = job;
    return err;
}

static enum err add_all(struct job *job, const json_t *list, bool is_pattern, char *why, size_t why_size)
{
    enum err err = OK;
    for (size_t i = 0; i < json_array_size(list) && err == OK; i++) {
        const json_t *text = json_array_get(list, i);
        if (!json_is_string(text)) {
            snprintf(why, why_size, "keys and patterns are texts");
            return ERR_INVALID;
        }
        struct span span = span_of(json_string_value(text), json_string_length(text));
        err = is_pattern ? add_pattern(job, span, why, why_size) : add_key(job, span, why, why_size);
    }
    return err;
}

enum err job_create_json(const struct invalidator *invalidator, struct span body, struct job **out, char *why, size_t why_size)
{
    *out = NULL;
    json_t *root = json_loadb(body.data, body.len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, NULL);
    const json_t *keys = json_object_get(root, "keys");
    const json_t *patterns = json_object_get(root, "patterns");
    size_t count = json_array_size(keys) + json_array_size(patterns);
    bool is_whole = json_is_object(root) && json_object_size(root) == (size_t)(keys != NULL) + (patterns != NULL) &&
                    (keys == NULL || json_is_array(keys)) && (patterns == NULL || json_is_array(patterns));
    enum err err = OK;
    if (!is_whole || count == 0 || count > JOB_ITEMS_MAX) {
        snprintf(why, why_size, "the body is to be {\"keys\":[...],\"patterns\":[...]} with 1 to %d of them in all", JOB_ITEMS_MAX);
        err = ERR_INVALID;
        goto out;
    }
    *out = allocate(invalidator, (uint32_t)count);
    if (*out == NULL) {
        snprintf(why, why_size, "%s", err_text(ERR_NOMEM));
        err = ERR_NOMEM;
        goto out;
    }
    err = add_all(*out, patterns, true, why, why_size);
    if (err == OK) {
        err = add_all(*out, keys, false, why, why_size);
    }
    if (err != OK) {
        job_destroy(out);
    }
out:
    json_decref(root);
    return err;
}

void job_destroy(struct job **out)
{
    struct job *job = *out;
    *out = NULL;
    if (job != NULL) {
        free(job->items);
        free(job);
    }
}

/* --- done --- */

static void one_done(struct job *job)
{
    if (atomic_fetch_sub(&job->pending, 1) == 1) {
        job->on_done(job->ctx);
    }
}

static void on_rule_done(struct rules_request *request)
{
    one_done(container_of(request, struct item, rule)->job);
}

static void on_key_done(struct errand *errand)
{
    one_done(container_of(errand, struct item, errand)->job);
}

void job_start(struct job *job, void (*on_done)(void *ctx), void *ctx)
{
    uint32_t count = job->count;
    job->on_done = on_done;
    job->ctx = ctx;
    atomic_store(&job->pending, count + 1); /* one of our own, so that it is not over before all were started */
    for (uint32_t i = 0; i < count; i++) {
        struct item *item = &job->items[i];
        if (item->is_pattern) {
            item->rule.on_done = on_rule_done;
            rules_submit(job->invalidator->rules, &item->rule);
        } else {
            item->errand.on_done = on_key_done;
            job->invalidator->submit_key(job->invalidator->ctx, &item->errand);
        }
    }
    one_done(job);
}

/* --- told --- */

/* 202: done here, and on the disk for everybody else. */
static unsigned http_status(enum err err, bool is_owed)
{
    switch (err) {
    case OK: return is_owed ? 202 : 200;
    case ERR_INVALID: return 400;
    case ERR_OVERLOAD: return 507;
    default: return 503;
    }
}

static void describe_rule(const struct rules_request *rule, json_t *out)
{
    char version[24];
    snprintf(version, sizeof version, "%" PRIu64, rule->version);
    json_t *pattern = json_stringn(rule->pattern, rule->pattern_len);
    json_object_set_new(out, "pattern", pattern != NULL ? pattern : json_null()); /* bytes that JSON has no text for */
    if (rule->version != 0) {
        json_object_set_new(out, "version", json_string(version));
    }
    if (rule->is_owed) {
        json_object_set_new(out, "spooled", json_true());
    }
    if (rule->err != OK) {
        json_object_set_new(out, "error", json_string(rule->text));
    }
}

static void describe_key(const struct errand *errand, json_t *out)
{
    json_object_set_new(out, "key", json_stringn(errand->key, errand->key_len));
    switch (errand->status) {
    case REPLY_DELETED: json_object_set_new(out, "result", json_string("deleted")); break;
    case REPLY_NOT_FOUND: json_object_set_new(out, "result", json_string("not_found")); break;
    default: json_object_set_new(out, "error", json_string(errand->text)); break;
    }
}

static enum err result_of(const struct item *item)
{
    if (item->is_pattern) {
        return item->rule.err;
    }
    return item->errand.status == REPLY_DELETED || item->errand.status == REPLY_NOT_FOUND ? OK : ERR_UNAVAILABLE;
}

bool job_has_failed(const struct job *job)
{
    uint32_t failed = 0;
    for (uint32_t i = 0; i < job->count; i++) {
        failed += result_of(&job->items[i]) != OK;
    }
    return failed == job->count;
}

void job_write(const struct job *job, const struct wait *wait, struct http_response *response)
{
    json_t *root = json_object();
    json_t *results = json_array();
    uint32_t failed = 0;
    response->status = 200;
    response->content_type = "application/json";
    for (uint32_t i = 0; i < job->count; i++) {
        const struct item *item = &job->items[i];
        json_t *out = json_object();
        enum err err = result_of(item);
        bool is_owed = item->is_pattern && item->rule.is_owed;
        if (item->is_pattern) {
            describe_rule(&item->rule, out);
        } else {
            describe_key(&item->errand, out);
        }
        failed += err != OK;
        response->status = MAX(response->status, http_status(err, is_owed));
        json_array_append_new(results, out);
    }
    json_object_set_new(root, "failed", json_integer(failed));
    json_object_set_new(root, "results", results);
    wait_write(wait, root, response);
    json_dumpf(root, response->body, WAIT_DUMP);
    fputc('\n', response->body);
    json_decref(root);
}

/* --- routes --- */

static bool may_invalidate(const struct routes *routes, struct http_response *response)
{
    if (routes->invalidator == NULL || routes->invalidator->rules == NULL) {
        http_response_error(response, 503, "unavailable", "there is no cache to invalidate");
        return false;
    }
    return true;
}

/* Takes `job` and `wait` over. */
static void ask_for(enum err err, struct job *job, struct wait *wait, const char *why, struct http_response *response)
{
    if (err == OK) {
        response->ask = ask_create_job(job);
        response->ask->wait = wait;
        return;
    }
    wait_destroy(&wait);
    if (err == ERR_NOMEM) {
        http_response_error(response, 503, "no_memory", why);
    } else {
        http_response_error(response, 400, "invalid", why);
    }
}

void invalidate_pattern(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    struct job *job;
    struct wait *wait;
    char why[RULES_TEXT] = "";
    if (may_invalidate(routes, response) && wait_create(routes, request, response, &wait)) {
        enum err err = job_create(routes->invalidator, request->rest, &job, why, sizeof why);
        ask_for(err, job, wait, why, response);
    }
}

/* Only JSON, so that no web page that somebody on this host looks at can send one: for this type a browser asks first, and is refused. */
void invalidate_many(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    struct job *job;
    struct wait *wait;
    char why[RULES_TEXT] = "";
    if (!may_invalidate(routes, response)) {
        return;
    }
    if (request->content_type == NULL || strncasecmp(request->content_type, "application/json", 16) != 0) {
        http_response_error(response, 415, "unsupported_media_type", "Content-Type is to be application/json");
        return;
    }
    if (wait_create(routes, request, response, &wait)) {
        enum err err = job_create_json(routes->invalidator, request->body, &job, why, sizeof why);
        ask_for(err, job, wait, why, response);
    }
}

void invalidate_rules(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    response->content_type = "application/json";
    if (routes->invalidator != NULL && routes->invalidator->rules != NULL) {
        rules_write(routes->invalidator->rules, response->body);
    } else {
        fputs("{\"rules\":[]}\n", response->body);
    }
}
