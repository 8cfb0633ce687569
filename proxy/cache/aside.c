#include "proxy/cache/aside.h"

#include "proxy/cache/covered.h"
#include "proxy/cache/freshness.h"
#include "proxy/cache/hide.h"
#include "proxy/cache/owe.h"
#include "proxy/cache/publish.h"

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk);

/* The node's command for each op, and the mode that makes it so. */
static const struct {
    enum meta_command command;
    char mode; /* 0: the default one */
} translations[] = {
    [OP_GET] = {META_GET, 0},          [OP_GAT] = {META_GET, 0},          [OP_TOUCH] = {META_GET, 0},
    [OP_SET] = {META_SET, 0},          [OP_ADD] = {META_SET, 'E'},        [OP_REPLACE] = {META_SET, 'R'},
    [OP_APPEND] = {META_SET, 'A'},     [OP_PREPEND] = {META_SET, 'P'},    [OP_DELETE] = {META_DELETE, 0},
    [OP_INCR] = {META_ARITHMETIC, 0},  [OP_DECR] = {META_ARITHMETIC, 'D'}, [OP_DEBUG] = {META_DEBUG, 0},
};

/* What makes or changes an entry gives it a version, unless the client has chosen one; a plain delete leaves nothing that could have one, and
 * with x alone the entry keeps its CAS, as memcached has it. Nor does arithmetic whose CAS the client wants to know: memcached answers the
 * version even where the number has outgrown its entry and the new one has a CAS of the node's own. */
static bool gets_version(const struct request *request, enum meta_command command)
{
    switch (command) {
    case META_SET: return true;
    case META_ARITHMETIC: return !(request->with & META_WANT_CAS);
    case META_GET: return request->with & META_VIVIFY;
    case META_DELETE: return request->with & META_INVALIDATE;
    default: return false;
    }
}

void aside_fail(struct operation *op, enum err err)
{
    bool is_delete = op->request.op == OP_DELETE && !op->request.has_value; /* not of a value that was too large */
    if (!is_delete) {
        operation_fail_node(op, err);
        return;
    }
    op->reply.status = REPLY_DELETED;
    op->reply.size = 0;
    owe_start(op, cache_version(op->cache), true, err);
}

/* What the node has was deleted, and it does not know yet. False: the command needs no look at it. */
static bool answer_owed(struct operation *op)
{
    switch (op->request.op) {
    case OP_GET:
    case OP_GAT:
        metrics_add(op->cache->metrics, METRIC_MISSES, op->namespace->index, 1);
        operation_done(op, REPLY_MISS);
        return true;
    case OP_TOUCH:
        operation_done(op, REPLY_NOT_FOUND);
        return true;
    case OP_DELETE:
    case OP_DEBUG:
        return false;
    case OP_SET:
        if (!(op->request.with & META_CAS)) {
            return false;
        }
        break;
    default:
        break;
    }
    operation_fail(op, "node %s has not yet got an earlier delete of this key", op->cache->config->pool.nodes[op->home].address.text);
    return true;
}

void aside_start(struct operation *op)
{
    const struct request *request = &op->request;
    if (unlikely(request->op == OP_DEBUG && memchr(request->key.data, '\n', request->key.len) != NULL)) {
        /* A node shows the key of an entry that N has made as it is: its line could be taken for several replies. */
        operation_tell(op, REPLY_ERROR, SPAN_LIT("CLIENT_ERROR me can not show a key with line ends"));
        return;
    }
    if (unlikely(is_owed(op->cache, op->request.key)) && answer_owed(op)) {
        return;
    }
    if (unlikely(op->cache->rules != NULL) && covered_start(op)) {
        return;
    }
    aside_submit(op);
}

void aside_submit(struct operation *op)
{
    struct cache *cache = op->cache;
    const struct request *request = &op->request;
    struct node *node = cache->pool.nodes[op->home];
    uint64_t rule = cache_rule(cache, request->key);
    struct meta_request meta;
    meta.command = translations[request->op].command;
    meta.mode = translations[request->op].mode;
    meta.with = request->with | (meta.mode != 0 ? META_MODE : 0);
    meta.key = request->key;
    meta.ttl = request->exptime;
    meta.client_flags = request->flags;
    meta.cas = request->cas;
    meta.delta = request->delta;
    meta.value_len = request->value_len;
    if (unlikely(request->protocol != PROTOCOL_CLASSIC)) {
        meta.version = request->version;
        meta.initial = request->initial;
        meta.vivify_ttl = request->vivify_ttl;
        meta.recache_ttl = request->recache_ttl;
        memcpy(meta.ttl_order, request->ttl_order, META_ORDER_MAX);
    }
    bool is_versioned = gets_version(request, meta.command) || (rule != 0 && meta.command == META_ARITHMETIC);
    if (!(meta.with & META_VERSION) && is_versioned && node_has_versions(node)) {
        meta.with |= META_VERSION;
        meta.version = cache_version(cache);
    }
    if (unlikely(rule != 0)) {
        meta.with |= meta.command == META_GET ? META_WANT_CAS : 0;
        op->request.version = meta.with & META_VERSION ? meta.version : 0; /* for covered_freshen() */
    }
    op->call.on_reply = on_reply;
    enum err err = node_submit(node, &meta, op->value, op->value_chunk, &op->call);
    if (unlikely(err != OK)) {
        aside_fail(op, err);
    }
}

