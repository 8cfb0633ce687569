/* What:    strong writes against scripted regions: locks, conflicts, silence, regions that are out, writes of one key. Time is the test's. */
#include <unistd.h>

#include "common/log.h"
#include "proxy/strong/prepare.h"
#include "tests/unit/check_main.h"

#define MS 1000ULL
#define S 1000000ULL
#define REGIONS 3
#define SENT_MAX 256

struct sent {
    uint32_t region;
    uint64_t number; /* of the subject for the answer; 0: none is wanted */
    enum message_kind kind;
    uint64_t version;
    char subject[SUBJECT_MAX];
};

struct region {
    struct transport transport;
    struct suspension suspension;
    uint32_t index;
};

static struct region regions[REGIONS];
static struct sent sent[SENT_MAX];
static uint32_t sent_count;
static struct preparer preparer;
static struct mailbox box;
static struct log *test_log;
static struct metric_registry *registry;
static struct voters nobody; /* so no region can be suspended */
static uint64_t now;
static uint32_t done_count;
static struct config_peer peers[REGIONS - 1] = {{.region = "east"}, {.region = "north"}};
static struct config_bus bus = {.peers = peers, .peer_count = REGIONS - 1};
static struct config_strong strong = {.lease_ms = 3000, .lock_window_ms = 10000, .prepare_timeout_ms = 1000};
static struct config_namespace namespaces[1] = {{.prefix = "", .name = "default"}};
static struct config_node nodes[1] = {{.address = {.text = "n"}}};
static struct config config = {.region = "west", .bus = &bus, .strong = &strong, .max_clock_skew_ms = 500, .namespaces = namespaces, .namespace_count = 1,
                               .pool = {.nodes = nodes, .node_count = 1}};

static enum err record_sent(struct transport *transport, const struct outgoing *out)
{
    struct region *region = container_of(transport, struct region, transport);
    struct message message;
    ck_assert_int_eq(message_read(out->data, &message), OK);
    ck_assert_uint_lt(sent_count, SENT_MAX);
    struct sent *s = &sent[sent_count++];
    *s = (struct sent){.region = region->index, .kind = message.kind, .version = message.version};
    snprintf(s->subject, sizeof s->subject, "%s", out->subject);
    if (out->reply != NULL) {
        ck_assert_int_eq(strncmp(out->reply, "_INBOX.l.", 9), 0);
        s->number = strtoull(out->reply + 9, NULL, 10);
    }
    return OK;
}

static const struct transport_ops ops = {.send = record_sent};

static void setup(void)
{
    static const char *const commands[] = {"get"};
    now = 1000 * S;
    sent_count = done_count = 0;
    test_log = log_create(STDERR_FILENO, LOG_ERROR);
    registry = metric_registry_create(&config, commands, 1);
    ck_assert_int_eq(mailbox_init(&box), OK);
    preparer_init(&preparer, &config, metrics_shard_create(metric_registry_metrics(registry)), 1234, 99);
    preparer.region_count = REGIONS;
    for (uint32_t i = 0; i < REGIONS; i++) {
        struct region *region = &regions[i];
        *region = (struct region){.transport = {.ops = &ops, .inbox = "_INBOX"}, .index = i};
        struct suspension_context context = {&config, test_log, &nobody, i};
        suspension_init(&region->suspension, &context);
        preparer.regions[i] = (struct prepare_region){.name = i == 0 ? "west" : peers[i - 1].region, .transport = &region->transport,
                                                      .suspension = &region->suspension, .metric = i, .group = "lock", .everybody = "locks", .holder = "holder"};
    }
}

static void teardown(void)
{
    preparer_stop(&preparer);
    mailbox_drain(&box, NULL);
    preparer_deinit(&preparer);
    mailbox_deinit(&box);
    metric_registry_destroy(&registry);
    log_destroy(&test_log);
}

static void on_prepared(struct strong_write *write)
{
    *(struct strong_write **)write->ctx = write;
    done_count++;
}

static struct strong_write *submit(enum strong_kind kind, const char *key, struct strong_write **done)
{
    struct strong_write *write = strong_write_create(kind, span_str(key));
    write->reply_to = &box;
    write->on_prepared = on_prepared;
    write->ctx = done;
    *done = NULL;
    preparer_submit(&preparer, write, now);
    preparer_step(&preparer, now);
    return write;
}

static void finish(struct strong_write *write, bool is_settled)
{
    write->is_settled = is_settled;
    preparer_finish(&preparer, write, now);
}

