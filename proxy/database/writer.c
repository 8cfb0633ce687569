#include "proxy/database/writer.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "common/clock.h"
#include "proxy/database/store.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define IDLE_CHECK_US 1000000 /* how often an idle connection is looked at */
#define WATCH_GRAIN_US 2000   /* the watchdog's shortest sleep */
#define ATTEMPTS_MAX 8        /* connections that one write may lose */
#define NEVER UINT64_MAX

enum thread_state { THREAD_IDLE, THREAD_CONNECTING, THREAD_WRITING };

struct writer_thread {
    struct writer *writer;
    pthread_t id;
    bool is_started;
    struct metrics_shard *metrics; /* this thread's own */
    uint64_t random;               /* of the back-off's jitter; this thread's own */

    /* Under the writer's mutex. */
    enum thread_state state;
    struct store_connection *connection; /* changes only while idle */
    uint32_t address;                    /* of those that may be the primary, the one that it is connected to or tries next */
    bool is_connected;
    bool is_interrupted;  /* the connection is of no more use */
    uint64_t deadline_us; /* of what it is doing; NEVER: none, or already interrupted */
    uint32_t failures;    /* connections that failed or were lost since the last write that was answered */
};

struct writer {
    const struct config *config;
    struct log *log;
    const struct store *store;
    struct store_options options;
    struct source *sources; /* by namespace */
    struct writer_thread *threads;
    struct writer_thread watchdog; /* id and metrics only */

    pthread_mutex_t mutex; /* guards all that follows, and the shard */
    pthread_cond_t work;   /* for idle threads: the queue has a write */
    pthread_cond_t watch;  /* for the watchdog: there is an earlier deadline */
    pthread_cond_t stop;   /* for threads that wait to connect again */
    struct metrics_shard *metrics;
    bool is_stopping;
    struct write *head; /* the queue, oldest first */
    struct write *tail;
    uint32_t queued;
    uint32_t connected;      /* threads with a connection */
    uint64_t watch_at_us;    /* when the watchdog looks next */
    uint64_t grace_until_us; /* without a connection, writes wait until then */
    bool is_down;            /* without one, and writes do not wait */
    char why[STORE_ERROR_MAX]; /* the last thing that was wrong with a connection */
};

/* --- results --- */

static void deliver(struct mail *mail, void *owner)
{
    struct write *write = container_of(mail, struct write, mail);
    write->on_done(write);
}

/* Sends writes, by `next`, with their results; they are not ours any more. On the thread whose shard it is given, without the mutex. */
static void finish(struct metrics_shard *metrics, struct write *list)
{
    while (list != NULL) {
        struct write *write = list;
        list = write->next;
        if (write->outcome == WRITE_FAILED || write->outcome == WRITE_IN_DOUBT) {
            metrics_add(metrics, METRIC_ERRORS, metric_index2(SOURCE_DATABASE, ERR_COUNT, write->err), 1);
        }
        metrics_add(metrics, METRIC_WRITES, metric_index2(write->namespace, WRITE_OUTCOMES, write->outcome), 1);
        metrics_observe(metrics, METRIC_WRITE_SECONDS, write->namespace, clock_mono_us() - write->submitted_us);
        write->mail.deliver = deliver;
        mailbox_post(write->reply_to, &write->mail);
    }
}

/* --- the queue --- */

static void set_queued_locked(struct writer *writer, uint32_t queued)
{
    writer->queued = queued;
    metrics_set(writer->metrics, METRIC_WRITE_QUEUE, 0, queued);
}

static void push_locked(struct writer *writer, struct write *write, bool is_first)
{
    write->next = is_first ? writer->head : NULL;
    if (writer->head == NULL) {
        writer->head = writer->tail = write;
    } else if (is_first) {
        writer->head = write;
    } else {
        writer->tail->next = write;
        writer->tail = write;
    }
    set_queued_locked(writer, writer->queued + 1);
    pthread_cond_signal(&writer->work);
}

