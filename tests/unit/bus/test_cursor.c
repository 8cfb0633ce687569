#include "proxy/bus/cursor.h"

#include "proxy/metric.h"
#include "proxy/protocol/base64.h"
#include "tests/unit/bus/fake_transport.h"
#include "tests/unit/check_main.h"

#define T0 (1000 * S)
#define THERE "{\"created\":\"2026-11-24T11:00:00Z\",\"config\":{},\"state\":{\"first_seq\":1,\"last_seq\":1}}"
#define MAKING "{\"created\":\"0001-01-01T00:00:00Z\",\"config\":{},\"state\":{\"first_seq\":0,\"last_seq\":0}}"
#define NO_STREAM "{\"error\":{\"code\":404,\"err_code\":10059,\"description\":\"stream not found\"}}"
#define NO_CONSUMER "{\"error\":{\"code\":404,\"err_code\":10014,\"description\":\"consumer not found\"}}"
#define NO_MESSAGE "{\"error\":{\"code\":404,\"err_code\":10037,\"description\":\"no message found\"}}"
#define WRONG_LAST "{\"error\":{\"code\":400,\"err_code\":10071,\"description\":\"wrong last sequence: 9\"}}"
#define CREATED "2026-11-24T12:00:00.123456789Z"
#define ANEW "2026-11-24T13:00:00.5Z"
#define SEEN "2026-11-24T12:30:00.1Z"

static struct fake *own;
static struct fake *peer;
static struct metric_registry *registry;
static struct metrics *metrics;
static struct mailbox box; /* the bus's */
static struct durable durable;
static struct cursor cursor;
static struct delivery *applied;
static uint32_t applied_count;

static void apply(void *ctx, struct delivery *delivery)
{
    applied = delivery;
    applied_count++;
}

static void setup(void)
{
    static const char *const commands[] = {"get"};
    own = fake_create();
    peer = fake_create();
    registry = metric_registry_create(&fake_config, commands, 1);
    metrics = metric_registry_metrics(registry);
    struct metrics_shard *shard = metrics_shard_create(metrics);
    ck_assert_int_eq(mailbox_init(&box), OK);
    applied_count = 0;
    durable_init(&durable, &fake_config, &peer->transport, NULL, shard, 0, 1);
    struct cursor_context context = {
        .config = &fake_config,
        .own = &own->transport,
        .peer_transport = &peer->transport,
        .metrics = shard,
        .mailbox = &box,
        .sink = {.apply = apply},
        .durable = &durable,
        .seed = 1,
    };
    cursor_init(&cursor, &context, 0);
}

static void teardown(void)
{
    mailbox_deinit(&box);
    metric_registry_destroy(&registry);
    fake_destroy(own);
    fake_destroy(peer);
}

static void from_own(const char *text)
{
    struct incoming m = fake_answer(text);
    cursor_on_own_answer(&cursor, fake_number(fake_last(own)), &m, T0);
}

static void from_peer(const char *text)
{
    struct incoming m = fake_answer(text);
    cursor_on_peer_answer(&cursor, fake_number(fake_last(peer)), &m, T0);
}

static void found(void)
{
    ck_assert_str_eq(fake_last(own)->subject, "$JS.API.STREAM.INFO.KV_CURSOR_west");
    from_own(THERE);
    ck_assert_str_eq(fake_last(own)->subject, "$JS.API.STREAM.MSG.GET.KV_CURSOR_west");
}

static void up(void)
{
    cursor_on_peer_link(&cursor, true, T0);
    ck_assert_uint_eq(own->count, 0);
    cursor_on_own_link(&cursor, true, T0);
    found();
    ck_assert_str_eq(fake_last(own)->data, "{\"last_by_subj\":\"$KV.CURSOR_west.east\"}");
    ck_assert_ptr_nonnull(cursor_problem(&cursor));
}

static void loaded(const char *mark, uint32_t revision)
{
    char digits[400];
    char text[600];
    *base64_put(digits, span_str(mark)) = '\0';
    snprintf(text, sizeof text, "{\"message\":{\"subject\":\"$KV.CURSOR_west.east\",\"seq\":%u,\"data\":\"%s\"}}", revision, digits);
    from_own(text);
    ck_assert_str_eq(fake_last(peer)->subject, "$JS.API.CONSUMER.INFO.INVAL_east.to_west");
}

static void consumer_is(uint32_t floor, uint32_t start)
{
    char text[200];
    snprintf(text, sizeof text, "{\"config\":{\"opt_start_seq\":%u},\"ack_floor\":{\"stream_seq\":%u}}", start, floor);
    from_peer(text);
    ck_assert_str_eq(fake_last(peer)->subject, "$JS.API.STREAM.INFO.INVAL_east");
}

