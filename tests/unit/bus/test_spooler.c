#include "proxy/bus/spooler.h"

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

#include "common/clock.h"
#include "common/version.h"
#include "tests/unit/bus/fake_transport.h"
#include "tests/unit/bus/spool_directory.h"
#include "tests/unit/check_main.h"

static char directory[DIRECTORY_SIZE];
static struct config_spool spool_config;
static struct config_bus bus_config;
static struct config_database database_config;
static struct config config;
static struct metric_registry *registry;
static struct spooler *spooler;
static struct mailbox box; /* where results, replays and deliveries go, of which the test's thread is the owner */
static uint32_t done;
static enum err last_err;
static struct replay *replay; /* one that is out */
static uint32_t deliveries;
static uint32_t down; /* a node that fails; UINT32_MAX: none */
static char applied[4096];

static void on_replay_mail(struct mail *mail, void *owner)
{
    ck_assert_ptr_null(replay);
    replay = container_of(mail, struct replay, mail);
}

static void on_replay(void *ctx, struct replay *r)
{
    r->mail.deliver = on_replay_mail;
    mailbox_post(&box, &r->mail);
}

/* The node of a key is its first letter. */
static void on_delivery_mail(struct mail *mail, void *owner)
{
    struct delivery *d = container_of(mail, struct delivery, mail);
    deliveries++;
    d->home = (uint16_t)(d->event.key[0] - 'a');
    ck_assert_uint_eq(d->peer, PEER_NONE);
    if (d->home != down) {
        size_t len = strlen(applied);
        snprintf(applied + len, sizeof applied - len, "%.*s ", d->event.key_len, d->event.key);
    }
    delivery_done(d, d->home == down ? ERR_UNAVAILABLE : OK);
}

static void apply(void *ctx, struct delivery *d)
{
    d->mail.deliver = on_delivery_mail;
    mailbox_post(&box, &d->mail);
}

static void start(void)
{
    struct spooler_context context = {
        .config = &config, .metrics = metric_registry_metrics(registry), .sink = {.apply = apply}, .replay = on_replay};
    ck_assert_int_eq(spooler_create(&context, &spooler), OK);
    ck_assert_int_eq(spooler_start(spooler), OK);
}

static void end(void)
{
    spooler_stop(spooler);
    while (mailbox_drain(&box, NULL) > 0) {
    }
    replay = NULL;
    spooler_destroy(&spooler);
}

static void setup(void)
{
    static const char *const commands[] = {"get"};
    directory_make(directory);
    spool_config = (struct config_spool){.directory = directory, .max_bytes = 1 << 20, .segment_bytes = 65536};
    bus_config = fake_bus_config;
    bus_config.spool = &spool_config;
    config = fake_config;
    config.bus = &bus_config;
    config.max_clock_skew_ms = 500;
    registry = metric_registry_create(&config, commands, 1);
    ck_assert_int_eq(mailbox_init(&box), OK);
    done = deliveries = 0;
    down = UINT32_MAX;
    replay = NULL;
    applied[0] = '\0';
    start();
}

static void teardown(void)
{
    end();
    mailbox_deinit(&box);
    metric_registry_destroy(&registry);
    directory_remove(directory);
}

static void on_done(struct publication *p)
{
    last_err = p->err;
    done++;
}

static struct publication *take(const char *key, enum spool_kind kind, uint8_t debts)
{
    struct publication *p = xcalloc(1, sizeof *p);
    p->reply_to = &box;
    p->on_done = on_done;
    p->event.version = 5;
    p->event.timestamp_ms = clock_wall_ms();
    p->event.key_len = (uint16_t)strlen(key);
    memcpy(p->event.key, key, strlen(key));
    p->kind = (uint8_t)kind;
    p->debts = debts;
    spooler_take(spooler, p);
    return p;
}

