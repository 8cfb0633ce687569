#include "proxy/database/host.h"

#include <assert.h>

#include "common/guard.h"
#include "common/version.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define IDLE_CHECK_US 1000000 /* how often an idle connection is looked at */

static_assert(LOAD_ERROR_MAX == STORE_ERROR_MAX, "one is copied to the other");

static const char *host_address(const struct host *host)
{
    return host->addresses[host->current].text;
}

/* --- admission --- */

bool host_admits_locked(struct host *host, char *text, size_t size)
{
    if (host->connected == 0 && host->is_down) {
        snprintf(text, size, "%s", host->why);
        return false;
    }
    if (!breaker_admits(&host->breaker, clock_mono_us())) {
        snprintf(text, size, "the circuit breaker is open: %s", host->why);
        metrics_add(host->loader->metrics, METRIC_BREAKER_REFUSED, host->kind, 1);
        return false;
    }
    return true;
}

void host_wake_locked(struct host *host)
{
    if (host->loader->loads.queues[host->kind].head != NULL && host->idle > 0) {
        pthread_cond_signal(&host->work);
    }
}

void host_failed_locked(struct host *host)
{
    if (breaker_failure(&host->breaker, clock_mono_us())) {
        metrics_add(host->loader->metrics, METRIC_BREAKER_OPENED, host->kind, 1);
        metrics_set(host->loader->metrics, METRIC_BREAKER_OPEN, host->kind, 1);
    }
}

static void answered_locked(struct host *host)
{
    breaker_success(&host->breaker);
    metrics_set(host->loader->metrics, METRIC_BREAKER_OPEN, host->kind, 0);
}

/* What waited for a host that is down: the replica's is left to the primary; the primary's fails. A list of what has ended. */
static struct load *give_up_queue_locked(struct host *host)
{
    struct loader *loader = host->loader;
    if (host->kind == HOST_REPLICA) {
        loads_move(&loader->loads);
        host_wake_locked(&loader->hosts[HOST_PRIMARY]);
        return NULL;
    }
    return loads_fail(&loader->loads, HOST_PRIMARY, ERR_UNAVAILABLE, host->why);
}

/* --- connections --- */

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
    uint32_t rounds = t->failures / t->host->address_count; /* all addresses are tried in a row */
    if (rounds <= 1) {
        return 0;
    }
    uint64_t ms = MIN((uint64_t)BACKOFF_MIN_MS << MIN(rounds - 2, 16U), BACKOFF_MAX_MS);
    return 1000 * ms / 2 + random_next(t) % (1000 * ms / 2);
}

static void set_connected_locked(struct loader_thread *t, bool is_connected)
{
    struct host *host = t->host;
    struct loader *loader = host->loader;
    if (t->is_connected == is_connected) {
        return;
    }
    t->is_connected = is_connected;
    host->connected += is_connected ? 1 : -1U;
    metrics_set(loader->metrics, METRIC_DATABASE_CONNECTIONS, host->kind, host->connected);
    if (is_connected) {
        host->is_down = false;
        metrics_add(loader->metrics, METRIC_DATABASE_RECONNECTS, host->kind, 1);
    } else if (host->connected == 0) {
        host->grace_until_us = clock_mono_us() + 1000ULL * LOADER_GRACE_MS;
        loader_watch_locked(loader, host->grace_until_us);
    }
}

/* Gives the connection up; the mutex is released meanwhile. */
static void disconnect_locked(struct loader_thread *t, const char *why)
{
    struct host *host = t->host;
    struct loader *loader = host->loader;
    bool was_last = t->is_connected && host->connected == 1;
    struct store_connection *connection = t->connection;
    const char *address = host_address(host);
    t->connection = NULL;
    t->failures++;
    snprintf(host->why, sizeof host->why, "%s", why);
    set_connected_locked(t, false);
    host->closing++;
    pthread_mutex_unlock(&loader->mutex);
    if (was_last) {
        log_warn(loader->log, "database: %s: the last connection is lost: %s", address, why);
    }
    loader->store->close(&connection);
    pthread_mutex_lock(&loader->mutex);
    host->closing--;
    pthread_cond_broadcast(&loader->stop);
}

/* The address in use has failed, or is not the primary: everybody leaves it before anybody tries the next. */
static void fail_over_locked(struct host *host, uint32_t epoch)
{
    if (host->address_count < 2 || epoch != host->epoch) {
        return;
    }
    host->current = (host->current + 1) % host->address_count;
    host->epoch++;
    for (uint32_t i = 0; i < host->thread_count; i++) {
        loader_interrupt_locked(&host->threads[i]);
    }
    pthread_cond_broadcast(&host->work);
}

