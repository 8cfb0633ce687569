/* What: one voter against a scripted bucket: when it is one, compare-and-set, lost answers, a bucket that is lost. Time is the test's. */
#include <unistd.h>

#include "proxy/strong/vote.h"
#include "tests/unit/bus/fake_bucket.h"
#include "tests/unit/check_main.h"

#define LEASE (3 * S)

static struct config_strong strong = {.lease_ms = LEASE / MS, .lock_window_ms = 10000};
static struct fake *fake;
static struct bucket bucket;
static struct vote vote;
static struct vote_call call;
static struct log *test_log;
static uint64_t now;
static enum err ended;
static uint32_t ends;

static void on_done(struct vote_call *done, enum err err, uint64_t now_us)
{
    ck_assert_ptr_eq(done, &call);
    ended = err;
    ends++;
}

static void make(uint32_t voter)
{
    struct vote_context context = {&fake_config, &fake->transport, test_log, voter, 'v', 5};
    vote_init(&vote, &context);
    vote_call_init(&call, &vote, 1, on_done, NULL); /* of the region east */
    bucket.name = vote.stream + 3;
}

static void setup(void)
{
    fake_config.strong = &strong;
    fake = fake_create();
    test_log = log_create(STDERR_FILENO, LOG_ERROR);
    memset(&bucket, 0, sizeof bucket);
    now = 1000 * S;
    ends = 0;
    make(0);
}

static void teardown(void)
{
    vote_call_cancel(&call);
    fake_destroy(fake);
    log_destroy(&test_log);
}

static void answer(const struct sent *sent, const char *text)
{
    struct incoming message = fake_answer(text);
    vote_on_answer(&vote, fake_number(sent), &message, now);
}

/* The server answers all there is, until there is no more. */
static void talk(void)
{
    while (fake->count > 0) {
        struct sent sent = fake->sent[--fake->count];
        char text[512];
        ck_assert_int_eq(strncmp(sent.reply, "_INBOX.test.v.", 14), 0);
        struct incoming message = bucket_answer(&bucket, &sent, text, sizeof text);
        free(sent.data);
        vote_on_answer(&vote, fake_number(&sent), &message, now);
    }
}

static void usable(void)
{
    vote_on_up(&vote, now);
    talk();
    now += LEASE;
    ck_assert(vote_is_usable(&vote, now));
}

static struct lease_record record(uint64_t number)
{
    return (struct lease_record){.number = number, .is_ready = true, .ring = 3, .holder = 4};
}

/* Another writes. */
static void write_by_another(uint64_t number)
{
    struct lease_record wanted = record(number);
    struct bucket_entry *entry = bucket_entry(&bucket, "$KV.CONTROL_west.east");
    record_write(&wanted, entry->data);
    entry->seq = ++bucket.seq;
}

static enum err write_number(uint64_t number)
{
    struct lease_record wanted = record(number);
    enum err err = vote_write(&call, &wanted, now);
    talk();
    return err == OK ? ended : err;
}

START_TEST(it_is_blank_for_a_lease)
{
    struct lease_record wanted = record(2);
    ck_assert_str_eq(vote_problem(&vote, now), "not connected");
    vote_on_up(&vote, now);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.KV_CONTROL_west");
    talk(); /* it is made */
    ck_assert(bucket.is_there);
    ck_assert(!vote_is_usable(&vote, now));
    ck_assert_ptr_nonnull(vote_problem(&vote, now));
    ck_assert_int_eq(vote_write(&call, &wanted, now), ERR_UNAVAILABLE);
    ck_assert_int_eq(vote_look(&call, now), ERR_UNAVAILABLE);
    ck_assert_uint_eq(vote_step(&vote, now), now + LEASE);
    ck_assert(!vote_is_usable(&vote, now + LEASE - 1));
    ck_assert(vote_is_usable(&vote, now + LEASE));
    ck_assert_ptr_null(vote_problem(&vote, now + LEASE));
    now += LEASE;
    vote_on_down(&vote, now);
    ck_assert(!vote_is_usable(&vote, now));
    vote_on_up(&vote, now); /* the same bucket as before */
    talk();
    ck_assert(vote_is_usable(&vote, now));
    vote_on_down(&vote, now);
    bucket_lose(&bucket);
    vote_on_up(&vote, now);
    talk(); /* another one */
    ck_assert(!vote_is_usable(&vote, now + LEASE - 1));
    ck_assert(vote_is_usable(&vote, now + LEASE));
}
END_TEST

