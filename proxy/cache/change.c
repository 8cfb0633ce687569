#include "proxy/cache/change.h"

#include "proxy/cache/invalidate.h"
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

void change_start(struct operation *op)
{
    const struct request *request = &op->request;
    if (request->op != OP_DELETE && request->op != OP_SET) {
        metrics_add(op->cache->metrics, METRIC_ERRORS, metric_index2(SOURCE_CLIENT, ERR_COUNT, ERR_UNSUPPORTED), 1);
        operation_fail(op, "namespace %s is read-through: write the database, then delete the key", op->namespace->config->name);
        return;
    }
    op->is_exclusive = true;
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
