#include "proxy/database/loader.h"

#include <poll.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/version.h"
#include "proxy/database/store.h"
#include "tests/unit/check_main.h"

#define MS 1000ULL

/* --- the fake store: what happens is up to the row key and to these switches --- */

static struct {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool refuses;    /* connecting fails */
    bool is_silent;  /* connecting hangs */
    bool is_closed;  /* loads that are held are let go */
    uint32_t dead;   /* connections made before this one are gone */
    uint32_t opened; /* connections so far */
    uint32_t open;   /* connections that are not closed */
    uint32_t held;   /* loads that are held */
    uint32_t loads;
    uint32_t batches;
    uint32_t locking; /* loads */
    uint32_t asked[HOSTS]; /* loads, by role */
    uint64_t heartbeat;    /* what the replica shows */
    const char *read_only; /* the address that is not the primary */
    uint32_t most_primaries; /* at once */
    uint32_t open_at[2];   /* established connections to db:3306 and other:3306 */
    uint32_t interrupts;
} fake = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

struct store_connection {
    struct store_options options;
    bool is_established;
    uint32_t number;
    bool is_interrupted;
};

static struct store_connection *fake_open(const struct store_options *options)
{
    ck_assert_ptr_nonnull(options->config);
    struct store_connection *c = xcalloc(1, sizeof *c);
    c->options = *options;
    pthread_mutex_lock(&fake.mutex);
    fake.open++;
    pthread_mutex_unlock(&fake.mutex);
    return c;
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
    if (err == OK && fake.read_only != NULL && strcmp(fake.read_only, c->options.address->text) == 0) {
        snprintf(error, size, "%s: is read-only", fake.read_only);
        err = ERR_UNSUPPORTED;
    }
    if (err == OK && c->options.role != STORE_REPLICA) {
        c->is_established = true;
        fake.open_at[c->options.address->text[0] == 'o']++;
        fake.most_primaries = MAX(fake.most_primaries, (uint32_t)(fake.open_at[0] > 0) + (uint32_t)(fake.open_at[1] > 0));
    }
    c->number = ++fake.opened;
    pthread_mutex_unlock(&fake.mutex);
    return err;
}

static void fill(struct row *row, struct span value)
{
    row->found = true;
    row->flags = 5;
    row->expires_in_s = 60;
    row->value = chunk_get(NULL, value.len + ROW_VALUE_SLACK);
    memcpy(row->value->data, value.data, value.len);
    row->value_len = value.len;
}

static enum err fake_load_one(struct store_connection *c, struct store_load *load)
{
    struct span key = load->key;
    load->row = (struct row){.expires_in_s = -1};
    if (span_has_prefix(key, SPAN_LIT("hold"))) {
        fake.held++;
        while (!fake.is_closed && !c->is_interrupted) {
            pthread_cond_wait(&fake.changed, &fake.mutex);
        }
        fake.held--;
    }
    if (c->options.role == STORE_REPLICA) {
        load->heartbeat = fake.heartbeat;
    }
    if (c->options.role == STORE_PRIMARY_OF_SEVERAL && fake.read_only != NULL && strcmp(fake.read_only, c->options.address->text) == 0) {
        snprintf(load->error, sizeof load->error, "is read-only");
        return ERR_CLOSED;
    }
    bool is_poison = span_eq(key, SPAN_LIT("poison"));
    if (c->is_interrupted || c->number <= fake.dead || is_poison) {
        snprintf(load->error, sizeof load->error, "gone away");
        return ERR_CLOSED;
    }
    if (span_eq(key, SPAN_LIT("broken"))) {
        snprintf(load->error, sizeof load->error, "no such column");
        return ERR_DATABASE;
    }
    if (!span_eq(key, SPAN_LIT("absent"))) {
        fill(&load->row, key);
    }
    return OK;
}

static enum err fake_load(struct store_connection *c, struct store_batch *batch)
{
    enum err err = OK;
    ck_assert_uint_eq(batch->source, 1);
    ck_assert(batch->count > 0 && batch->count <= STORE_BATCH_MAX);
    pthread_mutex_lock(&fake.mutex);
    fake.batches++;
    fake.locking += batch->is_locking ? batch->count : 0;
    batch->queries = 1;
    batch->keys_asked = batch->count;
    for (uint32_t i = 0; i < batch->count; i++) {
        struct store_load *load = &batch->loads[i];
        if (err == ERR_CLOSED) {
            snprintf(load->error, sizeof load->error, "gone away");
            load->err = ERR_CLOSED;
            continue;
        }
        fake.loads++;
        fake.asked[c->options.role == STORE_REPLICA]++;
        load->err = fake_load_one(c, load);
        err = load->err == ERR_CLOSED ? ERR_CLOSED : OK;
    }
    pthread_mutex_unlock(&fake.mutex);
    return err;
}

static bool fake_is_alive(struct store_connection *c)
{
    pthread_mutex_lock(&fake.mutex);
    bool is_alive = c->number > fake.dead;
    pthread_mutex_unlock(&fake.mutex);
    return is_alive;
}

