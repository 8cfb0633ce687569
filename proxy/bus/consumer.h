/* What:    takes one other region's invalidations from its stream, hands them to the sink, and acknowledges what was applied.
 * Owns:    struct consumer is the bus's; it owns the messages that are being applied, with their deliveries.
 * Threads: the bus's thread.
 * Fails:   never for good: a stream that is not there yet, a lost connection, a server that does not answer are tried again, and
 *          consumer_problem() says what is the matter. An event that is not acknowledged is delivered again.
 *
 *   down ──on_up──▶ waiting (for the durable consumer: durable.h) ──ready──▶ pulling ──nobody answers, deleted, or silent for long──▶ waiting
 *    └──on_down── any                    what was lost before is the cursor's to find out (cursor.h)
 *
 *                       … and what is being applied at that time is not acknowledged any more: the numbers may be those of another stream by then
 *
 *   message ──▶ decode ──▶ one delivery for each event ──▶ sink … delivery_done ──▶ the last one: +ACK, or -NAK with a delay
 *        │                                                              └── again and again not applied, with a spool: into it, then +ACK
 *        └── not understood: +TERM (it must not be in the way of others);  of a newer format: unsupported.h
 *
 * The durable consumer has the own region's name, so the sidecars of this region share the work. Pulling is flow control by
 * credit: what pull requests have asked for and has neither come nor been given back. A new request goes out when credit falls to
 * one batch, so two are outstanding in rest. Batches grow while there is a backlog. All requests are over `PULL_EXPIRES` after
 * the last one, whatever was lost, so that credit can not leak for good.
 */
#ifndef PROXY_BUS_CONSUMER_H
#define PROXY_BUS_CONSUMER_H

#include "common/list.h"
#include "common/log.h"
#include "proxy/bus/backoff.h"
#include "proxy/bus/bus.h"
#include "proxy/bus/cursor.h"
#include "proxy/bus/durable.h"
#include "proxy/bus/jetstream.h"
#include "proxy/bus/publisher.h"
#include "proxy/bus/unsupported.h"

#define PULL_BATCH 256         /* messages of one request */
#define PULL_BATCH_MAX 2048    /* … with a backlog; 4 relays × 2 of these stay below max_ack_pending */
/* A message that was delivered so often (about 8 s) and still can not be applied goes to the spool: a node that stays away must not fill
 * max_ack_pending, at which the stream delivers nothing more, not for other nodes either. */
#define OWE_AFTER 6
#define DELIVERIES_SOFT 32768  /* events being applied: from here on nothing more is asked for */
#define DELIVERIES_HARD 262144 /* … and from here on what comes is left to be delivered again */

enum consumer_state { CONSUMER_DOWN, CONSUMER_WAITING, CONSUMER_PULLING };

/* A message whose events are being applied. */
struct bus_message {
    struct list link; /* in consumer->messages */
    struct consumer *consumer;
    uint32_t remaining;
    uint32_t count;
    enum err err; /* of the first event that could not be applied */
    char reply[SUBJECT_MAX]; /* "": not to be acknowledged any more */
    struct delivery deliveries[];
};

struct consumer {
    struct transport *transport;
    struct log *log;
    struct metrics_shard *metrics;
    struct mailbox *mailbox;
    struct bus_sink sink;
    const struct publisher_spool *spool; /* or NULL */
    const struct config_peer *peer;
    uint32_t index; /* in config.bus.peers */
    struct durable durable;
    struct cursor cursor;
    struct unsupported unsupported;
    char key_subject[SUBJECT_MAX]; /* of the events that we understand */
    char rule_subject[SUBJECT_MAX];

    enum consumer_state state;
    uint64_t request;       /* number of the last pull request */
    uint64_t first_request; /* of this time of pulling: statuses of older ones are late */
    uint64_t due_us;        /* pulling: not before this time */
    struct backoff pull_backoff;

    uint32_t batch;
    uint32_t credit;
    uint32_t since_pull; /* messages that came since the last request */
    uint64_t pulled_us;  /* when the last request went out */
    uint64_t heard_us;   /* the last message, heartbeat or status */
    uint32_t silences;   /* in a row */

    uint32_t under_way; /* deliveries at the sink */

    /* For bus_region_status(), from any thread. */
    _Atomic uint64_t told_heard_us; /* heard_us; 0: never */
    _Atomic uint64_t told_lag_ms;   /* of the last event that was applied */
    _Atomic uint64_t told_backlog;  /* messages of the stream behind the last one that came */
    struct list messages;
};

struct consumer_context {
    const struct config *config;
    struct transport *transport;
    struct transport *own; /* of this region's NATS, for the cursor; NULL: there is none */
    struct log *log;
    struct metrics_shard *metrics;
    struct mailbox *mailbox;
    struct bus_sink sink;
    const struct publisher_spool *spool; /* or NULL */
    uint64_t seed; /* for jitter */
};

void consumer_init(struct consumer *consumer, const struct consumer_context *context, uint32_t index);
/* No delivery is touched any more by anybody; frees them. */
void consumer_deinit(struct consumer *consumer);

void consumer_on_up(struct consumer *consumer, uint64_t now_us);
void consumer_on_down(struct consumer *consumer);
/* An answer to "<inbox>.c.<request>". */
void consumer_on_answer(struct consumer *consumer, uint64_t request, const struct incoming *message, uint64_t now_us);
/* A status sent to "<inbox>.r.<request>". */
void consumer_on_status(struct consumer *consumer, uint64_t request, const struct incoming *message, uint64_t now_us);
/* A message of the stream. */
void consumer_on_message(struct consumer *consumer, const struct incoming *message, uint64_t now_us);
/* What the sink said with delivery_done(). */
void consumer_on_done(struct delivery *delivery, uint64_t wall_ms);
/* Does what is due; returns when to call again (UINT64_MAX: not before something happens). */
uint64_t consumer_step(struct consumer *consumer, uint64_t now_us);

/* NULL while events are received, else why they are not. A stream that does not exist yet is no problem. */
const char *consumer_problem(const struct consumer *consumer);

#endif
