#include "proxy/database/replica.h"

#include "common/base.h"
#include "common/version.h"

bool replica_may_try(struct replica *replica, uint64_t min_version, uint64_t now_us, uint64_t wall_ms)
{
    uint64_t best_ms = wall_ms - MIN(wall_ms, (uint64_t)replica->max_skew_ms); /* no heartbeat proves more than this by now */
    if (version_ms(min_version) >= best_ms) {
        return false;
    }
    if (replica->state == REPLICA_FRESH) {
        return true;
    }
    if (now_us < replica->probe_at_us) {
        return false;
    }
    replica->probe_at_us = now_us + 1000ULL * REPLICA_RETRY_MS;
    return true;
}

uint64_t replica_age_ms(uint64_t heartbeat, uint64_t wall_ms)
{
    return wall_ms - MIN(wall_ms, version_ms(heartbeat));
}

bool replica_heard(struct replica *replica, uint64_t heartbeat, uint64_t now_us, uint64_t wall_ms)
{
    /* One from the future was written by a clock that was wrong, and says nothing of how far the replica has come. */
    bool is_sane = version_ms(heartbeat) <= wall_ms + replica->max_skew_ms;
    bool is_fresh = heartbeat != 0 && is_sane && replica_age_ms(heartbeat, wall_ms) <= replica->max_lag_ms;
    if (!is_fresh && replica->state != REPLICA_STALE) {
        replica->probe_at_us = now_us + 1000ULL * REPLICA_RETRY_MS;
    }
    replica->state = is_fresh ? REPLICA_FRESH : REPLICA_STALE;
    return is_fresh;
}

uint64_t replica_version(const struct replica *replica, uint64_t heartbeat, uint64_t unique)
{
    uint64_t ms = version_ms(heartbeat);
    ms -= MIN(ms, 1ULL + replica->max_skew_ms); /* one more, for the low bits */
    return ms << VERSION_MS_SHIFT | unique * 0x9e3779b97f4a7c15ULL >> (64 - VERSION_MS_SHIFT);
}