static void fake_interrupt(struct store_connection *c)
{
    pthread_mutex_lock(&fake.mutex);
    c->is_interrupted = true;
    fake.interrupts++;
    pthread_cond_broadcast(&fake.changed);
    pthread_mutex_unlock(&fake.mutex);
}

static void fake_close(struct store_connection **connection)
{
    pthread_mutex_lock(&fake.mutex);
    fake.open--;
    if ((*connection)->is_established) {
        fake.open_at[(*connection)->options.address->text[0] == 'o']--;
    }
    pthread_mutex_unlock(&fake.mutex);
    free(*connection);
    *connection = NULL;
}

static const struct store fake_store = {
    .open = fake_open,
    .connect = fake_connect,
    .load = fake_load,
    .is_alive = fake_is_alive,
    .interrupt = fake_interrupt,
    .close = fake_close,
};

#define FAKE_SET(member, value)               \
    do {                                      \
        pthread_mutex_lock(&fake.mutex);      \
        fake.member = (value);                \
        pthread_cond_broadcast(&fake.changed); \
        pthread_mutex_unlock(&fake.mutex);    \
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
static struct config_namespace namespaces[] = {
    {.prefix = "", .name = "default"},
    {.prefix = "p:", .name = "p", .source = &table},
};
static struct config_database database;
static struct config config;
static struct metric_registry *registry;
static struct log *log_;
static struct mailbox box;
static struct loader *loader;
static unsigned done_count;
static struct load *last_done;

static struct address primaries[] = {{.text = "db:3306"}, {.text = "other:3306"}};
static struct config_database special; /* what the next start() has beyond the usual */

static void start(uint32_t threads, uint32_t queue)
{
    database = (struct config_database){
        .primary = primaries, .primary_count = MAX(special.primary_count, 1U), .replica = special.replica, .max_replica_lag_ms = 2000,
        .breaker_failures = special.breaker_failures > 0 ? special.breaker_failures : 1000, .threads = threads,
        .batch = special.batch > 0 ? special.batch : STORE_BATCH_MAX, .queue = queue, .connect_timeout_ms = 300, .timeout_ms = 1000};
    config = (struct config){
        .namespaces = namespaces, .namespace_count = 2, .database = &database, .max_value_size = 1000};
    registry = metric_registry_create(&config, NULL, 0);
    log_ = log_create(STDERR_FILENO, LOG_ERROR);
    ck_assert_int_eq(mailbox_init(&box), OK);
    ck_assert_int_eq(loader_create_with_store(&config, log_, metric_registry_metrics(registry), &fake_store, &loader), OK);
}

static void nap(unsigned ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000}, NULL);
}

static uint64_t metric(enum metric family, uint32_t index)
{
    return metrics_sum(metric_registry_metrics(registry), family, index);
}

static uint64_t errors(enum err err)
{
    return metric(METRIC_ERRORS, metric_index2(SOURCE_DATABASE, ERR_COUNT, err));
}

