#include "proxy/bus/invalidation.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>

#include "common/glob.h"
#include "common/version.h"
#include "proxy/bus/invalidation_plain.h"

#define KEY64_MAX ((KEY_MAX + 2) / 3 * 4)
#define TIMESTAMP_MAX (VERSION_MAX >> VERSION_MS_SHIFT) /* the last millisecond that a version can name, in the year 2109 */

/* --- base64 (RFC 4648, padded, nothing lenient) --- */

static const char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static size_t base64_encode(struct span in, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < in.len; i += 3) {
        size_t left = in.len - i;
        uint32_t bits = (uint32_t)(uint8_t)in.data[i] << 16;
        bits |= left > 1 ? (uint32_t)(uint8_t)in.data[i + 1] << 8 : 0;
        bits |= left > 2 ? (uint32_t)(uint8_t)in.data[i + 2] : 0;
        out[n++] = base64_digits[bits >> 18];
        out[n++] = base64_digits[bits >> 12 & 63];
        out[n++] = left > 1 ? base64_digits[bits >> 6 & 63] : '=';
        out[n++] = left > 2 ? base64_digits[bits & 63] : '=';
    }
    return n;
}

static int base64_digit(char c)
{
    const char *at = c == '\0' ? NULL : strchr(base64_digits, c);
    return at == NULL ? -1 : (int)(at - base64_digits);
}

/* `out` has room for in.len / 4 * 3 bytes. Exactly one text stands for each string of bytes: unused bits must be zero. */
static bool base64_decode(struct span in, char *out, size_t *out_len)
{
    size_t n = 0;
    if (in.len == 0 || in.len % 4 != 0) {
        return false;
    }
    for (size_t i = 0; i < in.len; i += 4) {
        bool is_last = i + 4 == in.len;
        size_t digits = is_last && in.data[i + 3] == '=' ? (in.data[i + 2] == '=' ? 2 : 3) : 4;
        uint32_t bits = 0;
        for (size_t j = 0; j < digits; j++) {
            int digit = base64_digit(in.data[i + j]);
            if (digit < 0) {
                return false;
            }
            bits |= (uint32_t)digit << (18 - 6 * j);
        }
        for (size_t j = 0; j + 1 < digits; j++) {
            out[n++] = (char)(bits >> (16 - 8 * j));
        }
        if (digits < 4 && (bits & (digits == 2 ? 0xffff : 0xff)) != 0) {
            return false;
        }
    }
    *out_len = n;
    return true;
}

/* --- out --- */

