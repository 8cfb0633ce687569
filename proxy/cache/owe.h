/* What:    what becomes of a delete whose key's home node could not be told: with a spool it is kept until the node is told, and published; the
 *          client is answered as if it had been, because from now on nobody who asks here sees what that node still has.
 * Fails:   without a spool, and where the spool does not take it, the node's error is answered as ever.
 */
#ifndef PROXY_CACHE_OWE_H
#define PROXY_CACHE_OWE_H

#include "proxy/cache/cache.h"

/* op->reply.status is what the client will be answered; `err` is the node's. */
void owe_start(struct operation *op, uint64_t version, bool is_published, enum err err);

/* Whether what the home node says of the key must not be believed. */
static inline bool is_owed(const struct cache *cache, struct span key)
{
    return cache->bus != NULL && bus_owes(cache->bus, key);
}

#endif