/* Whether some thread still has to do with an address that is not in use any more. */
static bool is_leaving_locked(const struct host *host)
{
    if (host->address_count > 1 && host->closing > 0) {
        return true;
    }
    for (uint32_t i = 0; i < host->thread_count; i++) {
        const struct loader_thread *t = &host->threads[i];
        if (t->connection != NULL && t->epoch != host->epoch) {
            return true;
        }
    }
    return false;
}

/* Waits for its turn to connect: the back-off; and while there is no connection, one thread at a time tries. False at the end. */
static bool wait_for_turn_locked(struct loader_thread *t)
{
    struct host *host = t->host;
    struct loader *loader = host->loader;
    for (uint64_t at = clock_mono_us() + backoff_us(t); !loader->is_stopping && clock_mono_us() < at;) {
        loader_wait_until_locked(loader, &loader->stop, at);
    }
    while (!loader->is_stopping && ((host->connected == 0 && host->connecting > 0) || is_leaving_locked(host))) {
        loader_wait_until_locked(loader, &loader->stop, NEVER);
    }
    return !loader->is_stopping;
}

static void on_connect_failed_locked(struct loader_thread *t, enum err err, const char *error)
{
    struct host *host = t->host;
    struct loader *loader = host->loader;
    bool is_news = strcmp(host->why, error) != 0;
    uint32_t epoch = t->epoch;
    metrics_add(t->metrics, METRIC_ERRORS, metric_index2(SOURCE_DATABASE, ERR_COUNT, err), 1);
    disconnect_locked(t, error);
    if (err == ERR_UNSUPPORTED || host->connected == 0) {
        fail_over_locked(host, epoch);
    }
    host->is_down = host->connected == 0 && (host->address_count == 1 || t->failures > host->address_count);
    struct load *failed = host->is_down ? give_up_queue_locked(host) : NULL;
    pthread_mutex_unlock(&loader->mutex);
    if (is_news) {
        log_warn(loader->log, "database: can not connect: %s", error);
    }
    loads_finish(t->metrics, failed);
    pthread_mutex_lock(&loader->mutex);
}

/* One attempt; the mutex is released meanwhile. */
static void connect_locked(struct loader_thread *t)
{
    struct host *host = t->host;
    struct loader *loader = host->loader;
    char error[LOAD_ERROR_MAX] = "";
    if (!wait_for_turn_locked(t)) {
        return;
    }
    struct store_options options = loader->options;
    options.address = &host->addresses[host->current];
    options.role = host->kind == HOST_REPLICA ? STORE_REPLICA : host->address_count > 1 ? STORE_PRIMARY_OF_SEVERAL : STORE_PRIMARY;
    t->epoch = host->epoch;
    t->connection = loader->store->open(&options);
    t->state = THREAD_CONNECTING;
    t->is_interrupted = false;
    t->deadline_us = clock_mono_us() + 1000ULL * loader->config->database->connect_timeout_ms;
    host->connecting++;
    loader_watch_locked(loader, t->deadline_us);
    pthread_mutex_unlock(&loader->mutex);
    enum err err = loader->store->connect(t->connection, error, sizeof error);
    pthread_mutex_lock(&loader->mutex);
    t->state = THREAD_IDLE;
    host->connecting--;
    if (t->is_interrupted) {
        err = ERR_TIMEOUT;
        snprintf(error, sizeof error, "%s: no answer within connect_timeout", options.address->text);
    }
    if (loader->is_stopping) {
        return; /* with whatever there is; it is closed at the end */
    }
    if (err != OK) {
        on_connect_failed_locked(t, err, error);
    } else {
        bool is_first = host->connected == 0;
        set_connected_locked(t, true);
        breaker_retry(&host->breaker); /* it does answer */
        if (is_first) {
            pthread_mutex_unlock(&loader->mutex);
            log_info(loader->log, "database: %s is up", options.address->text);
            pthread_mutex_lock(&loader->mutex);
        }
    }
    pthread_cond_broadcast(&loader->stop); /* others may have waited for the outcome */
}

/* --- loads --- */

