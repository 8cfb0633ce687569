#include "proxy/bus/publisher.h"

#include "proxy/bus/keeper.h"
#include "tests/unit/bus/fake_transport.h"
#include "tests/unit/check_main.h"

#define T0 (100 * S)
#define STORED "{\"stream\":\"INVAL_west\",\"seq\":7}"

static struct fake *fake;
static struct metric_registry *registry;
static struct metrics *metrics;
static struct mailbox box; /* where results go */
static struct publisher publisher;
static uint32_t no_streams;
static uint32_t done;
static uint32_t done_with[ERR_COUNT];

static void on_no_stream(void *ctx)
{
    no_streams++;
}

static void setup(void)
{
    static const char *const commands[] = {"get"};
    fake = fake_create();
    registry = metric_registry_create(&fake_config, commands, 1);
    metrics = metric_registry_metrics(registry);
    ck_assert_int_eq(mailbox_init(&box), OK);
    publisher_init(&publisher, &fake_config, &fake->transport, NULL, metrics_shard_create(metrics), 0xabc);
    publisher.on_no_stream = on_no_stream;
    no_streams = 0;
    done = 0;
    memset(done_with, 0, sizeof done_with);
}

static void drain(void)
{
    mailbox_drain(&box, NULL);
}

static void teardown(void)
{
    publisher_stop(&publisher);
    drain();
    ck_assert_uint_eq(publisher.pending, 0);
    mailbox_deinit(&box);
    metric_registry_destroy(&registry);
    fake_destroy(fake);
}

static void on_done(struct publication *p)
{
    done++;
    done_with[p->err]++;
    free(p);
}

static void submit(uint32_t n, uint64_t now_us)
{
    static uint32_t serial;
    for (uint32_t i = 0; i < n; i++) {
        struct publication *p = xcalloc(1, sizeof *p);
        p->reply_to = &box;
        p->on_done = on_done;
        p->submitted_us = now_us;
        p->event.version = ++serial;
        p->event.timestamp_ms = 1;
        p->event.key_len = (uint16_t)snprintf(p->event.key, sizeof p->event.key, "key%u", serial);
        publisher_submit(&publisher, p);
    }
}

static uint32_t events_in(const struct sent *s)
{
    struct invalidation *events = NULL;
    uint32_t count = 0;
    char error[100];
    ck_assert_int_eq(invalidation_decode("west", span_str(s->data), &events, &count, error, sizeof error), OK);
    free(events);
    return count;
}

static void answer(const struct sent *s, struct incoming message, uint64_t now_us)
{
    publisher_on_answer(&publisher, fake_number(s), &message, now_us);
    drain();
}

START_TEST(one_goes_at_once)
{
    publisher_on_up(&publisher, T0);
    ck_assert_uint_eq(publisher_step(&publisher, T0), UINT64_MAX);
    submit(1, T0);
    ck_assert_uint_eq(publisher_step(&publisher, T0), T0 + S); /* silence */
    ck_assert_uint_eq(fake->count, 1);
    const struct sent *s = fake_last(fake);
    ck_assert_str_eq(s->subject, "outrigger.inval.west.key");
    ck_assert_str_eq(s->reply, "_INBOX.test.p.1");
    ck_assert_str_eq(s->msg_id, "0000000000000abc-1");
    ck_assert_uint_eq(events_in(s), 1);
    drain();
    ck_assert_uint_eq(done, 0);
    answer(s, fake_answer(STORED), T0 + 5 * MS);
    ck_assert_uint_eq(done_with[OK], 1);
    ck_assert_uint_eq(metrics_sum(metrics, METRIC_BUS_PUBLISHED, 0), 1);
    ck_assert_uint_eq(publisher_step(&publisher, T0 + 10 * S), UINT64_MAX);
    answer(s, fake_answer(STORED), T0 + 10 * S); /* twice */
    ck_assert_uint_eq(done, 1);
}
END_TEST

