#include "proxy/bus/consumer.h"
#include "proxy/bus/jetstream.h"

#include "proxy/bus/spool_record.h"
#include "tests/unit/bus/fake_transport.h"
#include "tests/unit/check_main.h"

#define T0 (100 * S)
#define WALL 1795464000000ULL
#define REPLY "$JS.ACK.INVAL_east.to_west.1.7.7.1795464000000000000.0"
#define CREATED "{\"type\":\"io.nats.jetstream.api.v1.consumer_create_response\",\"name\":\"to_west\"}"
#define NO_CONSUMER "{\"error\":{\"code\":404,\"err_code\":10014,\"description\":\"consumer not found\"}}"
#define THERE                                                                                                                              \
    "{\"config\":{\"durable_name\":\"to_west\",\"deliver_policy\":\"all\",\"ack_policy\":\"explicit\",\"ack_wait\":10000000000,\"max_deliver\":-1,"    \
    "\"max_ack_pending\":20000,\"replay_policy\":\"instant\",\"num_replicas\":0}}"
#define INFO "$JS.API.CONSUMER.INFO.INVAL_east.to_west"
#define CREATE "$JS.API.CONSUMER.DURABLE.CREATE.INVAL_east.to_west"
#define NO_STREAM "{\"error\":{\"code\":404,\"err_code\":10059,\"description\":\"stream not found\"}}"
#define RAW(events) "{\"format\":1,\"region\":\"east\",\"events\":[" events "]}"

static struct fake *fake;
static struct metric_registry *registry;
static struct metrics *metrics;
static struct mailbox box; /* the bus's */
static struct consumer consumer;
static struct delivery *deliveries[FAKE_MAX];
static uint32_t delivered;

static void apply(void *ctx, struct delivery *delivery)
{
    ck_assert_ptr_eq(ctx, &consumer);
    deliveries[delivered++] = delivery;
}

static void setup(void)
{
    static const char *const commands[] = {"get"};
    fake = fake_create();
    registry = metric_registry_create(&fake_config, commands, 1);
    metrics = metric_registry_metrics(registry);
    ck_assert_int_eq(mailbox_init(&box), OK);
    delivered = 0;
    struct consumer_context context = {
        .config = &fake_config,
        .transport = &fake->transport,
        .metrics = metrics_shard_create(metrics),
        .mailbox = &box,
        .sink = {.apply = apply, .ctx = &consumer},
        .seed = 1,
    };
    consumer_init(&consumer, &context, 0);
}

static void teardown(void)
{
    consumer_deinit(&consumer);
    mailbox_deinit(&box);
    metric_registry_destroy(&registry);
    fake_destroy(fake);
}

static void answer(const char *text, uint64_t now_us)
{
    struct incoming m = fake_answer(text);
    consumer_on_answer(&consumer, fake_number(fake_last(fake)), &m, now_us);
}

static void status(const struct sent *request, struct incoming m, uint64_t now_us)
{
    consumer_on_status(&consumer, fake_number(request), &m, now_us);
}

static void message(const char *subject, const char *reply, const char *data, uint64_t now_us)
{
    struct incoming m = {.subject = subject, .reply = reply, .description = "", .data = span_str(data)};
    consumer_on_message(&consumer, &m, now_us);
}

static void start(uint64_t now_us)
{
    consumer_on_up(&consumer, now_us);
    answer(THERE, now_us);
    consumer_step(&consumer, now_us);
}

static void done(struct delivery *delivery, enum err err, uint64_t wall_ms)
{
    delivery->err = err;
    consumer_on_done(delivery, wall_ms);
}

static uint64_t counted(enum metric metric)
{
    return metrics_sum(metrics, metric, 1);
}

