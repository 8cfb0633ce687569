/* What:    the last step of a change that the other regions must hear of: publish it, and answer the client once the bus has it.
 * Fails:   an invalidation that the bus did not acknowledge is answered SERVER_ERROR; the change itself has been made by then.
 */
#ifndef PROXY_CACHE_PUBLISH_H
#define PROXY_CACHE_PUBLISH_H

#include "proxy/cache/cache.h"

/* op->reply.status is what the client will be answered. Without a bus the operation is done at once. */
void publish_start(struct operation *op, uint64_t version);

/* The event alone, for what does something else behind it. The key is copied; on_done may be called before this returns. */
void publish_key(struct cache *cache, struct span key, uint64_t version, void (*on_done)(void *ctx, enum err err), void *ctx);
void publish_fail(struct operation *op, enum err err); /* answers that the bus has not got it */

#endif
