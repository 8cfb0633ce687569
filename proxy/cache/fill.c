#include "proxy/cache/fill.h"

struct fill_call {
    struct node_call call;
    struct cache *cache;
    const struct namespace *namespace;
    uint32_t home;
    uint64_t lease; /* to be given back if the store fails; 0: none */
    void (*on_done)(void *ctx, enum fill_result result);
    void *ctx;
    size_t key_len;
    char key[KEY_MAX];
};

static void finish(struct fill_call *f, enum fill_result result)
{
    if (result == FILL_FAILED && f->lease != 0) {
        lease_give_back(f->cache, f->namespace, span_of(f->key, f->key_len), f->home, f->lease, true);
    }
    if (f->on_done != NULL) {
        f->on_done(f->ctx, result);
    }
    f->cache->pending--;
    free(f);
}

/* Fills are what uses a lease; a new TTL is not counted. */
static void on_stored(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct fill_call *f = container_of(call, struct fill_call, call);
    struct metrics_shard *metrics = f->cache->metrics;
    enum fill_result result = FILL_FAILED;
    if (err == OK && reply->status == META_HD) {
        result = FILL_STORED;
        metrics_add(metrics, METRIC_FILLS, f->namespace->index, f->lease != 0);
    } else if (err == OK && (reply->status == META_EX || reply->status == META_NF)) {
        result = FILL_REFUSED;
        metrics_add(metrics, METRIC_FILLS_REFUSED, f->namespace->index, f->lease != 0);
    } else if (err == OK) {
        metrics_add(metrics, METRIC_ERRORS, metric_index2(SOURCE_NODE, ERR_COUNT, ERR_REMOTE), 1);
    }
    finish(f, result);
}

static struct fill_call *call_create(struct cache *cache, const struct namespace *namespace, struct span key, uint32_t home)
{
    struct fill_call *f = xmalloc(sizeof *f);
    f->cache = cache;
    f->namespace = namespace;
    f->home = home;
    f->lease = 0;
    f->on_done = NULL;
    f->ctx = NULL;
    f->key_len = key.len;
    memcpy(f->key, key.data, key.len);
    cache->pending++;
    return f;
}

void fill_start(const struct fill *fill)
{
    struct fill_call *f = call_create(fill->cache, fill->namespace, fill->key, fill->home);
    f->lease = fill->gives_back ? fill->guard : 0;
    f->on_done = fill->on_done;
    f->ctx = fill->ctx;
    f->call.on_reply = on_stored;
    struct meta_request meta = {
        .command = META_SET,
        .with = META_CAS | META_VERSION | META_TTL | META_CLIENT_FLAGS,
        .key = fill->key,
        .cas = fill->guard,
        .version = fill->version,
        .ttl = fill->ttl,
        .client_flags = fill->flags,
        .value_len = fill->value.len,
    };
    /* The value as a node wants it ends with "\r\n"; whoever made this chunk left room for it. */
    struct span value = span_of(fill->value.data, fill->value.len + 2);
    enum err err = cache_submit(fill->cache, fill->home, &meta, value, fill->chunk, &f->call);
    if (err != OK) {
        finish(f, FILL_FAILED);
    }
}

static void on_given_back(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct fill_call *f = container_of(call, struct fill_call, call);
    f->cache->pending--;
    free(f);
}

void lease_give_back(struct cache *cache, const struct namespace *namespace, struct span key, uint32_t home, uint64_t lease,
                     bool is_tombstone)
{
    struct fill_call *f = call_create(cache, namespace, key, home);
    f->call.on_reply = on_given_back;
    struct meta_request meta = {.command = META_DELETE, .with = META_CAS, .key = key, .cas = lease};
    if (is_tombstone) {
        /* Deleting it would forget the invalidation; marking it anew, with the version it has, lets the next reader win. */
        meta.with |= META_INVALIDATE | META_DROP_VALUE | META_TTL | META_VERSION;
        meta.ttl = namespace->config->tombstone_ttl_s;
        meta.version = lease;
    }
    enum err err = cache_submit(cache, home, &meta, (struct span){NULL, 0}, NULL, &f->call);
    if (err != OK) {
        on_given_back(&f->call, err, NULL, NULL);
    }
}