/* A load that the replica is of no use for goes to the primary. False: that does not take it, and it has failed. */
static bool forward_locked(struct loader *loader, struct load *load, enum replica_refusal why)
{
    char text[LOAD_ERROR_MAX];
    metrics_add(loader->metrics, METRIC_REPLICA_REFUSED, why, 1);
    load->host = HOST_PRIMARY;
    load->attempts = 0;
    if (loader->is_stopping) {
        load_set_error(load, ERR_STOPPING, err_text(ERR_STOPPING));
    } else if (!host_admits_locked(&loader->hosts[HOST_PRIMARY], text, sizeof text)) {
        load_set_error(load, ERR_UNAVAILABLE, text);
    } else {
        loads_push_back(&loader->loads, load);
        host_wake_locked(&loader->hosts[HOST_PRIMARY]);
        return true;
    }
    return false;
}

/* What the replica has said: whether its row may be used, which sets the load's version. */
static bool is_replica_enough_locked(struct loader *loader, struct load *load, const struct store_load *item, enum replica_refusal *why)
{
    uint64_t wall_ms = guard_wall_ms(loader->config);
    uint64_t heartbeat = guard_is_on(loader->config, GUARD_AS_OF) ? item->heartbeat : wall_ms << VERSION_MS_SHIFT;
    *why = REFUSED_STALE;
    if (heartbeat != 0) {
        metrics_observe(loader->metrics, METRIC_REPLICA_ASOF_AGE, 0, 1000 * replica_age_ms(heartbeat, wall_ms));
    }
    if (!replica_heard(&loader->replica, heartbeat, clock_mono_us(), wall_ms)) {
        return false;
    }
    uint64_t version = MIN(load->version, replica_version(&loader->replica, heartbeat, load->version));
    *why = REFUSED_OLDER;
    if (version < load->min_version) {
        return false;
    }
    load->version = version;
    return true;
}

