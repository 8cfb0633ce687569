/* What:    the consistency controller (design §6, docs/decisions/2026-11-24-strong-controller.md) as workers, rules and the admin port see it.
 * Owns:    its thread and its NATS connections; writes, tasks and confirmations are lent to it, see below.
 * Threads: strong_may_serve(), strong_prepare(), strong_finish(), strong_confirm() and the questions from any thread; the rest on the main thread.
 * Fails:   a write ends with ERR_UNAVAILABLE (no majority of the voters), ERR_CONFLICT (another write of the key holds a lock), ERR_TIMEOUT, ERR_STOPPING or
 *          ERR_OVERLOAD; then nothing is locked any more, or lapses by itself.
 *
 *   worker ── strong_prepare ──▶ strong's thread ──▶ a lock in every region that has a lease ──▶ on_prepared ──▶ the database ──▶ strong_finish
 *   NATS ──▶ strong's thread ── sink.serve ──▶ a worker of this sidecar: lock, commit, invalidate in the pool ── strong_task_done ──▶ answer
 */
#ifndef PROXY_STRONG_STRONG_H
#define PROXY_STRONG_STRONG_H

#include <stdatomic.h>

#include "common/clock.h"
#include "common/config.h"
#include "common/log.h"
#include "common/mailbox.h"
#include "proxy/bus/bus.h"

#define STRONG_TEXT 160
#define STRONG_SKEWS 3 /* a lock is over for a writer so many max_clock_skew before it is for readers */

struct strong;

/* Of a region: without a lease; going for one; locks are served, hits not yet; all is served. */
enum strong_mode { STRONG_OUT, STRONG_TAKING, STRONG_WAITING, STRONG_READY };

enum strong_kind {
    STRONG_LOCK,       /* nobody may fill the key until strong_finish(), or lock_window is over */
    STRONG_INVALIDATE, /* the database holds the change already; no region serves what was true before once this is prepared */
    STRONG_RULE,       /* the same for a pattern: strong_confirm() */
};

/* Made by strong_write_create(); belongs to the caller until strong_prepare() and again from on_prepared to strong_finish(), which frees it. */
struct strong_write {
    struct mailbox *reply_to;
    void (*on_prepared)(struct strong_write *write); /* where `reply_to` is drained */
    void *ctx;
    enum strong_kind kind;
    uint16_t key_len;
    char key[KEY_MAX];

    enum err err; /* the result */
    char text[STRONG_TEXT]; /* what went wrong, for a client's error line */
    uint64_t fence_us; /* clock_mono_us(): the statement must not execute after this */

    /* The controller's. */
    struct mail mail;
    uint64_t version; /* of the lock; of a rule, that of the rule */
    bool is_settled;
};

struct strong_write *strong_write_create(enum strong_kind kind, struct span key);
void strong_write_destroy(struct strong_write *write); /* instead of strong_prepare() */
void strong_prepare(struct strong *strong, struct strong_write *write);
/* With locks: the write is committed, or has failed for certain: they are given up, without waiting for that. `is_settled` false: nobody knows, and the locks are left to lapse. */
void strong_finish(struct strong *strong, struct strong_write *write, bool is_settled);

/* What another sidecar, or this one, asks of this region's pool. Belongs to the worker from sink.serve() until strong_task_done(). */
enum strong_task_kind { TASK_LOCK, TASK_COMMIT, TASK_INVALIDATE };
struct strong_task {
    enum strong_task_kind kind;
    uint64_t version; /* of the lock */
    uint16_t key_len;
    char key[KEY_MAX];
    enum err err; /* the result: OK; ERR_CONFLICT: there is another's live lock; else the node's */
    struct mail mail; /* the worker's until strong_task_done() */
    struct mailbox *reply_to;
    void (*on_done)(struct mail *mail, void *owner);
};
void strong_task_done(struct strong_task *task, enum err err);

/* A rule (version as it was given) is confirmed once no sidecar of any region serves what it hides: lent until on_done. */
struct strong_confirmation {
    struct mailbox *reply_to;
    void (*on_done)(struct strong_confirmation *confirmation);
    struct invalidation event; /* is_pattern */
    enum err err;
    char text[STRONG_TEXT];
};
void strong_confirm(struct strong *strong, struct strong_confirmation *confirmation);

/* Lent to the sink from catch_up() to on_done. */
struct strong_catch_up {
    struct mailbox *reply_to;
    void (*on_done)(struct strong_catch_up *catch_up, enum err err); /* where that is drained */
    struct strong *strong;
};

/* What the controller needs of the rest; installed by app. Called on strong's thread. */
struct strong_sink {
    void *ctx;
    void (*serve)(void *ctx, struct strong_task *task);       /* posts to a worker */
    void (*apply_rule)(void *ctx, struct delivery *delivery); /* records it in the region and puts it in force here, then delivery_done(); peer is PEER_NONE */
    void (*catch_up)(void *ctx, struct strong_catch_up *catch_up); /* all rules that are recorded in the region by now are to be in force here */
    uint64_t (*digest)(void *ctx); /* of the strong rules that are in force in all workers (rules.h) */
    bool (*is_pool_whole)(void *ctx);   /* whether every node of the pool answers */
};

/* The rules' digest has changed: any thread. */
void strong_on_digest(struct strong *strong);

/* Whether a hit that the node has answered by now may be served. Any worker; one atomic and a look at the clock. */
struct strong_validity {
    _Atomic uint64_t serve_until_us; /* clock_mono_us(); 0: no share */
};
static inline bool strong_may_serve(const struct strong_validity *validity)
{
    uint64_t until_us = atomic_load_explicit(&validity->serve_until_us, memory_order_acquire);
    return until_us != 0 && clock_mono_us() < until_us;
}
const struct strong_validity *strong_validity(const struct strong *strong);

/* Whether a pattern can match a key of a strong namespace. */
bool strong_is_concerned(const struct config *config, struct span pattern);

enum err strong_create(const struct config *config, struct log *log, struct metrics *metrics, uint64_t ring, struct strong_sink sink, struct strong **out);
/* In two steps, as the bus: when the workers' threads have ended, its thread ends, and writes under way with ERR_STOPPING; destroy after the workers are gone. */
void strong_stop(struct strong *strong);
void strong_destroy(struct strong **strong);

/* For operators: 0 is the own region, then come config.bus.peers in their order, then the witnesses. Any thread. */
struct strong_status {
    bool is_connected;
    bool is_vote;        /* it counts for a majority */
    bool is_suspended;   /* as far as this sidecar knows */
    bool is_heard;       /* its holder's beacon, within the last lease */
    enum strong_mode mode; /* as that said */
    uint64_t number;
    char problem[STRONG_TEXT]; /* "" */
};
void strong_region_status(struct strong *strong, uint32_t index, struct strong_status *out);
/* For /readyz: whether strong hits are served here; `text` says why not, or what is missing for strong writes. */
bool strong_is_ready(struct strong *strong, char *text, size_t size);

#endif