START_TEST(rules_go_under_a_subject_of_their_own)
{
    publisher_on_up(&publisher, T0);
    submit(2, T0);
    publisher.tail->event.is_pattern = true;
    submit(1, T0);
    publisher_step(&publisher, T0);
    ck_assert_uint_eq(fake->count, 3); /* in their order */
    ck_assert_str_eq(fake->sent[0].subject, "outrigger.inval.west.key");
    ck_assert_str_eq(fake->sent[1].subject, "outrigger.inval.west.rule");
    ck_assert_str_eq(fake->sent[2].subject, "outrigger.inval.west.key");
    ck_assert_ptr_nonnull(strstr(fake->sent[1].data, "\"pattern\":"));
}
END_TEST

START_TEST(piles_up_behind_the_window)
{
    publisher_on_up(&publisher, T0);
    for (uint32_t i = 0; i < PUBLISH_WINDOW + 20; i++) {
        submit(1, T0);
        publisher_step(&publisher, T0);
    }
    ck_assert_uint_eq(fake->count, PUBLISH_WINDOW);
    answer(&fake->sent[3], fake_answer(STORED), T0 + MS);
    publisher_step(&publisher, T0 + MS);
    ck_assert_uint_eq(fake->count, PUBLISH_WINDOW + 1);
    ck_assert_uint_eq(events_in(fake_last(fake)), 20);
    for (uint32_t i = 0; i < fake->count; i++) {
        answer(&fake->sent[i], fake_answer(STORED), T0 + 2 * MS);
    }
    ck_assert_uint_eq(done_with[OK], PUBLISH_WINDOW + 20);
}
END_TEST

START_TEST(large_batches_are_cut)
{
    publisher_on_up(&publisher, T0);
    submit(900, T0);
    publisher_step(&publisher, T0);
    ck_assert_uint_eq(fake->count, 2);
    ck_assert_uint_eq(events_in(&fake->sent[0]), PUBLISH_EVENTS_MAX);
    ck_assert_uint_eq(events_in(&fake->sent[1]), 900 - PUBLISH_EVENTS_MAX);
    answer(&fake->sent[1], fake_answer(STORED), T0); /* in any order */
    ck_assert_uint_eq(done_with[OK], 900 - PUBLISH_EVENTS_MAX);
    answer(&fake->sent[0], fake_answer(STORED), T0);
    ck_assert_uint_eq(done_with[OK], 900);
}
END_TEST

START_TEST(overload_and_not_connected_fail_at_once)
{
    submit(1, T0);
    drain();
    ck_assert_uint_eq(done_with[ERR_UNAVAILABLE], 1);
    publisher_on_up(&publisher, T0);
    submit(1000, T0);
    submit(5, T0);
    drain();
    ck_assert_uint_eq(done_with[ERR_OVERLOAD], 5);
    publisher_step(&publisher, T0);
    submit(1, T0); /* what is under way counts */
    drain();
    ck_assert_uint_eq(done_with[ERR_OVERLOAD], 6);
    answer(&fake->sent[0], fake_answer(STORED), T0);
    submit(1, T0);
    drain();
    ck_assert_uint_eq(done_with[ERR_OVERLOAD], 6);
    ck_assert_uint_eq(metrics_sum(metrics, METRIC_BUS_PUBLISH_FAILED, 0), 7);
    ck_assert_uint_eq(metrics_sum(metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_OVERLOAD)), 6);
    publisher.is_stopping = true;
    submit(1, T0);
    drain();
    ck_assert_uint_eq(done_with[ERR_STOPPING], 1);
}
END_TEST

START_TEST(invalid_events_do_not_spoil_others)
{
    publisher_on_up(&publisher, T0);
    submit(1, T0);
    struct publication *p = xcalloc(1, sizeof *p);
    p->reply_to = &box;
    p->on_done = on_done;
    publisher_submit(&publisher, p);
    submit(1, T0);
    drain();
    ck_assert_uint_eq(done_with[ERR_INVALID], 1);
    publisher_step(&publisher, T0);
    ck_assert_uint_eq(events_in(fake_last(fake)), 2);
}
END_TEST

