/* What:    the regional pool as one worker sees it: the ring, and a node for each of its entries.
 * Owns:    its nodes; the ring is shared, immutable and borrowed.
 * Threads: its loop's.
 */
#ifndef PROXY_POOL_POOL_H
#define PROXY_POOL_POOL_H

#include "common/ketama.h"
#include "proxy/pool/node.h"

struct pool {
    const struct ketama *ring;
    struct node **nodes; /* by the index that the ring picks for a key */
    uint32_t count;
    struct resolver resolver;
};

/* The ring of a configuration's nodes, for all workers. */
enum err pool_ring(const struct config_pool *config, struct ketama **out);

void pool_init(struct pool *pool, const struct ketama *ring, const struct config *config, struct loop *loop, struct log *log,
               struct metrics_shard *metrics);
void pool_deinit(struct pool *pool);

/* Every node has been tried: see node_was_tried(). */
bool pool_was_tried(const struct pool *pool);

#endif
