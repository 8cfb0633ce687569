/* What:    a circuit breaker: whether a database host may be asked, after how it has answered so far. Pure.
 * Owns:    nothing beyond the caller's struct.
 * Threads: the caller's lock.
 *
 *   CLOSED ──`threshold` failures in a row──▶ OPEN ──its back-off is over──▶ HALF_OPEN: one load is let through
 *     ▲                                        ▲                               │   │
 *     │                                        └────── it fails: twice as long ┘   │
 *     └──────────────────────── anything is answered ──────────────────────────────┘
 *
 * The back-off is half fixed and half random, so that sidecars do not come back together. A trial that nobody hears of again does not keep
 * the breaker half open for good: after BREAKER_MAX_MS there is another.
 */
#ifndef PROXY_DATABASE_BREAKER_H
#define PROXY_DATABASE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#define BREAKER_MIN_MS 100
#define BREAKER_MAX_MS 5000

enum breaker_state { BREAKER_CLOSED, BREAKER_OPEN, BREAKER_HALF_OPEN };

struct breaker {
    enum breaker_state state;
    uint32_t threshold;
    uint32_t failures; /* in a row */
    uint32_t trips;    /* times it has opened since it was last closed */
    uint64_t until_us; /* open, or half open with this trial, until then */
    uint64_t random;
};

void breaker_init(struct breaker *breaker, uint32_t threshold, uint64_t seed);

/* Whether a load may go on now. True when the breaker is not closed: it is the trial. */
bool breaker_admits(struct breaker *breaker, uint64_t now_us);

/* There is a sign of life: the next trial need not wait. */
void breaker_retry(struct breaker *breaker);

void breaker_success(struct breaker *breaker);
/* True if this one has opened it. */
bool breaker_failure(struct breaker *breaker, uint64_t now_us);

#endif
