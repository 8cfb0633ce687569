/* What:    a load from the database as the cache wants it: its version, deadline and lease, and how its end is counted.
 * Owns:    nothing; the struct load is its user's.
 * Threads: its worker's.
 */
#ifndef PROXY_CACHE_LOADING_H
#define PROXY_CACHE_LOADING_H

#include "proxy/cache/cache.h"

/* What is to be loaded, and how fresh it must be. */
struct loading {
    struct cache *cache;
    const struct namespace *namespace;
    struct span key;
    uint32_t home;
    uint64_t lease;    /* 0: none */
    uint64_t needed;   /* no row older than this is good enough */
    bool primary_only; /* the node could not tell whether the key was invalidated */
};

/* Fills in a load of this key; the lease is what others may join it by. In a strong namespace the primary is asked; and what a lease lets be stored is read
 * with a lock, which waits for the COMMIT of a writer whose own lock in the pool may be over. The version is taken now: after the lease was seen and before the
 * database is asked, which is what makes the one rule work. */
void loading_prepare(const struct loading *loading, struct load *load, void (*on_done)(struct load *load));

/* Hands it to the loader. What can not be queued ends at once, with load->on_done, before this returns. */
void loading_submit(struct cache *cache, struct load *load);

void loading_count(struct cache *cache, const struct load *load); /* once, in on_done of a load that was not joined */

#endif
