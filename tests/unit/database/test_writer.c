#include "proxy/database/writer.h"

#include <poll.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "proxy/database/store.h"
#include "tests/unit/check_main.h"

#define MS 1000ULL

/* --- the fake store: what comes of a write is up to its key and to these switches --- */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool refuses;    /* connecting fails */
    bool is_silent;  /* connecting hangs */
    bool is_let_go;  /* writes that are held end */
    bool is_dead;    /* idle connections are */
    uint32_t opened; /* connections so far */
    uint32_t open;   /* that are not closed */
    uint32_t held;   /* writes that are held */
    uint32_t writes;
    uint32_t lost;   /* writes of "lose" that are still to lose their connection */
} fake = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

struct store_connection {
    bool is_interrupted;
};

static struct store_connection *fake_open(const struct store_options *options)
{
    ck_assert(options->is_writer);
    ck_assert_ptr_nonnull(options->address);
    pthread_mutex_lock(&fake.mutex);
    fake.open++;
    pthread_mutex_unlock(&fake.mutex);
    return xcalloc(1, sizeof(struct store_connection));
}

static enum err fake_connect(struct store_connection *c, char *error, size_t size)
{
    enum err err = OK;
    pthread_mutex_lock(&fake.mutex);
    while (fake.is_silent && !c->is_interrupted) {
        pthread_cond_wait(&fake.changed, &fake.mutex);
    }
    if (fake.refuses || c->is_interrupted) {
        snprintf(error, size, "refused");
        err = ERR_UNAVAILABLE;
    }
    fake.opened++;
    pthread_mutex_unlock(&fake.mutex);
    return err;
}

static bool has_key(const struct write *write, const char *key)
{
    return span_eq(span_of(write->key, write->key_len), span_str(key));
}

static enum err fake_write(struct store_connection *c, struct write *write)
{
    enum err err = OK;
    pthread_mutex_lock(&fake.mutex);
    fake.writes++;
    if (has_key(write, "p:hold") || has_key(write, "p:commit")) {
        fake.held++;
        while (!fake.is_let_go && !c->is_interrupted) {
            pthread_cond_wait(&fake.changed, &fake.mutex);
        }
        fake.held--;
    }
    if (c->is_interrupted || (has_key(write, "p:lose") && fake.lost > 0)) {
        fake.lost -= fake.lost > 0;
        write_end(write, has_key(write, "p:commit") ? WRITE_IN_DOUBT : WRITE_FAILED, ERR_CLOSED, "gone away");
        err = ERR_CLOSED;
    } else if (has_key(write, "p:doubt")) {
        write_end(write, WRITE_IN_DOUBT, ERR_CLOSED, "gone away");
        err = ERR_CLOSED;
    } else if (has_key(write, "p:refuse")) {
        write_end(write, WRITE_REFUSED, ERR_UNSUPPORTED, "no column for it");
    } else {
        write_end(write, WRITE_APPLIED, OK, "%s", "");
        write->number = 7;
    }
    pthread_mutex_unlock(&fake.mutex);
    return err;
}

static bool fake_is_alive(struct store_connection *c)
{
    pthread_mutex_lock(&fake.mutex);
    bool is_alive = !fake.is_dead;
    fake.is_dead = false; /* the next one is a new one */
    pthread_mutex_unlock(&fake.mutex);
    return is_alive;
}

static void fake_interrupt(struct store_connection *c)
{
    pthread_mutex_lock(&fake.mutex);
    c->is_interrupted = true;
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.mutex);
}

static void fake_close(struct store_connection **connection)
{
    pthread_mutex_lock(&fake.mutex);
    fake.open--;
    pthread_mutex_unlock(&fake.mutex);
    free(*connection);
    *connection = NULL;
}

static const struct store fake_store = {
    .open = fake_open,
    .connect = fake_connect,
    .write = fake_write,
    .is_alive = fake_is_alive,
    .interrupt = fake_interrupt,
    .close = fake_close,
};

