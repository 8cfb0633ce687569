#include "proxy/bus/rulebook.h"

#include <inttypes.h>

#include "proxy/metric.h"
#include "tests/unit/bus/fake_transport.h"
#include "tests/unit/check_main.h"

#define T0 (1000 * S)
#define THERE "{\"created\":\"2026-11-24T11:00:00Z\",\"config\":{}}"
#define MAKING "{\"created\":\"0001-01-01T00:00:00Z\",\"config\":{}}"
#define NO_STREAM "{\"error\":{\"code\":404,\"err_code\":10059,\"description\":\"stream not found\"}}"

static struct fake *fake;
static struct metric_registry *registry;
static struct log *logger;
static struct mailbox box;
static struct rulebook book;
static uint32_t done;
static enum err result;
static uint32_t listings, knowns, losts, rules, removals;
static struct rule_event last;

static void on_rule(void *ctx, const struct rule_event *event)
{
    last = *event;
    *(event->is_removed ? &removals : &rules) += 1;
}

static void on_rules(void *ctx, enum rules_watch what)
{
    *(what == RULES_LISTING ? &listings : what == RULES_KNOWN ? &knowns : &losts) += 1;
}

static void setup(void)
{
    static const char *const commands[] = {"get"};
    fake = fake_create();
    fake->transport.watch = "_INBOX.test-watch";
    registry = metric_registry_create(&fake_config, commands, 1);
    logger = log_create(2, LOG_ERROR);
    ck_assert_int_eq(mailbox_init(&box), OK);
    struct bus_sink sink = {.on_rule = on_rule, .on_rules = on_rules};
    rulebook_init(&book, &fake_config, &fake->transport, logger, metrics_shard_create(metric_registry_metrics(registry)), sink, 0xabc);
    done = listings = knowns = losts = rules = removals = 0;
}

static void teardown(void)
{
    rulebook_stop(&book);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(book.pending, 0);
    mailbox_deinit(&box);
    log_destroy(&logger);
    metric_registry_destroy(&registry);
    fake_destroy(fake);
}

static void on_done(struct record *record)
{
    done++;
    result = record->err;
}

static struct record record_of(const char *pattern, uint64_t version)
{
    struct record record = {.reply_to = &box, .on_done = on_done, .region = "west", .submitted_us = T0};
    record.event = (struct invalidation){.version = version, .timestamp_ms = 1, .key_len = (uint16_t)strlen(pattern), .is_pattern = true};
    memcpy(record.event.key, pattern, strlen(pattern));
    return record;
}

static void answer(const char *text)
{
    struct incoming message = fake_answer(text);
    rulebook_on_answer(&book, fake_number(fake_last(fake)), &message, T0);
}

/* From on_up to a watch that has `pending` messages to tell. */
static void watch(uint32_t pending)
{
    char text[200];
    rulebook_on_up(&book, T0);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.KV_RULES_west");
    answer(NO_STREAM);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.CREATE.KV_RULES_west");
    answer(THERE);
    ck_assert(strncmp(fake_last(fake)->subject, "$JS.API.CONSUMER.CREATE.KV_RULES_west.watch_", 44) == 0);
    ck_assert_ptr_nonnull(strstr(fake_last(fake)->data, "\"deliver_subject\":\"_INBOX.test-watch\""));
    snprintf(text, sizeof text, "{\"delivered\":{\"consumer_seq\":0},\"num_pending\":%u}", pending);
    answer(text);
}

static void push(const char *subject, const char *text, uint64_t seq)
{
    char reply[200];
    snprintf(reply, sizeof reply, "$JS.ACK.KV_RULES_west.%s.1.%" PRIu64 ".%" PRIu64 ".1.0", book.watch, 100 + seq, seq);
    struct incoming message = {.subject = subject, .reply = reply, .description = "", .data = span_str(text)};
    rulebook_on_message(&book, &message, T0);
}

#define RULE(version) "{\"format\":1,\"region\":\"east\",\"events\":[{\"pattern\":\"a*\",\"version\":\"" version "\",\"timestamp\":5}]}"

START_TEST(an_empty_record_is_known_at_once)
{
    watch(0);
    ck_assert_uint_eq(listings, 1);
    ck_assert_uint_eq(knowns, 1);
}
END_TEST