static struct write *pop_locked(struct writer *writer)
{
    struct write *write = writer->head;
    if (write != NULL) {
        writer->head = write->next;
        writer->tail = writer->head == NULL ? NULL : writer->tail;
        write->next = NULL;
        set_queued_locked(writer, writer->queued - 1);
    }
    return write;
}

/* All in the queue that are past `now_us`, or with NEVER all of them, failed. */
static struct write *fail_locked(struct writer *writer, uint64_t now_us, enum err err, const char *text, struct write *list)
{
    struct write **at = &writer->head;
    uint32_t queued = 0;
    writer->tail = NULL;
    while (*at != NULL) {
        struct write *write = *at;
        if (now_us == NEVER || write->deadline_us <= now_us) {
            *at = write->next;
            write_end(write, WRITE_FAILED, err, "%s", text);
            write->next = list;
            list = write;
        } else {
            at = &write->next;
            writer->tail = write;
            queued++;
        }
    }
    set_queued_locked(writer, queued);
    return list;
}

/* --- the watchdog --- */

static void watch_locked(struct writer *writer, uint64_t at_us)
{
    if (at_us < writer->watch_at_us) {
        writer->watch_at_us = at_us;
        pthread_cond_signal(&writer->watch);
    }
}

static void wait_until_locked(struct writer *writer, pthread_cond_t *cond, uint64_t at_us)
{
    if (at_us == NEVER) {
        pthread_cond_wait(cond, &writer->mutex);
        return;
    }
    struct timespec ts = {.tv_sec = (time_t)(at_us / 1000000), .tv_nsec = (long)(at_us % 1000000 * 1000)};
    pthread_cond_timedwait(cond, &writer->mutex, &ts);
}

static void interrupt_locked(struct writer_thread *t)
{
    if (t->state != THREAD_IDLE && !t->is_interrupted) {
        t->is_interrupted = true;
        t->deadline_us = NEVER;
        t->writer->store->interrupt(t->connection);
    }
}

/* All whose deadline has passed; sets when to look again. */
static struct write *expire_locked(struct writer *writer)
{
    uint64_t now = clock_mono_us();
    uint64_t next = NEVER;
    struct write *list = fail_locked(writer, now, ERR_TIMEOUT, "timed out in the queue for a database connection", NULL);
    for (struct write *write = writer->head; write != NULL; write = write->next) {
        next = MIN(next, write->deadline_us);
    }
    for (uint32_t i = 0; i < writer->config->database->write_threads; i++) {
        struct writer_thread *t = &writer->threads[i];
        if (t->state != THREAD_IDLE && t->deadline_us <= now) {
            interrupt_locked(t);
        } else if (t->state != THREAD_IDLE) {
            next = MIN(next, t->deadline_us);
        }
    }
    if (writer->connected == 0 && !writer->is_down) {
        if (writer->grace_until_us <= now) {
            writer->is_down = true;
        } else {
            next = MIN(next, writer->grace_until_us);
        }
    }
    if (writer->is_down) {
        list = fail_locked(writer, NEVER, ERR_UNAVAILABLE, writer->why, list);
    }
    writer->watch_at_us = next == NEVER ? NEVER : MAX(next, now + WATCH_GRAIN_US);
    return list;
}

static void *watchdog_main(void *arg)
{
    struct writer *writer = arg;
    pthread_mutex_lock(&writer->mutex);
    while (!writer->is_stopping) {
        struct write *expired = expire_locked(writer);
        if (expired != NULL) {
            pthread_mutex_unlock(&writer->mutex);
            log_warn(writer->log, "database: writes that waited have failed: %s", expired->error);
            finish(writer->watchdog.metrics, expired);
            pthread_mutex_lock(&writer->mutex);
        } else {
            wait_until_locked(writer, &writer->watch, writer->watch_at_us);
        }
    }
    pthread_mutex_unlock(&writer->mutex);
    return NULL;
}

/* --- connections, on a writer thread --- */

static uint64_t random_next(struct writer_thread *t)
{
    t->random ^= t->random >> 12; /* xorshift64* */
    t->random ^= t->random << 25;
    t->random ^= t->random >> 27;
    return t->random * 0x2545f4914f6cdd1dULL;
}

