/* What: waits for the other regions against a scripted JetStream. Time is the test's. */
#include "proxy/bus/confirm.h"

#include "tests/unit/bus/fake_transport.h"
#include "tests/unit/check_main.h"

#define T0 (1000 * S)
#define EAST 0
#define SOUTH 1

/* What JetStream has; `text` is said in place of it. */
struct scripted {
    const char *created;
    unsigned long long last;
    struct {
        bool is_there;
        unsigned long long floor;
        unsigned pending, ack_pending, waiting;
    } consumers[2];
    const char *stream_text;
    const char *consumer_text;
    bool is_silent;
};

struct waiter {
    struct confirmation confirmation;
    struct confirmed regions[2];
    bool is_done;
};

static struct fake *fake;
static struct ring ring;
static struct confirm confirm;
static struct scripted js;
static uint64_t now;
static uint64_t told; /* what is in the spool up to here is in the stream */

static bool is_told(void *ctx, uint64_t spooled)
{
    return spooled <= *(const uint64_t *)ctx;
}

static void setup(void)
{
    fake = fake_create();
    ring = (struct ring){.created = "then", .highest = 0};
    told = UINT64_MAX;
    js = (struct scripted){.created = "then", .last = 7, .consumers = {{true, 7, 0, 0, 1}, {true, 7, 0, 0, 1}}};
    now = T0;
    confirm_init(&confirm, &(struct confirm_context){&fake_config, &fake->transport, &ring, is_told, &told, 5});
    confirm_on_up(&confirm);
}

static void teardown(void)
{
    confirm_stop(&confirm);
    confirm_deinit(&confirm);
    fake_destroy(fake);
}

static void on_done(struct confirmation *confirmation)
{
    struct waiter *w = container_of(confirmation, struct waiter, confirmation);
    ck_assert(!w->is_done);
    w->is_done = true;
}

static void submit(struct waiter *w, uint64_t for_us)
{
    w->is_done = false;
    if (!w->confirmation.has_position) { /* as bus_confirm() does */
        w->confirmation.position.created[0] = '\0';
    }
    w->confirmation.on_done = on_done;
    w->confirmation.regions = w->regions;
    w->confirmation.since_us = now;
    w->confirmation.until_us = now + for_us;
    confirm_submit(&confirm, &w->confirmation);
}

static const char *answer_text(const struct sent *s, char *out, size_t size)
{
    if (strcmp(s->subject, "$JS.API.STREAM.INFO.INVAL_west") == 0) {
        snprintf(out, size, "{\"created\":\"%s\",\"state\":{\"first_seq\":1,\"last_seq\":%llu}}", js.created, js.last);
        return js.stream_text != NULL ? js.stream_text : out;
    }
    uint32_t i = strcmp(s->subject, "$JS.API.CONSUMER.INFO.INVAL_west.to_east") == 0 ? EAST : SOUTH;
    ck_assert(i == EAST || strcmp(s->subject, "$JS.API.CONSUMER.INFO.INVAL_west.to_south") == 0);
    if (js.consumer_text != NULL) {
        return js.consumer_text;
    }
    if (!js.consumers[i].is_there) {
        return "{\"error\":{\"code\":404,\"err_code\":10014,\"description\":\"consumer not found\"}}";
    }
    snprintf(out, size, "{\"ack_floor\":{\"consumer_seq\":3,\"stream_seq\":%llu},\"num_pending\":%u,\"num_ack_pending\":%u,\"num_waiting\":%u}",
             js.consumers[i].floor, js.consumers[i].pending, js.consumers[i].ack_pending, js.consumers[i].waiting);
    return out;
}

/* Answers what was asked, or drops it. */
static void answer_all(void)
{
    struct sent sent[64];
    uint32_t count = fake->count;
    ck_assert_uint_le(count, ARRAY_LEN(sent));
    memcpy(sent, fake->sent, count * sizeof sent[0]);
    fake->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        char text[512];
        struct incoming message = fake_answer(answer_text(&sent[i], text, sizeof text));
        ck_assert_int_eq(strncmp(sent[i].reply, "_INBOX.test.f.", 14), 0);
        if (!js.is_silent) {
            confirm_on_answer(&confirm, fake_number(&sent[i]), &message, now);
        }
        free(sent[i].data);
    }
}

