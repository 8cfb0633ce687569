#include "proxy/database/loader.h"

#include <signal.h>
#include <time.h>

#include "common/guard.h"
#include "proxy/database/heartbeat.h"
#include "proxy/database/host.h"

#define WATCH_GRAIN_US 2000 /* the watchdog's shortest sleep */

/* --- the watchdog --- */

void loader_watch_locked(struct loader *loader, uint64_t at_us)
{
    if (at_us < loader->watch_at_us) {
        loader->watch_at_us = at_us;
        pthread_cond_signal(&loader->watch);
    }
}

void loader_wait_until_locked(struct loader *loader, pthread_cond_t *cond, uint64_t at_us)
{
    if (at_us == NEVER) {
        pthread_cond_wait(cond, &loader->mutex);
        return;
    }
    struct timespec ts = {.tv_sec = (time_t)(at_us / 1000000), .tv_nsec = (long)(at_us % 1000000 * 1000)};
    pthread_cond_timedwait(cond, &loader->mutex, &ts);
}

void loader_interrupt_locked(struct loader_thread *t)
{
    if (t->state != THREAD_IDLE && !t->is_interrupted) {
        t->is_interrupted = true;
        t->deadline_us = NEVER;
        t->host->loader->store->interrupt(t->connection);
    }
}

/* Those under way on a thread that nobody waits for any longer, put before `list`; those of the replica that take too long go to the primary. */
static struct load *expire_batch_locked(struct loader_thread *t, uint64_t now, uint64_t *next, struct load *list)
{
    struct loader *loader = t->host->loader;
    bool is_replica = t->host->kind == HOST_REPLICA;
    for (uint32_t i = 0; i < t->batch_count; i++) {
        struct load *load = t->batch[i];
        if (load == NULL) {
            continue;
        }
        list = loads_expire_joined(&loader->loads, load, now, next, list);
        uint64_t until_us = is_replica ? load->replica_until_us : load->deadline_us;
        if (until_us > now) {
            *next = MIN(*next, until_us);
            continue;
        }
        t->batch[i] = NULL;
        t->waiting--;
        host_failed_locked(t->host);
        if (is_replica) {
            metrics_add(loader->metrics, METRIC_REPLICA_REFUSED, REFUSED_FAILED, 1);
            load->host = HOST_PRIMARY;
            loads_push_back(&loader->loads, load);
            *next = MIN(*next, load->deadline_us);
            continue;
        }
        loads_detach(&loader->loads, load);
        load_set_error(load, ERR_TIMEOUT, load->is_locking ? "no answer from the database in time; somebody may have the row locked" : "no answer from the database in time");
        load->next = list;
        list = load;
    }
    if (t->state == THREAD_LOADING && t->waiting == 0) {
        loader_interrupt_locked(t);
    }
    return list;
}

static struct load *expire_host_locked(struct host *host, uint64_t now, uint64_t *next, struct load *list)
{
    for (uint32_t i = 0; i < host->thread_count; i++) {
        struct loader_thread *t = &host->threads[i];
        list = expire_batch_locked(t, now, next, list);
        if (t->state == THREAD_CONNECTING && t->deadline_us <= now) {
            loader_interrupt_locked(t);
        } else if (t->state == THREAD_CONNECTING) {
            *next = MIN(*next, t->deadline_us);
        }
    }
    if (host->thread_count > 0 && host->connected == 0 && !host->is_down) {
        host->is_down = host->grace_until_us <= now;
        *next = host->is_down ? *next : MIN(*next, host->grace_until_us);
    }
    return list;
}

/* All whose time is over; sets when to look again. */
static struct load *expire_locked(struct loader *loader)
{
    uint64_t now = clock_mono_us();
    uint64_t next = NEVER;
    struct host *primary = &loader->hosts[HOST_PRIMARY];
    struct load *list = expire_host_locked(&loader->hosts[HOST_REPLICA], now, &next, NULL);
    if (loader->hosts[HOST_REPLICA].is_down) {
        loads_move(&loader->loads);
    } else {
        loads_move_late(&loader->loads, now, &next);
    }
    list = expire_host_locked(primary, now, &next, list);
    list = loads_expire(&loader->loads, now, &next, list);
    host_wake_locked(primary);
    if (primary->is_down) {
        struct load **end = &list;
        while (*end != NULL) {
            end = &(*end)->next;
        }
        *end = loads_fail(&loader->loads, HOST_PRIMARY, ERR_UNAVAILABLE, primary->why);
    }
    loader->watch_at_us = next == NEVER ? NEVER : MAX(next, now + WATCH_GRAIN_US);
    return list;
}