/* How long to wait before connecting: not at all the first time, then twice as long each time, half of it at random. */
static uint64_t backoff_us(struct writer_thread *t)
{
    uint32_t rounds = t->failures / t->writer->config->database->primary_count; /* all addresses are tried in a row */
    if (rounds <= 1) {
        return 0;
    }
    uint64_t ms = MIN((uint64_t)BACKOFF_MIN_MS << MIN(rounds - 2, 16U), BACKOFF_MAX_MS);
    return 1000 * ms / 2 + random_next(t) % (1000 * ms / 2);
}

static void set_connected_locked(struct writer_thread *t, bool is_connected)
{
    struct writer *writer = t->writer;
    if (t->is_connected == is_connected) {
        return;
    }
    t->is_connected = is_connected;
    writer->connected += is_connected ? 1 : -1U;
    metrics_set(writer->metrics, METRIC_WRITE_CONNECTIONS, 0, writer->connected);
    if (is_connected) {
        writer->is_down = false;
    } else if (writer->connected == 0) {
        writer->grace_until_us = clock_mono_us() + 1000ULL * WRITER_GRACE_MS;
        watch_locked(writer, writer->grace_until_us);
    }
}

/* Gives the connection up; the mutex is released meanwhile. */
static void disconnect_locked(struct writer_thread *t, const char *why)
{
    struct writer *writer = t->writer;
    struct store_connection *connection = t->connection;
    bool was_last = t->is_connected && writer->connected == 1;
    const struct config_database *database = writer->config->database;
    const char *address = database->primary[t->address].text;
    t->connection = NULL;
    t->failures++;
    t->address = (t->address + 1) % database->primary_count;
    snprintf(writer->why, sizeof writer->why, "%s", why);
    set_connected_locked(t, false);
    pthread_mutex_unlock(&writer->mutex);
    if (was_last) {
        log_warn(writer->log, "database: %s: the last connection for writes is lost: %s", address, why);
    }
    writer->store->close(&connection);
    pthread_mutex_lock(&writer->mutex);
}

/* One attempt, after the back-off; the mutex is released meanwhile. */
static void connect_locked(struct writer_thread *t)
{
    struct writer *writer = t->writer;
    char error[STORE_ERROR_MAX] = "";
    for (uint64_t at = clock_mono_us() + backoff_us(t); !writer->is_stopping && clock_mono_us() < at;) {
        wait_until_locked(writer, &writer->stop, at);
    }
    if (writer->is_stopping) {
        return;
    }
    if (t->connection == NULL) {
        struct store_options options = writer->options;
        options.address = &writer->config->database->primary[t->address];
        t->connection = writer->store->open(&options);
    }
    t->state = THREAD_CONNECTING;
    t->is_interrupted = false;
    t->deadline_us = clock_mono_us() + 1000ULL * writer->config->database->connect_timeout_ms;
    watch_locked(writer, t->deadline_us);
    pthread_mutex_unlock(&writer->mutex);
    enum err err = writer->store->connect(t->connection, error, sizeof error);
    pthread_mutex_lock(&writer->mutex);
    t->state = THREAD_IDLE;
    if (t->is_interrupted) {
        err = ERR_TIMEOUT;
        snprintf(error, sizeof error, "%s", "no answer within connect_timeout");
    }
    if (writer->is_stopping) {
        return; /* with whatever there is; it is closed at the end */
    }
    if (err == OK) {
        set_connected_locked(t, true);
        return;
    }
    bool is_news = strcmp(writer->why, error) != 0;
    metrics_add(t->metrics, METRIC_ERRORS, metric_index2(SOURCE_DATABASE, ERR_COUNT, err), 1);
    disconnect_locked(t, error);
    writer->is_down = writer->connected == 0 && t->failures >= writer->config->database->primary_count;
    struct write *failed = writer->is_down ? fail_locked(writer, NEVER, ERR_UNAVAILABLE, error, NULL) : NULL;
    pthread_mutex_unlock(&writer->mutex);
    if (is_news) {
        log_warn(writer->log, "database: can not connect for writes: %s", error);
    }
    finish(t->metrics, failed);
    pthread_mutex_lock(&writer->mutex);
}

