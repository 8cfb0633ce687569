/* What:    one voter: a NATS with the bucket CONTROL_<voter>, one entry for each region. Reads and writes entries, and knows when what it says counts.
 * Owns:    nothing beyond the caller's struct; calls belong to whoever makes them, and must outlive their on_done (or be cancelled).
 * Threads: strong's thread.
 * Fails:   never for good: it looks for its bucket again. A call ends exactly once, with on_done: OK, ERR_CONFLICT (see below), ERR_TIMEOUT,
 *          ERR_UNAVAILABLE, or ERR_BUS when it was refused, ERR_PROTOCOL when what is there is no record. Where vote_look() or vote_write() itself
 *          returns an error there is no on_done.
 *
 *   down ──on_up──▶ asking (STREAM.INFO) ──no bucket──▶ creating ──▶ asking
 *    ▲                │   └──refused, silence──▶ waiting ──retry──▶ asking
 *    │                └──▶ there: blank for a lease, then usable ──the bucket is gone, anew, or went back──▶ asking
 *    └──on_down── any
 *
 * A voter that may have lost what it knew is no vote for one lease (the model's `blank`), counted from when we saw it: when its bucket's `created`
 * is not what we knew, or is seen for the first time; also when its numbers have gone back. (That can not be relied on: who has not seen the
 * higher ones does not notice. A voter must not forget a part of what it has acknowledged, so a NATS of one server must sync every message.)
 *
 * Every `now_us` that comes with an answer must be taken after the answer was received: waits are counted from it.
 */
#ifndef PROXY_STRONG_VOTE_H
#define PROXY_STRONG_VOTE_H

#include "common/list.h"
#include "common/log.h"
#include "proxy/bus/backoff.h"
#include "proxy/bus/jetstream.h"
#include "proxy/strong/record.h"

#define VOTERS_MAX 96 /* own, 63 peers, witnesses */

enum vote_state { VOTE_DOWN, VOTE_ASKING, VOTE_CREATING, VOTE_WAITING, VOTE_THERE };

struct vote_context {
    const struct config *config;
    struct transport *transport;
    struct log *log;
    uint32_t voter; /* 0: the own region, then the peers, then the witnesses */
    char kind;      /* of its answers' subjects: "<inbox>.<kind>.<number>" */
    uint64_t seed;
};

struct vote {
    const struct config *config;
    struct transport *transport;
    struct log *log;
    const char *name;   /* of the voter */
    const char *domain; /* or NULL */
    char kind;
    char stream[NAME_MAX_LEN];
    uint64_t lease_us;

    enum vote_state state;
    uint64_t request; /* number of the last request */
    uint64_t asked;   /* of the one about the bucket */
    uint64_t due_us;
    struct backoff backoff;
    bool was_refused; /* and said so in the log */
    char created[CREATED_SIZE]; /* of the bucket as we knew it; "": never seen */
    uint64_t info_seq;          /* its last message, by the last STREAM.INFO */
    uint64_t generation;        /* goes up with every blank: what a call knew before is not known any more */
    bool has_gone_back;         /* its numbers did; not dealt with yet */
    uint64_t blank_until_us;
    struct list calls; /* under way */
    char problem[160];
};

/* One region's entry at one voter, as one user knows it; one question or write at a time. */
struct vote_call {
    struct vote *vote;
    uint32_t region; /* 0: the own, then the peers */
    void (*on_done)(struct vote_call *call, enum err err, uint64_t now_us);
    void *ctx;

    bool is_known;              /* `seq` and `record` are what was there when we last looked or wrote */
    uint64_t seq;               /* of the entry; 0: there is none */
    struct lease_record record; /* number 0: there is none */

    struct list link; /* in vote.calls while it is under way */
    uint64_t generation;
    uint64_t number;
    uint64_t due_us;
    bool is_write;
    bool was_refused; /* a write that was, and looks why */
    struct lease_record wanted;
};

void vote_init(struct vote *vote, const struct vote_context *context);
void vote_on_up(struct vote *vote, uint64_t now_us);
void vote_on_down(struct vote *vote, uint64_t now_us);
/* An answer to "<inbox>.<kind>.<number>". */
void vote_on_answer(struct vote *vote, uint64_t number, const struct incoming *message, uint64_t now_us);
/* Does what is due; returns when to call again (UINT64_MAX: not before something happens). */
uint64_t vote_step(struct vote *vote, uint64_t now_us);

bool vote_is_usable(const struct vote *vote, uint64_t now_us);
/* NULL while it is usable. */
const char *vote_problem(const struct vote *vote, uint64_t now_us);

void vote_call_init(struct vote_call *call, struct vote *vote, uint32_t region, void (*on_done)(struct vote_call *call, enum err err, uint64_t now_us), void *ctx);
bool vote_call_is_under_way(const struct vote_call *call);
/* Whether call->record is what was there when we last looked, and the voter is still the same. */
bool vote_call_knows(const struct vote_call *call);
/* Its on_done does not come any more. A write may have been stored, or be yet. */
void vote_call_cancel(struct vote_call *call);

/* What is there? OK: call->record. That proves nothing. */
enum err vote_look(struct vote_call *call, uint64_t now_us);
/* Compare-and-set over what the call knows. OK: it is written, which is the only proof there is; call->record is what was asked for.
 * ERR_CONFLICT: something else is there (or nothing was known): call->record is what was found, and a new write goes over that. After any other error the write may
 * have been stored, or be yet; the call knows nothing any more. */
enum err vote_write(struct vote_call *call, const struct lease_record *record, uint64_t now_us);

/* All voters of this configuration, in the order of `voter`. */
struct voters {
    struct vote *all[VOTERS_MAX];
    uint32_t count;
};
uint32_t voters_count(const struct config *config);
static inline uint32_t voters_majority(const struct voters *voters)
{
    return voters->count / 2 + 1;
}
uint32_t voters_usable(const struct voters *voters, uint64_t now_us);

#endif
