/* What:    one pass over one node: two connections, one that the node's crawler writes all entries to, and one for the deletions.
 * Owns:    its connections, for the time of the call.
 * Threads: the sweeper's; blocks, but looks at *is_stopping at least twice a second.
 * Fails:   ERR_UNAVAILABLE, ERR_TIMEOUT, ERR_IO, ERR_PROTOCOL, ERR_OVERLOAD (the node's crawler is busy), ERR_STOPPING.
 */
#ifndef PROXY_CACHE_SWEEP_NODE_H
#define PROXY_CACHE_SWEEP_NODE_H

#include <stdatomic.h>

#include "common/config.h"
#include "common/glob_index.h"

#define SWEEP_VERSIONED (1ULL << 40) /* a CAS below is a node's own: memcached counts them from 1 */

struct sweep_pass {
    const struct glob_index *index;
    const _Atomic bool *is_stopping;
    void (*on_found)(void *ctx, uint64_t rule_version, uint64_t cas); /* an entry that is to go */
    void *ctx;
    uint64_t deleted; /* counts */
};

enum err sweep_node(struct sweep_pass *pass, const struct address *node, uint32_t timeout_ms);

#endif