/* As the bus's thread does: a step, and what comes back; until `until`. Returns how much was asked. */
static uint32_t run(uint64_t until)
{
    uint32_t asked = 0;
    for (;;) {
        uint64_t next = confirm_step(&confirm, now);
        while (fake->count > 0) {
            asked += fake->count;
            answer_all();
            next = confirm_step(&confirm, now);
        }
        if (next > until) {
            now = MAX(now, until);
            return asked;
        }
        ck_assert_uint_gt(next, now); /* it does not spin */
        now = next;
    }
}

static void ended(const struct waiter *w, enum err err, bool east, bool south)
{
    ck_assert(w->is_done);
    ck_assert_int_eq(w->confirmation.err, err);
    ck_assert(w->regions[EAST].is_applied == east);
    ck_assert(w->regions[SOUTH].is_applied == south);
}

START_TEST(all_have_it)
{
    struct waiter w = {.is_done = false};
    submit(&w, S);
    run(now);
    ended(&w, OK, true, true);
    ck_assert_str_eq(w.confirmation.position.created, "then");
    ck_assert_uint_eq(w.confirmation.position.seq, 7);
    ck_assert_uint_eq(confirm_step(&confirm, now), UINT64_MAX);
}
END_TEST

START_TEST(one_after_the_other)
{
    struct waiter w = {.is_done = false};
    js.last = 8;
    submit(&w, 10 * S);
    run(now + 100 * MS);
    ck_assert(!w.is_done);
    js.consumers[EAST].floor = 8;
    run(now + 100 * MS);
    ck_assert(!w.is_done && w.regions[EAST].is_applied);
    js.last = 9; /* another's, which is not waited for */
    js.consumers[SOUTH].floor = 9;
    run(now + 200 * MS);
    ended(&w, OK, true, true);
    ck_assert_uint_ge(w.regions[EAST].after_us, 100 * MS);
    ck_assert_uint_le(w.regions[EAST].after_us, 110 * MS);
    ck_assert_uint_ge(w.regions[SOUTH].after_us, 200 * MS);
    ck_assert_uint_le(w.regions[SOUTH].after_us, 220 * MS);
}
END_TEST

START_TEST(what_was_asked_before_does_not_tell_where_the_stream_is)
{
    struct waiter first = {.is_done = false};
    struct waiter second = {.is_done = false};
    submit(&first, 10 * S);
    confirm_step(&confirm, now);
    ck_assert_uint_eq(fake->count, 1);
    submit(&second, 10 * S); /* the question is under way: its answer may be from before what this one waits for */
    confirm_step(&confirm, now);
    ck_assert_uint_eq(fake->count, 1);
    answer_all();
    ck_assert_uint_eq(first.confirmation.position.seq, 7);
    ck_assert_str_eq(second.confirmation.position.created, "");
    js.last = 8;
    run(now);
    ck_assert(first.is_done && !second.is_done);
    ck_assert_uint_eq(second.confirmation.position.seq, 8);
    js.consumers[EAST].floor = js.consumers[SOUTH].floor = 8;
    run(now + 10 * MS);
    ended(&second, OK, true, true);
}
END_TEST

START_TEST(those_that_have_not_are_told_apart)
{
    struct waiter w = {.is_done = false};
    js.last = 20;
    js.consumers[EAST].waiting = 2;
    js.consumers[EAST].pending = 4;
    js.consumers[EAST].ack_pending = 9;
    js.consumers[SOUTH].is_there = false;
    submit(&w, S);
    run(now + S);
    ended(&w, ERR_TIMEOUT, false, false);
    ck_assert_int_eq(w.regions[EAST].missing, MISSING_BACKLOG);
    ck_assert_uint_eq(w.regions[EAST].backlog, 13);
    ck_assert_int_eq(w.regions[SOUTH].missing, MISSING_NO_CONSUMER);
    js.consumers[EAST].waiting = 0;
    js.consumers[SOUTH].is_there = true; /* it has come */
    js.consumers[SOUTH].floor = 20;
    submit(&w, S);
    run(now + S);
    ended(&w, ERR_TIMEOUT, false, true);
    ck_assert_int_eq(w.regions[EAST].missing, MISSING_NOT_CONNECTED);
    ck_assert_int_eq(w.regions[SOUTH].missing, MISSING_NOTHING);
}
END_TEST

