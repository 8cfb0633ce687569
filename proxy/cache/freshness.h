/* What:    THE ONE RULE of design §1, and nothing else. Every decision whether data may be stored, kept or served asks here.
 * Owns:    nothing; pure.
 * Threads: any.
 *
 * Data carries a version that is a lower bound of when it was true. An invalidation carries a version that is an upper bound of when it
 * became false. Data may be stored, kept or served from the cache only if its version is not older than the newest invalidation that
 * covers it.
 *
 * Clocks of different hosts differ by up to `skew_ms` (max_clock_skew). Where causality has ordered two versions (the loader saw the
 * tombstone before it asked the database) they are compared as they are; where two clocks are merely compared, the skew is allowed for.
 */
#ifndef PROXY_CACHE_FRESHNESS_H
#define PROXY_CACHE_FRESHNESS_H

#include "common/version.h"

/* The rule itself. */
static inline bool freshness_allows(uint64_t data_version, uint64_t invalidation_version)
{
    return data_version >= invalidation_version;
}

/* Whether loaded data may fill a lease of which freshness_needed() says what it needs. The loader saw the lease before it asked the database, so
 * causality orders the two; a replica's data carries a version that the skew was taken off already. */
static inline bool freshness_may_fill(uint64_t data_version, uint64_t needed_version)
{
    return freshness_allows(data_version, needed_version);
}

/* What data must not be older than to fill a lease: the tombstone under it. A stub that was made where nothing was demands nothing by itself: had
 * the key been invalidated within tombstone_ttl, which is longer than any data may lag, there would be a tombstone; and what is invalidated
 * from now on changes the CAS. (Where a tombstone may have been lost, see node_is_young(), there is the primary.) */
static inline uint64_t freshness_needed(uint64_t lease_version, bool is_tombstone)
{
    return is_tombstone ? lease_version : 0;
}

/* When an entry may be gone at the earliest, in the clock's milliseconds. What comes after it is a stub, which demands nothing: so nothing that may
 * still be loaded then, which is at most `lag_ms` old, may be older than what the entry covered: the tombstone that it was stored over, or whatever
 * the entry that it replaces covered. 0: it was stored where nothing was, and covers nothing. */
static inline uint64_t freshness_keep_until_ms(uint64_t covered_version, uint64_t lag_ms)
{
    return covered_version == 0 ? 0 : version_ms(covered_version) + lag_ms;
}

/* Whether an invalidation leaves an entry alone. The two versions may come from different hosts, and only their clocks order them. */
static inline bool freshness_survives(uint64_t entry_version, uint64_t invalidation_version, uint32_t skew_ms)
{
    return freshness_allows(entry_version, version_shift(invalidation_version, skew_ms));
}

/* The version of an invalidation of many keys. It is compared with those of entries by their clocks alone. */
static inline uint64_t freshness_rule(uint64_t now, uint32_t skew_ms)
{
    return version_shift(now, skew_ms);
}

/* Whether a rule hides an entry: it is a miss. The rule's version has the skew in it. */
static inline bool freshness_is_hidden(uint64_t entry_version, uint64_t rule_version)
{
    return !freshness_allows(entry_version, rule_version);
}

/* A lock of a strong namespace (proxy/strong) is a tombstone from the future: its version is when it ends. Like every tombstone it takes the
 * leases of those who load, and while it lives nobody wins one anew. It lives while it lies further ahead of the clock than any tombstone can that was
 * made for the present: the skew, and once more, because a clock that is ahead may have been moved past a rule. Its writer, whose clock is another,
 * must be done STRONG_SKEWS before it ends, and so before anybody takes it for dead. */
static inline bool freshness_is_lock(uint64_t tombstone_version, uint64_t now_ms, uint32_t skew_ms)
{
    return version_ms(tombstone_version) > now_ms + 2ULL * skew_ms;
}

/* How long its node must keep a lock, in seconds: until every clock takes it for dead; and memcached counts whole seconds. */
static inline uint64_t freshness_lock_ttl_s(uint64_t lock_version, uint64_t now_ms, uint32_t skew_ms)
{
    uint64_t end_ms = version_ms(lock_version) + 2ULL * skew_ms;
    return (end_ms > now_ms ? end_ms - now_ms + 999 : 0) / 1000 + 1;
}

/* The version of the tombstone that an invalidation leaves on an entry: strictly newer than what is there. Not older, because what is there may
 * be a tombstone that covers more; and not equal, because an unchanged CAS would leave the guards of fills and of joined loads that began before
 * the invalidation in force. `now` is a new version of the clock that has seen the entry's; where even that is not newer (an entry from beyond the
 * skew), the next number is. */
static inline uint64_t freshness_tombstone(uint64_t entry_version, uint64_t invalidation_version, uint64_t now)
{
    if (invalidation_version > entry_version) {
        return invalidation_version;
    }
    return now > entry_version ? now : entry_version + 1;
}

#endif