/* Text that JSON can carry as it is; everything else goes as base64. */
static bool is_plain(struct span key)
{
    for (size_t i = 0; i < key.len; i++) {
        if ((uint8_t)key.data[i] < 0x20 || key.data[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

static json_t *encode_event(const struct invalidation *e)
{
    char version[24];
    snprintf(version, sizeof version, "%" PRIu64, e->version);
    struct span key = span_of(e->key, e->key_len);
    json_t *object = json_object();
    json_t *text = is_plain(key) ? json_stringn(key.data, key.len) : NULL; /* NULL, too, for what is not UTF-8 */
    const char *name = e->is_pattern ? (text == NULL ? "pattern64" : "pattern") : (text == NULL ? "key64" : "key");
    if (text == NULL) {
        char key64[KEY64_MAX];
        text = json_stringn_nocheck(key64, base64_encode(key, key64));
    }
    bool failed = json_object_set_new_nocheck(object, name, text) != 0;
    failed |= json_object_set_new_nocheck(object, "version", json_string_nocheck(version)) != 0;
    failed |= json_object_set_new_nocheck(object, "timestamp", json_integer((json_int_t)e->timestamp_ms)) != 0;
    if (failed) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static bool is_glob(struct span pattern)
{
    char why[64];
    return glob_check(pattern, why, sizeof why) == OK;
}

bool invalidation_is_valid(const struct invalidation *e)
{
    if (e->is_pattern && !is_glob(span_of(e->key, e->key_len))) {
        return false;
    }
    return e->key_len >= 1 && e->key_len <= KEY_MAX && e->version >= 1 && e->version <= VERSION_MAX && e->timestamp_ms >= 1 &&
           e->timestamp_ms <= TIMESTAMP_MAX;
}

enum err invalidation_encode_json(const char *region, const struct invalidation *const *events, uint32_t count, char **out, size_t *out_len)
{
    enum err err = ERR_NOMEM;
    json_t *root = json_object();
    json_t *array = json_array();
    bool failed = json_object_set_new_nocheck(root, "format", json_integer(INVALIDATION_FORMAT)) != 0;
    failed |= json_object_set_new(root, "region", json_string(region)) != 0;
    failed |= json_object_set_nocheck(root, "events", array) != 0;
    for (uint32_t i = 0; i < count && !failed; i++) {
        failed = json_array_append_new(array, encode_event(events[i])) != 0;
    }
    char *text = failed ? NULL : json_dumps(root, JSON_COMPACT);
    if (text == NULL) {
        goto out;
    }
    size_t len = strlen(text);
    if (len > INVALIDATION_MESSAGE_MAX) {
        free(text);
        err = ERR_TOO_LARGE;
        goto out;
    }
    *out = text;
    *out_len = len;
    err = OK;
out:
    json_decref(array);
    json_decref(root);
    return err;
}

enum err invalidation_encode(const char *region, const struct invalidation *const *events, uint32_t count, char **out,
                             size_t *out_len)
{
    *out = NULL;
    *out_len = 0;
    if (region[0] == '\0' || strlen(region) >= REGION_MAX || count == 0 || count > INVALIDATION_EVENTS_MAX) {
        return ERR_INVALID;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!invalidation_is_valid(events[i])) {
            return ERR_INVALID;
        }
    }
    return invalidation_plain_encode(region, events, count, out, out_len) ? OK : invalidation_encode_json(region, events, count, out, out_len);
}

/* --- in --- */

struct complaint {
    char *text;
    size_t size;
};

__attribute__((format(printf, 2, 3))) static enum err complain(struct complaint *c, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(c->text, c->size, fmt, args);
    va_end(args);
    return ERR_INVALID;
}

static enum err decode_key(const json_t *object, struct invalidation *event, struct complaint *c)
{
    static const char *const names[] = {"key", "key64", "pattern", "pattern64"};
    const json_t *given = NULL;
    size_t which = 0;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        const json_t *member = json_object_get(object, names[i]);
        if (member != NULL && given != NULL) {
            return complain(c, "an event has either %s or %s", names[which], names[i]);
        }
        which = member != NULL ? i : which;
        given = member != NULL ? member : given;
    }
    if (given == NULL) {
        return complain(c, "an event needs a key or a pattern");
    }
    bool is_plain_text = which % 2 == 0;
    event->is_pattern = which >= 2;
    if (!json_is_string(given)) {
        return complain(c, "a key is not a string");
    }
    struct span text = span_of(json_string_value(given), json_string_length(given));
    if (text.len == 0 || text.len > (is_plain_text ? KEY_MAX : KEY64_MAX)) {
        return complain(c, "a key of %zu bytes", text.len);
    }
    if (is_plain_text) {
        memcpy(event->key, text.data, text.len);
        event->key_len = (uint16_t)text.len;
        return OK;
    }
    char bytes[KEY64_MAX / 4 * 3];
    size_t len = 0;
    if (!base64_decode(text, bytes, &len)) {
        return complain(c, "key64 is not base64");
    }
    if (len > KEY_MAX) {
        return complain(c, "a key of %zu bytes", len);
    }
    memcpy(event->key, bytes, len);
    event->key_len = (uint16_t)len;
    return OK;
}

static bool parse_version(struct span text, uint64_t *out)
{
    uint64_t value = 0;
    if (text.len == 0 || text.len > 19 || text.data[0] == '0') { /* 2^63 - 1 has 19 digits, and 19 digits fit into 64 bits */
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *out = value;
    return value <= VERSION_MAX;
}

static enum err decode_event(const json_t *object, struct invalidation *event, struct complaint *c)
{
    memset(event, 0, sizeof *event);
    if (!json_is_object(object)) {
        return complain(c, "an event is not an object");
    }
    enum err err = decode_key(object, event, c);
    if (err != OK) {
        return err;
    }
    if (event->is_pattern && !is_glob(span_of(event->key, event->key_len))) {
        return complain(c, "what is given as a pattern is none");
    }
    const json_t *version = json_object_get(object, "version");
    if (!json_is_string(version) ||
        !parse_version(span_of(json_string_value(version), json_string_length(version)), &event->version)) {
        return complain(c, "version must be a string of digits, 1 to 2^63-1");
    }
    const json_t *timestamp = json_object_get(object, "timestamp");
    json_int_t ms = json_is_integer(timestamp) ? json_integer_value(timestamp) : 0;
    if (ms < 1 || (uint64_t)ms > TIMESTAMP_MAX) {
        return complain(c, "timestamp must be milliseconds since 1970");
    }
    event->timestamp_ms = (uint64_t)ms;
    return OK;
}

/* Whose message it is and whether we can read it at all; *events gets the array. */
static enum err decode_envelope(const json_t *root, const char *region, const json_t **events, struct complaint *c)
{
    if (!json_is_object(root)) {
        return complain(c, "not a JSON object");
    }
    const json_t *format = json_object_get(root, "format");
    if (!json_is_integer(format) || json_integer_value(format) < 1) {
        return complain(c, "no format number");
    }
    if (json_integer_value(format) > INVALIDATION_FORMAT) {
        complain(c, "format %" JSON_INTEGER_FORMAT ", and this version knows no later one than %d", json_integer_value(format),
                 INVALIDATION_FORMAT);
        return ERR_UNSUPPORTED;
    }
    const json_t *from = json_object_get(root, "region");
    if (!json_is_string(from)) {
        return complain(c, "no region");
    }
    if (region != NULL && !span_eq(span_of(json_string_value(from), json_string_length(from)), span_str(region))) {
        return complain(c, "another region's event, not one of %s", region);
    }
    *events = json_object_get(root, "events");
    if (!json_is_array(*events)) {
        return complain(c, "events is not an array");
    }
    if (json_array_size(*events) == 0 || json_array_size(*events) > INVALIDATION_EVENTS_MAX) {
        return complain(c, "%zu events", json_array_size(*events));
    }
    return OK;
}

enum err invalidation_decode_json(const char *region, struct span message, struct invalidation **events, uint32_t *count, char *error,
                                  size_t error_size)
{
    struct complaint c = {error, error_size};
    struct invalidation *decoded = NULL;
    *events = NULL;
    *count = 0;
    if (message.len > INVALIDATION_MESSAGE_MAX) {
        return complain(&c, "a message of %zu bytes", message.len);
    }
    json_error_t parse;
    json_t *root = json_loadb(message.data, message.len, JSON_REJECT_DUPLICATES, &parse);
    if (root == NULL) { /* parse.text quotes the input: not for a log */
        return complain(&c, "not JSON, at byte %d", parse.position);
    }
    const json_t *array = NULL;
    enum err err = decode_envelope(root, region, &array, &c);
    if (err != OK) {
        goto out;
    }
    size_t n = json_array_size(array);
    decoded = malloc(n * sizeof *decoded);
    if (decoded == NULL) {
        complain(&c, "%s", err_text(ERR_NOMEM));
        err = ERR_NOMEM;
        goto out;
    }
    for (size_t i = 0; i < n && err == OK; i++) {
        err = decode_event(json_array_get(array, i), &decoded[i], &c);
    }
    if (err == OK) {
        *events = decoded;
        *count = (uint32_t)n;
        decoded = NULL;
    }
out:
    free(decoded);
    json_decref(root);
    return err;
}

enum err invalidation_decode(const char *region, struct span message, struct invalidation **events, uint32_t *count, char *error,
                             size_t error_size)
{
    if (invalidation_plain_decode(region, message, events, count)) {
        return OK;
    }
    return invalidation_decode_json(region, message, events, count, error, error_size);
}

enum err invalidation_decode_rule(struct span message, struct invalidation *event, char region[static REGION_MAX], char *error,
                                  size_t error_size)
{
    struct complaint c = {error, error_size};
    json_error_t parse;
    json_t *root = message.len > INVALIDATION_MESSAGE_MAX ? NULL : json_loadb(message.data, message.len, JSON_REJECT_DUPLICATES, &parse);
    const json_t *array = NULL;
    enum err err = root == NULL ? complain(&c, "not JSON") : decode_envelope(root, NULL, &array, &c);
    if (err == OK && json_array_size(array) != 1) {
        err = complain(&c, "%zu events", json_array_size(array));
    }
    if (err == OK) {
        err = decode_event(json_array_get(array, 0), event, &c);
    }
    if (err == OK && !event->is_pattern) {
        err = complain(&c, "not a rule");
    }
    if (err == OK) {
        const char *from = json_string_value(json_object_get(root, "region"));
        size_t len = 0;
        for (; from[len] != '\0' && len + 1 < REGION_MAX; len++) { /* it ends up in logs and pages */
            region[len] = from[len] > ' ' && from[len] <= '~' && from[len] != '"' && from[len] != '\\' ? from[len] : '?';
        }
        region[len] = '\0';
    }
    json_decref(root);
    return err;
}