#define WAIT_FOR(condition)                            \
    do {                                               \
        uint64_t until = clock_mono_us() + 5000 * MS;  \
        while (!(condition)) {                         \
            ck_assert_msg(clock_mono_us() < until, "never: %s", #condition); \
            nap(1);                                    \
        }                                              \
    } while (0)

static bool is_ready(void)
{
    char text[LOAD_ERROR_MAX];
    return loader_is_ready(loader, text, sizeof text);
}

static void start_connected(uint32_t threads, uint32_t queue)
{
    start(threads, queue);
    WAIT_FOR(metric(METRIC_DATABASE_CONNECTIONS, 0) == threads);
    ck_assert(is_ready());
}

static void stop(void)
{
    loader_destroy(&loader);
    ck_assert_ptr_null(loader);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(fake.open, 0);
    mailbox_deinit(&box);
    log_destroy(&log_);
    metric_registry_destroy(&registry);
}

static void on_done(struct load *load)
{
    ck_assert(load->err == OK || load->error[0] != '\0');
    done_count++;
    last_done = load;
}

static struct load *make(struct load *load, const char *row_key, uint64_t lease, uint64_t timeout_us)
{
    *load = (struct load){.reply_to = &box,
                          .on_done = on_done,
                          .namespace = 1,
                          .lease = lease,
                          .version = 100 + lease,
                          .deadline_us = clock_mono_us() + timeout_us};
    load->key_len = (uint16_t)snprintf(load->key, sizeof load->key, "p:%s", row_key);
    return load;
}

static enum err submit_made(struct load *load)
{
    struct loader_intake intake = {0};
    enum err err = loader_submit(loader, &intake, load);
    loader_flush(loader, &intake);
    return err;
}

static enum err submit(struct load *load, const char *row_key, uint64_t lease, uint64_t timeout_us)
{
    return submit_made(make(load, row_key, lease, timeout_us));
}

static bool join(struct load *load, const char *row_key, uint64_t lease, uint64_t timeout_us)
{
    return loader_join(loader, make(load, row_key, lease, timeout_us));
}

static void wait_done(unsigned count)
{
    uint64_t until = clock_mono_us() + 5000 * MS;
    while (done_count < count) {
        ck_assert_msg(clock_mono_us() < until, "%u of %u done", done_count, count);
        poll(&(struct pollfd){.fd = box.fd, .events = POLLIN}, 1, 100);
        mailbox_drain(&box, NULL);
    }
    ck_assert_uint_eq(done_count, count);
}

static void check_value(struct load *load, const char *expected)
{
    ck_assert_int_eq(load->err, OK);
    ck_assert(load->found);
    ck_assert(span_eq(span_of(load->value->data, load->value_len), span_str(expected)));
    ck_assert_uint_ge(load->value->cap, load->value_len + ROW_VALUE_SLACK);
    ck_assert_uint_eq(load->flags, 5);
    ck_assert_int_eq(load->expires_in_s, 60);
    chunk_unref(&load->value);
}

/* --- tests --- */

START_TEST(rows_come_back)
{
    struct load a, b, c;
    start_connected(2, 10);
    ck_assert_int_eq(submit(&a, "one", 1, 1000 * MS), OK);
    ck_assert_int_eq(submit(&b, "absent", 2, 1000 * MS), OK);
    ck_assert_int_eq(submit(&c, "broken", 0, 1000 * MS), OK);
    wait_done(3);
    check_value(&a, "one");
    ck_assert_uint_eq(a.version, 101);
    ck_assert_int_eq(b.err, OK);
    ck_assert(!b.found);
    ck_assert_int_eq(c.err, ERR_DATABASE);
    ck_assert_str_eq(c.error, "no such column");
    ck_assert_uint_eq(metric(METRIC_DATABASE_RECONNECTS, 0), 2);
    ck_assert_uint_eq(errors(ERR_DATABASE), 1);
    stop();
}
END_TEST

START_TEST(a_namespace_without_source_is_refused)
{
    struct load a;
    start_connected(1, 10);
    make(&a, "x", 0, 1000 * MS)->namespace = 0;
    ck_assert_int_eq(submit_made(&a), ERR_INVALID);
    a.namespace = 2;
    ck_assert_int_eq(submit_made(&a), ERR_INVALID);
    stop();
}
END_TEST

START_TEST(a_full_queue_refuses_at_once)
{
    struct load loads[6];
    start_connected(1, 3);
    ck_assert_int_eq(submit(&loads[0], "hold", 9, 2000 * MS), OK);
    WAIT_FOR(fake_get(&fake.held) == 1);
    ck_assert_int_eq(submit(&loads[1], "a", 1, 2000 * MS), OK);
    ck_assert_int_eq(submit(&loads[2], "b", 2, 2000 * MS), OK);
    ck_assert(join(&loads[3], "hold", 9, 2000 * MS));
    ck_assert_uint_eq(metric(METRIC_DATABASE_QUEUE, 0), 2);
    ck_assert_int_eq(submit(&loads[4], "c", 3, 2000 * MS), ERR_OVERLOAD);
    ck_assert(loads[4].error[0] != '\0');
    ck_assert(!join(&loads[5], "a", 1, 2000 * MS));
    ck_assert_uint_eq(errors(ERR_OVERLOAD), 1);
    FAKE_SET(is_closed, true);
    wait_done(4);
    check_value(&loads[0], "hold");
    check_value(&loads[1], "a");
    check_value(&loads[2], "b");
    check_value(&loads[3], "hold");
    ck_assert_uint_eq(metric(METRIC_DATABASE_QUEUE, 0), 0);
    stop();
}
END_TEST

START_TEST(no_statement_has_more_than_batch_keys)
{
    struct load loads[10];
    struct loader_intake intake = {0};
    special.batch = 3;
    start_connected(1, 200);
    for (unsigned i = 0; i < ARRAY_LEN(loads); i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i);
        ck_assert_int_eq(loader_submit(loader, &intake, make(&loads[i], key, 1 + i, 1000 * MS)), OK);
    }
    loader_flush(loader, &intake);
    wait_done(ARRAY_LEN(loads));
    for (unsigned i = 0; i < ARRAY_LEN(loads); i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i);
        check_value(&loads[i], key);
    }
    ck_assert_uint_eq(fake_get(&fake.batches), 4);
    ck_assert_uint_eq(metric(METRIC_DATABASE_QUERY_KEYS, 0), ARRAY_LEN(loads));
    stop();
}
END_TEST

START_TEST(locking_loads_go_by_themselves)
{
    struct load loads[6];
    struct loader_intake intake = {0};
    start_connected(1, 200);
    for (unsigned i = 0; i < ARRAY_LEN(loads); i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i);
        make(&loads[i], key, 1 + i, 1000 * MS);
        loads[i].is_locking = i % 2 == 0;
        ck_assert_int_eq(loader_submit(loader, &intake, &loads[i]), OK);
    }
    loader_flush(loader, &intake);
    wait_done(ARRAY_LEN(loads));
    for (unsigned i = 0; i < ARRAY_LEN(loads); i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i);
        check_value(&loads[i], key);
    }
    ck_assert_uint_eq(fake_get(&fake.batches), 2);
    ck_assert_uint_eq(fake_get(&fake.locking), 3);
    stop();
}
END_TEST