static void pass(uint64_t us)
{
    for (uint64_t until = now + us; now < until;) {
        now += MS;
        preparer_step(&preparer, now);
    }
    mailbox_drain(&box, NULL);
}

static void say(const struct sent *s, enum message_status status)
{
    char bytes[MESSAGE_MAX];
    struct message message = {.kind = MESSAGE_ANSWER, .status = status, .voters = 99, .inbox = SPAN_LIT("_INBOX.server")};
    struct incoming incoming = {.data = span_of(bytes, message_write(&message, bytes))};
    preparer_on_answer(&preparer, s->number, &incoming, now);
    mailbox_drain(&box, NULL);
}

/* The last that was sent to a region; `kind` 0: of any kind. */
static const struct sent *last(uint32_t region, enum message_kind kind)
{
    for (uint32_t i = sent_count; i-- > 0;) {
        if (sent[i].region == region && (kind == 0 || sent[i].kind == kind)) {
            return &sent[i];
        }
    }
    return NULL;
}

static uint32_t count_of(uint32_t region, enum message_kind kind)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < sent_count; i++) {
        count += sent[i].region == region && sent[i].kind == kind;
    }
    return count;
}

static void say_all(enum message_status status)
{
    for (uint32_t i = 0; i < REGIONS; i++) {
        const struct sent *s = last(i, 0);
        say(s, status);
    }
}

START_TEST(locks_everywhere_then_commits)
{
    struct strong_write *done;
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    for (uint32_t i = 0; i < REGIONS; i++) {
        ck_assert_uint_eq(count_of(i, MESSAGE_LOCK), 1);
        ck_assert_uint_eq(last(i, 0)->version, last(0, 0)->version);
    }
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    ck_assert_ptr_null(done);
    say(last(2, 0), MESSAGE_OK);
    ck_assert_ptr_eq(done, write);
    ck_assert_int_eq(write->err, OK);
    ck_assert_uint_eq(write->fence_us, now + 10 * S - 3 * 500 * MS);
    uint64_t version = last(0, MESSAGE_LOCK)->version;
    finish(write, true);
    for (uint32_t i = 0; i < REGIONS; i++) {
        ck_assert_uint_eq(count_of(i, MESSAGE_COMMIT), 1);
        ck_assert_uint_eq(last(i, MESSAGE_COMMIT)->version, version);
        ck_assert_uint_eq(last(i, MESSAGE_COMMIT)->number, 0);
    }
    ck_assert_uint_eq(preparer.count, 0);
}
END_TEST

START_TEST(unsettled_leaves_the_locks)
{
    struct strong_write *done;
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    say_all(MESSAGE_OK);
    finish(write, false);
    ck_assert_uint_eq(count_of(0, MESSAGE_COMMIT), 0);
}
END_TEST

START_TEST(silence_is_asked_again_then_fails_without_votes)
{
    struct strong_write *done;
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    pass(900 * MS);
    ck_assert_ptr_null(done);
    ck_assert_uint_eq(count_of(2, MESSAGE_LOCK), 4);
    pass(200 * MS);
    ck_assert_ptr_eq(done, write);
    ck_assert_int_eq(write->err, ERR_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(write->text, "region north does not answer"));
    ck_assert_uint_eq(count_of(0, MESSAGE_COMMIT), 1); /* what it had is given up */
    finish(write, true);
    ck_assert_uint_eq(preparer.count, 0);
}
END_TEST

START_TEST(who_answers_is_asked_again_and_all_when_it_is_silent)
{
    struct strong_write *done;
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    ck_assert_str_eq(last(0, 0)->subject, "lock");
    for (uint32_t i = 0; i < REGIONS; i++) {
        say(last(i, 0), MESSAGE_OK);
    }
    finish(write, true);
    ck_assert_str_eq(last(0, MESSAGE_COMMIT)->subject, "_INBOX.server.s.0");
    write = submit(STRONG_LOCK, "k", &done);
    ck_assert_str_eq(last(0, MESSAGE_LOCK)->subject, "_INBOX.server.s.0");
    say(last(1, 0), MESSAGE_OK);
    say(last(2, 0), MESSAGE_OK);
    pass(260 * MS);
    ck_assert_str_eq(last(0, MESSAGE_LOCK)->subject, "locks");
    ck_assert_str_eq(preparer.regions[0].server, "");
    say(last(0, 0), MESSAGE_OK);
    ck_assert_int_eq(done->err, OK);
    ck_assert_str_eq(preparer.regions[0].server, "_INBOX.server.s.0");
    finish(write, true);
}
END_TEST

