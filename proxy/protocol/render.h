/* What:    what the text protocols append alike: a line, and a value behind its head.
 * Owns:    nothing.
 * Threads: one at a time; pure.
 * Fails:   ERR_NOMEM.
 */
#ifndef PROXY_PROTOCOL_RENDER_H
#define PROXY_PROTOCOL_RENDER_H

#include "common/buffer.h"
#include "proxy/protocol/reply.h"
#include "proxy/protocol/token.h"

#define RENDER_TAIL_MAX 8

static inline enum err render_line(struct chain *out, struct span text)
{
    enum err err = chain_append(out, text.data, text.len);
    return err != OK ? err : chain_append(out, "\r\n", 2);
}

/* Whether the value is copied behind its head rather than referenced. */
static inline bool render_copies(const struct reply *reply)
{
    return reply->chunk == NULL || reply->value.len < CHAIN_REF_MIN;
}

/* Commits a head that was written from `start` to `at`, the value, and tail_len bytes of the tail. What was reserved at `start` has room for
 * RENDER_TAIL_MAX more, and for a value that is copied. */
static inline enum err render_value(struct chain *out, const struct reply *reply, char *start, char *at, const char tail[RENDER_TAIL_MAX],
                                    size_t tail_len)
{
    struct span value = reply->value;
    if (likely(render_copies(reply))) {
        if (value.len > 0) {
            at = token_put(at, value.data, value.len);
        }
    } else {
        enum err err = chain_commit(out, (size_t)(at - start));
        if (err == OK) {
            err = chain_append_ref(out, reply->chunk, value.data, value.len);
        }
        start = err == OK ? chain_reserve(out, RENDER_TAIL_MAX) : NULL;
        if (start == NULL) {
            return ERR_NOMEM;
        }
        at = start;
    }
    memcpy(at, tail, RENDER_TAIL_MAX); /* all of it: a fixed length costs no call */
    return chain_commit(out, (size_t)(at + tail_len - start));
}

#endif