#define WAIT_FOR(what)                                             \
    do {                                                           \
        for (int waited = 0; !(what) && waited < 2000; waited++) { \
            struct pollfd fd = {.fd = box.fd, .events = POLLIN};   \
            poll(&fd, 1, 10);                                      \
            mailbox_drain(&box, NULL);                             \
        }                                                          \
        ck_assert_msg(what, "waited in vain for %s", #what);       \
    } while (0)

static uint64_t metric(enum metric which)
{
    return metrics_sum(metric_registry_metrics(registry), which, 0);
}

START_TEST(what_is_owed_to_the_bus_is_replayed_until_it_has_it)
{
    struct publication *a = take("a", SPOOL_OWED, DEBT_BUS);
    WAIT_FOR(done == 1);
    ck_assert_int_eq(last_err, OK);
    ck_assert_ptr_null(a->reserved);
    WAIT_FOR(replay != NULL);
    ck_assert_uint_eq(replay->count, 1);
    ck_assert_uint_eq(replay->events[0].version, 5);
    struct publication *b = take("b", SPOOL_OWED, DEBT_BUS);
    struct publication *c = take("c", SPOOL_OWED, DEBT_BUS);
    WAIT_FOR(done == 3);
    end(); /* the stream has acknowledged nothing */
    start();
    WAIT_FOR(replay != NULL);
    ck_assert_uint_eq(replay->count, 3);
    ck_assert_int_eq(memcmp(replay->events[0].key, "a", 1) | memcmp(replay->events[2].key, "c", 1), 0); /* oldest first */
    struct replay *r = replay;
    replay = NULL;
    spooler_replayed(spooler, r);
    WAIT_FOR(metric(METRIC_SPOOL_REPLAYED) == 3 && metric(METRIC_SPOOL_RECORDS) == 0);
    end();
    start();
    ck_assert_uint_eq(metric(METRIC_SPOOL_RECORDS), 0);
    ck_assert_uint_eq(metric(METRIC_SPOOL_APPENDED), 3);
    ck_assert_uint_eq(deliveries, 0);
    free(a);
    free(b);
    free(c);
}
END_TEST

START_TEST(marks_tell_when_the_stream_has_what_was_owed)
{
    ck_assert_uint_eq(spooler_mark(spooler), 0);
    ck_assert(spooler_is_told(spooler, 0));
    struct publication *node = take("b", SPOOL_OWED, DEBT_NODE);
    struct publication *reserved = take("c", SPOOL_RESERVED, 0);
    WAIT_FOR(done == 2);
    ck_assert_uint_eq(spooler_mark(spooler), 0); /* the bus is owed nothing */
    struct publication *first = take("d", SPOOL_OWED, DEBT_BUS);
    WAIT_FOR(done == 3);
    uint64_t mark = spooler_mark(spooler);
    ck_assert_uint_gt(mark, 0);
    ck_assert(!spooler_is_told(spooler, mark));
    WAIT_FOR(replay != NULL);
    struct publication *second = take("e", SPOOL_OWED, DEBTS);
    WAIT_FOR(done == 4);
    uint64_t later = spooler_mark(spooler);
    ck_assert_uint_gt(later, mark);
    struct replay *out = replay;
    replay = NULL;
    ck_assert_uint_eq(out->count, 1);
    spooler_replayed(spooler, out);
    WAIT_FOR(replay != NULL); /* the next */
    ck_assert(spooler_is_told(spooler, mark));
    ck_assert(!spooler_is_told(spooler, later));
    reserved->kind = SPOOL_OWED; /* an older entry that is owed only now */
    reserved->debts = DEBT_BUS;
    spooler_take(spooler, reserved);
    WAIT_FOR(done == 5);
    ck_assert(!spooler_is_told(spooler, mark));
    out = replay;
    replay = NULL;
    spooler_replayed(spooler, out);
    WAIT_FOR(replay != NULL);
    ck_assert(!spooler_is_told(spooler, mark));
    spooler_replayed(spooler, replay);
    replay = NULL;
    WAIT_FOR(spooler_is_told(spooler, later));
    ck_assert_uint_eq(spooler_mark(spooler), later);
    free(node);
    free(reserved);
    free(first);
    free(second);
}
END_TEST

START_TEST(messages_that_were_sent_before_are_repeated_whole)
{
    struct publication *all[6];
    for (uint32_t i = 0; i < 6; i++) { /* two messages of three, mixed, after one that keeps the replayer busy */
        char key[2] = {(char)('a' + i), '\0'};
        struct publication *p = xcalloc(1, sizeof *p);
        *p = (struct publication){.reply_to = &box, .on_done = on_done, .kind = SPOOL_OWED, .debts = DEBT_BUS};
        p->event = (struct invalidation){.version = 5, .timestamp_ms = 6, .key_len = 1, .key = {key[0]}};
        p->sender = 9;
        p->message = i == 0 ? 1 : i == 5 ? 4 : 2 + i % 2;
        p->count = i == 0 ? 1 : i == 5 ? 2 : 2;
        all[i] = p;
        spooler_take(spooler, p);
        WAIT_FOR(done == i + 1);
    }
    static const struct {
        const char *keys;
        uint64_t sender;
        uint64_t message;
    } wanted[] = {{"a", 9, 1}, {"bd", 9, 3}, {"ce", 9, 2}, {"f", 0, 0} /* not all of it is here: not the same message */};
    for (size_t i = 0; i < ARRAY_LEN(wanted); i++) {
        WAIT_FOR(replay != NULL);
        ck_assert_uint_eq(replay->count, strlen(wanted[i].keys));
        for (uint32_t k = 0; k < replay->count; k++) {
            ck_assert_int_eq(replay->events[k].key[0], wanted[i].keys[k]);
        }
        ck_assert_uint_eq(replay->sender, wanted[i].sender);
        ck_assert_uint_eq(replay->message, wanted[i].message);
        struct replay *r = replay;
        replay = NULL;
        spooler_replayed(spooler, r);
    }
    WAIT_FOR(metric(METRIC_SPOOL_RECORDS) == 0);
    for (uint32_t i = 0; i < 6; i++) {
        free(all[i]);
    }
}
END_TEST

START_TEST(what_is_owed_to_a_node_is_tried_until_it_has_it)
{
    down = 0;
    struct publication *a = take("a", SPOOL_OWED, DEBT_NODE);
    ck_assert(spooler_owes(spooler, SPAN_LIT("a"))); /* before it is answered */
    WAIT_FOR(done == 1);
    struct publication *b = take("b", SPOOL_OWED, DEBT_NODE);
    WAIT_FOR(done == 2 && deliveries > 5);
    ck_assert_str_eq(applied, "b "); /* one node does not hold up another */
    ck_assert(spooler_owes(spooler, SPAN_LIT("a")));
    ck_assert(!spooler_owes(spooler, SPAN_LIT("b")));
    end();
    deliveries = 0;
    start();
    ck_assert(spooler_owes(spooler, SPAN_LIT("a")));
    WAIT_FOR(deliveries > 2);
    down = UINT32_MAX;
    WAIT_FOR(!spooler_owes(spooler, SPAN_LIT("a")));
    ck_assert_str_eq(applied, "b a ");
    WAIT_FOR(metric(METRIC_SPOOL_RECORDS) == 0);
    ck_assert_uint_eq(metric(METRIC_SPOOL_APPLIED), 2);
    free(a);
    free(b);
}
END_TEST

START_TEST(a_reservation_is_nobodys_business_until_it_is_one)
{
    struct publication *p = take("a", SPOOL_RESERVED, 0);
    WAIT_FOR(done == 1);
    ck_assert_ptr_nonnull(p->reserved);
    ck_assert(!spooler_owes(spooler, SPAN_LIT("a")));
    spooler_clear(spooler, p);
    ck_assert_ptr_null(p->reserved);
    WAIT_FOR(metric(METRIC_SPOOL_RECORDS) == 0);
    free(p);
    p = take("b", SPOOL_RESERVED, 0);
    WAIT_FOR(done == 2);
    p->kind = SPOOL_OWED; /* as bus_commit() and a publisher that can not publish it do */
    p->debts = DEBT_BUS;
    p->event.version = 500;
    spooler_take(spooler, p);
    WAIT_FOR(done == 3 && replay != NULL);
    ck_assert_ptr_null(p->reserved);
    ck_assert_uint_eq(replay->events[0].version, 500);
    ck_assert_uint_eq(deliveries, 0);
    free(p);
}
END_TEST

START_TEST(a_reservation_of_a_life_before_is_published_and_applied)
{
    struct publication *p = take("a", SPOOL_RESERVED, 0);
    WAIT_FOR(done == 1);
    free(p);
    database_config.timeout_ms = 200;
    config.database = &database_config; /* a statement that is under way may take that long */
    end();
    uint64_t began_us = clock_mono_us();
    uint64_t began_ms = clock_wall_ms();
    start();
    ck_assert(spooler_owes(spooler, SPAN_LIT("a")));
    WAIT_FOR(replay != NULL && deliveries == 1);
    ck_assert_uint_ge(clock_mono_us(), began_us + 200000);
    ck_assert_uint_ge(version_ms(replay->events[0].version), began_ms + 200 + 500); /* newer than the write, by any clock */
    WAIT_FOR(!spooler_owes(spooler, SPAN_LIT("a")));
    ck_assert_str_eq(applied, "a ");
}
END_TEST

START_TEST(full)
{
    bool is_full = false;
    uint32_t count = 0;
    char key[KEY_MAX + 1];
    memset(key, 'k', KEY_MAX);
    key[KEY_MAX] = '\0';
    while (!is_full) {
        struct publication *p = take(key, SPOOL_OWED, DEBTS);
        count++;
        WAIT_FOR(done == count);
        is_full = last_err == ERR_SPOOL_FULL;
        ck_assert(is_full || last_err == OK);
        free(p);
        down = 'k' - 'a';
    }
    ck_assert_uint_gt(count, 1000);
    ck_assert_uint_eq(metrics_sum(metric_registry_metrics(registry), METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_SPOOL_FULL)), 1);
}
END_TEST

