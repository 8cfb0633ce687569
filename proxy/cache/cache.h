/* What:    what a sidecar does with a request: cache_handle() looks up the key's namespace and starts the one operation that answers it.
 * Owns:    its free operations; pool, loader, bus and namespaces are borrowed.
 * Threads: its worker's.
 * Fails:   every operation ends with on_done exactly once, with a reply; errors are replies.
 *
 *   GET, aside:     aside ──▶ node ──▶ on_done                                     (aside.c: one client command, one meta command)
 *   GET, through:   read ──▶ node: hit ──▶ on_done                                 (read.c)
 *                        └─ won ──▶ loader ──▶ on_done, and behind it the guarded fill (fill.c) ──▶ node
 *                        └─ wait ──▶ joins the load, or asks the node again with back-off
 *                   A hit that a rule hides is taken out of the pool first (hide.c); in an aside namespace it is a miss (covered.c)
 *   DELETE:         delete in an aside namespace, tombstone in a through one (invalidate.c), then publish (publish.c) ──▶ on_done
 *   remote event:   bus ⇢ invalidate ──▶ delivery_done
 *   strong:         a write locks its key in every region first (writing_strong.c, change.c ⇢ proxy/strong ⇢ lock.c in each region)
 */
#ifndef PROXY_CACHE_CACHE_H
#define PROXY_CACHE_CACHE_H

#include "common/glob_index.h"
#include "common/version.h"
#include "proxy/bus/bus.h"
#include "proxy/cache/namespace.h"
#include "proxy/database/loader.h"
#include "proxy/database/writer.h"
#include "proxy/pool/pool.h"
#include "proxy/protocol/reply.h"
#include "proxy/protocol/request.h"
#include "proxy/strong/strong.h"

struct cache {
    const struct config *config;
    const struct namespaces *namespaces;
    struct loop *loop;
    struct log *log;
    struct metrics_shard *metrics;
    struct pool pool;
    struct loader *loader; /* or NULL */
    struct loader_intake intake; /* loads of this turn; flushed at its end */
    struct writer *writer; /* or NULL */
    struct bus *bus;       /* or NULL */
    struct strong *strong; /* or NULL: no namespace is strong */
    const struct strong_validity *validity; /* the share of the region's lease; or NULL: none */
    struct list settling;  /* writes in doubt (settle.c) */
    struct rules *rulebook; /* where a rule is asked for (rules.h) */
    const struct glob_index *rules; /* those in force; NULL: there are none */
    struct version_clock clock;
    uint64_t random;
    struct operation *free;
    uint32_t free_count;
    bool is_stopping; /* nothing is submitted to nodes or the loader any more */
    uint32_t asking;         /* reads of multi-gets whose nodes have not answered yet: what they miss is loaded together */
    uint32_t pending;        /* operations, fills and invalidations under way */
    uint32_t remote_pending; /* of these, the invalidations of other regions: nobody waits for them at the end, they are delivered again */
};

#define ERROR_TEXT_MAX 200

/* One request under way. From operation_get() to operation_put() it belongs to the caller, who sees it again in on_done. */
struct operation {
    struct node_call call;
    struct cache *cache;
    struct request request; /* its key is in key_bytes */
    struct reply reply;
    const struct namespace *namespace;
    uint32_t home; /* the index of the key's home node, from operation_locate() on */
    uint64_t started_us;
    uint64_t asked; /* a read: the version that a stub would have been made with */
    void (*on_done)(struct operation *op);
    void *owner;
    struct list link; /* the owner's, for its queue */
    bool is_done;     /* the owner's */
    bool is_kept;     /* the owner's: done, and waiting for its turn */
    bool is_asking;   /* counted in cache->asking */
    bool is_uncovered; /* an entry that a rule hides has been looked for, and removed (covered.c) */
    bool is_exclusive; /* takes several steps: the client's next request may not overtake it */
    /* A value to be stored, with the "\r\n" behind it where the protocol has one; only good until cache_handle() returns. */
    struct span value;
    struct chunk *value_chunk;
    struct chunk *held; /* what reply.value is in, once it is kept beyond on_reply; operation_put() lets go of it */
    char *text;         /* what reply.text is in, when it was made for this operation; malloc'ed */
    void *journey; /* state of what takes several steps (read.c, change.c, touch.c); NULL on a hit */
    struct operation *next_free;
    char key_bytes[KEY_MAX];
};

