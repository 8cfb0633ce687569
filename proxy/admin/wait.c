#include "proxy/admin/wait.h"

#include <inttypes.h>

#include "common/clock.h"
#include "common/config_value.h"
#include "common/uri.h"
#include "proxy/admin/ask.h"

#define PARAMETER_MAX 120
#define SPOOL_WORD "spool:"

static const struct {
    const char *word;
    const char *message;
} reasons[MISSING_COUNT] = {
    [MISSING_NO_ANSWER] = {"no_answer", "this region's NATS has not said how far it is"},
    [MISSING_NO_CONSUMER] = {"no_consumer", "it has never come for this region's invalidations"},
    [MISSING_NOT_CONNECTED] = {"not_connected", "none of its sidecars asks for this region's invalidations"},
    [MISSING_BACKLOG] = {"backlog", "it has not acknowledged all yet"},
    [MISSING_SPOOLED] = {"spooled", "it waits in this sidecar's spool for this region's NATS"},
    [MISSING_BUS_AWAY] = {"bus_away", "this sidecar is not connected to its region's NATS"},
    [MISSING_UNKNOWN] = {"unknown", "this region's stream was made anew or has lost messages: it can not be known"},
};

static const struct {
    unsigned status;
    const char *code;
} outcomes[] = {
    [ERR_TIMEOUT] = {504, "regions_timeout"},
    [ERR_BUS] = {504, "regions_unknown"},
    [ERR_STOPPING] = {503, "unavailable"},
    [ERR_OVERLOAD] = {429, "too_many_requests"},
    [ERR_INVALID] = {400, "bad_parameter"},
};

/* --- the query --- */

/* False: it is too long, or no text. *is_there: there is one. */
static bool take_parameter(const struct http_request *request, const char *name, char out[PARAMETER_MAX], bool *is_there)
{
    struct span raw;
    size_t len = 0;
    out[0] = '\0';
    *is_there = uri_parameter(request->query, name, &raw);
    if (!*is_there) {
        return true;
    }
    if (raw.len >= PARAMETER_MAX || uri_decode(raw, true, out, &len) != OK || memchr(out, '\0', len) != NULL) {
        return false;
    }
    out[len] = '\0';
    return true;
}

static bool parse_u64(const char *text, int base, char end, uint64_t *out, const char **rest)
{
    char *stop;
    *out = strtoull(text, &stop, base);
    *rest = stop + (end != '\0');
    return text[0] != '\0' && strchr("0123456789abcdef", text[0]) != NULL && *stop == end;
}

/* "<number>@<when the stream was created>", or "spool:<sidecar>:<number>". */
static bool parse_position(const char *text, struct position *out)
{
    const char *rest;
    *out = (struct position){.seq = 0};
    if (strncmp(text, SPOOL_WORD, sizeof SPOOL_WORD - 1) == 0) {
        return parse_u64(text + sizeof SPOOL_WORD - 1, 16, ':', &out->sidecar, &rest) && parse_u64(rest, 10, '\0', &out->spooled, &rest);
    }
    if (!parse_u64(text, 10, '@', &out->seq, &rest) || rest[0] == '\0' || strlen(rest) >= sizeof out->created) {
        return false;
    }
    snprintf(out->created, sizeof out->created, "%s", rest);
    return true;
}

static json_t *position_json(const struct position *position)
{
    char text[CREATED_SIZE + 24];
    if (position->created[0] != '\0') {
        snprintf(text, sizeof text, "%" PRIu64 "@%s", position->seq, position->created);
    } else if (position->spooled != 0) {
        snprintf(text, sizeof text, SPOOL_WORD "%" PRIx64 ":%" PRIu64, position->sidecar, position->spooled);
    } else {
        return json_null();
    }
    return json_string(text);
}

static bool take_timeout(const struct http_request *request, uint32_t *out, bool *is_there, struct reason *why)
{
    char text[PARAMETER_MAX];
    uint64_t ms = WAIT_DEFAULT_MS;
    bool is_good = take_parameter(request, "timeout", text, is_there) &&
                   (!*is_there || config_value_duration(text, 1000, 1, WAIT_MAX_MS, &ms, why) == OK);
    *out = (uint32_t)ms;
    return is_good;
}

static struct wait *create(const struct routes *routes, uint32_t timeout_ms)
{
    const struct config *config = routes->view->config;
    uint32_t count = config->bus != NULL ? config->bus->peer_count : 0;
    struct wait *wait = xcalloc(1, sizeof *wait + count * sizeof wait->regions[0]);
    wait->bus = routes->view->bus;
    wait->config = config;
    wait->timeout_ms = timeout_ms;
    wait->confirmation.regions = wait->regions;
    return wait;
}

bool wait_create(const struct routes *routes, const struct http_request *request, struct http_response *response, struct wait **out)
{
    char text[PARAMETER_MAX];
    struct reason why = {.text = ""};
    char message[sizeof why.text + 40];
    bool wants;
    bool has_timeout;
    uint32_t timeout_ms;
    *out = NULL;
    bool is_good = take_parameter(request, "wait", text, &wants) && (!wants || strcmp(text, "regions") == 0);
    if (!is_good || !take_timeout(request, &timeout_ms, &has_timeout, &why) || (has_timeout && !wants)) {
        snprintf(message, sizeof message, "%s%s", why.text[0] != '\0' ? "timeout " : "wait takes \"regions\", and timeout goes with it", why.text);
        http_response_error(response, 400, "bad_parameter", message);
        return false;
    }
    if (wants && routes->view == NULL) {
        http_response_error(response, 503, "unavailable", "there are no regions to wait for");
        return false;
    }
    *out = wants ? create(routes, timeout_ms) : NULL;
    return true;
}