START_TEST(what_is_submitted_in_one_turn_is_one_batch)
{
    struct load loads[100], j;
    struct loader_intake intake = {0};
    start_connected(4, 200);
    for (unsigned i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i);
        ck_assert_int_eq(loader_submit(loader, &intake, make(&loads[i], key, 1 + i, 1000 * MS)), OK);
    }
    ck_assert(join(&j, "k7", 8, 1000 * MS)); /* before anything is under way */
    ck_assert_uint_eq(fake_get(&fake.batches), 0);
    loader_flush(loader, &intake);
    ck_assert_ptr_null(intake.head);
    wait_done(101);
    for (unsigned i = 0; i < 100; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%u", i);
        check_value(&loads[i], key);
    }
    check_value(&j, "k7");
    ck_assert_uint_eq(fake_get(&fake.batches), 1);
    ck_assert_uint_eq(metric(METRIC_DATABASE_QUERIES, QUERY_OK), 1);
    ck_assert_uint_eq(metric(METRIC_DATABASE_QUERY_KEYS, 0), 100);
    stop();
}
END_TEST

START_TEST(what_is_held_counts_as_queued)
{
    struct load loads[3];
    struct loader_intake intake = {0};
    start_connected(1, 2);
    ck_assert_int_eq(loader_submit(loader, &intake, make(&loads[0], "a", 1, 1000 * MS)), OK);
    ck_assert_int_eq(loader_submit(loader, &intake, make(&loads[1], "b", 2, 1000 * MS)), OK);
    ck_assert_int_eq(loader_submit(loader, &intake, make(&loads[2], "c", 3, 1000 * MS)), ERR_OVERLOAD);
    loader_flush(loader, &intake);
    wait_done(2);
    check_value(&loads[0], "a");
    check_value(&loads[1], "b");
    ck_assert_int_eq(submit(&loads[2], "c", 3, 1000 * MS), OK);
    wait_done(3);
    check_value(&loads[2], "c");
    stop();
}
END_TEST

START_TEST(one_bad_row_fails_only_its_own_load)
{
    struct load loads[4];
    static const char *const keys[] = {"a", "broken", "absent", "b"};
    struct loader_intake intake = {0};
    start_connected(1, 10);
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(loader_submit(loader, &intake, make(&loads[i], keys[i], 1 + i, 1000 * MS)), OK);
    }
    loader_flush(loader, &intake);
    wait_done(4);
    check_value(&loads[0], "a");
    ck_assert_int_eq(loads[1].err, ERR_DATABASE);
    ck_assert_int_eq(loads[2].err, OK);
    ck_assert(!loads[2].found);
    check_value(&loads[3], "b");
    stop();
}
END_TEST

START_TEST(a_row_that_kills_connections_fails_alone_in_the_end)
{
    struct load loads[4];
    static const char *const keys[] = {"a", "b", "poison", "c"};
    struct loader_intake intake = {0};
    start_connected(6, 10); /* more than it kills before it is alone: the others need not wait for a back-off */
    for (unsigned i = 0; i < 4; i++) {
        ck_assert_int_eq(loader_submit(loader, &intake, make(&loads[i], keys[i], 1 + i, 4000 * MS)), OK);
    }
    loader_flush(loader, &intake);
    wait_done(4);
    check_value(&loads[0], "a");
    check_value(&loads[1], "b");
    ck_assert_int_eq(loads[2].err, ERR_UNAVAILABLE);
    check_value(&loads[3], "c");
    stop();
}
END_TEST

START_TEST(deadlines_in_one_batch_are_each_load_s_own)
{
    struct load quick, slow;
    struct loader_intake intake = {0};
    start_connected(1, 10);
    ck_assert_int_eq(loader_submit(loader, &intake, make(&slow, "hold", 1, 4000 * MS)), OK);
    ck_assert_int_eq(loader_submit(loader, &intake, make(&quick, "quick", 2, 50 * MS)), OK);
    loader_flush(loader, &intake);
    wait_done(1);
    ck_assert_ptr_eq(last_done, &quick);
    ck_assert_int_eq(quick.err, ERR_TIMEOUT);
    ck_assert_uint_eq(fake_get(&fake.interrupts), 0);
    memset(&quick, 0xa5, sizeof quick); /* it is its owner's again */
    FAKE_SET(is_closed, true);
    wait_done(2);
    check_value(&slow, "hold");
    stop();
}
END_TEST

START_TEST(a_deadline_in_the_queue_holds)
{
    struct load held, a, b, j;
    start_connected(1, 10);
    ck_assert_int_eq(submit(&held, "hold", 0, 20000 * MS), OK);
    WAIT_FOR(fake_get(&fake.held) == 1);
    uint64_t begin = clock_mono_us();
    ck_assert_int_eq(submit(&b, "b", 7, 20000 * MS), OK);
    ck_assert_int_eq(submit(&a, "a", 1, 2000 * MS), OK);
    ck_assert(join(&j, "b", 7, 50 * MS)); /* its own deadline is earlier than that of the load it waits for */
    wait_done(1);
    ck_assert_ptr_eq(last_done, &j);
    ck_assert_int_eq(j.err, ERR_TIMEOUT);
    wait_done(2);
    ck_assert_ptr_eq(last_done, &a);
    ck_assert_int_eq(a.err, ERR_TIMEOUT);
    uint64_t took = clock_mono_us() - begin;
    ck_assert(took >= 2000 * MS);
    FAKE_SET(is_closed, true);
    wait_done(4);
    check_value(&held, "hold");
    check_value(&b, "b");
    ck_assert_uint_eq(fake_get(&fake.loads), 2);
    ck_assert_uint_eq(errors(ERR_TIMEOUT), 2);
    stop();
}
END_TEST

