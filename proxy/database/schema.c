#include "proxy/database/schema.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "common/clock.h"
#include "proxy/database/store.h"

#define RETRY_US 1000000

/* Says one line. */
typedef void (*say_line)(void *ctx, bool is_error, const char *text);

/* One look at the database. */
struct look {
    const struct config *config;
    const struct store *store;
    struct source *sources; /* by namespace */
    struct store_connection *connection;
    say_line say;
    void *ctx;
};

struct schema_watch {
    struct look look;
    struct log *log;
    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    bool is_stopping;
    struct store_connection *connecting; /* what stopping interrupts */
    bool is_created;
};

/* --- connecting --- */

static void look_init(struct look *look, const struct config *config, const struct store *store, say_line say, void *ctx)
{
    *look = (struct look){.config = config, .store = store, .say = say, .ctx = ctx};
    look->sources = xcalloc(config->namespace_count, sizeof *look->sources);
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        if (config->namespaces[i].source != NULL) {
            source_init(&look->sources[i], &config->namespaces[i], config->max_value_size);
        }
    }
}

static void look_deinit(struct look *look)
{
    for (uint32_t i = 0; i < look->config->namespace_count; i++) {
        if (look->sources[i].namespace != NULL) {
            source_deinit(&look->sources[i]);
        }
    }
    free(look->sources);
}

static struct store_connection *open_address(const struct look *look, uint32_t i)
{
    const struct config_database *database = look->config->database;
    struct store_options options = {
        .config = database,
        .address = &database->primary[i],
        .role = database->primary_count > 1 ? STORE_PRIMARY_OF_SEVERAL : STORE_PRIMARY,
        .sources = look->sources,
        .source_count = look->config->namespace_count,
        .max_value_size = look->config->max_value_size,
    };
    return look->store->open(&options);
}

/* The first address that is the primary. */
static enum err connect_any(struct look *look)
{
    char error[STORE_ERROR_MAX] = "";
    for (uint32_t i = 0; i < look->config->database->primary_count; i++) {
        look->connection = open_address(look, i);
        if (look->store->connect(look->connection, error, sizeof error) == OK) {
            return OK;
        }
        look->store->close(&look->connection);
        look->say(look->ctx, true, error);
    }
    return ERR_UNAVAILABLE;
}

/* --- checking --- */

static enum err check_all(struct look *look)
{
    uint32_t errors = 0;
    for (uint32_t i = 0; i < look->config->namespace_count; i++) {
        char error[STORE_ERROR_MAX] = "";
        struct mapping_table table;
        if (look->sources[i].namespace == NULL) {
            continue;
        }
        enum err err = look->store->describe(look->connection, i, &table, error, sizeof error);
        if (err != OK) {
            look->say(look->ctx, true, error);
            return ERR_UNAVAILABLE;
        }
        errors += mapping_check(&look->sources[i], &table, look->say, look->ctx);
        mapping_table_deinit(&table);
    }
    return errors > 0 ? ERR_CONFIG : OK;
}

static void say_to_file(void *ctx, bool is_error, const char *text)
{
    fprintf(ctx, "%s%s\n", is_error ? "" : "warning: ", text);
}

enum err schema_check(const struct config *config, const struct store *store, FILE *out)
{
    struct look look;
    if (config->database == NULL) {
        fprintf(out, "there is no database section\n");
        return ERR_CONFIG;
    }
    look_init(&look, config, store, say_to_file, out);
    enum err err = connect_any(&look);
    if (err == OK) {
        err = check_all(&look);
        store->close(&look.connection);
    }
    look_deinit(&look);
    return err;
}

/* --- creating --- */

static char *table_sql(const char *head, const char *table, const char *tail)
{
    char *sql = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&sql, &len);
    if (out == NULL) {
        fputs("out of memory\n", stderr);
        abort();
    }
    fputs(head, out);
    source_put_table(out, table);
    fputs(tail, out);
    fclose(out);
    return sql;
}

char *schema_entries_sql(const char *table)
{
    return table_sql("CREATE TABLE IF NOT EXISTS ", table,
                     " (\n"
                     "  `cache_key` VARBINARY(250) NOT NULL,\n"
                     "  `value` LONGBLOB NOT NULL,\n"
                     "  `flags` INT UNSIGNED NOT NULL DEFAULT 0,\n"
                     "  `version` BIGINT UNSIGNED NOT NULL,\n"
                     "  `updated_at` TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),\n"
                     "  `expires_at` TIMESTAMP(6) NULL DEFAULT NULL,\n"
                     "  PRIMARY KEY (`cache_key`)\n"
                     ") ENGINE=InnoDB");
}

char *schema_heartbeat_sql(const char *table)
{
    return table_sql("CREATE TABLE IF NOT EXISTS ", table,
                     " (\n"
                     "  `id` TINYINT UNSIGNED NOT NULL,\n"
                     "  `version` BIGINT UNSIGNED NOT NULL,\n"
                     "  `owner` BIGINT UNSIGNED NOT NULL,\n"
                     "  `beat_at` DATETIME(6) NOT NULL,\n"
                     "  PRIMARY KEY (`id`)\n"
                     ") ENGINE=InnoDB");
}

