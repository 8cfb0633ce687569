/* What:    the meta protocol for the load generator, as clients use it:
 *            GET        mg KEY v f O<tail>         VA 1024 f0 O<tail>, or EN O<tail>
 *            multi-get  mg KEY v f k q, …, mn      VA 1024 f0 k<KEY> for each hit, MN
 *            SET        ms KEY 1024 O<tail>        HD O<tail>
 *          "meta-bare" leaves the opaque away: the fewest bytes, but whose value came back can not be told (all are alike).
 *
 * Values are skipped by their known length, as in classic.c. memcached gives flags back in the order they were asked for in.
 */
#include "common/base.h"
#include "tests/bench/values.h"

/* What tells hits apart, behind their common header. */
enum mark { MARK_NONE, MARK_OPAQUE, MARK_KEY };

static void prepare(struct shape *shape)
{
    shape->header_len = (size_t)snprintf(shape->header, sizeof(shape->header), "VA %zu f0", shape->value_size);
    shape->body_len = shape->value_size + 2;
}

static char *put(char *p, const char *text)
{
    size_t len = strlen(text);
    memcpy(p, text, len);
    return p + len;
}

static char *put_key(char *p, const struct shape *shape, uint32_t number)
{
    shape_key(shape, number, p);
    return p + shape->key_size;
}

/* " O" and the key's tail. */
static char *put_opaque(char *p, const char *key_end)
{
    p = put(p, " O");
    memcpy(p, key_end - KEY_TAIL, KEY_TAIL);
    return p + KEY_TAIL;
}

static size_t write_gets(const struct shape *shape, const uint32_t *numbers, size_t n, char *out, bool has_opaque)
{
    char *p = out;
    for (size_t i = 0; i < n; i++) {
        char *key_end = put_key(put(p, "mg "), shape, numbers[i]);
        p = put(key_end, n > 1 ? " v f k q" : " v f");
        if (n == 1 && has_opaque)
            p = put_opaque(p, key_end);
        p = put(p, "\r\n");
    }
    if (n > 1)
        p = put(p, "mn\r\n");
    return (size_t)(p - out);
}

static size_t write_get(const struct shape *shape, const uint32_t *numbers, size_t n, char *out)
{
    return write_gets(shape, numbers, n, out, true);
}

static size_t write_get_bare(const struct shape *shape, const uint32_t *numbers, size_t n, char *out)
{
    return write_gets(shape, numbers, n, out, false);
}

static size_t write_store(const struct shape *shape, uint32_t number, char *out, bool has_opaque)
{
    char *key_end = put_key(put(out, "ms "), shape, number);
    char *p = key_end + sprintf(key_end, " %zu", shape->value_size);
    if (has_opaque)
        p = put_opaque(p, key_end);
    return (size_t)(put(p, "\r\n") - out);
}

static size_t write_set(const struct shape *shape, uint32_t number, char *out)
{
    return write_store(shape, number, out, true);
}

static size_t write_set_bare(const struct shape *shape, uint32_t number, char *out)
{
    return write_store(shape, number, out, false);
}

/* The length of mark and line end at p, whose room the caller has checked; 0: they are wrong. */
static size_t check_mark(enum mark mark, size_t mark_len, const char *p)
{
    if (mark != MARK_NONE && (p[0] != ' ' || p[1] != (mark == MARK_KEY ? 'k' : 'O')))
        return 0;
    return memcmp(p + mark_len, "\r\n", 2) == 0 ? mark_len + 2 : 0;
}

/* As many values as are there. A single GET has no line behind its value. */
static size_t read_values(const struct shape *shape, const struct request *request, enum mark mark, struct reply *reply,
                          const char *data, size_t len)
{
    size_t mark_len = mark == MARK_KEY ? 2 + shape->key_size : mark == MARK_OPAQUE ? 2 + KEY_TAIL : 0;
    size_t header_len = shape->header_len + mark_len + 2;
    size_t at = 0;
    while (len - at >= header_len && data[at] == 'V') {
        const char *p = data + at;
        if (memcmp(p, shape->header, shape->header_len) != 0 || check_mark(mark, mark_len, p + shape->header_len) == 0)
            return reply_break(reply, p, len - at);
        uint64_t tail = mark == MARK_NONE ? request->tails : tail_before(p + header_len - 2);
        size_t n = value_take(shape, reply, p, len - at, header_len, tail);
        at += n;
        if (n == 0 || reply->body_left > 0 || request->keys == 1)
            break;
    }
    return at;
}