static void limit_files(rlim_t bytes)
{
    struct rlimit limit = {.rlim_cur = bytes, .rlim_max = RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

START_TEST(a_full_disk_is_told_and_tried_again)
{
    char text[600];
    limit_files(10);
    struct publication *p = take("a", SPOOL_OWED, DEBTS);
    WAIT_FOR(done == 1);
    ck_assert_int_eq(last_err, ERR_SPOOL);
    ck_assert(!spooler_owes(spooler, SPAN_LIT("a")));
    free(p);
    WAIT_FOR(!spooler_status(spooler, text, sizeof text));
    ck_assert_ptr_nonnull(strstr(text, "File too large"));
    ck_assert_uint_ge(metric(METRIC_SPOOL_ERRORS), 1);
    limit_files(RLIM_INFINITY);
    WAIT_FOR(spooler_status(spooler, text, sizeof text)); /* without anybody's help */
    ck_assert_str_eq(text, "");
    p = take("a", SPOOL_OWED, DEBT_BUS);
    WAIT_FOR(done == 2);
    ck_assert_int_eq(last_err, OK);
    WAIT_FOR(spooler_status(spooler, text, sizeof text) && strstr(text, "waiting for this region's NATS: 1; for a node of its pool: 0; the oldest for 0 s") != NULL);
    free(p);
}
END_TEST

/* Several threads at once, each with its own mailbox. */
static void *hammer(void *arg)
{
    struct mailbox own;
    ck_assert_int_eq(mailbox_init(&own), OK);
    struct publication p[8];
    memset(p, 0, sizeof p);
    for (uint32_t round = 0; round < 50; round++) {
        uint32_t waits = 0;
        for (uint32_t i = 0; i < 8; i++) {
            p[i] = (struct publication){.reply_to = &own, .on_done = arg, .kind = SPOOL_RESERVED};
            p[i].event = (struct invalidation){.version = 1, .timestamp_ms = 1, .key_len = 1, .key = {'x'}};
            spooler_take(spooler, &p[i]);
            waits++;
        }
        while (waits > 0) {
            struct pollfd fd = {.fd = own.fd, .events = POLLIN};
            poll(&fd, 1, 1000);
            waits -= mailbox_drain(&own, NULL);
        }
        for (uint32_t i = 0; i < 8; i++) {
            ck_assert_int_eq(p[i].err, OK);
            spooler_clear(spooler, &p[i]);
        }
    }
    mailbox_deinit(&own);
    return NULL;
}

static void on_hammered(struct publication *p)
{
}

START_TEST(from_many_threads)
{
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, on_hammered), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        pthread_join(threads[i], NULL);
    }
    WAIT_FOR(metric(METRIC_SPOOL_APPENDED) == 4 * 50 * 8 && metric(METRIC_SPOOL_RECORDS) == 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("spooler");
    TCase *t = tcase_create("spooler");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, what_is_owed_to_the_bus_is_replayed_until_it_has_it);
    tcase_add_test(t, marks_tell_when_the_stream_has_what_was_owed);
    tcase_add_test(t, messages_that_were_sent_before_are_repeated_whole);
    tcase_add_test(t, what_is_owed_to_a_node_is_tried_until_it_has_it);
    tcase_add_test(t, a_reservation_is_nobodys_business_until_it_is_one);
    tcase_add_test(t, a_reservation_of_a_life_before_is_published_and_applied);
    tcase_add_test(t, full);
    tcase_add_test(t, a_full_disk_is_told_and_tried_again);
    tcase_add_test(t, from_many_threads);
    suite_add_tcase(suite, t);
    return check_main(suite);
}