static void stream_is(const char *created, uint32_t first, uint32_t last)
{
    char text[200];
    snprintf(text, sizeof text, "{\"config\":{},\"created\":\"%s\",\"state\":{\"first_seq\":%u,\"last_seq\":%u}}", created, first, last);
    from_peer(text);
}

static void message_is(uint32_t seq, const char *time)
{
    char text[200];
    snprintf(text, sizeof text, "{\"seq\":%u}", seq);
    ck_assert_str_eq(fake_last(peer)->subject, "$JS.API.STREAM.MSG.GET.INVAL_east");
    ck_assert_str_eq(fake_last(peer)->data, text);
    snprintf(text, sizeof text, "{\"message\":{\"seq\":%u,\"time\":\"%s\"}}", seq, time);
    from_peer(text);
}

static void saves(const char *mark)
{
    ck_assert_int_eq(cursor.state, CURSOR_SAVING);
    ck_assert_str_eq(fake_last(own)->subject, "$KV.CURSOR_west.east");
    ck_assert_str_eq(fake_last(own)->data, mark);
    from_own("{\"stream\":\"KV_CURSOR_west\",\"seq\":77}");
    ck_assert_int_eq(cursor.state, CURSOR_RESTING);
    ck_assert_ptr_null(cursor_problem(&cursor));
    ck_assert_uint_eq(cursor.revision, 77);
}

static void rule(enum err err)
{
    delivery_done(applied, err);
    mailbox_drain(&box, NULL);
}

static uint64_t gaps(void)
{
    return metrics_sum(metrics, METRIC_BUS_GAPS, 1);
}

#define MARK(created, seq, time) "{\"created\":\"" created "\",\"seq\":" seq ",\"time\":\"" time "\"}"

START_TEST(the_mark_follows_the_floor)
{
    up();
    loaded(MARK(CREATED, "100", SEEN), 9);
    consumer_is(150, 0);
    stream_is(CREATED, 90, 200);
    message_is(100, SEEN);
    message_is(150, ANEW);
    ck_assert_uint_eq(cursor.next.seq, 150);
    saves(MARK(CREATED, "150", ANEW));
    ck_assert_uint_eq(durable.start_seq, 151);
    ck_assert_uint_eq(cursor_step(&cursor, T0 + 1), T0 + CURSOR_CHECK_US);
    cursor_step(&cursor, T0 + CURSOR_CHECK_US);
    loaded(MARK(CREATED, "150", ANEW), 77);
    consumer_is(150, 0);
    uint32_t sent = peer->count;
    stream_is(CREATED, 151, 200); /* it may drop what has been applied */
    ck_assert_uint_eq(peer->count, sent);
    ck_assert_int_eq(cursor.state, CURSOR_RESTING);
    ck_assert_uint_eq(applied_count, 0);
    ck_assert_uint_eq(gaps(), 0);
}
END_TEST

START_TEST(a_gap_is_covered_before_the_mark_moves)
{
    up();
    loaded(MARK(CREATED, "100", SEEN), 9);
    consumer_is(100, 0);
    uint32_t sent = own->count;
    stream_is(CREATED, 102, 200);
    ck_assert_int_eq(cursor.state, CURSOR_APPLYING);
    ck_assert_uint_eq(applied_count, 1);
    ck_assert(applied->event.is_pattern && applied->event.key_len == 1 && applied->event.key[0] == '*' && applied->event.version == 0);
    ck_assert_ptr_nonnull(cursor_problem(&cursor));
    rule(ERR_UNAVAILABLE);
    ck_assert_uint_eq(own->count, sent); /* the mark stays */
    ck_assert_ptr_nonnull(strstr(cursor_problem(&cursor), "the rule * could not be applied"));
    uint64_t due_us = cursor.due_us;
    cursor_step(&cursor, due_us);
    loaded(MARK(CREATED, "100", SEEN), 9);
    consumer_is(100, 0);
    stream_is(CREATED, 103, 200);
    ck_assert_uint_eq(applied_count, 2);
    rule(OK);
    saves(MARK(CREATED, "102", ""));
    ck_assert_uint_eq(gaps(), 1);
}
END_TEST

