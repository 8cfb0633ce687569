#include "proxy/cache/loading.h"

#include "common/guard.h"

void loading_prepare(const struct loading *loading, struct load *load, void (*on_done)(struct load *load))
{
    struct cache *cache = loading->cache;
    const struct namespace *namespace = loading->namespace;
    bool is_strong = namespace_is_strong(namespace);
    *load = (struct load){
        .reply_to = &cache->loop->mailbox,
        .on_done = on_done,
        .namespace = namespace->index,
        .lease = loading->lease,
        .version = cache_version(cache),
        .min_version = guard_is_on(cache->config, GUARD_TOMBSTONE_VERSION) ? loading->needed : 0,
        .is_locking = is_strong && loading->lease != 0 && guard_is_on(cache->config, GUARD_STRONG_LOCKING_READ),
        .primary_only = is_strong || loading->primary_only || node_is_young(cache->pool.nodes[loading->home], 1000000ULL * namespace->config->tombstone_ttl_s),
        .deadline_us = cache->loop->now_us + 1000ULL * cache->config->database->timeout_ms,
        .key_len = (uint16_t)loading->key.len,
    };
    memcpy(load->key, loading->key.data, loading->key.len);
}

void loading_submit(struct cache *cache, struct load *load)
{
    enum err err = cache->is_stopping ? ERR_STOPPING : loader_submit(cache->loader, &cache->intake, load);
    if (err != OK) {
        load->err = err;
        load->on_done(load);
    }
}

void loading_count(struct cache *cache, const struct load *load)
{
    enum load_result result = load->err != OK ? LOAD_FAILED : load->found ? LOAD_FOUND : LOAD_ABSENT;
    metrics_add(cache->metrics, METRIC_LOADS, metric_index2(load->namespace, LOAD_RESULTS, result), 1);
}
