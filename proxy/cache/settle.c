#include "proxy/cache/settle.h"

#include "common/clock.h"
#include "proxy/cache/invalidate.h"
#include "proxy/cache/publish.h"

#define MARGIN_US 100000
#define RETRY_US 1000000

struct settle {
    struct write write; /* its key is the key */
    struct cache *cache;
    const struct namespace *namespace;
    struct list link; /* in cache->settling */
    struct timer timer;
    uint64_t give_up_us;
    bool is_settled; /* or given up; now the key is to be invalidated */
    bool is_applied; /* in this region */
};

static void go_on(struct settle *s);

static void finish(struct settle *s)
{
    timer_stop(&s->timer);
    list_remove(&s->link);
    s->cache->pending--;
    free(s);
}

/* The process ends before it could be done. */
static void forget(struct settle *s)
{
    log_warn(s->cache->log, "cache: a key of namespace %s was changed in the database and could not be invalidated everywhere before the end: a reader may "
             "have its old value until it expires", s->namespace->config->name);
    finish(s);
}

static struct span key_of(const struct settle *s)
{
    return span_of(s->write.key, s->write.key_len);
}

/* After every step: the next one, or the same again in a while. */
static void took_step(struct settle *s, bool is_done, bool *step)
{
    *step = *step || is_done;
    if (s->cache->is_stopping) {
        forget(s);
    } else if (is_done) {
        go_on(s);
    } else {
        timer_start(&s->timer, RETRY_US);
    }
}

static void on_read(struct write *write)
{
    struct settle *s = container_of(write, struct settle, write);
    bool is_settled = write->outcome == WRITE_APPLIED || write->outcome == WRITE_NOT_FOUND || write->outcome == WRITE_REFUSED;
    if (!is_settled && s->cache->loop->now_us >= s->give_up_us) {
        log_error(s->cache->log, "cache: a write in doubt of namespace %s was never settled: the primary could not be asked for %d s; its key is invalidated",
                  s->namespace->config->name, SETTLE_MAX_S);
        is_settled = true;
    }
    took_step(s, is_settled, &s->is_settled);
}

static void on_invalidated(void *ctx, enum err err, enum invalidate_result result)
{
    struct settle *s = ctx;
    took_step(s, err == OK, &s->is_applied);
}

static void on_published(void *ctx, enum err err)
{
    struct settle *s = ctx;
    if (err == OK) {
        finish(s);
    } else if (s->cache->is_stopping) {
        forget(s);
    } else {
        timer_start(&s->timer, RETRY_US);
    }
}

static void go_on(struct settle *s)
{
    struct cache *cache = s->cache;
    if (!s->is_settled) {
        s->write.deadline_us = cache->loop->now_us + 1000ULL * cache->config->database->timeout_ms;
        if (writer_submit(cache->writer, &s->write) != OK) {
            on_read(&s->write);
        }
    } else if (!s->is_applied) {
        invalidate_start(cache, s->namespace, key_of(s), cache_version(cache), 0, on_invalidated, s);
    } else {
        publish_key(cache, key_of(s), cache_version(cache), on_published, s);
    }
}

static void on_timer(struct timer *timer)
{
    go_on(container_of(timer, struct settle, timer));
}

static struct settle *create(struct cache *cache, const struct namespace *namespace, struct span key)
{
    struct settle *s = xcalloc(1, sizeof *s);
    s->cache = cache;
    s->namespace = namespace;
    s->give_up_us = cache->loop->now_us + 1000000ULL * SETTLE_MAX_S;
    s->write = (struct write){
        .reply_to = &cache->loop->mailbox,
        .on_done = on_read,
        .namespace = namespace->index,
        .op = WRITE_SETTLE,
        .key_len = (uint16_t)key.len,
    };
    memcpy(s->write.key, key.data, key.len);
    cache->pending++;
    list_push_back(&cache->settling, &s->link);
    timer_init(&s->timer, cache->loop, on_timer);
    return s;
}

void settle_start(struct cache *cache, const struct namespace *namespace, struct span key, uint64_t deadline_us)
{
    struct settle *s = create(cache, namespace, key);
    uint64_t now_us = cache->loop->now_us;
    /* Not before the write's fence has closed: until then it may not even have begun, and would hold no lock. */
    timer_start(&s->timer, (deadline_us > now_us ? deadline_us - now_us : 0) + MARGIN_US);
}

void settle_owed(struct cache *cache, const struct namespace *namespace, struct span key)
{
    struct settle *s = create(cache, namespace, key);
    s->is_settled = true;
    timer_start(&s->timer, RETRY_US);
}

void settle_stop(struct cache *cache)
{
    struct list *it, *tmp;
    list_for_each(it, tmp, &cache->settling)
    {
        forget(list_entry(it, struct settle, link));
    }
}
