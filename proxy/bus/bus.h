/* What:    the invalidation bus as the rest of the sidecar sees it: publish an invalidation, be told when it is durable; be handed
 *          those of the other regions, and say when each is applied.
 * Owns:    its threads, its NATS connections and the spool; publications and deliveries are lent, see below.
 * Threads: bus_publish() and delivery_done() from any thread.
 * Fails:   a publication ends with ERR_OVERLOAD, ERR_TIMEOUT, ERR_UNAVAILABLE or ERR_BUS: the invalidation may then not be on the bus.
 *
 *   worker ── bus_publish ──▶ mailbox ──▶ bus thread: publisher ──▶ INVAL_<own region>; acknowledged ──▶ reply_to ──▶ on_done
 *                                                     └─ not in time, or not connected: spooler ⇢ disk ──▶ reply_to ──▶ on_done
 *                                                        and from there to the stream, when it is back (replayer)
 *   worker ── bus_owe ──▶ spooler ⇢ disk ──▶ on_done; until the home node has it: ──▶ sink->apply …, and bus_owes() says so
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
    enum err err; /* the result: OK once it is durable: acknowledged by JetStream, or on the disk of this host */
    struct spool_entry *reserved; /* NULL, or what bus_reserve() made */

    /* The bus's: */
    struct mail mail;
    struct publication *next;
    uint64_t submitted_us;
    uint64_t sender; /* the message it was last sent in, and how many there were in that; 0: in none */
    uint64_t message;
    uint16_t count;
    uint8_t kind; /* as what, and with which debts, it goes into the spool (spool_record.h) */
    uint8_t debts;
};

/* One event of another region. Belongs to the sink from apply() until delivery_done(). */
struct delivery {
    struct invalidation event; /* a pattern with version 0: it covers all that is stored by the time it is applied */
    uint32_t peer; /* index in config.bus.peers; PEER_NONE: an invalidation of this region that its own pool has not got yet */
    uint16_t home; /* the sink says which node it is for */

    struct mail mail; /* the sink's to use until delivery_done(), then the bus's */
    struct mailbox *reply_to;
    void (*on_done)(struct mail *mail, void *owner);
    struct bus_message *message;
    enum err err;
};

#define PEER_NONE UINT32_MAX

struct spool_entry;

/* An entry of this region's record of rules: its bucket RULES_<region>, which every sidecar of the region watches. */
struct record {
    struct mailbox *reply_to;
    void (*on_done)(struct record *record); /* on the thread that drains `reply_to` */
    struct invalidation event;              /* is_pattern */
    char region[REGION_MAX];                /* where it comes from */
    bool is_removal;
    enum err err; /* the result: OK once the bucket has it, or has it no more */

    struct mail mail; /* the bus's */
    struct record *next;
    uint64_t number;
    uint64_t submitted_us;
    uint64_t due_us;
};

/* What the watch of that bucket tells: LISTING begins to tell all that is there, KNOWN ends it, LOST: what happens is not seen any more. */
enum rules_watch { RULES_LISTING, RULES_KNOWN, RULES_LOST };

struct rule_event {
    uint64_t hash; /* of its pattern, rulebook_hash() */
    bool is_removed;
    struct invalidation event; /* is_removed: its version only */
    char region[REGION_MAX];
};

/* Where deliveries go; installed by app, so that the bus knows nothing of the cache. Called on the bus's threads. */
struct bus_sink {
    void (*apply)(void *ctx, struct delivery *delivery);
    void *ctx;
    void (*on_rule)(void *ctx, const struct rule_event *rule);
    void (*on_rules)(void *ctx, enum rules_watch what); /* with on_rule; or both NULL: the rules are not watched */
};

struct bus;

/* Starts the thread. No NATS server need be there: each connection is made when it can be, streams and consumers are then created or
 * checked. The configuration has a bus section. ERR_SPOOL: the spool can not be used; the log says why. */
enum err bus_create(const struct config *config, struct log *log, struct metrics *metrics, struct bus_sink sink, struct bus **out);

/* In two steps, because publications and deliveries cross threads: stop ends the thread (publications under way end with ERR_STOPPING,
 * unapplied messages are left to be delivered again); destroy frees it once no worker runs any more. */
void bus_stop(struct bus *bus);
void bus_destroy(struct bus **bus);

void bus_publish(struct bus *bus, struct publication *publication);

/* --- with a spool only --- */

bool bus_has_spool(const struct bus *bus);

/* This region's own node could not be told: the invalidation is kept until it is, and until then bus_owes() its key; the other regions are told,
 * too, if `is_published`. OK: it is on the disk. */
void bus_owe(struct bus *bus, struct publication *publication, bool is_published);
/* Whether the key's node may still have what was invalidated: what it says of the key must not be served. Any thread; cheap while nothing is owed. */
bool bus_owes(struct bus *bus, struct span key);

/* A write that will have to be published, if it is made. Reserving first means that a crash can only invalidate too much: a reservation that a
 * start finds neither committed nor cancelled is published, and applied to this region's pool.
 *
 *   bus_reserve ──▶ on_done, OK: it is on the disk; the database is written now ──▶ bus_commit ──▶ on_done, as of bus_publish()
 *                                                                                └▶ bus_cancel: nothing was written
 *
 * Without a spool, or with intent: false, bus_reserve() is done at once, bus_commit() is bus_publish() and bus_cancel() nothing. */
bool bus_has_intent(const struct bus *bus);
void bus_reserve(struct bus *bus, struct publication *publication); /* its version may be any, the event's other fields are set */
void bus_commit(struct bus *bus, struct publication *publication);  /* its version is one from after the write */
void bus_cancel(struct bus *bus, struct publication *publication);  /* the publication is the caller's again at once */

/* For /readyz: false while the spool can not be written; `text` says what waits in it. */
bool bus_is_spool_ready(struct bus *bus, char *text, size_t size);

/* --- rules --- */

/* Puts a rule into the region's record, or takes it out; lent as a publication is. ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_BUS, ERR_OVERLOAD. */
void bus_record(struct bus *bus, struct record *record);

/* Whether this sidecar is the one of its region that sweeps, for some seconds more. Any thread. Two may be for a moment, which harms nothing. */
bool bus_is_sweeper(struct bus *bus);

/* --- the other regions' invalidations --- */

/* `err` OK: applied. The message is acknowledged once all its events are; with any other it is given back for later redelivery. */
void delivery_done(struct delivery *delivery, enum err err);

/* For /readyz: true while connected to the own region's NATS and every peer's; `text` names those that are not. */
bool bus_is_ready(struct bus *bus, char *text, size_t size);

/* For operators: region 0 is the own one, then config.bus.peers in their order. Any thread. */
#define BUS_PROBLEM_MAX 800
struct bus_region_status {
    char problem[BUS_PROBLEM_MAX]; /* "" while all is well */
    bool is_peer;                  /* what follows is known */
    uint64_t heard_us;             /* monotonic; the last message or heartbeat of its stream; 0: none yet */
    uint64_t lag_ms;               /* of the last invalidation that was applied, from its timestamp */
    uint64_t backlog;              /* messages that waited in its stream behind the last one that came */
};
void bus_region_status(struct bus *bus, uint32_t index, struct bus_region_status *out);

#endif
