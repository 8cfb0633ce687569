/* What: when a sidecar is a relay: elected, standing in while nobody can be, or not at all. Against a scripted bucket; time is the test's. */
#include <unistd.h>

#include "proxy/bus/relays.h"
#include "tests/unit/bus/fake_bucket.h"
#include "tests/unit/check_main.h"

static struct fake *fake;
static struct bucket bucket;
static struct log *test_log;
static struct metric_registry *registry;
static struct metrics_shard *shard;
static struct relays relays;
static uint64_t now;
static uint32_t changes; /* and whether it is a relay, as we were told last */
static bool is_relay;

static void on_change(void *ctx, bool is_it)
{
    ck_assert_ptr_eq(ctx, &relays);
    ck_assert_int_ne(is_it, is_relay);
    is_relay = is_it;
    changes++;
}

static void begin(uint32_t slots, uint32_t peers)
{
    fake_bus_config.relays = slots;
    fake_bus_config.peer_count = peers;
    now = 1000 * S;
    changes = 0;
    is_relay = false;
    memset(&bucket, 0, sizeof bucket);
    relays_init(&relays, &fake_config, &fake->transport, test_log, shard, 1234567, now);
    relays.on_change = on_change;
    relays.ctx = &relays;
}

static void setup(void)
{
    fake = fake_create();
    test_log = log_create(STDERR_FILENO, LOG_ERROR);
    registry = metric_registry_create(&fake_config, (const char *const[]){"get"}, 1);
    shard = metrics_shard_create(metric_registry_metrics(registry));
    begin(2, ARRAY_LEN(fake_peers));
}

static void teardown(void)
{
    fake_destroy(fake);
    metric_registry_destroy(&registry);
    log_destroy(&test_log);
}

static void talk(void)
{
    while (fake->count > 0) {
        struct sent sent[64];
        uint32_t count = fake->count;
        memcpy(sent, fake->sent, count * sizeof sent[0]);
        fake->count = 0;
        for (uint32_t k = 0; k < count; k++) {
            char text[512];
            struct incoming answer = bucket_answer(&bucket, &sent[k], text, sizeof text);
            relays_on_answer(&relays, fake_number(&sent[k]), &answer, now);
            free(sent[k].data);
        }
    }
}

static void renew_by_others(void)
{
    static const char *const subjects[] = {"$KV.ROLES_west.relay.0", "$KV.ROLES_west.relay.1"};
    bucket.is_there = true;
    for (uint32_t i = 0; i < 2; i++) {
        struct bucket_entry *entry = bucket_entry(&bucket, subjects[i]);
        entry->seq = ++bucket.seq;
        snprintf(entry->data, sizeof entry->data, "another%u", i);
    }
}

/* With others in both slots, or with nobody. */
static void run(uint64_t us, bool with_others, bool is_connected)
{
    for (uint64_t until = now + us; now < until; now += 200 * MS) {
        if (with_others && now % S == 0) {
            renew_by_others();
        }
        uint64_t next_us = relays_step(&relays, now);
        ck_assert(next_us > now);
        if (is_connected) {
            talk();
        }
        fake_clear(fake);
        ck_assert_int_eq(relays_is_relay(&relays), is_relay);
    }
}

START_TEST(it_is_elected)
{
    ck_assert(!relays_is_settled(&relays));
    relays_on_up(&relays, now);
    run(S, false, true);
    ck_assert(is_relay);
    ck_assert(relays_is_settled(&relays));
    ck_assert_int_eq(relays.state, RELAY_ELECTED);
    relays_on_down(&relays); /* this region's NATS goes away: it stays one */
    run(60 * S, false, false);
    ck_assert_int_eq(relays.state, RELAY_ELECTED);
    relays_on_up(&relays, now);
    run(60 * S, false, true);
    ck_assert_uint_eq(changes, 1);
}
END_TEST

START_TEST(others_are)
{
    renew_by_others();
    relays_on_up(&relays, now);
    run(S, true, true);
    ck_assert(relays_is_settled(&relays)); /* at once, not after a lease */
    ck_assert_int_eq(relays.state, RELAY_NONE);
    run(60 * S, true, true);
    ck_assert_uint_eq(changes, 0);
    run(2 * RELAY_LEASE_US, false, true); /* they die */
    ck_assert_int_eq(relays.state, RELAY_ELECTED);
}
END_TEST

START_TEST(nobody_can_be_elected)
{
    renew_by_others();
    relays_on_up(&relays, now);
    run(10 * S, true, true);
    relays_on_down(&relays);
    run(RELAY_LEASE_US - S, false, false);
    ck_assert_uint_eq(changes, 0); /* it may come back at once */
    run(RELAY_LEASE_US + 2 * S, false, false);
    ck_assert_int_eq(relays.state, RELAY_STANDS_IN);
    ck_assert(is_relay);
    relays_on_up(&relays, now);
    run(600 * MS, false, true);
    ck_assert(is_relay); /* the entries are there, but are their owners? */
    run(2 * RELAY_LEASE_US, true, true);
    ck_assert_int_eq(relays.state, RELAY_NONE);
    ck_assert_uint_eq(changes, 2);
}
END_TEST

START_TEST(nobody_can_be_elected_from_the_start)
{
    run(2 * RELAY_LEASE_US + S, false, false);
    ck_assert_int_eq(relays.state, RELAY_STANDS_IN);
    relays_on_up(&relays, now);
    run(S, false, true); /* it wins a slot, and does not let go of its connections for that */
    ck_assert_int_eq(relays.state, RELAY_ELECTED);
    ck_assert_uint_eq(changes, 1);
}
END_TEST

START_TEST(a_bucket_that_takes_nothing)
{
    bucket.is_full = true;
    relays_on_up(&relays, now);
    run(2 * RELAY_LEASE_US + S, false, true);
    ck_assert_int_eq(relays.state, RELAY_STANDS_IN);
    bucket.is_full = false;
    run(10 * S, false, true);
    ck_assert_int_eq(relays.state, RELAY_ELECTED);
}
END_TEST

START_TEST(everybody_is_without_election)
{
    begin(0, ARRAY_LEN(fake_peers));
    run(S, false, false);
    ck_assert_int_eq(relays.state, RELAY_ELECTED);
    relays_on_up(&relays, now);
    ck_assert_uint_eq(fake->count, 0);
    ck_assert(!relays_resign(&relays, now));
    begin(2, 0); /* nobody to receive from, nothing to elect */
    relays_on_up(&relays, now);
    ck_assert_uint_eq(fake->count, 0);
}
END_TEST

START_TEST(an_end_gives_the_slot_back)
{
    relays_on_up(&relays, now);
    run(S, false, true);
    ck_assert(relays_resign(&relays, now));
    ck_assert(relays_is_resigning(&relays));
    talk();
    ck_assert(!relays_is_resigning(&relays));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus/relays");
    TCase *tc = tcase_create("relays");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, it_is_elected);
    tcase_add_test(tc, others_are);
    tcase_add_test(tc, nobody_can_be_elected);
    tcase_add_test(tc, nobody_can_be_elected_from_the_start);
    tcase_add_test(tc, a_bucket_that_takes_nothing);
    tcase_add_test(tc, everybody_is_without_election);
    tcase_add_test(tc, an_end_gives_the_slot_back);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
