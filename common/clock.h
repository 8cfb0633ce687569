/* What:    the two clocks. Everything that decides by time takes "now" as an argument, so tests hand in their own.
 * Threads: any.
 */
#ifndef COMMON_CLOCK_H
#define COMMON_CLOCK_H

#include <stdint.h>

uint64_t clock_mono_us(void); /* monotonic, microseconds; for deadlines and latencies */
uint64_t clock_wall_ms(void); /* since 1970, milliseconds; for versions and timestamps only */

#endif
