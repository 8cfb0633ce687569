/* What: requests, digests and catching up, between a bus, a controller and two workers that are this test: what they are asked stays there until it says
 *       what came of it. */
#include "proxy/cache/rules.h"

#include <poll.h>
#include <unistd.h>

#include "proxy/bus/rulebook.h"
#include "tests/unit/check_main.h"

#define WORKERS 2
#define ASKED_MAX 64
#define BUS ((struct bus *)&bus_is_there)
#define STRONG ((struct strong *)&strong_is_there)

static int bus_is_there, strong_is_there;
static struct config_namespace namespaces[] = {{.prefix = (char *)""}, {.prefix = (char *)"cart:", .consistency = CONSISTENCY_STRONG}};
static struct config_strong strong_config;
static struct config config = {.region = (char *)"west", .namespaces = namespaces, .namespace_count = 2, .strong = &strong_config, .max_clock_skew_ms = 500,
                               .threads = WORKERS};
static struct log *test_log;
static struct metric_registry *registry;
static struct rules *rules;
static struct loop *loops[WORKERS];
static struct cache *caches[WORKERS];
static struct mailbox box;
static struct rules_request request;
static struct rules_catch_up catch_up;
static uint32_t done, caught_up;
static _Atomic uint32_t digests;
static bool has_spool;

/* Written by the thread of the rules, which the test waits for (sync()). */
static struct record *records[ASKED_MAX];
static struct publication *published, *owed;
static struct strong_confirmation *confirming;
static uint32_t record_count;

/* --- the bus and the controller --- */

void bus_record(struct bus *bus, struct record *record)
{
    ck_assert_uint_lt(record_count, ASKED_MAX);
    records[record_count++] = record;
}

void bus_publish(struct bus *bus, struct publication *publication)
{
    published = publication;
}

void bus_owe(struct bus *bus, struct publication *publication, bool is_published)
{
    ck_assert(is_published);
    owed = publication;
}

bool bus_has_spool(const struct bus *bus)
{
    return has_spool;
}

bool bus_is_sweeper(struct bus *bus)
{
    return false;
}

void delivery_done(struct delivery *delivery, enum err err)
{
    delivery->err = err;
    done++;
}

void strong_confirm(struct strong *strong, struct strong_confirmation *confirmation)
{
    ck_assert_ptr_eq(strong, STRONG);
    confirming = confirmation;
}

static void deliver_publication(struct mail *mail, void *owner)
{
    struct publication *publication = container_of(mail, struct publication, mail);
    publication->on_done(publication);
}

static void end_publication(struct publication **publication, enum err err)
{
    struct publication *p = *publication;
    ck_assert_ptr_nonnull(p);
    *publication = NULL;
    p->err = err;
    p->mail.deliver = deliver_publication;
    mailbox_post(p->reply_to, &p->mail);
}

static struct {
    struct mail mail;
    struct strong_confirmation *confirmation;
} confirmed;

static void deliver_confirmation(struct mail *mail, void *owner)
{
    confirmed.confirmation->on_done(confirmed.confirmation);
}

static void end_confirmation(enum err err, const char *text)
{
    struct strong_confirmation *c = confirming;
    ck_assert_ptr_nonnull(c);
    confirming = NULL;
    c->err = err;
    snprintf(c->text, sizeof c->text, "%s", text);
    confirmed.confirmation = c;
    confirmed.mail.deliver = deliver_confirmation;
    mailbox_post(c->reply_to, &confirmed.mail);
}

/* --- waiting --- */

static void wait_for(const uint32_t *count, uint32_t n)
{
    while (*count < n) {
        struct pollfd poll_fd = {.fd = box.fd, .events = POLLIN};
        ck_assert_int_eq(poll(&poll_fd, 1, 20000), 1);
        mailbox_drain(&box, NULL);
    }
}

static uint32_t synced;

static void on_synced(struct rules_request *r)
{
    synced++;
}

/* All that was told to the thread of the rules before has been done by now. */
static void sync_rules(void)
{
    struct rules_request invalid = {.reply_to = &box, .on_done = on_synced, .pattern = "[", .pattern_len = 1};
    rules_submit(rules, &invalid);
    wait_for(&synced, synced + 1);
}

/* The workers look into their mailboxes. */
static void turn(uint32_t worker)
{
    mailbox_drain(&loops[worker]->mailbox, loops[worker]);
    sync_rules();
}

static void turn_all(void)
{
    for (uint32_t i = 0; i < 4; i++) { /* what has come meanwhile is sent behind it */
        turn(0);
        turn(1);
    }
}

/* --- the rest --- */

static void on_digest(void *ctx)
{
    atomic_fetch_add(&digests, 1);
}