/* Is it the line with this code that closes the answer to a request for one key: "EN", "EN O<tail>"? */
static bool is_last_line(const struct request *request, enum mark mark, const char *code, const char *line, size_t len)
{
    if (len < 4 || memcmp(line, code, 2) != 0 || memcmp(line + len - 2, "\r\n", 2) != 0)
        return false;
    if (mark == MARK_NONE)
        return len == 4;
    return len == 6 + KEY_TAIL && memcmp(line + 2, " O", 2) == 0 && tail_before(line + len - 2) == request->tails;
}

static size_t read_line(const struct request *request, enum mark mark, struct reply *reply, const char *data, size_t len)
{
    const char *newline = memchr(data, '\n', len);
    if (newline == NULL)
        return len < 4096 ? 0 : reply_break(reply, data, len);
    size_t line_len = (size_t)(newline + 1 - data);
    bool is_get = request->kind == REQUEST_GET;
    bool is_end = mark == MARK_KEY ? line_len == 4 && memcmp(data, "MN\r\n", 4) == 0 : is_last_line(request, mark, "EN", data, line_len);
    if (is_get && is_end) {
        reply_end_get(request, reply);
        return line_len;
    }
    bool is_refused = !is_get && line_len >= 4 && data[0] == 'N'; /* NS, NF: not stored */
    bool is_unknown = memcmp(data, "ERROR", MIN(line_len, 5U)) == 0;
    if (is_unknown && request->keys > 1) /* then so is mn: there is no end to wait for */
        return reply_break(reply, data, len);
    if (!is_get && is_last_line(request, mark, "HD", data, line_len))
        reply->stored = true;
    else if (is_refused || is_error_line(data, line_len))
        reply_fail(reply, data, line_len);
    else
        return reply_break(reply, data, len);
    reply->done = request->keys == 1; /* one of several keys failed: the others, and MN, are to come */
    return line_len;
}

static size_t read_marked(const struct shape *shape, const struct request *request, enum mark mark, struct reply *reply,
                          const char *data, size_t len)
{
    size_t at = reply->body_left > 0 ? body_continue(shape, reply, data, len) : 0;
    size_t before = SIZE_MAX;
    while (!reply->broken && !reply->done && reply->body_left == 0 && at != before) {
        before = at;
        if (request->keys == 1 && reply->values == 1)
            reply_end_get(request, reply);
        else if (at < len && request->kind == REQUEST_GET && data[at] == 'V')
            at += read_values(shape, request, mark, reply, data + at, len - at);
        else if (at < len)
            at += read_line(request, mark, reply, data + at, len - at);
    }
    return at;
}

static size_t read_reply(const struct shape *shape, const struct request *request, struct reply *reply, const char *data, size_t len)
{
    bool is_multi = request->keys > 1;
    return read_marked(shape, request, is_multi ? MARK_KEY : MARK_OPAQUE, reply, data, len);
}

static size_t read_bare(const struct shape *shape, const struct request *request, struct reply *reply, const char *data, size_t len)
{
    bool is_multi = request->keys > 1;
    return read_marked(shape, request, is_multi ? MARK_KEY : MARK_NONE, reply, data, len);
}

const struct protocol protocol_meta = {
    .name = "meta",
    .prepare = prepare,
    .write_get = write_get,
    .write_set = write_set,
    .read = read_reply,
};

const struct protocol protocol_meta_bare = {
    .name = "meta-bare",
    .prepare = prepare,
    .write_get = write_get_bare,
    .write_set = write_set_bare,
    .read = read_bare,
};
