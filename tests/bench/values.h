/* What:    what the protocols' readers share: values by their known length, error lines, the end of a reply.
 * Owns:    nothing.
 * Threads: any; pure, no I/O.
 * Fails:   wrong bytes set the reply's `broken`.
 */
#ifndef BENCH_VALUES_H
#define BENCH_VALUES_H

#include "tests/bench/protocol.h"

#include <string.h>

/* data[0..len) is no reply to what was asked. Returns 0: nothing is taken. */
size_t reply_break(struct reply *reply, const char *data, size_t len);

void reply_fail(struct reply *reply, const char *text, size_t len);

/* Is this line, with its end, an error of the text protocols? Nothing else in them has a '_' among its first bytes. */
bool is_error_line(const char *line, size_t len);

/* A GET's reply is over: not more values than keys were asked for, and, if all are there, those. Sets done or broken. */
void reply_end_get(const struct request *request, struct reply *reply);

/* data[0..header_len) is a hit's header, found right, of the key with that tail; its body follows. Returns how much was taken, header
 * and body, and counts the value; 0: not enough there, or broken. Of a large body a piece will do: body_left is set then, and
 * body_continue() is what reads on. */
size_t value_take(const struct shape *shape, struct reply *reply, const char *data, size_t len, size_t header_len, uint64_t tail);
size_t body_continue(const struct shape *shape, struct reply *reply, const char *data, size_t len);

static inline uint64_t tail_before(const char *end)
{
    uint64_t tail;
    memcpy(&tail, end - KEY_TAIL, KEY_TAIL);
    return tail;
}

#endif