START_TEST(what_is_in_the_spool_comes_first)
{
    struct waiter w = {.confirmation.position = {.sidecar = 5, .spooled = 12}};
    told = 11;
    submit(&w, S);
    ck_assert_uint_eq(run(now + S), 0);
    ended(&w, ERR_TIMEOUT, false, false);
    ck_assert_int_eq(w.regions[EAST].missing, MISSING_SPOOLED);
    ck_assert_str_eq(w.confirmation.position.created, "");
    submit(&w, S);
    run(now + S / 2);
    ck_assert(!w.is_done);
    told = 12;
    run(now + S / 4);
    ended(&w, OK, true, true);
}
END_TEST

START_TEST(without_a_connection)
{
    struct waiter w = {.is_done = false};
    confirm_on_down(&confirm);
    submit(&w, S);
    ck_assert_uint_eq(run(now + S), 0);
    ended(&w, ERR_TIMEOUT, false, false);
    ck_assert_int_eq(w.regions[SOUTH].missing, MISSING_BUS_AWAY);
    submit(&w, S);
    run(now + S / 2);
    confirm_on_up(&confirm);
    run(now + 100 * MS);
    ended(&w, OK, true, true);
}
END_TEST

START_TEST(the_connection_is_lost_meanwhile)
{
    struct waiter w = {.is_done = false};
    js.last = 8;
    submit(&w, 10 * S);
    run(now + S);
    confirm_step(&confirm, now + S);
    fake_clear(fake); /* what is under way is not answered any more */
    confirm_on_down(&confirm);
    run(now + 2 * S);
    js.consumers[EAST].floor = js.consumers[SOUTH].floor = 8;
    confirm_on_up(&confirm);
    run(now + S);
    ended(&w, OK, true, true);
    ck_assert_uint_eq(w.confirmation.position.seq, 8);
}
END_TEST

START_TEST(another_connection_without_a_word)
{
    struct waiter w = {.is_done = false};
    submit(&w, 10 * S);
    confirm_step(&confirm, now);
    answer_all();
    confirm_step(&confirm, now);
    ck_assert_uint_eq(fake->count, 2); /* both consumers: what was asked on the old one is not answered any more */
    fake_clear(fake);
    confirm_on_up(&confirm);
    run(now + 10 * MS);
    ended(&w, OK, true, true);
}
END_TEST

/* The last of those that were sent to this subject, answered as things are now. */
static void answer_one(const char *subject)
{
    for (uint32_t i = fake->count; i > 0; i--) {
        const struct sent *s = &fake->sent[i - 1];
        if (strcmp(s->subject, subject) == 0) {
            char text[512];
            struct incoming message = fake_answer(answer_text(s, text, sizeof text));
            confirm_on_answer(&confirm, fake_number(s), &message, now);
            return;
        }
    }
    ck_abort_msg("nobody has asked for %s", subject);
}

START_TEST(a_floor_is_borne_out_by_what_is_asked_for_later)
{
    struct waiter first = {.is_done = false};
    struct waiter second = {.is_done = false};
    js.last = 8;
    js.consumers[SOUTH].floor = 8;
    submit(&first, 10 * S);
    run(now + 10 * MS);
    ck_assert(first.regions[SOUTH].is_applied && !first.is_done);
    now += 10 * MS;
    confirm_step(&confirm, now);
    submit(&second, 10 * S);
    confirm_step(&confirm, now); /* the consumer has been asked, and then, for the second, the stream */
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.INVAL_west");
    js.consumers[EAST].floor = 8;
    answer_one("$JS.API.CONSUMER.INFO.INVAL_west.to_east"); /* it is there, but when the stream was asked that was not known */
    answer_one("$JS.API.STREAM.INFO.INVAL_west");
    ck_assert(!first.is_done);
    fake_clear(fake);
    uint64_t seen = now;
    for (; now < seen + 100 * MS; now += 10 * MS) { /* the stream takes its time */
        confirm_step(&confirm, now);
    }
    for (uint32_t i = 0; i < fake->count; i++) { /* another answer would only be a later one */
        ck_assert_str_ne(fake->sent[i].subject, "$JS.API.CONSUMER.INFO.INVAL_west.to_east");
    }
    answer_one("$JS.API.STREAM.INFO.INVAL_west");
    ck_assert(first.is_done);
    ck_assert_int_eq(first.confirmation.err, OK);
    ck_assert_uint_le(first.regions[EAST].after_us, 30 * MS); /* when it was seen, not when that was borne out */
    run(now + 10 * MS);
    ended(&second, OK, true, true);
}
END_TEST

