/* What:    the seam between the bus's machines (publisher, keeper, consumer) and the messaging below: NATS messages, out and in.
 * Owns:    nothing; everything handed over is borrowed for the call.
 * Threads: the bus's thread, both ways.
 * Fails:   send: ERR_OVERLOAD when too much is waiting to be written, ERR_UNAVAILABLE while stopping. Sent does not mean
 *          received.
 *
 * One transport is one connection to one region's NATS (nats.h); in the unit tests it is a script.
 */
#ifndef PROXY_BUS_TRANSPORT_H
#define PROXY_BUS_TRANSPORT_H

#include "common/base.h"
#include "common/err.h"

#define SUBJECT_MAX 256

/* Statuses that NATS sends in place of a message. */
enum status {
    STATUS_NONE = 0, /* an ordinary message */
    STATUS_HEARTBEAT = 100,
    STATUS_BAD_REQUEST = 400,
    STATUS_NO_MESSAGES = 404,
    STATUS_EXPIRED = 408,
    STATUS_CONFLICT = 409, /* the description says which */
    STATUS_NO_RESPONDERS = 503,
};

struct outgoing {
    const char *subject;
    const char *reply;  /* or NULL */
    const char *msg_id; /* Nats-Msg-Id, or NULL */
    const char *kv_operation; /* KV-Operation, or NULL */
    bool has_expected;
    uint64_t expected_seq; /* Nats-Expected-Last-Subject-Sequence */
    struct span data;
};

struct incoming {
    const char *subject;
    const char *reply; /* "" if there is none */
    int status;
    const char *description;   /* of the status, or "" */
    uint32_t pending_messages; /* Nats-Pending-Messages of a status that ends a pull request */
    bool has_pending;
    uint64_t last_consumer; /* Nats-Last-Consumer of a heartbeat: the number of the last message; 0 if it does not say */
    struct span data;
};

struct transport {
    const struct transport_ops *ops;
    const char *inbox; /* everything that is sent to "<inbox>.…" comes back as incoming; alive as long as the transport */
    const char *watch; /* what is sent to exactly this, too */
};

/* The kind and number of a subject "<inbox>.<kind>.<number>"; false: it is another. */
bool transport_parse_inbox(const struct transport *transport, const char *subject, char *kind, uint64_t *number);

struct transport_ops {
    enum err (*send)(struct transport *transport, const struct outgoing *message);
};

/* What a transport tells its user. on_up may come twice in a row: the connection was lost and made again in between. */
struct transport_handler {
    void (*on_up)(void *ctx);
    void (*on_down)(void *ctx, const char *reason);
    void (*on_message)(void *ctx, const struct incoming *message);
};

#endif