/* --- writes, on a writer thread --- */

static void log_outcome(const struct writer *writer, const struct write *write)
{
    char key[KEY_MAX + 1];
    for (size_t i = 0; i < write->key_len; i++) {
        key[i] = write->key[i] > ' ' && write->key[i] < 0x7f ? write->key[i] : '?';
    }
    key[write->key_len] = '\0';
    log_warn(writer->log, "database: write of %s (namespace %s) %s: %s: %s", key, writer->config->namespaces[write->namespace].name,
             write->outcome == WRITE_IN_DOUBT ? "is in doubt" : "failed", err_text(write->err), write->error);
}

/* Whether a write that has come back is to be tried on another connection: nothing was committed, and it was not the write's fault. */
static bool is_worth_another(const struct writer_thread *t, const struct write *write, enum err err)
{
    return err == ERR_CLOSED && write->outcome == WRITE_FAILED && !t->is_interrupted && !t->writer->is_stopping &&
           write->attempts < ATTEMPTS_MAX && write->deadline_us > clock_mono_us();
}

/* An interruption has its own text. What came of the write stays: it may have been applied just before. */
static void explain_interruption(const struct writer_thread *t, struct write *write)
{
    bool is_open = write->outcome == WRITE_FAILED || write->outcome == WRITE_IN_DOUBT;
    if (t->is_interrupted && is_open && t->writer->is_stopping) {
        write_end(write, write->outcome, ERR_STOPPING, "%s", err_text(ERR_STOPPING));
    } else if (t->is_interrupted && is_open) {
        write_end(write, write->outcome, ERR_TIMEOUT, "no answer from the database in time");
    }
}

/* Runs a write that has been taken off the queue; the mutex is released meanwhile. */
static void write_locked(struct writer_thread *t, struct write *write)
{
    struct writer *writer = t->writer;
    char why[STORE_ERROR_MAX] = "";
    t->state = THREAD_WRITING;
    t->is_interrupted = false;
    t->deadline_us = write->deadline_us;
    watch_locked(writer, write->deadline_us);
    pthread_mutex_unlock(&writer->mutex);
    enum err err = OK;
    if (write->deadline_us <= clock_mono_us()) {
        write_end(write, WRITE_FAILED, ERR_TIMEOUT, "timed out in the queue for a database connection");
    } else if (!writer->store->is_alive(t->connection)) {
        /* Looked at just before, because what is sent on a connection that has been closed is in doubt. */
        write_end(write, WRITE_FAILED, ERR_CLOSED, "the server has closed the connection");
        err = ERR_CLOSED;
    } else {
        err = writer->store->write(t->connection, write);
    }
    pthread_mutex_lock(&writer->mutex);
    t->state = THREAD_IDLE;
    bool is_gone = err == ERR_CLOSED || t->is_interrupted;
    t->failures = is_gone ? t->failures : 0;
    if (is_worth_another(t, write, err)) {
        snprintf(why, sizeof why, "%.*s", STORE_ERROR_MAX - 1, write->error);
        write->attempts++;
        push_locked(writer, write, true);
    } else {
        explain_interruption(t, write);
        snprintf(why, sizeof why, "%.*s", STORE_ERROR_MAX - 1, write->error);
        pthread_mutex_unlock(&writer->mutex);
        if ((write->outcome == WRITE_FAILED || write->outcome == WRITE_IN_DOUBT) && write->err != ERR_STOPPING) {
            log_outcome(writer, write);
        }
        write->next = NULL;
        finish(t->metrics, write);
        pthread_mutex_lock(&writer->mutex);
    }
    if (is_gone) {
        disconnect_locked(t, why);
    }
}

