/* What:    switches for tests that must see a promise broken: each takes one guard of docs/consistency.md out, or sets this process's clock
 *          ahead. They exist in builds with -Dtest_hooks=true only; in all others a guard is the constant `true`.
 * Owns:    nothing; the switches are options of the configuration's section `test`.
 * Threads: any.
 */
#ifndef COMMON_GUARD_H
#define COMMON_GUARD_H

#include "common/clock.h"
#include "common/config.h"

enum guard {
    GUARD_NONE,
    GUARD_FILL_CAS,             /* a fill is stored only if the CAS is still that of the lease */
    GUARD_TOMBSTONE_VERSION,    /* a tombstone refuses data older than the invalidation */
    GUARD_AS_OF,                /* a replica's rows are as old as its newest heartbeat says */
    GUARD_SKEW,                 /* an event leaves an entry alone only if it is newer by more than max_clock_skew */
    GUARD_POST_WRITE_TOMBSTONE, /* a written value that can not be stored leaves a tombstone */
    GUARD_STRONG_LEASE_WAIT,        /* who suspends a region waits until its lease has run out */
    GUARD_STRONG_FROM_SENDING,      /* a lease is valid from before its renewal was sent */
    GUARD_STRONG_BLANK_VOTE,        /* a voter that may have lost what it knew is no vote for one lease */
    GUARD_STRONG_CREATE,            /* a record that is missing is made only under a valid lease, or with a higher number */
    GUARD_STRONG_COMEBACK_WAIT,     /* who comes back waits before it serves */
    GUARD_STRONG_PROOF_AGE,         /* a proof that a region is suspended is good for one lease */
    GUARD_STRONG_SHARE,         /* a strong namespace is served from the cache only under a share of the region's lease */
    GUARD_STRONG_LOCK,          /* a key is locked before it is written */
    GUARD_STRONG_LOCKING_READ,  /* what a strong namespace stores was loaded with a locking read */
};

#ifdef OUTRIGGER_TEST_HOOKS
static inline bool guard_is_on(const struct config *config, enum guard guard)
{
    return config->broken_guard != (uint32_t)guard;
}

static inline uint64_t guard_wall_ms(const struct config *config)
{
    return clock_wall_ms() + config->clock_offset_ms;
}
#else
#define guard_is_on(config, guard) true
#define guard_wall_ms(config) clock_wall_ms()
#endif

#endif
