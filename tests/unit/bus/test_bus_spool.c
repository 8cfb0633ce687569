/* What a writer sees of the bus's reservations; NATS is never there, so all that is published ends in the spool. */
#include <poll.h>

#include "common/clock.h"
#include "proxy/bus/bus.h"
#include "tests/unit/bus/fake_transport.h"
#include "tests/unit/bus/spool_directory.h"
#include "tests/unit/check_main.h"

static char directory[DIRECTORY_SIZE];
static struct config_spool spool_config;
static struct config_bus bus_config;
static struct config config;
static struct metric_registry *registry;
static struct log *bus_log;
static struct bus *bus;
static struct mailbox box;
static uint32_t done;
static uint32_t delivered;

static void on_delivery(struct mail *mail, void *owner)
{
    delivered++;
    delivery_done(container_of(mail, struct delivery, mail), OK);
}

static void apply(void *ctx, struct delivery *d)
{
    d->mail.deliver = on_delivery;
    mailbox_post(&box, &d->mail);
}

static void start(void)
{
    ck_assert_int_eq(bus_create(&config, bus_log, metric_registry_metrics(registry), (struct bus_sink){.apply = apply}, &bus), OK);
}

static void end(void)
{
    bus_stop(bus);
    while (mailbox_drain(&box, NULL) > 0) {
    }
    bus_destroy(&bus);
}

static void setup(void)
{
    static const char *const commands[] = {"get"};
    directory_make(directory);
    spool_config = (struct config_spool){.directory = directory, .max_bytes = 1 << 20, .segment_bytes = 65536};
    bus_config = fake_bus_config;
    bus_config.url = (char *)"nats://127.0.0.1:1";
    bus_config.peer_count = 0;
    bus_config.spool = &spool_config;
    bus_config.intent = true;
    config = fake_config;
    config.bus = &bus_config;
    bus_log = log_create(2, LOG_ERROR);
    registry = metric_registry_create(&config, commands, 1);
    ck_assert_int_eq(mailbox_init(&box), OK);
    done = delivered = 0;
    start();
}

static void teardown(void)
{
    end();
    mailbox_deinit(&box);
    metric_registry_destroy(&registry);
    log_destroy(&bus_log);
    directory_remove(directory);
}

static void on_done(struct publication *publication)
{
    ck_assert_int_eq(publication->err, OK);
    done++;
}

static struct publication publication_of(const char *key)
{
    struct publication p = {.reply_to = &box, .on_done = on_done};
    p.event = (struct invalidation){.version = 5, .timestamp_ms = clock_wall_ms(), .key_len = (uint16_t)strlen(key)};
    memcpy(p.event.key, key, strlen(key));
    return p;
}

static uint64_t records(void)
{
    return metrics_sum(metric_registry_metrics(registry), METRIC_SPOOL_RECORDS, 0);
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

START_TEST(reserved_and_cancelled)
{
    struct publication p = publication_of("k");
    ck_assert(bus_has_intent(bus));
    bus_reserve(bus, &p);
    WAIT_FOR(done == 1 && records() == 1);
    bus_cancel(bus, &p);
    WAIT_FOR(records() == 0);
    end();
    start();
    ck_assert_uint_eq(records(), 0);
}
END_TEST

START_TEST(reserved_and_committed)
{
    char text[600];
    struct publication p = publication_of("k");
    bus_reserve(bus, &p);
    WAIT_FOR(done == 1);
    p.event.version = 9;
    bus_commit(bus, &p);
    WAIT_FOR(done == 2);
    WAIT_FOR(bus_is_spool_ready(bus, text, sizeof text) && strstr(text, "waiting for this region's NATS: 1; for a node of its pool: 0;") != NULL);
    ck_assert(!bus_owes(bus, SPAN_LIT("k"))); /* the writer has told this region's pool */
    ck_assert_uint_eq(delivered, 0);
}
END_TEST

START_TEST(reserved_and_forgotten)
{
    char text[600];
    struct publication p = publication_of("k");
    bus_reserve(bus, &p);
    WAIT_FOR(done == 1);
    end();
    start();
    ck_assert(bus_owes(bus, SPAN_LIT("k")));
    WAIT_FOR(delivered == 1 && !bus_owes(bus, SPAN_LIT("k")));
    WAIT_FOR(bus_is_spool_ready(bus, text, sizeof text) && strstr(text, "waiting for this region's NATS: 1;") != NULL);
}
END_TEST

START_TEST(committed_at_the_end)
{
    struct publication p = publication_of("k");
    bus_reserve(bus, &p);
    WAIT_FOR(done == 1);
    bus_stop(bus);
    bus_commit(bus, &p);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(done, 2);
    end();
    start();
    ck_assert_uint_eq(records(), 1);
}
END_TEST

START_TEST(without_intent)
{
    end();
    bus_config.intent = false;
    start();
    struct publication p = publication_of("k");
    ck_assert(!bus_has_intent(bus));
    bus_reserve(bus, &p);
    WAIT_FOR(done == 1);
    ck_assert_ptr_null(p.reserved);
    bus_cancel(bus, &p);
    ck_assert_uint_eq(records(), 0);
    bus_commit(bus, &p);
    WAIT_FOR(done == 2 && records() == 1);
}
END_TEST

START_TEST(owed_until_the_node_has_it)
{
    struct publication p = publication_of("k");
    bus_owe(bus, &p, false);
    ck_assert(bus_owes(bus, SPAN_LIT("k")));
    WAIT_FOR(done == 1 && delivered == 1 && !bus_owes(bus, SPAN_LIT("k")) && records() == 0);
}
END_TEST

START_TEST(a_spool_that_is_in_use)
{
    struct bus *other = NULL;
    ck_assert_int_eq(bus_create(&config, bus_log, metric_registry_metrics(registry), (struct bus_sink){.apply = apply}, &other), ERR_SPOOL);
    ck_assert_ptr_null(other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus_spool");
    TCase *t = tcase_create("bus_spool");
    tcase_set_timeout(t, 60);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, reserved_and_cancelled);
    tcase_add_test(t, reserved_and_committed);
    tcase_add_test(t, reserved_and_forgotten);
    tcase_add_test(t, committed_at_the_end);
    tcase_add_test(t, without_intent);
    tcase_add_test(t, owed_until_the_node_has_it);
    tcase_add_test(t, a_spool_that_is_in_use);
    suite_add_tcase(suite, t);
    return check_main(suite);
}
