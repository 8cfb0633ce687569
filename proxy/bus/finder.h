/* What:    finds the stream of a bucket of this region, or has it made. Says what to ask, and what an answer means; asking is its user's.
 * Owns:    nothing beyond the caller's struct; a question's body is the caller's to free().
 * Threads: the bus's thread.
 * Fails:   never for good: FINDER_REFUSED is asked again later, from the beginning.
 *
 *   STREAM.INFO ──there──▶ FINDER_THERE
 *        └──not found──▶ FINDER_AGAIN: STREAM.CREATE ──▶ FINDER_THERE
 *                                          └── it is there with other settings ──▶ FINDER_LATER: STREAM.INFO; it is used as it is
 *
 * A bucket is used only after FINDER_THERE, once for each connection: nats-server (2.9.10, by itself) has a stream in its list before it has a store,
 * and a STREAM.MSG.GET in between is the end of the whole server. See JETSTREAM_IN_THE_MAKING.
 */
#ifndef PROXY_BUS_FINDER_H
#define PROXY_BUS_FINDER_H

#include "proxy/bus/jetstream.h"

enum finder_result {
    FINDER_THERE,
    FINDER_AGAIN, /* ask the next question now */
    FINDER_LATER, /* … in a while; nothing is wrong */
    FINDER_REFUSED,
};

struct finder {
    const char *stream; /* KV_<bucket>; the caller's */
    const struct config_bus *config;
    bool is_creating; /* what is being asked */
};

/* From the beginning. */
void finder_restart(struct finder *finder);
/* The verb of the question that is to be asked, or has been. */
const char *finder_verb(const struct finder *finder);
/* The question's body. NULL without memory. */
char *finder_body(const struct finder *finder);
enum finder_result finder_on_answer(struct finder *finder, enum err err, const struct answer *answer);

#endif