static void *watchdog_main(void *arg)
{
    struct loader *loader = arg;
    pthread_mutex_lock(&loader->mutex);
    while (!loader->is_stopping) {
        struct load *expired = expire_locked(loader);
        if (expired != NULL) {
            pthread_mutex_unlock(&loader->mutex);
            log_warn(loader->log, "database: loads that waited have failed: %s", expired->error);
            loads_finish(loader->watchdog_metrics, expired);
            pthread_mutex_lock(&loader->mutex);
        } else {
            loader_wait_until_locked(loader, &loader->watch, loader->watch_at_us);
        }
    }
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

/* --- for workers --- */

static enum err refuse_locked(struct loader *loader, struct load *load, enum err err, const char *text)
{
    metrics_add(loader->metrics, METRIC_ERRORS, metric_index2(SOURCE_DATABASE, ERR_COUNT, err), 1);
    load_set_error(load, err, text);
    return err;
}

/* The replica, if its row can be of use, and else the primary. False: neither takes it now; `text` says why. */
static bool route_locked(struct loader *loader, struct load *load, char *text, size_t size)
{
    struct host *replica = &loader->hosts[HOST_REPLICA];
    uint64_t now = clock_mono_us();
    load->host = HOST_PRIMARY;
    load->replica_until_us = now + (load->deadline_us - MIN(load->deadline_us, now)) / 2;
    if (replica->address_count > 0 && !load->primary_only && !load->is_locking && replica->connected > 0 &&
        replica_may_try(&loader->replica, load->min_version, now, guard_wall_ms(loader->config)) && host_admits_locked(replica, text, size)) {
        load->host = HOST_REPLICA;
        return true;
    }
    return host_admits_locked(&loader->hosts[HOST_PRIMARY], text, size);
}

enum err loader_submit(struct loader *loader, struct loader_intake *intake, struct load *load)
{
    char text[LOAD_ERROR_MAX];
    load_clear_result(load);
    load->joined = NULL;
    load->attempts = 0;
    load->submitted_us = clock_mono_us();
    enum err err = OK;
    pthread_mutex_lock(&loader->mutex);
    if (load->namespace >= loader->config->namespace_count || loader->sources[load->namespace].namespace == NULL) {
        err = refuse_locked(loader, load, ERR_INVALID, "this namespace has no source");
    } else if (loader->is_stopping) {
        err = refuse_locked(loader, load, ERR_STOPPING, err_text(ERR_STOPPING));
    } else if (loads_is_full(&loader->loads)) {
        err = refuse_locked(loader, load, ERR_OVERLOAD, "too many loads are waiting for the database");
    } else if (!route_locked(loader, load, text, sizeof text)) {
        err = refuse_locked(loader, load, ERR_UNAVAILABLE, text);
    } else {
        loads_hold(&loader->loads, intake, load);
    }
    pthread_mutex_unlock(&loader->mutex);
    return err;
}

void loader_flush(struct loader *loader, struct loader_intake *intake)
{
    if (intake->head == NULL) { /* only this thread sets it */
        return;
    }
    pthread_mutex_lock(&loader->mutex);
    const struct host *primary = &loader->hosts[HOST_PRIMARY];
    for (const struct load *load = intake->head; load != NULL; load = load->next) {
        loader_watch_locked(loader, load->host == HOST_REPLICA ? load->replica_until_us : load->deadline_us);
    }
    loads_release(&loader->loads, intake);
    for (int h = 0; h < HOSTS && loader->is_stopping; h++) {
        loads_finish(loader->metrics, loads_fail(&loader->loads, h, ERR_STOPPING, err_text(ERR_STOPPING)));
    }
    if (primary->connected == 0 && primary->is_down) {
        loads_finish(loader->metrics, loads_fail(&loader->loads, HOST_PRIMARY, ERR_UNAVAILABLE, primary->why));
    }
    host_wake_locked(&loader->hosts[HOST_REPLICA]);
    host_wake_locked(&loader->hosts[HOST_PRIMARY]);
    pthread_mutex_unlock(&loader->mutex);
}

bool loader_join(struct loader *loader, struct load *load)
{
    load_clear_result(load);
    load->joined = NULL;
    load->submitted_us = clock_mono_us();
    pthread_mutex_lock(&loader->mutex);
    bool is_joined = loads_join(&loader->loads, load);
    if (is_joined) {
        loader_watch_locked(loader, load->deadline_us);
    }
    pthread_mutex_unlock(&loader->mutex);
    return is_joined;
}

bool loader_is_ready(struct loader *loader, char *text, size_t size)
{
    pthread_mutex_lock(&loader->mutex);
    const struct host *primary = &loader->hosts[HOST_PRIMARY];
    bool is_ready = primary->connected > 0;
    snprintf(text, size, "%s", is_ready ? "" : primary->why);
    pthread_mutex_unlock(&loader->mutex);
    return is_ready;
}

/* --- beginning and end --- */

static void init_sources(struct loader *loader)
{
    const struct config *config = loader->config;
    loader->sources = xcalloc(config->namespace_count, sizeof *loader->sources);
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        if (config->namespaces[i].source != NULL) {
            source_init(&loader->sources[i], &config->namespaces[i], config->max_value_size);
        }
    }
    loader->options = (struct store_options){
        .config = config->database,
        .sources = loader->sources,
        .source_count = config->namespace_count,
        .max_value_size = config->max_value_size,
    };
}