START_TEST(other_gaps)
{
    static const struct {
        const char *mark;
        const char *created;
        uint32_t first, last;
    } cases[] = {
        {MARK(CREATED, "100", SEEN), ANEW, 1, 300},   /* made anew */
        {MARK(CREATED, "100", SEEN), CREATED, 1, 99}, /* went back */
        {MARK(CREATED, "100", SEEN), CREATED, 501, 500}, /* aged out */
        {"not JSON", CREATED, 1, 300},
        {"{\"created\":\"" CREATED "\",\"seq\":-1}", CREATED, 1, 300},
        {"{\"created\":\"\\\"injected\",\"seq\":1}", CREATED, 1, 300},
        {"{\"created\":7,\"seq\":1}", CREATED, 1, 300},
    };
    up();
    for (uint32_t i = 0; i < ARRAY_LEN(cases); i++) {
        loaded(cases[i].mark, 9);
        from_peer(NO_CONSUMER);
        stream_is(cases[i].created, cases[i].first, cases[i].last);
        ck_assert_uint_eq(applied_count, i + 1);
        rule(OK);
        ck_assert_uint_eq(cursor.next.seq, cases[i].first - 1);
        from_own("{\"stream\":\"KV_CURSOR_west\",\"seq\":77}");
        cursor_check(&cursor, T0);
    }
    ck_assert_uint_eq(gaps(), ARRAY_LEN(cases));
}
END_TEST

START_TEST(a_region_that_knows_nothing)
{
    cursor_on_peer_link(&cursor, true, T0);
    cursor_on_own_link(&cursor, true, T0);
    from_own(NO_STREAM);
    ck_assert_str_eq(fake_last(own)->subject, "$JS.API.STREAM.CREATE.KV_CURSOR_west");
    from_own(THERE);
    ck_assert_str_eq(fake_last(own)->subject, "$JS.API.STREAM.MSG.GET.KV_CURSOR_west");
    from_own(NO_MESSAGE);
    consumer_is(40, 0);
    stream_is(CREATED, 1, 50);
    ck_assert_uint_eq(applied_count, 1);
    rule(OK);
    ck_assert_uint_eq(cursor.revision, 0);
    saves(MARK(CREATED, "40", "")); /* what it had been told by then is covered */
}
END_TEST

/* Nothing but whether it is there is asked of a stream that another sidecar is just making: the rest would end the server. */
START_TEST(a_bucket_that_is_being_made)
{
    static const char *const answers[] = {MAKING, "{\"error\":{\"code\":400,\"err_code\":10058,\"description\":\"stream name already in use\"}}"};
    cursor_on_peer_link(&cursor, true, T0);
    cursor_on_own_link(&cursor, true, T0);
    for (uint32_t i = 0; i < ARRAY_LEN(answers); i++) {
        ck_assert_str_eq(fake_last(own)->subject, "$JS.API.STREAM.INFO.KV_CURSOR_west");
        from_own(NO_STREAM);
        ck_assert_str_eq(fake_last(own)->subject, "$JS.API.STREAM.CREATE.KV_CURSOR_west");
        uint32_t sent = own->count;
        from_own(answers[i]); /* another was faster */
        ck_assert_uint_eq(own->count, sent);
        ck_assert_int_eq(cursor.state, CURSOR_RESTING);
        cursor_step(&cursor, cursor.due_us);
        ck_assert_str_eq(fake_last(own)->subject, "$JS.API.STREAM.INFO.KV_CURSOR_west");
        sent = own->count;
        from_own(MAKING);
        ck_assert_uint_eq(own->count, sent);
        cursor_step(&cursor, cursor.due_us);
    }
    found();
    loaded(MARK(CREATED, "100", SEEN), 9);
    from_own(NO_STREAM); /* late */
    from_peer(NO_CONSUMER);
    stream_is("0001-01-01T00:00:00Z", 0, 0); /* the peer's is being made */
    ck_assert_int_eq(cursor.state, CURSOR_RESTING);
    ck_assert_uint_eq(applied_count, 0);
    cursor_step(&cursor, cursor.due_us);
    ck_assert_str_eq(fake_last(own)->subject, "$JS.API.STREAM.MSG.GET.KV_CURSOR_west"); /* found once is enough */
    from_own(NO_STREAM); /* lost, and somebody may be making it */
    ck_assert_str_eq(fake_last(own)->subject, "$JS.API.STREAM.INFO.KV_CURSOR_west");
    cursor_on_own_link(&cursor, false, T0);
    cursor_on_own_link(&cursor, true, T0);
    found();
    cursor_on_own_link(&cursor, false, T0);
    cursor_on_own_link(&cursor, true, T0); /* another server, perhaps */
    found();
}
END_TEST

