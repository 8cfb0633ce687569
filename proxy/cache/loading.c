#include "proxy/cache/loading.h"

void loading_prepare(struct cache *cache, const struct namespace *namespace, struct span key, uint64_t lease, struct load *load,
                     void (*on_done)(struct load *load))
{
    *load = (struct load){
        .reply_to = &cache->loop->mailbox,
        .on_done = on_done,
        .namespace = namespace->index,
        .lease = lease,
        .version = cache_version(cache),
        .deadline_us = cache->loop->now_us + 1000ULL * cache->config->database->timeout_ms,
        .key_len = (uint16_t)key.len,
    };
    memcpy(load->key, key.data, key.len);
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
