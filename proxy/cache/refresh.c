#include "proxy/cache/refresh.h"

#include "proxy/cache/loading.h"

struct refresh {
    struct load load; /* its key is the entry's */
    struct fill_target target;
};

static void on_loaded(struct load *load)
{
    struct refresh *refresh = container_of(load, struct refresh, load);
    const struct fill_target *target = &refresh->target;
    struct cache *cache = target->cache;
    loading_count(cache, load);
    if (load->err == OK) {
        fill_loaded(target, load, FILL_TTL_OWN);
        if (load->found) {
            chunk_unref(&load->value);
        }
    } else if (target->is_tombstone) {
        lease_give_back(cache, target->namespace, target->key, target->home, target->lease, true);
    }
    cache->pending--;
    free(refresh);
}

void refresh_start(const struct fill_target *target)
{
    struct cache *cache = target->cache;
    struct refresh *refresh = xmalloc(sizeof *refresh);
    refresh->target = *target;
    struct loading loading = {cache, target->namespace, target->key, target->home, target->lease, target->needed, false};
    loading_prepare(&loading, &refresh->load, on_loaded);
    refresh->target.key = span_of(refresh->load.key, refresh->load.key_len);
    metrics_add(cache->metrics, METRIC_REFRESHES, target->namespace->index, 1);
    cache->pending++;
    loading_submit(cache, &refresh->load);
}