START_TEST(creates_and_pulls)
{
    ck_assert_uint_eq(consumer_step(&consumer, T0), UINT64_MAX);
    consumer_on_up(&consumer, T0);
    ck_assert_str_eq(fake_last(fake)->subject, INFO);
    answer(NO_CONSUMER, T0);
    ck_assert_str_eq(fake_last(fake)->subject, CREATE);
    ck_assert_str_eq(
        fake_last(fake)->data,
        "{\"stream_name\":\"INVAL_east\",\"config\":{\"durable_name\":\"to_west\",\"deliver_policy\":\"all\",\"ack_policy\":"
        "\"explicit\",\"ack_wait\":10000000000,\"max_deliver\":-1,\"max_ack_pending\":20000,\"replay_policy\":\"instant\"}}");
    ck_assert_ptr_nonnull(consumer_problem(&consumer));
    answer(CREATED, T0);
    ck_assert_ptr_null(consumer_problem(&consumer));
    consumer_step(&consumer, T0);
    ck_assert_uint_eq(fake->count, 4); /* two are outstanding */
    ck_assert_str_eq(fake->sent[2].subject, "$JS.API.CONSUMER.MSG.NEXT.INVAL_east.to_west");
    ck_assert_str_eq(fake->sent[2].data,
                     "{\"batch\":256,\"max_bytes\":4194304,\"expires\":5000000000,\"idle_heartbeat\":1250000000}");
    ck_assert_str_ne(fake->sent[2].reply, fake->sent[3].reply);
    consumer_step(&consumer, T0 + S);
    ck_assert_uint_eq(fake->count, 4);
    struct consumer_context context = {.config = &fake_config, .transport = &fake->transport};
    struct consumer south;
    consumer_init(&south, &context, 1);
    consumer_on_up(&south, T0);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.south.API.CONSUMER.INFO.INVAL_south.to_west");
}
END_TEST

START_TEST(acknowledges_when_all_is_applied)
{
    start(T0);
    uint32_t sent = fake->count;
    message("outrigger.inval.east.key", REPLY,
            RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1795464000000},{\"key64\":\"//"
                "4=\",\"version\":\"6\",\"timestamp\":1}"),
            T0);
    ck_assert_uint_eq(delivered, 2);
    ck_assert_uint_eq(deliveries[0]->event.version, 5);
    ck_assert_mem_eq(deliveries[0]->event.key, "a", 1);
    ck_assert_uint_eq(deliveries[1]->event.key_len, 2);
    ck_assert_uint_eq(deliveries[1]->peer, 0);
    ck_assert_uint_eq(counted(METRIC_BUS_RECEIVED), 2);
    done(deliveries[1], OK, WALL);
    ck_assert_uint_eq(fake->count, sent);
    done(deliveries[0], OK, WALL + 40);
    ck_assert_uint_eq(fake->count, sent + 1);
    ck_assert_str_eq(fake_last(fake)->subject, REPLY);
    ck_assert_str_eq(fake_last(fake)->data, "+ACK");
    ck_assert_uint_eq(counted(METRIC_BUS_APPLIED), 2);
    ck_assert_uint_eq(consumer.under_way, 0);
}
END_TEST

static struct publication *owed[4];
static uint32_t owed_count;

static void take_owed(void *ctx, struct publication *publication)
{
    owed[owed_count++] = publication;
}

static void kept(struct publication *publication, enum err err)
{
    publication->err = err;
    publication->on_done(publication);
}

/* A message with three events, of which the second and third can not be applied; delivered so often. */
static void fail_two(uint32_t times)
{
    char reply[100];
    snprintf(reply, sizeof reply, "$JS.ACK.INVAL_east.to_west.%u.7.7.1795464000000000000.0", times);
    delivered = owed_count = 0;
    message("outrigger.inval.east.key", reply,
            RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1},{\"key\":\"b\",\"version\":\"6\",\"timestamp\":1},{\"key\":\"c\",\"version\":"
                "\"7\",\"timestamp\":1}"),
            T0);
    done(deliveries[1], ERR_UNAVAILABLE, WALL);
    done(deliveries[0], OK, WALL);
    done(deliveries[2], ERR_TIMEOUT, WALL);
}

START_TEST(what_can_not_be_applied_goes_to_the_spool)
{
    static const struct publisher_spool spool = {.take = take_owed};
    consumer.spool = &spool;
    start(T0);
    fail_two(OWE_AFTER - 1);
    ck_assert_uint_eq(owed_count, 0);
    ck_assert_int_eq(strncmp(fake_last(fake)->data, "-NAK", 4), 0);
    uint32_t sent = fake->count;
    fail_two(OWE_AFTER);
    ck_assert_uint_eq(owed_count, 2);
    ck_assert_uint_eq(owed[0]->event.version, 6);
    ck_assert_uint_eq(owed[1]->event.version, 7);
    ck_assert_uint_eq(owed[0]->kind, SPOOL_OWED);
    ck_assert_uint_eq(owed[0]->debts, DEBT_NODE);
    kept(owed[1], OK);
    ck_assert_uint_eq(fake->count, sent); /* not before all of it is on the disk */
    kept(owed[0], OK);
    ck_assert_str_eq(fake_last(fake)->data, "+ACK");
    fail_two(OWE_AFTER + 1);
    kept(owed[0], ERR_SPOOL);
    kept(owed[1], OK);
    ck_assert_int_eq(strncmp(fake_last(fake)->data, "-NAK", 4), 0);
    ck_assert(list_is_empty(&consumer.messages));
}
END_TEST

