/* What:    the own region's lease in the sidecar that was elected for it: the model's `Holder`, with take-overs. Writes the region's record at the voters, and knows until when
 *          a majority of them has it.
 * Owns:    nothing beyond the caller's struct; it borrows the votes.
 * Threads: strong's thread.
 * Fails:   never for good; holder_problem() says what is in the way.
 *
 *                                ┌── even, ready, our ring: a take-over: our name to a majority ────────────────────────────────┐
 *   out ──elected──▶ looking ────┴── anything else: TAKING ──majority──▶ WAITING ──window + lease──▶ on_rule ──▶ is_ready ────┴─▶ READY
 *                       ▲
 *                       └── (a pause) ◀── another's name where ours was, or a node is away when TAKING should begin
 *   any ──not elected──▶ out;  any ──a higher number, or our own number taken by another that is not ready──▶ TAKING, with the next even number and without a lease
 *
 * A round goes to all usable voters every third of the lease; a majority of compare-and-sets that were sent and answered in one round makes the lease valid
 * for its time from before the round's first send. A record that is missing is made only in TAKING, or while the lease is valid; a round that fails for that is a comeback.
 */
#ifndef PROXY_STRONG_HOLDER_H
#define PROXY_STRONG_HOLDER_H

#include "proxy/strong/strong.h"
#include "proxy/strong/vote.h"

struct holder;

struct holder_context {
    const struct config *config;
    struct log *log;
    const struct voters *voters; /* alive as long as the holder, and complete */
    uint64_t ring;
    uint64_t name; /* of this sidecar, in the record; not 0 */
    void *ctx;
    bool (*is_pool_whole)(void *ctx); /* no comeback begins while it is not */
    void (*on_rule)(void *ctx, struct holder *holder); /* apply the rules `<prefix>*` now; then holder_rule_done(), perhaps at once */
    void (*on_change)(void *ctx, struct holder *holder); /* mode, number, valid_until_us or taken_over_us are others now; may be called with nothing changed */
};

enum holder_phase { HOLDER_IDLE, HOLDER_PAUSED, HOLDER_LOOKING, HOLDER_ROUNDS };

/* One voter, for the holder. */
struct holder_vote {
    struct vote_call call;
    uint64_t round; /* in which the call was made */
    uint32_t tries; /* writes in this round */
    bool has_voted; /* in this round; looking: has answered */
    bool has_ours;  /* our name was there under this number */
};

struct holder {
    struct holder_context context;
    uint64_t lease_us;
    uint64_t wait_us; /* lock_window + lease, and 5 % */

    /* For the owner to read. */
    enum strong_mode mode;
    uint64_t number;         /* of the record we hold or are taking; 0: not known yet */
    uint64_t valid_until_us; /* clock_mono_us(); 0: no lease. Only with `mode` READY is there more to give than locks; with OUT it only runs out */
    /* Since when a majority has our name under this number, for all we know; 0: it does not. One lease later nobody has a lease any more that an earlier holder gave, or
     * has itself; unless one has taken over after `renewed_us`, when our last good round began. So: "nobody but those I know had a share at the time t" is known one
     * lease after taken_over_us, and once renewed_us >= t. It may become 0, and later, while READY: another's name was found at a voter. */
    uint64_t taken_over_us;
    uint64_t renewed_us;

    enum holder_phase phase;
    bool is_waiting_for_pool;
    uint32_t setbacks; /* how often it was suspended before it had come back */
    bool is_ready; /* as we write it */
    uint64_t ready_from_us; /* WAITING: not before that */
    bool is_rule_asked;
    uint64_t rule_number; /* for which number */
    uint64_t rule_due_us; /* after a failure: not before that */
    enum err rule_err;

    uint64_t round;
    uint64_t round_us; /* when it began; what it makes valid counts from here */
    uint64_t due_us;   /* the next one */
    bool is_majority;  /* this round has had one */
    bool is_missing;   /* a record was, in this round */
    uint32_t votes;
    struct holder_vote at[VOTERS_MAX];
    char problem[160];
};

void holder_init(struct holder *holder, const struct holder_context *context);
/* No call of its is under way any more: before the votes go. */
void holder_deinit(struct holder *holder);
/* This sidecar has won or lost the region's election; may be repeated. */
void holder_set_elected(struct holder *holder, bool is_elected, uint64_t now_us);
void holder_rule_done(struct holder *holder, enum err err, uint64_t now_us);
/* Does what is due; returns when to call again. Before the votes' steps. */
uint64_t holder_step(struct holder *holder, uint64_t now_us);

/* A round that begins at or after this is wanted: at once, if there can be one. */
void holder_renew(struct holder *holder, uint64_t from_us, uint64_t now_us);

/* Whether what the holder knows may be granted: READY, and its lease not run out. */
bool holder_is_ready(const struct holder *holder, uint64_t now_us);
/* NULL while it is ready, or not elected. */
const char *holder_problem(struct holder *holder, uint64_t now_us);

#endif