START_TEST(silence_is_retried_and_times_out)
{
    publisher_on_up(&publisher, T0);
    submit(1, T0);
    submit(1, T0 + 500 * MS);
    uint64_t next_us = publisher_step(&publisher, T0 + 500 * MS);
    ck_assert_uint_eq(next_us, T0 + 1500 * MS);
    ck_assert_uint_eq(fake->count, 1);
    publisher_step(&publisher, T0 + 1500 * MS);
    ck_assert_uint_eq(fake->count, 2);
    ck_assert_str_eq(fake->sent[0].msg_id, fake->sent[1].msg_id);
    ck_assert_str_eq(fake->sent[0].data, fake->sent[1].data);
    next_us = publisher_step(&publisher, T0 + 2600 * MS);
    ck_assert_uint_eq(next_us, T0 + 3 * S);
    publisher_step(&publisher, T0 + 3 * S);
    drain();
    ck_assert_uint_eq(done_with[ERR_TIMEOUT], 1); /* each by its own time */
    publisher_step(&publisher, T0 + 3500 * MS);
    drain();
    ck_assert_uint_eq(done_with[ERR_TIMEOUT], 2);
    uint32_t sent = fake->count;
    ck_assert_uint_eq(publisher_step(&publisher, T0 + 100 * S), UINT64_MAX);
    ck_assert_uint_eq(fake->count, sent);
    answer(&fake->sent[0], fake_answer(STORED), T0 + 100 * S); /* too late for anybody */
    ck_assert_uint_eq(done, 2);
    submit(1, T0 + 100 * S); /* the window has room again */
    publisher_step(&publisher, T0 + 100 * S);
    ck_assert_uint_eq(fake->count, sent + 1);
}
END_TEST

START_TEST(waiting_ones_time_out_too)
{
    publisher_on_up(&publisher, T0);
    for (uint32_t i = 0; i < PUBLISH_WINDOW + 3; i++) {
        submit(1, T0 + i * MS);
        publisher_step(&publisher, T0 + i * MS);
    }
    publisher_step(&publisher, T0 + 3 * S + 100 * MS);
    drain();
    ck_assert_uint_eq(done_with[ERR_TIMEOUT], PUBLISH_WINDOW + 3);
}
END_TEST

START_TEST(nobody_there_is_retried_with_back_off)
{
    publisher_on_up(&publisher, T0);
    submit(1, T0);
    uint64_t now_us = T0;
    uint64_t next_us = publisher_step(&publisher, now_us);
    uint64_t last_wait_us = 0;
    for (uint32_t i = 0; i < 5; i++) {
        ck_assert_uint_eq(fake->count, i + 1);
        answer(fake_last(fake), fake_status(503, ""), now_us);
        ck_assert_uint_eq(no_streams, i + 1);
        next_us = publisher_step(&publisher, now_us);
        ck_assert_uint_eq(fake->count, i + 1); /* not at once */
        ck_assert_uint_ge(next_us - now_us, 10 * MS);
        ck_assert_uint_gt(next_us - now_us, last_wait_us / 2);
        last_wait_us = next_us - now_us;
        now_us = next_us;
        publisher_step(&publisher, now_us);
    }
    answer(fake_last(fake), fake_answer("{\"error\":{\"code\":503,\"err_code\":10008,\"description\":\"unavailable\"}}"), now_us);
    ck_assert_uint_eq(no_streams, 5);
    publisher_step(&publisher, publisher_step(&publisher, now_us));
    ck_assert_uint_eq(fake->count, 7);
    answer(fake_last(fake), fake_answer(STORED), now_us);
    ck_assert_uint_eq(done_with[OK], 1);
}
END_TEST

