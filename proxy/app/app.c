#include "proxy/app/app.h"

#include <signal.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/credentials.h"
#include "proxy/admin/http.h"
#include "proxy/app/controller.h"
#include "proxy/cache/sweep.h"
#include "proxy/database/schema.h"
#include "proxy/database/store.h"
#include "proxy/net/tls.h"

#define DRAIN_MS 5000
#define SPARE_DESCRIPTORS 256
#define LOOK_MS 1000 /* how often files are looked at that are read again when they change */

struct app {
    const struct config *config;
    struct log *log;
    struct metric_registry *registry;
    struct namespaces namespaces;
    struct ketama *ring;
    struct tls *tls; /* or NULL */
    struct metrics_shard *shard; /* the main thread's */
    struct metrics_baseline *baseline;
    struct credentials *credentials; /* or NULL */
    struct worker **workers;
    struct front **fronts; /* the workers' */
    struct cache **caches; /* the workers' */
    uint32_t worker_count;
    struct loader *loader;
    struct writer *writer; /* or NULL: no namespace is written through */
    struct schema_watch *schema;
    struct bus *bus;
    struct rules *rules;
    struct controller controller;
    struct sweep *sweep;
    struct admin *admin;
    _Atomic uint32_t connection_count;
    sigset_t signals;
};

/* --- what admin asks, on its own thread --- */

static bool pool_is_ready(void *ctx, char *text, size_t size)
{
    struct app *app = ctx;
    const struct config_pool *pool = &app->config->pool;
    struct metrics *metrics = metric_registry_metrics(app->registry);
    uint64_t wanted = (uint64_t)app->config->threads * pool->connections;
    size_t used = 0;
    bool is_ready = true;
    text[0] = '\0';
    for (uint32_t i = 0; i < pool->node_count && used < size; i++) {
        uint64_t up = metrics_sum(metrics, METRIC_NODE_UP, i);
        if (up < wanted) {
            int n = snprintf(text + used, size - used, "%snode %s: %lu of %lu connections", is_ready ? "" : "\n",
                             pool->nodes[i].address.text, (unsigned long)up, (unsigned long)wanted);
            used += n > 0 ? (size_t)n : 0;
            is_ready = false;
        }
    }
    return is_ready;
}

static bool database_is_ready(void *ctx, char *text, size_t size)
{
    return loader_is_ready(((struct app *)ctx)->loader, text, size);
}

static bool writer_is_up(void *ctx, char *text, size_t size)
{
    return writer_is_ready(((struct app *)ctx)->writer, text, size);
}

static bool invalidation_bus_is_ready(void *ctx, char *text, size_t size)
{
    return bus_is_ready(((struct app *)ctx)->bus, text, size);
}

static bool spool_is_ready(void *ctx, char *text, size_t size)
{
    return bus_is_spool_ready(((struct app *)ctx)->bus, text, size);
}

static bool strong_hits_are_served(void *ctx, char *text, size_t size)
{
    return strong_is_ready(((struct app *)ctx)->controller.strong, text, size);
}

static bool all_rules_are_ready(void *ctx, char *text, size_t size)
{
    return rules_are_ready(((struct app *)ctx)->rules, text, size);
}

static struct worker *worker_of(struct app *app, struct span key)
{
    return controller_worker(app->workers, app->worker_count, key);
}

static void invalidate_key(void *ctx, struct errand *errand)
{
    errand_submit(worker_cache(worker_of(ctx, span_of(errand->key, errand->key_len))), errand);
}

/* --- what the bus delivers, on its threads --- */

static void apply(void *ctx, struct delivery *delivery)
{
    struct app *app = ctx;
    if (delivery->event.is_pattern) {
        rules_apply(app->rules, delivery);
    } else {
        worker_apply(worker_of(app, span_of(delivery->event.key, delivery->event.key_len)), delivery);
    }
}

static void on_rule(void *ctx, const struct rule_event *event)
{
    rules_on_rule(((struct app *)ctx)->rules, event);
}