static void start(struct bus *bus)
{
    ck_assert_int_eq(rules_create(&config, test_log, metric_registry_metrics(registry), 7, &rules), OK);
    for (uint32_t i = 0; i < WORKERS; i++) {
        rules_add_worker(rules, caches[i]);
    }
    rules_set_strong(rules, STRONG);
    rules_set_on_digest(rules, on_digest, NULL);
    ck_assert_int_eq(rules_start(rules, bus), OK);
}

static void end(void)
{
    rules_stop(rules);
    mailbox_drain(&box, NULL);
    rules_destroy(&rules);
}

static void setup(void)
{
    test_log = log_create(STDERR_FILENO, LOG_ERROR);
    registry = metric_registry_create(&config, NULL, 0);
    ck_assert_int_eq(mailbox_init(&box), OK);
    for (uint32_t i = 0; i < WORKERS; i++) {
        loops[i] = xcalloc(1, sizeof *loops[i]);
        caches[i] = xcalloc(1, sizeof *caches[i]);
        ck_assert_int_eq(mailbox_init(&loops[i]->mailbox), OK);
        caches[i]->loop = loops[i];
        caches[i]->config = &config;
        version_clock_init(&caches[i]->clock, i, config.max_clock_skew_ms);
    }
    done = caught_up = synced = record_count = 0;
    atomic_store(&digests, 0);
    published = owed = NULL;
    confirming = NULL;
    has_spool = false;
    start(BUS);
}

static void teardown(void)
{
    end();
    for (uint32_t i = 0; i < WORKERS; i++) {
        mailbox_deinit(&loops[i]->mailbox);
        free(loops[i]);
        free(caches[i]);
    }
    mailbox_deinit(&box);
    metric_registry_destroy(&registry);
    log_destroy(&test_log);
}

static void on_done(struct rules_request *r)
{
    done++;
}

static void submit(const char *pattern)
{
    request = (struct rules_request){.reply_to = &box, .on_done = on_done, .pattern_len = (uint16_t)strlen(pattern)};
    memcpy(request.pattern, pattern, strlen(pattern));
    rules_submit(rules, &request);
    sync_rules();
}

static void deliver_record(struct mail *mail, void *owner)
{
    struct record *record = container_of(mail, struct record, mail);
    record->on_done(record);
}

static void end_record(uint32_t i, enum err err)
{
    ck_assert_uint_lt(i, record_count);
    records[i]->err = err;
    records[i]->mail.deliver = deliver_record;
    mailbox_post(records[i]->reply_to, &records[i]->mail);
    sync_rules();
}

static struct rule_event event_of(const char *pattern, uint64_t version, bool is_removed)
{
    struct rule_event e = {.hash = rulebook_hash(span_str(pattern)), .is_removed = is_removed, .region = "west"};
    e.event = (struct invalidation){.version = version, .timestamp_ms = 1, .is_pattern = true};
    if (!is_removed) {
        e.event.key_len = (uint16_t)strlen(pattern);
        memcpy(e.event.key, pattern, strlen(pattern));
    }
    return e;
}

static void tell(const char *pattern, uint64_t version)
{
    struct rule_event e = event_of(pattern, version, false);
    rules_on_rule(rules, &e);
}

static void tell_removal(const char *pattern, uint64_t version)
{
    struct rule_event e = event_of(pattern, version, true);
    rules_on_rule(rules, &e);
}

static void list_nothing(void)
{
    rules_on_watch(rules, RULES_LISTING);
    rules_on_watch(rules, RULES_KNOWN);
    turn_all();
}

START_TEST(a_digest_is_known_when_all_workers_have_all_rules)
{
    ck_assert_uint_eq(rules_digest(rules), 0);
    tell("cart:*", 5);
    turn_all();
    ck_assert_uint_eq(rules_digest(rules), 0); /* there may be more */
    rules_on_watch(rules, RULES_LISTING);
    tell("cart:*", 5);
    rules_on_watch(rules, RULES_KNOWN);
    sync_rules();
    turn(0);
    ck_assert_uint_eq(rules_digest(rules), 0); /* not to the other worker */
    turn_all();
    uint64_t digest = rules_digest(rules);
    ck_assert_uint_ne(digest, 0);
    ck_assert_uint_eq(atomic_load(&digests), 1);
    tell("cart:1*", 6);
    sync_rules();
    turn(1);
    ck_assert_uint_eq(rules_digest(rules), digest);
    turn(0);
    ck_assert_uint_ne(rules_digest(rules), digest);
    turn_all();
    tell_removal("cart:1*", 6);
    sync_rules();
    turn(0);
    ck_assert_uint_ne(rules_digest(rules), digest);
    turn(1);
    ck_assert_uint_eq(rules_digest(rules), digest);
    ck_assert_uint_eq(atomic_load(&digests), 3);
    tell("user:*", 9); /* concerns no strong namespace */
    turn_all();
    ck_assert_uint_eq(rules_digest(rules), digest);
    ck_assert_uint_eq(atomic_load(&digests), 3);
    rules_on_watch(rules, RULES_LOST); /* what was in force is */
    rules_on_watch(rules, RULES_LISTING);
    turn_all();
    ck_assert_uint_eq(rules_digest(rules), digest);
}
END_TEST

