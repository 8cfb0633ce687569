#include "proxy/pool/pool.h"

enum err pool_ring(const struct config_pool *config, struct ketama **out)
{
    struct ketama_node *nodes = xcalloc(config->node_count, sizeof *nodes);
    for (uint32_t i = 0; i < config->node_count; i++) {
        const struct address *address = &config->nodes[i].address;
        nodes[i] = (struct ketama_node){
            .host = address->path != NULL ? address->path : address->host,
            .port = address->port,
            .weight = config->nodes[i].weight,
        };
    }
    enum err err = ketama_create(nodes, config->node_count, out);
    free(nodes);
    return err;
}

void pool_init(struct pool *pool, const struct ketama *ring, const struct config *config, struct loop *loop, struct log *log,
               struct metrics_shard *metrics)
{
    pool->ring = ring;
    pool->count = config->pool.node_count;
    pool->nodes = xcalloc(pool->count, sizeof(struct node *));
    resolver_init(&pool->resolver, loop);
    struct node_context context = {config, loop, &pool->resolver, log, metrics};
    for (uint32_t i = 0; i < pool->count; i++) {
        pool->nodes[i] = node_create(&context, i);
    }
}

void pool_deinit(struct pool *pool)
{
    for (uint32_t i = 0; i < pool->count; i++) {
        node_destroy(&pool->nodes[i]);
    }
    free(pool->nodes);
    pool->nodes = NULL;
    resolver_deinit(&pool->resolver);
}

bool pool_was_tried(const struct pool *pool)
{
    for (uint32_t i = 0; i < pool->count; i++) {
        if (!node_was_tried(pool->nodes[i])) {
            return false;
        }
    }
    return true;
}