START_TEST(refusals_end_it)
{
    static const char *const refusals[] = {
        "{\"error\":{\"code\":400,\"err_code\":10077,\"description\":\"maximum messages exceeded\"}}",
        "{\"error\":{}}",
        "{\"stream\":\"OTHER\",\"seq\":7}",
        "{\"stream\":\"INVAL_west\"}",
        "{}",
    };
    publisher_on_up(&publisher, T0);
    for (uint32_t i = 0; i < ARRAY_LEN(refusals); i++) {
        submit(1, T0);
        publisher_step(&publisher, T0);
        answer(fake_last(fake), fake_answer(refusals[i]), T0);
        ck_assert_uint_eq(done_with[ERR_BUS], i + 1);
    }
    /* What is no answer at all may be followed by one. */
    static const char *const nonsense[] = {"", "x", "[]", "{", "\"\""};
    submit(1, T0);
    publisher_step(&publisher, T0);
    for (uint32_t i = 0; i < ARRAY_LEN(nonsense); i++) {
        answer(fake_last(fake), fake_answer(nonsense[i]), T0);
    }
    ck_assert_uint_eq(done, ARRAY_LEN(refusals));
    answer(fake_last(fake), fake_answer(STORED), T0);
    ck_assert_uint_eq(done_with[OK], 1);
}
END_TEST

START_TEST(a_full_link_is_retried)
{
    publisher_on_up(&publisher, T0);
    fake->answer = ERR_OVERLOAD;
    submit(1, T0);
    uint64_t next_us = publisher_step(&publisher, T0);
    ck_assert_uint_le(next_us, T0 + 20 * MS);
    ck_assert_uint_ge(next_us, T0 + 10 * MS);
    fake->answer = OK;
    publisher_step(&publisher, next_us);
    ck_assert_uint_eq(fake->count, 1);
    answer(fake_last(fake), fake_answer(STORED), next_us);
    ck_assert_uint_eq(done_with[OK], 1);
}
END_TEST

START_TEST(disconnected_and_back)
{
    publisher_on_up(&publisher, T0);
    for (uint32_t i = 0; i < PUBLISH_WINDOW + 3; i++) {
        submit(1, T0);
        publisher_step(&publisher, T0);
    }
    publisher_on_down(&publisher);
    drain();
    ck_assert_uint_eq(done_with[ERR_UNAVAILABLE], 3); /* had not been sent */
    submit(1, T0);
    drain();
    ck_assert_uint_eq(done_with[ERR_UNAVAILABLE], 4);
    ck_assert_uint_eq(publisher_step(&publisher, T0 + 2 * S), T0 + 3 * S); /* nothing to be sent to nobody */
    ck_assert_uint_eq(fake->count, PUBLISH_WINDOW);
    publisher_on_up(&publisher, T0 + 2 * S);
    publisher_step(&publisher, T0 + 2 * S);
    ck_assert_uint_eq(fake->count, 2 * PUBLISH_WINDOW);
    for (uint32_t i = 0; i < PUBLISH_WINDOW; i++) {
        ck_assert_str_eq(fake->sent[i].msg_id, fake->sent[PUBLISH_WINDOW + (i + 1) % PUBLISH_WINDOW].msg_id);
        answer(&fake->sent[i], fake_answer(STORED), T0 + 2 * S);
    }
    ck_assert_uint_eq(done_with[OK], PUBLISH_WINDOW);
    submit(2, T0 + 2 * S);
    publisher_step(&publisher, T0 + 2 * S);
    publisher_on_down(&publisher);
    publisher_step(&publisher, T0 + 5 * S);
    drain();
    ck_assert_uint_eq(done_with[ERR_TIMEOUT], 2); /* whether it arrived is not known */
}
END_TEST

START_TEST(stopping_ends_all)
{
    publisher_on_up(&publisher, T0);
    for (uint32_t i = 0; i < PUBLISH_WINDOW + 3; i++) {
        submit(1, T0);
        publisher_step(&publisher, T0);
    }
    publisher_stop(&publisher);
    drain();
    ck_assert_uint_eq(done_with[ERR_STOPPING], PUBLISH_WINDOW + 3);
}
END_TEST