START_TEST(delivery_done_comes_by_mail)
{
    start(T0);
    message("outrigger.inval.east.key", REPLY, RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1}"), T0);
    delivery_done(deliveries[0], OK);
    ck_assert_uint_eq(consumer.under_way, 1);
    ck_assert_uint_eq(mailbox_drain(&box, NULL), 1);
    ck_assert_str_eq(fake_last(fake)->data, "+ACK");
}
END_TEST

START_TEST(gives_back_what_failed)
{
    static const struct {
        const char *reply;
        const char *verdict;
    } cases[] = {
        {REPLY, "-NAK {\"delay\": 250000000}"},
        {"$JS.ACK.INVAL_east.to_west.3.7.7.1795464000000000000.0", "-NAK {\"delay\": 1000000000}"},
        {"$JS.ACK.INVAL_east.to_west.4000000000.7.7.1795464000000000000.0", "-NAK {\"delay\": 30000000000}"},
        {"$JS.ACK.hub.ACCHASH.INVAL_east.to_west.2.7.7.1795464000000000000.0.token", "-NAK {\"delay\": 500000000}"},
    };
    start(T0);
    for (uint32_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint32_t first = delivered;
        message("outrigger.inval.east.key", cases[i].reply,
                RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1},{\"key\":\"b\",\"version\":\"6\",\"timestamp\":1}"), T0);
        done(deliveries[first], ERR_TIMEOUT, WALL);
        done(deliveries[first + 1], OK, WALL);
        ck_assert_str_eq(fake_last(fake)->subject, cases[i].reply);
        ck_assert_str_eq(fake_last(fake)->data, cases[i].verdict);
    }
    ck_assert_uint_eq(counted(METRIC_BUS_FAILED), ARRAY_LEN(cases));
    ck_assert_uint_eq(counted(METRIC_BUS_APPLIED), ARRAY_LEN(cases));
}
END_TEST

START_TEST(malformed_is_terminated)
{
    static const char *const bad[] = {
        "",
        "x",
        "{}",
        "{\"format\":1,\"region\":\"south\",\"events\":[{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1}]}",
        RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1},{\"key\":\"\",\"version\":\"5\",\"timestamp\":1}"),
    };
    start(T0);
    for (uint32_t i = 0; i < ARRAY_LEN(bad); i++) {
        message("outrigger.inval.east.key", REPLY, bad[i], T0);
        ck_assert_str_eq(fake_last(fake)->subject, REPLY);
        ck_assert_str_eq(fake_last(fake)->data, "+TERM");
        ck_assert_uint_eq(counted(METRIC_BUS_MALFORMED), i + 1);
    }
    ck_assert_uint_eq(delivered, 0);
}
END_TEST

START_TEST(newer_is_kept_for_later)
{
    start(T0);
    message("outrigger.inval.east.key", REPLY, "{\"format\":2}", T0);
    ck_assert_str_eq(fake_last(fake)->data, "-NAK {\"delay\": 60000000000}");
    message("outrigger.inval.east.rule", REPLY, "{\"format\":3}", T0);
    ck_assert_str_eq(fake_last(fake)->data, "-NAK {\"delay\": 60000000000}");
    ck_assert_uint_eq(metrics_sum(metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_UNSUPPORTED)), 2);
    ck_assert_uint_eq(delivered, 0);
}
END_TEST

START_TEST(too_many_of_a_newer_format_are_covered_by_a_rule)
{
    start(T0);
    fake_clear(fake);
    for (uint32_t i = 0; i < UNSUPPORTED_HELD_MAX + 3; i++) {
        message("outrigger.inval.east.key", REPLY, "{\"format\":2}", T0);
    }
    ck_assert_uint_eq(fake->count, UNSUPPORTED_HELD_MAX);
    consumer_step(&consumer, T0);
    ck_assert_uint_eq(delivered, 1); /* one for all */
    ck_assert(deliveries[0]->event.is_pattern && deliveries[0]->event.version == 0 && deliveries[0]->event.key[0] == '*');
    message("outrigger.inval.east.key", REPLY, "{\"format\":2}", T0); /* behind it */
    consumer_step(&consumer, T0);
    ck_assert_uint_eq(delivered, 1);
    fake_clear(fake);
    delivery_done(deliveries[0], OK);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(fake->count, 3);
    ck_assert_str_eq(fake->sent[2].data, "+ACK");
    ck_assert_uint_eq(counted(METRIC_BUS_GAPS), 1);
    consumer_step(&consumer, consumer.unsupported.due_us);
    ck_assert_uint_eq(delivered, 2);
    fake_clear(fake);
    delivery_done(deliveries[1], ERR_UNAVAILABLE);
    mailbox_drain(&box, NULL);
    ck_assert_str_eq(fake->sent[0].data, "-NAK {\"delay\": 1000000000}"); /* not lost */
    message("outrigger.inval.east.key", REPLY, "{\"format\":2}", T0 + 61 * S); /* a window later there is room again */
    ck_assert_str_eq(fake_last(fake)->data, "-NAK {\"delay\": 60000000000}");
    ck_assert_uint_eq(consumer.unsupported.count, 0);
}
END_TEST

