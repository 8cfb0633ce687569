#include "proxy/bus/invalidation_plain.h"

#include <assert.h>

#include "common/version.h"

#define HEAD "{\"format\":1,\"region\":\""
#define FIRST "\",\"events\":["
#define KEY "{\"key\":\""
#define VERSION "\",\"version\":\""
#define TIMESTAMP "\",\"timestamp\":"
#define EVENT_MAX (2 * KEY_MAX + sizeof KEY VERSION TIMESTAMP "}," + 2 * DIGITS_MAX)
#define DIGITS_MAX 19 /* of numbers up to VERSION_MAX */

static_assert(INVALIDATION_FORMAT == 1, "HEAD names the format");

/* --- out --- */

struct writer {
    char *at;
};

static void put(struct writer *w, const char *text, size_t len)
{
    memcpy(w->at, text, len);
    w->at += len;
}

#define PUT(w, literal) put(w, literal, sizeof(literal) - 1)

static void put_number(struct writer *w, uint64_t value)
{
    char digits[DIGITS_MAX + 1];
    size_t i = sizeof digits;
    do {
        digits[--i] = (char)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    put(w, digits + i, sizeof digits - i);
}

static bool is_printable(char c)
{
    return c >= ' ' && c <= '~';
}

static bool is_escaped(char c)
{
    return c == '"' || c == '\\';
}

/* False if a byte is none of ours; what has been written by then is thrown away. */
static bool put_key(struct writer *w, const char *key, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!is_printable(key[i])) {
            return false;
        }
        if (is_escaped(key[i])) {
            *w->at++ = '\\';
        }
        *w->at++ = key[i];
    }
    return true;
}

static bool is_simple(struct span region)
{
    for (size_t i = 0; i < region.len; i++) {
        if (!is_printable(region.data[i]) || is_escaped(region.data[i])) {
            return false;
        }
    }
    return true;
}

bool invalidation_plain_encode(const char *region, const struct invalidation *const *events, uint32_t count, char **out, size_t *out_len)
{
    struct span name = span_str(region);
    size_t size = sizeof HEAD FIRST "]}" + name.len;
    for (uint32_t i = 0; i < count; i++) {
        if (events[i]->is_pattern) {
            return false;
        }
        size += EVENT_MAX - 2 * (KEY_MAX - (size_t)events[i]->key_len);
    }
    char *text = is_simple(name) ? malloc(size) : NULL;
    if (text == NULL) {
        return false;
    }
    struct writer w = {text};
    PUT(&w, HEAD);
    put(&w, name.data, name.len);
    PUT(&w, FIRST);
    for (uint32_t i = 0; i < count; i++) {
        PUT(&w, KEY);
        if (!put_key(&w, events[i]->key, events[i]->key_len)) {
            free(text);
            return false;
        }
        PUT(&w, VERSION);
        put_number(&w, events[i]->version);
        PUT(&w, TIMESTAMP);
        put_number(&w, events[i]->timestamp_ms);
        PUT(&w, "},");
    }
    w.at--; /* the last comma */
    PUT(&w, "]}");
    size_t len = (size_t)(w.at - text);
    if (len > INVALIDATION_MESSAGE_MAX) {
        free(text);
        return false;
    }
    *out = text;
    *out_len = len;
    return true;
}

/* --- in --- */

struct reader {
    const char *at;
    const char *end;
};

static bool take(struct reader *r, const char *text, size_t len)
{
    if ((size_t)(r->end - r->at) < len || memcmp(r->at, text, len) != 0) {
        return false;
    }
    r->at += len;
    return true;
}

#define TAKE(r, literal) take(r, literal, sizeof(literal) - 1)

/* 1 to `max`, without leading zeros. */
static bool take_number(struct reader *r, uint64_t max, uint64_t *out)
{
    const char *begin = r->at;
    uint64_t value = 0;
    while (r->at < r->end && *r->at >= '0' && *r->at <= '9' && r->at - begin < DIGITS_MAX) {
        value = value * 10 + (uint64_t)(*r->at++ - '0');
    }
    *out = value;
    return r->at > begin && *begin != '0' && value <= max;
}

/* Up to its closing quote, which stays. */
static bool take_key(struct reader *r, struct invalidation *event)
{
    size_t len = 0;
    for (; r->at < r->end && *r->at != '"'; r->at++) {
        if (*r->at == '\\' && (++r->at == r->end || !is_escaped(*r->at))) {
            return false;
        }
        if (len == KEY_MAX || !is_printable(*r->at)) {
            return false;
        }
        event->key[len++] = *r->at;
    }
    event->key_len = (uint16_t)len;
    return len > 0;
}

static bool take_event(struct reader *r, struct invalidation *event)
{
    memset(event, 0, sizeof *event);
    return TAKE(r, KEY) && take_key(r, event) && TAKE(r, VERSION) && take_number(r, VERSION_MAX, &event->version) && TAKE(r, TIMESTAMP) &&
           take_number(r, VERSION_MAX >> VERSION_MS_SHIFT, &event->timestamp_ms) && TAKE(r, "}");
}

/* At least as many as there are events. */
static size_t count_ends(struct span message)
{
    size_t count = 0;
    const char *end = message.data + message.len;
    for (const char *at = message.data; (at = memchr(at, '}', (size_t)(end - at))) != NULL; at++) {
        count++;
    }
    return count;
}

bool invalidation_plain_decode(const char *region, struct span message, struct invalidation **events, uint32_t *count)
{
    struct span name = span_str(region);
    struct reader r = {message.data, message.data + message.len};
    if (message.len > INVALIDATION_MESSAGE_MAX || !is_simple(name) || !TAKE(&r, HEAD) || !take(&r, name.data, name.len) || !TAKE(&r, FIRST)) {
        return false;
    }
    size_t room = MIN(count_ends(message), (size_t)INVALIDATION_EVENTS_MAX);
    struct invalidation *decoded = room > 0 ? malloc(room * sizeof *decoded) : NULL;
    uint32_t n = 0;
    bool is_good = decoded != NULL;
    do {
        is_good = is_good && n < room && take_event(&r, &decoded[n]);
        n++;
    } while (is_good && TAKE(&r, ","));
    if (!is_good || !TAKE(&r, "]}") || r.at != r.end) {
        free(decoded);
        return false;
    }
    *events = decoded;
    *count = n;
    return true;
}
