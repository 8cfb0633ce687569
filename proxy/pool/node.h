/* What:    one memcached node as one worker sees it: a few pipelined connections, requests in order, replies in order, deadlines.
 * Owns:    its connections. A struct node_call is lent by the caller from a successful node_submit() until on_reply.
 * Threads: its loop's.
 * Fails:   node_submit() fails at once with ERR_UNAVAILABLE (not connected), ERR_OVERLOAD (max_pending) or ERR_INVALID (the key); afterwards
 *          on_reply comes exactly once, with OK and the reply, or with an error: ERR_TIMEOUT, ERR_TOO_LARGE (a value of more than
 *          max_value_size), what ended the connection (ERR_CLOSED, ERR_IO, ERR_PROTOCOL, ERR_NOMEM), or ERR_STOPPING.
 *
 *   node_submit: meta_write into the connection's output ──(end of the turn: one writev)──▶ memcached
 *                slot pushed on the FIFO
 *   readable:    meta_parse, slot popped ──▶ call->on_reply(OK, reply)
 *   tick:        a slot past its deadline: on_reply(ERR_TIMEOUT), the slot stays behind as nobody's, so that the late reply finds its
 *                place. When nothing at all has come for a whole timeout, the connection is given up and made anew.
 *
 *   connection:  DOWN ──retry──▶ RESOLVING ──▶ CONNECTING ──▶ GREETING (asks for the version) ──▶ UP ──▶ DOWN (back-off with jitter)
 */
#ifndef PROXY_POOL_NODE_H
#define PROXY_POOL_NODE_H

#include "common/config.h"
#include "common/log.h"
#include "proxy/metric.h"
#include "proxy/net/resolve.h"
#include "proxy/protocol/meta.h"

struct node_call {
    /* `reply` is NULL unless err is OK; its spans, and `chunk`, which they lie in, are good until on_reply returns: keep the value by
     * referencing the chunk or by copying. */
    void (*on_reply)(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk);
};

struct node;

/* What all nodes of a worker share; borrowed. */
struct node_context {
    const struct config *config;
    struct loop *loop;
    struct resolver *resolver;
    struct log *log;
    struct metrics_shard *metrics;
};

/* Starts connecting. `index`: in config.pool.nodes. */
struct node *node_create(const struct node_context *context, uint32_t index);
/* Ends what is under way with ERR_STOPPING. */
void node_destroy(struct node **node);

/* The value of a META_SET is `value`, with or without the "\r\n" that ends it; it is referenced in `chunk` when large and copied when small or without a chunk. */
enum err node_submit(struct node *node, const struct meta_request *request, struct span value, struct chunk *chunk, struct node_call *call);
/* A whole line of the classic protocol that is answered by one line (flush_all, version). */
enum err node_submit_line(struct node *node, struct span line, struct node_call *call);

/* `stats …`, one at a time: on_reply is called for every META_STAT, and a last time for whatever else comes or goes wrong. */
enum err node_submit_stats(struct node *node, struct span line, struct node_call *call);

const char *node_name(const struct node *node);
bool node_is_up(const struct node *node);
/* Whether it may have lost tombstones since so long ago: a connection to it was made since then, or node_rejuvenate() was called. */
bool node_is_young(const struct node *node, uint64_t age_us);
/* It has lost what it had in another way: it is as young as a new one (churn.c). */
void node_rejuvenate(struct node *node);
/* Whether this memcached lets us choose the CAS (≥ 1.6.28); false while it is not up. */
bool node_has_versions(const struct node *node);
/* What this memcached called itself when it was last connected to; "" before. */
const char *node_version(const struct node *node);
/* Every connection has been tried at least once: nothing is gained by waiting for it any longer. */
bool node_was_tried(const struct node *node);

#endif