START_TEST(settings_that_drop_events_are_refused)
{
    consumer_on_up(&consumer, T0);
    answer("{\"config\":{\"deliver_policy\":\"by_start_sequence\",\"opt_start_seq\":7,\"ack_policy\":\"explicit\",\"max_deliver\":3,\"description\":\"ours\"}}",
           T0);
    ck_assert_str_eq(fake_last(fake)->subject, CREATE);
    ck_assert_ptr_nonnull(strstr(fake_last(fake)->data, "\"max_deliver\":-1"));
    ck_assert_ptr_nonnull(strstr(fake_last(fake)->data, "\"opt_start_seq\":7")); /* where it began can not be changed */
    ck_assert_ptr_nonnull(strstr(fake_last(fake)->data, "\"description\":\"ours\""));
    answer("{\"error\":{\"code\":500,\"err_code\":10012,\"description\":\"no\"}}", T0);
    ck_assert_ptr_nonnull(strstr(consumer_problem(&consumer), "drops events, and can not be changed (no): max_deliver is 3"));
    ck_assert_uint_eq(consumer.state, CONSUMER_WAITING);
    consumer_step(&consumer, consumer.durable.due_us);
    answer("{\"config\":{\"deliver_policy\":\"all\",\"ack_policy\":\"explicit\",\"max_deliver\":-1,\"ack_wait\":1}}", T0);
    ck_assert_str_eq(fake_last(fake)->subject, CREATE);
    answer("{\"error\":{\"code\":500,\"err_code\":10012,\"description\":\"no\"}}", T0);
    ck_assert_ptr_null(consumer_problem(&consumer)); /* only different: used as it is */
    ck_assert_uint_eq(consumer.state, CONSUMER_PULLING);
}
END_TEST

/* Of one with replicas that has no leader, any of them answers, with what it knows itself: whatever was asked, it is asked again. */
START_TEST(a_replica_without_a_leader_is_asked_again)
{
    consumer_on_up(&consumer, T0);
    for (int i = 0; i < 3; i++) {
        answer("{\"stream_name\":\"INVAL_east\",\"config\":{\"deliver_policy\":\"all\",\"ack_policy\":\"explicit\",\"max_deliver\":3},\"cluster\":{\"name\":\"c\"}}",
               T0);
        ck_assert_int_eq(consumer.durable.state, DURABLE_WAITING);
        ck_assert_str_eq(consumer_problem(&consumer), "its consumer has no leader");
        consumer_step(&consumer, consumer.durable.due_us);
        ck_assert_str_eq(fake_last(fake)->subject, INFO);
    }
    answer("{\"config\":{\"deliver_policy\":\"all\",\"ack_policy\":\"explicit\",\"max_deliver\":-1,\"ack_wait\":1}}", T0);
    ck_assert_int_eq(consumer.durable.state, DURABLE_UPDATING);
    answer("{\"stream_name\":\"INVAL_east\",\"cluster\":{\"name\":\"c\"}}", T0);
    ck_assert_int_eq(consumer.durable.state, DURABLE_WAITING); /* not used as it is */
    ck_assert_uint_eq(metrics_sum(metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_BUS)), 0);
}
END_TEST

START_TEST(strangers_are_not_answered)
{
    static const char *const replies[] = {"",
                                          "x",
                                          "$JS.ACK.",
                                          "$JS.ACK.INVAL_east.to_west.1",
                                          "$SYS.REQ.SERVER.PING",
                                          "x$JS.ACK.INVAL_east.to_west.1.7.7.1795464000000000000.0"};
    start(T0);
    uint32_t sent = fake->count;
    for (uint32_t i = 0; i < ARRAY_LEN(replies); i++) {
        message("outrigger.inval.east.key", replies[i], RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1}"), T0);
    }
    char *long_reply = xcalloc(1, 2000);
    memset(long_reply, 'x', 1999);
    memcpy(long_reply, "$JS.ACK.INVAL_east.to_west.1.7.7.1.0.", 37);
    message("outrigger.inval.east.key", long_reply, RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1}"), T0);
    free(long_reply);
    ck_assert_uint_eq(fake->count, sent);
    ck_assert_uint_eq(delivered, 0);
    ck_assert_uint_eq(counted(METRIC_BUS_MALFORMED), ARRAY_LEN(replies) + 1);
}
END_TEST

