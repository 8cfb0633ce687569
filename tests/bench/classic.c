/* What:    the classic text protocol for the load generator.
 *
 * A hit's length is known beforehand, so a value is skipped rather than scanned: its header, its two ends and its line end are
 * compared, and the keys' tails are xor-ed, which holds whatever order a proxy answers a multi-get in.
 */
#include "tests/bench/protocol.h"

#include <stdio.h>
#include <string.h>

#define ENDS 8 /* bytes compared at both ends of a value */

static void prepare(struct shape *shape)
{
    shape->header_len = (size_t)snprintf(shape->header, sizeof(shape->header), " 0 %zu\r\n", shape->value_size);
}

static size_t write_get(const struct shape *shape, const uint32_t *numbers, size_t n, char *out)
{
    char *p = out;
    memcpy(p, "get", 3);
    p += 3;
    for (size_t i = 0; i < n; i++) {
        *p++ = ' ';
        shape_key(shape, numbers[i], p);
        p += shape->key_size;
    }
    memcpy(p, "\r\n", 2);
    return (size_t)(p + 2 - out);
}

static size_t write_set(const struct shape *shape, uint32_t number, char *out)
{
    memcpy(out, "set ", 4);
    shape_key(shape, number, out + 4);
    return 4 + shape->key_size + (size_t)sprintf(out + 4 + shape->key_size, " 0 0 %zu\r\n", shape->value_size);
}

static size_t write_body(const struct shape *shape, char *out)
{
    memcpy(out, shape->value, shape->value_size);
    memcpy(out + shape->value_size, "\r\n", 2);
    return shape->value_size + 2;
}

static bool is_value_right(const struct shape *shape, const char *data)
{
    size_t size = shape->value_size;
    if (memcmp(data + size, "\r\n", 2) != 0)
        return false;
    if (shape->check_all || size < 2 * ENDS)
        return memcmp(data, shape->value, size) == 0;
    return memcmp(data, shape->value, ENDS) == 0 && memcmp(data + size - ENDS, shape->value + size - ENDS, ENDS) == 0;
}

static size_t break_off(struct reply *reply, const char *data, size_t len)
{
    reply->broken = true;
    reply->text = data;
    reply->text_len = len;
    return 0;
}

/* As many whole values as are there. */
static size_t read_values(const struct shape *shape, struct reply *reply, const char *data, size_t len)
{
    size_t header_len = 6 + shape->key_size + shape->header_len;
    size_t whole = header_len + shape->value_size + 2;
    size_t at = 0;
    while (len - at >= whole && data[at] == 'V') {
        const char *p = data + at;
        const char *key_end = p + 6 + shape->key_size;
        if (memcmp(p, "VALUE ", 6) != 0 || memcmp(key_end, shape->header, shape->header_len) != 0 ||
            !is_value_right(shape, p + header_len))
            return break_off(reply, p, len - at);
        uint64_t tail;
        memcpy(&tail, key_end - KEY_TAIL, KEY_TAIL);
        reply->tails ^= tail;
        reply->values++;
        at += whole;
    }
    return at;
}

static size_t read_line(const struct request *request, struct reply *reply, const char *data, size_t len)
{
    const char *newline = memchr(data, '\n', len);
    if (newline == NULL)
        return len < 4096 ? 0 : break_off(reply, data, len);
    size_t line_len = (size_t)(newline + 1 - data);
    bool is_get = request->kind == REQUEST_GET;
    reply->done = true;
    if (is_get && line_len == 5 && memcmp(data, "END\r\n", 5) == 0) {
        if (reply->values > request->keys || (reply->values == request->keys && reply->tails != request->tails))
            return break_off(reply, "values of other keys", 20);
    } else if (!is_get && line_len == 8 && memcmp(data, "STORED\r\n", 8) == 0) {
        reply->stored = true;
    } else if (memcmp(data, "ERROR", 5 < line_len ? 5 : line_len) == 0 || memchr(data, '_', 8 < line_len ? 8 : line_len) != NULL) {
        reply->failed = true; /* ERROR, CLIENT_ERROR …, SERVER_ERROR …, NOT_STORED */
        reply->text = data;
        reply->text_len = line_len;
    } else {
        return break_off(reply, data, len);
    }
    return line_len;
}

static size_t read_reply(const struct shape *shape, const struct request *request, struct reply *reply, const char *data, size_t len)
{
    size_t at = 0;
    if (request->kind == REQUEST_GET && len > 0 && data[0] == 'V')
        at = read_values(shape, reply, data, len);
    if (at < len && data[at] != 'V' && !reply->broken)
        at += read_line(request, reply, data + at, len - at);
    return at;
}

const struct protocol protocol_classic = {
    .name = "classic",
    .prepare = prepare,
    .write_get = write_get,
    .write_set = write_set,
    .write_body = write_body,
    .read = read_reply,
};
