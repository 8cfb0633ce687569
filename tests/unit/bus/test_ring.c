#include "proxy/bus/ring.h"

#include "proxy/bus/keeper.h"
#include "proxy/metric.h"
#include "tests/unit/bus/fake_transport.h"
#include "tests/unit/check_main.h"

#define T0 (1000 * S)

static struct fake *fake;
static struct metric_registry *registry;
static struct metrics *metrics;
static struct config config;
static struct config_bus bus_config;
static struct ring ring;

static void setup(void)
{
    static const char *const commands[] = {"get"};
    fake = fake_create();
    registry = metric_registry_create(&fake_config, commands, 1);
    metrics = metric_registry_metrics(registry);
    config = fake_config;
    bus_config = fake_bus_config;
    bus_config.resend_window_ms = 180000;
    config.bus = &bus_config;
    ring_init(&ring, &config, &fake->transport, NULL, metrics_shard_create(metrics), 1);
    ring_on_up(&ring);
}

static void teardown(void)
{
    ring_deinit(&ring);
    ck_assert_uint_eq(ring.count, 0);
    ck_assert_uint_eq(ring.bytes, 0);
    metric_registry_destroy(&registry);
    fake_destroy(fake);
}

static void add(uint64_t seq, uint64_t now_us)
{
    char id[32];
    snprintf(id, sizeof id, "id-%llu", (unsigned long long)seq);
    struct ring_message message = {.subject = "outrigger.inval.west.key", .msg_id = id, .data = xstrndup(id, strlen(id)), .len = strlen(id)};
    ring_add(&ring, seq, &message, now_us);
    ck_assert_ptr_null(message.data);
}

/* The stream is asked, and answers. */
static void look(const char *created, uint64_t last, uint64_t now_us)
{
    struct stream_info info = {.first_seq = 1, .last_seq = last};
    snprintf(info.created, sizeof info.created, "%s", created);
    ring_on_asked(&ring, now_us);
    ring_on_info(&ring, &info, now_us);
}

static void answer(const struct sent *s, struct incoming m, uint64_t now_us)
{
    ring_on_answer(&ring, fake_number(s), &m, now_us);
}

static struct incoming stored(uint64_t seq)
{
    static char text[80];
    snprintf(text, sizeof text, "{\"stream\":\"INVAL_west\",\"seq\":%llu}", (unsigned long long)seq);
    return fake_answer(text);
}

START_TEST(nothing_is_lost)
{
    look("then", 0, T0);
    add(1, T0);
    add(2, T0);
    look("then", 2, T0 + S);
    look("then", 7, T0 + 2 * S); /* others publish, too */
    ck_assert_uint_eq(ring_step(&ring, T0 + 2 * S), T0 + 180 * S);
    ck_assert_uint_eq(fake->count, 0);
    ck_assert_uint_eq(ring.count, 2);
    ck_assert_uint_eq(ring_step(&ring, T0 + 180 * S), UINT64_MAX);
    ck_assert_uint_eq(ring.count, 0); /* on the disk by now */
}
END_TEST

START_TEST(what_was_acknowledged_while_it_was_asked_is_not_lost)
{
    struct stream_info info = {.created = "then", .first_seq = 1, .last_seq = 1};
    look("then", 0, T0);
    add(1, T0);
    ring_on_asked(&ring, T0 + 1);
    add(2, T0 + 2);
    ring_on_info(&ring, &info, T0 + 3);
    ck_assert_uint_eq(ring.lost_count, 0);
}
END_TEST

START_TEST(the_tail_is_published_again)
{
    look("then", 0, T0);
    for (uint64_t seq = 1; seq <= 5; seq++) {
        add(seq, T0);
    }
    ring_on_down(&ring);
    ring_on_up(&ring);
    look("then", 5, T0);
    ck_assert_uint_eq(ring.broken_us, 0);
    look("then", 3, T0 + S);
    ck_assert_uint_eq(ring.lost_count, 2);
    ck_assert_uint_eq(ring.broken_us, T0 + S);
    look("then", 3, T0 + 2 * S);
    ck_assert_uint_eq(ring.broken_us, T0 + S);
    ring_step(&ring, T0 + S);
    ck_assert_uint_eq(fake->count, 2);
    ck_assert_str_eq(fake->sent[0].subject, "outrigger.inval.west.key");
    ck_assert_str_eq(fake->sent[0].msg_id, "id-4"); /* the same: a stream that has it after all says so */
    ck_assert_str_eq(fake->sent[0].data, "id-4");
    ck_assert_str_eq(fake->sent[1].msg_id, "id-5");
    ring_step(&ring, T0 + 2 * S); /* silence */
    ck_assert_uint_eq(fake->count, 4);
    answer(&fake->sent[2], stored(4), T0 + 2 * S);
    ck_assert_uint_eq(ring.lost_count, 1);
    answer(&fake->sent[0], stored(4), T0 + 2 * S); /* twice */
    answer(&fake->sent[3], fake_status(503, ""), T0 + 2 * S);
    ck_assert_uint_eq(ring.lost_count, 1);
    uint64_t next_us = ring_step(&ring, T0 + 2 * S);
    ck_assert_uint_gt(next_us, T0 + 2 * S);
    ring_step(&ring, next_us);
    ck_assert_uint_eq(fake->count, 5);
    answer(&fake->sent[4], stored(5), next_us);
    ck_assert_uint_eq(ring.lost_count, 0);
    ck_assert_uint_eq(ring.count, 5);
    ck_assert_uint_eq(metrics_sum(metrics, METRIC_BUS_RESENT, 0), 2);
    look("then", 5, T0 + 4 * S);
    ck_assert_uint_eq(ring.lost_count, 0);
    look("then", 4, T0 + 5 * S); /* and it is lost once more */
    ck_assert_uint_eq(ring.lost_count, 1);
}
END_TEST