/* `pool`, `loader` and `bus` are set by the worker before the first request. `clock_id` tells this worker's versions from all others'. */
void cache_init(struct cache *cache, const struct config *config, const struct namespaces *namespaces, struct loop *loop, struct log *log,
                struct metrics_shard *metrics, uint32_t clock_id);
void cache_deinit(struct cache *cache);

struct operation *operation_get(struct cache *cache, const struct request *request); /* copies the key */
void operation_put(struct operation *op);

/* Finds the home nodes of up to KETAMA_MANY operations with keys, together, which is cheaper than one by one. */
void operation_locate(struct operation *const *ops, uint32_t count);

/* Starts an operation that has been located (flush_all has no key and need not be); on_done may be called before this returns. */
void cache_handle(struct operation *op);

/* Ends an operation with its reply. Within on_reply the value need not be kept by the caller: on_done either renders it at once or
 * calls operation_hold(). */
void operation_done(struct operation *op, enum reply_status status);
void operation_fail(struct operation *op, const char *fmt, ...) __attribute__((format(printf, 2, 3))); /* SERVER_ERROR … */
void operation_fail_node(struct operation *op, enum err err); /* the key's home node failed */
/* Ends an operation with a copy of a text. */
void operation_tell(struct operation *op, enum reply_status status, struct span text);
/* Passes on the home node's own error line, or says that its reply made no sense. */
void operation_refused(struct operation *op, const struct meta_reply *reply);
/* Keeps the value beyond the callback it was delivered in; false without memory. */
bool operation_hold(struct operation *op);

/* Takes over what a node said of an entry beside its value, as far as the client's protocol can say it. */
static inline void operation_describe(struct operation *op, const struct meta_reply *reply)
{
    op->reply.flags = reply->client_flags;
    op->reply.cas = reply->cas;
    if (unlikely(op->request.protocol == PROTOCOL_META)) {
        op->reply.ttl = reply->ttl;
        op->reply.last_access_s = reply->last_access_s;
        op->reply.size = reply->size;
        op->reply.was_hit = reply->was_hit;
        op->reply.won = reply->won;
        op->reply.wait = reply->wait;
        op->reply.stale = reply->stale;
        op->reply.origin = reply->stale ? ORIGIN_STALE : ORIGIN_HIT;
    }
}

/* node_submit() to the node with this index; ERR_STOPPING once the worker is being torn down. */
enum err cache_submit(struct cache *cache, uint32_t home, const struct meta_request *request, struct span value, struct chunk *chunk,
                      struct node_call *call);

/* The newest version of the rules that cover a key; 0: none does. Costs a branch while there are no rules. */
static inline uint64_t cache_rule(const struct cache *cache, struct span key)
{
    return likely(cache->rules == NULL) ? 0 : glob_index_find(cache->rules, key);
}

/* A number below `limit`, for jitter. */
uint64_t cache_random(struct cache *cache, uint64_t limit);

/* A version that is newer than all this worker gave out or saw. */
uint64_t cache_version(struct cache *cache);
/* Moves the clock past a version that was seen; one from beyond max_clock_skew is counted and logged. */
void cache_observe(struct cache *cache, uint64_t version);
/* The same for what an entry has. In a strong namespace it may be a lock's, which lies in the future. */
void cache_observe_entry(struct cache *cache, const struct namespace *namespace, uint64_t version);

#endif