static void wait_for_work_locked(struct writer_thread *t)
{
    struct writer *writer = t->writer;
    uint64_t check_at = clock_mono_us() + IDLE_CHECK_US;
    wait_until_locked(writer, &writer->work, check_at);
    bool is_time = writer->head == NULL && !writer->is_stopping && clock_mono_us() >= check_at;
    if (is_time && !writer->store->is_alive(t->connection)) {
        disconnect_locked(t, "the server has closed the connection");
    }
}

static void *thread_main(void *arg)
{
    struct writer_thread *t = arg;
    struct writer *writer = t->writer;
    pthread_mutex_lock(&writer->mutex);
    while (!writer->is_stopping) {
        if (!t->is_connected) {
            connect_locked(t);
            continue;
        }
        struct write *write = pop_locked(writer);
        if (write != NULL) {
            write_locked(t, write);
        } else {
            wait_for_work_locked(t);
        }
    }
    struct store_connection *connection = t->connection;
    t->connection = NULL;
    pthread_mutex_unlock(&writer->mutex);
    if (connection != NULL) {
        writer->store->close(&connection);
    }
    return NULL;
}

/* --- for workers --- */

static enum err refuse_locked(struct writer *writer, struct write *write, enum err err, const char *text)
{
    metrics_add(writer->metrics, METRIC_ERRORS, metric_index2(SOURCE_DATABASE, ERR_COUNT, err), 1);
    write_end(write, WRITE_FAILED, err, "%s", text);
    return err;
}

enum err writer_submit(struct writer *writer, struct write *write)
{
    const struct config *config = writer->config;
    enum err err = OK;
    write->number = 0;
    write->row = (struct row){.expires_in_s = -1};
    write->attempts = 0;
    write->submitted_us = clock_mono_us();
    write_end(write, WRITE_FAILED, OK, "%s", "");
    pthread_mutex_lock(&writer->mutex);
    if (write->namespace >= config->namespace_count || writer->sources[write->namespace].namespace == NULL) {
        err = refuse_locked(writer, write, ERR_INVALID, "this namespace has no source");
    } else if (writer->is_stopping) {
        err = refuse_locked(writer, write, ERR_STOPPING, err_text(ERR_STOPPING));
    } else if (writer->connected == 0 && writer->is_down) {
        err = refuse_locked(writer, write, ERR_UNAVAILABLE, writer->why);
    } else if (writer->queued >= config->database->queue) {
        err = refuse_locked(writer, write, ERR_OVERLOAD, "too many writes are waiting for the database");
    } else {
        push_locked(writer, write, false);
        watch_locked(writer, write->deadline_us);
    }
    pthread_mutex_unlock(&writer->mutex);
    return err;
}

bool writer_can_touch(const struct writer *writer, uint32_t namespace)
{
    return writer->sources[namespace].namespace != NULL && writer->sources[namespace].config->expires_column != NULL;
}

bool writer_is_ready(struct writer *writer, char *text, size_t size)
{
    pthread_mutex_lock(&writer->mutex);
    bool is_ready = writer->connected > 0;
    snprintf(text, size, "%s", is_ready ? "" : writer->why);
    pthread_mutex_unlock(&writer->mutex);
    return is_ready;
}

/* --- beginning and end --- */

static void init_sources(struct writer *writer)
{
    const struct config *config = writer->config;
    writer->sources = xcalloc(config->namespace_count, sizeof *writer->sources);
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        if (config->namespaces[i].source != NULL && config->namespaces[i].write == WRITE_THROUGH) {
            source_init(&writer->sources[i], &config->namespaces[i], config->max_value_size);
        }
    }
    writer->options = (struct store_options){
        .config = config->database,
        .address = &config->database->primary[0],
        .role = config->database->primary_count > 1 ? STORE_PRIMARY_OF_SEVERAL : STORE_PRIMARY,
        .sources = writer->sources,
        .source_count = config->namespace_count,
        .max_value_size = config->max_value_size,
        .is_writer = true,
    };
}

static void init_conditions(struct writer *writer)
{
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&writer->mutex, NULL);
    pthread_cond_init(&writer->work, &attr);
    pthread_cond_init(&writer->watch, &attr);
    pthread_cond_init(&writer->stop, &attr);
    pthread_condattr_destroy(&attr);
}

