/* What:    finds out when the other regions have applied what this region has published, from what JetStream knows of their consumers.
 * Owns:    struct confirm is the bus's; confirmations are lent to it from confirm_submit() until on_done.
 * Threads: the bus's thread.
 * Fails:   see confirmation.h. Bounded: CONFIRM_WAITERS_MAX wait, each until its own time.
 *
 *   submit ──▶ in the spool ──replayed──▶ asking STREAM.INFO: the position ──▶ looking: CONSUMER.INFO of each region's to_<region> ──┬─▶ all: on_done
 *                                                                               ▲   its ack_floor is there: STREAM.INFO once more ──┤
 *                                                                               └─────────────── after a pause ─────────────────────┘
 *
 * The position is the last message that the stream has once what is waited for has been acknowledged: no publication needs to be followed on its way,
 * whoever made it. (It may be that of another's message behind it, which is then waited for, too.) A region has applied all up to its consumer's
 * ack_floor, for it acknowledges what its nodes have taken (or a spool of its sidecars, from which they take it).
 *
 * Numbers mean something in one stream only, so nothing counts that STREAM.INFO has not borne out afterwards: the same `created`, and as many messages
 * as the consumer says it has had. A stream that was made anew or went back ends a wait with ERR_BUS, also when the ring has noticed it since the wait began.
 *
 * The pauses grow with the wait, from 1 ms to CONFIRM_PAUSE_MAX: what is measured is late by a sixteenth at most, beside the way to this region's NATS.
 */
#ifndef PROXY_BUS_CONFIRM_H
#define PROXY_BUS_CONFIRM_H

#include "proxy/bus/confirmation.h"
#include "proxy/bus/ring.h"

#define CONFIRM_WAITERS_MAX 64
#define CONFIRM_PAUSE_MIN_US 1000ULL
#define CONFIRM_PAUSE_MAX_US 50000ULL

/* What is known of a region's consumer. */
struct confirm_peer {
    char consumer[NAME_MAX_LEN];
    uint64_t asked; /* number of the question under way; 0: none */
    uint64_t due_us; /* … is given up */
    uint64_t question; /* that `floor` is the answer to; 0: it is not known */
    uint64_t answered; /* number of the last question of any when it came: STREAM.INFO bears it out with a higher one */
    uint64_t answered_us;
    uint64_t floor;
    enum missing missing; /* if `floor` does not suffice */
    uint64_t backlog;
    char text[CONFIRMED_TEXT];
};

struct confirm {
    struct transport *transport;
    const struct config_bus *config;
    const struct ring *ring; /* what it has noticed of the stream */
    bool (*is_told)(void *ctx, uint64_t spooled); /* what was in the spool is in the stream; NULL: there is no spool */
    void *ctx;
    char stream[NAME_MAX_LEN];
    uint64_t sidecar;
    bool is_up;
    bool is_stopping;
    uint64_t request; /* number of the last question */
    bool is_asking;   /* STREAM.INFO is under way */
    uint64_t asked;   /* its number, or that of the last one */
    uint64_t wanted;  /* it is to be asked for by a question of this number or a later one */
    uint64_t due_us;  /* is_asking: it is given up; else: not before */
    uint64_t asked_highest; /* what the stream had acknowledged when it was asked for */
    char text[CONFIRMED_TEXT]; /* why it did not help */
    uint64_t look_us; /* when the consumers are looked at again */
    struct list waiters;
    uint32_t count;
    struct confirm_peer *peers;
};

struct confirm_context {
    const struct config *config;
    struct transport *transport;
    const struct ring *ring;
    bool (*is_told)(void *ctx, uint64_t spooled);
    void *ctx;
    uint64_t sidecar; /* names this process */
};

void confirm_init(struct confirm *confirm, const struct confirm_context *context);
void confirm_deinit(struct confirm *confirm);
/* Whoever waits ends with ERR_STOPPING, and so does what is submitted later. */
void confirm_stop(struct confirm *confirm);

void confirm_submit(struct confirm *confirm, struct confirmation *confirmation);
/* One that no confirm ever got. */
void confirmation_finish(struct confirmation *confirmation, enum err err);

void confirm_on_up(struct confirm *confirm);
void confirm_on_down(struct confirm *confirm);
/* An answer to "<inbox>.f.<number>". */
#define CONFIRM_KIND 'f'
void confirm_on_answer(struct confirm *confirm, uint64_t number, const struct incoming *message, uint64_t now_us);
/* Does what is due; returns when to call again (UINT64_MAX: not before something happens). */
uint64_t confirm_step(struct confirm *confirm, uint64_t now_us);

#endif
