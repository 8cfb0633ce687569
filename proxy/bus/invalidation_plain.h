/* What:    the common messages of invalidation.h, written and read without building a tree: keys of printable ASCII, no pattern, and exactly
 *          the text that invalidation_encode() makes of them. A third of the CPU of an event was jansson and its allocations.
 * Owns:    what it returns is malloc'ed and the caller's.
 * Threads: any; pure.
 * Fails:   false for every other message, right or wrong: the general way (jansson) decides. What is accepted here means the same there,
 *          which the fuzzer checks.
 */
#ifndef PROXY_BUS_INVALIDATION_PLAIN_H
#define PROXY_BUS_INVALIDATION_PLAIN_H

#include "proxy/bus/invalidation.h"

/* The events are valid (invalidation_is_valid()), and 1 to INVALIDATION_EVENTS_MAX. */
bool invalidation_plain_encode(const char *region, const struct invalidation *const *events, uint32_t count, char **out, size_t *out_len);

bool invalidation_plain_decode(const char *region, struct span message, struct invalidation **events, uint32_t *count);

#endif
