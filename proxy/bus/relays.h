/* What:    whether this sidecar is one of the region's relays: those that keep connections to the peers' NATS, and receive for all.
 * Owns:    struct relays is the bus's.
 * Threads: the bus's thread.
 * Fails:   never: no state of the own NATS may stop the peers' invalidations, so when nobody can be elected everybody may be a relay.
 *
 *   unknown ──all slots are others'──▶ none ◀──others have shown themselves in all slots── elected, stands in
 *      └──────────────────────────────┬─┴─ a slot is won ──▶ elected
 *                                     └─── nobody can be elected, for RELAY_LEASE and a part of it by chance ──▶ stands in
 *
 * Who was elected stays a relay while the own NATS is away. Too many relays do no harm: the durable consumer is a work queue.
 */
#ifndef PROXY_BUS_RELAYS_H
#define PROXY_BUS_RELAYS_H

#include "proxy/bus/election.h"
#include "proxy/metric.h"

#define RELAY_LEASE_US 5000000ULL
#define RELAYS_KIND 'e' /* of its answers' subjects: "<inbox>.e.<number>" */

enum relay_state { RELAY_UNKNOWN, RELAY_NONE, RELAY_ELECTED, RELAY_STANDS_IN };

struct relays {
    struct election election;
    struct log *log;
    struct metrics_shard *metrics;
    enum relay_state state;
    bool is_everyone; /* relays: 0 */
    uint64_t patience_us; /* how long nobody is elected until we stand in */

    /* Set by the owner: to connect to the peers, or to let go of them. */
    void (*on_change)(void *ctx, bool is_relay);
    void *ctx;
};

void relays_init(struct relays *relays, const struct config *config, struct transport *transport, struct log *log,
                 struct metrics_shard *metrics, uint64_t seed, uint64_t now_us);

bool relays_is_relay(const struct relays *relays);
/* False until it is settled for the first time. */
bool relays_is_settled(const struct relays *relays);

/* Those of the own region's connection. */
void relays_on_up(struct relays *relays, uint64_t now_us);
void relays_on_down(struct relays *relays);
void relays_on_answer(struct relays *relays, uint64_t number, const struct incoming *message, uint64_t now_us);
uint64_t relays_step(struct relays *relays, uint64_t now_us);

/* Gives the slot back. True while that is not done: the caller goes on handing in answers for a while. */
bool relays_resign(struct relays *relays, uint64_t now_us);
bool relays_is_resigning(const struct relays *relays);

#endif