/* --- with a spool --- */

static struct publication *taken[64];
static uint32_t taken_count;
static uint32_t cleared;

static void take(void *ctx, struct publication *publication)
{
    taken[taken_count++] = publication;
}

static void clear(void *ctx, struct publication *publication)
{
    publication->reserved = NULL;
    cleared++;
}

static const struct publisher_spool spool = {.take = take, .clear = clear};

static void spool_setup(void)
{
    setup();
    publisher.spool = &spool;
    taken_count = cleared = 0;
}

static void spool_teardown(void)
{
    teardown();
    for (uint32_t i = 0; i < taken_count; i++) {
        free(taken[i]);
    }
}

START_TEST(what_can_not_be_published_is_spooled)
{
    submit(2, T0); /* not connected */
    ck_assert_uint_eq(taken_count, 2);
    ck_assert_uint_eq(taken[0]->sender, 0);
    publisher_on_up(&publisher, T0);
    submit(1, T0);
    publisher_step(&publisher, T0);
    answer(fake_last(fake), fake_answer("{\"error\":{\"code\":400}}"), T0);
    ck_assert_uint_eq(taken_count, 3);
    struct publication *p = xcalloc(1, sizeof *p); /* an event that is none */
    p->reply_to = &box;
    p->on_done = on_done;
    publisher_submit(&publisher, p);
    drain();
    ck_assert_uint_eq(done_with[ERR_INVALID], 1);
    ck_assert_uint_eq(taken_count, 3);
    ck_assert_uint_eq(done, 1);
}
END_TEST

START_TEST(a_message_is_spooled_as_a_whole)
{
    publisher_on_up(&publisher, T0);
    submit(1, T0);
    submit(2, T0 + 500 * MS);
    publisher_step(&publisher, T0 + 500 * MS);
    publisher_step(&publisher, T0 + 3 * S); /* the first one's time is up */
    ck_assert_uint_eq(taken_count, 3);
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(taken[i]->sender, 0xabc);
        ck_assert_uint_eq(taken[i]->message, 1);
        ck_assert_uint_eq(taken[i]->count, 3);
        ck_assert(i == 0 || taken[i]->event.version == taken[i - 1]->event.version + 1);
    }
    ck_assert_uint_eq(publisher_step(&publisher, T0 + 10 * S), UINT64_MAX);
    answer(&fake->sent[0], fake_answer(STORED), T0 + 10 * S); /* late */
    ck_assert_uint_eq(done, 0);
}
END_TEST

START_TEST(the_end_spools_what_is_under_way)
{
    publisher_on_up(&publisher, T0);
    submit(1, T0);
    publisher_step(&publisher, T0);
    submit(1, T0);
    publisher_stop(&publisher);
    drain();
    ck_assert_uint_eq(taken_count, 2);
    ck_assert_uint_eq(done, 0);
}
END_TEST

START_TEST(a_reservation_is_cleared_when_the_stream_has_it)
{
    static uint64_t reservation;
    publisher_on_up(&publisher, T0);
    submit(1, T0);
    publisher.head->reserved = (struct spool_entry *)(void *)&reservation;
    publisher_step(&publisher, T0);
    ck_assert_uint_eq(cleared, 0);
    answer(fake_last(fake), fake_answer(STORED), T0);
    ck_assert_uint_eq(cleared, 1);
    ck_assert_uint_eq(done_with[OK], 1);
}
END_TEST

/* --- the keeper of the stream --- */

static struct keeper keeper;

static void keeper_setup(void)
{
    setup();
    keeper_init(&keeper, &fake_config, &fake->transport, NULL, 1);
}

static void keeper_answer(const char *text, uint64_t now_us)
{
    struct incoming message = fake_answer(text);
    keeper_on_answer(&keeper, fake_number(fake_last(fake)), &message, now_us);
}

