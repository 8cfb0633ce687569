#include "proxy/database/loads.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "common/clock.h"
#include "proxy/database/store.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define IDLE_CHECK_US 1000000 /* how often an idle connection is looked at */
#define WATCH_GRAIN_US 2000   /* the watchdog's shortest sleep */
#define NEVER UINT64_MAX

enum thread_state { THREAD_IDLE, THREAD_CONNECTING, THREAD_LOADING };

struct loader_thread {
    struct loader *loader;
    pthread_t id;
    bool is_started;
    struct metrics_shard *metrics; /* this thread's own */
    uint64_t random;               /* state of the back-off's jitter; this thread's own */

    /* Under the loader's mutex. */
    enum thread_state state;
    struct store_connection *connection; /* changes only while idle */
    bool is_connected;
    bool is_interrupted;   /* by the watchdog or at the end: the connection is of no more use */
    uint64_t deadline_us;  /* of connecting; NEVER: none, or already interrupted */
    struct load *batch[STORE_BATCH_MAX]; /* loads under way; NULL: the watchdog has ended it */
    uint32_t batch_count;
    uint32_t waiting;      /* of these, the ones that are not NULL */
    uint32_t failures;     /* connections that failed or were lost since the last load that was answered */

    /* This thread's own: what the store works on while the loads themselves may end. */
    struct store_load items[STORE_BATCH_MAX];
    char keys[STORE_BATCH_MAX][KEY_MAX];
};

static_assert(LOAD_ERROR_MAX == STORE_ERROR_MAX, "one is copied to the other");

struct loader {
    const struct config *config;
    struct log *log;
    const struct store *store;
    struct store_options options;
    struct source *sources; /* by namespace */
    struct loader_thread *threads;
    struct loader_thread watchdog; /* id and metrics only */

    pthread_mutex_t mutex; /* guards all that follows, and the shard */
    pthread_cond_t work;   /* for idle threads: the queue has a load */
    pthread_cond_t watch;  /* for the watchdog: there is an earlier deadline */
    pthread_cond_t stop;   /* for threads that wait to connect again */
    struct metrics_shard *metrics;
    bool is_stopping;
    struct loads loads;
    uint32_t idle;            /* threads waiting for `work` */
    uint64_t watch_at_us;     /* when the watchdog looks next */
    uint32_t connected;       /* threads with a connection */
    uint64_t grace_until_us;  /* without one, loads wait until then */
    bool is_down;             /* without one, and loads do not wait */
    char why[LOAD_ERROR_MAX]; /* the last thing that was wrong with a connection */
};

/* --- the watchdog --- */

static void watch_locked(struct loader *loader, uint64_t at_us)
{
    if (at_us < loader->watch_at_us) {
        loader->watch_at_us = at_us;
        pthread_cond_signal(&loader->watch);
    }
}

static void wait_until_locked(struct loader *loader, pthread_cond_t *cond, uint64_t at_us)
{
    if (at_us == NEVER) {
        pthread_cond_wait(cond, &loader->mutex);
        return;
    }
    struct timespec ts = {.tv_sec = (time_t)(at_us / 1000000), .tv_nsec = (long)(at_us % 1000000 * 1000)};
    pthread_cond_timedwait(cond, &loader->mutex, &ts);
}

static void interrupt_locked(struct loader_thread *t)
{
    if (t->state != THREAD_IDLE && !t->is_interrupted) {
        t->is_interrupted = true;
        t->deadline_us = NEVER;
        t->loader->store->interrupt(t->connection);
    }
}

/* Those under way on a thread whose deadline has passed, put before `list`. */
static struct load *expire_batch_locked(struct loader_thread *t, uint64_t now, uint64_t *next, struct load *list)
{
    struct loads *loads = &t->loader->loads;
    for (uint32_t i = 0; i < t->batch_count; i++) {
        struct load *load = t->batch[i];
        if (load == NULL) {
            continue;
        }
        list = loads_expire_joined(loads, load, now, next, list);
        if (load->deadline_us > now) {
            *next = MIN(*next, load->deadline_us);
            continue;
        }
        t->batch[i] = NULL;
        t->waiting--;
        loads_detach(loads, load);
        load_set_error(load, ERR_TIMEOUT, "no answer from the database in time");
        load->next = list;
        list = load;
    }
    if (t->state == THREAD_LOADING && t->waiting == 0) {
        interrupt_locked(t);
    }
    return list;
}