void wait_destroy(struct wait **wait)
{
    free(*wait);
    *wait = NULL;
}

/* --- the wait --- */

void wait_arm(struct wait *wait, const _Atomic bool *is_stopping)
{
    wait->confirmation.is_stopping = is_stopping;
    wait->confirmation.since_us = clock_mono_us();
    wait->confirmation.until_us = wait->confirmation.since_us + 1000ULL * wait->timeout_ms;
}

static void on_confirmed(struct confirmation *confirmation)
{
    struct wait *wait = container_of(confirmation, struct wait, confirmation);
    wait->on_done(wait->ctx);
}

bool wait_start(struct wait *wait, void (*on_done)(void *ctx), void *ctx)
{
    wait->state = wait->bus == NULL || wait->config->bus->peer_count == 0 ? WAIT_NOBODY : WAIT_BEGUN;
    if (wait->state == WAIT_NOBODY) {
        return false;
    }
    wait->on_done = on_done;
    wait->ctx = ctx;
    wait->confirmation.on_done = on_confirmed;
    bus_confirm(wait->bus, &wait->confirmation);
    return true;
}

/* --- the answer --- */

static json_t *region_json(const char *name, const struct confirmed *region)
{
    json_t *json = json_pack("{s:s,s:b}", "region", name, "is_applied", region->is_applied);
    if (region->is_applied) {
        json_object_set_new(json, "ms", json_real((double)region->after_us / 1000));
        return json;
    }
    const char *word = reasons[region->missing].word;
    char message[CONFIRMED_TEXT + 120];
    snprintf(message, sizeof message, "%s%s%s", reasons[region->missing].message, region->text[0] != '\0' ? ": " : "", region->text);
    json_object_set_new(json, "reason", json_string(word != NULL ? word : "no_answer"));
    json_object_set_new(json, "message", json_string(message));
    if (region->missing == MISSING_BACKLOG || region->missing == MISSING_NOT_CONNECTED) {
        json_object_set_new(json, "backlog", json_integer((json_int_t)region->backlog));
    }
    return json;
}

static void write_error(const struct wait *wait, json_t *root, struct http_response *response)
{
    enum err err = (size_t)wait->confirmation.err < ARRAY_LEN(outcomes) && outcomes[wait->confirmation.err].code != NULL ? wait->confirmation.err : ERR_TIMEOUT;
    char message[600];
    int used = 0;
    switch (err) {
    case ERR_INVALID: used = snprintf(message, sizeof message, "position is one of another sidecar's spool, or of before its restart"); break;
    case ERR_BUS: used = snprintf(message, sizeof message, "it can not be known who has applied it: this region's stream has lost messages; send it again"); break;
    case ERR_TIMEOUT: used = snprintf(message, sizeof message, "not known to be applied in time by:"); break;
    default: used = snprintf(message, sizeof message, "done, but not waited for: %s; not known to be applied by:", err_text(err)); break;
    }
    for (uint32_t i = 0; err != ERR_INVALID && err != ERR_BUS && i < wait->config->bus->peer_count && (size_t)used < sizeof message; i++) {
        if (!wait->regions[i].is_applied) {
            used += snprintf(message + used, sizeof message - (size_t)used, " %s", wait->config->bus->peers[i].region);
        }
    }
    json_object_set_new(root, "error", json_pack("{s:s,s:s}", "code", outcomes[err].code, "message", message));
    if (response->status < 500) {
        response->status = outcomes[err].status;
    }
}

void wait_write(const struct wait *wait, json_t *root, struct http_response *response)
{
    if (wait == NULL || wait->state == WAIT_NOT_BEGUN) {
        return;
    }
    json_t *regions = json_array();
    bool is_begun = wait->state == WAIT_BEGUN;
    for (uint32_t i = 0; is_begun && i < wait->config->bus->peer_count; i++) {
        json_array_append_new(regions, region_json(wait->config->bus->peers[i].region, &wait->regions[i]));
    }
    json_object_set_new(root, "position", is_begun ? position_json(&wait->confirmation.position) : json_null());
    json_object_set_new(root, "regions", regions);
    if (is_begun && wait->confirmation.err != OK) {
        write_error(wait, root, response);
    } else if (response->status == 202) { /* what was in the spool has left it */
        response->status = 200;
    }
}

/* --- GET /applied --- */

void wait_applied(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    char text[PARAMETER_MAX];
    struct reason why = {.text = ""};
    struct position position = {.seq = 0};
    bool is_there;
    uint32_t timeout_ms;
    if (routes->view == NULL) {
        http_response_error(response, 503, "unavailable", "there are no regions to wait for");
        return;
    }
    if (!take_parameter(request, "position", text, &is_there) || (is_there && !parse_position(text, &position))) {
        http_response_error(response, 400, "bad_parameter", "position is what an answer to wait=regions has under that name");
        return;
    }
    bool has_timeout;
    if (!take_timeout(request, &timeout_ms, &has_timeout, &why)) {
        http_response_error(response, 400, "bad_parameter", why.text[0] != '\0' ? why.text : "timeout takes a duration");
        return;
    }
    struct wait *wait = create(routes, timeout_ms);
    wait->confirmation.has_position = is_there;
    wait->confirmation.position = position;
    response->ask = ask_create(ASK_APPLIED, span_of(NULL, 0));
    response->ask->wait = wait;
}

void wait_finish(const struct wait *wait, struct http_response *response)
{
    json_t *root = json_object();
    response->content_type = "application/json";
    wait_write(wait, root, response);
    json_dumpf(root, response->body, WAIT_DUMP);
    fputc('\n', response->body);
    json_decref(root);
}