static void on_rules(void *ctx, enum rules_watch what)
{
    rules_on_watch(((struct app *)ctx)->rules, what);
}

/* --- upward --- */

static void raise_descriptor_limit(struct app *app)
{
    struct rlimit limit;
    rlim_t wanted = app->config->max_connections + SPARE_DESCRIPTORS;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted) {
        return;
    }
    limit.rlim_cur = limit.rlim_max == RLIM_INFINITY ? wanted : MIN(wanted, limit.rlim_max);
    setrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < wanted) {
        log_warn(app->log, "the limit of open files is %lu: less than max_connections (%u) needs; raise it (ulimit -n, LimitNOFILE=)",
                 (unsigned long)limit.rlim_cur, app->config->max_connections);
    }
}

static enum err open_listeners(struct app *app, int *fds, bool is_first, const int *first_fds)
{
    const struct config *config = app->config;
    char error[256];
    for (uint32_t i = 0; i < config->listen_count; i++) {
        fds[i] = -1;
    }
    for (uint32_t i = 0; i < config->listen_count; i++) {
        const struct address *address = &config->listen[i].address;
        if (address->path != NULL && !is_first) {
            fds[i] = dup(first_fds[i]);
            if (fds[i] < 0) {
                log_error(app->log, "can not share %s: no descriptors left", address->text);
                return ERR_IO;
            }
            continue;
        }
        /* With SO_REUSEPORT a second process would get on the port unnoticed and take half of the clients. */
        enum err err = is_first ? listener_probe(address, error, sizeof error) : OK;
        if (err == OK) {
            err = listener_socket(address, config->listen[i].mode, &fds[i], error, sizeof error);
        }
        if (err != OK) {
            log_error(app->log, "%s", error);
            return err;
        }
    }
    return OK;
}