START_TEST(a_bucket_that_is_being_made_is_asked_for_nothing)
{
    bucket.making = 3;
    vote_on_up(&vote, now);
    talk();
    for (uint64_t end = now + 5 * S; now < end && bucket.making > 0; now += 100 * MS) {
        ck_assert(!vote_is_usable(&vote, now + 10 * LEASE));
        vote_step(&vote, now);
        talk();
    }
    ck_assert_uint_eq(bucket.making, 0);
    while (vote.state != VOTE_THERE) {
        now = vote_step(&vote, now);
        vote_step(&vote, now);
        talk();
    }
    ck_assert(!vote_is_usable(&vote, now + LEASE - 1)); /* blank from now on, and not from when the bucket was not there yet */
    ck_assert(vote_is_usable(&vote, now + LEASE));
    ck_assert_uint_eq(bucket.created, 1);
}
END_TEST

START_TEST(compare_and_set)
{
    usable();
    ck_assert_int_eq(vote_look(&call, now), OK);
    ck_assert(vote_call_is_under_way(&call));
    talk();
    ck_assert_int_eq(ended, OK);
    ck_assert(call.is_known && call.record.number == 0 && call.seq == 0);
    ck_assert_int_eq(write_number(2), OK);
    ck_assert_uint_eq(call.seq, 1);
    ck_assert_str_eq(bucket_entry(&bucket, "$KV.CONTROL_west.east")->data, "1 2 1 0000000000000003 0000000000000004");
    ck_assert_int_eq(write_number(2), OK);
    write_by_another(5);
    ck_assert_int_eq(write_number(2), ERR_CONFLICT);
    ck_assert_uint_eq(call.record.number, 5);
    ck_assert(call.record.is_ready && call.record.ring == 3 && call.record.holder == 4);
    ck_assert_int_eq(write_number(6), OK); /* over what was found */
    ck_assert_uint_eq(ends, 5);
}
END_TEST

START_TEST(nothing_is_written_over_the_unknown)
{
    usable();
    write_by_another(3);
    ck_assert_int_eq(write_number(2), ERR_CONFLICT);
    ck_assert_uint_eq(call.record.number, 3);
    ck_assert_uint_eq(bucket.seq, 1);
}
END_TEST

/* It may have been stored: it is looked at before anything else is written. */
START_TEST(a_lost_answer)
{
    usable();
    vote_look(&call, now);
    talk();
    struct lease_record wanted = record(2);
    ck_assert_int_eq(vote_write(&call, &wanted, now), OK);
    char text[512];
    struct sent lost = *fake_last(fake);
    bucket_answer(&bucket, &lost, text, sizeof text);
    fake_clear(fake);
    ck_assert_uint_eq(vote_step(&vote, now), now + LEASE / 3);
    now += LEASE / 3;
    vote_step(&vote, now);
    ck_assert_int_eq(ended, ERR_TIMEOUT);
    ck_assert(!call.is_known && !vote_call_is_under_way(&call));
    uint32_t before = ends;
    answer(&lost, text); /* late */
    ck_assert_uint_eq(ends, before);
    ck_assert_int_eq(write_number(2), ERR_CONFLICT);
    ck_assert_uint_eq(call.record.number, 2);
    ck_assert_int_eq(write_number(2), OK);
    ck_assert_uint_eq(bucket.seq, 2);
}
END_TEST