START_TEST(a_deadline_passed_already_asks_nothing)
{
    struct load a;
    start_connected(1, 10);
    ck_assert_int_eq(submit(&a, "a", 1, 0), OK);
    wait_done(1);
    ck_assert_int_eq(a.err, ERR_TIMEOUT);
    ck_assert_uint_eq(fake_get(&fake.loads), 0);
    stop();
}
END_TEST

START_TEST(a_deadline_under_way_interrupts)
{
    struct load a, b, j;
    start_connected(1, 10);
    uint64_t begin = clock_mono_us();
    ck_assert_int_eq(submit(&a, "hold", 4, 150 * MS), OK);
    WAIT_FOR(fake_get(&fake.held) == 1);
    ck_assert(join(&j, "hold", 4, 20000 * MS));
    ck_assert_int_eq(submit(&b, "b", 1, 20000 * MS), OK);
    wait_done(3); /* the third on a new connection */
    uint64_t took = clock_mono_us() - begin;
    ck_assert(took >= 150 * MS);
    ck_assert_int_eq(a.err, ERR_TIMEOUT);
    ck_assert_int_eq(j.err, ERR_TIMEOUT);
    check_value(&b, "b");
    ck_assert_uint_eq(fake_get(&fake.interrupts), 1);
    ck_assert_uint_eq(metric(METRIC_DATABASE_RECONNECTS, 0), 2);
    stop();
}
END_TEST

START_TEST(loads_of_the_same_lease_are_joined)
{
    struct load a, same[3], other_lease, other_key, none;
    start_connected(1, 10);
    ck_assert(!join(&same[0], "hold", 9, 1000 * MS));
    ck_assert_int_eq(submit(&a, "hold", 9, 1000 * MS), OK);
    for (int i = 0; i < 3; i++) {
        make(&same[i], "hold", 9, 1000 * MS)->version = 999; /* younger than the query that was sent already */
        ck_assert(loader_join(loader, &same[i]));
    }
    ck_assert(!join(&other_lease, "hold", 10, 1000 * MS));
    ck_assert(!join(&other_key, "holds", 9, 1000 * MS));
    ck_assert(!join(&none, "hold", 0, 1000 * MS));
    FAKE_SET(is_closed, true);
    wait_done(4);
    ck_assert_uint_eq(fake_get(&fake.loads), 1);
    check_value(&a, "hold");
    for (int i = 0; i < 3; i++) {
        ck_assert_ptr_ne(same[i].value, a.value);
        check_value(&same[i], "hold");
        ck_assert_uint_eq(same[i].version, 109);
    }
    ck_assert(!join(&same[0], "hold", 9, 1000 * MS)); /* it has ended */
    stop();
}
END_TEST

START_TEST(a_lost_connection_is_replaced_and_its_load_tried_again)
{
    struct load loads[4];
    start_connected(3, 10);
    FAKE_SET(dead, fake.opened); /* all three: the server has been started anew */
    for (int i = 0; i < 4; i++) {
        ck_assert_int_eq(submit(&loads[i], "x", (uint64_t)i, 1000 * MS), OK);
    }
    wait_done(4);
    for (int i = 0; i < 4; i++) {
        check_value(&loads[i], "x");
    }
    stop();
}
END_TEST

START_TEST(a_load_that_kills_connections_ends)
{
    struct load a;
    start_connected(2, 10);
    ck_assert_int_eq(submit(&a, "poison", 1, 4000 * MS), OK);
    wait_done(1);
    ck_assert_int_eq(a.err, ERR_UNAVAILABLE);
    ck_assert_str_eq(a.error, "gone away");
    ck_assert_uint_le(fake_get(&fake.loads), 4);
    stop();
}
END_TEST

START_TEST(an_idle_connection_that_dies_is_noticed)
{
    start_connected(2, 10);
    FAKE_SET(refuses, true);
    FAKE_SET(dead, fake.opened);
    WAIT_FOR(!is_ready());
    char text[LOAD_ERROR_MAX];
    ck_assert(!loader_is_ready(loader, text, sizeof text));
    ck_assert(text[0] != '\0');
    FAKE_SET(refuses, false);
    WAIT_FOR(is_ready());
    stop();
}
END_TEST