static void close_all(int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

static uint32_t clock_id(const struct config *config)
{
    uint32_t id = (uint32_t)config->sidecar_id;
    if (config->sidecar_id < 0 && getrandom(&id, sizeof id, 0) != sizeof id) {
        id = (uint32_t)clock_mono_us();
    }
    return id;
}

static enum err create_workers(struct app *app, uint32_t id)
{
    const struct config *config = app->config;
    struct worker_context context = {
        .config = config,
        .namespaces = &app->namespaces,
        .ring = app->ring,
        .rules = app->rules,
        .log = app->log,
        .metrics = metric_registry_metrics(app->registry),
        .tls = app->tls,
        .connection_count = &app->connection_count,
        .started_ms = clock_wall_ms(),
        .baseline = app->baseline,
        .credentials = app->credentials,
        .fronts = app->fronts,
    };
    enum err err = OK;
    uint32_t n = config->listen_count;
    app->workers = xcalloc(config->threads, sizeof(struct worker *));
    int *all = xcalloc((size_t)config->threads * n, sizeof *all);
    for (uint32_t w = 0; w < config->threads; w++) {
        err = open_listeners(app, &all[w * n], w == 0, all);
        if (err != OK) {
            close_all(all, (w + 1) * n);
            goto out;
        }
    }
    for (uint32_t w = 0; w < config->threads; w++) {
        err = worker_create(&context, w, id + w, &all[w * n], &app->workers[w]);
        if (err != OK) {
            log_error(app->log, "can not start worker %u: %s", w, err_text(err));
            close_all(&all[(w + 1) * n], (config->threads - w - 1) * n);
            goto out;
        }
        app->worker_count++;
        rules_add_worker(app->rules, worker_cache(app->workers[w]));
    }
out:
    free(all);
    return err;
}

/* ---- credentials ---- */

static void tell_credentials(struct app *app)
{
    log_info(app->log, "credentials: %s: %u users; every client must authenticate", credentials_path(app->credentials),
             credentials_count(app->credentials));
    if (credentials_is_exposed(app->credentials)) {
        log_warn(app->log, "credentials: %s can be read by everybody on this host (chmod o-r)", credentials_path(app->credentials));
    }
}

static enum err open_credentials(struct app *app)
{
    struct reason why;
    if (app->config->credentials_file == NULL) {
        return OK;
    }
    enum err err = credentials_open(app->config->credentials_file, &app->credentials, &why);
    if (err != OK) {
        log_error(app->log, "credentials: %s", why.text);
        return err;
    }
    tell_credentials(app);
    return OK;
}

/* When told to, or when the file is another one. Clients that are authenticated stay so. */
static void refresh_credentials(struct app *app, bool is_told)
{
    struct reason why;
    if (app->credentials == NULL || (!is_told && !credentials_is_outdated(app->credentials))) {
        return;
    }
    if (credentials_reload(app->credentials, &why) != OK) {
        log_error(app->log, "credentials: %s; those that were read before stay in force", why.text);
        return;
    }
    tell_credentials(app);
}

static enum err start_admin(struct app *app)
{
    const struct config *config = app->config;
    if (!config->has_admin) {
        return OK;
    }
    struct admin_probe probes[7];
    uint32_t count = 0;
    probes[count++] = (struct admin_probe){"pool", pool_is_ready, app};
    if (app->loader != NULL) {
        probes[count++] = (struct admin_probe){"database", database_is_ready, app};
    }
    if (app->writer != NULL) {
        probes[count++] = (struct admin_probe){"database (writes)", writer_is_up, app};
    }
    if (app->bus != NULL) {
        probes[count++] = (struct admin_probe){"bus", invalidation_bus_is_ready, app};
        probes[count++] = (struct admin_probe){"rules", all_rules_are_ready, app};
    }
    if (app->bus != NULL && bus_has_spool(app->bus)) {
        probes[count++] = (struct admin_probe){"spool", spool_is_ready, app};
    }
    if (app->controller.strong != NULL) {
        probes[count++] = (struct admin_probe){"strong", strong_hits_are_served, app};
    }
    app->caches = xcalloc(app->worker_count, sizeof *app->caches);
    for (uint32_t i = 0; i < app->worker_count; i++) {
        app->caches[i] = worker_cache(app->workers[i]);
    }
    struct admin_view view = {.config = config, .namespaces = &app->namespaces, .ring = app->ring, .bus = app->bus, .strong = app->controller.strong};
    struct admin_options options = {
        .address = &config->admin,
        .unix_mode = config->unix_mode,
        .metrics = metric_registry_metrics(app->registry),
        .probes = probes,
        .probe_count = count,
        .invalidator = {.rules = app->rules, .submit_key = invalidate_key, .ctx = app},
        .token = config->admin_token,
        .view = &view,
        .caches = app->caches,
        .cache_count = app->worker_count,
    };
    return admin_create(&options, app->log, &app->admin);
}

static enum err start_tls(struct app *app)
{
    char text[TLS_TEXT] = "";
    if (app->config->tls == NULL) {
        return OK;
    }
    enum err err = tls_create(app->config->tls, &app->tls, text);
    if (err != OK) {
        log_error(app->log, "%s", text);
        return err;
    }
    if (text[0] != '\0') {
        log_warn(app->log, "%s; clients will refuse it", text);
    }
    metrics_set(app->shard, METRIC_TLS_EXPIRY, 0, tls_expires_s(app->tls));
    return OK;
}

static bool needs_writer(const struct config *config)
{
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        if (config->namespaces[i].write == WRITE_THROUGH) {
            return true;
        }
    }
    return false;
}

static enum err start_database(struct app *app)
{
    const struct config *config = app->config;
    struct metrics *metrics = metric_registry_metrics(app->registry);
    enum err err = OK;
    if (config->database != NULL) {
        err = loader_create(config, app->log, metrics, &app->loader);
        if (err != OK) {
            log_error(app->log, "can not start the database threads: %s", err_text(err));
            return err;
        }
        err = schema_watch_start(config, &store_mysql, app->log, &app->schema);
        if (err != OK) {
            log_error(app->log, "can not start the check of the database's tables: %s", err_text(err));
            return err;
        }
    }
    if (needs_writer(config)) {
        err = writer_create(config, app->log, metrics, &app->writer);
        if (err != OK) {
            log_error(app->log, "can not start the threads that write to the database: %s", err_text(err));
            return err;
        }
    }
    return OK;
}

