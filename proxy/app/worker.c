#include "proxy/app/worker.h"

#include <unistd.h>

#include "common/clock.h"
#include "proxy/cache/invalidate.h"
#include "proxy/cache/lock.h"
#include "proxy/cache/rules.h"
#include "proxy/cache/settle.h"
#include "proxy/pool/churn.h"

#define MEMORY_LIMIT (4ULL << 30)  /* bytes under way in one worker */
#define WAIT_LOOK_US 5000          /* how often the pool is looked at before the first client is let in */
#define DRAIN_LOOK_US 10000
#define HOLD_US 5000  /* how long a multi-get's misses wait for those of nodes that have not answered yet */
#define HOLD_MAX 128  /* as many go with one statement */

struct worker {
    struct worker_context context;
    uint32_t index;
    struct loop loop;
    struct cache cache;
    struct churn *churn; /* or NULL: no replica is read from, and nothing is strong */
    struct front front;
    struct listener *listeners;
    int *listen_fds;
    bool is_listening;
    uint64_t started_us;
    struct timer ready_timer;
    struct timer drain_timer;
    struct timer hold_timer; /* while is_holding */
    bool is_holding;
    struct mail start_mail;
    struct mail drain_mail;
    pthread_t thread;
    bool has_thread;
    _Atomic bool is_drained;
};

static void close_listeners(struct worker *w)
{
    for (uint32_t i = 0; i < w->context.config->listen_count; i++) {
        if (w->is_listening) {
            listener_close(&w->listeners[i]);
        } else if (w->listen_fds[i] >= 0) {
            close(w->listen_fds[i]);
        }
        w->listen_fds[i] = -1;
    }
    w->is_listening = false;
}

/* Or has waited long enough for them: then what others have invalidated by pattern may be served until they are known. */
static bool knows_rules(struct worker *w)
{
    const struct config_bus *bus = w->context.config->bus;
    if (rules_are_known(w->context.rules)) {
        return true;
    }
    bool is_over = clock_mono_us() >= w->started_us + 1000ULL * (bus != NULL ? bus->rules_wait_ms : 0);
    if (is_over && w->index == 0) {
        log_warn(w->context.log, "rules: those of the region are not known after rules_wait; clients are let in without them");
    }
    return is_over;
}

static void listen_when_ready(struct timer *timer)
{
    struct worker *w = container_of(timer, struct worker, ready_timer);
    const struct config *config = w->context.config;
    if (!pool_was_tried(&w->cache.pool) || !knows_rules(w)) {
        timer_start(timer, WAIT_LOOK_US);
        return;
    }
    for (uint32_t i = 0; i < config->listen_count; i++) {
        if (listener_open(&w->listeners[i], &w->loop, w->listen_fds[i], &config->listen[i], &w->front, session_accept) != OK) {
            log_error(w->context.log, "worker %u does not accept clients on %s: no memory", w->index,
                      config->listen[i].address.text);
        }
    }
    w->is_listening = true;
}

static void look_for_end(struct timer *timer)
{
    struct worker *w = container_of(timer, struct worker, drain_timer);
    if (w->front.session_count == 0 && w->cache.pending == w->cache.remote_pending) {
        atomic_store_explicit(&w->is_drained, true, memory_order_release);
        return;
    }
    timer_start(timer, DRAIN_LOOK_US);
}

/* How long tombstones must be kept, where that matters: only what a replica lags behind can come after them; and locks. */
static uint32_t tombstone_age_s(const struct config *config)
{
    uint32_t age_s = config->strong != NULL ? (config->strong->lock_window_ms + 999) / 1000 : 0;
    for (uint32_t i = 0; i < config->namespace_count && config->database != NULL && config->database->replica.text != NULL; i++) {
        if (config->namespaces[i].read == READ_THROUGH) {
            age_s = MAX(age_s, config->namespaces[i].tombstone_ttl_s);
        }
    }
    return age_s;
}

static void on_start(struct mail *mail, void *owner)
{
    struct worker *w = owner;
    w->started_us = clock_mono_us();
    pool_init(&w->cache.pool, w->context.ring, w->context.config, &w->loop, w->context.log, w->front.shard);
    uint32_t age_s = tombstone_age_s(w->context.config);
    if (age_s > 0) {
        w->churn = churn_create(&w->cache.pool, &w->loop, w->context.log, age_s);
    }
    listen_when_ready(&w->ready_timer);
}

static void on_drain(struct mail *mail, void *owner)
{
    struct worker *w = owner;
    timer_stop(&w->ready_timer);
    close_listeners(w);
    front_drain(&w->front);
    look_for_end(&w->drain_timer);
}

static void on_delivery(struct mail *mail, void *owner)
{
    struct worker *w = owner;
    invalidate_delivery(&w->cache, container_of(mail, struct delivery, mail));
}

void worker_apply(struct worker *w, struct delivery *delivery)
{
    delivery->mail.deliver = on_delivery;
    mailbox_post(&w->loop.mailbox, &delivery->mail);
}

static void on_task(struct mail *mail, void *owner)
{
    struct worker *w = owner;
    lock_serve(&w->cache, container_of(mail, struct strong_task, mail));
}