START_TEST(locks_that_were_ended_with_a_silent_sidecar_are_ended_with_all)
{
    struct strong_write *done;
    struct strong_write *write = submit(STRONG_LOCK, "first", &done);
    say_all(MESSAGE_OK);
    uint64_t version = last(0, 0)->version;
    finish(write, true);
    ck_assert_uint_eq(count_of(0, MESSAGE_COMMIT), 1);
    write = submit(STRONG_LOCK, "second", &done);
    say(last(1, 0), MESSAGE_OK);
    say(last(2, 0), MESSAGE_OK);
    pass(260 * MS);
    ck_assert_uint_eq(count_of(0, MESSAGE_COMMIT), 2);
    ck_assert_uint_eq(last(0, MESSAGE_COMMIT)->version, version);
    ck_assert_str_eq(last(0, MESSAGE_COMMIT)->subject, "locks");
    say(last(0, MESSAGE_LOCK), MESSAGE_OK);
    finish(write, true);
    ck_assert_uint_eq(count_of(0, MESSAGE_COMMIT), 3); /* once */
}
END_TEST

START_TEST(who_says_busy_when_asked_again_is_given_up_too)
{
    struct strong_write *done;
    struct strong_write *write = submit(STRONG_LOCK, "first", &done);
    say_all(MESSAGE_OK);
    finish(write, true);
    write = submit(STRONG_LOCK, "k", &done);
    ck_assert_str_eq(last(0, 0)->subject, "_INBOX.server.s.0");
    uint64_t version = last(0, 0)->version;
    say(last(2, 0), MESSAGE_BUSY);
    pass(260 * MS);
    ck_assert_str_eq(last(0, MESSAGE_LOCK)->subject, "locks");
    uint32_t commits[REGIONS] = {count_of(0, MESSAGE_COMMIT), count_of(1, MESSAGE_COMMIT), count_of(2, MESSAGE_COMMIT)};
    say(last(1, MESSAGE_LOCK), MESSAGE_OK);
    say(last(0, MESSAGE_LOCK), MESSAGE_BUSY);
    ck_assert_uint_eq(count_of(0, MESSAGE_COMMIT), commits[0] + 1); /* the silent one may still lock it */
    ck_assert_uint_eq(last(0, MESSAGE_COMMIT)->version, version);
    ck_assert_str_eq(last(0, MESSAGE_COMMIT)->subject, "locks");
    ck_assert_uint_eq(count_of(1, MESSAGE_COMMIT), commits[1] + 1);
    ck_assert_uint_eq(count_of(2, MESSAGE_COMMIT), commits[2]); /* one was asked, and has no lock of ours */
    ck_assert_ptr_null(done);
    pass(200 * MS);
    ck_assert_uint_ne(last(0, MESSAGE_LOCK)->version, version);
    say_all(MESSAGE_OK);
    ck_assert_int_eq(done->err, OK);
    finish(write, true);
}
END_TEST

START_TEST(no_share_is_asked_again)
{
    struct strong_write *done;
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    say(last(2, 0), MESSAGE_NO_SHARE);
    pass(15 * MS);
    ck_assert_uint_eq(count_of(2, MESSAGE_LOCK), 2);
    preparer_on_answer(&preparer, last(2, 0)->number, &(struct incoming){.status = STATUS_NO_RESPONDERS}, now);
    pass(30 * MS);
    ck_assert_uint_eq(count_of(2, MESSAGE_LOCK), 3);
    say(last(2, 0), MESSAGE_OK);
    ck_assert_ptr_eq(done, write);
    finish(write, true);
}
END_TEST

START_TEST(a_region_that_is_out_is_not_asked)
{
    struct strong_write *done;
    struct suspension *out = &regions[2].suspension;
    out->proven_us = now;
    out->over_us = now - 1;
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    ck_assert_ptr_null(last(2, 0));
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    ck_assert_int_eq(done->err, OK);
    finish(write, true);
    ck_assert_ptr_null(last(2, 0));
    /* An old proof must be made anew, which nobody can here. */
    now += 4 * S;
    write = submit(STRONG_LOCK, "k", &done);
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    ck_assert_int_eq(done->err, ERR_UNAVAILABLE);
    finish(write, true);
}
END_TEST

