#include "proxy/cache/invalidate.h"

#include "common/guard.h"
#include "proxy/cache/fill.h"
#include "proxy/cache/freshness.h"
#include "proxy/cache/hide.h"
#include "proxy/cache/lock.h"

#define TRIES_MAX 16    /* of a client's cas */
#define TRIES_POLITE 8   /* then the key is marked whatever it has become meanwhile */

struct invalidate {
    struct node_call call;
    struct cache *cache;
    const struct namespace *namespace;
    uint32_t home;
    enum { LOOK, MARK, DELETE } step;
    bool is_remote; /* an event from the bus: it may be old, and entries may be newer. A client's own change is of now */
    uint32_t tries;
    uint64_t version;
    uint64_t expected;
    uint64_t lease; /* that LOOK won; 0: none */
    bool is_tombstone;
    void (*on_done)(void *ctx, enum err err, enum invalidate_result result);
    void *ctx;
    size_t key_len;
    char key[KEY_MAX];
};

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk);

static void finish(struct invalidate *inv, enum err err, enum invalidate_result result)
{
    if (err != OK && inv->lease != 0) { /* nobody shall wait for what LOOK won */
        lease_give_back(inv->cache, inv->namespace, span_of(inv->key, inv->key_len), inv->home, inv->lease, inv->is_tombstone);
    }
    inv->on_done(inv->ctx, err, result);
    inv->cache->pending--;
    free(inv);
}

static void submit(struct invalidate *inv, struct meta_request *meta)
{
    meta->key = span_of(inv->key, inv->key_len);
    enum err err = cache_submit(inv->cache, inv->home, meta, (struct span){NULL, 0}, NULL, &inv->call);
    if (err != OK) {
        finish(inv, err, INVALIDATED);
    }
}

static void look(struct invalidate *inv)
{
    if (inv->tries++ == TRIES_MAX) {
        finish(inv, ERR_CONFLICT, INVALIDATED);
        return;
    }
    inv->step = LOOK;
    inv->lease = 0;
    struct meta_request meta = {.command = META_GET, .with = META_WANT_CAS};
    if (inv->expected == 0) {
        meta.with |= META_VIVIFY | META_VERSION;
        meta.vivify_ttl = inv->namespace->config->lease_ttl_s; /* MARK makes it tombstone_ttl */
        meta.version = inv->version;
    }
    submit(inv, &meta);
}

static void mark(struct invalidate *inv, uint64_t seen)
{
    struct cache *cache = inv->cache;
    inv->step = MARK;
    cache_observe_entry(cache, inv->namespace, seen);
    bool is_polite = inv->expected != 0 || inv->tries < TRIES_POLITE || namespace_is_strong(inv->namespace);
    uint64_t now = cache_version(cache);
    struct meta_request meta = {
        .command = META_DELETE,
        .with = (is_polite ? META_CAS : 0) | META_INVALIDATE | META_TTL | META_VERSION | tombstone_drops(inv->namespace),
        .cas = seen,
        .ttl = inv->namespace->config->tombstone_ttl_s,
        /* Without a look at what it replaces, newer than anything that any clock can have given out by now. */
        .version = is_polite ? freshness_tombstone(seen, inv->version, now)
                             : MAX(seen + 1, version_shift(MAX(now, inv->version), cache->config->max_clock_skew_ms)),
    };
    submit(inv, &meta);
}

/* Twice: the clock of this entry's sidecar may be ahead, and may have been moved past a rule or a tombstone from ahead of it. */
static uint32_t skew_ms(const struct cache *cache)
{
    return guard_is_on(cache->config, GUARD_SKEW) ? 2 * cache->config->max_clock_skew_ms : 0;
}