static void messages(uint32_t n, uint64_t now_us)
{
    for (uint32_t i = 0; i < n; i++) {
        message("outrigger.inval.east.key", REPLY, "x", now_us);
    }
}

START_TEST(asks_for_more_in_time)
{
    start(T0);
    fake_clear(fake);
    messages(255, T0);
    fake_clear(fake);
    consumer_step(&consumer, T0);
    ck_assert_uint_eq(fake->count, 0);
    messages(1, T0);
    fake_clear(fake);
    consumer_step(&consumer, T0); /* the second request is still being served: no gap */
    ck_assert_uint_eq(fake->count, 1);
    ck_assert_ptr_nonnull(strstr(fake_last(fake)->data, "\"batch\":512,")); /* a backlog */
    for (uint32_t i = 0; i < 100; i++) {
        messages(consumer.batch, T0);
        consumer_step(&consumer, T0);
        ck_assert_uint_le(consumer.credit, 2 * PULL_BATCH_MAX);
        ck_assert_uint_gt(consumer.credit, 0);
        fake_clear(fake);
    }
    ck_assert_uint_eq(consumer.batch, PULL_BATCH_MAX);
}
END_TEST

START_TEST(expiry_is_normal)
{
    start(T0);
    struct sent first = fake->sent[1];
    struct sent second = fake->sent[2];
    messages(10, T0 + S);
    uint32_t sent = fake->count;
    status(&first, fake_pending(408, "Request Timeout", 250), T0 + 5 * S);
    consumer_step(&consumer, T0 + 5 * S);
    ck_assert_uint_eq(fake->count, sent + 1);
    ck_assert_uint_eq(consumer.credit, 256 + 252);
    struct sent third = *fake_last(fake);
    status(&second, fake_pending(408, "Request Timeout", 252), T0 + 5 * S);
    ck_assert_uint_eq(consumer.credit, 256);
    consumer_step(&consumer, T0 + 5 * S + 100 * MS);
    ck_assert_uint_eq(fake->count, sent + 2);
    status(&third, fake_pending(404, "No Messages", 256), T0 + 6 * S);
    consumer_step(&consumer, T0 + 6 * S);
    ck_assert_uint_eq(fake->count, sent + 3);
    ck_assert_uint_eq(consumer.credit, 512);
    status(&third, fake_status(408, "without a count"), T0 + 6 * S);
    ck_assert_uint_eq(consumer.credit, 256);
    ck_assert_uint_eq(consumer.state, CONSUMER_PULLING);
}
END_TEST

START_TEST(requests_that_end_at_once_are_throttled)
{
    static const struct {
        int status;
        const char *description;
    } ends[] = {{408, "Interest Expired"},
                {404, "No Messages"},
                {409, "Message Size Exceeds MaxBytes"},
                {409, "Batch Completed"},
                {409, "Exceeded MaxWaiting"},
                {409, "Server Shutdown"},
                {400, "Bad Request"},
                {777, ""}};
    for (uint32_t i = 0; i < ARRAY_LEN(ends); i++) {
        uint64_t now_us = T0 + i * 100 * S;
        start(now_us);
        uint32_t before = fake->count;
        uint64_t until_us = now_us + 10 * S;
        while (now_us < until_us) {
            struct sent last = *fake_last(fake);
            status(&last, fake_pending(ends[i].status, ends[i].description, 256), now_us);
            uint64_t next_us = consumer_step(&consumer, now_us);
            ck_assert_uint_gt(next_us, now_us);
            now_us = next_us;
            consumer_step(&consumer, now_us);
        }
        ck_assert_msg(fake->count - before <= 220, "%d %s: %u requests in 10 s", ends[i].status, ends[i].description,
                      fake->count - before);
        fake_clear(fake);
    }
}
END_TEST

START_TEST(a_full_request_goes_on)
{
    start(T0);
    struct sent first = fake->sent[1];
    messages(100, T0 + S);
    uint32_t sent = fake->count;
    status(&first, fake_pending(409, "Message Size Exceeds MaxBytes", 200), T0 + S);
    consumer_step(&consumer, T0 + S);
    ck_assert_uint_eq(fake->count, sent + 1);
}
END_TEST