START_TEST(a_region_that_has_been_down_is_not_waited_for)
{
    struct strong_write *done;
    preparer.regions[2].down_us = now - 2 * S;
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    ck_assert_ptr_eq(done, write);
    ck_assert_int_eq(write->err, ERR_UNAVAILABLE);
    finish(write, true);
}
END_TEST

START_TEST(a_region_that_we_were_cut_off_from_is_waited_for)
{
    struct strong_write *done;
    preparer.regions[2].down_us = now - 2 * S;
    preparer.majority_us = now; /* the first others are back, and this one will be */
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    pass(S / 2);
    ck_assert_ptr_null(done);
    say(last(2, 0), MESSAGE_OK);
    ck_assert_ptr_eq(done, write);
    ck_assert_int_eq(write->err, OK);
    finish(write, true);
    preparer.majority_us = now - 2 * S;
    write = submit(STRONG_LOCK, "k", &done);
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    ck_assert_int_eq(done->err, ERR_UNAVAILABLE);
    finish(write, true);
    preparer.majority_us = 0; /* and a write from before that */
    preparer.regions[2].down_us = now - S / 2;
    write = submit(STRONG_LOCK, "k", &done);
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    pass(S / 4);
    preparer.majority_us = now;
    pass(S / 2);
    ck_assert_ptr_null(done);
    pass(S / 2 + MS);
    ck_assert_int_eq(done->err, ERR_UNAVAILABLE);
    finish(write, true);
}
END_TEST

START_TEST(a_conflict_gives_up_and_tries_again_with_a_newer_lock)
{
    struct strong_write *done;
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    uint64_t first = last(0, 0)->version;
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_BUSY);
    ck_assert_uint_eq(count_of(0, MESSAGE_COMMIT), 0); /* not before all have answered */
    struct sent late = *last(2, 0);
    say(&late, MESSAGE_OK);
    ck_assert_ptr_null(done);
    ck_assert_uint_eq(count_of(0, MESSAGE_COMMIT), 1);
    ck_assert_uint_eq(count_of(1, MESSAGE_COMMIT), 0); /* it has none of ours */
    pass(10 * MS);
    ck_assert_uint_eq(count_of(0, MESSAGE_LOCK), 2);
    ck_assert_uint_ne(last(0, 0)->version, first);
    say(&late, MESSAGE_OK); /* of the attempt before: not heeded */
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    ck_assert_ptr_null(done);
    say(last(2, 0), MESSAGE_OK);
    ck_assert_int_eq(done->err, OK);
    finish(write, true);
}
END_TEST

START_TEST(a_conflict_that_stays_ends)
{
    struct strong_write *done;
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    for (int i = 0; i < 3000 && done == NULL; i++) {
        for (uint32_t r = 0; r < REGIONS; r++) {
            say(last(r, 0), r == 1 ? MESSAGE_BUSY : MESSAGE_OK);
        }
        sent_count = MIN(sent_count, 20U) == sent_count ? sent_count : 0;
        pass(MS);
        for (uint32_t r = 0; r < REGIONS && done == NULL; r++) {
            while (last(r, MESSAGE_LOCK) == NULL) {
                pass(MS);
            }
        }
    }
    ck_assert_ptr_eq(done, write);
    ck_assert_int_eq(write->err, ERR_CONFLICT);
    ck_assert_ptr_nonnull(strstr(write->text, "region east"));
    finish(write, true);
}
END_TEST

START_TEST(writes_of_one_key_wait_for_each_other)
{
    struct strong_write *done[3];
    struct strong_write *first = submit(STRONG_LOCK, "k", &done[0]);
    struct strong_write *second = submit(STRONG_LOCK, "k", &done[1]);
    struct strong_write *other = submit(STRONG_LOCK, "other", &done[2]);
    ck_assert_uint_eq(count_of(0, MESSAGE_LOCK), 2);
    say_all(MESSAGE_OK);
    ck_assert_ptr_eq(done[2], other);
    say(&sent[0], MESSAGE_OK);
    say(&sent[1], MESSAGE_OK);
    say(&sent[2], MESSAGE_OK);
    ck_assert_ptr_eq(done[0], first);
    pass(2 * S); /* the database takes its time */
    ck_assert_ptr_null(done[1]);
    finish(first, true);
    pass(MS);
    say_all(MESSAGE_OK);
    ck_assert_ptr_eq(done[1], second);
    ck_assert_uint_eq(second->fence_us / S, (now + 10 * S - 3 * 500 * MS) / S); /* its own time began when it was its turn */
    finish(second, true);
    finish(other, true);
    ck_assert_uint_eq(preparer.count, 0);
}
END_TEST