/* All whose deadline has passed; sets when to look again. */
static struct load *expire_locked(struct loader *loader)
{
    uint64_t now = clock_mono_us();
    uint64_t next = NEVER;
    struct load *list = loads_expire(&loader->loads, now, &next, NULL);
    for (uint32_t i = 0; i < loader->config->database->threads; i++) {
        struct loader_thread *t = &loader->threads[i];
        list = expire_batch_locked(t, now, &next, list);
        if (t->state == THREAD_CONNECTING && t->deadline_us <= now) {
            interrupt_locked(t);
        } else if (t->state == THREAD_CONNECTING) {
            next = MIN(next, t->deadline_us);
        }
    }
    if (loader->connected == 0 && !loader->is_down) {
        if (loader->grace_until_us <= now) {
            loader->is_down = true;
        } else {
            next = MIN(next, loader->grace_until_us);
        }
    }
    if (loader->is_down) {
        struct load **end = &list;
        while (*end != NULL) {
            end = &(*end)->next;
        }
        *end = loads_fail(&loader->loads, ERR_UNAVAILABLE, loader->why);
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
            loads_finish(loader->watchdog.metrics, expired);
            pthread_mutex_lock(&loader->mutex);
        } else {
            wait_until_locked(loader, &loader->watch, loader->watch_at_us);
        }
    }
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

/* --- connections, on a loader thread --- */

static uint64_t random_next(struct loader_thread *t)
{
    t->random ^= t->random >> 12; /* xorshift64* */
    t->random ^= t->random << 25;
    t->random ^= t->random >> 27;
    return t->random * 0x2545f4914f6cdd1dULL;
}

/* How long to wait before connecting: not at all the first time, then twice as long each time, half of it at random. */
static uint64_t backoff_us(struct loader_thread *t)
{
    if (t->failures <= 1) {
        return 0;
    }
    uint64_t ms = MIN((uint64_t)BACKOFF_MIN_MS << MIN(t->failures - 2, 16U), BACKOFF_MAX_MS);
    return 1000 * ms / 2 + random_next(t) % (1000 * ms / 2);
}

static void set_connected_locked(struct loader_thread *t, bool is_connected)
{
    struct loader *loader = t->loader;
    if (t->is_connected == is_connected) {
        return;
    }
    t->is_connected = is_connected;
    loader->connected += is_connected ? 1 : -1U;
    metrics_set(loader->metrics, METRIC_DATABASE_CONNECTIONS, 0, loader->connected);
    if (is_connected) {
        loader->is_down = false;
        metrics_add(loader->metrics, METRIC_DATABASE_RECONNECTS, 0, 1);
    } else if (loader->connected == 0) {
        loader->grace_until_us = clock_mono_us() + 1000ULL * LOADER_GRACE_MS;
        watch_locked(loader, loader->grace_until_us);
    }
}

/* Gives the connection up; the mutex is released meanwhile. */
static void disconnect_locked(struct loader_thread *t, const char *why)
{
    struct loader *loader = t->loader;
    bool was_last = t->is_connected && loader->connected == 1;
    struct store_connection *connection = t->connection;
    t->connection = NULL;
    t->failures++;
    snprintf(loader->why, sizeof loader->why, "%s", why);
    set_connected_locked(t, false);
    pthread_mutex_unlock(&loader->mutex);
    if (was_last) {
        log_warn(loader->log, "database: %s: the last connection is lost: %s", loader->config->database->primary.text, why);
    }
    loader->store->close(&connection);
    pthread_mutex_lock(&loader->mutex);
}

/* One attempt, after the back-off; the mutex is released meanwhile. */
static void connect_locked(struct loader_thread *t)
{
    struct loader *loader = t->loader;
    char error[LOAD_ERROR_MAX] = "";
    for (uint64_t at = clock_mono_us() + backoff_us(t); !loader->is_stopping && clock_mono_us() < at;) {
        wait_until_locked(loader, &loader->stop, at);
    }
    if (loader->is_stopping) {
        return;
    }
    if (t->connection == NULL) {
        t->connection = loader->store->open(&loader->options);
    }
    t->state = THREAD_CONNECTING;
    t->is_interrupted = false;
    t->deadline_us = clock_mono_us() + 1000ULL * loader->config->database->connect_timeout_ms;
    watch_locked(loader, t->deadline_us);
    pthread_mutex_unlock(&loader->mutex);
    enum err err = loader->store->connect(t->connection, error, sizeof error);
    pthread_mutex_lock(&loader->mutex);
    t->state = THREAD_IDLE;
    if (t->is_interrupted) {
        err = ERR_TIMEOUT;
        snprintf(error, sizeof error, "%s", "no answer within connect_timeout");
    }
    if (loader->is_stopping) {
        return; /* with whatever there is; it is closed at the end */
    }
    const char *address = loader->config->database->primary.text;
    if (err == OK) {
        bool is_first = loader->connected == 0;
        set_connected_locked(t, true);
        pthread_mutex_unlock(&loader->mutex);
        if (is_first) {
            log_info(loader->log, "database: %s is up", address);
        }
        pthread_mutex_lock(&loader->mutex);
        return;
    }
    bool is_news = strcmp(loader->why, error) != 0;
    metrics_add(t->metrics, METRIC_ERRORS, metric_index2(SOURCE_DATABASE, ERR_COUNT, err), 1);
    disconnect_locked(t, error);
    loader->is_down = loader->connected == 0;
    struct load *failed = loader->is_down ? loads_fail(&loader->loads, ERR_UNAVAILABLE, error) : NULL;
    pthread_mutex_unlock(&loader->mutex);
    if (is_news) {
        log_warn(loader->log, "database: can not connect: %s", error);
    }
    loads_finish(t->metrics, failed);
    pthread_mutex_lock(&loader->mutex);
}

