/* What:    a store that succeeds only if nothing has happened to the key since its CAS was seen: the fill of a lease, and the new TTL of an
 *          entry that is touched. Also the way to give a lease back.
 * Owns:    itself; it frees itself after on_done.
 * Threads: its worker's.
 */
#ifndef PROXY_CACHE_FILL_H
#define PROXY_CACHE_FILL_H

#include "proxy/cache/cache.h"

enum fill_result { FILL_STORED, FILL_REFUSED, FILL_FAILED };

struct fill {
    struct cache *cache;
    const struct namespace *namespace;
    struct span key;
    uint32_t home;    /* its node */
    uint64_t guard;   /* the CAS that the key must still have */
    uint64_t version; /* that it then gets */
    uint32_t flags;
    int64_t ttl; /* seconds, as memcached takes it; 0: none */
    struct span value;
    struct chunk *chunk; /* what the value is in, or NULL */
    bool gives_back;     /* the guard is a lease of ours: if the store fails, nobody shall wait for it */
    void (*on_done)(void *ctx, enum fill_result result); /* or NULL */
    void *ctx;
};

/* Everything is copied or referenced before it returns; on_done may be called before that, too. */
void fill_start(const struct fill *fill);

/* Where a loaded row may go. */
struct fill_target {
    struct cache *cache;
    const struct namespace *namespace;
    struct span key;
    uint32_t home;
    uint64_t lease;    /* the CAS that was won, and that the key must still have */
    uint64_t needed;   /* older data may not be stored (freshness_needed()) */
    bool is_tombstone; /* the lease is on a tombstone: its version is that of an invalidation */
};

#define FILL_TTL_OWN INT64_MIN     /* the namespace's and the row's */
#define RELATIVE_TTL_MAX (30 * 24 * 3600) /* beyond, memcached takes seconds since 1970 */

/* The TTL of a row's entry, as memcached takes it; expires_in_s: the row's own, or -1. */
int64_t fill_ttl(struct cache *cache, const struct namespace *namespace, int64_t expires_in_s);

/* How long an entry that covers an invalidation (freshness_keep_until_ms()) must stay, in seconds: a lagging replica could bring back what was there
 * before. 0 without a replica. */
int64_t fill_least_ttl(const struct cache *cache, uint64_t covered_version);

/* A TTL that is not shorter than that; both as memcached takes them. */
int64_t fill_ttl_at_least(int64_t ttl, int64_t least_s);

/* Whether an entry with the TTL that a client named would be gone before it may be: then it becomes a tombstone, which nobody can read either. */
bool fill_ends_early(const struct cache *cache, uint64_t covered_version, int64_t ttl);

/* Stores what was loaded, or its absence, if the rule allows and the namespace remembers it; else the lease is given back. Returns the TTL of
 * the entry as memcached takes it. The room behind the value is written to. */
int64_t fill_loaded(const struct fill_target *target, const struct load *loaded, int64_t exptime);

/* What a tombstone drops: the value, unless it may be served stale. */
static inline uint32_t tombstone_drops(const struct namespace *namespace)
{
    return namespace->config->stale_while_revalidate_s > 0 ? 0 : META_DROP_VALUE;
}

/* Gives a lease back: the stub or tombstone with this CAS goes, or becomes a tombstone that can be won again. That of a live lock is nobody's to give. */
void lease_give_back(struct cache *cache, const struct namespace *namespace, struct span key, uint32_t home, uint64_t lease,
                     bool is_tombstone);

#endif