START_TEST(calls_end_when_the_connection_does)
{
    usable();
    vote_look(&call, now);
    vote_on_down(&vote, now);
    ck_assert_int_eq(ended, ERR_UNAVAILABLE);
    fake_clear(fake);
    vote_on_up(&vote, now);
    talk();
    vote_look(&call, now);
    vote_on_up(&vote, now); /* lost and made again */
    ck_assert_int_eq(ended, ERR_UNAVAILABLE);
    ck_assert_uint_eq(ends, 2);
    talk();
    vote_look(&call, now);
    vote_call_cancel(&call);
    talk();
    ck_assert_uint_eq(ends, 2);
}
END_TEST

START_TEST(a_bucket_that_is_lost)
{
    usable();
    ck_assert_int_eq(write_number(2), ERR_CONFLICT);
    ck_assert_int_eq(write_number(2), OK);
    bucket_lose(&bucket);
    ck_assert_int_eq(write_number(2), ERR_UNAVAILABLE);
    ck_assert(bucket.is_there && !vote_is_usable(&vote, now));
    now += LEASE;
    ck_assert_int_eq(write_number(2), ERR_CONFLICT);
    ck_assert_uint_eq(call.record.number, 0);
    ck_assert_int_eq(write_number(2), OK);
}
END_TEST

/* Deleted and made anew by somebody else, while we are connected: the numbers are too low. */
START_TEST(a_bucket_that_is_another)
{
    usable();
    write_number(2);
    write_number(2);
    write_number(2);
    bucket_lose(&bucket);
    bucket.is_there = true;
    bucket.created++;
    ck_assert_int_eq(write_number(2), ERR_UNAVAILABLE); /* refused, and nothing is there */
    ck_assert(!vote_is_usable(&vote, now));
    now += LEASE;
    write_number(2);
    ck_assert_int_eq(write_number(2), OK);
    bucket.seq = 10;
    vote_on_up(&vote, now);
    talk();
    ck_assert(vote_is_usable(&vote, now));
    bucket_entry(&bucket, "$KV.CONTROL_west.east")->seq = 1;
    bucket.seq = 5; /* it went back */
    ck_assert_int_eq(write_number(2), ERR_UNAVAILABLE);
    ck_assert(!vote_is_usable(&vote, now));
}
END_TEST

START_TEST(what_can_not_be_read_is_not_written_over)
{
    usable();
    struct bucket_entry *entry = bucket_entry(&bucket, "$KV.CONTROL_west.east");
    entry->seq = ++bucket.seq;
    ck_assert_int_eq(write_number(2), ERR_PROTOCOL); /* deleted */
    snprintf(entry->data, sizeof entry->data, "7 what is this");
    ck_assert_int_eq(write_number(2), ERR_UNSUPPORTED);
    ck_assert_uint_eq(bucket.seq, 1);
}
END_TEST

START_TEST(a_domain)
{
    make(2);
    usable();
    ck_assert_int_eq(vote_look(&call, now), OK);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.south.API.STREAM.MSG.GET.KV_CONTROL_south");
    ck_assert_str_eq(fake_last(fake)->data, "{\"last_by_subj\":\"$KV.CONTROL_south.east\"}");
    talk();
    struct lease_record wanted = record(2);
    ck_assert_int_eq(vote_write(&call, &wanted, now), OK);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.south.API.$KV.CONTROL_south.east");
    talk();
    ck_assert_int_eq(ended, OK);
    ck_assert_uint_eq(bucket_entry(&bucket, "$KV.CONTROL_south.east")->seq, 1);
}
END_TEST

START_TEST(silence_and_refusals)
{
    bucket.is_full = true;
    usable();
    write_number(2);
    ck_assert_int_eq(write_number(2), ERR_BUS);
    fake->answer = ERR_OVERLOAD;
    ck_assert_int_eq(vote_look(&call, now), ERR_OVERLOAD);
    ck_assert(!vote_call_is_under_way(&call));
    vote_on_up(&vote, now);
    ck_assert_int_eq(vote.state, VOTE_WAITING);
    fake->answer = OK;
    uint64_t due_us = vote_step(&vote, now);
    ck_assert_uint_gt(due_us, now);
    now = due_us;
    due_us = vote_step(&vote, now);
    ck_assert_int_eq(vote.state, VOTE_ASKING);
    fake_clear(fake);
    now = due_us;
    vote_step(&vote, now);
    ck_assert_int_eq(vote.state, VOTE_WAITING);
    ck_assert_str_eq(vote_problem(&vote, now), "JetStream does not answer");
}
END_TEST