void worker_serve(struct worker *w, struct strong_task *task)
{
    task->mail.deliver = on_task;
    mailbox_post(&w->loop.mailbox, &task->mail);
}

static void flush_loads(struct worker *w)
{
    if (w->is_holding) {
        w->is_holding = false;
        timer_stop(&w->hold_timer);
    }
    loader_flush(w->cache.loader, &w->cache.intake);
}

static void on_held_long_enough(struct timer *timer)
{
    flush_loads(container_of(timer, struct worker, hold_timer));
}

/* The misses of a turn go to the database together; those of a multi-get, whose nodes answer at different times, wait for each other a little. */
static void on_turn_end(struct loop *loop)
{
    struct worker *w = loop->owner;
    uint32_t count = w->cache.intake.count;
    if (w->cache.loader == NULL || (count == 0 && !w->is_holding)) {
        return;
    }
    if (count > 0 && count < HOLD_MAX && w->cache.asking > 0) {
        if (!w->is_holding) {
            w->is_holding = true;
            timer_start(&w->hold_timer, HOLD_US);
        }
        return;
    }
    flush_loads(w);
}

enum err worker_create(const struct worker_context *context, uint32_t index, uint32_t clock_id, const int *listen_fds, struct worker **out)
{
    const struct config *config = context->config;
    struct worker *w = xcalloc(1, sizeof *w);
    w->context = *context;
    w->index = index;
    w->listeners = xcalloc(config->listen_count, sizeof *w->listeners);
    w->listen_fds = xcalloc(config->listen_count, sizeof *w->listen_fds);
    memcpy(w->listen_fds, listen_fds, config->listen_count * sizeof *listen_fds);
    enum err err = loop_init(&w->loop, w, MEMORY_LIMIT);
    if (err != OK) {
        close_listeners(w);
        free(w->listeners);
        free(w->listen_fds);
        free(w);
        return err;
    }
    w->loop.on_turn_end = on_turn_end;
    struct metrics_shard *shard = metrics_shard_create(context->metrics);
    cache_init(&w->cache, config, context->namespaces, &w->loop, context->log, shard, clock_id);
    w->cache.rulebook = context->rules;
    w->front = (struct front){
        .config = config,
        .cache = &w->cache,
        .loop = &w->loop,
        .log = context->log,
        .metrics = context->metrics,
        .tls = context->tls,
        .shard = shard,
        .connection_count = context->connection_count,
        .started_ms = context->started_ms,
        .baseline = context->baseline,
        .credentials = context->credentials,
        .fronts = context->fronts,
        .front_count = config->threads,
    };
    context->fronts[index] = &w->front;
    front_init(&w->front);
    timer_init(&w->ready_timer, &w->loop, listen_when_ready);
    timer_init(&w->hold_timer, &w->loop, on_held_long_enough);
    timer_init(&w->drain_timer, &w->loop, look_for_end);
    /* The first mail of all: an invalidation may be delivered before the thread runs, but not before there is a pool to apply it to. */
    w->start_mail.deliver = on_start;
    mailbox_post(&w->loop.mailbox, &w->start_mail);
    *out = w;
    return OK;
}

static void *run(void *arg)
{
    struct worker *w = arg;
    char name[16];
    snprintf(name, sizeof name, "worker-%u", w->index);
    pthread_setname_np(pthread_self(), name);
    loop_run(&w->loop);
    return NULL;
}

enum err worker_start(struct worker *w, struct loader *loader, struct writer *writer, struct bus *bus, struct strong *strong)
{
    w->cache.loader = loader;
    w->cache.writer = writer;
    w->cache.bus = bus;
    w->cache.strong = strong;
    w->cache.validity = strong != NULL ? strong_validity(strong) : NULL;
    w->has_thread = pthread_create(&w->thread, NULL, run, w) == 0;
    return w->has_thread ? OK : ERR_NOMEM;
}

struct cache *worker_cache(struct worker *w)
{
    return &w->cache;
}

void worker_drain(struct worker *w)
{
    w->drain_mail.deliver = on_drain;
    mailbox_post(&w->loop.mailbox, &w->drain_mail);
}

bool worker_is_drained(struct worker *w)
{
    return atomic_load_explicit(&w->is_drained, memory_order_acquire);
}

void worker_stop(struct worker *w)
{
    if (w->has_thread) {
        loop_stop(&w->loop);
        pthread_join(w->thread, NULL);
        w->has_thread = false;
    }
}

bool worker_settle(struct worker *w)
{
    w->cache.is_stopping = true;
    return mailbox_drain(&w->loop.mailbox, w) > 0;
}

void worker_destroy(struct worker **worker)
{
    struct worker *w = *worker;
    if (w == NULL) {
        return;
    }
    worker_settle(w); /* what loader and bus have sent since the thread ended */
    close_listeners(w);
    timer_stop(&w->ready_timer);
    timer_stop(&w->drain_timer);
    timer_stop(&w->hold_timer);
    front_deinit(&w->front);
    pool_deinit(&w->cache.pool);
    churn_destroy(&w->churn);
    settle_stop(&w->cache);
    cache_deinit(&w->cache);
    loop_deinit(&w->loop);
    free(w->listeners);
    free(w->listen_fds);
    free(w);
    *worker = NULL;
}
