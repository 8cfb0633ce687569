/* What:    the commands that change something, in a namespace with `write: through`: the database first, then this region's cache, then the other
 *          regions, then the answer (design §3).
 * Fails:   what the database has not taken is answered SERVER_ERROR, and its value is never in the cache. A write whose outcome nobody knows
 *          is answered SERVER_ERROR, too; the key is invalidated at once, and once more when a locking read has settled the outcome.
 *
 *   LOOK: mg K c N<lease ttl> E<now>      the CAS that the key has, or the lease of a stub: who reads meanwhile waits for it, or has the old value
 *     │ node away: answered so; nothing has been written
 *   RESERVE: with a spool, the invalidation is on the disk first (bus.h)
 *   WRITE: a version is taken ⇢ the writer's thread: the database commits
 *     ├ not stored, not found, refused, failed ──▶ the lease is given back ──▶ answered
 *     ├ in doubt ──▶ tombstone, publish ──▶ answered; SETTLE ⇢ a locking read ──▶ tombstone, publish
 *   STORE: ms K C<seen> E<version of the write>    only if nothing has happened to the key since LOOK (fill.c)
 *     │ EX, NF: tombstone with a version of now (invalidate.c); so for delete, touch and what can not be an entry
 *   publish ──▶ answered
 *
 * In a strong namespace locks in every region take the place of RESERVE, STORE and publish: writing_strong.c.
 *
 * Of two writers of one key whose LOOKs saw the same CAS one stores, and the other leaves a tombstone: whichever of their rows is the last one, no
 * other stays in the cache. `cas` compares with the row itself: the entry must have the CAS that the client names, and the row must be what the
 * entry is.
 */
#ifndef PROXY_CACHE_WRITING_H
#define PROXY_CACHE_WRITING_H

#include "proxy/cache/cache.h"

void writing_start(struct operation *op);

#endif
