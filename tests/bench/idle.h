/* What:    holds idle connections, for measuring what they cost the server.
 * Owns:    nothing beyond the call.
 * Threads: any.
 * Fails:   false with a line on stderr.
 */
#ifndef BENCH_IDLE_H
#define BENCH_IDLE_H

#include "tests/bench/requests.h"

/* Opens count connections, has one GET answered on each if is_used, prints "ready", and returns when stdin closes. */
bool idle_hold(const char *address, uint32_t count, bool is_used, const struct protocol *protocol, const struct shape *shape,
               struct requests *requests);

#endif
