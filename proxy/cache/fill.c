#include "proxy/cache/fill.h"

#include "common/guard.h"
#include "proxy/cache/invalidate.h"
#include "proxy/cache/freshness.h"
#include "proxy/cache/lock.h"
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

static void on_restored(void *ctx, enum err err, enum invalidate_result result)
{
}

/* A store that memcached refuses (too large, out of memory) takes the key away, tombstone and all, whatever CAS it named. */
static void restore(struct fill_call *f)
{
    f->lease = 0;
    invalidate_start(f->cache, f->namespace, span_of(f->key, f->key_len), cache_version(f->cache), 0, on_restored, NULL);
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
        restore(f);
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
    if (unlikely(lock_is_live(cache, namespace, lease))) {
        return;
    }
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

int64_t fill_ttl(struct cache *cache, const struct namespace *namespace, int64_t expires_in_s)
{
    const struct config_namespace *config = namespace->config;
    int64_t ttl = config->ttl_s;
    if (config->ttl_jitter_s > 0 && ttl > 0) {
        ttl -= (int64_t)cache_random(cache, (uint64_t)MIN((int64_t)config->ttl_jitter_s, ttl - 1) + 1);
    }
    if (expires_in_s >= 0 && (ttl == 0 || expires_in_s < ttl)) {
        ttl = MAX(expires_in_s, 1);
    }
    return memcached_ttl(ttl);
}

int64_t fill_least_ttl(const struct cache *cache, uint64_t covered_version)
{
    const struct config *config = cache->config;
    const struct config_database *database = config->database;
    if (covered_version == 0 || database == NULL || database->replica.text == NULL) {
        return 0;
    }
    /* As tombstone_ttl has it (config_check.c), and a timeout more: the version of a written entry is that much older than its row, at most. */
    uint64_t lag_ms = 1000ULL + 2ULL * database->timeout_ms + database->max_replica_lag_ms + 2ULL * config->max_clock_skew_ms;
    uint64_t until_ms = freshness_keep_until_ms(covered_version, lag_ms);
    uint64_t now_ms = guard_wall_ms(config);
    return until_ms > now_ms ? (int64_t)((until_ms - now_ms + 999) / 1000) : 0;
}

int64_t fill_ttl_at_least(int64_t ttl, int64_t least_s)
{
    if (ttl == 0 || least_s == 0) {
        return ttl;
    }
    int64_t left = ttl > RELATIVE_TTL_MAX ? ttl - (int64_t)(clock_wall_ms() / 1000) : ttl;
    return left < least_s ? least_s : ttl;
}

bool fill_ends_early(const struct cache *cache, uint64_t covered_version, int64_t ttl)
{
    return fill_ttl_at_least(ttl, fill_least_ttl(cache, covered_version)) != ttl;
}

int64_t fill_loaded(const struct fill_target *target, const struct load *loaded, int64_t exptime)
{
    struct cache *cache = target->cache;
    uint32_t negative_ttl = target->namespace->config->negative_ttl_s;
    uint64_t needed = MAX(target->needed, cache_rule(cache, target->key)); /* rules that came while it was loaded */
    bool is_fresh = freshness_may_fill(loaded->version, needed) || !guard_is_on(cache->config, GUARD_TOMBSTONE_VERSION);
    bool looks_negative = loaded->found && loaded->value_len == 0 && loaded->flags == NEGATIVE_FLAGS;
    int64_t least_ttl = fill_least_ttl(cache, target->needed);
    bool ends_early = loaded->found && loaded->expires_in_s >= 0 && loaded->expires_in_s < least_ttl; /* it may not be kept that long */
    ends_early = ends_early || (exptime != FILL_TTL_OWN && fill_ttl_at_least(exptime, least_ttl) != exptime);
    if (!is_fresh || looks_negative || ends_early || (!loaded->found && negative_ttl == 0)) {
        metrics_add(cache->metrics, METRIC_FILLS_REFUSED, target->namespace->index, !is_fresh);
        bool covers = target->is_tombstone || least_ttl > 0; /* an entry that must stay becomes a tombstone */
        lease_give_back(cache, target->namespace, target->key, target->home, target->lease, covers);
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
        fill.ttl = exptime == FILL_TTL_OWN ? fill_ttl(cache, target->namespace, loaded->expires_in_s) : exptime;
        fill.ttl = fill_ttl_at_least(fill.ttl, least_ttl);
        fill.chunk = loaded->value;
        fill.value = span_of(loaded->value->data, loaded->value_len);
        memcpy(loaded->value->data + loaded->value_len, "\r\n", 2);
    } else {
        fill.flags = NEGATIVE_FLAGS;
        fill.ttl = fill_ttl_at_least(memcached_ttl(negative_ttl), least_ttl);
        fill.value = span_of("\r\n", 0);
    }
    fill_start(&fill);
    return fill.ttl;
}
