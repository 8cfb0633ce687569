#include "proxy/cache/hide.h"

#include "proxy/cache/fill.h"
#include "proxy/cache/freshness.h"

struct hide_call {
    struct node_call call;
    struct cache *cache;
    const struct namespace *namespace;
    void (*on_done)(void *ctx, enum err err, bool is_gone);
    void *ctx;
};

static void finish(struct hide_call *h, enum err err, bool is_gone)
{
    if (h->on_done != NULL) {
        h->on_done(h->ctx, err, is_gone);
    }
    h->cache->pending--;
    free(h);
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct hide_call *h = container_of(call, struct hide_call, call);
    if (err != OK) {
        finish(h, err, false);
        return;
    }
    switch (reply->status) {
    case META_HD:
        metrics_add(h->cache->metrics, METRIC_TOMBSTONES, h->namespace->index, h->namespace->config->read == READ_THROUGH);
        finish(h, OK, true);
        return;
    case META_EX:
    case META_NF: finish(h, OK, false); return;
    case META_REFUSED: finish(h, ERR_REMOTE, false); return;
    default: finish(h, ERR_PROTOCOL, false); return;
    }
}

void hide_start(const struct hide *hide, void (*on_done)(void *ctx, enum err err, bool is_gone), void *ctx)
{
    struct cache *cache = hide->cache;
    struct hide_call *h = xmalloc(sizeof *h);
    *h = (struct hide_call){{on_reply}, cache, hide->namespace, on_done, ctx};
    cache->pending++;
    struct meta_request meta = {.command = META_DELETE, .with = META_CAS, .key = hide->key, .cas = hide->seen};
    if (hide->namespace->config->read == READ_THROUGH) {
        cache_observe_entry(cache, hide->namespace, hide->seen);
        meta.with |= META_INVALIDATE | META_TTL | META_VERSION | (hide->drops ? META_DROP_VALUE : tombstone_drops(hide->namespace));
        meta.ttl = hide->namespace->config->tombstone_ttl_s;
        meta.version = freshness_tombstone(hide->seen, hide->rule, cache_version(cache));
    }
    enum err err = cache_submit(cache, hide->home, &meta, (struct span){NULL, 0}, NULL, &h->call);
    if (err != OK) {
        finish(h, err, false);
    }
}
