#include "proxy/database/breaker.h"

#include "common/base.h"

void breaker_init(struct breaker *breaker, uint32_t threshold, uint64_t seed)
{
    *breaker = (struct breaker){.threshold = threshold, .random = seed | 1};
}

static uint64_t backoff_us(struct breaker *breaker)
{
    breaker->random ^= breaker->random >> 12; /* xorshift64* */
    breaker->random ^= breaker->random << 25;
    breaker->random ^= breaker->random >> 27;
    uint64_t us = 1000 * MIN((uint64_t)BREAKER_MIN_MS << MIN(breaker->trips, 16U), BREAKER_MAX_MS);
    return us / 2 + (breaker->random * 0x2545f4914f6cdd1dULL >> 16) % (us / 2);
}

bool breaker_admits(struct breaker *breaker, uint64_t now_us)
{
    if (breaker->state == BREAKER_CLOSED) {
        return true;
    }
    if (now_us < breaker->until_us) {
        return false;
    }
    breaker->state = BREAKER_HALF_OPEN;
    breaker->until_us = now_us + 1000ULL * BREAKER_MAX_MS;
    return true;
}

void breaker_retry(struct breaker *breaker)
{
    if (breaker->state == BREAKER_OPEN) {
        breaker->until_us = 0;
    }
}

void breaker_success(struct breaker *breaker)
{
    breaker->state = BREAKER_CLOSED;
    breaker->failures = 0;
    breaker->trips = 0;
}

bool breaker_failure(struct breaker *breaker, uint64_t now_us)
{
    breaker->failures++;
    bool opens = breaker->state == BREAKER_HALF_OPEN || (breaker->state == BREAKER_CLOSED && breaker->failures >= breaker->threshold);
    if (opens) {
        breaker->state = BREAKER_OPEN;
        breaker->until_us = now_us + backoff_us(breaker);
        breaker->trips++;
    }
    return opens;
}