START_TEST(without_a_connection_loads_fail_fast)
{
    struct load a, b, c;
    FAKE_SET(refuses, true);
    start(2, 10);
    enum err err = submit(&a, "a", 1, 5000 * MS);
    WAIT_FOR(fake_get(&fake.opened) > 0);
    if (err == OK) {
        wait_done(1); /* it came before the first attempt had failed */
        ck_assert_int_eq(a.err, ERR_UNAVAILABLE);
    }
    WAIT_FOR(submit(&b, "b", 1, 5000 * MS) == ERR_UNAVAILABLE || (wait_done(done_count + 1), false));
    ck_assert_str_eq(b.error, "refused");
    unsigned done = done_count;
    FAKE_SET(refuses, false);
    WAIT_FOR(is_ready());
    ck_assert_int_eq(submit(&c, "c", 1, 1000 * MS), OK);
    wait_done(done + 1);
    check_value(&c, "c");
    stop();
}
END_TEST

START_TEST(a_server_that_does_not_answer_connects_is_given_up)
{
    struct load a, b;
    FAKE_SET(is_silent, true);
    start(2, 10);
    uint64_t begin = clock_mono_us();
    enum err err = submit(&a, "a", 1, 5000 * MS);
    if (err == OK) { /* in the first moments loads wait for the connection; a slow machine may have missed them */
        wait_done(1);
    }
    ck_assert_int_eq(a.err, ERR_UNAVAILABLE);
    ck_assert(clock_mono_us() - begin < 4000 * MS); /* its own deadline is later */
    ck_assert_int_eq(submit(&b, "b", 1, 5000 * MS), ERR_UNAVAILABLE);
    WAIT_FOR(errors(ERR_TIMEOUT) >= 2); /* connect_timeout */
    begin = clock_mono_us();
    stop();
    ck_assert(clock_mono_us() - begin < 3000 * MS); /* before any deadline */
}
END_TEST

START_TEST(one_that_reconnects_does_not_hold_up_the_others)
{
    struct load held, a;
    start_connected(2, 10);
    ck_assert_int_eq(submit(&held, "hold", 1, 100 * MS), OK);
    WAIT_FOR(fake_get(&fake.held) == 1);
    FAKE_SET(is_silent, true);
    wait_done(1);
    ck_assert_int_eq(held.err, ERR_TIMEOUT);
    WAIT_FOR(metric(METRIC_DATABASE_CONNECTIONS, 0) == 1);
    for (unsigned i = 0; i < 20; i++) {
        ck_assert_int_eq(submit(&a, "a", 1, 2000 * MS), OK);
        wait_done(2 + i);
        check_value(&a, "a");
    }
    stop();
}
END_TEST

START_TEST(stopping_ends_all_loads)
{
    struct load loads[6];
    start_connected(2, 10);
    for (int i = 0; i < 5; i++) {
        ck_assert_int_eq(submit(&loads[i], "hold", 1 + (uint64_t)i, 4000 * MS), OK);
        WAIT_FOR(i > 0 || fake_get(&fake.held) == 1); /* the others are the second batch */
    }
    ck_assert(join(&loads[5], "hold", 5, 4000 * MS));
    WAIT_FOR(fake_get(&fake.held) == 2);
    uint64_t begin = clock_mono_us();
    stop();
    ck_assert(clock_mono_us() - begin < 3000 * MS); /* before any deadline */
    ck_assert_uint_eq(done_count, 6);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(loads[i].err, ERR_STOPPING);
    }
}
END_TEST

/* --- the replica --- */

static uint64_t version_ago(uint64_t ms)
{
    return (clock_wall_ms() - ms) << VERSION_MS_SHIFT;
}

static void start_replica(void)
{
    special.replica = (struct address){.text = "replica:3306"};
    FAKE_SET(heartbeat, version_ago(100));
    start(1, 200);
    WAIT_FOR(metric(METRIC_DATABASE_CONNECTIONS, HOST_PRIMARY) == 1 && metric(METRIC_DATABASE_CONNECTIONS, HOST_REPLICA) == 1);
}

static void submit_version(struct load *load, const char *key, uint64_t version, uint64_t min_version)
{
    make(load, key, 0, 2000 * MS);
    load->version = version;
    load->min_version = min_version;
    ck_assert_int_eq(submit_made(load), OK);
}

START_TEST(a_fresh_replica_is_read_and_its_version_is_older)
{
    struct load a, j;
    start_replica();
    uint64_t version = version_ago(0);
    submit_version(&a, "a", version, 0);
    wait_done(1);
    check_value(&a, "a");
    ck_assert_uint_lt(a.version, fake.heartbeat);
    ck_assert_uint_eq(fake_get(&fake.asked[HOST_REPLICA]), 1);
    ck_assert_uint_eq(fake_get(&fake.asked[HOST_PRIMARY]), 0);
    ck_assert_uint_eq(metric(METRIC_LOADS_BY_HOST, HOST_REPLICA), 1);
    make(&a, "hold", 7, 4000 * MS)->version = version;
    ck_assert_int_eq(submit_made(&a), OK);
    ck_assert(join(&j, "hold", 7, 4000 * MS));
    FAKE_SET(is_closed, true);
    wait_done(3);
    check_value(&a, "hold");
    check_value(&j, "hold");
    ck_assert_uint_eq(a.version, j.version); /* who joins has the version of the row, not that of the load */
    ck_assert_uint_lt(j.version, version);
    stop();
}
END_TEST