/* Signals are for the main thread. */
static enum err start_threads(struct writer *writer)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    writer->watchdog.is_started = pthread_create(&writer->watchdog.id, NULL, watchdog_main, writer) == 0;
    bool is_failed = !writer->watchdog.is_started;
    for (uint32_t i = 0; i < writer->config->database->write_threads && !is_failed; i++) {
        struct writer_thread *t = &writer->threads[i];
        t->is_started = pthread_create(&t->id, NULL, thread_main, t) == 0;
        is_failed = !t->is_started;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return is_failed ? ERR_NOMEM : OK;
}

enum err writer_create_with_store(const struct config *config, struct log *log, struct metrics *metrics, const struct store *store,
                                  struct writer **out)
{
    struct writer *writer = xcalloc(1, sizeof *writer);
    writer->config = config;
    writer->log = log;
    writer->store = store;
    writer->metrics = metrics_shard_create(metrics);
    writer->watchdog.metrics = metrics_shard_create(metrics);
    writer->watch_at_us = NEVER;
    writer->grace_until_us = clock_mono_us() + 1000ULL * WRITER_GRACE_MS;
    snprintf(writer->why, sizeof writer->why, "%s: not connected yet", config->database->primary[0].text);
    init_sources(writer);
    init_conditions(writer);
    writer->threads = xcalloc(config->database->write_threads, sizeof *writer->threads);
    for (uint32_t i = 0; i < config->database->write_threads; i++) {
        struct writer_thread *t = &writer->threads[i];
        t->writer = writer;
        t->metrics = metrics_shard_create(metrics);
        t->random = (clock_mono_us() << 8 ^ (uintptr_t)t) | 1;
        t->connection = store->open(&writer->options); /* here, as the first call must not race with others */
    }
    enum err err = start_threads(writer);
    if (err != OK) {
        writer_destroy(&writer);
    }
    *out = writer;
    return err;
}

enum err writer_create(const struct config *config, struct log *log, struct metrics *metrics, struct writer **out)
{
    return writer_create_with_store(config, log, metrics, &store_mysql, out);
}

static void stop_threads(struct writer *writer)
{
    pthread_mutex_lock(&writer->mutex);
    writer->is_stopping = true;
    struct write *waiting = fail_locked(writer, NEVER, ERR_STOPPING, err_text(ERR_STOPPING), NULL);
    for (uint32_t i = 0; i < writer->config->database->write_threads; i++) {
        interrupt_locked(&writer->threads[i]);
    }
    pthread_cond_broadcast(&writer->work);
    pthread_cond_broadcast(&writer->watch);
    pthread_cond_broadcast(&writer->stop);
    pthread_mutex_unlock(&writer->mutex);
    if (writer->watchdog.is_started) {
        pthread_join(writer->watchdog.id, NULL);
    }
    finish(writer->watchdog.metrics, waiting); /* its thread has ended, so the shard is ours */
    for (uint32_t i = 0; i < writer->config->database->write_threads; i++) {
        if (writer->threads[i].is_started) {
            pthread_join(writer->threads[i].id, NULL);
        }
    }
}

void writer_destroy(struct writer **out)
{
    struct writer *writer = *out;
    *out = NULL;
    if (writer == NULL) {
        return;
    }
    stop_threads(writer);
    for (uint32_t i = 0; i < writer->config->database->write_threads; i++) {
        if (writer->threads[i].connection != NULL) {
            writer->store->close(&writer->threads[i].connection); /* its thread never started */
        }
    }
    for (uint32_t i = 0; i < writer->config->namespace_count; i++) {
        if (writer->sources[i].namespace != NULL) {
            source_deinit(&writer->sources[i]);
        }
    }
    pthread_cond_destroy(&writer->work);
    pthread_cond_destroy(&writer->watch);
    pthread_cond_destroy(&writer->stop);
    pthread_mutex_destroy(&writer->mutex);
    free(writer->threads);
    free(writer->sources);
    free(writer);
}
