#include "proxy/cache/lock.h"

#include "proxy/cache/invalidate.h"

#define TRIES_MAX 16
#define TTL_MAX_S 86400U /* no lock is for so long */

struct lock {
    struct node_call call;
    struct cache *cache;
    const struct namespace *namespace;
    struct strong_task *task;
    uint32_t home;
    enum { LOOK, MARK, COMMIT } step;
    uint32_t tries;
};

static void finish(struct lock *lock, enum err err)
{
    struct strong_task *task = lock->task;
    lock->cache->pending--;
    free(lock);
    strong_task_done(task, err);
}

static void submit(struct lock *lock, struct meta_request *meta)
{
    meta->key = span_of(lock->task->key, lock->task->key_len);
    enum err err = cache_submit(lock->cache, lock->home, meta, (struct span){NULL, 0}, NULL, &lock->call);
    if (err != OK) {
        finish(lock, err);
    }
}

static uint64_t ttl_s(const struct lock *lock)
{
    const struct config *config = lock->cache->config;
    return freshness_lock_ttl_s(lock->task->version, guard_wall_ms(config), config->max_clock_skew_ms);
}

static void look(struct lock *lock)
{
    if (lock->tries++ == TRIES_MAX) {
        finish(lock, ERR_CONFLICT);
        return;
    }
    lock->step = LOOK;
    submit(lock, &(struct meta_request){
                     .command = META_GET,
                     .with = META_WANT_CAS | META_VIVIFY | META_VERSION,
                     .vivify_ttl = lock->namespace->config->lease_ttl_s, /* MARK makes it the lock's */
                     .version = lock->task->version,
                 });
}

static void mark(struct lock *lock, uint64_t seen)
{
    lock->step = MARK;
    submit(lock, &(struct meta_request){
                     .command = META_DELETE,
                     .with = META_CAS | META_INVALIDATE | META_TTL | META_VERSION | META_DROP_VALUE,
                     .cas = seen,
                     .ttl = (int64_t)ttl_s(lock),
                     .version = lock->task->version,
                 });
}

/* What LOOK may have won is not given back: MARK makes the lease winnable again, and a live lock's nobody uses. */
static void on_looked(struct lock *lock, const struct meta_reply *reply)
{
    if (reply->stale && lock_is_live(lock->cache, lock->namespace, reply->cas)) {
        finish(lock, reply->cas == lock->task->version ? OK : ERR_CONFLICT);
        return;
    }
    cache_observe_entry(lock->cache, lock->namespace, reply->cas);
    mark(lock, reply->cas);
}

static void commit(struct lock *lock)
{
    lock->step = COMMIT;
    submit(lock, &(struct meta_request){
                     .command = META_DELETE,
                     .with = META_CAS | META_INVALIDATE | META_TTL | META_VERSION | META_DROP_VALUE,
                     .cas = lock->task->version,
                     .ttl = lock->namespace->config->tombstone_ttl_s,
                     .version = cache_version(lock->cache),
                 });
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct lock *lock = container_of(call, struct lock, call);
    if (err != OK) {
        finish(lock, err);
        return;
    }
    bool is_changed = reply->status == META_EX || reply->status == META_NF;
    if (lock->step == LOOK && reply->status == META_HD) {
        on_looked(lock, reply);
    } else if (lock->step == MARK && is_changed) {
        look(lock);
    } else if (lock->step != LOOK && (reply->status == META_HD || is_changed)) {
        metrics_add(lock->cache->metrics, METRIC_TOMBSTONES, lock->namespace->index, reply->status == META_HD);
        finish(lock, OK);
    } else {
        finish(lock, reply->status == META_REFUSED ? ERR_REMOTE : ERR_PROTOCOL);
    }
}

static void on_invalidated(void *ctx, enum err err, enum invalidate_result result)
{
    strong_task_done(ctx, err);
}

static struct lock *create(struct cache *cache, const struct namespace *namespace, struct strong_task *task)
{
    struct lock *lock = xmalloc(sizeof *lock);
    *lock = (struct lock){
        .call.on_reply = on_reply,
        .cache = cache,
        .namespace = namespace,
        .task = task,
        .home = ketama_pick(cache->pool.ring, span_of(task->key, task->key_len)),
    };
    cache->pending++;
    return lock;
}

static void put(struct cache *cache, const struct namespace *namespace, struct strong_task *task)
{
    if (!guard_is_on(cache->config, GUARD_STRONG_LOCK)) {
        strong_task_done(task, OK);
        return;
    }
    if (!lock_is_live(cache, namespace, task->version)) { /* it came too late; as a tombstone it would only be an old one */
        strong_task_done(task, ERR_TIMEOUT);
        return;
    }
    struct lock *lock = create(cache, namespace, task);
    if (ttl_s(lock) > TTL_MAX_S) {
        finish(lock, ERR_INVALID);
        return;
    }
    look(lock);
}

void lock_serve(struct cache *cache, struct strong_task *task)
{
    struct span key = span_of(task->key, task->key_len);
    const struct namespace *namespace = namespaces_find(cache->namespaces, key);
    if (task->key_len == 0 || task->key_len > KEY_MAX || !namespace_is_strong(namespace)) {
        strong_task_done(task, ERR_INVALID);
        return;
    }
    switch (task->kind) {
    case TASK_LOCK: put(cache, namespace, task); return;
    case TASK_COMMIT: commit(create(cache, namespace, task)); return;
    case TASK_INVALIDATE: invalidate_start(cache, namespace, key, cache_version(cache), 0, on_invalidated, task); return;
    }
    strong_task_done(task, ERR_INVALID);
}

enum err lock_prepare(struct cache *cache, enum strong_kind kind, struct span key, void (*on_prepared)(struct strong_write *write), void *ctx)
{
    if (cache->strong == NULL || cache->is_stopping) {
        return cache->is_stopping ? ERR_STOPPING : ERR_UNAVAILABLE;
    }
    struct strong_write *write = strong_write_create(kind, key);
    write->reply_to = &cache->loop->mailbox;
    write->on_prepared = on_prepared;
    write->ctx = ctx;
    strong_prepare(cache->strong, write);
    return OK;
}