START_TEST(a_stream_that_was_made_anew)
{
    struct waiter w = {.is_done = false};
    js.last = 8;
    submit(&w, 10 * S);
    run(now + S);
    confirm_on_down(&confirm);
    js.created = "now";
    js.last = 100;
    js.consumers[EAST].floor = js.consumers[SOUTH].floor = 100; /* not of the same messages */
    confirm_on_up(&confirm);
    run(now);
    ended(&w, ERR_BUS, false, false);
    ck_assert_int_eq(w.regions[EAST].missing, MISSING_UNKNOWN);
    submit(&w, 10 * S); /* it was another when what is waited for was published, perhaps: the ring knows it as it was */
    run(now);
    ended(&w, ERR_BUS, false, false);
    snprintf(ring.created, sizeof ring.created, "now");
    ring.broken_us = now; /* it has noticed meanwhile */
    submit(&w, 10 * S);
    run(now);
    ended(&w, ERR_BUS, false, false);
    now++;
    submit(&w, 10 * S);
    run(now);
    ended(&w, OK, true, true);
}
END_TEST

START_TEST(a_stream_that_went_back)
{
    struct waiter w = {.is_done = false};
    ring.highest = 8; /* acknowledged */
    submit(&w, 10 * S);
    run(now);
    ended(&w, ERR_BUS, false, false);
    js.last = 8;
    submit(&w, 10 * S);
    run(now + S);
    ck_assert(!w.is_done);
    js.last = 7;
    js.consumers[EAST].floor = 9; /* it has had the message that is gone, and one more */
    run(now + S);
    ended(&w, ERR_BUS, false, false);
}
END_TEST

START_TEST(a_consumer_ahead_of_the_stream)
{
    struct waiter w = {.is_done = false};
    js.consumers[EAST].floor = 9; /* the stream was at 9 once, and has 7 now: the next two will not be delivered */
    submit(&w, S);
    run(now + S);
    ended(&w, ERR_TIMEOUT, false, true);
    ck_assert_int_eq(w.regions[EAST].missing, MISSING_UNKNOWN);
}
END_TEST

START_TEST(what_was_heard_of_a_consumer_before_does_not_count)
{
    struct waiter w = {.is_done = false};
    submit(&w, S);
    run(now);
    ended(&w, OK, true, true);
    js.last = 7; /* it was at 6, and has this region's message as its 7th for the second time */
    js.consumers[EAST].floor = js.consumers[SOUTH].floor = 6;
    submit(&w, S);
    run(now + S / 2);
    ck_assert(!w.is_done);
    js.consumers[EAST].floor = 7;
    run(now + S / 2);
    ended(&w, ERR_TIMEOUT, true, false);
}
END_TEST

START_TEST(positions)
{
    struct waiter w = {.confirmation = {.has_position = true, .position = {.created = "then", .seq = 6}}};
    js.last = 100;
    submit(&w, S);
    run(now);
    ended(&w, OK, true, true);
    ck_assert_uint_eq(w.confirmation.position.seq, 6);
    snprintf(w.confirmation.position.created, CREATED_SIZE, "before");
    submit(&w, S);
    run(now);
    ended(&w, ERR_BUS, false, false);
    w.confirmation.position = (struct position){.created = "then", .seq = 101}; /* what the stream had once */
    submit(&w, S);
    run(now);
    ended(&w, ERR_BUS, false, false);
    w.confirmation.position = (struct position){.sidecar = 4, .spooled = 1}; /* another's */
    submit(&w, S);
    ended(&w, ERR_INVALID, false, false);
}
END_TEST