START_TEST(what_the_replica_can_not_prove_the_primary_is_asked_for)
{
    struct load a, b, c;
    start_replica();
    submit_version(&a, "a", version_ago(0), version_ago(50)); /* invalidated after the heartbeat that it has */
    wait_done(1);
    check_value(&a, "a");
    ck_assert_uint_gt(a.version, version_ago(1000));
    ck_assert_uint_eq(fake_get(&fake.asked[HOST_PRIMARY]), 1);
    ck_assert_uint_eq(metric(METRIC_REPLICA_REFUSED, REFUSED_OLDER), 1);
    make(&b, "b", 0, 1000 * MS)->primary_only = true;
    ck_assert_int_eq(submit_made(&b), OK);
    wait_done(2);
    ck_assert_uint_eq(fake_get(&fake.asked[HOST_PRIMARY]), 2);
    check_value(&b, "b");
    FAKE_SET(heartbeat, version_ago(5000));
    submit_version(&c, "c", version_ago(0), 0);
    wait_done(3);
    check_value(&c, "c");
    ck_assert_uint_eq(fake_get(&fake.asked[HOST_PRIMARY]), 3);
    ck_assert_uint_eq(metric(METRIC_REPLICA_REFUSED, REFUSED_STALE), 1);
    submit_version(&c, "c", version_ago(0), 0); /* not even tried */
    wait_done(4);
    check_value(&c, "c");
    ck_assert_uint_eq(metric(METRIC_REPLICA_REFUSED, REFUSED_STALE), 1);
    stop();
}
END_TEST

START_TEST(a_replica_that_does_not_answer_costs_half_the_time)
{
    struct load a, b;
    special.breaker_failures = 1;
    start_replica();
    make(&a, "hold", 0, 400 * MS);
    ck_assert_int_eq(submit_made(&a), OK);
    WAIT_FOR(fake_get(&fake.asked[HOST_REPLICA]) == 1);
    WAIT_FOR(fake_get(&fake.asked[HOST_PRIMARY]) == 1);
    FAKE_SET(is_closed, true);
    wait_done(1);
    check_value(&a, "hold");
    ck_assert_uint_eq(metric(METRIC_REPLICA_REFUSED, REFUSED_FAILED), 1);
    ck_assert_uint_eq(metric(METRIC_BREAKER_OPENED, HOST_REPLICA), 1);
    ck_assert_int_eq(submit(&b, "b", 0, 1000 * MS), OK);
    wait_done(2);
    check_value(&b, "b");
    stop();
}
END_TEST

/* --- breaker and fail-over --- */

START_TEST(the_breaker_lets_loads_fail_at_once)
{
    struct load loads[3], a;
    struct loader_intake intake = {0};
    special.breaker_failures = 3;
    start_connected(2, 10);
    for (unsigned i = 0; i < 3; i++) {
        ck_assert_int_eq(loader_submit(loader, &intake, make(&loads[i], "hold", 1 + i, 100 * MS)), OK);
    }
    FAKE_SET(is_silent, true); /* so that there is no sign of life, either */
    loader_flush(loader, &intake);
    wait_done(3);
    ck_assert_int_eq(loads[2].err, ERR_TIMEOUT);
    ck_assert_uint_eq(metric(METRIC_BREAKER_OPENED, HOST_PRIMARY), 1);
    ck_assert_uint_eq(metric(METRIC_BREAKER_OPEN, HOST_PRIMARY), 1);
    ck_assert_int_eq(submit(&a, "a", 9, 1000 * MS), ERR_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(a.error, "circuit breaker"));
    FAKE_SET(is_closed, true);
    FAKE_SET(is_silent, false);
    unsigned done = done_count;
    WAIT_FOR(submit(&a, "a", 9, 1000 * MS) == OK); /* the trial */
    wait_done(done + 1);
    check_value(&a, "a");
    ck_assert_uint_eq(metric(METRIC_BREAKER_OPEN, HOST_PRIMARY), 0);
    stop();
}
END_TEST

START_TEST(the_writable_primary_is_found_and_followed)
{
    struct load a;
    special.primary_count = 2;
    fake.read_only = "db:3306";
    start_connected(3, 10);
    ck_assert_uint_eq(fake_get(&fake.open_at[0]), 0);
    ck_assert_uint_eq(fake_get(&fake.open_at[1]), 3);
    for (unsigned i = 0; i < 6; i++) {
        FAKE_SET(read_only, i % 2 == 0 ? "other:3306" : "db:3306");
        unsigned now = i % 2;
        /* Whatever is answered was not by a read-only one; some may fail meanwhile. */
        WAIT_FOR(submit(&a, "a", 0, 1000 * MS) == OK && (wait_done(done_count + 1), a.err == OK));
        check_value(&a, "a");
        WAIT_FOR(fake_get(&fake.open_at[now]) == 3 && fake_get(&fake.open_at[!now]) == 0);
    }
    ck_assert_uint_eq(fake_get(&fake.most_primaries), 1);
    stop();
}
END_TEST

