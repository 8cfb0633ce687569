/* What:    get and gat in a through namespace: hit, lease, load, guarded fill (design §3).
 * Fails:   a node that is away does not fail a read: the database answers, and nothing is stored. A database that is away fails misses only.
 *
 *   ASK: mg K v f c N<lease ttl> E<now>
 *     ├ hit ─────────────▶ answered (a negative entry is a miss)
 *     ├ older than a rule that covers it ─▶ made a tombstone (hide.c), ASK again
 *     ├ W or Z, a value ─▶ answered: it is about to expire (refresh_ahead), or stale and young enough (stale_while_revalidate);
 *     │                    with W loaded anew behind the answer (refresh.c)
 *     ├ W: we won ───────▶ LOAD with the lease ─▶ answered, and filled if the rule allows and nothing has happened to the key since
 *     ├ Z: another loads ▶ JOIN, when it is of this process and under the same lease
 *     │                    else WAIT with back-off, ASK again; after lease_wait LOAD without a lease
 *     ├ strong: locked by a write, or we have no share of the region's lease (before asking, or by the time of the answer) ─▶ LOAD without a lease, at once
 *     └ node away ───────▶ LOAD without a lease ─▶ answered, not filled; so is a read of a key whose node has not got an invalidation of it yet
 */
#ifndef PROXY_CACHE_READ_H
#define PROXY_CACHE_READ_H

#include "proxy/cache/cache.h"

/* Client flags that, together with an empty value, say "there is no such row". A row that looks like that is answered, but not cached. */
#define NEGATIVE_FLAGS 0x4e4f4e45U /* "NONE" */

static inline bool is_negative(const struct meta_reply *reply)
{
    return reply->value_len == 0 && reply->client_flags == NEGATIVE_FLAGS;
}

void read_start(struct operation *op);

#endif
