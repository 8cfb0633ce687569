/* What:    what follows a write whose outcome nobody knows: once it can not be committed any more, which a locking read on the primary shows, the
 *          key is invalidated again, here and in the other regions. Until then a reader may have stored either row.
 * Owns:    itself, from settle_start() until that has been done.
 * Threads: its worker's.
 * Fails:   a primary that can not be asked is asked again, until SETTLE_MAX_S have passed; then the key is invalidated all the same, and it is logged.
 */
#ifndef PROXY_CACHE_SETTLE_H
#define PROXY_CACHE_SETTLE_H

#include "proxy/cache/cache.h"

#define SETTLE_MAX_S 600

/* `deadline_us`: until then the write's own fence lets it through. */
void settle_start(struct cache *cache, const struct namespace *namespace, struct span key, uint64_t deadline_us);

/* The outcome is known, but the key's node could not be told: it is told again until it has been, and then the other regions once more. */
void settle_owed(struct cache *cache, const struct namespace *namespace, struct span key);

/* When the worker is torn down, and the writer has given everything back: forgets what only waits. */
void settle_stop(struct cache *cache);

#endif