START_TEST(a_write_that_waits_too_long_ends)
{
    struct strong_write *done[2];
    struct strong_write *first = submit(STRONG_LOCK, "k", &done[0]);
    struct strong_write *second = submit(STRONG_LOCK, "k", &done[1]);
    say_all(MESSAGE_OK);
    pass(10 * S + 10 * MS);
    ck_assert_ptr_eq(done[1], second);
    ck_assert_int_eq(second->err, ERR_TIMEOUT);
    finish(second, true);
    finish(first, true);
    ck_assert_uint_eq(preparer.count, 0);
}
END_TEST

START_TEST(refusals_end_at_once)
{
    struct strong_write *done;
    struct strong_write *write = submit(STRONG_LOCK, "k", &done);
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_REFUSED);
    say(last(2, 0), MESSAGE_OK);
    ck_assert_int_eq(done->err, ERR_REMOTE);
    ck_assert_ptr_nonnull(strstr(write->text, "region east refuses"));
    finish(write, true);
}
END_TEST

START_TEST(rules_go_to_the_holders_and_have_more_time)
{
    struct strong_write *done;
    struct strong_write *write = strong_write_create(STRONG_RULE, span_str("a*"));
    write->version = 4711;
    write->reply_to = &box;
    write->on_prepared = on_prepared;
    write->ctx = &done;
    done = NULL;
    preparer.regions[2].holder[0] = '\0';
    preparer_submit(&preparer, write, now);
    pass(MS);
    ck_assert_str_eq(last(0, MESSAGE_RULE)->subject, "holder");
    ck_assert_uint_eq(last(0, MESSAGE_RULE)->version, 4711);
    ck_assert_ptr_null(last(2, 0));
    say(last(0, 0), MESSAGE_OK);
    say(last(1, 0), MESSAGE_OK);
    pass(2 * S);
    ck_assert_ptr_null(done);
    snprintf(preparer.regions[2].holder, SUBJECT_MAX, "found");
    pass(400 * MS);
    say(last(2, MESSAGE_RULE), MESSAGE_OK);
    ck_assert_int_eq(done->err, OK);
    finish(write, true);
}
END_TEST

START_TEST(the_end_ends_all)
{
    struct strong_write *done[3];
    struct strong_write *first = submit(STRONG_LOCK, "k", &done[0]);
    struct strong_write *second = submit(STRONG_LOCK, "k", &done[1]);
    preparer_stop(&preparer);
    struct strong_write *late = submit(STRONG_LOCK, "late", &done[2]);
    mailbox_drain(&box, NULL);
    ck_assert_uint_eq(done_count, 3);
    ck_assert_int_eq(first->err, ERR_STOPPING);
    ck_assert_int_eq(second->err, ERR_STOPPING);
    ck_assert_int_eq(late->err, ERR_STOPPING);
    finish(first, true);
    finish(second, true);
    finish(late, true);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("prepare");
    TCase *tc = tcase_create("prepare");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, locks_everywhere_then_commits);
    tcase_add_test(tc, unsettled_leaves_the_locks);
    tcase_add_test(tc, silence_is_asked_again_then_fails_without_votes);
    tcase_add_test(tc, who_answers_is_asked_again_and_all_when_it_is_silent);
    tcase_add_test(tc, locks_that_were_ended_with_a_silent_sidecar_are_ended_with_all);
    tcase_add_test(tc, who_says_busy_when_asked_again_is_given_up_too);
    tcase_add_test(tc, no_share_is_asked_again);
    tcase_add_test(tc, a_region_that_is_out_is_not_asked);
    tcase_add_test(tc, a_region_that_has_been_down_is_not_waited_for);
    tcase_add_test(tc, a_region_that_we_were_cut_off_from_is_waited_for);
    tcase_add_test(tc, a_conflict_gives_up_and_tries_again_with_a_newer_lock);
    tcase_add_test(tc, a_conflict_that_stays_ends);
    tcase_add_test(tc, writes_of_one_key_wait_for_each_other);
    tcase_add_test(tc, a_write_that_waits_too_long_ends);
    tcase_add_test(tc, refusals_end_at_once);
    tcase_add_test(tc, rules_go_to_the_holders_and_have_more_time);
    tcase_add_test(tc, the_end_ends_all);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