#define NOT_FOUND "{\"error\":{\"code\":404,\"err_code\":10059,\"description\":\"stream not found\"}}"

START_TEST(creates_the_stream)
{
    ck_assert_ptr_nonnull(keeper_problem(&keeper));
    keeper_on_up(&keeper, T0);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.INVAL_west");
    keeper_answer(NOT_FOUND, T0);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.CREATE.INVAL_west");
    ck_assert_str_eq(
        fake_last(fake)->data,
        "{\"name\":\"INVAL_west\",\"subjects\":[\"outrigger.inval.west.>\"],\"retention\":\"limits\",\"storage\":\"file\","
        "\"discard\":\"old\",\"max_msgs\":-1,\"max_msgs_per_subject\":-1,\"max_age\":86400000000000,\"max_bytes\":1073741824,\"max_msg_size\":528384,"
        "\"duplicate_window\":30000000000,\"num_replicas\":1}");
    ck_assert_str_eq(keeper_problem(&keeper), "missing");
    keeper_answer("{\"config\":{}}", T0);
    ck_assert_ptr_null(keeper_problem(&keeper));
    ck_assert_uint_eq(keeper_step(&keeper, T0), T0 + KEEPER_CHECK_US);
    keeper_check(&keeper, T0); /* a publication found none */
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.INVAL_west");
    ck_assert_str_eq(keeper_problem(&keeper), "missing");
    uint32_t sent = fake->count;
    keeper_check(&keeper, T0);
    ck_assert_uint_eq(fake->count, sent); /* once is enough */
}
END_TEST

START_TEST(updates_other_settings)
{
    keeper_on_up(&keeper, T0);
    keeper_answer(
        "{\"config\":{\"name\":\"INVAL_west\",\"subjects\":[\"outrigger.inval.west.>\"],\"retention\":\"limits\",\"storage\":"
        "\"file\",\"discard\":\"new\",\"max_msgs\":-1,\"max_msgs_per_subject\":-1,\"max_age\":1,\"max_bytes\":1073741824,\"max_msg_size\":528384,\"duplicate_window\":"
        "30000000000,\"num_replicas\":1,\"placement\":{\"tags\":[\"ssd\"]}}}",
        T0);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.UPDATE.INVAL_west");
    ck_assert_ptr_nonnull(strstr(fake_last(fake)->data, "\"discard\":\"old\""));
    ck_assert_ptr_nonnull(strstr(fake_last(fake)->data, "\"max_age\":86400000000000"));
    ck_assert_ptr_nonnull(strstr(fake_last(fake)->data, "\"placement\":{\"tags\":[\"ssd\"]}")); /* an operator's */
    struct incoming same = fake_answer(fake_last(fake)->data);
    char text[2048];
    snprintf(text, sizeof text, "{\"config\":%s}", same.data.data);
    keeper_answer("{\"error\":{\"code\":500,\"err_code\":10052,\"description\":\"no\"}}", T0);
    ck_assert_ptr_nonnull(strstr(keeper_problem(&keeper), "drops invalidations, and can not be changed (no): discard is \"new\""));
    keeper_on_up(&keeper, T0);
    uint32_t sent = fake->count;
    keeper_answer(text, T0);
    ck_assert_uint_eq(fake->count, sent); /* nothing to change */
    ck_assert_ptr_null(keeper_problem(&keeper));
}
END_TEST

START_TEST(keeper_leaves_a_stream_alone_that_is_being_made)
{
    keeper_on_up(&keeper, T0);
    for (int i = 0; i < 2; i++) {
        uint32_t sent = fake->count;
        keeper_answer("{\"created\":\"0001-01-01T00:00:00Z\",\"config\":{\"name\":\"INVAL_west\",\"discard\":\"new\"},\"state\":{\"first_seq\":0,\"last_seq\":0}}", T0);
        ck_assert_uint_eq(fake->count, sent); /* no update */
        ck_assert_int_eq(keeper.state, KEEPER_WAITING);
        keeper_step(&keeper, keeper.due_us);
        ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.INVAL_west");
    }
}
END_TEST