static void init_conditions(struct loader *loader)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&loader->mutex, NULL);
    pthread_cond_init(&loader->watch, &attr);
    pthread_cond_init(&loader->stop, &attr);
    for (int i = 0; i < HOSTS; i++) {
        pthread_cond_init(&loader->hosts[i].work, &attr);
    }
    pthread_condattr_destroy(&attr);
}

/* Signals are for the main thread; a write to a broken connection must not kill us either. */
static enum err start_threads(struct loader *loader)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    loader->has_watchdog = pthread_create(&loader->watchdog, NULL, watchdog_main, loader) == 0;
    bool is_failed = !loader->has_watchdog;
    for (int h = 0; h < HOSTS; h++) {
        struct host *host = &loader->hosts[h];
        for (uint32_t i = 0; i < host->thread_count && !is_failed; i++) {
            struct loader_thread *t = &host->threads[i];
            t->is_started = pthread_create(&t->id, NULL, host_thread_main, t) == 0;
            is_failed = !t->is_started;
        }
    }
    is_failed = is_failed || (loader->heartbeat != NULL && heartbeat_start(loader->heartbeat) != OK);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return is_failed ? ERR_NOMEM : OK;
}

enum err loader_create_with_store(const struct config *config, struct log *log, struct metrics *metrics,
                                  const struct store *store, struct loader **out)
{
    const struct config_database *database = config->database;
    struct loader *loader = xcalloc(1, sizeof *loader);
    loader->config = config;
    loader->log = log;
    loader->store = store;
    loader->metrics = metrics_shard_create(metrics);
    loader->watchdog_metrics = metrics_shard_create(metrics);
    loader->watch_at_us = NEVER;
    loader->replica = (struct replica){.max_lag_ms = database->max_replica_lag_ms, .max_skew_ms = config->max_clock_skew_ms};
    init_sources(loader);
    for (int i = 0; i < HOSTS; i++) {
        host_init(&loader->hosts[i], loader, i, metrics);
    }
    init_conditions(loader);
    loads_init(&loader->loads, database->queue, loader->metrics);
    loader->options.address = &database->primary[0];
    struct store_connection *first = store->open(&loader->options); /* as the first call must not race with others */
    store->close(&first);
    if (store->beat != NULL && database->heartbeat_writer == HEARTBEAT_AUTO) {
        loader->heartbeat = heartbeat_create(loader, metrics);
    }
    enum err err = start_threads(loader);
    if (err != OK) {
        loader_destroy(&loader);
    }
    *out = loader;
    return err;
}

enum err loader_create(const struct config *config, struct log *log, struct metrics *metrics, struct loader **out)
{
    return loader_create_with_store(config, log, metrics, &store_mysql, out);
}

static void stop_threads(struct loader *loader)
{
    pthread_mutex_lock(&loader->mutex);
    loader->is_stopping = true;
    struct load *waiting[HOSTS];
    for (int h = 0; h < HOSTS; h++) {
        struct host *host = &loader->hosts[h];
        waiting[h] = loads_fail(&loader->loads, h, ERR_STOPPING, err_text(ERR_STOPPING));
        for (uint32_t i = 0; i < host->thread_count; i++) {
            loader_interrupt_locked(&host->threads[i]);
        }
        pthread_cond_broadcast(&host->work);
    }
    if (loader->heartbeat != NULL) {
        heartbeat_interrupt_locked(loader->heartbeat);
    }
    pthread_cond_broadcast(&loader->watch);
    pthread_cond_broadcast(&loader->stop);
    pthread_mutex_unlock(&loader->mutex);
    if (loader->has_watchdog) {
        pthread_join(loader->watchdog, NULL);
    }
    for (int h = 0; h < HOSTS; h++) {
        struct host *host = &loader->hosts[h];
        loads_finish(loader->watchdog_metrics, waiting[h]); /* its thread has ended, so the shard is ours */
        for (uint32_t i = 0; i < host->thread_count; i++) {
            if (host->threads[i].is_started) {
                pthread_join(host->threads[i].id, NULL);
            }
        }
    }
    heartbeat_destroy(&loader->heartbeat);
}

void loader_destroy(struct loader **out)
{
    struct loader *loader = *out;
    *out = NULL;
    if (loader == NULL) {
        return;
    }
    stop_threads(loader);
    for (int h = 0; h < HOSTS; h++) {
        host_deinit(&loader->hosts[h]);
    }
    for (uint32_t i = 0; i < loader->config->namespace_count; i++) {
        if (loader->sources[i].namespace != NULL) {
            source_deinit(&loader->sources[i]);
        }
    }
    pthread_cond_destroy(&loader->watch);
    pthread_cond_destroy(&loader->stop);
    pthread_mutex_destroy(&loader->mutex);
    loads_deinit(&loader->loads);
    free(loader->sources);
    free(loader);
}
