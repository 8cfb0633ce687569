/* What:    takes an entry that a rule hides out of the pool, if nothing has happened to it since it was seen: in a through namespace it becomes a
 *          tombstone whose version is not older than the rule's, in an aside one it is deleted.
 * Owns:    itself; it frees itself after on_done.
 * Threads: its worker's.
 * Fails:   on_done gets the node's error.
 */
#ifndef PROXY_CACHE_HIDE_H
#define PROXY_CACHE_HIDE_H

#include "proxy/cache/cache.h"
#include "proxy/cache/freshness.h"

struct hide {
    struct cache *cache;
    const struct namespace *namespace;
    struct span key;
    uint32_t home;
    uint64_t seen; /* the CAS that the key must still have */
    uint64_t rule; /* the version of the rule */
    bool drops;    /* the value must not be served stale: it was stale before */
};

/* `is_gone`: it was there, and is not any more; else something else has happened to it. on_done may be NULL, and may be called before this
 * returns. */
void hide_start(const struct hide *hide, void (*on_done)(void *ctx, enum err err, bool is_gone), void *ctx);

/* Whether a node has answered (to a get with c) that there is an entry with a value, which no rule hides. */
static inline bool entry_is_there(const struct cache *cache, struct span key, const struct meta_reply *reply)
{
    return !reply->won && !reply->wait && !reply->stale && !freshness_is_hidden(reply->cas, cache_rule(cache, key));
}

#endif