/* Four workers, each with a mailbox, against four connections that die, time out and come back. */
#define ROUNDS 300
#define BATCH 16

struct worker {
    pthread_t id;
    struct mailbox box;
    unsigned seed;
    unsigned left;
    unsigned results[ERR_COUNT];
};

struct work {
    struct load load;
    struct worker *worker;
};

static void on_work_done(struct load *load)
{
    struct work *work = container_of(load, struct work, load);
    work->worker->results[load->err]++;
    if (load->err == OK && load->found) {
        ck_assert(span_eq(span_of(load->value->data, load->value_len), span_of(load->key + 2, load->key_len - 2U)));
        chunk_unref(&load->value);
    }
    work->worker->left--;
}

static void *work_main(void *arg)
{
    struct worker *w = arg;
    struct work work[BATCH];
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < BATCH; i++) {
            unsigned r = (unsigned)rand_r(&w->seed);
            char key[16];
            snprintf(key, sizeof key, "%s%u", r % 200 == 0 ? "hold" : "k", r / 200 % 4);
            make(&work[i].load, key, 1 + r / 1000 % 3, r % 100 == 0 ? 0 : (2 + r % 20) * MS);
            work[i].load.reply_to = &w->box;
            work[i].load.on_done = on_work_done;
            work[i].worker = w;
            w->left++;
            if (!loader_join(loader, &work[i].load)) {
                enum err err = submit_made(&work[i].load);
                w->left -= err != OK;
                w->results[err] += err != OK;
            }
        }
        uint64_t until = clock_mono_us() + 5000 * MS;
        while (w->left > 0) {
            ck_assert(clock_mono_us() < until);
            poll(&(struct pollfd){.fd = w->box.fd, .events = POLLIN}, 1, 100);
            mailbox_drain(&w->box, NULL);
        }
        if (round % 50 == 0 && w->seed % 2 == 0) {
            FAKE_SET(dead, fake.opened);
        }
    }
    return NULL;
}

START_TEST(many_workers_under_stress)
{
    struct worker workers[4] = {0};
    unsigned total = 0;
    unsigned answered = 0;
    start_connected(4, 40);
    for (unsigned i = 0; i < 4; i++) {
        workers[i].seed = i + 1;
        ck_assert_int_eq(mailbox_init(&workers[i].box), OK);
        ck_assert_int_eq(pthread_create(&workers[i].id, NULL, work_main, &workers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(workers[i].id, NULL);
        mailbox_deinit(&workers[i].box);
        for (unsigned e = 0; e < ERR_COUNT; e++) {
            total += workers[i].results[e];
        }
        answered += workers[i].results[OK]; /* one worker may run through while no connection is up */
    }
    ck_assert_uint_gt(answered, 0);
    ck_assert_uint_eq(total, 4 * ROUNDS * BATCH);
    ck_assert_uint_eq(metric(METRIC_DATABASE_QUEUE, 0), 0);
    stop();
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loader");
    TCase *tc = tcase_create("loads");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, rows_come_back);
    tcase_add_test(tc, a_namespace_without_source_is_refused);
    tcase_add_test(tc, a_full_queue_refuses_at_once);
    tcase_add_test(tc, a_deadline_in_the_queue_holds);
    tcase_add_test(tc, a_deadline_passed_already_asks_nothing);
    tcase_add_test(tc, a_deadline_under_way_interrupts);
    tcase_add_test(tc, loads_of_the_same_lease_are_joined);
    tcase_add_test(tc, no_statement_has_more_than_batch_keys);
    tcase_add_test(tc, locking_loads_go_by_themselves);
    tcase_add_test(tc, what_is_submitted_in_one_turn_is_one_batch);
    tcase_add_test(tc, what_is_held_counts_as_queued);
    tcase_add_test(tc, one_bad_row_fails_only_its_own_load);
    tcase_add_test(tc, a_row_that_kills_connections_fails_alone_in_the_end);
    tcase_add_test(tc, deadlines_in_one_batch_are_each_load_s_own);
    tcase_add_test(tc, stopping_ends_all_loads);
    tcase_add_test(tc, many_workers_under_stress);
    suite_add_tcase(suite, tc);
    tc = tcase_create("connections");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, a_fresh_replica_is_read_and_its_version_is_older);
    tcase_add_test(tc, what_the_replica_can_not_prove_the_primary_is_asked_for);
    tcase_add_test(tc, a_replica_that_does_not_answer_costs_half_the_time);
    tcase_add_test(tc, the_breaker_lets_loads_fail_at_once);
    tcase_add_test(tc, the_writable_primary_is_found_and_followed);
    tcase_add_test(tc, a_lost_connection_is_replaced_and_its_load_tried_again);
    tcase_add_test(tc, a_load_that_kills_connections_ends);
    tcase_add_test(tc, an_idle_connection_that_dies_is_noticed);
    tcase_add_test(tc, without_a_connection_loads_fail_fast);
    tcase_add_test(tc, a_server_that_does_not_answer_connects_is_given_up);
    tcase_add_test(tc, one_that_reconnects_does_not_hold_up_the_others);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