START_TEST(a_digest_does_not_know_the_order)
{
    tell("cart:*", 5);
    tell("*", 7);
    tell("cart:9*", 6);
    list_nothing();
    uint64_t digest = rules_digest(rules);
    end();
    start(BUS);
    list_nothing();
    ck_assert_uint_ne(rules_digest(rules), digest);
    ck_assert_uint_ne(rules_digest(rules), 0);
    tell("cart:9*", 4);
    tell("cart:8*", 1);
    turn_all();
    tell("cart:9*", 6);
    tell("user:*", 6);
    tell("*", 7);
    tell_removal("cart:8*", 1);
    turn_all();
    ck_assert_uint_ne(rules_digest(rules), digest);
    tell("cart:*", 5);
    tell("cart:*", 3); /* an older one changes nothing */
    turn_all();
    ck_assert_uint_eq(rules_digest(rules), digest);
}
END_TEST

START_TEST(a_strong_rule_is_confirmed)
{
    list_nothing();
    uint64_t digest = rules_digest(rules);
    submit("cart:*");
    end_record(0, OK);
    ck_assert_ptr_null(published);
    turn_all();
    ck_assert_uint_ne(rules_digest(rules), digest); /* before anybody is told of it */
    end_publication(&published, OK);
    sync_rules();
    ck_assert_uint_eq(done, 0);
    ck_assert(confirming->event.is_pattern && confirming->event.version == request.version);
    ck_assert(span_eq(span_of(confirming->event.key, confirming->event.key_len), SPAN_LIT("cart:*")));
    end_confirmation(OK, "");
    wait_for(&done, 1);
    ck_assert_int_eq(request.err, OK);
}
END_TEST

START_TEST(what_is_not_confirmed_is_no_success)
{
    list_nothing();
    submit("*");
    end_record(0, OK);
    turn_all();
    end_publication(&published, OK);
    sync_rules();
    end_confirmation(ERR_TIMEOUT, "region east does not answer");
    wait_for(&done, 1);
    ck_assert_int_eq(request.err, ERR_TIMEOUT);
    ck_assert_str_eq(request.text, "in force in this region and published, but not confirmed everywhere: region east does not answer; send it again");
    submit("*");
    end_record(1, OK);
    end_record(2, OK); /* the removal of the one before */
    turn_all();
    end_publication(&published, ERR_TIMEOUT);
    wait_for(&done, 2);
    ck_assert_int_eq(request.err, ERR_TIMEOUT);
    ck_assert_ptr_null(confirming);
}
END_TEST

START_TEST(others_are_not)
{
    list_nothing();
    submit("user:*");
    end_record(0, OK);
    turn_all();
    end_publication(&published, OK);
    wait_for(&done, 1);
    ck_assert_int_eq(request.err, OK);
    ck_assert_ptr_null(confirming);
}
END_TEST

START_TEST(what_is_owed_only_is_no_success_where_it_is_strong)
{
    has_spool = true;
    list_nothing();
    submit("user:*");
    end_record(0, ERR_UNAVAILABLE);
    turn_all();
    end_publication(&owed, OK);
    wait_for(&done, 1);
    ck_assert_int_eq(request.err, OK);
    ck_assert(request.is_owed);
    submit("cart:*");
    end_record(1, ERR_UNAVAILABLE);
    turn_all();
    end_publication(&owed, OK);
    wait_for(&done, 2);
    ck_assert_int_eq(request.err, ERR_UNAVAILABLE);
    ck_assert_ptr_null(confirming);
    ck_assert_ptr_nonnull(strstr(request.text, "in force in this sidecar, and published once the bus is back"));
    ck_assert_uint_lt(strlen(request.text), ERROR_TEXT_MAX); /* of a command, whole */
}
END_TEST

START_TEST(without_a_bus_it_is_confirmed_too)
{
    end();
    start(NULL);
    ck_assert_uint_ne(rules_digest(rules), 0);
    submit("cart:*");
    turn_all();
    end_confirmation(ERR_UNAVAILABLE, "");
    wait_for(&done, 1);
    ck_assert_int_eq(request.err, ERR_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(request.text, err_text(ERR_UNAVAILABLE)));
}
END_TEST