static enum err start(struct app *app)
{
    const struct config *config = app->config;
    struct metrics *metrics = metric_registry_metrics(app->registry);
    raise_descriptor_limit(app);
    enum err err = pool_ring(&config->pool, &app->ring);
    if (err != OK) {
        return err;
    }
    err = start_tls(app);
    if (err != OK) {
        return err;
    }
    app->baseline = metrics_baseline_create(metrics);
    app->fronts = xcalloc(config->threads, sizeof(struct front *));
    err = open_credentials(app);
    uint32_t id = clock_id(config);
    if (err == OK) {
        err = rules_create(config, app->log, metrics, id + config->threads, &app->rules);
    }
    if (err == OK) {
        err = create_workers(app, id);
    }
    if (err != OK) {
        return err;
    }
    err = start_database(app);
    if (err != OK) {
        return err;
    }
    if (config->bus != NULL) {
        struct bus_sink sink = {.apply = apply, .ctx = app, .on_rule = on_rule, .on_rules = on_rules};
        err = bus_create(config, app->log, metrics, sink, &app->bus);
        if (err != OK) {
            log_error(app->log, "can not start the bus: %s", err_text(err));
            return err;
        }
    }
    app->controller = (struct controller){.config = config, .log = app->log, .metrics = metrics, .workers = app->workers,
                                          .worker_count = app->worker_count, .rules = app->rules};
    err = controller_start(&app->controller, app->ring);
    if (err != OK) {
        return err;
    }
    err = rules_start(app->rules, app->bus);
    if (err != OK) {
        log_error(app->log, "can not start the thread of the rules: %s", err_text(err));
        return err;
    }
    for (uint32_t i = 0; i < app->worker_count; i++) {
        err = worker_start(app->workers[i], app->loader, app->writer, app->bus, app->controller.strong);
        if (err != OK) {
            log_error(app->log, "can not start worker %u: %s", i, err_text(err));
            return err;
        }
    }
    err = sweep_create(config, app->log, metrics, app->rules, &app->sweep);
    if (err != OK) {
        log_error(app->log, "can not start the thread that sweeps: %s", err_text(err));
        return err;
    }
    return start_admin(app);
}

/* --- downward --- */

static void drain(struct app *app)
{
    for (uint32_t i = 0; i < app->worker_count; i++) {
        worker_drain(app->workers[i]);
    }
    uint64_t deadline_us = clock_mono_us() + 1000ULL * DRAIN_MS;
    for (uint32_t i = 0; i < app->worker_count; i++) {
        while (!worker_is_drained(app->workers[i]) && clock_mono_us() < deadline_us) {
            struct timespec pause = {.tv_nsec = 5000000};
            int signal = sigtimedwait(&app->signals, NULL, &pause);
            if (signal == SIGTERM || signal == SIGINT) {
                log_warn(app->log, "a second signal: not waiting for clients any longer");
                return;
            }
        }
    }
}

