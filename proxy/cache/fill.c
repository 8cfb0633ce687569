#include "proxy/cache/fill.h"

#include "common/guard.h"
#include "proxy/cache/freshness.h"
#include "proxy/cache/read.h"

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
        .with = META_VERSION | META_TTL | META_CLIENT_FLAGS | (guard_is_on(fill->cache->config, GUARD_FILL_CAS) ? META_CAS : 0),
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
        meta.with |= META_INVALIDATE | META_TTL | META_VERSION | tombstone_drops(namespace);
        meta.ttl = namespace->config->tombstone_ttl_s;
        meta.version = lease;
    }
    enum err err = cache_submit(cache, home, &meta, (struct span){NULL, 0}, NULL, &f->call);
    if (err != OK) {
        on_given_back(&f->call, err, NULL, NULL);
    }
}

static int64_t memcached_ttl(int64_t seconds)
{
    return seconds <= RELATIVE_TTL_MAX ? seconds : (int64_t)(clock_wall_ms() / 1000) + seconds;
}

static int64_t entry_ttl(const struct fill_target *target, const struct load *loaded)
{
    const struct config_namespace *config = target->namespace->config;
    int64_t ttl = config->ttl_s;
    if (config->ttl_jitter_s > 0 && ttl > 0) {
        ttl -= (int64_t)cache_random(target->cache, (uint64_t)MIN((int64_t)config->ttl_jitter_s, ttl - 1) + 1);
    }
    if (loaded->expires_in_s >= 0 && (ttl == 0 || loaded->expires_in_s < ttl)) {
        ttl = MAX(loaded->expires_in_s, 1);
    }
    return memcached_ttl(ttl);
}

int64_t fill_loaded(const struct fill_target *target, const struct load *loaded, int64_t exptime)
{
    struct cache *cache = target->cache;
    uint32_t negative_ttl = target->namespace->config->negative_ttl_s;
    uint64_t needed = MAX(target->needed, cache_rule(cache, target->key)); /* rules that came while it was loaded */
    bool is_fresh = freshness_may_fill(loaded->version, needed) || !guard_is_on(cache->config, GUARD_TOMBSTONE_VERSION);
    bool looks_negative = loaded->found && loaded->value_len == 0 && loaded->flags == NEGATIVE_FLAGS;
    if (!is_fresh || looks_negative || (!loaded->found && negative_ttl == 0)) {
        metrics_add(cache->metrics, METRIC_FILLS_REFUSED, target->namespace->index, !is_fresh);
        lease_give_back(cache, target->namespace, target->key, target->home, target->lease, target->is_tombstone);
        return 0;
    }
    struct fill fill = {
        .cache = cache,
        .namespace = target->namespace,
        .key = target->key,
        .home = target->home,
        .guard = target->lease,
        .version = loaded->version,
        .gives_back = true,
    };
    if (loaded->found) {
        fill.flags = loaded->flags;
        fill.ttl = exptime == FILL_TTL_OWN ? entry_ttl(target, loaded) : exptime;
        fill.chunk = loaded->value;
        fill.value = span_of(loaded->value->data, loaded->value_len);
        memcpy(loaded->value->data + loaded->value_len, "\r\n", 2);
    } else {
        fill.flags = NEGATIVE_FLAGS;
        fill.ttl = memcached_ttl(negative_ttl);
        fill.value = span_of("\r\n", 0);
    }
    fill_start(&fill);
    return fill.ttl;
}
