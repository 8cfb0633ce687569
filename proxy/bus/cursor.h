/* What:    knows up to where this region has applied another region's stream, and notices when the stream has lost what it has not: then nothing
 *          that the region has stored before is trusted any more, and a rule `*` is applied.
 * Owns:    struct cursor is the consumer's; it borrows both transports, the log and the durable consumer.
 * Threads: the bus's thread.
 * Fails:   never for good: it tries again, and cursor_problem() says what is in the way. The mark stays where it is until what must be done is done.
 *
 *   down ──both links up──▶ (finding) ──▶ loading ──▶ asking consumer ──▶ asking stream ──▶ (asking message) ──┬─ no gap ──▶ (dating) ──▶ saving ──▶ resting
 *    ▲                         ▲          └─ no bucket: finding                                    └─ a gap: applying the rule ──────▲      │
 *    └── either goes down      └── a refusal, silence: resting ──── again every CURSOR_CHECK, or when somebody asks for it ───────────────┘
 *
 * The mark {when the stream was created, number of a message, when that was stored} is kept in the region's own bucket CURSOR_<region>, under the
 * origin's name, so that it is as old as the region's pool and not as the stream; it is written by compare-and-set, so that the region's sidecars can
 * not move it back. It says that everything up to that message has been applied, or is covered by a rule. It moves to the consumer's ack_floor only
 * when the stream proves that nothing was lost in between: the floor is asked for before the stream, so that what was dropped between the two is seen.
 *
 * (What the mark can not see is a stream that loses less than the last CURSOR_CHECK of its messages, and is filled up beyond the consumer's ack_floor
 * before this region has connected again: what then takes the numbers up to the floor is not delivered.)
 *
 * A gap is: no mark; a stream that was created anew; the first message is not the one behind the mark; the last one is before the mark; the mark's
 * message was stored at another time (the stream went back, and was filled again). Two sidecars may see it at once, and apply two rules: harmless.
 */
#ifndef PROXY_BUS_CURSOR_H
#define PROXY_BUS_CURSOR_H

#include "proxy/bus/bus.h"
#include "proxy/bus/durable.h"
#include "proxy/bus/finder.h"

#define CURSOR_CHECK_US 3000000ULL

enum cursor_state {
    CURSOR_DOWN,
    CURSOR_FINDING,
    CURSOR_LOADING,
    CURSOR_ASKING_CONSUMER,
    CURSOR_ASKING_STREAM,
    CURSOR_ASKING_MESSAGE,
    CURSOR_APPLYING,
    CURSOR_DATING,
    CURSOR_SAVING,
    CURSOR_RESTING,
};

struct mark {
    char created[CREATED_SIZE]; /* of the stream; "": there is no mark */
    uint64_t seq;
    char time[CREATED_SIZE]; /* of message seq; "": not known */
};

struct cursor {
    struct transport *own;  /* NULL: there is no cursor (tests) */
    struct transport *peer_transport;
    struct log *log;
    struct metrics_shard *metrics;
    struct mailbox *mailbox;
    struct bus_sink sink;
    struct durable *durable;
    const struct config_bus *config;
    const struct config_peer *peer;
    uint32_t index; /* in config.bus.peers */
    char bucket[NAME_MAX_LEN];
    struct finder finder;
    bool is_found; /* the bucket, as of the own region's connection */

    enum cursor_state state;
    bool is_own_up;
    bool is_peer_up;
    uint64_t request; /* number of the request under way; answers to others are late */
    uint64_t due_us;
    struct backoff backoff;

    struct mark mark;  /* as it was loaded */
    uint64_t revision; /* of its entry; 0: there is none */
    struct mark next;  /* to be saved */
    bool has_consumer;
    uint64_t floor; /* the consumer's */
    uint64_t start; /* where it began; 0: at the first message */
    struct stream_info stream;
    bool is_verified; /* the mark's message is the one that was seen, as of this connection */
    bool is_checked;  /* once, as of this connection */
    bool is_gap;      /* seen, and not dealt with yet */
    bool no_stream;

    struct delivery rule; /* at the sink while is_applying */
    bool is_applying;
    char drops[SETTINGS_TEXT]; /* by which settings the stream loses events; "": none */
    char problem[256];
};

struct cursor_context {
    const struct config *config;
    struct transport *own;
    struct transport *peer_transport;
    struct log *log;
    struct metrics_shard *metrics;
    struct mailbox *mailbox;
    struct bus_sink sink;
    struct durable *durable;
    uint64_t seed;
};

void cursor_init(struct cursor *cursor, const struct cursor_context *context, uint32_t index);

void cursor_on_own_link(struct cursor *cursor, bool is_up, uint64_t now_us);
void cursor_on_peer_link(struct cursor *cursor, bool is_up, uint64_t now_us);
/* An answer to "<inbox>.o.<number>" of the own region's link, where number & CURSOR_PEERS is the peer's index; to "<inbox>.i.<request>" of the peer's. */
#define CURSOR_PEERS 63U
void cursor_on_own_answer(struct cursor *cursor, uint64_t number, const struct incoming *message, uint64_t now_us);
void cursor_on_peer_answer(struct cursor *cursor, uint64_t request, const struct incoming *message, uint64_t now_us);
/* Looks now, unless it is looking. */
void cursor_check(struct cursor *cursor, uint64_t now_us);
/* Does what is due; returns when to call again (UINT64_MAX: not before something happens). */
uint64_t cursor_step(struct cursor *cursor, uint64_t now_us);

/* NULL once it is known that nothing was lost, or what was is covered. */
const char *cursor_problem(const struct cursor *cursor);

#endif
