/* What:    what the admin server asks of others: of a worker a read, a peek or a change of one key, done as if a client had sent it; of rules and
 *          workers an invalidation (proxy/admin/invalidate.h); of the bus whether the other regions have it (proxy/admin/wait.h).
 * Owns:    struct asks owns the mailbox that answers come to, and the asks that are under way.
 * Threads: the admin server's, but for asks_init() and asks_deinit(); a worker touches an ask only from its mailbox until it posts it back. An
 *          invalidation is posted back by whichever thread has finished its last part.
 * Fails:   ask_start() with ERR_OVERLOAD when too many are under way; an ask ends with a reply, errors are replies.
 *
 *   handler ─▶ ask_start ⇢ a worker's mailbox ─▶ operation ─▶ cache_handle … on_operation_done ⇢ asks.mailbox ─▶ ask->on_done
 *                        └▶ job_start ⇢ rules, workers … on_job_done ⇢ asks.mailbox ─▶ ask->on_done
 *                           with wait=regions, and unless it failed: … wait_start ⇢ bus … ⇢ asks.mailbox ─▶ ask->on_done
 *
 * Whoever asked may lose interest (ask_abandon()); the ask still counts until its worker has answered, so that workers are never asked more than they can do.
 */
#ifndef PROXY_ADMIN_ASK_H
#define PROXY_ADMIN_ASK_H

#include "proxy/cache/cache.h"

enum ask_kind { ASK_GET, ASK_PEEK, ASK_SET, ASK_DELETE, ASK_INVALIDATE, ASK_APPLIED };

struct job;
struct wait;

struct asks {
    struct mailbox mailbox; /* the admin thread drains it */
    struct cache *const *caches; /* the workers', in turn */
    uint32_t cache_count;
    uint32_t next;
    uint32_t max;
    uint32_t under_way;
    uint32_t jobs; /* of them: invalidations and waits, which end by themselves while rules, workers and bus run */
    uint32_t waits; /* of them: half of `max` at most, so that those who only wait leave room for others */
    _Atomic bool is_stopping; /* the server is to end: waits are over */
};

struct ask {
    struct mail mail;
    struct asks *asks;
    struct cache *cache;

    /* The question; `value` is malloc'ed, and the ask's. */
    enum ask_kind kind;
    char key[KEY_MAX];
    size_t key_len;
    char *value;
    size_t value_len;
    uint32_t flags;
    int64_t exptime; /* as memcached takes it */
    struct job *job; /* the ask's, of ASK_INVALIDATE alone, and its answer, too */
    struct wait *wait; /* the ask's, or NULL: the other regions are waited for, too; ASK_APPLIED: and nothing else */

    /* The answer; its spans are in `data`. */
    struct reply reply;
    char *data;
    const struct namespace *namespace;
    uint32_t home;

    /* The asker's. */
    void (*on_done)(struct ask *ask); /* frees it with ask_destroy() sooner or later */
    void *owner;                      /* NULL: nobody wants to know any more */
    bool wants_json;
};

enum err asks_init(struct asks *asks, struct cache *const *caches, uint32_t cache_count, uint32_t max);
/* When no worker runs any more: what they have answered meanwhile is freed. */
void asks_deinit(struct asks *asks);

struct ask *ask_create(enum ask_kind kind, struct span key); /* 1..KEY_MAX bytes */
struct ask *ask_create_job(struct job *job);                 /* takes it over */
void ask_destroy(struct ask **ask);

/* Takes the ask over until on_done, unless it fails. */
enum err ask_start(struct asks *asks, struct ask *ask);
void ask_abandon(struct ask *ask); /* on_done will not be called */
/* Whether it ends by itself, so that nobody else has to give it up. */
bool ask_has_end(const struct ask *ask);

#endif
