/* What:    the locks of strong namespaces in this region's pool (docs/decisions/2026-11-24-strong-controller.md): put, given up, and looked at.
 * Owns:    itself; a task is lent by proxy/strong from lock_serve() until strong_task_done().
 * Threads: its worker's.
 * Fails:   a task ends with ERR_CONFLICT when another's lock is there, or the entry changes again and again; ERR_TIMEOUT for a lock that is over, ERR_INVALID for a
 *          key that is of no strong namespace here; else with the node's error, and then nobody knows whether the lock was put.
 *
 *   LOCK        LOOK: mg K c N<lease ttl> E<version>           a stub, if there is nothing, so that there is a CAS to change
 *                 │ another's live lock: ERR_CONFLICT; this one already: done
 *               MARK: md K C<seen> I x T<its time> E<version>   now the entry's CAS is the lock's version, which is its name, too
 *                 │ EX, NF: it changed since: LOOK again
 *   COMMIT      md K C<version> I x T<tombstone ttl> E<now>     a tombstone of now, whose lease can be won; whatever else is there is left alone
 *   INVALIDATE  invalidate.c: a tombstone of now, but for a live lock, which does as much
 *
 * Nothing in a strong namespace changes an entry without naming its CAS, so nothing but its own COMMIT, or its end, takes a lock away.
 */
#ifndef PROXY_CACHE_LOCK_H
#define PROXY_CACHE_LOCK_H

#include "common/guard.h"
#include "proxy/cache/cache.h"
#include "proxy/cache/freshness.h"

void lock_serve(struct cache *cache, struct strong_task *task);

/* The other side: has a key locked, or invalidated, in all regions (strong_prepare()). Any other result than OK: on_prepared does not come. */
enum err lock_prepare(struct cache *cache, enum strong_kind kind, struct span key, void (*on_prepared)(struct strong_write *write), void *ctx);

/* Whether a tombstone with this CAS is a lock that is not over. */
static inline bool lock_is_live(const struct cache *cache, const struct namespace *namespace, uint64_t cas)
{
    return namespace_is_strong(namespace) && freshness_is_lock(cas, guard_wall_ms(cache->config), cache->config->max_clock_skew_ms);
}

/* Whether what the node has answered by now of a strong namespace's key may be served, and its lease used: under a share of the region's lease, and if the
 * node can not have lost a lock that it was given, as it was there for a whole lock window. */
static inline bool lock_may_serve(const struct cache *cache, uint32_t home)
{
    if (!guard_is_on(cache->config, GUARD_STRONG_SHARE)) {
        return true;
    }
    return cache->validity != NULL && strong_may_serve(cache->validity) &&
           !node_is_young(cache->pool.nodes[home], 1000ULL * cache->config->strong->lock_window_ms);
}

#endif