START_TEST(nobody_there_starts_over)
{
    start(T0);
    struct sent request = *fake_last(fake);
    status(&request, fake_status(503, ""), T0);
    ck_assert_ptr_nonnull(consumer_problem(&consumer));
    status(&request, fake_status(503, ""), T0);
    uint32_t sent = fake->count;
    uint64_t next_us = consumer_step(&consumer, T0);
    ck_assert_uint_ge(next_us, T0 + 100 * MS);
    ck_assert_uint_eq(fake->count, sent);
    consumer_step(&consumer, next_us);
    ck_assert_uint_eq(fake->count, sent + 1);
    ck_assert_str_eq(fake_last(fake)->subject, INFO);
    answer(THERE, next_us);
    consumer_step(&consumer, next_us);
    ck_assert_ptr_null(consumer_problem(&consumer));
    status(&request, fake_status(503, ""), next_us); /* late */
    ck_assert_uint_eq(consumer.state, CONSUMER_PULLING);
    struct sent last = *fake_last(fake);
    status(&last, fake_status(409, "Consumer Deleted"), next_us);
    ck_assert_uint_eq(consumer.state, CONSUMER_WAITING);
}
END_TEST

START_TEST(a_stream_that_is_not_there_yet)
{
    consumer_on_up(&consumer, T0);
    uint64_t now_us = T0;
    uint64_t wait_us = 0;
    for (uint32_t i = 0; i < 12; i++) {
        answer(NO_STREAM, now_us);
        ck_assert_ptr_null(consumer_problem(&consumer)); /* nothing to miss */
        uint64_t next_us = consumer_step(&consumer, now_us);
        wait_us = next_us - now_us;
        ck_assert_uint_ge(wait_us, 100 * MS);
        ck_assert_uint_le(wait_us, 15 * S);
        now_us = next_us;
        consumer_step(&consumer, now_us);
        ck_assert_uint_eq(fake->count, i + 2);
    }
    ck_assert_uint_gt(wait_us, 5 * S);
    answer("{\"error\":{\"code\":503,\"err_code\":10008,\"description\":\"temporarily unavailable\"}}", now_us);
    ck_assert_str_eq(consumer_problem(&consumer), "temporarily unavailable");
    now_us = consumer_step(&consumer, now_us);
    consumer_step(&consumer, now_us);
    uint64_t next_us = consumer_step(&consumer, now_us);
    ck_assert_uint_eq(next_us, now_us + 5 * S); /* for the answer */
    consumer_step(&consumer, next_us);
    ck_assert_ptr_nonnull(strstr(consumer_problem(&consumer), "JetStream does not answer to CONSUMER.INFO"));
}
END_TEST

START_TEST(missed_heartbeats_ask_again)
{
    start(T0);
    uint32_t sent = fake->count;
    struct sent request = *fake_last(fake);
    for (uint64_t t = T0; t < T0 + 4 * S; t += 1250 * MS) {
        status(&request, fake_status(100, "Idle Heartbeat"), t);
        consumer_step(&consumer, t);
    }
    ck_assert_uint_eq(fake->count, sent);
    uint64_t heard_us = T0 + 3750 * MS;
    ck_assert_uint_le(consumer_step(&consumer, heard_us), heard_us + 5 * S);
    consumer_step(&consumer, heard_us + 5 * S);
    ck_assert_uint_eq(fake->count, sent + 2);                                      /* asked again */
    status(&request, fake_pending(408, "Request Timeout", 256), heard_us + 5 * S); /* of before: no effect */
    ck_assert_uint_eq(consumer.credit, 512);
    consumer_step(&consumer, heard_us + 10 * S);
    ck_assert_uint_eq(fake->count, sent + 3);
    ck_assert_str_eq(fake_last(fake)->subject, INFO);
}
END_TEST

START_TEST(lost_credit_comes_back)
{
    start(T0);
    struct sent request = *fake_last(fake);
    for (uint64_t t = T0; t <= T0 + 7 * S; t += S) { /* heartbeats, but half of the messages never came */
        status(&request, fake_status(100, "Idle Heartbeat"), t);
        messages(10, t);
        fake_clear(fake);
        consumer_step(&consumer, t);
    }
    ck_assert_uint_eq(fake->count, 2);
    ck_assert_uint_eq(consumer.credit, 512);
}
END_TEST