START_TEST(a_rule_of_another_region_is_in_force_when_it_is_done)
{
    list_nothing();
    uint64_t digest = rules_digest(rules);
    struct delivery delivery = {.event = event_of("cart:*", 5, false).event, .peer = PEER_NONE, .err = ERR_COUNT};
    rules_apply(rules, &delivery);
    sync_rules();
    end_record(0, OK);
    turn(0);
    ck_assert_int_eq(delivery.err, ERR_COUNT);
    turn(1);
    ck_assert_int_eq(delivery.err, OK);
    ck_assert_uint_ne(rules_digest(rules), digest);
    ck_assert_ptr_null(confirming); /* whoever asks does that */
}
END_TEST

static void on_caught_up(struct rules_catch_up *c)
{
    caught_up++;
}

static void begin_catching_up(void)
{
    catch_up = (struct rules_catch_up){.reply_to = &box, .on_done = on_caught_up};
    rules_catch_up(rules, &catch_up);
    sync_rules();
}

static void tell_mark(const struct record *record)
{
    char pattern[GLOB_MAX + 1];
    ck_assert(record->is_removal);
    snprintf(pattern, sizeof pattern, "%.*s", record->event.key_len, record->event.key);
    tell_removal(pattern, record->event.version);
}

START_TEST(caught_up_is_who_has_seen_his_mark)
{
    list_nothing();
    uint64_t digest = rules_digest(rules);
    begin_catching_up();
    end_record(0, OK);
    turn_all();
    ck_assert_uint_eq(caught_up, 0);
    tell("cart:*", 5); /* what was before it in the record */
    tell_removal("cart:*", 4);
    tell_mark(records[0]);
    sync_rules();
    turn(0);
    ck_assert_uint_eq(caught_up, 0); /* as the other worker does not have it */
    turn(1);
    wait_for(&caught_up, 1);
    ck_assert_int_eq(catch_up.err, OK);
    ck_assert_uint_ne(rules_digest(rules), digest);
    begin_catching_up();
    tell_mark(records[1]); /* before the answer to having written it */
    turn_all();
    ck_assert_uint_eq(caught_up, 1);
    end_record(1, OK);
    wait_for(&caught_up, 2);
    ck_assert_int_eq(catch_up.err, OK);
}
END_TEST

START_TEST(who_does_not_know_the_rules_has_not_caught_up)
{
    begin_catching_up();
    end_record(0, OK);
    rules_on_watch(rules, RULES_LISTING);
    tell_mark(records[0]);
    turn_all();
    ck_assert_uint_eq(caught_up, 0);
    rules_on_watch(rules, RULES_KNOWN);
    turn_all();
    wait_for(&caught_up, 1);
    ck_assert_int_eq(catch_up.err, OK);
}
END_TEST

START_TEST(marks_that_are_lost)
{
    list_nothing();
    begin_catching_up();
    end_record(0, ERR_TIMEOUT);
    wait_for(&caught_up, 1);
    ck_assert_int_eq(catch_up.err, ERR_TIMEOUT);
    begin_catching_up();
    end_record(1, OK);
    list_nothing(); /* the server has lost its disk */
    wait_for(&caught_up, 2);
    ck_assert_int_eq(catch_up.err, ERR_UNAVAILABLE);
    begin_catching_up();
    end_record(2, OK);
    rules_stop(rules);
    wait_for(&caught_up, 3);
    ck_assert_int_eq(catch_up.err, ERR_STOPPING);
    catch_up = (struct rules_catch_up){.reply_to = &box, .on_done = on_caught_up};
    rules_catch_up(rules, &catch_up);
    wait_for(&caught_up, 4);
    ck_assert_int_eq(catch_up.err, ERR_STOPPING);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cache/rules");
    TCase *tc = tcase_create("rules");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_digest_is_known_when_all_workers_have_all_rules);
    tcase_add_test(tc, a_digest_does_not_know_the_order);
    tcase_add_test(tc, a_strong_rule_is_confirmed);
    tcase_add_test(tc, what_is_not_confirmed_is_no_success);
    tcase_add_test(tc, others_are_not);
    tcase_add_test(tc, what_is_owed_only_is_no_success_where_it_is_strong);
    tcase_add_test(tc, without_a_bus_it_is_confirmed_too);
    tcase_add_test(tc, a_rule_of_another_region_is_in_force_when_it_is_done);
    tcase_add_test(tc, caught_up_is_who_has_seen_his_mark);
    tcase_add_test(tc, who_does_not_know_the_rules_has_not_caught_up);
    tcase_add_test(tc, marks_that_are_lost);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