/* --- loads, on a loader thread --- */

/* What a load that has come back from the store ends with; false: it is to be tried on another connection. */
static bool judge_locked(struct loader_thread *t, struct load *load, enum err err, const char *error)
{
    struct loader *loader = t->loader;
    if (err != ERR_CLOSED) {
        load_set_error(load, err, err == OK ? "" : error);
    } else if (loader->is_stopping) {
        load_set_error(load, ERR_STOPPING, err_text(ERR_STOPPING));
    } else if (load->attempts <= loader->config->database->threads && load->deadline_us > clock_mono_us()) {
        /* Every connection may have been dead for a while when the server has been started anew. */
        load->attempts++;
        return false;
    } else {
        load_set_error(load, ERR_UNAVAILABLE, error);
    }
    return true;
}

static void log_failure(const struct loader *loader, const struct load *load)
{
    char key[KEY_MAX + 1];
    for (size_t i = 0; i < load->key_len; i++) {
        key[i] = load->key[i] > ' ' && load->key[i] < 0x7f ? load->key[i] : '?';
    }
    key[load->key_len] = '\0';
    const char *name = loader->config->namespaces[load->namespace].name;
    log_warn(loader->log, "database: load of %s (namespace %s) failed: %s: %s", key, name, err_text(load->err), load->error);
}

/* Sends detached loads with their results, which are set; the mutex is released meanwhile. */
static void answer_locked(struct loader_thread *t, struct load *list)
{
    struct loader *loader = t->loader;
    pthread_mutex_unlock(&loader->mutex);
    for (struct load *load = list; load != NULL; load = load->next) {
        if (load->err != OK && load->err != ERR_STOPPING) {
            log_failure(loader, load);
        }
    }
    loads_finish(t->metrics, list);
    pthread_mutex_lock(&loader->mutex);
}

/* Takes a batch off the queue. Those that are too late already are put before *late. */
static void take_locked(struct loader_thread *t, struct load **late)
{
    struct loader *loader = t->loader;
    uint64_t now = clock_mono_us();
    uint32_t count = loads_pop(&loader->loads, t->batch, STORE_BATCH_MAX);
    t->batch_count = 0;
    for (uint32_t i = 0; i < count; i++) {
        struct load *load = t->batch[i];
        if (load->deadline_us <= now) {
            loads_detach(&loader->loads, load);
            load_set_error(load, ERR_TIMEOUT, "timed out in the queue for a database connection");
            load->next = *late;
            *late = load;
            continue;
        }
        struct span key = source_row_key(&loader->sources[load->namespace], span_of(load->key, load->key_len));
        memcpy(t->keys[t->batch_count], key.data, key.len);
        t->items[t->batch_count].key = span_of(t->keys[t->batch_count], key.len);
        t->batch[t->batch_count++] = load;
    }
    t->waiting = t->batch_count;
}

/* Gives the results to the loads; a list of those that end, in their order. */
static struct load *settle_locked(struct loader_thread *t)
{
    struct loader *loader = t->loader;
    struct load *list = NULL;
    for (uint32_t i = t->batch_count; i-- > 0;) {
        struct load *load = t->batch[i];
        struct store_load *item = &t->items[i];
        if (load == NULL) {
            if (item->err == OK && item->row.found) {
                chunk_unref(&item->row.value);
            }
        } else if (judge_locked(t, load, item->err, item->error)) {
            loads_detach(&loader->loads, load);
            if (load->err == OK) {
                load->found = item->row.found;
                load->flags = item->row.flags;
                load->expires_in_s = item->row.expires_in_s;
                load->value = item->row.value;
                load->value_len = item->row.value_len;
            }
            load->next = list;
            list = load;
        } else {
            loads_push_back(&loader->loads, load);
        }
    }
    t->batch_count = 0;
    t->waiting = 0;
    return list;
}

