/* What:    looking at an entry without changing anything: neither loads nor counts, and shows tombstones, leases and locks. For operators.
 * Owns:    nothing; the operation is its caller's.
 * Threads: its worker's.
 *
 *   peek ──▶ node "mg KEY v f c t u" ──▶ on_done; the look takes the lease of a tombstone that nobody has, so it is given back at once
 */
#ifndef PROXY_CACHE_PEEK_H
#define PROXY_CACHE_PEEK_H

#include "proxy/cache/cache.h"

/* A located operation with OP_GET and PROTOCOL_META; reply.origin says what was found. */
void peek_start(struct operation *op);

#endif
