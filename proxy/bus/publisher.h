/* What:    publishes invalidations into the own region's stream and answers each once JetStream has acknowledged it.
 * Owns:    struct publisher is the bus's; the publications are lent to it from publisher_submit() until on_done.
 * Threads: the bus's thread. on_done runs where the publication's reply_to is drained.
 * Fails:   a publication ends with ERR_OVERLOAD (max_pending others wait), ERR_UNAVAILABLE (not connected), ERR_TIMEOUT
 *          (publish_timeout), ERR_BUS (refused by JetStream), ERR_INVALID or ERR_STOPPING. After ERR_TIMEOUT it may yet reach the
 *          stream: harmless, because an invalidation only ever makes an entry go away. With a spool none but ERR_INVALID: what can
 *          not be published is handed over to it, a message's publications together, so that they can be sent as the same message.
 *
 *   submit ──▶ waiting ──▶ batch: one message ──send──▶ INVAL_<region> ──acknowledged──▶ on_done
 *                            ▲    └── nobody answers, or silence: the same message again after a pause ──┐
 *                            └────────────────────────────────────────────────────────────────────────┘
 *
 * While fewer than PUBLISH_WINDOW messages are under way, what waits is sent at once; beyond that it piles up, and goes in one
 * message as soon as an acknowledgement makes room. A message keeps its Nats-Msg-Id when it is sent again, so JetStream stores it
 * once.
 */
#ifndef PROXY_BUS_PUBLISHER_H
#define PROXY_BUS_PUBLISHER_H

#include "common/log.h"
#include "proxy/bus/backoff.h"
#include "proxy/bus/bus.h"
#include "proxy/bus/jetstream.h"
#include "proxy/bus/ring.h"

#define PUBLISH_WINDOW 8
#define PUBLISH_EVENTS_MAX 512 /* in one message */
#define MSG_ID_SIZE 48

/* Where publications go that can not be published, and what is told of those that were; without a spool there is none. */
struct publisher_spool {
    void (*take)(void *ctx, struct publication *publication); /* its end is the taker's */
    void (*clear)(void *ctx, struct publication *publication); /* its reservation is not needed any more */
    void *ctx;
};

struct batch {
    uint64_t number; /* 0: free */
    struct publication *head;
    struct publication *tail;
    char *data;
    size_t len;
    bool is_rules;
    uint64_t due_us; /* when it is sent again */
    struct backoff backoff;
};

struct publisher {
    struct transport *transport;
    struct log *log;
    struct metrics_shard *metrics;
    void (*on_no_stream)(void *ctx); /* a publication found nobody */
    void *ctx;
    char key_subject[SUBJECT_MAX];
    char rule_subject[SUBJECT_MAX];
    char stream[NAME_MAX_LEN];
    uint64_t id; /* of this process, for Nats-Msg-Id */
    uint64_t timeout_us;
    uint32_t max_pending;
    bool is_up;
    bool is_stopping;
    uint32_t pending;         /* publications, waiting or in a batch */
    struct publication *head; /* waiting */
    struct publication *tail;
    uint64_t next_number;
    struct batch batches[PUBLISH_WINDOW]; /* batch `number` is at number % PUBLISH_WINDOW */
    const struct publisher_spool *spool; /* or NULL */
    struct ring *ring;                   /* or NULL: where acknowledged messages go */
};

/* `id` is random. */
void publisher_init(struct publisher *publisher, const struct config *config, struct transport *transport, struct log *log,
                    struct metrics_shard *metrics, uint64_t id);
/* Everything under way ends with ERR_STOPPING, and so does what is submitted later. */
void publisher_stop(struct publisher *publisher);

/* publication->submitted_us is set. */
void publisher_submit(struct publisher *publisher, struct publication *publication);

void publisher_on_up(struct publisher *publisher, uint64_t now_us);
void publisher_on_down(struct publisher *publisher);
/* An answer to "<inbox>.p.<number>". */
void publisher_on_answer(struct publisher *publisher, uint64_t number, const struct incoming *message, uint64_t now_us);
/* Sends and gives up what is due; returns when to call again (UINT64_MAX: not before something happens). */
uint64_t publisher_step(struct publisher *publisher, uint64_t now_us);

/* The Nats-Msg-Id of a sender's message. */
void publisher_message_id(uint64_t sender, uint64_t message, char out[static MSG_ID_SIZE]);

/* The result of a publication goes back to where it came from. For publications that never got to a publisher, too. */
void publication_finish(struct publication *publication, enum err err);

#endif