START_TEST(a_slow_sink_holds_back)
{
    static char data[80000];
    size_t used = (size_t)snprintf(data, sizeof data, "{\"format\":1,\"region\":\"east\",\"events\":[");
    for (uint32_t i = 0; i < 1024; i++) {
        used += (size_t)snprintf(data + used, sizeof data - used, "%s{\"key\":\"%u\",\"version\":\"1\",\"timestamp\":1}",
                                 i > 0 ? "," : "", i);
    }
    snprintf(data + used, sizeof data - used, "]}");
    start(T0);
    fake_clear(fake);
    for (uint32_t i = 0; i < 300; i++) {
        delivered = 0;
        message("outrigger.inval.east.key", REPLY, data, T0);
        consumer_step(&consumer, T0);
    }
    ck_assert_uint_eq(consumer.under_way, DELIVERIES_HARD); /* what was beyond has been left alone */
    ck_assert_uint_eq(fake->count, 0);
    consumer_step(&consumer, T0 + 100 * S);
    ck_assert_uint_le(fake->count, 1);
}
END_TEST

START_TEST(down_forgets_and_up_starts_over)
{
    start(T0);
    message("outrigger.inval.east.key", REPLY, RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1}"), T0);
    consumer_on_down(&consumer);
    uint32_t sent = fake->count;
    done(deliveries[0], OK, WALL); /* nobody to tell: it comes again */
    ck_assert_uint_eq(fake->count, sent);
    ck_assert_uint_eq(consumer_step(&consumer, T0 + 1000 * S), UINT64_MAX);
    consumer_on_up(&consumer, T0 + 1000 * S);
    ck_assert_uint_eq(fake->count, sent + 1);
    answer(THERE, T0 + 1000 * S);
    consumer_step(&consumer, T0 + 1000 * S);
    ck_assert_uint_eq(fake->count, sent + 3);
    consumer_on_up(&consumer, T0 + 1001 * S); /* lost and made again between two looks */
    answer(THERE, T0 + 1001 * S);
    consumer_step(&consumer, T0 + 1001 * S);
    ck_assert_uint_eq(fake->count, sent + 6);
    ck_assert_uint_eq(consumer.credit, 512);
}
END_TEST

START_TEST(a_full_link_is_no_loss)
{
    start(T0);
    fake->answer = ERR_OVERLOAD;
    message("outrigger.inval.east.key", REPLY, RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1}"), T0);
    done(deliveries[0], OK, WALL);
    ck_assert_uint_eq(consumer.under_way, 0);
    consumer_on_up(&consumer, T0);
    ck_assert_uint_eq(consumer.state, CONSUMER_WAITING);
    fake->answer = OK;
    consumer_step(&consumer, T0 + S);
    answer(THERE, T0 + S);
    fake->answer = ERR_OVERLOAD;
    uint64_t next_us = consumer_step(&consumer, T0 + S);
    ck_assert_uint_gt(next_us, T0 + S);
    ck_assert_uint_lt(next_us, T0 + 2 * S);
}
END_TEST

/* What waits behind a message, from where its acknowledgement goes: both forms that servers use. */
START_TEST(backlog)
{
    struct delivered d;
    ck_assert(jetstream_delivered("$JS.ACK.INVAL_east.to_west.1.7.8.1795464000000000000.42", &d));
    ck_assert_uint_eq(d.pending, 42);
    ck_assert_uint_eq(d.stream_seq, 7);
    ck_assert_uint_eq(d.consumer_seq, 8);
    ck_assert_str_eq(d.consumer, "to_west");
    ck_assert(jetstream_delivered("$JS.ACK.hub.ACCHASH.INVAL_east.to_west.2.7.8.1795464000000000000.43.token", &d));
    ck_assert_uint_eq(d.pending, 43);
    ck_assert(!jetstream_delivered("$JS.ACK.INVAL_east.to_west.1", &d));
    ck_assert(!jetstream_delivered("$JS.API.INVAL_east.to_west.1.7.7.1795464000000000000.42", &d));
    ck_assert(!jetstream_delivered("", &d));
}
END_TEST