START_TEST(a_bucket_that_is_being_made_is_not_watched)
{
    rulebook_on_up(&book, T0);
    answer(NO_STREAM);
    for (int i = 0; i < 3; i++) { /* CREATE's answer, then INFO's */
        uint32_t sent = fake->count;
        answer(MAKING);
        ck_assert_uint_eq(fake->count, sent);
        ck_assert_int_eq(book.state, RULEBOOK_WAITING);
        rulebook_step(&book, book.due_us);
        ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.KV_RULES_west");
    }
    answer(THERE);
    ck_assert(strncmp(fake_last(fake)->subject, "$JS.API.CONSUMER.CREATE.KV_RULES_west.watch_", 44) == 0);
}
END_TEST

START_TEST(a_record_is_known_once_all_of_it_has_been_told)
{
    watch(3);
    push("$KV.RULES_west.00000000000000ff.7", RULE("7"), 1);
    ck_assert_uint_eq(rules, 1);
    ck_assert_str_eq(last.region, "east");
    ck_assert(span_eq(span_of(last.event.key, last.event.key_len), SPAN_LIT("a*")) && last.event.version == 7);
    push("$KV.RULES_west.00000000000000ff.8", "", 2);
    ck_assert_uint_eq(removals, 1);
    ck_assert_uint_eq(last.hash, 0xff);
    ck_assert_uint_eq(last.event.version, 8);
    ck_assert_uint_eq(knowns, 0);
    push("$KV.RULES_west.00000000000000ff.9", RULE("9"), 3);
    ck_assert_uint_eq(rules, 2);
    ck_assert_uint_eq(knowns, 1);
}
END_TEST

START_TEST(what_makes_no_sense_is_not_told)
{
    watch(0);
    static const struct {
        const char *subject;
        const char *text;
    } cases[] = {{"$KV.RULES_west.x", ""}, {"$KV.RULES_west.0.0", ""}, {"$KV.RULES_west.0.9", RULE("8")}, {"$KV.RULES_west.0.9", "{}"},
                 {"$KV.RULES_west.0.9x", ""}, {"$KV.RULES_east.0.9", ""}, {"other", ""}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        push(cases[i].subject, cases[i].text, i + 1);
    }
    ck_assert_uint_eq(rules + removals, 0);
    push("$KV.RULES_west.0.9", RULE("9"), ARRAY_LEN(cases) + 1);
    ck_assert_uint_eq(rules, 1);
}
END_TEST

START_TEST(a_lost_message_begins_a_new_listing)
{
    watch(0);
    push("$KV.RULES_west.0.7", RULE("7"), 2);
    ck_assert_uint_eq(rules, 0);
    ck_assert_uint_eq(losts, 1);
    rulebook_step(&book, T0 + 60 * S);
    ck_assert_str_eq(fake_last(fake)->subject, "$JS.API.STREAM.INFO.KV_RULES_west");
}
END_TEST

START_TEST(a_heartbeat_tells_of_lost_messages_and_its_absence_of_a_lost_watch)
{
    watch(0);
    struct incoming beat = fake_status(STATUS_HEARTBEAT, "");
    rulebook_on_message(&book, &beat, T0 + S);
    rulebook_step(&book, T0 + 4 * S);
    ck_assert_uint_eq(losts, 0);
    beat.last_consumer = 5;
    rulebook_on_message(&book, &beat, T0 + 2 * S);
    ck_assert_uint_eq(losts, 1);
    fake_clear(fake);
    watch(0);
    rulebook_step(&book, T0 + 4 * S);
    ck_assert_uint_eq(losts, 2);
}
END_TEST

/* The server keeps it for a while, and delivers to the same subject on the next connection: its heartbeats would be taken for the new one's. */
START_TEST(the_watch_of_before_a_reconnection_is_deleted)
{
    char subject[200];
    watch(0);
    push("$KV.RULES_west.00000000000000ff.7", RULE("7"), 1);
    push("$KV.RULES_west.00000000000000ff.7", "", 2);
    snprintf(subject, sizeof subject, "$JS.API.CONSUMER.DELETE.KV_RULES_west.%s", book.watch);
    rulebook_on_down(&book);
    rulebook_on_up(&book, T0);
    uint32_t sent = fake->count;
    answer(THERE);
    ck_assert_uint_eq(fake->count, sent + 2);
    ck_assert_str_eq(fake->sent[sent].subject, subject);
    ck_assert_str_eq(fake->sent[sent].reply, ""); /* what a server that does not have it any more says to that does not matter */
    ck_assert(strncmp(fake->sent[sent + 1].subject, "$JS.API.CONSUMER.CREATE.KV_RULES_west.watch_", 44) == 0);
    ck_assert_ptr_null(strstr(fake->sent[sent + 1].subject, strrchr(subject, '.')));
}
END_TEST

