/* What:    the binary protocol for the load generator, as clients use it:
 *            GET        GET, with an opaque        its value without the key, or "not found"
 *            multi-get  GETKQ of each key, NOOP    the hits with their keys, the NOOP's answer
 *            SET        SET, with an opaque        an empty answer
 *          A key's number is its opaque.
 *
 * Values are skipped by their known length, as in classic.c: a hit's header up to its opaque is the same for all.
 */
#include "common/base.h"
#include "tests/bench/values.h"

#define HEADER 24
#define COMMON 12 /* of a header: magic, opcode, lengths, status, all in front of the opaque */
#define ANSWER_MAX 4096

enum opcode { OPCODE_GET = 0x00, OPCODE_SET = 0x01, OPCODE_NOOP = 0x0a, OPCODE_GETKQ = 0x0d };

enum status { STATUS_NONE = 0, STATUS_NOT_FOUND = 1 };

static void put16(char *p, size_t n)
{
    p[0] = (char)(n >> 8);
    p[1] = (char)n;
}

static void put32(char *p, size_t n)
{
    put16(p, n >> 16);
    put16(p + 2, n);
}

static size_t get16(const char *p)
{
    return (size_t)(unsigned char)p[0] << 8 | (unsigned char)p[1];
}

static size_t get32(const char *p)
{
    return get16(p) << 16 | get16(p + 2);
}

/* The first COMMON bytes. */
static void put_common(char *p, int magic, enum opcode opcode, size_t key_len, size_t extras_len, size_t value_len)
{
    memset(p, 0, COMMON);
    p[0] = (char)magic;
    p[1] = (char)opcode;
    put16(p + 2, key_len);
    p[4] = (char)extras_len;
    put32(p + 8, extras_len + key_len + value_len);
}

static char *put_request(char *p, enum opcode opcode, size_t key_len, size_t extras_len, size_t value_len, uint32_t opaque)
{
    memset(p, 0, HEADER + extras_len);
    put_common(p, 0x80, opcode, key_len, extras_len, value_len);
    put32(p + COMMON, opaque);
    return p + HEADER + extras_len;
}

/* Two common parts: a GET's, then a GETKQ's. */
static void prepare(struct shape *shape)
{
    put_common(shape->header, 0x81, OPCODE_GET, 0, 4, shape->value_size);
    put_common(shape->header + COMMON, 0x81, OPCODE_GETKQ, shape->key_size, 4, shape->value_size);
    shape->header_len = (size_t)2 * COMMON;
    shape->body_len = shape->value_size;
}

static size_t write_get(const struct shape *shape, const uint32_t *numbers, size_t n, char *out)
{
    char *p = out;
    for (size_t i = 0; i < n; i++) {
        p = put_request(p, n > 1 ? OPCODE_GETKQ : OPCODE_GET, shape->key_size, 0, 0, numbers[i]);
        shape_key(shape, numbers[i], p);
        p += shape->key_size;
    }
    if (n > 1)
        p = put_request(p, OPCODE_NOOP, 0, 0, 0, numbers[n - 1]);
    return (size_t)(p - out);
}

static size_t write_set(const struct shape *shape, uint32_t number, char *out)
{
    char *key = put_request(out, OPCODE_SET, shape->key_size, 8, shape->value_size, number);
    shape_key(shape, number, key);
    return (size_t)(key + shape->key_size - out);
}

/* As many values as are there. */
static size_t read_values(const struct shape *shape, const struct request *request, struct reply *reply, const char *data, size_t len)
{
    bool is_single = request->keys == 1;
    const char *common = shape->header + (is_single ? 0 : COMMON);
    size_t header_len = HEADER + 4 + (is_single ? 0 : shape->key_size);
    size_t at = 0;
    while (len - at >= header_len && memcmp(data + at, common, COMMON) == 0) {
        const char *p = data + at;
        if (memcmp(p + HEADER, "\0\0\0", 4) != 0) /* flags */
            return reply_break(reply, p, len - at);
        size_t n = value_take(shape, reply, p, len - at, header_len, is_single ? request->tails : tail_before(p + header_len));
        at += n;
        if (n == 0 || reply->body_left > 0 || is_single)
            break;
    }
    return at;
}

