#include "proxy/cache/change.h"

#include "proxy/cache/fill.h"
#include "proxy/cache/hide.h"
#include "proxy/cache/invalidate.h"
#include "proxy/cache/lock.h"
#include "proxy/cache/owe.h"
#include "proxy/cache/publish.h"

struct change {
    uint64_t version;
};

static void on_invalidated(void *ctx, enum err err, enum invalidate_result result)
{
    struct operation *op = ctx;
    struct change *change = op->journey;
    uint64_t version = change->version;
    free(change);
    op->journey = NULL;
    bool is_delete = op->request.op == OP_DELETE;
    bool is_published = is_delete || op->namespace->config->on_set == ON_SET_INVALIDATE;
    op->reply.size = op->request.value_len; /* ms's s: what was sent, as nothing is stored */
    op->reply.status = is_delete ? REPLY_DELETED : REPLY_STORED;
    if (err != OK) {
        owe_start(op, version, is_published, err);
        return;
    }
    if (result != INVALIDATED) {
        op->reply.cas = 0;
        operation_done(op, result == INVALIDATE_EXISTS ? REPLY_EXISTS : REPLY_NOT_FOUND);
        return;
    }
    op->reply.cas = version;
    if (!is_published) {
        operation_done(op, op->reply.status);
        return;
    }
    publish_start(op, version);
}

/* --- in a strong namespace --- */

static void on_prepared(struct strong_write *write)
{
    struct operation *op = write->ctx;
    struct cache *cache = op->cache;
    if (write->err != OK) {
        operation_fail(op, "not invalidated everywhere: %s; send it again", write->text);
    } else {
        op->reply.cas = cache_version(cache);
        op->reply.size = op->request.value_len;
        operation_done(op, op->request.op == OP_DELETE ? REPLY_DELETED : REPLY_STORED);
    }
    strong_finish(cache->strong, write, true);
}

static void invalidate_strongly(struct operation *op)
{
    enum err err = lock_prepare(op->cache, STRONG_INVALIDATE, op->request.key, on_prepared, op);
    if (err != OK) {
        operation_fail(op, "not invalidated: %s", err_text(err));
    }
}

static void on_looked(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct operation *op = container_of(call, struct operation, call);
    if (err != OK) {
        operation_fail_node(op, err);
        return;
    }
    if (reply->status != META_HD && reply->status != META_EN) {
        operation_refused(op, reply);
        return;
    }
    bool has_value = reply->status == META_HD && entry_is_there(op->cache, op->request.key, reply);
    if (reply->status == META_HD && reply->won) { /* our look took the lease of a tombstone: it must be winnable again */
        lease_give_back(op->cache, op->namespace, op->request.key, op->home, reply->cas, true);
    }
    if (has_value && reply->cas == op->request.cas) {
        invalidate_strongly(op);
        return;
    }
    op->reply.cas = 0;
    operation_done(op, has_value ? REPLY_EXISTS : REPLY_NOT_FOUND);
}

/* The client's `cas`: there must be an entry, and it must have the CAS that is named. */
static void look(struct operation *op)
{
    struct meta_request meta = {.command = META_GET, .with = META_WANT_CAS, .key = op->request.key};
    op->call.on_reply = on_looked;
    enum err err = cache_submit(op->cache, op->home, &meta, (struct span){NULL, 0}, NULL, &op->call);
    if (err != OK) {
        operation_fail_node(op, err);
    }
}

void change_start(struct operation *op)
{
    const struct request *request = &op->request;
    if (request->op != OP_DELETE && request->op != OP_SET) {
        metrics_add(op->cache->metrics, METRIC_ERRORS, metric_index2(SOURCE_CLIENT, ERR_COUNT, ERR_UNSUPPORTED), 1);
        operation_fail(op, "namespace %s is read-through: write the database, then delete the key", op->namespace->config->name);
        return;
    }
    op->is_exclusive = true;
    if (namespace_is_strong(op->namespace)) {
        request->with & META_CAS ? look(op) : invalidate_strongly(op);
        return;
    }
    struct change *change = xmalloc(sizeof *change);
    /* After the application's own change of the database, which it made before it sent this. */
    change->version = cache_version(op->cache);
    op->journey = change;
    uint64_t expected = request->with & META_CAS ? request->cas : 0;
    if (request->with & META_CAS && expected == 0) {
        expected = UINT64_MAX; /* no entry has it */
    }
    invalidate_start(op->cache, op->namespace, request->key, change->version, expected, on_invalidated, op);
}