static void on_looked(struct invalidate *inv, const struct meta_reply *reply)
{
    if (inv->expected == 0 && reply->stale && lock_is_live(inv->cache, inv->namespace, reply->cas)) {
        finish(inv, OK, INVALIDATED);
        return;
    }
    bool has_value = entry_is_there(inv->cache, span_of(inv->key, inv->key_len), reply);
    if (inv->expected != 0) {
        if (reply->won) { /* our look took the lease of a tombstone: it must be winnable again */
            lease_give_back(inv->cache, inv->namespace, span_of(inv->key, inv->key_len), inv->home, reply->cas, true);
        }
        if (!has_value || reply->cas != inv->expected) {
            finish(inv, OK, has_value ? INVALIDATE_EXISTS : INVALIDATE_NOT_FOUND);
            return;
        }
    } else {
        /* Another reader's stub says nothing of the data that will fill it, which may be a lagging replica's. */
        bool is_stub = reply->wait && !reply->stale;
        if (inv->is_remote && !reply->won && !is_stub && freshness_survives(reply->cas, inv->version, skew_ms(inv->cache))) {
            finish(inv, OK, INVALIDATED);
            return;
        }
        inv->lease = reply->won ? reply->cas : 0;
        inv->is_tombstone = reply->stale;
    }
    mark(inv, reply->cas);
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct invalidate *inv = container_of(call, struct invalidate, call);
    if (err != OK) {
        finish(inv, err, INVALIDATED);
        return;
    }
    switch (inv->step) {
    case LOOK:
        if (reply->status == META_HD) {
            on_looked(inv, reply);
            return;
        }
        if (reply->status == META_EN && inv->expected != 0) {
            finish(inv, OK, INVALIDATE_NOT_FOUND);
            return;
        }
        break;
    case MARK:
        if (reply->status == META_HD) {
            metrics_add(inv->cache->metrics, METRIC_TOMBSTONES, inv->namespace->index, 1);
            finish(inv, OK, INVALIDATED);
            return;
        }
        if (reply->status == META_EX || reply->status == META_NF) {
            look(inv);
            return;
        }
        break;
    case DELETE:
        if (reply->status == META_HD || reply->status == META_NF) {
            finish(inv, OK, INVALIDATED);
            return;
        }
        break;
    }
    finish(inv, reply->status == META_REFUSED ? ERR_REMOTE : ERR_PROTOCOL, INVALIDATED);
}

static struct invalidate *create(struct cache *cache, const struct namespace *namespace, struct span key, uint64_t version,
                                 void (*on_done)(void *ctx, enum err err, enum invalidate_result result), void *ctx)
{
    struct invalidate *inv = xmalloc(sizeof *inv);
    *inv = (struct invalidate){
        .call.on_reply = on_reply,
        .cache = cache,
        .namespace = namespace,
        .home = ketama_pick(cache->pool.ring, key),
        .version = version,
        .on_done = on_done,
        .ctx = ctx,
        .key_len = key.len,
    };
    memcpy(inv->key, key.data, key.len);
    cache->pending++;
    return inv;
}

void invalidate_start(struct cache *cache, const struct namespace *namespace, struct span key, uint64_t version, uint64_t expected,
                      void (*on_done)(void *ctx, enum err err, enum invalidate_result result), void *ctx)
{
    struct invalidate *inv = create(cache, namespace, key, version, on_done, ctx);
    inv->expected = expected;
    look(inv);
}

struct remote {
    struct cache *cache;
    struct delivery *delivery;
};

static void on_delivery_applied(void *ctx, enum err err, enum invalidate_result result)
{
    struct remote *remote = ctx;
    struct delivery *delivery = remote->delivery;
    remote->cache->remote_pending--;
    free(remote);
    /* A key that can not be sent to a node is not in one either: there is nothing to do, and would not be if it came again. */
    delivery_done(delivery, err == ERR_INVALID ? OK : err);
}

void invalidate_delivery(struct cache *cache, struct delivery *delivery)
{
    const struct invalidation *event = &delivery->event;
    struct span key = span_of(event->key, event->key_len);
    const struct namespace *namespace = namespaces_find(cache->namespaces, key);
    cache_observe(cache, event->version);
    struct remote *remote = xmalloc(sizeof *remote);
    *remote = (struct remote){cache, delivery};
    cache->remote_pending++;
    struct invalidate *inv = create(cache, namespace, key, event->version, on_delivery_applied, remote);
    delivery->home = (uint16_t)inv->home;
    inv->is_remote = true;
    if (namespace->config->read == READ_THROUGH) {
        look(inv);
        return;
    }
    /* What an application set carries no lower bound of when it was true, so nothing of it survives. */
    inv->step = DELETE;
    submit(inv, &(struct meta_request){.command = META_DELETE});
}
