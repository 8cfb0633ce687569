/* What:    an invalidation of one key applied to this region's pool: a tombstone in a through namespace; for an event of another region, a
 *          delete in an aside one.
 * Owns:    itself, from invalidate_start() until on_done has returned.
 * Threads: its worker's.
 * Fails:   on_done gets the node's error, or ERR_CONFLICT when the entry changed under us again and again: it must then be tried again.
 *
 *   LOOK: mg K c N<lease ttl> E<V>   finds the entry's CAS, or makes a stub whose CAS is V
 *     │ an event of another region, and the entry (no reader's stub) newer than V by more than the skew: nothing to be done
 *   MARK: md K C<seen> I x T<tombstone ttl> E<V, or newer than seen> (freshness.h)
 *     │ EX, NF: it changed since: LOOK again; after some tries MARK without C, with a version that lies the skew ahead
 *   done
 *
 * In a strong namespace a live lock (lock.h) is left alone, as it hides what there was, too; and MARK always names what LOOK has seen, so that none is lost.
 */
#ifndef PROXY_CACHE_INVALIDATE_H
#define PROXY_CACHE_INVALIDATE_H

#include "proxy/cache/cache.h"

enum invalidate_result { INVALIDATED, INVALIDATE_NOT_FOUND, INVALIDATE_EXISTS };

/* A client's change in a through namespace. `expected`: 0, or the CAS that the entry must have (the client's `cas`): otherwise it is left alone,
 * and the result says what there was. */
void invalidate_start(struct cache *cache, const struct namespace *namespace, struct span key, uint64_t version, uint64_t expected,
                      void (*on_done)(void *ctx, enum err err, enum invalidate_result result), void *ctx);

/* Applies an event that came over the bus, then calls delivery_done(). */
void invalidate_delivery(struct cache *cache, struct delivery *delivery);

#endif
