#include "common/version.h"

#define TICKS_PER_MS (1ULL << VERSION_SEQUENCE_BITS)

void version_clock_init(struct version_clock *clock, uint32_t id, uint32_t max_skew_ms)
{
    clock->last = 0;
    clock->id = id & (VERSION_IDS - 1);
    clock->max_skew_ms = max_skew_ms;
}

uint64_t version_next(struct version_clock *clock, uint64_t wall_ms)
{
    uint64_t now = wall_ms * TICKS_PER_MS;
    clock->last = now > clock->last ? now : clock->last + 1;
    return clock->last << VERSION_ID_BITS | clock->id;
}

bool version_observe(struct version_clock *clock, uint64_t version, uint64_t wall_ms)
{
    uint64_t tick = version >> VERSION_ID_BITS;
    uint64_t limit = (wall_ms + clock->max_skew_ms) * TICKS_PER_MS;
    bool within = tick <= limit;
    if (!within) {
        tick = limit;
    }
    if (tick > clock->last) {
        clock->last = tick;
    }
    return within;
}

uint64_t version_shift(uint64_t version, int64_t ms)
{
    uint64_t distance = ms < 0 ? -(uint64_t)ms : (uint64_t)ms;
    uint64_t delta = distance > version_ms(VERSION_MAX) ? VERSION_MAX : distance << VERSION_MS_SHIFT;
    if (ms < 0) {
        return version > delta ? version - delta : 0;
    }
    return version < VERSION_MAX - delta ? version + delta : VERSION_MAX;
}
