/* What:    versions: the 64-bit hybrid logical clock values of design §1, and the clock that makes them.
 * Owns:    nothing beyond the caller's struct.
 * Threads: a version_clock belongs to one thread; each worker has its own, told apart by `id`.
 * Source:  Kulkarni et al., "Logical Physical Clocks", 2014, with the logical part in the low bits.
 *
 *   bit 63  62 … 21                  20 … 10      9 … 0
 *   0       milliseconds since 1970  sequence     id of the clock
 *
 * Versions sort by time, are unique as long as ids are, carry their timestamp, and stay below 2^63, because many clients
 * read CAS as a signed number.
 */
#ifndef COMMON_VERSION_H
#define COMMON_VERSION_H

#include <stdbool.h>
#include <stdint.h>

#define VERSION_ID_BITS 10
#define VERSION_SEQUENCE_BITS 11
#define VERSION_MS_SHIFT (VERSION_ID_BITS + VERSION_SEQUENCE_BITS)
#define VERSION_IDS (1U << VERSION_ID_BITS)
#define VERSION_MAX ((uint64_t)INT64_MAX)

struct version_clock {
    uint64_t last; /* newest tick (milliseconds and sequence) given out or seen, without the id */
    uint32_t id;
    uint32_t max_skew_ms;
};

void version_clock_init(struct version_clock *clock, uint32_t id, uint32_t max_skew_ms);

/* A new version, newer than every one this clock gave out or saw. */
uint64_t version_next(struct version_clock *clock, uint64_t wall_ms);

/* Moves the clock past a version that came from elsewhere, but never further ahead of wall_ms than max_skew_ms; returns false, with
 * the clock at that limit, if the version lies beyond. */
bool version_observe(struct version_clock *clock, uint64_t version, uint64_t wall_ms);

static inline uint64_t version_ms(uint64_t version)
{
    return version >> VERSION_MS_SHIFT;
}

/* A version moved by so many milliseconds (into the past if negative), for skew allowances; saturates at 0 and VERSION_MAX. */
uint64_t version_shift(uint64_t version, int64_t ms);

#endif