START_TEST(nonsense_is_not_heeded)
{
    static const char *const texts[] = {"", "{", "[]", "{}", "{\"stream\":1,\"seq\":\"x\"}", "{\"stream\":\"OTHER\",\"seq\":7}", "{\"stream\":\"KV_CONTROL_west\",\"seq\":-7}",
                                        "{\"message\":7}", "{\"message\":{\"seq\":-1,\"data\":7}}", "{\"message\":{\"seq\":1,\"data\":\"====\"}}",
                                        "{\"message\":{\"seq\":1,\"data\":\"MSAxIDEgMSAx\"}}", "{\"error\":{}}", "{\"created\":7}",
                                        "{\"created\":\"x\",\"state\":{\"last_seq\":-1}}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        teardown();
        setup();
        vote_on_up(&vote, now);
        for (uint64_t number = 0; number < 10; number++) {
            struct incoming message = fake_answer(texts[i]);
            vote_on_answer(&vote, number, &message, now);
        }
        ck_assert(!vote_is_usable(&vote, now + LEASE));
        fake_clear(fake);
        usable();
        for (int is_write = 0; is_write < 2; is_write++) {
            vote_look(&call, now);
            if (is_write) {
                struct lease_record wanted = record(2);
                talk();
                vote_write(&call, &wanted, now);
            }
            answer(fake_last(fake), texts[i]);
            ck_assert(ended != OK && ended != ERR_CONFLICT);
            fake_clear(fake);
            now += 2 * LEASE;
            vote_step(&vote, now);
            talk();
            now += 2 * LEASE;
            ck_assert(vote_is_usable(&vote, now) && !vote_call_is_under_way(&call));
        }
    }
}
END_TEST

/* Of a bucket with replicas that has no leader, any of them answers, with what it knows itself. */
START_TEST(a_replica_without_a_leader_has_not_gone_back)
{
    write_by_another(4);
    usable();
    ck_assert_uint_gt(vote.info_seq, 0);
    vote_on_up(&vote, now); /* the connection was lost */
    char text[256];
    snprintf(text, sizeof text, "{\"created\":\"%s\",\"config\":{},\"state\":{\"first_seq\":0,\"last_seq\":0},\"cluster\":{\"name\":\"c\"}}", vote.created);
    answer(fake_last(fake), text);
    ck_assert(!vote_is_usable(&vote, now));
    ck_assert_str_eq(vote_problem(&vote, now), "its stream has no leader");
    fake_clear(fake);
    now = vote.due_us;
    vote_step(&vote, now);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.KV_CONTROL_west");
    talk();
    ck_assert(vote_is_usable(&vote, now)); /* without a lease's pause */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("strong/vote");
    TCase *tc = tcase_create("vote");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, it_is_blank_for_a_lease);
    tcase_add_test(tc, a_bucket_that_is_being_made_is_asked_for_nothing);
    tcase_add_test(tc, compare_and_set);
    tcase_add_test(tc, nothing_is_written_over_the_unknown);
    tcase_add_test(tc, a_lost_answer);
    tcase_add_test(tc, calls_end_when_the_connection_does);
    tcase_add_test(tc, a_bucket_that_is_lost);
    tcase_add_test(tc, a_bucket_that_is_another);
    tcase_add_test(tc, what_can_not_be_read_is_not_written_over);
    tcase_add_test(tc, a_domain);
    tcase_add_test(tc, silence_and_refusals);
    tcase_add_test(tc, nonsense_is_not_heeded);
    tcase_add_test(tc, a_replica_without_a_leader_has_not_gone_back);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
