#include "proxy/cache/peek.h"

#include "proxy/cache/lock.h"
#include "proxy/cache/read.h"

struct give_back {
    struct node_call call;
    struct cache *cache;
};

static void on_given_back(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct give_back *g = container_of(call, struct give_back, call);
    g->cache->pending--;
    free(g);
}

/* Marks a tombstone anew, with version, value and TTL as they were (lease_give_back() knows namespaces' own only; this one may be an application's). */
static void give_back(struct operation *op, uint64_t seen)
{
    struct cache *cache = op->cache;
    struct give_back *g = xcalloc(1, sizeof *g);
    g->cache = cache;
    g->call.on_reply = on_given_back;
    cache->pending++;
    struct meta_request meta = {.command = META_DELETE, .with = META_CAS | META_INVALIDATE, .key = op->request.key, .cas = seen};
    if (node_has_versions(cache->pool.nodes[op->home])) {
        meta.with |= META_VERSION;
        meta.version = seen;
    }
    enum err err = cache_submit(cache, op->home, &meta, (struct span){NULL, 0}, NULL, &g->call);
    if (err != OK) {
        on_given_back(&g->call, err, NULL, NULL);
    }
}

static enum reply_origin origin_of(const struct operation *op, const struct meta_reply *reply)
{
    if (reply->stale && lock_is_live(op->cache, op->namespace, reply->cas)) {
        return ORIGIN_LOCK;
    }
    if (reply->stale) {
        return reply->value_len > 0 ? ORIGIN_STALE : ORIGIN_TOMBSTONE;
    }
    if (op->namespace->config->read == READ_ASIDE) {
        return ORIGIN_HIT;
    }
    if (is_negative(reply)) {
        return ORIGIN_NEGATIVE;
    }
    return reply->wait && reply->value_len == 0 ? ORIGIN_LEASE : ORIGIN_HIT;
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct operation *op = container_of(call, struct operation, call);
    if (err != OK) {
        operation_fail_node(op, err);
        return;
    }
    if (reply->status == META_EN) {
        operation_done(op, REPLY_MISS);
        return;
    }
    if (reply->status != META_VA) {
        operation_refused(op, reply);
        return;
    }
    if (reply->won) {
        give_back(op, reply->cas);
    }
    operation_describe(op, reply);
    op->reply.origin = (uint8_t)origin_of(op, reply);
    op->reply.chunk = chunk;
    op->reply.value = reply->value;
    operation_done(op, op->reply.origin == ORIGIN_HIT || op->reply.origin == ORIGIN_STALE ? REPLY_VALUE : REPLY_MISS);
}

void peek_start(struct operation *op)
{
    struct cache *cache = op->cache;
    op->namespace = namespaces_find(cache->namespaces, op->request.key);
    struct meta_request meta = {
        .command = META_GET,
        .with = META_WANT_VALUE | META_WANT_FLAGS | META_WANT_CAS | META_WANT_TTL | META_NO_BUMP,
        .key = op->request.key,
    };
    op->call.on_reply = on_reply;
    enum err err = cache_submit(cache, op->home, &meta, (struct span){NULL, 0}, NULL, &op->call);
    if (err != OK) {
        operation_fail_node(op, err);
    }
}
