#include "proxy/cache/touch.h"

#include "proxy/cache/fill.h"
#include "proxy/cache/freshness.h"
#include "proxy/cache/read.h"

#define TRIES_MAX 8

struct touch {
    uint32_t tries;
};

static void look(struct operation *op);

static void finish(struct operation *op, enum reply_status status)
{
    free(op->journey);
    op->journey = NULL;
    operation_done(op, status);
}

static void fail(struct operation *op, enum err err)
{
    free(op->journey);
    op->journey = NULL;
    operation_fail_node(op, err);
}

static void on_stored(void *ctx, enum fill_result result)
{
    struct operation *op = ctx;
    switch (result) {
    case FILL_STORED:
        finish(op, REPLY_TOUCHED);
        return;
    case FILL_REFUSED:
        look(op); /* it changed meanwhile */
        return;
    case FILL_FAILED:
        fail(op, ERR_UNAVAILABLE);
        return;
    }
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct operation *op = container_of(call, struct operation, call);
    if (err != OK) {
        fail(op, err);
        return;
    }
    bool is_stub = reply->wait && reply->value_len == 0; /* else it is being refreshed, and good */
    bool is_hidden = reply->status == META_VA && freshness_is_hidden(reply->cas, cache_rule(op->cache, op->request.key));
    if (reply->status != META_VA || reply->won || is_stub || reply->stale || is_negative(reply) || is_hidden) {
        if (reply->won) { /* our look took the lease of a tombstone: it must be winnable again */
            lease_give_back(op->cache, op->namespace, op->request.key, op->home, reply->cas, true);
        }
        finish(op, REPLY_NOT_FOUND);
        return;
    }
    op->reply.flags = reply->client_flags;
    op->reply.cas = reply->cas;
    if (fill_ends_early(op->cache, reply->cas, op->request.exptime)) {
        lease_give_back(op->cache, op->namespace, op->request.key, op->home, reply->cas, true);
        finish(op, REPLY_TOUCHED);
        return;
    }
    fill_start(&(struct fill){
        .cache = op->cache,
        .namespace = op->namespace,
        .key = op->request.key,
        .home = op->home,
        .guard = reply->cas,
        .version = reply->cas,
        .flags = reply->client_flags,
        .ttl = op->request.exptime,
        .value = reply->value,
        .chunk = chunk,
        .on_done = on_stored,
        .ctx = op,
    });
}

static void look(struct operation *op)
{
    struct touch *touch = op->journey;
    if (touch->tries++ == TRIES_MAX) {
        fail(op, ERR_CONFLICT);
        return;
    }
    struct meta_request meta = {
        .command = META_GET, .with = META_WANT_VALUE | META_WANT_FLAGS | META_WANT_CAS, .key = op->request.key};
    op->call.on_reply = on_reply;
    enum err err = cache_submit(op->cache, op->home, &meta, (struct span){NULL, 0}, NULL, &op->call);
    if (err != OK) {
        fail(op, err);
    }
}

void touch_start(struct operation *op)
{
    op->is_exclusive = true;
    op->journey = xcalloc(1, sizeof(struct touch));
    look(op);
}
