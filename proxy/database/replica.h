/* What:    whether the region's replica may be read, and as of when what it shows was true. Pure.
 * Owns:    nothing beyond the caller's struct.
 * Threads: the caller's lock.
 *
 * Every SELECT on the replica brings the newest heartbeat that the replica had applied when it read the row (see heartbeat.h for why the two
 * belong together, and why a heartbeat h is a lower bound: whatever was acknowledged before h was taken is there).
 *
 *   UNKNOWN ──a heartbeat within max_lag──▶ FRESH ──an older one, or none──▶ STALE
 *      │                                      ▲                               │
 *      └──────────── one load at a time, every REPLICA_RETRY_MS, is the probe ┘
 */
#ifndef PROXY_DATABASE_REPLICA_H
#define PROXY_DATABASE_REPLICA_H

#include <stdbool.h>
#include <stdint.h>

#define REPLICA_RETRY_MS 500

enum replica_state { REPLICA_UNKNOWN, REPLICA_FRESH, REPLICA_STALE };

struct replica {
    enum replica_state state;
    uint32_t max_lag_ms;
    uint32_t max_skew_ms;
    uint64_t probe_at_us; /* when not fresh */
};

/* Whether a load may go there, which must not be older than `min_version`; one that can not be fresh enough yet does not try. */
bool replica_may_try(struct replica *replica, uint64_t min_version, uint64_t now_us, uint64_t wall_ms);

/* What an answer said: a heartbeat, or 0 for none. False: the replica lags too much, and what it said is not used. */
bool replica_heard(struct replica *replica, uint64_t heartbeat, uint64_t now_us, uint64_t wall_ms);

/* How old the data under a heartbeat may be, by this clock. */
uint64_t replica_age_ms(uint64_t heartbeat, uint64_t wall_ms);

/* The version of data under a heartbeat: a lower bound of when it was true, the skew of clocks allowed for. The low bits are made of `unique`,
 * the version of the load: the CAS values of two loads differ, although the heartbeat is the same. */
uint64_t replica_version(const struct replica *replica, uint64_t heartbeat, uint64_t unique);

#endif