START_TEST(keeper_tries_again)
{
    keeper_on_up(&keeper, T0);
    uint64_t next_us = keeper_step(&keeper, T0);
    ck_assert_uint_eq(next_us, T0 + 5 * S);
    next_us = keeper_step(&keeper, next_us); /* silence */
    ck_assert_uint_gt(next_us, T0 + 5 * S);
    ck_assert_uint_eq(fake->count, 1);
    uint64_t late = fake_number(fake_last(fake));
    keeper_step(&keeper, next_us);
    ck_assert_uint_eq(fake->count, 2);
    struct incoming message = fake_answer(NOT_FOUND);
    keeper_on_answer(&keeper, late, &message, next_us);
    ck_assert_uint_eq(fake->count, 2); /* an answer to an older question */
    struct incoming nobody = fake_status(503, "");
    keeper_on_answer(&keeper, fake_number(fake_last(fake)), &nobody, next_us);
    ck_assert_ptr_nonnull(strstr(keeper_problem(&keeper), "JetStream is not running"));
    next_us = keeper_step(&keeper, next_us);
    keeper_step(&keeper, next_us);
    keeper_answer(NOT_FOUND, next_us);
    keeper_answer("{\"error\":{\"code\":400,\"err_code\":10058,\"description\":\"stream name already in use\"}}", next_us);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.CREATE.INVAL_west");
    next_us = keeper_step(&keeper, next_us);
    keeper_step(&keeper, next_us);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.INVAL_west");
    keeper_on_down(&keeper);
    ck_assert_uint_eq(keeper_step(&keeper, T0 + 1000 * S), UINT64_MAX);
    keeper_answer(NOT_FOUND, next_us);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.INVAL_west");
    fake->answer = ERR_OVERLOAD;
    keeper_on_up(&keeper, T0);
    ck_assert_uint_lt(keeper_step(&keeper, T0), T0 + 5 * S);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus/publisher");
    TCase *tc = tcase_create("publisher");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, one_goes_at_once);
    tcase_add_test(tc, rules_go_under_a_subject_of_their_own);
    tcase_add_test(tc, piles_up_behind_the_window);
    tcase_add_test(tc, large_batches_are_cut);
    tcase_add_test(tc, overload_and_not_connected_fail_at_once);
    tcase_add_test(tc, invalid_events_do_not_spoil_others);
    tcase_add_test(tc, silence_is_retried_and_times_out);
    tcase_add_test(tc, waiting_ones_time_out_too);
    tcase_add_test(tc, nobody_there_is_retried_with_back_off);
    tcase_add_test(tc, refusals_end_it);
    tcase_add_test(tc, a_full_link_is_retried);
    tcase_add_test(tc, disconnected_and_back);
    tcase_add_test(tc, stopping_ends_all);
    suite_add_tcase(suite, tc);
    TCase *spooled = tcase_create("spool");
    tcase_add_checked_fixture(spooled, spool_setup, spool_teardown);
    tcase_add_test(spooled, what_can_not_be_published_is_spooled);
    tcase_add_test(spooled, a_message_is_spooled_as_a_whole);
    tcase_add_test(spooled, the_end_spools_what_is_under_way);
    tcase_add_test(spooled, a_reservation_is_cleared_when_the_stream_has_it);
    suite_add_tcase(suite, spooled);
    TCase *stream = tcase_create("keeper");
    tcase_add_checked_fixture(stream, keeper_setup, teardown);
    tcase_add_test(stream, creates_the_stream);
    tcase_add_test(stream, updates_other_settings);
    tcase_add_test(stream, keeper_leaves_a_stream_alone_that_is_being_made);
    tcase_add_test(stream, keeper_tries_again);
    suite_add_tcase(suite, stream);
    return check_main(suite);
}
