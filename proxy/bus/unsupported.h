/* What:    what becomes of messages that are newer than this version of the sidecar: they are given back for a newer one to apply, and looked at again
 *          every UNSUPPORTED_WINDOW. When there are too many, so that they would fill max_ack_pending and nothing else came through, the rest is covered
 *          by a rule `*` (whatever they invalidate, it is gone then) and acknowledged: slow for a while, never wrong.
 * Owns:    struct unsupported is the consumer's; it owns the acknowledgements that wait for the rule.
 * Threads: the bus's thread.
 * Fails:   what could not be covered is given back, and delivered again.
 */
#ifndef PROXY_BUS_UNSUPPORTED_H
#define PROXY_BUS_UNSUPPORTED_H

#include "common/list.h"
#include "common/log.h"
#include "proxy/bus/bus.h"
#include "proxy/bus/transport.h"

/* 4 relays hold up to twice this at a time: two thirds of max_ack_pending. */
#define UNSUPPORTED_HELD_MAX 1600
#define UNSUPPORTED_WINDOW_MS 60000
#define UNSUPPORTED_COVERED_MAX 20000
#define UNSUPPORTED_PAUSE_US 1000000ULL /* from one rule to the next */

struct unsupported {
    struct transport *transport;
    struct log *log;
    struct metrics_shard *metrics;
    struct mailbox *mailbox;
    struct bus_sink sink;
    const char *region;
    uint32_t index; /* of the peer */

    uint64_t window_us; /* when the current one began */
    uint32_t held;      /* given back in it */

    struct list waiting;  /* for the next rule */
    struct list covering; /* for the one at the sink */
    uint32_t count;       /* of both */
    uint64_t due_us;      /* of the next rule */
    bool is_applying;
    struct delivery rule;
};

void unsupported_init(struct unsupported *unsupported, struct transport *transport, struct log *log, struct metrics_shard *metrics,
                      struct mailbox *mailbox, struct bus_sink sink, const char *region, uint32_t index);
void unsupported_deinit(struct unsupported *unsupported);

/* A message, by where it is acknowledged; `why` it is not understood. */
void unsupported_take(struct unsupported *unsupported, const char *reply, const char *why, uint64_t now_us);
/* The stream may be another from now on: what came so far is acknowledged by nobody, and delivered again if it is the same. */
void unsupported_forget(struct unsupported *unsupported);
/* Does what is due; returns when to call again (UINT64_MAX: not before something happens). */
uint64_t unsupported_step(struct unsupported *unsupported, uint64_t now_us);

#endif