/* A change has been made in this region: tell the others if they are to know. */
static void changed(struct operation *op, enum reply_status status)
{
    bool is_delete = op->request.op == OP_DELETE && !op->request.has_value; /* not of a value that was too large */
    bool is_heard = is_delete || op->namespace->config->on_set == ON_SET_INVALIDATE;
    if (op->cache->bus == NULL || !is_heard) {
        operation_done(op, status);
        return;
    }
    op->reply.status = status;
    publish_start(op, cache_version(op->cache));
}

static void on_found(struct operation *op, const struct meta_reply *reply, struct chunk *chunk)
{
    bool is_stub = reply->won && reply->value_len == 0 && (op->request.with & META_VIVIFY);
    metrics_add(op->cache->metrics, unlikely(is_stub) ? METRIC_MISSES : METRIC_HITS, op->namespace->index, 1);
    op->reply.chunk = chunk;
    op->reply.value = reply->value;
    operation_done(op, REPLY_VALUE);
}

/* The new number; META_HD: it was not asked for. */
static void on_number(struct operation *op, const struct meta_reply *reply)
{
    uint64_t number = 0;
    for (size_t i = 0; i < reply->value.len && reply->value.data[i] >= '0' && reply->value.data[i] <= '9'; i++) {
        number = number * 10 + (uint64_t)(reply->value.data[i] - '0');
    }
    op->reply.number = number;
    if (unlikely(op->cache->rules != NULL)) {
        covered_freshen(op);
    }
    changed(op, REPLY_NUMBER);
}

/* META_VA and META_HD: it was there, or has been done. */
static void on_success(struct operation *op, const struct meta_reply *reply, struct chunk *chunk)
{
    operation_describe(op, reply);
    if (unlikely(op->cache->rules != NULL) && !(op->request.with & META_WANT_CAS)) {
        op->reply.cas = 0; /* it was asked for because of the rules only */
    }
    switch (op->request.op) {
    case OP_GET:
    case OP_GAT: on_found(op, reply, chunk); return;
    case OP_TOUCH: operation_done(op, REPLY_TOUCHED); return;
    case OP_INCR:
    case OP_DECR: on_number(op, reply); return;
    case OP_DELETE: changed(op, REPLY_DELETED); return;
    case OP_DEBUG: operation_refused(op, reply); return;
    default: changed(op, REPLY_STORED); return;
    }
}

static void on_absent(struct operation *op)
{
    if (op->request.op == OP_TOUCH) {
        operation_done(op, REPLY_NOT_FOUND);
        return;
    }
    metrics_add(op->cache->metrics, METRIC_MISSES, op->namespace->index, 1);
    operation_done(op, REPLY_MISS);
}

static void on_hidden(void *ctx, enum err err, bool is_gone)
{
    struct operation *op = ctx;
    if (err != OK) {
        operation_fail_node(op, err);
    } else {
        aside_submit(op);
    }
}

/* What was found is older than a rule that covers it: as if it were not there. */
static bool is_hidden(struct operation *op, const struct meta_reply *reply)
{
    bool is_read = op->request.op == OP_GET || op->request.op == OP_GAT || op->request.op == OP_TOUCH;
    bool is_there = reply->status == META_VA || reply->status == META_HD;
    if (!is_read || !is_there || reply->cas == 0 || op->is_uncovered) { /* 0: the rule came later than the request was sent */
        return false;
    }
    uint64_t rule = cache_rule(op->cache, op->request.key);
    if (!freshness_is_hidden(reply->cas, rule)) {
        return false;
    }
    metrics_add(op->cache->metrics, METRIC_RULE_HITS, op->namespace->index, 1);
    struct hide hide = {op->cache, op->namespace, op->request.key, op->home, reply->cas, rule, false};
    if (op->request.with & META_VIVIFY) { /* the node is to make one */
        op->is_uncovered = true;
        hide_start(&hide, on_hidden, op);
        return true;
    }
    hide_start(&hide, NULL, NULL);
    on_absent(op);
    return true;
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct operation *op = container_of(call, struct operation, call);
    if (unlikely(err != OK)) {
        aside_fail(op, err);
        return;
    }
    if (unlikely(op->cache->rules != NULL) && is_hidden(op, reply)) {
        return;
    }
    enum op what = op->request.op;
    switch (reply->status) {
    case META_VA:
    case META_HD:
        on_success(op, reply, chunk);
        return;
    case META_EN:
        if (what == OP_GET || what == OP_GAT || what == OP_TOUCH) {
            on_absent(op);
        } else {
            operation_done(op, REPLY_MISS);
        }
        return;
    case META_NF:
        operation_describe(op, reply);
        if (what == OP_DELETE) {
            changed(op, REPLY_NOT_FOUND); /* not here, but perhaps in other regions */
        } else {
            operation_done(op, REPLY_NOT_FOUND);
        }
        return;
    case META_NS:
        operation_describe(op, reply);
        operation_done(op, REPLY_NOT_STORED);
        return;
    case META_EX:
        operation_describe(op, reply);
        operation_done(op, REPLY_EXISTS);
        return;
    case META_DEBUG_IS:
        operation_tell(op, REPLY_DEBUG, reply->text);
        return;
    default:
        break;
    }
    operation_refused(op, reply);
}