START_TEST(jetstream_says_something_else)
{
    struct waiter w = {.is_done = false};
    js.is_silent = true;
    submit(&w, 3 * S);
    run(now + 3 * S);
    ended(&w, ERR_TIMEOUT, false, false);
    ck_assert_int_eq(w.regions[EAST].missing, MISSING_NO_ANSWER);
    ck_assert_ptr_nonnull(strstr(w.regions[EAST].text, "STREAM.INFO"));
    js.is_silent = false;
    js.stream_text = "[]";
    submit(&w, 3 * S);
    run(now + 3 * S);
    ck_assert_str_eq(w.regions[EAST].text, "an answer that is not understood");
    js.stream_text = NULL;
    js.consumer_text = "{\"error\":{\"code\":503,\"description\":\"not \\u001b now\"}}";
    submit(&w, 3 * S);
    run(now + 3 * S);
    ended(&w, ERR_TIMEOUT, false, false);
    ck_assert_int_eq(w.regions[SOUTH].missing, MISSING_NO_ANSWER);
    ck_assert_ptr_nonnull(strstr(w.regions[SOUTH].text, " now"));
    js.consumer_text = "{\"ack_floor\":\"far\"}";
    submit(&w, S);
    run(now + S);
    ended(&w, ERR_TIMEOUT, false, false);
}
END_TEST

START_TEST(questions_that_can_not_be_sent)
{
    struct waiter w = {.is_done = false};
    fake->answer = ERR_OVERLOAD;
    submit(&w, S);
    run(now + S / 2);
    ck_assert(!w.is_done);
    fake->answer = OK;
    run(now + S / 4);
    ended(&w, OK, true, true);
}
END_TEST

START_TEST(bounded)
{
    static struct waiter all[CONFIRM_WAITERS_MAX + 1];
    js.last = 8;
    for (uint32_t i = 0; i <= CONFIRM_WAITERS_MAX; i++) {
        submit(&all[i], 10 * S);
    }
    ended(&all[CONFIRM_WAITERS_MAX], ERR_OVERLOAD, false, false);
    uint32_t asked = run(now + 10 * S - 1); /* for all together, ever more slowly */
    ck_assert_uint_lt(asked, 2 * (10000 / 50 + 150));
    ck_assert_uint_gt(asked, 2 * 10000 / 50);
    run(now + 1);
    for (uint32_t i = 0; i < CONFIRM_WAITERS_MAX; i++) {
        ended(&all[i], ERR_TIMEOUT, false, false);
    }
}
END_TEST

START_TEST(nobody_waits_any_more)
{
    _Atomic bool is_stopping = false;
    struct waiter w = {.confirmation.is_stopping = &is_stopping};
    struct waiter other = {.is_done = false};
    js.last = 8;
    submit(&w, 100 * S);
    submit(&other, 100 * S);
    run(now + 10 * S);
    is_stopping = true;
    run(now + 60 * MS);
    ended(&w, ERR_STOPPING, false, false);
    ck_assert(!other.is_done);
    confirm_stop(&confirm);
    ended(&other, ERR_STOPPING, false, false);
    ck_assert_int_eq(other.regions[EAST].missing, MISSING_BACKLOG);
    submit(&w, S);
    ended(&w, ERR_STOPPING, false, false);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus/confirm");
    TCase *tc = tcase_create("confirm");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, all_have_it);
    tcase_add_test(tc, one_after_the_other);
    tcase_add_test(tc, what_was_asked_before_does_not_tell_where_the_stream_is);
    tcase_add_test(tc, those_that_have_not_are_told_apart);
    tcase_add_test(tc, what_is_in_the_spool_comes_first);
    tcase_add_test(tc, without_a_connection);
    tcase_add_test(tc, the_connection_is_lost_meanwhile);
    tcase_add_test(tc, another_connection_without_a_word);
    tcase_add_test(tc, a_floor_is_borne_out_by_what_is_asked_for_later);
    tcase_add_test(tc, a_stream_that_was_made_anew);
    tcase_add_test(tc, a_stream_that_went_back);
    tcase_add_test(tc, a_consumer_ahead_of_the_stream);
    tcase_add_test(tc, what_was_heard_of_a_consumer_before_does_not_count);
    tcase_add_test(tc, positions);
    tcase_add_test(tc, jetstream_says_something_else);
    tcase_add_test(tc, questions_that_can_not_be_sent);
    tcase_add_test(tc, bounded);
    tcase_add_test(tc, nobody_waits_any_more);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
