/* What:    suspends one region for the writes of this sidecar: its record goes to an odd number at a majority of the voters, and one lease passes.
 * Owns:    nothing beyond the caller's struct; it borrows the votes. Waiters are lent to it until on_done, or suspension_cancel().
 * Threads: strong's thread.
 * Fails:   a waiter ends with ERR_UNAVAILABLE when fewer than a majority of the voters are usable, with ERR_TIMEOUT at its deadline. The region may be suspended all the same.
 *
 *   idle ──waiter──▶ a round: compare-and-set at all usable voters ──majority at one number──▶ proven ──confirmed, and one lease (and 5 %)──▶ waiters end OK
 *                      ▲    └── a higher record, and nothing proven yet: number | 1, everything anew      │
 *                      └──────── every third of the lease while somebody waits ◀──────────────────────────┘
 *
 * A proof is as old as the beginning of its round. It is good for who began to wait, or asks, within a lease of that: a region that comes back after it waits
 * lock_window + lease before it fills, and their fences are over by then. So a waiter need not win against a region that comes back while it waits.
 *
 * Proven is not enough for the lease wait to begin: one of the majority may have lost its data before the last of it answered. It is confirmed when every one of a
 * majority has answered a question from after that, as the same voter (vote.generation) and with the number, or a higher one.
 */
#ifndef PROXY_STRONG_SUSPENSION_H
#define PROXY_STRONG_SUSPENSION_H

#include "proxy/strong/vote.h"

#define SUSPENSION_WAITERS_MAX 16384

struct suspension_context {
    const struct config *config;
    struct log *log;
    const struct voters *voters; /* alive as long as the suspension, and complete */
    uint32_t region;             /* which: 0 the own, then the peers */
};

struct suspension_waiter {
    void (*on_done)(struct suspension_waiter *waiter, enum err err, uint64_t now_us);
    uint64_t deadline_us;
    uint64_t begun_us; /* set by suspension_wait(): the write's lock window must have begun by then */
    struct list link;
};

/* One voter, for one suspension. */
struct suspension_vote {
    struct vote_call call;
    uint64_t round; /* in which the call was made */
    uint32_t tries; /* writes in this round */
    bool has_answered; /* in this round */
    uint64_t since_us; /* when it is first known to have had our number, or a higher one, without a break; 0: it has not */
    uint64_t seen_us;  /* the last it is known to have had it */
    uint64_t generation; /* of the vote, then */
};

struct suspension {
    struct suspension_context context;
    uint64_t lease_us;
    uint64_t number;    /* odd; 0: nothing was seen of the region yet */
    uint64_t proven_us; /* when the last round that had a majority at `number` began; 0: none has */
    uint64_t over_us;   /* when the lease wait of `number` is over; UINT64_MAX: not confirmed */
    uint64_t newer;     /* the highest number seen since; the region is back, or coming back, if it is higher */

    bool is_round; /* one is under way */
    uint64_t round;
    uint64_t proven_round;
    uint64_t round_us;
    uint64_t due_us; /* the next round, while somebody waits */
    uint32_t votes;
    struct list waiters;
    uint32_t waiting;
    uint64_t deadline_us; /* not after the first of theirs */
    struct suspension_vote at[VOTERS_MAX];
};

void suspension_init(struct suspension *suspension, const struct suspension_context *context);
/* Ends the waiters with ERR_STOPPING; no call of its is under way any more: before the votes go. */
void suspension_deinit(struct suspension *suspension, uint64_t now_us);

/* OK: on_done will come, from suspension_step(). ERR_UNAVAILABLE, ERR_OVERLOAD: it will not. */
enum err suspension_wait(struct suspension *suspension, struct suspension_waiter *waiter, uint64_t now_us);
/* The waiter is not waiting any more (its region has answered after all): no on_done. What was written stays written. */
void suspension_cancel(struct suspension *suspension, struct suspension_waiter *waiter);
/* Whether a write that begins now may leave the region out at once: without a question, without a wait. */
bool suspension_is_proven(const struct suspension *suspension, uint64_t now_us);
/* Whether it was suspended when we last looked, and nothing of its return has been heard: asking it for locks would be in vain. */
static inline bool suspension_is_in_force(const struct suspension *suspension)
{
    return suspension->proven_us != 0 && suspension->newer <= suspension->number;
}
/* The region says that its record has this number now: if that is higher than ours it is to be asked for locks again. */
void suspension_on_number(struct suspension *suspension, uint64_t number);
/* Does what is due; returns when to call again (UINT64_MAX: not before something happens). Before the votes' steps. */
uint64_t suspension_step(struct suspension *suspension, uint64_t now_us);

#endif
