#include "proxy/admin/entry.h"

#include <inttypes.h>
#include <time.h>

#include "common/clock.h"
#include "proxy/admin/wait.h"
#include "proxy/protocol/base64.h"

#define TTL_MAX (10ULL * 365 * 86400)
#define TTL_RELATIVE_MAX (30ULL * 86400) /* beyond, memcached takes a time */
#define PLAUSIBLE_MS 1500000000000ULL    /* 2017: an older version is no version of ours, but a CAS of memcached's own */

static const char *const origin_words[ORIGIN_COUNT] = {
    [ORIGIN_MISS] = "miss",         [ORIGIN_HIT] = "hit",           [ORIGIN_LOADED] = "loaded", [ORIGIN_STALE] = "stale",
    [ORIGIN_NEGATIVE] = "negative", [ORIGIN_TOMBSTONE] = "tombstone", [ORIGIN_LEASE] = "lease",     [ORIGIN_LOCK] = "lock",
};

/* --- questions --- */

static struct ask *ask_for(enum ask_kind kind, const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    if (routes->view == NULL) {
        http_response_error(response, 503, "unavailable", "there is no cache to ask");
        return NULL;
    }
    if (request->rest.len == 0 || request->rest.len > KEY_MAX) {
        http_response_error(response, 400, "bad_key", "a key has 1 to 250 bytes");
        return NULL;
    }
    response->ask = ask_create(kind, request->rest);
    response->ask->wants_json = request->wants_json;
    return response->ask;
}

void entry_get(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    ask_for(http_query_flag(request, "peek") ? ASK_PEEK : ASK_GET, routes, request, response);
}

void entry_set(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    uint64_t ttl_s = 0;
    uint64_t flags = 0;
    if (!http_query_number(request, "ttl", TTL_MAX, &ttl_s) || !http_query_number(request, "flags", UINT32_MAX, &flags)) {
        http_response_error(response, 400, "bad_parameter", "ttl takes seconds, up to ten years (0: no expiry), and flags a number of 32 bits");
        return;
    }
    struct ask *ask = ask_for(ASK_SET, routes, request, response);
    if (ask != NULL) {
        ask->flags = (uint32_t)flags;
        ask->exptime = (int64_t)(ttl_s > TTL_RELATIVE_MAX ? clock_wall_ms() / 1000 + ttl_s : ttl_s);
    }
}

void entry_delete(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    struct wait *wait;
    if (!wait_create(routes, request, response, &wait)) {
        return;
    }
    struct ask *ask = ask_for(ASK_DELETE, routes, request, response);
    if (ask != NULL) {
        ask->wait = wait;
    } else {
        wait_destroy(&wait);
    }
}

/* --- answers --- */

const char *entry_timestamp(uint64_t wall_ms, char out[TIMESTAMP_SIZE])
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    char text[24];
    gmtime_r(&seconds, &tm);
    if (strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
        text[0] = '\0';
    }
    snprintf(out, TIMESTAMP_SIZE, "%s.%03uZ", text, (unsigned)(wall_ms % 1000));
    return out;
}

void entry_set_bytes(json_t *object, const char *name, const char *name64, struct span bytes)
{
    json_t *text = json_stringn(bytes.data != NULL ? bytes.data : "", bytes.len);
    if (text != NULL) {
        json_object_set_new(object, name, text);
        return;
    }
    size_t len = BASE64_LEN(bytes.len);
    char *digits = malloc(len + 1);
    if (digits != NULL) {
        base64_put(digits, bytes);
        json_object_set_new(object, name64, json_stringn(digits, len));
        free(digits);
    }
}

static bool has_entry(const struct ask *ask)
{
    return ask->reply.status == REPLY_VALUE || ask->reply.origin == ORIGIN_TOMBSTONE || ask->reply.origin == ORIGIN_LEASE ||
           ask->reply.origin == ORIGIN_LOCK ||
           (ask->reply.origin == ORIGIN_NEGATIVE && ask->kind == ASK_PEEK);
}

static bool has_version(const struct ask *ask)
{
    return ask->reply.cas != 0 && (has_entry(ask) || ask->kind == ASK_SET);
}

