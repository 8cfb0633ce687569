/* What:    the loads that are lent to the loader: the queue, the table of those that can be joined, and how they end.
 * Owns:    its table; loads are borrowed until loads_finish() posts them.
 * Threads: struct loads is used under the loader's mutex; loads_finish() without it, as it copies results, on the thread whose
 *          shard it is given.
 *
 *   hold ─▶ an intake ─▶ release ─▶ queue ─▶ pop ─▶ (a loader thread runs it) ─▶ detach ─▶ finish ─▶ the load and all that joined it
 *             └─ expire, fail: detached ────────────────────────────▶ finish
 */
#ifndef PROXY_DATABASE_LOADS_H
#define PROXY_DATABASE_LOADS_H

#include "proxy/database/loader.h"

/* What waits for one host, oldest first. */
struct load_queue {
    struct load *head;
    struct load *tail;
};

struct loads {
    struct load_queue queues[HOSTS];
    uint32_t queued; /* in all of them */
    uint32_t held;   /* in intakes */
    uint32_t joined; /* loads that wait for another's result */
    uint32_t limit;  /* for all of them together */
    struct load **buckets; /* loads that can be joined, waiting or under way, by hash of namespace, key and lease */
    uint32_t bucket_mask;
    struct metrics_shard *metrics; /* for the queue's length */
};

void loads_init(struct loads *loads, uint32_t limit, struct metrics_shard *metrics);
void loads_deinit(struct loads *loads);

static inline bool loads_is_full(const struct loads *loads)
{
    return loads->queued + loads->held + loads->joined >= loads->limit;
}

/* A new one; from now on it can be joined, but it is not in the queue before its intake is released. */
void loads_hold(struct loads *loads, struct loader_intake *intake, struct load *load);
void loads_release(struct loads *loads, struct loader_intake *intake);

void loads_push_back(struct loads *loads, struct load *load); /* one that was popped: it is the next again, for load->host */

/* The oldest, and behind it others of the same namespace that are locking like it, or not, `max` at most. One that has lost several connections comes alone: it may be what
 * they died of. */
uint32_t loads_pop(struct loads *loads, enum host_kind host, struct load **out, uint32_t max);

/* Joins a load of the same namespace, key and lease. */
bool loads_join(struct loads *loads, struct load *load);

/* Takes a popped load, and those that joined it, out: nobody can join it any more. */
void loads_detach(struct loads *loads, struct load *load);

/* All that wait for a host, failed and detached, as a list by `next`. */
struct load *loads_fail(struct loads *loads, enum host_kind host, enum err err, const char *text);

/* All that wait for the replica wait for the primary from now on; and those of them for which it is time to. */
void loads_move(struct loads *loads);
void loads_move_late(struct loads *loads, uint64_t now_us, uint64_t *next_us);

/* Those whose deadline has passed, put before `list`: of the queue with all that joined them; and of those that joined one load,
 * which may be under way. *next_us is lowered to the first deadline that has not passed. */
struct load *loads_expire(struct loads *loads, uint64_t now_us, uint64_t *next_us, struct load *list);
struct load *loads_expire_joined(struct loads *loads, struct load *load, uint64_t now_us, uint64_t *next_us, struct load *list);

void load_clear_result(struct load *load);
void load_set_error(struct load *load, enum err err, const char *text);

/* Sends detached loads, by `next`, with their results, and with them those that joined; they are not ours any more. */
void loads_finish(struct metrics_shard *metrics, struct load *list);

#endif
