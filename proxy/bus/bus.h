/* What:    the invalidation bus as the rest of the sidecar sees it: publish an invalidation, be told when it is durable; be handed
 *          those of the other regions, and say when each is applied.
 * Owns:    its thread and its NATS connections; publications and deliveries are lent, see below.
 * Threads: bus_publish() and delivery_done() from any thread.
 * Fails:   a publication ends with ERR_OVERLOAD, ERR_TIMEOUT, ERR_UNAVAILABLE or ERR_BUS: the invalidation may then not be on the bus.
 *
 *   worker ── bus_publish ──▶ mailbox ──▶ bus thread: publisher ──▶ INVAL_<own region>; acknowledged ──▶ reply_to ──▶ on_done
 *   INVAL_<peer> ──▶ bus thread: consumer, decode ──▶ sink->apply (posts to a worker) ── delivery_done ──▶ mailbox ──▶ ack to NATS
 */
#ifndef PROXY_BUS_BUS_H
#define PROXY_BUS_BUS_H

#include "common/log.h"
#include "common/mailbox.h"
#include "proxy/bus/invalidation.h"
#include "proxy/metric.h"

/* Lent to the bus from bus_publish() until on_done, which runs on the thread that drains `reply_to`. */
struct publication {
    struct mailbox *reply_to;
    void (*on_done)(struct publication *publication);
    struct invalidation event;
    enum err err; /* the result: OK once JetStream has acknowledged it */

    struct mail mail; /* the bus's */
    struct publication *next;
    uint64_t submitted_us;
};

/* One event of another region. Belongs to the sink from apply() until delivery_done(). */
struct delivery {
    struct invalidation event;
    uint32_t peer; /* index in config.bus.peers */

    struct mail mail; /* the sink's to use until delivery_done(), then the bus's */
    struct bus_message *message;
    enum err err;
};

/* Where deliveries go; installed by app, so that the bus knows nothing of the cache. Called on the bus's thread. */
struct bus_sink {
    void (*apply)(void *ctx, struct delivery *delivery);
    void *ctx;
};

struct bus;

/* Starts the thread. No NATS server need be there: each connection is made when it can be, streams and consumers are then created or
 * checked. The configuration has a bus section. */
enum err bus_create(const struct config *config, struct log *log, struct metrics *metrics, struct bus_sink sink, struct bus **out);

/* In two steps, because publications and deliveries cross threads: stop ends the thread (publications under way end with ERR_STOPPING,
 * unapplied messages are left to be delivered again); destroy frees it once no worker runs any more. */
void bus_stop(struct bus *bus);
void bus_destroy(struct bus **bus);

void bus_publish(struct bus *bus, struct publication *publication);

/* `err` OK: applied. The message is acknowledged once all its events are; with any other it is given back for later redelivery. */
void delivery_done(struct delivery *delivery, enum err err);

/* For /readyz: true while connected to the own region's NATS and every peer's; `text` names those that are not. */
bool bus_is_ready(struct bus *bus, char *text, size_t size);

/* For operators: region 0 is the own one, then config.bus.peers in their order. Any thread. */
#define BUS_PROBLEM_MAX 512
struct bus_region_status {
    char problem[BUS_PROBLEM_MAX]; /* "" while all is well */
    bool is_peer;                  /* what follows is known */
    uint64_t heard_us;             /* monotonic; the last message or heartbeat of its stream; 0: none yet */
    uint64_t lag_ms;               /* of the last invalidation that was applied, from its timestamp */
    uint64_t backlog;              /* messages that waited in its stream behind the last one that came */
};
void bus_region_status(struct bus *bus, uint32_t index, struct bus_region_status *out);

#endif
