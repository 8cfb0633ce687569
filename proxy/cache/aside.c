#include "proxy/cache/aside.h"

#include "proxy/cache/publish.h"

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk);

/* The client's command as a meta command; what it has in common with all others is set by the caller. */
static void translate(const struct request *request, struct meta_request *meta)
{
    switch (request->op) {
    case OP_GET:
        meta->command = META_GET;
        meta->with = META_WANT_VALUE | META_WANT_FLAGS | (request->with_cas ? META_WANT_CAS : 0);
        return;
    case OP_GAT:
        meta->command = META_GET;
        meta->with = META_WANT_VALUE | META_WANT_FLAGS | META_TTL | (request->with_cas ? META_WANT_CAS : 0);
        return;
    case OP_TOUCH:
        meta->command = META_GET;
        meta->with = META_TTL;
        return;
    case OP_DELETE:
        meta->command = META_DELETE;
        return;
    case OP_INCR:
    case OP_DECR:
        meta->command = META_ARITHMETIC;
        meta->with = META_WANT_VALUE | META_DELTA | META_VERSION | (request->op == OP_DECR ? META_MODE : 0);
        meta->mode = 'D';
        meta->delta = request->cas;
        return;
    default:
        break;
    }
    meta->command = META_SET;
    meta->with = META_VERSION | META_TTL | META_CLIENT_FLAGS;
    switch (request->op) {
    case OP_ADD:
        meta->mode = 'E';
        break;
    case OP_REPLACE:
        meta->mode = 'R';
        break;
    case OP_APPEND:
        meta->mode = 'A';
        break;
    case OP_PREPEND:
        meta->mode = 'P';
        break;
    case OP_CAS:
        meta->with |= META_CAS;
        return;
    default:
        return;
    }
    meta->with |= META_MODE;
}

void aside_start(struct operation *op)
{
    struct cache *cache = op->cache;
    const struct request *request = &op->request;
    struct node *node = cache->pool.nodes[op->home];
    struct meta_request meta;
    meta.with = 0;
    meta.key = request->key;
    meta.ttl = request->exptime;
    meta.client_flags = request->flags;
    meta.cas = request->cas;
    meta.value_len = request->value_len;
    translate(request, &meta);
    if (meta.with & META_VERSION) {
        if (node_has_versions(node)) {
            meta.version = cache_version(cache);
        } else {
            meta.with &= ~(uint32_t)META_VERSION;
        }
    }
    op->call.on_reply = on_reply;
    enum err err = node_submit(node, &meta, op->value, op->value_chunk, &op->call);
    if (unlikely(err != OK)) {
        operation_fail_node(op, err);
    }
}

/* A change has been made in this region: tell the others if they are to know. */
static void changed(struct operation *op, enum reply_status status)
{
    bool is_heard = op->request.command == COMMAND_DELETE || op->namespace->config->on_set == ON_SET_INVALIDATE;
    if (op->cache->bus == NULL || !is_heard) {
        operation_done(op, status);
        return;
    }
    op->reply.status = status;
    publish_start(op, cache_version(op->cache));
}

static void on_value(struct operation *op, const struct meta_reply *reply, struct chunk *chunk)
{
    if (op->request.op == OP_INCR || op->request.op == OP_DECR) {
        uint64_t number = 0;
        for (size_t i = 0; i < reply->value.len && reply->value.data[i] >= '0' && reply->value.data[i] <= '9'; i++) {
            number = number * 10 + (uint64_t)(reply->value.data[i] - '0');
        }
        op->reply.number = number;
        changed(op, REPLY_NUMBER);
        return;
    }
    metrics_add(op->cache->metrics, METRIC_HITS, op->namespace->index, 1);
    op->reply.flags = reply->client_flags;
    op->reply.cas = reply->cas;
    op->reply.chunk = chunk;
    op->reply.value = reply->value;
    operation_done(op, REPLY_VALUE);
}

static bool is_store(enum op op)
{
    return op == OP_SET || op == OP_ADD || op == OP_REPLACE || op == OP_APPEND || op == OP_PREPEND || op == OP_CAS;
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct operation *op = container_of(call, struct operation, call);
    if (unlikely(err != OK)) {
        operation_fail_node(op, err);
        return;
    }
    enum op what = op->request.op;
    switch (reply->status) {
    case META_VA:
        if (what == OP_GET || what == OP_GAT || what == OP_INCR || what == OP_DECR) {
            on_value(op, reply, chunk);
            return;
        }
        break;
    case META_EN:
        if (what == OP_TOUCH) {
            operation_done(op, REPLY_NOT_FOUND);
            return;
        }
        if (what == OP_GET || what == OP_GAT) {
            metrics_add(op->cache->metrics, METRIC_MISSES, op->namespace->index, 1);
            operation_done(op, REPLY_MISS);
            return;
        }
        break;
    case META_HD:
        if (what == OP_TOUCH) {
            operation_done(op, REPLY_TOUCHED);
            return;
        }
        if (is_store(what) || what == OP_DELETE) {
            changed(op, what == OP_DELETE ? REPLY_DELETED : REPLY_STORED);
            return;
        }
        break;
    case META_NF:
        if (what == OP_DELETE) {
            changed(op, REPLY_NOT_FOUND); /* not here, but perhaps in other regions */
        } else {
            operation_done(op, REPLY_NOT_FOUND);
        }
        return;
    case META_NS:
        operation_done(op, REPLY_NOT_STORED);
        return;
    case META_EX:
        operation_done(op, REPLY_EXISTS);
        return;
    default:
        break;
    }
    operation_refused(op, reply);
}
