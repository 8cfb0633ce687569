#include "proxy/cache/owe.h"

#include "common/clock.h"

struct owe {
    struct publication publication;
    struct operation *op;
    enum err err; /* the node's */
};

static void on_kept(struct publication *publication)
{
    struct owe *owe = container_of(publication, struct owe, publication);
    struct operation *op = owe->op;
    enum err err = owe->err;
    enum err kept = publication->err;
    free(owe);
    if (kept == OK) {
        operation_done(op, op->reply.status);
    } else {
        operation_fail(op, "node %s: %s, and it can not be kept for later: %s; send it again",
                       op->cache->config->pool.nodes[op->home].address.text, err_text(err), err_text(kept));
    }
}

void owe_start(struct operation *op, uint64_t version, bool is_published, enum err err)
{
    struct cache *cache = op->cache;
    const struct request *request = &op->request;
    /* A key that no node can have; and a delete whose result only the node could have said. */
    bool is_theirs = err == ERR_INVALID || (request->with & META_CAS);
    if (cache->bus == NULL || !bus_has_spool(cache->bus) || is_theirs) {
        operation_fail_node(op, err);
        return;
    }
    struct owe *owe = xmalloc(sizeof *owe);
    owe->op = op;
    owe->err = err;
    owe->publication = (struct publication){
        .reply_to = &cache->loop->mailbox,
        .on_done = on_kept,
        .event = {.version = version, .timestamp_ms = clock_wall_ms(), .key_len = (uint16_t)request->key.len},
    };
    memcpy(owe->publication.event.key, request->key.data, request->key.len);
    op->reply.cas = version;
    op->reply.ttl = op->reply.last_access_s = 0;
    op->reply.was_hit = op->reply.won = op->reply.wait = op->reply.stale = false;
    bus_owe(cache->bus, &owe->publication, is_published);
}