#define FAKE_SET(member, value)                \
    do {                                       \
        pthread_mutex_lock(&fake.mutex);       \
        fake.member = (value);                 \
        pthread_cond_broadcast(&fake.changed); \
        pthread_mutex_unlock(&fake.mutex);     \
    } while (0)

static uint32_t fake_get(const uint32_t *member)
{
    pthread_mutex_lock(&fake.mutex);
    uint32_t value = *member;
    pthread_mutex_unlock(&fake.mutex);
    return value;
}

/* --- fixture --- */

static struct config_source table = {.table = "t", .key_column = "k", .value_column = "v"};
static struct config_source entries = {.table = "e", .key_column = "k", .value_column = "v", .expires_column = "e"};
static struct config_namespace namespaces[] = {
    {.prefix = "", .name = "default"},
    {.prefix = "p:", .name = "p", .source = &table, .write = WRITE_THROUGH},
    {.prefix = "r:", .name = "r", .source = &table},
    {.prefix = "e:", .name = "e", .source = &entries, .write = WRITE_THROUGH},
};
static struct address addresses[] = {{.text = "db1:3306"}, {.text = "db2:3306"}};
static struct config_database database;
static struct config config;
static struct metric_registry *registry;
static struct log *log_;
static struct mailbox box;
static struct writer *writer;
static unsigned done_count;

static void start(uint32_t threads, uint32_t queue)
{
    database = (struct config_database){.primary = addresses, .primary_count = 2, .write_threads = threads, .queue = queue,
                                        .connect_timeout_ms = 300, .timeout_ms = 1000};
    config = (struct config){.namespaces = namespaces, .namespace_count = ARRAY_LEN(namespaces), .database = &database, .max_value_size = 1000};
    registry = metric_registry_create(&config, NULL, 0);
    log_ = log_create(STDERR_FILENO, LOG_ERROR);
    ck_assert_int_eq(mailbox_init(&box), OK);
    ck_assert_int_eq(writer_create_with_store(&config, log_, metric_registry_metrics(registry), &fake_store, &writer), OK);
}

static uint64_t metric(enum metric family, uint32_t index)
{
    return metrics_sum(metric_registry_metrics(registry), family, index);
}