/* All that is known of the entry, as headers and as JSON. */
static json_t *describe(const struct admin_view *view, const struct ask *ask, struct http_response *response)
{
    const struct reply *reply = &ask->reply;
    const char *node = view->config->pool.nodes[ask->home].address.text;
    char timestamp[TIMESTAMP_SIZE];
    char version[24];
    json_t *entry = json_object();
    entry_set_bytes(entry, "key", "key64", span_of(ask->key, ask->key_len));
    http_response_header(response, "X-Outrigger-Namespace", "%s", ask->namespace->config->name);
    http_response_header(response, "X-Outrigger-Node", "%s", node);
    http_response_header(response, "X-Outrigger-Region", "%s", view->config->region);
    json_object_set_new(entry, "namespace", json_string(ask->namespace->config->name));
    json_object_set_new(entry, "node", json_string(node));
    json_object_set_new(entry, "region", json_string(view->config->region));
    if (ask->kind == ASK_GET || ask->kind == ASK_PEEK) {
        http_response_header(response, "X-Outrigger-State", "%s", origin_words[reply->origin]);
        json_object_set_new(entry, "state", json_string(origin_words[reply->origin]));
    }
    if (has_version(ask)) {
        snprintf(version, sizeof version, "%" PRIu64, reply->cas);
        http_response_header(response, "X-Outrigger-Version", "%s", version);
        json_object_set_new(entry, "version", json_string(version)); /* text: many readers of JSON know no 64 bits */
        if (version_ms(reply->cas) >= PLAUSIBLE_MS) {
            http_response_header(response, "X-Outrigger-Timestamp", "%s", entry_timestamp(version_ms(reply->cas), timestamp));
            json_object_set_new(entry, "timestamp", json_string(timestamp));
        }
    }
    if (has_entry(ask)) {
        http_response_header(response, "X-Outrigger-Ttl", "%" PRId64, reply->ttl);
        http_response_header(response, "X-Outrigger-Flags", "%" PRIu32, reply->flags);
        json_object_set_new(entry, "ttl", json_integer(reply->ttl));
        json_object_set_new(entry, "flags", json_integer(reply->flags));
    }
    return entry;
}

static void dump(json_t *json, struct http_response *response)
{
    response->content_type = "application/json";
    json_dumpf(json, response->body, WAIT_DUMP);
    fputc('\n', response->body);
}

static void finish_value(const struct ask *ask, json_t *entry, struct http_response *response)
{
    struct span value = ask->reply.value;
    if (ask->wants_json) {
        json_object_set_new(entry, "size", json_integer((json_int_t)value.len));
        entry_set_bytes(entry, "value", "value64", value);
        dump(entry, response);
        return;
    }
    response->content_type = "application/octet-stream";
    if (value.len > 0) {
        fwrite(value.data, 1, value.len, response->body);
    }
}

/* There is none, or it has no value: an error, beside all that is known. */
static void finish_absent(const struct ask *ask, json_t *entry, struct http_response *response)
{
    response->status = 404;
    bool is_read = ask->kind == ASK_GET || ask->kind == ASK_PEEK;
    json_t *error = json_pack("{s:s,s:s}", "code", "not_found", "message", is_read ? "the key has no value" : "there was no such key");
    json_t *body = json_pack("{s:o,s:O}", "error", error, "entry", entry);
    wait_write(ask->wait, body, response);
    dump(body, response);
    json_decref(body);
}

static void finish_done(const struct ask *ask, const char *result, json_t *entry, struct http_response *response)
{
    json_object_set_new(entry, "result", json_string(result));
    wait_write(ask->wait, entry, response);
    dump(entry, response);
}

/* memcached's words for an error become ours. */
static void finish_error(const struct ask *ask, struct http_response *response)
{
    static const struct span server_error = SPAN_LIT("SERVER_ERROR ");
    static const struct span client_error = SPAN_LIT("CLIENT_ERROR ");
    struct span text = ask->reply.text;
    bool is_clients = span_has_prefix(text, client_error);
    size_t skip = is_clients ? client_error.len : span_has_prefix(text, server_error) ? server_error.len : 0;
    char message[512];
    snprintf(message, sizeof message, "%.*s", (int)MIN(text.len - skip, sizeof message - 1), text.data + skip);
    http_response_error(response, is_clients ? 400 : 503, is_clients ? "refused" : "server_error", message);
}

void entry_finish(const struct admin_view *view, const struct ask *ask, struct http_response *response)
{
    if (ask->reply.status == REPLY_ERROR) {
        finish_error(ask, response);
        return;
    }
    json_t *entry = ask->namespace != NULL ? describe(view, ask, response) : json_object();
    switch (ask->reply.status) {
    case REPLY_VALUE: finish_value(ask, entry, response); break;
    case REPLY_MISS:
    case REPLY_NOT_FOUND: finish_absent(ask, entry, response); break;
    case REPLY_STORED: finish_done(ask, "stored", entry, response); break;
    case REPLY_DELETED: finish_done(ask, "deleted", entry, response); break;
    case REPLY_TOO_LARGE: http_response_error(response, 413, "too_large", "the value is too large for the cache"); break;
    case REPLY_NO_MEMORY: http_response_error(response, 503, "no_memory", "no memory for the value"); break;
    default: http_response_error(response, 409, "not_stored", "the cache did not store it"); break;
    }
    json_decref(entry);
}
