/* What:    publishes what the spool holds for the other regions, oldest first, one message at a time, behind what clients wait for.
 * Owns:    struct replayer is the bus's; a struct replay is lent to it from replayer_take() until on_done.
 * Threads: the bus's thread.
 * Fails:   never for good: a message is sent until the stream has acknowledged it.
 *
 *   spooler ── replayer_take ──▶ pause ──send──▶ INVAL_<region> ──acknowledged──▶ on_done ──▶ spooler: cleared; the next one
 *                                   ▲    └── silence, refused, nobody answers, connection lost ──┐
 *                                   └──────────────────────── with back-off ─────────────────────┘
 *
 * At most one message is under way and one is sent in REPLAY_PAUSE_US, so that live messages never wait behind many of these.
 */
#ifndef PROXY_BUS_REPLAYER_H
#define PROXY_BUS_REPLAYER_H

#include "proxy/bus/backoff.h"
#include "proxy/bus/jetstream.h"
#include "proxy/bus/publisher.h"

#define REPLAY_PAUSE_US 10000 /* 50,000 events a second */

/* Events that go in one message: of keys, or of patterns. */
struct replay {
    struct mail mail;
    uint32_t count;
    /* A message that was sent before, and that this one repeats in full: it keeps its Nats-Msg-Id. Else sender is 0. */
    uint64_t sender;
    uint64_t message;
    struct spool_entry *entries[PUBLISH_EVENTS_MAX]; /* the spooler's */
    struct invalidation events[PUBLISH_EVENTS_MAX];
};

struct replayer {
    struct transport *transport;
    struct log *log;
    const char *region;
    void (*on_done)(void *ctx, struct replay *replay); /* the stream has it */
    void (*on_no_stream)(void *ctx);
    void *ctx;
    char key_subject[SUBJECT_MAX];
    char rule_subject[SUBJECT_MAX];
    char stream[NAME_MAX_LEN];
    bool is_up;
    struct replay *replay; /* or NULL */
    struct ring *ring;     /* or NULL: where acknowledged messages go */
    char *data;
    size_t len;
    char msg_id[MSG_ID_SIZE];
    uint64_t number;
    uint64_t sent_us;
    uint64_t due_us;
    struct backoff backoff;
};

void replayer_init(struct replayer *replayer, const struct config *config, struct transport *transport, struct log *log, uint64_t seed);
void replayer_deinit(struct replayer *replayer);

/* There is none under way. */
void replayer_take(struct replayer *replayer, struct replay *replay, uint64_t now_us);

void replayer_on_up(struct replayer *replayer, uint64_t now_us);
void replayer_on_down(struct replayer *replayer);
/* An answer to "<inbox>.s.<number>". */
void replayer_on_answer(struct replayer *replayer, uint64_t number, const struct incoming *message, uint64_t now_us);
/* Sends what is due; returns when to call again (UINT64_MAX: not before something happens). */
uint64_t replayer_step(struct replayer *replayer, uint64_t now_us);

#endif
