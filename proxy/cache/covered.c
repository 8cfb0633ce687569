#include "proxy/cache/covered.h"

#include "proxy/cache/aside.h"
#include "proxy/cache/freshness.h"
#include "proxy/cache/hide.h"

#define TRIES_MAX 8

struct covered {
    uint64_t rule;
    uint32_t tries;
};

static void look(struct operation *op);

static void fail(struct operation *op, enum err err)
{
    free(op->journey);
    op->journey = NULL;
    aside_fail(op, err);
}

static void go_on(struct operation *op)
{
    free(op->journey);
    op->journey = NULL;
    op->is_uncovered = true;
    aside_submit(op);
}

static void on_hidden(void *ctx, enum err err, bool is_gone)
{
    struct operation *op = ctx;
    if (err != OK) {
        fail(op, err);
    } else if (is_gone) {
        go_on(op);
    } else {
        look(op);
    }
}

/* "ME key exp=-1 la=12 cas=34 fetch=no …": the last one, since a key may say anything; false if there is none. */
static bool parse_cas(struct span line, uint64_t *out)
{
    static const char name[] = " cas=";
    for (size_t at = line.len; at-- > 0;) {
        if (!span_has_prefix(span_of(line.data + at, line.len - at), span_of(name, sizeof name - 1))) {
            continue;
        }
        uint64_t cas = 0;
        for (at += sizeof name - 1; at < line.len && line.data[at] >= '0' && line.data[at] <= '9'; at++) {
            cas = cas * 10 + (uint64_t)(line.data[at] - '0');
        }
        *out = cas;
        return true;
    }
    return false;
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct operation *op = container_of(call, struct operation, call);
    struct covered *covered = op->journey;
    uint64_t cas = 0;
    if (err != OK) {
        fail(op, err);
        return;
    }
    if (reply->status == META_EN) {
        go_on(op);
        return;
    }
    if (reply->status == META_HD) {
        cas = reply->cas;
    } else if (reply->status != META_DEBUG_IS || !parse_cas(reply->text, &cas)) {
        fail(op, reply->status == META_REFUSED ? ERR_REMOTE : ERR_PROTOCOL);
        return;
    }
    if (!freshness_is_hidden(cas, covered->rule)) {
        go_on(op);
        return;
    }
    metrics_add(op->cache->metrics, METRIC_RULE_HITS, op->namespace->index, 1);
    hide_start(&(struct hide){op->cache, op->namespace, op->request.key, op->home, cas, covered->rule, false}, on_hidden, op);
}

static void look(struct operation *op)
{
    struct covered *covered = op->journey;
    if (covered->tries++ == TRIES_MAX) {
        fail(op, ERR_CONFLICT);
        return;
    }
    struct meta_request meta = {.command = META_DEBUG, .key = op->request.key};
    if (memchr(op->request.key.data, '\n', op->request.key.len) != NULL) { /* `me` shows such a key as it is */
        meta.command = META_GET;
        meta.with = META_WANT_CAS | META_NO_BUMP;
    }
    op->call.on_reply = on_reply;
    enum err err = cache_submit(op->cache, op->home, &meta, (struct span){NULL, 0}, NULL, &op->call);
    if (err != OK) {
        fail(op, err);
    }
}

static bool needs_look(const struct request *request)
{
    switch (request->op) {
    case OP_GET:
    case OP_GAT:
    case OP_TOUCH: return false;
    case OP_SET: return request->with & (META_CAS | META_INVALIDATE); /* else it replaces whatever there is */
    default: return true;
    }
}

bool covered_start(struct operation *op)
{
    uint64_t rule = cache_rule(op->cache, op->request.key);
    if (rule == 0 || !needs_look(&op->request)) {
        return false;
    }
    op->is_exclusive = true;
    if (op->value_chunk != NULL) { /* it is needed beyond this turn */
        op->held = chunk_ref(op->value_chunk);
    }
    struct covered *covered = xmalloc(sizeof *covered);
    *covered = (struct covered){.rule = rule};
    op->journey = covered;
    look(op);
    return true;
}

struct freshen {
    struct node_call call;
    struct cache *cache;
};

static void on_freshened(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct freshen *freshen = container_of(call, struct freshen, call);
    freshen->cache->pending--;
    free(freshen);
}

void covered_freshen(const struct operation *op)
{
    struct cache *cache = op->cache;
    if (cache_rule(cache, op->request.key) == 0 || op->request.version == 0 || !op->is_uncovered) {
        return;
    }
    struct freshen *freshen = xmalloc(sizeof *freshen);
    *freshen = (struct freshen){{on_freshened}, cache};
    cache->pending++;
    struct meta_request meta = {
        .command = META_ARITHMETIC, .with = META_DELTA | META_VERSION, .key = op->request.key, .delta = 0, .version = op->request.version};
    enum err err = cache_submit(cache, op->home, &meta, (struct span){NULL, 0}, NULL, &freshen->call);
    if (err != OK) {
        on_freshened(&freshen->call, err, NULL, NULL);
    }
}
