#include "proxy/cache/flush.h"

#include <inttypes.h>

#include "proxy/cache/rules.h"

struct flush;

struct flush_call {
    struct node_call call;
    struct flush *flush;
    struct node *node;
};

struct flush {
    struct operation *op;
    uint32_t pending;
    struct node *failed; /* the first that did not */
    enum err err;
    struct flush_call calls[];
};

static void one_done(struct flush *flush, struct node *node, enum err err)
{
    if (err != OK && flush->failed == NULL) {
        flush->failed = node;
        flush->err = err;
    }
    if (--flush->pending > 0) {
        return;
    }
    struct operation *op = flush->op;
    struct node *failed = flush->failed;
    err = flush->err;
    free(flush);
    if (failed != NULL) {
        operation_fail(op, "node %s: %s", node_name(failed), err_text(err));
    } else {
        operation_done(op, REPLY_OK);
    }
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct flush_call *c = container_of(call, struct flush_call, call);
    node_rejuvenate(c->node);
    if (err == OK && reply->status != META_OK) {
        err = reply->status == META_REFUSED ? ERR_REMOTE : ERR_PROTOCOL;
    }
    one_done(c->flush, c->node, err);
}

struct flush_rule {
    struct rules_request request;
    struct operation *op;
};

static void on_rule_done(struct rules_request *request)
{
    struct flush_rule *flush = container_of(request, struct flush_rule, request);
    struct operation *op = flush->op;
    if (request->err != OK) {
        operation_fail(op, "%s", request->text);
    } else {
        operation_done(op, REPLY_OK);
    }
    free(flush);
}

/* flush_all: rule. Everything that is there is hidden from now on, in every region. */
static void flush_by_rule(struct operation *op)
{
    if (op->request.exptime != 0) {
        operation_fail(op, "flush_all is a rule here (flush_all: rule), which takes effect at once: a delay is not possible");
        return;
    }
    op->is_exclusive = true;
    struct flush_rule *flush = xcalloc(1, sizeof *flush);
    flush->op = op;
    flush->request.reply_to = &op->cache->loop->mailbox;
    flush->request.on_done = on_rule_done;
    flush->request.pattern[0] = '*';
    flush->request.pattern_len = 1;
    rules_submit(op->cache->rulebook, &flush->request);
}

void flush_start(struct operation *op)
{
    enum flush_mode mode = op->cache->config->flush_all;
    if (mode == FLUSH_RULE) {
        flush_by_rule(op);
        return;
    }
    if (mode == FLUSH_REFUSE) {
        metrics_add(op->cache->metrics, METRIC_ERRORS, metric_index2(SOURCE_CLIENT, ERR_COUNT, ERR_UNSUPPORTED), 1);
        operation_fail(op, "flush_all is not allowed here (flush_all: refuse)");
        return;
    }
    struct pool *pool = &op->cache->pool;
    struct flush *flush = xcalloc(1, sizeof *flush + pool->count * sizeof flush->calls[0]);
    flush->op = op;
    flush->pending = pool->count + 1; /* one of our own, so that it is not over before all were sent */
    op->is_exclusive = true;
    char line[48];
    int len = op->request.exptime == 0 ? snprintf(line, sizeof line, "flush_all\r\n")
                                       : snprintf(line, sizeof line, "flush_all %" PRId64 "\r\n", op->request.exptime);
    for (uint32_t i = 0; i < pool->count; i++) {
        struct flush_call *c = &flush->calls[i];
        *c = (struct flush_call){{on_reply}, flush, pool->nodes[i]};
        node_rejuvenate(c->node); /* its tombstones go, too; other workers and sidecars see it in its statistics */
        enum err err = node_submit_line(c->node, span_of(line, (size_t)len), &c->call);
        if (err != OK) {
            one_done(flush, c->node, err);
        }
    }
    one_done(flush, NULL, OK);
}