START_TEST(a_consumer_that_is_ahead_is_made_anew)
{
    durable_on_up(&durable, T0);
    up();
    loaded(MARK(CREATED, "100", SEEN), 9);
    consumer_is(120, 111);
    stream_is(CREATED, 50, 200);
    message_is(100, SEEN);
    ck_assert_str_eq(fake_last(peer)->subject, "$JS.API.CONSUMER.DELETE.INVAL_east.to_west");
    ck_assert_uint_eq(durable.start_seq, 101);
    ck_assert_uint_eq(applied_count, 0); /* nothing is lost */
    durable_on_answer(&durable, fake_number(fake_last(peer)), &(struct incoming){.description = "", .data = SPAN_LIT("{}")}, T0);
    struct incoming missing = fake_answer(NO_CONSUMER);
    durable_on_answer(&durable, fake_number(fake_last(peer)), &missing, T0);
    ck_assert_ptr_nonnull(strstr(fake_last(peer)->data, "\"deliver_policy\":\"by_start_sequence\""));
    ck_assert_ptr_nonnull(strstr(fake_last(peer)->data, "\"opt_start_seq\":101"));
}
END_TEST

static void to_durable(const char *text)
{
    struct incoming m = fake_answer(text);
    durable_on_answer(&durable, fake_number(fake_last(peer)), &m, T0);
}

/* Who waits for where to begin asks the cursor all the time: that must end with the question. */
START_TEST(another_sidecar_makes_the_consumer_meanwhile)
{
    char text[1200];
    durable.has_cursor = true;
    durable_on_up(&durable, T0);
    to_durable(NO_CONSUMER);
    ck_assert(durable.wants_start);
    durable_remake(&durable, T0);
    ck_assert_str_eq(fake_last(peer)->subject, "$JS.API.CONSUMER.DELETE.INVAL_east.to_west");
    ck_assert(!durable.wants_start);
    to_durable("{}");
    ck_assert_str_eq(fake_last(peer)->subject, "$JS.API.CONSUMER.INFO.INVAL_east.to_west");
    char *body = jetstream_consumer_body(durable.stream, "west", durable.ack_wait_ms, 0);
    ck_assert_int_lt(snprintf(text, sizeof text, "%s", body), (int)sizeof text);
    free(body);
    to_durable(text); /* it is there, as it should be: {"stream_name": …, "config": …} */
    ck_assert_int_eq(durable.state, DURABLE_READY);
    ck_assert(!durable.wants_start);
}
END_TEST

/* Of a stream with replicas that has no leader, any of them answers, with what it knows itself. */
START_TEST(a_replica_without_a_leader_knows_nothing)
{
    up();
    loaded(MARK(CREATED, "10", SEEN), 3);
    consumer_is(10, 0);
    uint32_t sent = peer->count;
    from_peer("{\"config\":{},\"created\":\"" CREATED "\",\"state\":{\"first_seq\":1,\"last_seq\":8},\"cluster\":{\"name\":\"c\",\"replicas\":[]}}");
    ck_assert_uint_eq(applied_count, 0);
    ck_assert_uint_eq(peer->count, sent); /* no DELETE, no question about a message */
    ck_assert_int_eq(cursor.state, CURSOR_RESTING);
    ck_assert_str_eq(cursor_problem(&cursor), "its stream has no leader");
    ck_assert_uint_eq(metrics_sum(metrics, METRIC_BUS_GAPS, 1), 0);
    cursor_step(&cursor, cursor.due_us);
    loaded(MARK(CREATED, "10", SEEN), 3);
    from_peer("{\"stream_name\":\"INVAL_east\",\"name\":\"to_west\",\"config\":{},\"ack_floor\":{\"stream_seq\":3},\"cluster\":{\"name\":\"c\"}}");
    ck_assert_int_eq(cursor.state, CURSOR_RESTING);
    ck_assert_str_eq(cursor_problem(&cursor), "its consumer has no leader");
    cursor_step(&cursor, cursor.due_us);
    loaded(MARK(CREATED, "10", SEEN), 3);
    consumer_is(10, 0);
    from_peer("{\"config\":{},\"created\":\"" CREATED "\",\"state\":{\"first_seq\":1,\"last_seq\":10},\"cluster\":{\"name\":\"c\",\"leader\":\"a\"}}");
    message_is(10, SEEN);
    ck_assert_ptr_null(cursor_problem(&cursor));
    ck_assert_uint_eq(applied_count, 0);
}
END_TEST

START_TEST(a_stream_that_went_back_and_grew_again)
{
    durable_on_up(&durable, T0);
    up();
    loaded(MARK(CREATED, "100", SEEN), 9);
    consumer_is(100, 0);
    stream_is(CREATED, 50, 200);
    message_is(100, ANEW);
    ck_assert_uint_eq(applied_count, 1);
    rule(OK);
    ck_assert_str_eq(fake_last(peer)->subject, "$JS.API.CONSUMER.DELETE.INVAL_east.to_west");
    saves(MARK(CREATED, "49", ""));
}
END_TEST

