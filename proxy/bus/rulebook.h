/* What:    the region's record of rules: the bucket RULES_<region> of its NATS, one entry for each rule. Puts entries in and takes them out for
 *          this sidecar, and tells the sink of all that is in it and of every change, whoever made it.
 * Owns:    struct rulebook is the bus's; records are lent to it from rulebook_submit() until on_done.
 * Threads: the bus's thread. on_done runs where the record's reply_to is drained.
 * Fails:   a record ends with ERR_UNAVAILABLE (not connected), ERR_TIMEOUT (publish_timeout; it may yet get into the bucket: harmless, an
 *          invalidation too many), ERR_BUS (refused), ERR_OVERLOAD or ERR_STOPPING. The watch never fails for good.
 *
 *   down ──on_up──▶ finding (the bucket) ──▶ asking (for the watch) ──▶ watching ──a message lost, or silence──▶ waiting
 *    ▲                   └───── refused, silence ──┴──▶ waiting ──retry──▶ finding
 *    └──on_down── any
 *
 * An entry's key is "<hash of its pattern>.<version>", so an entry is written once and never changed: there is nothing to compete for.
 * That it is written once is demanded of the server, too: the order in which the watch tells is then that in which rules were first recorded (rules_catch_up()).
 *
 * A removed one stays behind as a marker, by which those that were away learn that it has been removed, and not lost.
 */
#ifndef PROXY_BUS_RULEBOOK_H
#define PROXY_BUS_RULEBOOK_H

#include "common/log.h"
#include "proxy/bus/backoff.h"
#include "proxy/bus/bus.h"
#include "proxy/bus/finder.h"

#define RULEBOOK_PENDING_MAX 65536

enum rulebook_state { RULEBOOK_DOWN, RULEBOOK_FINDING, RULEBOOK_ASKING, RULEBOOK_WATCHING, RULEBOOK_WAITING };

struct rulebook {
    struct transport *transport;
    struct log *log;
    struct metrics_shard *metrics;
    const struct config *config;
    struct bus_sink sink;
    char stream[NAME_MAX_LEN];
    enum rulebook_state state;
    struct finder finder;
    bool is_stopping;
    uint64_t request; /* number of the last request or record */
    uint64_t asked;   /* of the request of the API under way */
    uint64_t due_us;  /* finding, asking: give up; waiting: try again */
    struct backoff backoff;

    char watch[NAME_MAX_LEN]; /* the consumer's name; of another one nothing is heeded */
    uint64_t watch_id;
    uint64_t heard_us;
    uint64_t seen;   /* number of the last message of this watch */
    uint64_t target; /* of the last message of the listing; UINT64_MAX: not known yet */
    bool is_known;

    struct record *head; /* under way, oldest first */
    struct record *tail;
    uint32_t pending;
    bool is_up;
};

void rulebook_init(struct rulebook *rulebook, const struct config *config, struct transport *transport, struct log *log,
                   struct metrics_shard *metrics, struct bus_sink sink, uint64_t seed);
void rulebook_stop(struct rulebook *rulebook);

void rulebook_submit(struct rulebook *rulebook, struct record *record);

void rulebook_on_up(struct rulebook *rulebook, uint64_t now_us);
void rulebook_on_down(struct rulebook *rulebook);
/* An answer to "<inbox>.b.<request>", of the API; to "<inbox>.q.<number>", of a record. */
void rulebook_on_answer(struct rulebook *rulebook, uint64_t request, const struct incoming *message, uint64_t now_us);
void rulebook_on_recorded(struct rulebook *rulebook, uint64_t number, const struct incoming *message, uint64_t now_us);
/* A status of the watch, or a message of the bucket. */
void rulebook_on_message(struct rulebook *rulebook, const struct incoming *message, uint64_t now_us);
/* Does what is due; returns when to call again. */
uint64_t rulebook_step(struct rulebook *rulebook, uint64_t now_us);

uint64_t rulebook_hash(struct span pattern);
/* For records that never got to a rulebook, too. */
void record_finish(struct record *record, enum err err);

#endif