/* Where each answer takes longer than a resend waits for it, all of them would be late. */
START_TEST(an_answer_to_an_earlier_attempt_counts)
{
    look("then", 0, T0);
    add(1, T0);
    look("then", 0, T0 + S);
    ring_step(&ring, T0 + S);
    ring_step(&ring, T0 + 2 * S);
    ck_assert_uint_eq(fake->count, 2);
    answer(&fake->sent[0], stored(1), T0 + 2 * S);
    ck_assert_uint_eq(ring.lost_count, 0);
    look("then", 0, T0 + 3 * S); /* lost again: what was said before does not count any more */
    ck_assert_uint_eq(ring.lost_count, 1);
    answer(&fake->sent[1], stored(1), T0 + 3 * S);
    ck_assert_uint_eq(ring.lost_count, 1);
}
END_TEST

START_TEST(all_is_published_again_to_another_stream)
{
    look("then", 0, T0);
    for (uint64_t seq = 1; seq <= 20; seq++) {
        add(seq, T0);
    }
    look("now", 100, T0 + S);
    ck_assert_uint_eq(ring.lost_count, 20);
    ring_on_down(&ring);
    ring_step(&ring, T0 + S);
    ck_assert_uint_eq(fake->count, 0); /* not while there is no stream */
    ring_on_up(&ring);
    ring_step(&ring, T0 + S);
    ck_assert_uint_eq(fake->count, 0);
    look("now", 100, T0 + 2 * S);
    for (uint32_t i = 0; i < 20; i++) {
        ring_step(&ring, T0 + 2 * S);
        ck_assert_uint_le(fake->count - i, RING_WINDOW);
        answer(&fake->sent[i], stored(101 + i), T0 + 2 * S);
    }
    ck_assert_uint_eq(fake->count, 20);
    ck_assert_str_eq(fake->sent[19].msg_id, "id-20");
    ck_assert_uint_eq(ring.lost_count, 0);
    look("now", 120, T0 + 3 * S);
    ck_assert_uint_eq(ring.lost_count, 0);
}
END_TEST

START_TEST(room_is_bounded)
{
    look("then", 0, T0);
    for (uint64_t seq = 1; seq <= RING_MESSAGES_MAX + 10; seq++) {
        add(seq, T0);
    }
    ck_assert_uint_eq(ring.count, RING_MESSAGES_MAX);
    ck_assert_uint_eq(metrics_sum(metrics, METRIC_BUS_RESEND_DROPPED, 0), 10);
    char *large = xcalloc(1, RING_BYTES_MAX / 2);
    struct ring_message message = {.subject = "s", .msg_id = "large", .data = large, .len = RING_BYTES_MAX / 2};
    ring_add(&ring, RING_MESSAGES_MAX + 11, &message, T0);
    ck_assert_uint_le(ring.bytes, RING_BYTES_MAX);
    look("now", 1, T0 + S);
    ck_assert_uint_eq(ring.lost_count, ring.count);
    add(RING_MESSAGES_MAX + 12, T0 + S);
    ck_assert_uint_le(ring.count, RING_MESSAGES_MAX);
}
END_TEST

START_TEST(switched_off)
{
    ring.window_us = 0;
    add(1, T0);
    ck_assert_uint_eq(ring.count, 0);
}
END_TEST

/* Of a stream with replicas that has no leader, any of them answers, with what it knows itself. */
START_TEST(a_replica_without_a_leader_has_lost_nothing)
{
    struct keeper keeper;
    keeper_init(&keeper, &config, &fake->transport, NULL, 1);
    keeper.ring = &ring;
    look("2026-11-24T12:00:00Z", 0, T0);
    for (uint64_t seq = 1; seq <= 10; seq++) {
        add(seq, T0);
    }
    keeper_on_up(&keeper, T0 + S);
    struct incoming m = fake_answer("{\"created\":\"2026-11-24T12:00:00Z\",\"config\":{\"name\":\"INVAL_west\"},\"state\":{\"first_seq\":1,\"last_seq\":8},"
                                    "\"cluster\":{\"name\":\"c\"}}");
    uint32_t sent = fake->count;
    keeper_on_answer(&keeper, fake_number(fake_last(fake)), &m, T0 + S);
    ck_assert_uint_eq(ring.lost_count, 0);
    ck_assert_uint_eq(ring.broken_us, 0);
    ck_assert_uint_eq(fake->count, sent); /* nor is it updated */
    ck_assert_str_eq(keeper_problem(&keeper), "its stream has no leader");
    ck_assert_int_eq(keeper.state, KEEPER_WAITING);
    keeper_step(&keeper, keeper.due_us);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.INVAL_west");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus/ring");
    TCase *tc = tcase_create("ring");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, nothing_is_lost);
    tcase_add_test(tc, what_was_acknowledged_while_it_was_asked_is_not_lost);
    tcase_add_test(tc, the_tail_is_published_again);
    tcase_add_test(tc, an_answer_to_an_earlier_attempt_counts);
    tcase_add_test(tc, all_is_published_again_to_another_stream);
    tcase_add_test(tc, room_is_bounded);
    tcase_add_test(tc, switched_off);
    tcase_add_test(tc, a_replica_without_a_leader_has_lost_nothing);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