START_TEST(another_sidecar_was_faster)
{
    up();
    loaded(MARK(CREATED, "100", ""), 9);
    consumer_is(150, 0);
    stream_is(CREATED, 90, 200);
    message_is(150, SEEN);
    from_own(WRONG_LAST);
    ck_assert_int_eq(cursor.state, CURSOR_RESTING);
    ck_assert_uint_lt(cursor.due_us, T0 + S);
    cursor_step(&cursor, cursor.due_us);
    loaded(MARK(CREATED, "160", SEEN), 10);
    consumer_is(150, 0);
    stream_is(CREATED, 90, 200);
    message_is(160, SEEN);
    ck_assert_ptr_null(cursor_problem(&cursor));
    ck_assert_uint_eq(applied_count, 0);
}
END_TEST

START_TEST(links_go_down)
{
    up();
    loaded(MARK(CREATED, "100", SEEN), 9);
    consumer_is(100, 0);
    stream_is(ANEW, 1, 1);
    ck_assert_uint_eq(applied_count, 1);
    cursor_on_own_link(&cursor, false, T0);
    ck_assert_uint_eq(cursor_step(&cursor, T0 + 1000 * S), UINT64_MAX);
    ck_assert_ptr_null(cursor_problem(&cursor)); /* the region's own line says what is the matter */
    cursor_on_own_link(&cursor, true, T0);
    found();
    loaded(MARK(CREATED, "100", SEEN), 9);
    consumer_is(100, 0);
    stream_is(ANEW, 1, 1);
    ck_assert_uint_eq(applied_count, 1); /* the first is still under way */
    uint32_t sent = own->count;
    rule(OK);
    ck_assert_uint_eq(own->count, sent); /* it was for what was seen then */
    cursor_step(&cursor, cursor.due_us);
    loaded(MARK(CREATED, "100", SEEN), 9);
    consumer_is(100, 0);
    stream_is(ANEW, 1, 1);
    ck_assert_uint_eq(applied_count, 2);
    cursor_on_peer_link(&cursor, false, T0);
    rule(OK);
    ck_assert_int_eq(cursor.state, CURSOR_DOWN);
}
END_TEST

START_TEST(no_stream_and_silence)
{
    up();
    loaded(MARK(CREATED, "100", SEEN), 9);
    from_peer(NO_STREAM);
    ck_assert_ptr_null(cursor_problem(&cursor)); /* nothing to miss yet */
    cursor_check(&cursor, T0);
    loaded(MARK(CREATED, "100", SEEN), 9);
    cursor_step(&cursor, T0 + 5 * S);
    ck_assert_str_eq(cursor_problem(&cursor) != NULL ? cursor_problem(&cursor) : cursor.problem, "its NATS does not answer to CONSUMER.INFO");
    uint64_t late = fake_number(fake_last(peer));
    struct incoming m = fake_answer(NO_CONSUMER);
    cursor_on_peer_answer(&cursor, late, &m, T0 + 5 * S);
    ck_assert_int_eq(cursor.state, CURSOR_RESTING);
    cursor_step(&cursor, cursor.due_us);
    struct incoming nobody = fake_status(503, "");
    cursor_on_own_answer(&cursor, fake_number(fake_last(own)), &nobody, T0 + 5 * S);
    ck_assert_ptr_nonnull(strstr(cursor.problem, "JetStream is not running"));
    own->answer = ERR_OVERLOAD;
    cursor_step(&cursor, cursor.due_us);
    ck_assert_int_eq(cursor.state, CURSOR_RESTING);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus/cursor");
    TCase *tc = tcase_create("cursor");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_mark_follows_the_floor);
    tcase_add_test(tc, a_gap_is_covered_before_the_mark_moves);
    tcase_add_test(tc, other_gaps);
    tcase_add_test(tc, a_region_that_knows_nothing);
    tcase_add_test(tc, a_bucket_that_is_being_made);
    tcase_add_test(tc, a_consumer_that_is_ahead_is_made_anew);
    tcase_add_test(tc, another_sidecar_makes_the_consumer_meanwhile);
    tcase_add_test(tc, a_replica_without_a_leader_knows_nothing);
    tcase_add_test(tc, a_stream_that_went_back_and_grew_again);
    tcase_add_test(tc, another_sidecar_was_faster);
    tcase_add_test(tc, links_go_down);
    tcase_add_test(tc, no_stream_and_silence);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
