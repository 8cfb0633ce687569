#include "tests/bench/values.h"

#include "common/base.h"

#define ENDS 8                /* bytes compared at both ends of a value */
#define PIECES_FROM (64 << 10) /* a body as long as this need not lie in the buffer as a whole */

size_t reply_break(struct reply *reply, const char *data, size_t len)
{
    reply->broken = true;
    reply->text = data;
    reply->text_len = len;
    return 0;
}

void reply_fail(struct reply *reply, const char *text, size_t len)
{
    reply->failed = true;
    reply->text = text;
    reply->text_len = len;
}

bool is_error_line(const char *line, size_t len)
{
    return (len >= 5 && memcmp(line, "ERROR", 5) == 0) || memchr(line, '_', MIN(len, 8U)) != NULL;
}

void reply_end_get(const struct request *request, struct reply *reply)
{
    static const char others[] = "values of other keys";
    if (reply->values > request->keys || (reply->values == request->keys && reply->tails != request->tails))
        reply_break(reply, others, sizeof(others) - 1);
    else
        reply->done = true;
}

static bool is_body_right(const struct shape *shape, const char *data)
{
    size_t size = shape->value_size, rest = shape->body_len - size;
    if (shape->check_all || size < 2 * ENDS)
        return memcmp(data, shape->value, shape->body_len) == 0;
    return memcmp(data, shape->value, ENDS) == 0 && memcmp(data + size - ENDS, shape->value + size - ENDS, ENDS + rest) == 0;
}

size_t body_continue(const struct shape *shape, struct reply *reply, const char *data, size_t len)
{
    size_t n = MIN(reply->body_left, len);
    if (memcmp(data, shape->value + shape->body_len - reply->body_left, n) != 0)
        return reply_break(reply, data, len);
    reply->body_left -= n;
    return n;
}

size_t value_take(const struct shape *shape, struct reply *reply, const char *data, size_t len, size_t header_len, uint64_t tail)
{
    size_t body = MIN(len - header_len, shape->body_len);
    if (body == shape->body_len) {
        if (!is_body_right(shape, data + header_len))
            return reply_break(reply, data, len);
    } else if (shape->body_len < PIECES_FROM) {
        return 0;
    } else {
        reply->body_left = shape->body_len;
        body_continue(shape, reply, data + header_len, body);
        if (reply->broken)
            return 0;
    }
    reply->tails ^= tail;
    reply->values++;
    return header_len + body;
}
