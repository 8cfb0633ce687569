#include "proxy/database/heartbeat.h"

#include <sys/random.h>

#include "common/guard.h"
#include "common/version.h"
#include "proxy/database/host.h"

#define RETRY_US 1000000
#define ABSENT_RETRY_US 30000000 /* there may be no such table, because nobody needs it */

struct heartbeat {
    struct loader *loader;
    struct metrics_shard *metrics;
    pthread_t id;
    bool is_started;
    uint64_t owner;
    uint64_t random;
    char said[STORE_ERROR_MAX]; /* the last trouble that was logged */
    struct store_connection *connection; /* under the loader's mutex; changes only by this thread */
};

struct heartbeat *heartbeat_create(struct loader *loader, struct metrics *metrics)
{
    struct heartbeat *h = xcalloc(1, sizeof *h);
    h->loader = loader;
    h->metrics = metrics_shard_create(metrics);
    if (getrandom(&h->owner, sizeof h->owner, GRND_NONBLOCK) != sizeof h->owner) {
        h->owner = clock_mono_us() << 16 ^ (uintptr_t)h;
    }
    h->owner |= 1; /* 0: nobody */
    h->random = h->owner;
    return h;
}

static uint64_t jitter_us(struct heartbeat *h, uint64_t us)
{
    h->random = h->random * 6364136223846793005ULL + 1442695040888963407ULL;
    return us / 2 + (h->random >> 33) % (us / 2 + 1);
}

static void close_locked(struct heartbeat *h)
{
    struct store_connection *connection = h->connection;
    h->connection = NULL;
    pthread_mutex_unlock(&h->loader->mutex);
    h->loader->store->close(&connection);
    pthread_mutex_lock(&h->loader->mutex);
}

/* One beat, on a connection to the address that the loads use; the mutex is released meanwhile. Returns how long to wait then. */
static uint64_t beat_locked(struct heartbeat *h, uint32_t *epoch)
{
    struct loader *loader = h->loader;
    const struct host *primary = &loader->hosts[HOST_PRIMARY];
    uint64_t interval_us = 1000ULL * loader->config->database->heartbeat_interval_ms;
    char error[STORE_ERROR_MAX] = "";
    enum err err = OK;
    bool is_owner = false;
    if (h->connection != NULL && *epoch != primary->epoch) {
        close_locked(h);
    }
    bool is_new = h->connection == NULL;
    if (is_new) {
        struct store_options options = loader->options;
        options.address = &primary->addresses[primary->current];
        options.role = primary->address_count > 1 ? STORE_PRIMARY_OF_SEVERAL : STORE_PRIMARY;
        *epoch = primary->epoch;
        h->connection = loader->store->open(&options);
    }
    pthread_mutex_unlock(&loader->mutex);
    if (is_new) {
        err = loader->store->connect(h->connection, error, sizeof error);
    }
    if (err == OK) {
        uint64_t version = guard_wall_ms(loader->config) << VERSION_MS_SHIFT; /* before it is sent */
        uint64_t lease_us = HEARTBEAT_LEASE * interval_us;
        err = loader->store->beat(h->connection, version, h->owner, lease_us, &is_owner, error, sizeof error);
    }
    if (err == OK && is_owner) {
        metrics_add(h->metrics, METRIC_HEARTBEATS, 0, 1);
    }
    bool is_absent = err == ERR_DATABASE && loader->config->database->replica.text == NULL; /* it may not be wanted at all */
    if (err != OK && !is_absent && strcmp(error, h->said) != 0) {
        log_warn(loader->log, "database: no heartbeat: %s", error);
        snprintf(h->said, sizeof h->said, "%s", error);
    }
    pthread_mutex_lock(&loader->mutex);
    if (err != OK) {
        close_locked(h);
        return err == ERR_DATABASE ? ABSENT_RETRY_US / (is_absent ? 1 : 15) : jitter_us(h, RETRY_US);
    }
    h->said[0] = '\0';
    return is_owner ? interval_us : jitter_us(h, HEARTBEAT_LEASE * interval_us);
}

static void *heartbeat_main(void *arg)
{
    struct heartbeat *h = arg;
    struct loader *loader = h->loader;
    uint32_t epoch = 0;
    pthread_mutex_lock(&loader->mutex);
    while (!loader->is_stopping) {
        uint64_t at = clock_mono_us();
        at += beat_locked(h, &epoch);
        while (!loader->is_stopping && clock_mono_us() < at) {
            loader_wait_until_locked(loader, &loader->stop, at);
        }
    }
    if (h->connection != NULL) {
        close_locked(h);
    }
    pthread_mutex_unlock(&loader->mutex);
    return NULL;
}

enum err heartbeat_start(struct heartbeat *h)
{
    h->is_started = pthread_create(&h->id, NULL, heartbeat_main, h) == 0;
    return h->is_started ? OK : ERR_NOMEM;
}

void heartbeat_interrupt_locked(struct heartbeat *h)
{
    if (h->connection != NULL) {
        h->loader->store->interrupt(h->connection);
    }
}

void heartbeat_destroy(struct heartbeat **heartbeat)
{
    struct heartbeat *h = *heartbeat;
    *heartbeat = NULL;
    if (h == NULL) {
        return;
    }
    if (h->is_started) {
        pthread_join(h->id, NULL);
    }
    free(h);
}
