#include "common/random.h"

#include <sys/random.h>
#include <sys/types.h>

#include "common/clock.h"

uint64_t random_seed(void)
{
    uint64_t random = 0;
    if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) {
        random = clock_mono_us() * 2654435769U ^ clock_wall_ms(); /* never seen */
    }
    return random != 0 ? random : 1;
}