/* The stream and the consumer were made anew meanwhile: the number that the old message had is another's now. */
START_TEST(what_came_before_is_not_acknowledged_to_the_next_stream)
{
    start(T0);
    message("outrigger.inval.east.key", REPLY, RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1}"), T0);
    message("outrigger.inval.east.key", REPLY, RAW("{\"key\":\"b\",\"version\":\"6\",\"timestamp\":1}"), T0);
    consumer_on_down(&consumer);
    start(T0 + S);
    ck_assert_uint_eq(consumer.state, CONSUMER_PULLING);
    message("outrigger.inval.east.key", REPLY, RAW("{\"key\":\"c\",\"version\":\"7\",\"timestamp\":1}"), T0 + S);
    uint32_t sent = fake->count;
    done(deliveries[0], OK, WALL);
    done(deliveries[1], ERR_UNAVAILABLE, WALL);
    ck_assert_uint_eq(fake->count, sent);
    done(deliveries[2], OK, WALL);
    ck_assert_uint_eq(fake->count, sent + 1);
    ck_assert_str_eq(fake_last(fake)->data, "+ACK");
    ck_assert_uint_eq(counted(METRIC_BUS_APPLIED), 2);
    ck_assert_uint_eq(consumer.under_way, 0);
    /* The same where the connection stays. */
    message("outrigger.inval.east.key", REPLY, RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1}"), T0 + S);
    struct incoming deleted = fake_status(STATUS_CONFLICT, "Consumer Deleted");
    consumer_on_status(&consumer, consumer.request, &deleted, T0 + S);
    ck_assert_uint_eq(consumer.state, CONSUMER_WAITING);
    sent = fake->count;
    done(deliveries[3], OK, WALL);
    ck_assert_uint_eq(fake->count, sent);
    /* One that comes late, of the old ones. */
    message("outrigger.inval.east.key", REPLY, RAW("{\"key\":\"a\",\"version\":\"5\",\"timestamp\":1}"), T0 + S);
    consumer_step(&consumer, consumer.durable.due_us);
    answer(THERE, T0 + 2 * S);
    ck_assert_uint_eq(consumer.state, CONSUMER_PULLING);
    sent = fake->count;
    done(deliveries[4], OK, WALL);
    ck_assert_uint_eq(fake->count, sent);
}
END_TEST

START_TEST(what_a_rule_covers_is_not_acknowledged_to_the_next_stream)
{
    start(T0);
    for (uint32_t i = 0; i < UNSUPPORTED_HELD_MAX + 3; i++) {
        message("outrigger.inval.east.key", REPLY, "{\"format\":2}", T0);
    }
    consumer_step(&consumer, T0);
    ck_assert_uint_eq(delivered, 1);
    message("outrigger.inval.east.key", REPLY, "{\"format\":2}", T0); /* waits for the next rule */
    ck_assert_uint_eq(consumer.unsupported.count, 4);
    consumer_on_down(&consumer);
    start(T0 + S);
    ck_assert_uint_eq(consumer.unsupported.count, 0);
    message("outrigger.inval.east.key", REPLY, "{\"format\":2}", T0 + S);
    fake_clear(fake);
    delivery_done(deliveries[0], OK);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(fake->count, 0);
    consumer_step(&consumer, consumer.unsupported.due_us);
    ck_assert_uint_eq(delivered, 2);
    fake_clear(fake);
    delivery_done(deliveries[1], OK);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(fake->count, 1);
    ck_assert_str_eq(fake->sent[0].data, "+ACK");
    ck_assert_uint_eq(consumer.unsupported.count, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus/consumer");
    TCase *tc = tcase_create("consumer");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, backlog);
    tcase_add_test(tc, creates_and_pulls);
    tcase_add_test(tc, acknowledges_when_all_is_applied);
    tcase_add_test(tc, delivery_done_comes_by_mail);
    tcase_add_test(tc, gives_back_what_failed);
    tcase_add_test(tc, malformed_is_terminated);
    tcase_add_test(tc, newer_is_kept_for_later);
    tcase_add_test(tc, too_many_of_a_newer_format_are_covered_by_a_rule);
    tcase_add_test(tc, settings_that_drop_events_are_refused);
    tcase_add_test(tc, a_replica_without_a_leader_is_asked_again);
    tcase_add_test(tc, strangers_are_not_answered);
    tcase_add_test(tc, asks_for_more_in_time);
    tcase_add_test(tc, expiry_is_normal);
    tcase_add_test(tc, requests_that_end_at_once_are_throttled);
    tcase_add_test(tc, a_full_request_goes_on);
    tcase_add_test(tc, nobody_there_starts_over);
    tcase_add_test(tc, a_stream_that_is_not_there_yet);
    tcase_add_test(tc, missed_heartbeats_ask_again);
    tcase_add_test(tc, lost_credit_comes_back);
    tcase_add_test(tc, a_slow_sink_holds_back);
    tcase_add_test(tc, down_forgets_and_up_starts_over);
    tcase_add_test(tc, a_full_link_is_no_loss);
    tcase_add_test(tc, what_came_before_is_not_acknowledged_to_the_next_stream);
    tcase_add_test(tc, what_a_rule_covers_is_not_acknowledged_to_the_next_stream);
    tcase_add_test(tc, what_can_not_be_applied_goes_to_the_spool);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
