#include "proxy/bus/relays.h"

#include <inttypes.h>

void relays_init(struct relays *r, const struct config *config, struct transport *transport, struct log *log,
                 struct metrics_shard *metrics, uint64_t seed, uint64_t now_us)
{
    *r = (struct relays){
        .log = log,
        .metrics = metrics,
        .is_everyone = config->bus->relays == 0 || config->bus->peer_count == 0,
        .patience_us = RELAY_LEASE_US + seed % RELAY_LEASE_US, /* so that not all stand in at the same moment */
    };
    struct election_context context = {
        .config = config,
        .transport = transport,
        .log = log,
        .role = "relay",
        .slot_count = config->bus->relays,
        .lease_us = RELAY_LEASE_US,
        .kind = RELAYS_KIND,
        .seed = seed,
    };
    election_init(&r->election, &context, now_us);
}

bool relays_is_relay(const struct relays *r)
{
    return r->state == RELAY_ELECTED || r->state == RELAY_STANDS_IN;
}

bool relays_is_settled(const struct relays *r)
{
    return r->state != RELAY_UNKNOWN;
}

void relays_on_up(struct relays *r, uint64_t now_us)
{
    if (!r->is_everyone) {
        election_on_up(&r->election, now_us);
    }
}

void relays_on_down(struct relays *r)
{
    if (!r->is_everyone) {
        election_on_down(&r->election);
    }
}

void relays_on_answer(struct relays *r, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    if (!r->is_everyone) {
        election_on_answer(&r->election, number, message, now_us);
    }
}

static enum relay_state state_of(const struct relays *r, uint64_t now_us)
{
    if (r->is_everyone || election_is_won(&r->election)) {
        return RELAY_ELECTED;
    }
    if (election_is_lost(&r->election, relays_is_relay(r))) {
        return RELAY_NONE;
    }
    bool is_standing_in = relays_is_relay(r) || election_is_silent(&r->election, r->patience_us, now_us);
    return is_standing_in ? RELAY_STANDS_IN : r->state;
}

static const char *what_it_means(const struct relays *r)
{
    switch (r->state) {
    case RELAY_ELECTED: return r->is_everyone ? "a relay, as every sidecar is (bus.relays: 0)" : "a relay, elected";
    case RELAY_STANDS_IN: return "a relay for the time being: none can be elected, for want of this region's NATS";
    default: return "no relay: others receive for this region";
    }
}

uint64_t relays_step(struct relays *r, uint64_t now_us)
{
    uint64_t next_us = r->is_everyone ? UINT64_MAX : election_step(&r->election, now_us);
    bool was_relay = relays_is_relay(r);
    enum relay_state state = state_of(r, now_us);
    if (state != r->state) {
        r->state = state;
        log_info(r->log, "bus: this sidecar is %s", what_it_means(r));
        metrics_set(r->metrics, METRIC_BUS_IS_RELAY, 0, relays_is_relay(r));
    }
    if (relays_is_relay(r) != was_relay) {
        r->on_change(r->ctx, !was_relay);
    }
    uint64_t silent_us = r->election.heard_us + r->patience_us;
    return relays_is_relay(r) || silent_us <= now_us ? next_us : MIN(next_us, silent_us);
}

bool relays_resign(struct relays *r, uint64_t now_us)
{
    return !r->is_everyone && election_resign(&r->election, now_us);
}

bool relays_is_resigning(const struct relays *r)
{
    return !r->is_everyone && election_is_resigning(&r->election);
}
