/* What:    sees to it that this region's durable consumer exists on a peer's stream, begins where it should, and drops nothing.
 * Owns:    struct durable is the consumer's; it borrows transport and log.
 * Threads: the bus's thread.
 * Fails:   never for good: it tries again, and durable_problem() says what is in the way.
 *
 *   down ──on_up──▶ looking ──not there──▶ (waiting for the cursor, a moment) ──▶ creating ──┐
 *    ▲                │ └──settings differ──▶ updating ──────────────────────────────────────┤
 *    └──on_down── any └──────── as it should be ─────────────────────────────────────────────┴──▶ ready
 *                     a refusal, silence, or settings that drop events: ──▶ waiting ──retry──▶ looking;  durable_remake: deleting ──▶ looking
 *
 * One that has vanished begins again behind what this region has applied, as its cursor says (cursor.h); without one, at the first message there is.
 */
#ifndef PROXY_BUS_DURABLE_H
#define PROXY_BUS_DURABLE_H

#include "common/log.h"
#include "proxy/bus/backoff.h"
#include "proxy/bus/jetstream.h"
#include "proxy/bus/settings.h"
#include "proxy/metric.h"

enum durable_state { DURABLE_DOWN, DURABLE_LOOKING, DURABLE_CREATING, DURABLE_UPDATING, DURABLE_DELETING, DURABLE_WAITING, DURABLE_READY };

struct durable {
    struct transport *transport;
    struct log *log;
    struct metrics_shard *metrics;
    const char *own_region;
    const struct config_peer *peer;
    uint32_t ack_wait_ms;
    char stream[NAME_MAX_LEN];
    char name[NAME_MAX_LEN];

    enum durable_state state;
    uint64_t request; /* number of the request under way; answers to others are late */
    uint64_t due_us;
    struct backoff backoff;
    bool no_stream;     /* nobody has created the peer's stream yet: nothing to miss */
    bool has_cursor;    /* somebody will call durable_start_at() */
    bool wants_start;   /* … and is waited for, until wait_us */
    uint64_t wait_us;
    uint64_t start_seq; /* where a new one begins; 0: not known */
    char drops[SETTINGS_TEXT]; /* what is wrong with the one that is being updated; "": nothing that matters */
    char problem[512];
};

void durable_init(struct durable *durable, const struct config *config, struct transport *transport, struct log *log,
                  struct metrics_shard *metrics, uint32_t index, uint64_t seed);

void durable_on_up(struct durable *durable, uint64_t now_us);
void durable_on_down(struct durable *durable);
/* An answer to "<inbox>.c.<request>". */
void durable_on_answer(struct durable *durable, uint64_t request, const struct incoming *message, uint64_t now_us);
/* It is gone, or nothing is heard of it: looks again, after a pause if `problem` is set. */
void durable_look_again(struct durable *durable, const char *problem, uint64_t now_us);
/* What is before `seq` has been applied, or is covered by a rule. */
void durable_start_at(struct durable *durable, uint64_t seq, uint64_t now_us);
/* It begins behind what has not been applied: it is deleted, and made anew. */
void durable_remake(struct durable *durable, uint64_t now_us);
/* Does what is due; returns when to call again (UINT64_MAX: not before something happens). */
uint64_t durable_step(struct durable *durable, uint64_t now_us);

/* NULL while it is ready, or while there is no stream. */
const char *durable_problem(const struct durable *durable);

#endif
