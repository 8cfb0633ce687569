/* What:    the classic text protocol for the load generator.
 *
 * A hit's length is known beforehand, so a value is skipped rather than scanned: its header, its two ends and its line end are
 * compared, and the keys' tails are xor-ed, which holds whatever order a proxy answers a multi-get in.
 */
#include "common/base.h"
#include "tests/bench/values.h"

static void prepare(struct shape *shape)
{
    shape->header_len = (size_t)snprintf(shape->header, sizeof(shape->header), " 0 %zu\r\n", shape->value_size);
    shape->body_len = shape->value_size + 2;
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

/* As many values as are there. */
static size_t read_values(const struct shape *shape, struct reply *reply, const char *data, size_t len)
{
    size_t header_len = 6 + shape->key_size + shape->header_len;
    size_t at = 0;
    while (len - at >= header_len && data[at] == 'V') {
        const char *p = data + at;
        const char *key_end = p + 6 + shape->key_size;
        if (memcmp(p, "VALUE ", 6) != 0 || memcmp(key_end, shape->header, shape->header_len) != 0)
            return reply_break(reply, p, len - at);
        size_t n = value_take(shape, reply, p, len - at, header_len, tail_before(key_end));
        at += n;
        if (n == 0 || reply->body_left > 0)
            break;
    }
    return at;
}

static size_t read_line(const struct request *request, struct reply *reply, const char *data, size_t len)
{
    const char *newline = memchr(data, '\n', len);
    if (newline == NULL)
        return len < 4096 ? 0 : reply_break(reply, data, len);
    size_t line_len = (size_t)(newline + 1 - data);
    bool is_get = request->kind == REQUEST_GET;
    if (is_get && line_len == 5 && memcmp(data, "END\r\n", 5) == 0) {
        reply_end_get(request, reply);
        return line_len;
    }
    reply->done = true;
    if (!is_get && line_len == 8 && memcmp(data, "STORED\r\n", 8) == 0)
        reply->stored = true;
    else if (is_error_line(data, line_len)) /* ERROR, CLIENT_ERROR …, SERVER_ERROR …, NOT_STORED */
        reply_fail(reply, data, line_len);
    else
        return reply_break(reply, data, len);
    return line_len;
}

static size_t read_reply(const struct shape *shape, const struct request *request, struct reply *reply, const char *data, size_t len)
{
    size_t at = reply->body_left > 0 ? body_continue(shape, reply, data, len) : 0;
    if (reply->broken || reply->body_left > 0)
        return at;
    if (request->kind == REQUEST_GET && at < len && data[at] == 'V')
        at += read_values(shape, reply, data + at, len - at);
    if (at < len && data[at] != 'V' && !reply->broken && reply->body_left == 0)
        at += read_line(request, reply, data + at, len - at);
    return at;
}

const struct protocol protocol_classic = {
    .name = "classic",
    .prepare = prepare,
    .write_get = write_get,
    .write_set = write_set,
    .read = read_reply,
};