/* What a load that has come back from the store ends with; false: somebody has taken it on. */
static bool judge_locked(struct loader_thread *t, struct load *load, const struct store_load *item)
{
    struct host *host = t->host;
    struct loader *loader = host->loader;
    enum replica_refusal why = REFUSED_FAILED;
    if (loader->is_stopping && item->err == ERR_CLOSED) {
        load_set_error(load, ERR_STOPPING, err_text(ERR_STOPPING));
    } else if (host->kind == HOST_REPLICA && item->err == ERR_CLOSED) {
        host_failed_locked(host);
        return !forward_locked(loader, load, REFUSED_FAILED);
    } else if (host->kind == HOST_REPLICA && (item->err != OK || !is_replica_enough_locked(loader, load, item, &why))) {
        return !forward_locked(loader, load, why);
    } else if (item->err != ERR_CLOSED) {
        load_set_error(load, item->err, item->err == OK ? "" : item->error);
        metrics_add(loader->metrics, METRIC_LOADS_BY_HOST, host->kind, 1);
    } else if (load->attempts <= host->thread_count && load->deadline_us > clock_mono_us()) {
        /* Every connection may have been dead for a while when the server has been started anew. */
        load->attempts++;
        loads_push_back(&loader->loads, load);
        return false;
    } else {
        host_failed_locked(host); /* tried again and again; a connection that was dead already is no failure */
        load_set_error(load, ERR_UNAVAILABLE, item->error);
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
    struct loader *loader = t->host->loader;
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
    struct loader *loader = t->host->loader;
    uint64_t now = clock_mono_us();
    uint32_t count = loads_pop(&loader->loads, t->host->kind, t->batch, MIN(loader->config->database->batch, STORE_BATCH_MAX));
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

static void drop_row(struct store_load *item)
{
    if (item->err == OK && item->row.found) {
        chunk_unref(&item->row.value);
    }
}

/* Gives the results to the loads; a list of those that end, in their order. */
static struct load *settle_locked(struct loader_thread *t)
{
    struct loader *loader = t->host->loader;
    struct load *list = NULL;
    for (uint32_t i = t->batch_count; i-- > 0;) {
        struct load *load = t->batch[i];
        struct store_load *item = &t->items[i];
        if (load == NULL) {
            drop_row(item);
        } else if (judge_locked(t, load, item)) {
            loads_detach(&loader->loads, load);
            if (load->err != OK) {
                drop_row(item);
            } else {
                load->found = item->row.found;
                load->flags = item->row.flags;
                load->expires_in_s = item->row.expires_in_s;
                load->value = item->row.value;
                load->value_len = item->row.value_len;
            }
            load->next = list;
            list = load;
        } else {
            drop_row(item);
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

/* Tells the breaker that there was an answer; or what has ended the connection, if it is gone. */
static const char *account_locked(struct loader_thread *t, bool is_gone)
{
    struct host *host = t->host;
    const char *why = "no answer from the database in time";
    if (!is_gone) {
        t->failures = 0;
        answered_locked(host);
        return NULL;
    }
    for (uint32_t i = 0; i < t->batch_count && !t->is_interrupted; i++) {
        if (t->items[i].err == ERR_CLOSED) {
            why = t->items[i].error;
            break;
        }
    }
    return why;
}

/* Runs what waits for one table; the mutex is released meanwhile. */
static void load_locked(struct loader_thread *t)
{
    struct host *host = t->host;
    struct loader *loader = host->loader;
    struct load *late = NULL;
    take_locked(t, &late);
    const struct load *first = t->batch_count > 0 ? t->batch[0] : NULL;
    struct store_batch batch = {.count = t->batch_count, .loads = t->items};
    uint64_t until_us = 0;
    if (first != NULL) {
        batch.source = first->namespace;
        batch.is_locking = first->is_locking;
        until_us = host->kind == HOST_REPLICA ? first->replica_until_us : first->deadline_us;
    }
    if (late != NULL) {
        answer_locked(t, late); /* lets go of the mutex: the watchdog may take out of the batch what is late by now */
    }
    if (batch.count == 0) {
        return;
    }
    host_wake_locked(host); /* there may be other tables' */
    t->state = THREAD_LOADING;
    t->is_interrupted = false;
    loader_watch_locked(loader, until_us);
    pthread_mutex_unlock(&loader->mutex);
    enum err err = loader->store->load(t->connection, &batch);
    count_queries(t, &batch);
    pthread_mutex_lock(&loader->mutex);
    t->state = THREAD_IDLE;
    bool is_gone = err == ERR_CLOSED || t->is_interrupted;
    char why[LOAD_ERROR_MAX] = "";
    const char *text = account_locked(t, is_gone);
    snprintf(why, sizeof why, "%s", text != NULL ? text : "");
    if (is_gone) {
        snprintf(host->why, sizeof host->why, "%s", why);
    }
    struct load *ended = settle_locked(t);
    host_wake_locked(host);
    if (ended != NULL) {
        answer_locked(t, ended);
    }
    if (is_gone) {
        disconnect_locked(t, why);
    }
}

static void wait_for_work_locked(struct loader_thread *t)
{
    struct host *host = t->host;
    struct loader *loader = host->loader;
    uint64_t check_at = clock_mono_us() + IDLE_CHECK_US;
    host->idle++;
    loader_wait_until_locked(loader, &host->work, check_at);
    host->idle--;
    bool is_time = loader->loads.queues[host->kind].head == NULL && !loader->is_stopping && clock_mono_us() >= check_at;
    if (is_time && !loader->store->is_alive(t->connection)) {
        disconnect_locked(t, "the server has closed the connection");
    }
}

void *host_thread_main(void *arg)
{
    struct loader_thread *t = arg;
    struct host *host = t->host;
    struct loader *loader = host->loader;
    pthread_mutex_lock(&loader->mutex);
    while (!loader->is_stopping) {
        if (t->is_connected && t->epoch != host->epoch) {
            disconnect_locked(t, "another address is tried");
        } else if (!t->is_connected) {
            connect_locked(t);
        } else if (loader->loads.queues[host->kind].head != NULL) {
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

/* --- beginning and end --- */

void host_init(struct host *host, struct loader *loader, enum host_kind kind, struct metrics *metrics)
{
    const struct config_database *database = loader->config->database;
    bool is_primary = kind == HOST_PRIMARY;
    *host = (struct host){
        .loader = loader,
        .kind = kind,
        .addresses = is_primary ? database->primary : &database->replica,
        .address_count = is_primary ? database->primary_count : database->replica.text != NULL,
        .grace_until_us = clock_mono_us() + 1000ULL * LOADER_GRACE_MS,
    };
    host->thread_count = host->address_count > 0 ? database->threads : 0;
    breaker_init(&host->breaker, database->breaker_failures, clock_mono_us() << 8 ^ (uintptr_t)host);
    if (host->address_count > 0) {
        snprintf(host->why, sizeof host->why, "%s: not connected yet", host_address(host));
    }
    host->threads = xcalloc(host->thread_count, sizeof *host->threads);
    for (uint32_t i = 0; i < host->thread_count; i++) {
        struct loader_thread *t = &host->threads[i];
        t->host = host;
        t->metrics = metrics_shard_create(metrics);
        t->random = (clock_mono_us() << 8 ^ (uintptr_t)t) | 1;
    }
}

void host_deinit(struct host *host)
{
    pthread_cond_destroy(&host->work);
    free(host->threads);
}
