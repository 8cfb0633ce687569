/* What:    a role that a few sidecars of a region have at a time. Who has it is settled by leases in the bucket ROLES_<region> of the
 *          region's own NATS: one entry for each of the role's slots, "<role>.<slot>", that names its holder.
 * Owns:    nothing beyond the caller's struct.
 * Threads: the bus's thread.
 * Fails:   never for good. While nothing is heard of the bucket, who has a slot keeps it: election_is_silent() says that nobody
 *          can be elected, and what to do about that is for whoever uses this.
 *
 *   down ──on_up──▶ finding (the bucket) ──there──▶ taking part ──the bucket is gone──▶ waiting
 *    ▲                   └────refused, silence────▶ waiting ──retry──▶ finding
 *    └──on_down── any
 *
 * A slot is taken, renewed every third of the lease and given back by compare-and-set on its entry, so that it has one holder. Who has none
 * looks at all of them as often, and takes one that is empty, or has not changed for the lease. Time is counted by whoever looks, on
 * its own monotonic clock, and only while looking works: after an outage holders have their time to renew.
 */
#ifndef PROXY_BUS_ELECTION_H
#define PROXY_BUS_ELECTION_H

#include "common/log.h"
#include "proxy/bus/backoff.h"
#include "proxy/bus/finder.h"

#define ELECTION_SLOTS_MAX 16
#define ELECTION_NO_SLOT UINT32_MAX

enum election_state { ELECTION_DOWN, ELECTION_FINDING, ELECTION_WAITING, ELECTION_TAKING_PART };

struct election_slot {
    uint64_t seq;     /* of its entry, 0: there is none */
    uint64_t seen_us; /* since when it is known not to have changed */
    uint64_t looking; /* number of the look under way, or 0 */
    bool is_known;
    bool is_held;
    bool is_alive; /* it was seen to change, by another's hand, since the connection is there */
};

struct election {
    struct transport *transport;
    struct log *log;
    const struct config *config;
    const char *role;
    uint64_t lease_us;
    uint32_t slot_count;
    char kind; /* of its answers' subjects: "<inbox>.<kind>.<number>" */
    char stream[NAME_MAX_LEN];
    char id[20]; /* of this process, as the entries name it */
    char id64[28]; /* … in base64, as the API shows them */

    enum election_state state;
    uint64_t request; /* number of the last request */
    struct finder finder;
    uint64_t finding; /* number of its question */
    uint64_t due_us; /* finding: give up; waiting: try again; taking part: look, or renew */
    uint64_t heard_us; /* when it last worked: a write of ours, a change by another; or the start */
    struct backoff backoff;
    bool was_refused; /* and said so in the log */

    uint32_t own; /* the slot that is ours, or ELECTION_NO_SLOT */
    uint64_t until_us; /* … until then for certain */
    uint64_t writing; /* number of the write under way, or 0 */
    uint64_t written_us;
    uint32_t writing_slot;
    bool is_resigning;
    bool is_giving_back; /* the write under way does that */
    bool is_unanswered; /* the last write, as yet or for good: it may be stored all the same */
    struct election_slot slots[ELECTION_SLOTS_MAX];
};

struct election_context {
    const struct config *config;
    struct transport *transport;
    struct log *log;
    const char *role;
    uint32_t slot_count;
    uint64_t lease_us;
    char kind;
    uint64_t seed; /* names this process, and spreads attempts */
};

void election_init(struct election *election, const struct election_context *context, uint64_t now_us);

void election_on_up(struct election *election, uint64_t now_us);
void election_on_down(struct election *election);
/* An answer to "<inbox>.<kind>.<number>". */
void election_on_answer(struct election *election, uint64_t number, const struct incoming *message, uint64_t now_us);
/* Does what is due; returns when to call again. */
uint64_t election_step(struct election *election, uint64_t now_us);

/* Gives the slot back, and takes none any more. True while the answer to that is still to come. */
bool election_resign(struct election *election, uint64_t now_us);
bool election_is_resigning(const struct election *election);

/* Whether a slot is ours, as far as is known. */
bool election_is_won(const struct election *election);
/* Whether all slots are known to be others'; `for_certain`: and those others have shown themselves since we are connected. */
bool election_is_lost(const struct election *election, bool for_certain);
/* Whether nobody can have been elected for so long, as far as is known: the bucket does not answer, or takes no entries. */
bool election_is_silent(const struct election *election, uint64_t for_us, uint64_t now_us);

#endif