START_TEST(a_record_is_sent_until_it_is_acknowledged)
{
    watch(0);
    struct record record = record_of("a*", 7);
    rulebook_submit(&book, &record);
    char subject[100];
    snprintf(subject, sizeof subject, "$KV.RULES_west.%016" PRIx64 ".7", rulebook_hash(SPAN_LIT("a*")));
    ck_assert_str_eq(fake_last(fake)->subject, subject);
    uint64_t number = fake_number(fake_last(fake));
    uint32_t sent = fake->count;
    rulebook_step(&book, T0 + S + 1);
    ck_assert_str_eq(fake->sent[sent].subject, subject);
    struct incoming answer = fake_answer("{\"stream\":\"KV_RULES_west\",\"seq\":1}");
    rulebook_on_recorded(&book, number, &answer, T0 + S);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(done, 1);
    ck_assert_int_eq(result, OK);
    rulebook_on_recorded(&book, number, &answer, T0 + S); /* twice */
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(done, 1);
}
END_TEST

START_TEST(a_record_fails_when_it_must)
{
    struct record record = record_of("a*", 7);
    rulebook_submit(&book, &record); /* not connected */
    mailbox_drain(&box, NULL);
    ck_assert_int_eq(result, ERR_UNAVAILABLE);
    watch(0);
    rulebook_submit(&book, &record);
    struct incoming answer = fake_answer("{\"error\":{\"code\":400,\"err_code\":10077,\"description\":\"full\"}}");
    rulebook_on_recorded(&book, fake_number(fake_last(fake)), &answer, T0);
    mailbox_drain(&box, NULL);
    ck_assert_int_eq(result, ERR_BUS);
    rulebook_submit(&book, &record);
    rulebook_step(&book, T0 + 3 * S);
    mailbox_drain(&box, NULL);
    ck_assert_int_eq(result, ERR_TIMEOUT);
    record = record_of("[", 7);
    rulebook_submit(&book, &record);
    mailbox_drain(&box, NULL);
    ck_assert_int_eq(result, ERR_INVALID);
    ck_assert_uint_eq(done, 4);
}
END_TEST

START_TEST(an_entry_is_written_once)
{
    struct record record = record_of("a*", 7);
    struct incoming answer = fake_answer("{\"error\":{\"code\":400,\"err_code\":10071,\"description\":\"wrong last sequence: 5\"}}");
    watch(0);
    rulebook_submit(&book, &record);
    ck_assert_int_eq(fake_last(fake)->expected, 0); /* that there is none */
    rulebook_on_recorded(&book, fake_number(fake_last(fake)), &answer, T0);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(done, 1);
    ck_assert_int_eq(result, OK); /* it was there */
    record.is_removal = true;
    rulebook_submit(&book, &record);
    ck_assert_int_eq(fake_last(fake)->expected, -1);
    rulebook_on_recorded(&book, fake_number(fake_last(fake)), &answer, T0);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(done, 2);
    ck_assert_int_eq(result, ERR_BUS);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus/rulebook");
    TCase *tc = tcase_create("rulebook");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, an_empty_record_is_known_at_once);
    tcase_add_test(tc, a_bucket_that_is_being_made_is_not_watched);
    tcase_add_test(tc, a_record_is_known_once_all_of_it_has_been_told);
    tcase_add_test(tc, what_makes_no_sense_is_not_told);
    tcase_add_test(tc, a_lost_message_begins_a_new_listing);
    tcase_add_test(tc, a_heartbeat_tells_of_lost_messages_and_its_absence_of_a_lost_watch);
    tcase_add_test(tc, the_watch_of_before_a_reconnection_is_deleted);
    tcase_add_test(tc, a_record_is_sent_until_it_is_acknowledged);
    tcase_add_test(tc, a_record_fails_when_it_must);
    tcase_add_test(tc, an_entry_is_written_once);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
