/* What:    remembers what the own region's stream has acknowledged, and publishes it again if the stream turns out to have lost it: a server that
 *          lost its disk, or its last writes (JetStream acknowledges before it syncs; sync_interval is two minutes unless it is set).
 * Owns:    struct ring is the bus's; it owns the messages in it.
 * Threads: the bus's thread.
 * Fails:   never for good: what is lost is sent until it is acknowledged. What there is no room for is forgotten, oldest first, and counted.
 *
 *   publisher, replayer: acknowledged ──▶ kept, for resend_window ──▶ forgotten
 *                                          └── keeper: the stream was made anew, or ends before it ──▶ lost ──send──▶ acknowledged: kept again
 *
 * A message keeps its Nats-Msg-Id: a stream that has it after all answers so. Twice in the stream does no harm either: an invalidation that is applied
 * twice does nothing.
 */
#ifndef PROXY_BUS_RING_H
#define PROXY_BUS_RING_H

#include "common/list.h"
#include "common/log.h"
#include "proxy/bus/backoff.h"
#include "proxy/bus/jetstream.h"
#include "proxy/metric.h"

#define RING_MESSAGES_MAX 65536
#define RING_BYTES_MAX (64U << 20)
#define RING_WINDOW 8 /* messages that are sent again at a time */
#define RING_ID_SIZE 64

/* An acknowledged message; ring_add() takes over its data. */
struct ring_message {
    const char *subject; /* alive as long as the ring */
    const char *msg_id;
    char *data;
    size_t len;
};

struct ring {
    struct transport *transport;
    struct log *log;
    struct metrics_shard *metrics;
    void (*on_no_stream)(void *ctx);
    void *ctx;
    const char *region;
    char stream[NAME_MAX_LEN];
    uint64_t window_us; /* 0: nothing is kept */

    struct list kept; /* oldest acknowledgement first */
    struct list lost; /* oldest first */
    uint32_t count;
    uint32_t lost_count;
    size_t bytes;

    bool is_up;
    bool has_stream;  /* it has been seen on this connection */
    uint64_t number;  /* of the last message that was sent again */
    uint64_t highest; /* that was acknowledged */
    char created[CREATED_SIZE]; /* the stream's */
    uint64_t broken_us; /* when it was last noticed that it had lost what it had acknowledged; 0: never */
    uint64_t asked_us; /* when the stream was last asked for */
    uint64_t asked_highest;
    struct backoff backoff;
};

void ring_init(struct ring *ring, const struct config *config, struct transport *transport, struct log *log, struct metrics_shard *metrics,
               uint64_t seed);
void ring_deinit(struct ring *ring);

/* The stream has this message under number `seq`. message->data is taken, and NULL afterwards. */
void ring_add(struct ring *ring, uint64_t seq, struct ring_message *message, uint64_t now_us);

void ring_on_up(struct ring *ring);
void ring_on_down(struct ring *ring);
/* The stream is asked for what it has; and has answered. What is acknowledged in between may be missing in the answer. */
void ring_on_asked(struct ring *ring, uint64_t now_us);
void ring_on_info(struct ring *ring, const struct stream_info *info, uint64_t now_us);
/* An answer to "<inbox>.g.<number>". */
void ring_on_answer(struct ring *ring, uint64_t number, const struct incoming *message, uint64_t now_us);
/* Sends and forgets what is due; returns when to call again (UINT64_MAX: not before something happens). */
uint64_t ring_step(struct ring *ring, uint64_t now_us);

#endif