static void count_queries(struct loader_thread *t, const struct store_batch *batch)
{
    metrics_add(t->metrics, METRIC_DATABASE_QUERIES, QUERY_OK, batch->queries - batch->queries_failed);
    metrics_add(t->metrics, METRIC_DATABASE_QUERIES, QUERY_FAILED, batch->queries_failed);
    metrics_add(t->metrics, METRIC_DATABASE_QUERY_KEYS, 0, batch->keys_asked);
}

static const char *why_gone(const struct loader_thread *t)
{
    for (uint32_t i = 0; i < t->batch_count && !t->is_interrupted; i++) {
        if (t->items[i].err == ERR_CLOSED) {
            return t->items[i].error;
        }
    }
    return "no answer from the database in time";
}

static void wake_locked(struct loader *loader)
{
    if (loader->loads.head != NULL && loader->idle > 0) {
        pthread_cond_signal(&loader->work);
    }
}

/* Runs what waits for one table; the mutex is released meanwhile. */
static void load_locked(struct loader_thread *t)
{
    struct loader *loader = t->loader;
    struct load *late = NULL;
    take_locked(t, &late);
    if (late != NULL) {
        answer_locked(t, late);
    }
    if (t->batch_count == 0) {
        return;
    }
    wake_locked(loader); /* there may be other tables' */
    struct store_batch batch = {.source = t->batch[0]->namespace, .count = t->batch_count, .loads = t->items};
    t->state = THREAD_LOADING;
    t->is_interrupted = false;
    watch_locked(loader, t->batch[0]->deadline_us);
    pthread_mutex_unlock(&loader->mutex);
    enum err err = loader->store->load(t->connection, &batch);
    count_queries(t, &batch);
    pthread_mutex_lock(&loader->mutex);
    t->state = THREAD_IDLE;
    bool is_gone = err == ERR_CLOSED || t->is_interrupted;
    char why[LOAD_ERROR_MAX];
    snprintf(why, sizeof why, "%s", why_gone(t));
    struct load *ended = settle_locked(t);
    t->failures = is_gone ? t->failures : 0;
    wake_locked(loader);
    if (ended != NULL) {
        answer_locked(t, ended);
    }
    if (is_gone) {
        disconnect_locked(t, why);
    }
}

static void wait_for_work_locked(struct loader_thread *t)
{
    struct loader *loader = t->loader;
    uint64_t check_at = clock_mono_us() + IDLE_CHECK_US;
    loader->idle++;
    wait_until_locked(loader, &loader->work, check_at);
    loader->idle--;
    bool is_time = loader->loads.head == NULL && !loader->is_stopping && clock_mono_us() >= check_at;
    if (is_time && !loader->store->is_alive(t->connection)) {
        disconnect_locked(t, "the server has closed the connection");
    }
}

static void *thread_main(void *arg)
{
    struct loader_thread *t = arg;
    struct loader *loader = t->loader;
    pthread_mutex_lock(&loader->mutex);
    while (!loader->is_stopping) {
        if (!t->is_connected) {
            connect_locked(t);
            continue;
        }
        if (loader->loads.head != NULL) {
            load_locked(t);
        } else {
            wait_for_work_locked(t);
        }
    }
    struct store_connection *connection = t->connection;
    t->connection = NULL;
    pthread_mutex_unlock(&loader->mutex);
    if (connection != NULL) {
        loader->store->close(&connection);
    }
    return NULL;
}

/* --- for workers --- */

static enum err refuse_locked(struct loader *loader, struct load *load, enum err err, const char *text)
{
    metrics_add(loader->metrics, METRIC_ERRORS, metric_index2(SOURCE_DATABASE, ERR_COUNT, err), 1);
    load_set_error(load, err, text);
    return err;
}

enum err loader_submit(struct loader *loader, struct loader_intake *intake, struct load *load)
{
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
    } else if (loader->connected == 0 && loader->is_down) {
        err = refuse_locked(loader, load, ERR_UNAVAILABLE, loader->why);
    } else if (loads_is_full(&loader->loads)) {
        err = refuse_locked(loader, load, ERR_OVERLOAD, "too many loads are waiting for the database");
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
    for (const struct load *load = intake->head; load != NULL; load = load->next) {
        watch_locked(loader, load->deadline_us);
    }
    loads_release(&loader->loads, intake);
    if (loader->is_stopping) {
        loads_finish(loader->metrics, loads_fail(&loader->loads, ERR_STOPPING, err_text(ERR_STOPPING)));
    } else if (loader->connected == 0 && loader->is_down) {
        loads_finish(loader->metrics, loads_fail(&loader->loads, ERR_UNAVAILABLE, loader->why));
    }
    wake_locked(loader);
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
        watch_locked(loader, load->deadline_us);
    }
    pthread_mutex_unlock(&loader->mutex);
    return is_joined;
}