static void stop(struct app *app)
{
    admin_stop(app->admin); /* waits for invalidations under way */
    sweep_stop(&app->sweep);
    for (uint32_t i = 0; i < app->worker_count; i++) {
        worker_stop(app->workers[i]);
    }
    if (app->controller.strong != NULL) {
        strong_stop(app->controller.strong);
    }
    if (app->bus != NULL) {
        bus_stop(app->bus);
    }
    schema_watch_stop(&app->schema);
    if (app->rules != NULL) {
        rules_stop(app->rules);
    }
    loader_destroy(&app->loader);
    writer_destroy(&app->writer);
    bool had_mail; /* a visit of stats_conns.c may be anywhere, and comes home before its home is destroyed */
    do {
        had_mail = false;
        for (uint32_t i = 0; i < app->worker_count; i++) {
            had_mail = worker_settle(app->workers[i]) || had_mail;
        }
    } while (had_mail);
    for (uint32_t i = 0; i < app->worker_count; i++) {
        worker_destroy(&app->workers[i]);
    }
    admin_destroy(&app->admin); /* what it had asked the workers has come home */
    free(app->workers);
    free(app->caches);
    free(app->fronts);
    metrics_baseline_destroy(&app->baseline);
    credentials_close(&app->credentials);
    strong_destroy(&app->controller.strong);
    rules_destroy(&app->rules);
    bus_destroy(&app->bus);
    tls_destroy(&app->tls);
    ketama_destroy(&app->ring);
    namespaces_deinit(&app->namespaces);
    metric_registry_destroy(&app->registry);
    for (uint32_t i = 0; i < app->config->listen_count; i++) {
        if (app->config->listen[i].address.path != NULL && app->worker_count > 0) {
            unlink(app->config->listen[i].address.path);
        }
    }
}

/* --- meanwhile --- */

static void reload_tls(struct app *app, const char *cause)
{
    char text[TLS_TEXT];
    enum err err = tls_reload(app->tls, text);
    metrics_add(app->shard, METRIC_TLS_RELOADS, err == OK ? RELOAD_DONE : RELOAD_REFUSED, 1);
    if (err != OK) {
        log_error(app->log, "tls: %s, but the old certificate stays in force: %s", cause, text);
        return;
    }
    metrics_set(app->shard, METRIC_TLS_EXPIRY, 0, tls_expires_s(app->tls));
    log_info(app->log, "tls: %s: new connections get the certificate in %s%s%s", cause, app->config->tls->certificate, text[0] != '\0' ? "; " : "",
             text);
}

/* Waits for SIGTERM or SIGINT. SIGHUP, and files that change, have them read again. */
static int wait_for_signal(struct app *app)
{
    struct timespec pause = {.tv_sec = LOOK_MS / 1000, .tv_nsec = LOOK_MS % 1000 * 1000000L};
    for (;;) {
        int signal = sigtimedwait(&app->signals, NULL, &pause);
        if (signal == SIGTERM || signal == SIGINT) {
            return signal;
        }
        refresh_credentials(app, signal == SIGHUP);
        if (signal == SIGHUP && app->tls != NULL) {
            reload_tls(app, "SIGHUP");
        } else if (app->tls != NULL && tls_has_changed(app->tls)) {
            reload_tls(app, "its files have changed");
        }
    }
}

enum err app_run(const struct config *config)
{
    struct app app = {.config = config};
    app.log = log_create(STDERR_FILENO, config->log_level);
    app.registry = metric_registry_create(config, command_words, COMMAND_COUNT);
    app.shard = metrics_shard_create(metric_registry_metrics(app.registry));
    namespaces_init(&app.namespaces, config);
    /* Before any thread exists, so that all inherit it: signals come to this thread only. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error of the spool, not the end of the process */
    signal(SIGHUP, SIG_DFL); /* blocked and waited for, which an ignored one could not be */
    sigemptyset(&app.signals);
    sigaddset(&app.signals, SIGTERM);
    sigaddset(&app.signals, SIGINT);
    sigaddset(&app.signals, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &app.signals, NULL);
    enum err err = start(&app);
    if (err == OK) {
        log_info(app.log, "outrigger %s: region %s, %u workers, %u nodes, %u namespaces, listening on %s%s", OUTRIGGER_VERSION,
                 config->region, config->threads, config->pool.node_count, config->namespace_count, config->listen[0].address.text,
                 config->listen_count > 1 ? " and others" : "");
        int signal = wait_for_signal(&app);
        log_info(app.log, "signal %d: finishing what is under way", signal);
        drain(&app);
    }
    stop(&app);
    log_destroy(&app.log);
    return err;
}
