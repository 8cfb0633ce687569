#include "proxy/bus/replayer.h"

#include "tests/unit/bus/fake_transport.h"
#include "tests/unit/check_main.h"

#define T0 (100 * S)
#define STORED "{\"stream\":\"INVAL_west\",\"seq\":7}"

static struct fake *fake;
static struct replayer replayer;
static struct replay *replay;
static uint32_t done;
static uint32_t no_streams;

static void on_done(void *ctx, struct replay *r)
{
    ck_assert_ptr_eq(r, replay);
    done++;
}

static void on_no_stream(void *ctx)
{
    no_streams++;
}

static void setup(void)
{
    fake = fake_create();
    replayer_init(&replayer, &fake_config, &fake->transport, NULL, 1);
    replayer.on_done = on_done;
    replayer.on_no_stream = on_no_stream;
    replay = xcalloc(1, sizeof *replay);
    done = no_streams = 0;
}

static void teardown(void)
{
    replayer_deinit(&replayer);
    free(replay);
    fake_destroy(fake);
}

static void take(const char *key, uint64_t sender, uint64_t now_us)
{
    replay->count = 1;
    replay->sender = sender;
    replay->message = 3;
    replay->events[0] = (struct invalidation){.version = 1, .timestamp_ms = 1, .key_len = (uint16_t)strlen(key)};
    memcpy(replay->events[0].key, key, strlen(key));
    replayer_take(&replayer, replay, now_us);
}

static void answer(struct incoming message, uint64_t now_us)
{
    replayer_on_answer(&replayer, fake_number(fake_last(fake)), &message, now_us);
}

START_TEST(sent_until_it_is_acknowledged)
{
    take("k", 0, T0);
    ck_assert_uint_eq(replayer_step(&replayer, T0), UINT64_MAX); /* not connected */
    ck_assert_uint_eq(fake->count, 0);
    replayer_on_up(&replayer, T0);
    ck_assert_uint_eq(replayer_step(&replayer, T0), T0 + S);
    ck_assert_uint_eq(fake->count, 1);
    ck_assert_str_eq(fake_last(fake)->subject, "outrigger.inval.west.key");
    ck_assert_str_eq(fake_last(fake)->reply, "_INBOX.test.r.1");
    replayer_step(&replayer, T0 + S); /* silence */
    ck_assert_uint_eq(fake->count, 2);
    answer(fake_status(503, ""), T0 + S);
    ck_assert_uint_eq(no_streams, 1);
    answer(fake_answer("{\"error\":{\"code\":400,\"err_code\":10077,\"description\":\"full\"}}"), T0 + S);
    answer(fake_answer("{\"stream\":\"OTHER\",\"seq\":7}"), T0 + S);
    answer(fake_answer("nonsense"), T0 + S);
    ck_assert_uint_eq(done, 0);
    uint64_t next_us = replayer_step(&replayer, T0 + S);
    ck_assert_uint_eq(fake->count, 2); /* with back-off */
    replayer_step(&replayer, next_us);
    ck_assert_uint_eq(fake->count, 3);
    replayer_on_down(&replayer);
    replayer_on_up(&replayer, next_us);
    replayer_step(&replayer, next_us);
    ck_assert_uint_eq(fake->count, 4);
    answer(fake_answer(STORED), next_us);
    ck_assert_uint_eq(done, 1);
    answer(fake_answer(STORED), next_us); /* twice */
    ck_assert_uint_eq(done, 1);
    for (uint32_t i = 1; i < fake->count; i++) {
        ck_assert_str_eq(fake->sent[i].msg_id, fake->sent[0].msg_id);
        ck_assert_str_eq(fake->sent[i].data, fake->sent[0].data);
    }
}
END_TEST

START_TEST(one_at_a_time_and_not_too_fast)
{
    replayer_on_up(&replayer, T0);
    take("a", 0, T0);
    replayer_step(&replayer, T0);
    answer(fake_answer(STORED), T0 + 100);
    take("b", 0, T0 + 100);
    ck_assert_uint_eq(replayer_step(&replayer, T0 + 100), T0 + REPLAY_PAUSE_US);
    ck_assert_uint_eq(fake->count, 1);
    replayer_step(&replayer, T0 + REPLAY_PAUSE_US);
    ck_assert_uint_eq(fake->count, 2);
    struct incoming late = fake_answer(STORED); /* of the first */
    replayer_on_answer(&replayer, 1, &late, T0 + REPLAY_PAUSE_US);
    ck_assert_uint_eq(done, 1);
    ck_assert_str_ne(fake->sent[0].msg_id, fake->sent[1].msg_id);
}
END_TEST

START_TEST(a_message_that_was_sent_before_keeps_its_id)
{
    char wanted[MSG_ID_SIZE];
    replayer_on_up(&replayer, T0);
    take("a", 0xabc, T0);
    replayer_step(&replayer, T0);
    publisher_message_id(0xabc, 3, wanted);
    ck_assert_str_eq(fake_last(fake)->msg_id, wanted);
    ck_assert_str_eq(wanted, "0000000000000abc-3");
    answer(fake_answer(STORED), T0);
    take("a", 0, T0 + S); /* the same events once more, as part of another: another message, of which there is one whoever sends it */
    replayer_step(&replayer, T0 + S);
    ck_assert_int_eq(strncmp(fake_last(fake)->msg_id, "spool-", 6), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replayer");
    TCase *t = tcase_create("replayer");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, sent_until_it_is_acknowledged);
    tcase_add_test(t, one_at_a_time_and_not_too_fast);
    tcase_add_test(t, a_message_that_was_sent_before_keeps_its_id);
    suite_add_tcase(suite, t);
    return check_main(suite);
}