static bool is_opaque_right(const struct request *request, const char *data)
{
    size_t last = request->keys > 1 ? request->len - HEADER : 0; /* of a multi-get's requests: the NOOP */
    return memcmp(data + COMMON, request->text + last + COMMON, 4) == 0;
}

static size_t refuse_opaque(struct reply *reply)
{
    static const char text[] = "the opaque of another request";
    return reply_break(reply, text, sizeof(text) - 1);
}

static void take_error(struct reply *reply, size_t status, const char *text, size_t len)
{
    static const struct {
        size_t status;
        const char *text;
    } silent[] = {{STATUS_NOT_FOUND, "not found"}, {0x02, "exists"}, {0x03, "too large"}, {0x05, "not stored"},
                  {0x20, "authentication required"}, {0x81, "unknown command"}, {0x82, "out of memory"}};
    if (len == 0)
        text = "an error without a text";
    for (size_t i = 0; i < ARRAY_LEN(silent) && len == 0; i++) {
        if (silent[i].status == status)
            text = silent[i].text;
    }
    reply_fail(reply, text, len != 0 ? len : strlen(text));
}

/* An answer that is not a hit. */
static size_t read_answer(const struct request *request, struct reply *reply, const char *data, size_t len)
{
    size_t body_len = get32(data + 8), whole = HEADER + body_len, status = get16(data + 6);
    size_t text_at = HEADER + (unsigned char)data[4] + get16(data + 2);
    bool is_multi = request->keys > 1, is_get = request->kind == REQUEST_GET;
    int opcode = (unsigned char)data[1], last = is_multi ? OPCODE_NOOP : is_get ? OPCODE_GET : OPCODE_SET;
    bool is_quiet_error = is_multi && opcode == OPCODE_GETKQ && status > STATUS_NOT_FOUND;
    if (body_len > ANSWER_MAX || text_at > whole || (opcode != last && !is_quiet_error))
        return reply_break(reply, data, len);
    if (len < whole)
        return 0;
    if (is_multi && !is_quiet_error && !is_opaque_right(request, data))
        return refuse_opaque(reply);
    bool is_miss = is_get && !is_multi && status == STATUS_NOT_FOUND;
    if (status != STATUS_NONE && !is_miss) {
        take_error(reply, status, data + text_at, whole - text_at);
        reply->done = !is_quiet_error;
    } else if (is_get && !is_multi && !is_miss) { /* a hit, unlike all that were stored */
        return reply_break(reply, data, len);
    } else if (is_get) {
        reply_end_get(request, reply);
    } else {
        reply->done = reply->stored = true;
    }
    return whole;
}

static size_t read_reply(const struct shape *shape, const struct request *request, struct reply *reply, const char *data, size_t len)
{
    size_t at = reply->body_left > 0 ? body_continue(shape, reply, data, len) : 0;
    bool is_get = request->kind == REQUEST_GET, is_single = request->keys == 1;
    size_t before = SIZE_MAX;
    while (!reply->broken && !reply->done && reply->body_left == 0 && at != before) {
        const char *p = data + at;
        before = at;
        if (is_single && reply->values == 1) {
            reply_end_get(request, reply);
            break;
        }
        if (at < len && (unsigned char)*p != 0x81)
            return reply_break(reply, p, len - at);
        if (len - at < HEADER)
            break;
        if (is_single && !is_opaque_right(request, p))
            return refuse_opaque(reply);
        bool is_hit = is_get && memcmp(p, shape->header + (is_single ? 0 : COMMON), COMMON) == 0;
        at += is_hit ? read_values(shape, request, reply, p, len - at) : read_answer(request, reply, p, len - at);
    }
    return at;
}

const struct protocol protocol_binary = {
    .name = "binary",
    .prepare = prepare,
    .write_get = write_get,
    .write_set = write_set,
    .read = read_reply,
};