bool loader_is_ready(struct loader *loader, char *text, size_t size)
{
    pthread_mutex_lock(&loader->mutex);
    bool is_ready = loader->connected > 0;
    snprintf(text, size, "%s", is_ready ? "" : loader->why);
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
    pthread_cond_init(&loader->work, &attr);
    pthread_cond_init(&loader->watch, &attr);
    pthread_cond_init(&loader->stop, &attr);
    pthread_condattr_destroy(&attr);
}

/* Signals are for the main thread; a write to a broken connection must not kill us either. */
static enum err start_threads(struct loader *loader)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    loader->watchdog.is_started = pthread_create(&loader->watchdog.id, NULL, watchdog_main, loader) == 0;
    bool is_failed = !loader->watchdog.is_started;
    for (uint32_t i = 0; i < loader->config->database->threads && !is_failed; i++) {
        struct loader_thread *t = &loader->threads[i];
        t->is_started = pthread_create(&t->id, NULL, thread_main, t) == 0;
        is_failed = !t->is_started;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return is_failed ? ERR_NOMEM : OK;
}

enum err loader_create_with_store(const struct config *config, struct log *log, struct metrics *metrics,
                                  const struct store *store, struct loader **out)
{
    struct loader *loader = xcalloc(1, sizeof *loader);
    loader->config = config;
    loader->log = log;
    loader->store = store;
    loader->metrics = metrics_shard_create(metrics);
    loader->watchdog.metrics = metrics_shard_create(metrics);
    loader->watch_at_us = NEVER;
    loader->grace_until_us = clock_mono_us() + 1000ULL * LOADER_GRACE_MS;
    snprintf(loader->why, sizeof loader->why, "%s: not connected yet", config->database->primary.text);
    init_sources(loader);
    init_conditions(loader);
    loads_init(&loader->loads, config->database->queue, loader->metrics);
    loader->threads = xcalloc(config->database->threads, sizeof *loader->threads);
    for (uint32_t i = 0; i < config->database->threads; i++) {
        struct loader_thread *t = &loader->threads[i];
        t->loader = loader;
        t->metrics = metrics_shard_create(metrics);
        t->random = (clock_mono_us() << 8 ^ (uintptr_t)t) | 1;
        t->connection = store->open(&loader->options); /* here, as the first call must not race with others */
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
    struct load *waiting = loads_fail(&loader->loads, ERR_STOPPING, err_text(ERR_STOPPING));
    for (uint32_t i = 0; i < loader->config->database->threads; i++) {
        interrupt_locked(&loader->threads[i]);
    }
    pthread_cond_broadcast(&loader->work);
    pthread_cond_broadcast(&loader->watch);
    pthread_cond_broadcast(&loader->stop);
    pthread_mutex_unlock(&loader->mutex);
    if (loader->watchdog.is_started) {
        pthread_join(loader->watchdog.id, NULL);
    }
    loads_finish(loader->watchdog.metrics, waiting); /* its thread has ended, so the shard is ours */
    for (uint32_t i = 0; i < loader->config->database->threads; i++) {
        if (loader->threads[i].is_started) {
            pthread_join(loader->threads[i].id, NULL);
        }
    }
}

void loader_destroy(struct loader **out)
{
    struct loader *loader = *out;
    *out = NULL;
    if (loader == NULL) {
        return;
    }
    stop_threads(loader);
    for (uint32_t i = 0; i < loader->config->database->threads; i++) {
        if (loader->threads[i].connection != NULL) {
            loader->store->close(&loader->threads[i].connection); /* its thread never started */
        }
    }
    for (uint32_t i = 0; i < loader->config->namespace_count; i++) {
        if (loader->sources[i].namespace != NULL) {
            source_deinit(&loader->sources[i]);
        }
    }
    pthread_cond_destroy(&loader->work);
    pthread_cond_destroy(&loader->watch);
    pthread_cond_destroy(&loader->stop);
    pthread_mutex_destroy(&loader->mutex);
    free(loader->threads);
    loads_deinit(&loader->loads);
    free(loader->sources);
    free(loader);
}