char *schema_first_heartbeat_sql(const char *table)
{
    return table_sql("INSERT IGNORE INTO ", table, " VALUES (1, 0, 0, '2000-01-01')");
}

/* Runs the statement and frees it. */
static enum err run(struct look *look, char *sql, const char *table, FILE *out)
{
    char error[STORE_ERROR_MAX] = "";
    enum err err = look->store->run(look->connection, sql, error, sizeof error);
    if (err != OK) {
        fprintf(out, "%s: %s\n", table, error);
    }
    free(sql);
    return err;
}

enum err schema_init(const struct config *config, const struct store *store, FILE *out)
{
    struct look look;
    if (config->database == NULL) {
        fprintf(out, "there is no database section\n");
        return ERR_CONFIG;
    }
    look_init(&look, config, store, say_to_file, out);
    enum err err = connect_any(&look);
    bool is_connected = err == OK;
    for (uint32_t i = 0; i < config->namespace_count && err == OK; i++) {
        const struct config_source *source = config->namespaces[i].source;
        if (source != NULL && source->kind == SOURCE_ENTRIES) {
            err = run(&look, schema_entries_sql(source->table), source->table, out);
            if (err == OK) {
                fprintf(out, "%s: is there (namespace %s)\n", source->table, config->namespaces[i].name);
            }
        }
    }
    const char *heartbeat = config->database->heartbeat_table;
    if (err == OK) {
        err = run(&look, schema_heartbeat_sql(heartbeat), heartbeat, out);
    }
    if (err == OK) {
        err = run(&look, schema_first_heartbeat_sql(heartbeat), heartbeat, out);
    }
    if (err == OK) {
        fprintf(out, "%s: is there\n", heartbeat);
        err = check_all(&look); /* a table of that name may have been another one */
    }
    if (is_connected) {
        store->close(&look.connection);
    }
    look_deinit(&look);
    return err;
}

/* --- in the background --- */

static void say_to_log(void *ctx, bool is_error, const char *text)
{
    struct schema_watch *watch = ctx;
    if (is_error) {
        log_error(watch->log, "database: %s", text);
    } else {
        log_warn(watch->log, "database: %s", text);
    }
}

/* Connects to an address, in a way that stopping can end; false without a connection. */
static bool connect_locked(struct schema_watch *watch, uint32_t i)
{
    struct look *look = &watch->look;
    char error[STORE_ERROR_MAX] = "";
    look->connection = open_address(look, i);
    watch->connecting = look->connection;
    pthread_mutex_unlock(&watch->mutex);
    bool is_connected = look->store->connect(look->connection, error, sizeof error) == OK; /* the loader says why not */
    pthread_mutex_lock(&watch->mutex);
    return is_connected && !watch->is_stopping;
}

static void *watch_main(void *arg)
{
    struct schema_watch *watch = arg;
    struct look *look = &watch->look;
    bool is_done = false;
    pthread_mutex_lock(&watch->mutex);
    for (uint32_t i = 0; !watch->is_stopping && !is_done; i = (i + 1) % look->config->database->primary_count) {
        if (connect_locked(watch, i)) {
            pthread_mutex_unlock(&watch->mutex);
            is_done = check_all(look) != ERR_UNAVAILABLE;
            pthread_mutex_lock(&watch->mutex);
        }
        watch->connecting = NULL;
        look->store->close(&look->connection);
        uint64_t at = clock_mono_us() + RETRY_US;
        struct timespec ts = {.tv_sec = (time_t)(at / 1000000), .tv_nsec = (long)(at % 1000000 * 1000)};
        while (!watch->is_stopping && !is_done && clock_mono_us() < at) {
            pthread_cond_timedwait(&watch->changed, &watch->mutex, &ts);
        }
    }
    pthread_mutex_unlock(&watch->mutex);
    return NULL;
}

enum err schema_watch_start(const struct config *config, const struct store *store, struct log *log, struct schema_watch **out)
{
    struct schema_watch *watch = xcalloc(1, sizeof *watch);
    sigset_t all, before;
    pthread_condattr_t attr;
    watch->log = log;
    look_init(&watch->look, config, store, say_to_log, watch);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&watch->mutex, NULL);
    pthread_cond_init(&watch->changed, &attr);
    pthread_condattr_destroy(&attr);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    watch->is_created = pthread_create(&watch->thread, NULL, watch_main, watch) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    *out = watch;
    if (!watch->is_created) {
        schema_watch_stop(out);
        return ERR_NOMEM;
    }
    return OK;
}

void schema_watch_stop(struct schema_watch **out)
{
    struct schema_watch *watch = *out;
    *out = NULL;
    if (watch == NULL) {
        return;
    }
    pthread_mutex_lock(&watch->mutex);
    watch->is_stopping = true;
    if (watch->connecting != NULL) {
        watch->look.store->interrupt(watch->connecting);
    }
    pthread_cond_broadcast(&watch->changed);
    pthread_mutex_unlock(&watch->mutex);
    if (watch->is_created) {
        pthread_join(watch->thread, NULL);
    }
    look_deinit(&watch->look);
    pthread_cond_destroy(&watch->changed);
    pthread_mutex_destroy(&watch->mutex);
    free(watch);
}