#define WAIT_FOR(condition)                                                  \
    do {                                                                     \
        uint64_t until = clock_mono_us() + 10000 * MS;                       \
        while (!(condition)) {                                               \
            ck_assert_msg(clock_mono_us() < until, "never: %s", #condition); \
            usleep(1000);                                                    \
        }                                                                    \
    } while (0)

static void start_connected(uint32_t threads, uint32_t queue)
{
    char text[STORE_ERROR_MAX];
    start(threads, queue);
    WAIT_FOR(metric(METRIC_WRITE_CONNECTIONS, 0) == threads);
    ck_assert(writer_is_ready(writer, text, sizeof text));
}

static void stop(void)
{
    writer_destroy(&writer);
    ck_assert_ptr_null(writer);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(fake.open, 0);
    mailbox_deinit(&box);
    log_destroy(&log_);
    metric_registry_destroy(&registry);
}

static void on_done(struct write *write)
{
    ck_assert((write->outcome == WRITE_APPLIED) == (write->error[0] == '\0'));
    done_count++;
}

static enum err submit(struct write *write, const char *key, uint64_t timeout_us)
{
    *write = (struct write){
        .reply_to = &box, .on_done = on_done, .namespace = 1, .version = 5, .deadline_us = clock_mono_us() + timeout_us};
    write->key_len = (uint16_t)snprintf(write->key, sizeof write->key, "%s", key);
    return writer_submit(writer, write);
}

static void wait_done(unsigned count)
{
    uint64_t until = clock_mono_us() + 10000 * MS;
    while (done_count < count) {
        ck_assert_msg(clock_mono_us() < until, "%u of %u done", done_count, count);
        poll(&(struct pollfd){.fd = box.fd, .events = POLLIN}, 1, 100);
        mailbox_drain(&box, NULL);
    }
    ck_assert_uint_eq(done_count, count);
}

static void check(const struct write *write, enum write_outcome outcome, enum err err)
{
    ck_assert_msg(write->outcome == outcome && write->err == err, "%s: outcome %d, %s: %s", write->key, write->outcome, err_text(write->err),
                  write->error);
}

/* --- tests --- */

START_TEST(writes_come_back)
{
    struct write a, b, c;
    start_connected(2, 10);
    ck_assert_int_eq(submit(&a, "p:a", 5000 * MS), OK);
    ck_assert_int_eq(submit(&b, "p:refuse", 5000 * MS), OK);
    ck_assert_int_eq(submit(&c, "p:doubt", 5000 * MS), OK);
    wait_done(3);
    check(&a, WRITE_APPLIED, OK);
    ck_assert_uint_eq(a.number, 7);
    check(&b, WRITE_REFUSED, ERR_UNSUPPORTED);
    check(&c, WRITE_IN_DOUBT, ERR_CLOSED);
    ck_assert_uint_eq(fake_get(&fake.writes), 3); /* what is in doubt is not sent again */
    ck_assert_uint_eq(metric(METRIC_WRITES, metric_index2(1, WRITE_OUTCOMES, WRITE_IN_DOUBT)), 1);
    WAIT_FOR(metric(METRIC_WRITE_CONNECTIONS, 0) == 2);
    stop();
}
END_TEST

START_TEST(namespaces_that_are_not_written_are_refused)
{
    struct write a = {.namespace = 0, .reply_to = &box};
    start_connected(1, 10);
    ck_assert_int_eq(writer_submit(writer, &a), ERR_INVALID);
    check(&a, WRITE_FAILED, ERR_INVALID);
    a.namespace = 2; /* write: aside */
    ck_assert_int_eq(writer_submit(writer, &a), ERR_INVALID);
    a.namespace = 4;
    ck_assert_int_eq(writer_submit(writer, &a), ERR_INVALID);
    ck_assert(!writer_can_touch(writer, 1));
    ck_assert(!writer_can_touch(writer, 2));
    ck_assert(writer_can_touch(writer, 3));
    stop();
}
END_TEST

START_TEST(a_full_queue_refuses_at_once)
{
    struct write w[5];
    start_connected(1, 2);
    ck_assert_int_eq(submit(&w[0], "p:hold", 9000 * MS), OK);
    WAIT_FOR(fake_get(&fake.held) == 1);
    ck_assert_int_eq(submit(&w[1], "p:a", 9000 * MS), OK);
    ck_assert_int_eq(submit(&w[2], "p:b", 9000 * MS), OK);
    ck_assert_uint_eq(metric(METRIC_WRITE_QUEUE, 0), 2);
    ck_assert_int_eq(submit(&w[3], "p:c", 9000 * MS), ERR_OVERLOAD);
    check(&w[3], WRITE_FAILED, ERR_OVERLOAD);
    FAKE_SET(is_let_go, true);
    wait_done(3);
    for (int i = 0; i < 3; i++) {
        check(&w[i], WRITE_APPLIED, OK);
    }
    ck_assert_uint_eq(metric(METRIC_WRITE_QUEUE, 0), 0);
    stop();
}
END_TEST

START_TEST(deadlines_interrupt)
{
    struct write before, commit, queued;
    start_connected(2, 10);
    ck_assert_int_eq(submit(&before, "p:hold", 200 * MS), OK);
    ck_assert_int_eq(submit(&commit, "p:commit", 200 * MS), OK);
    WAIT_FOR(fake_get(&fake.held) == 2 || done_count > 0);
    ck_assert_int_eq(submit(&queued, "p:a", 100 * MS), OK);
    wait_done(3);
    check(&before, WRITE_FAILED, ERR_TIMEOUT); /* nothing that commits had been sent */
    check(&commit, WRITE_IN_DOUBT, ERR_TIMEOUT);
    check(&queued, WRITE_FAILED, ERR_TIMEOUT);
    ck_assert_uint_eq(fake_get(&fake.writes), 2);
    WAIT_FOR(metric(METRIC_WRITE_CONNECTIONS, 0) == 2);
    ck_assert_int_eq(submit(&queued, "p:a", 5000 * MS), OK);
    wait_done(4);
    check(&queued, WRITE_APPLIED, OK);
    stop();
}
END_TEST

START_TEST(what_has_surely_failed_is_tried_on_another_connection)
{
    struct write a, b;
    start_connected(1, 10);
    FAKE_SET(lost, 3);
    ck_assert_int_eq(submit(&a, "p:lose", 9000 * MS), OK);
    wait_done(1);
    check(&a, WRITE_APPLIED, OK);
    ck_assert_uint_eq(fake_get(&fake.writes), 4);
    ck_assert_uint_eq(a.attempts, 3);
    FAKE_SET(is_dead, true); /* found before anything is sent, so that it is not in doubt */
    ck_assert_int_eq(submit(&b, "p:b", 9000 * MS), OK);
    wait_done(2);
    check(&b, WRITE_APPLIED, OK);
    ck_assert_uint_eq(fake_get(&fake.writes), 5);
    stop();
}
END_TEST

START_TEST(without_a_database_writes_fail_at_once)
{
    struct write a, b;
    char text[STORE_ERROR_MAX];
    fake.refuses = true;
    start(1, 10);
    enum err err = submit(&a, "p:a", 9000 * MS); /* it may wait for the first attempt */
    if (err == OK) {
        wait_done(1);
    }
    check(&a, WRITE_FAILED, ERR_UNAVAILABLE);
    WAIT_FOR(submit(&b, "p:b", 9000 * MS) == ERR_UNAVAILABLE);
    check(&b, WRITE_FAILED, ERR_UNAVAILABLE);
    ck_assert(!writer_is_ready(writer, text, sizeof text));
    ck_assert_str_eq(text, "refused");
    FAKE_SET(refuses, false);
    WAIT_FOR(writer_is_ready(writer, text, sizeof text));
    unsigned done = done_count;
    ck_assert_int_eq(submit(&b, "p:b", 9000 * MS), OK);
    wait_done(done + 1);
    check(&b, WRITE_APPLIED, OK);
    stop();
}
END_TEST

START_TEST(stopping_ends_all)
{
    struct write under_way, commit, queued;
    start_connected(2, 10);
    ck_assert_int_eq(submit(&under_way, "p:hold", 60000 * MS), OK);
    ck_assert_int_eq(submit(&commit, "p:commit", 60000 * MS), OK);
    WAIT_FOR(fake_get(&fake.held) == 2);
    ck_assert_int_eq(submit(&queued, "p:a", 60000 * MS), OK);
    stop();
    ck_assert_uint_eq(done_count, 3);
    check(&under_way, WRITE_FAILED, ERR_STOPPING);
    check(&commit, WRITE_IN_DOUBT, ERR_STOPPING);
    check(&queued, WRITE_FAILED, ERR_STOPPING);
}
END_TEST

START_TEST(stopping_while_connecting)
{
    fake.is_silent = true;
    start(3, 10);
    stop();
}
END_TEST

START_TEST(many_at_once)
{
    static struct write w[500];
    start_connected(4, 1000);
    for (size_t i = 0; i < ARRAY_LEN(w); i++) {
        ck_assert_int_eq(submit(&w[i], i % 7 == 0 ? "p:doubt" : "p:a", 9000 * MS), OK);
    }
    wait_done(ARRAY_LEN(w));
    for (size_t i = 0; i < ARRAY_LEN(w); i++) {
        ck_assert_int_eq(w[i].outcome, i % 7 == 0 ? WRITE_IN_DOUBT : WRITE_APPLIED);
    }
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("writer");
    TCase *tc = tcase_create("writer");
    tcase_add_test(tc, writes_come_back);
    tcase_add_test(tc, namespaces_that_are_not_written_are_refused);
    tcase_add_test(tc, a_full_queue_refuses_at_once);
    tcase_add_test(tc, deadlines_interrupt);
    tcase_add_test(tc, what_has_surely_failed_is_tried_on_another_connection);
    tcase_add_test(tc, without_a_database_writes_fail_at_once);
    tcase_add_test(tc, stopping_ends_all);
    tcase_add_test(tc, stopping_while_connecting);
    tcase_add_test(tc, many_at_once);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
