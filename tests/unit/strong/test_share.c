/* What: shares of a region's lease between a few sidecars: what is given, refused and confirmed. Time is the test's. */
#include "tests/unit/check_main.h"
#include "tests/unit/strong/fake_region.h"

static struct share_confirmation confirmation;
static uint32_t done;

static void setup(void)
{
    region_begin();
    done = 0;
}

static void on_done(struct share_confirmation *c)
{
    done++;
}

/* The lease as its owner has it: renewed at this moment, `left_us` of it left. */
static void hold(uint32_t i, enum strong_mode mode, uint64_t left_us)
{
    struct sidecar *s = &region.sidecars[i];
    uint64_t taken_over_us = s->lease.is_holder ? s->lease.taken_over_us : time_of(s).us - 10 * LEASE;
    s->lease = (struct share_lease){true, mode, time_of(s).us + left_us, time_of(s).us, 4, taken_over_us};
    share_set_holder(&s->share, &s->lease, time_of(s));
}

static void lose_lease(uint32_t i)
{
    region.sidecars[i].lease = (struct share_lease){0};
    share_set_holder(&region.sidecars[i].share, &region.sidecars[i].lease, time_of(&region.sidecars[i]));
}

/* Everybody has the same rules, and the first the lease. */
static void begin(void)
{
    for (uint32_t i = 0; i < SIDECARS; i++) {
        set_rules(i, 0);
    }
    hold(0, STRONG_READY, LEASE);
    region_talk();
}

static void confirm(uint64_t rules, uint64_t deadline_us)
{
    struct sidecar *s = &region.sidecars[0];
    memset(&confirmation, 0, sizeof confirmation);
    confirmation.digest = digest_of(rules);
    confirmation.deadline_us = time_of(s).us + deadline_us;
    confirmation.on_done = on_done;
    share_confirm(&s->share, &confirmation, time_of(s));
}

static const char *problem(uint32_t i)
{
    return share_problem(&region.sidecars[i].share, time_of(&region.sidecars[i]).us);
}

START_TEST(others_have_what_is_left)
{
    hold(0, STRONG_READY, LEASE - 400 * MS);
    for (uint32_t i = 0; i < SIDECARS; i++) {
        ck_assert_str_ne(problem(i), "");
        set_rules(i, 0);
    }
    uint64_t until = region.now + LEASE - 400 * MS;
    region_talk();
    for (uint32_t i = 0; i < SIDECARS; i++) {
        struct sidecar *s = &region.sidecars[i];
        ck_assert_uint_eq(as_now(s, s->share.serve_until_us), until);
        ck_assert_uint_eq(as_now(s, s->share.lock_until_us), until);
        ck_assert_uint_eq(s->share.number, 4);
        ck_assert_str_eq(problem(i), "");
    }
    region_run(LEASE); /* never renewed */
    for (uint32_t i = 0; i < SIDECARS; i++) {
        ck_assert(!is_serving(&region.sidecars[i]) && !is_locking(&region.sidecars[i]));
        ck_assert_str_ne(problem(i), "");
    }
    hold(0, STRONG_READY, LEASE);
    region_run(LEASE / 3);
    ck_assert(is_serving(&region.sidecars[1]));
}
END_TEST

START_TEST(they_ask_every_third_of_the_lease)
{
    begin();
    uint32_t asked = region.sidecars[1].asked, beacons = region.sidecars[0].beacons;
    for (int i = 0; i < 30; i++) {
        hold(0, STRONG_READY, LEASE);
        region_run(LEASE / 3);
        ck_assert(is_serving(&region.sidecars[1]));
    }
    ck_assert_uint_le(region.sidecars[1].asked - asked, 31);
    ck_assert_uint_le(region.sidecars[0].beacons - beacons, 31);
    ck_assert_uint_ge(region.sidecars[0].beacons - beacons, 29);
    ck_assert_uint_eq(region.sidecars[1].beacons, 0);
    ck_assert_uint_eq(region.sidecars[0].asked, 0);
}
END_TEST

static uint64_t slow(struct region *r)
{
    return 150 * MS;
}

START_TEST(time_counts_from_before_the_question)
{
    struct sidecar *s = &region.sidecars[1];
    begin();
    region_run(LEASE / 2);
    hold(0, STRONG_READY, LEASE);
    region.delay_us = slow;
    uint64_t asked = s->share.request;
    while (s->share.request == asked) {
        region_run(10 * MS);
    }
    uint64_t at = s->share.asking.at.us, left = as_now(&region.sidecars[0], region.sidecars[0].share.serve_until_us) - (as_now(s, at) + 150 * MS);
    region_run(290 * MS);
    ck_assert_uint_lt(s->share.serve_until_us, at + left); /* that of the time before */
    region_run(50 * MS);
    ck_assert_uint_eq(s->share.serve_until_us, at + left);
}
END_TEST

START_TEST(while_it_waits_there_are_locks_only)
{
    for (uint32_t i = 0; i < SIDECARS; i++) {
        set_rules(i, 0);
    }
    hold(0, STRONG_TAKING, LEASE);
    region_run(200 * MS);
    ck_assert(!is_locking(&region.sidecars[0]) && !is_locking(&region.sidecars[1]));
    hold(0, STRONG_WAITING, LEASE);
    region_run(30 * MS);
    ck_assert(is_locking(&region.sidecars[0]) && is_locking(&region.sidecars[1]));
    ck_assert(!is_serving(&region.sidecars[0]) && !is_serving(&region.sidecars[1]));
    hold(0, STRONG_READY, LEASE);
    region_run(30 * MS); /* the beacon tells */
    ck_assert(is_serving(&region.sidecars[0]) && is_serving(&region.sidecars[1]));
}
END_TEST

START_TEST(a_share_is_of_one_digest)
{
    struct sidecar *s = &region.sidecars[1];
    begin();
    ck_assert(is_serving(s));
    set_rules(1, 1); /* a rule that the holder does not have yet */
    ck_assert(!is_serving(s) && is_locking(s));
    region_run(200 * MS);
    ck_assert(!is_serving(s));
    ck_assert_uint_ge(s->asked, 3); /* again and again, */
    ck_assert_uint_le(s->asked, 15); /* within reason */
    set_rules(0, 1);
    region_run(30 * MS);
    ck_assert(is_serving(s));
    ck_assert(is_serving(&region.sidecars[2])); /* what it was given it was given */
    region_run(LEASE);
    ck_assert(!is_serving(&region.sidecars[2]));
    hold(0, STRONG_READY, LEASE);
    region_run(LEASE);
    ck_assert(!is_serving(&region.sidecars[2]));
    ck_assert_uint_le(region.sidecars[2].asked, 40); /* it tries less often by and by */
    set_rules(2, 1);
    hold(0, STRONG_READY, LEASE);
    region_run(30 * MS);
    ck_assert(is_serving(&region.sidecars[2]));
}
END_TEST

START_TEST(what_is_not_known_is_nobodys_digest)
{
    hold(0, STRONG_READY, LEASE);
    region_run(LEASE / 2);
    for (uint32_t i = 0; i < SIDECARS; i++) {
        ck_assert(!is_serving(&region.sidecars[i]));
        ck_assert_uint_eq(region.sidecars[i].asked, 0);
    }
    set_rules(1, 0);
    region_run(100 * MS);
    ck_assert_uint_gt(region.sidecars[1].asked, 0);
    ck_assert(!is_serving(&region.sidecars[1])); /* the holder's is not known */
    struct message m = {.kind = MESSAGE_ASK, .sidecar = 999, .voters = 7, .ring = 8, .digest = 0, .wall_ms = time_of(&region.sidecars[0]).wall_ms};
    share_on_ask(&region.sidecars[0].share, &m, "_INBOX.x.a.1", time_of(&region.sidecars[0]));
    ck_assert_uint_eq(region.sidecars[0].share.grant_count, 0);
}
END_TEST

static struct message answer_of(const struct sidecar *s, uint64_t digest, uint64_t left_us)
{
    return (struct message){.kind = MESSAGE_ANSWER, .mode = STRONG_READY, .sidecar = 100, .voters = 7, .ring = 8, .number = 4,
                            .digest = digest, .left_us = left_us, .wall_ms = time_of(s).wall_ms};
}

static void answer(struct sidecar *s, uint64_t number, const struct message *m)
{
    char bytes[MESSAGE_MAX];
    struct incoming incoming = {.subject = "", .reply = "", .description = "", .data = span_of(bytes, message_write(m, bytes))};
    share_on_answer(&s->share, number, &incoming, time_of(s));
}

/* It has heard a beacon, and asked. */
static struct sidecar *asking(void)
{
    struct sidecar *s = &region.sidecars[1];
    struct message m = {.kind = MESSAGE_BEACON, .mode = STRONG_READY, .sidecar = 100, .voters = 7, .ring = 8, .digest = digest_of(0), .number = 4,
                        .inbox = SPAN_LIT("_INBOX.x")};
    set_rules(1, 0);
    share_on_beacon(&s->share, &m, time_of(s));
    share_step(&s->share, time_of(s));
    ck_assert_uint_eq(s->share.asking.number, 1);
    return s;
}

START_TEST(nobody_has_more_than_a_lease)
{
    struct sidecar *s = asking();
    struct message m = answer_of(s, digest_of(0), UINT64_MAX);
    uint64_t until = time_of(s).us + LEASE;
    region.now += 20 * MS;
    answer(s, 1, &m);
    ck_assert_uint_eq(s->share.serve_until_us, until);
}
END_TEST

START_TEST(answers_that_are_of_no_use)
{
    struct sidecar *s = asking();
    struct message good = answer_of(s, digest_of(0), LEASE), bad = good;
    answer(s, 2, &good); /* to what was not asked */
    ck_assert(!is_locking(s));
    struct incoming junk = {.subject = "", .reply = "", .description = "", .data = SPAN_LIT("junk")};
    share_on_answer(&s->share, 1, &junk, time_of(s));
    for (int i = 0; i < 6; i++) {
        region.now += LEASE;
        share_step(&s->share, time_of(s));
        bad = good = answer_of(s, digest_of(0), LEASE);
        switch (i) {
        case 0: bad.number = 6; break; /* of another lease than the beacon told of; asked anew */
        case 1: bad.number = 4; break;
        case 2: bad.mode = 77; break;
        case 3: bad.kind = MESSAGE_ASK; break;
        case 4: bad.status = MESSAGE_NODE; break;
        default: bad.left_us = 0;
        }
        ck_assert_uint_ne(s->share.asking.number, 0);
        answer(s, s->share.asking.number, &bad);
        ck_assert_msg(!is_locking(s) && !is_serving(s), "%d", i);
    }
    region.now += LEASE;
    share_step(&s->share, time_of(s));
    good = answer_of(s, digest_of(0), LEASE);
    answer(s, s->share.asking.number, &good);
    ck_assert(is_serving(s));
    region.now += LEASE / 3;
    share_step(&s->share, time_of(s));
    good = answer_of(s, digest_of(0), LEASE);
    good.number = 6; /* the first that is heard of the next lease */
    good.mode = STRONG_WAITING;
    answer(s, s->share.asking.number, &good);
    region.now += LEASE / 10;
    share_step(&s->share, time_of(s));
    good.wall_ms = time_of(s).wall_ms;
    answer(s, s->share.asking.number, &good);
    ck_assert_uint_eq(s->share.number, 6);
    ck_assert(!is_serving(s) && is_locking(s)); /* what was given of the one before is over */
}
END_TEST

/* The digest changes between question and answer, away and away again. */
START_TEST(an_answer_is_for_the_digest_of_its_question)
{
    struct sidecar *s = &region.sidecars[1];
    begin();
    region.delay_us = slow;
    set_rules(1, 1);
    set_rules(1, 0);
    ck_assert(!is_serving(s));
    region_run(50 * MS);
    ck_assert_uint_ne(s->share.asking.number, 0);
    uint64_t number = s->share.asking.number;
    struct message m = answer_of(s, digest_of(1), LEASE);
    answer(s, number, &m); /* for another digest */
    ck_assert(!is_serving(s));
    m.digest = digest_of(0);
    answer(s, number, &m); /* twice: the first one counts */
    answer(s, 0, &m);
    ck_assert(!is_serving(s));
    region_run(500 * MS);
    ck_assert(is_serving(s));
}
END_TEST

START_TEST(who_is_different_gets_nothing)
{
    region.sidecars[1].share.context.ring = 9;
    region.sidecars[2].share.context.voters = 9;
    begin();
    ck_assert(!is_locking(&region.sidecars[1]) && !is_locking(&region.sidecars[2]) && is_serving(&region.sidecars[3]));
    ck_assert_uint_eq(region.sidecars[1].asked, 1);
    ck_assert_uint_eq(region.sidecars[2].asked, 0);
    ck_assert_ptr_nonnull(strstr(problem(2), "voters"));
    region.sidecars[3].share.context.ring = 9; /* its pool has changed */
    region_run(LEASE / 3 + 10 * MS);
    ck_assert(!is_locking(&region.sidecars[3]));
}
END_TEST

START_TEST(clocks_that_differ)
{
    region.sidecars[1].wall_offset_ms = SKEW_MS + 1;
    region.sidecars[2].wall_offset_ms = -SKEW_MS - 1;
    region.sidecars[3].wall_offset_ms = SKEW_MS;
    region.sidecars[4].wall_offset_ms = -SKEW_MS;
    begin();
    ck_assert(!is_locking(&region.sidecars[1]) && !is_locking(&region.sidecars[2]));
    ck_assert(is_serving(&region.sidecars[3]) && is_serving(&region.sidecars[4]));
    uint64_t errors = metrics_sum(metric_registry_metrics(region.registry), METRIC_ERRORS, metric_index2(SOURCE_CLOCK, ERR_COUNT, ERR_INVALID));
    ck_assert_uint_eq(errors, 2);
    ck_assert_ptr_nonnull(strstr(problem(2), "clock"));
    region.sidecars[3].wall_offset_ms = 10 * SKEW_MS; /* it is set while it has a share */
    region_run(LEASE / 3 + 10 * MS);
    ck_assert(!is_serving(&region.sidecars[3]) && !is_locking(&region.sidecars[3]));
    region.sidecars[3].wall_offset_ms = region.sidecars[1].wall_offset_ms = region.sidecars[2].wall_offset_ms = 0;
    hold(0, STRONG_READY, LEASE);
    region_run(LEASE / 3 + 10 * MS);
    ck_assert(is_serving(&region.sidecars[1]) && is_serving(&region.sidecars[2]) && is_serving(&region.sidecars[3]));
}
END_TEST

/* A question that was long under way is none of a clock that is behind, and gets nothing. */
START_TEST(the_holder_looks_at_clocks_too)
{
    struct sidecar *s = &region.sidecars[0];
    begin();
    uint32_t grants = s->share.grant_count;
    struct message m = {.kind = MESSAGE_ASK, .sidecar = 999, .voters = 7, .ring = 8, .digest = digest_of(0)};
    const int64_t refused[] = {-(int64_t)(SKEW_MS + LEASE / 2000 + 1), SKEW_MS + 1};
    const int64_t given[] = {-(int64_t)(SKEW_MS + LEASE / 2000), SKEW_MS};
    for (int i = 0; i < 2; i++) {
        m.wall_ms = time_of(s).wall_ms + (uint64_t)refused[i];
        share_on_ask(&s->share, &m, "_INBOX.x.a.1", time_of(s));
        ck_assert_uint_eq(s->share.grant_count, grants);
    }
    m.wall_ms = UINT64_MAX;
    share_on_ask(&s->share, &m, "_INBOX.x.a.1", time_of(s));
    ck_assert_uint_eq(s->share.grant_count, grants);
    for (int i = 0; i < 2; i++) {
        m.sidecar++;
        m.wall_ms = time_of(s).wall_ms + (uint64_t)given[i];
        share_on_ask(&s->share, &m, "_INBOX.x.a.1", time_of(s));
        ck_assert_uint_eq(s->share.grant_count, ++grants);
    }
}
END_TEST

START_TEST(only_inboxes_are_written_to)
{
    static const char *const bad[] = {"", "x", "_INBOX.", "_INBOX", "_INBOX.*", "_INBOX.>", "_INBOX.a.*", "_INBOX.a..b", "_INBOX.a.", "_INBOX..a", "_INBOX.a b",
                                      "_INBOX.a\r\nPUB x", "$JS.API.STREAM.DELETE.x", "outrigger.strong.west.lock", "_INBOX.\xc3\xa4",
                                      "_INBOX.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    struct sidecar *s = &region.sidecars[1];
    for (int i = 0; i < SIDECARS; i++) {
        set_rules((uint32_t)i, 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct message m = {.kind = MESSAGE_BEACON, .sidecar = 5, .voters = 7, .ring = 8, .digest = digest_of(0), .number = 4, .inbox = span_str(bad[i])};
        share_on_beacon(&s->share, &m, time_of(s));
        share_step(&s->share, time_of(s));
        ck_assert_uint_eq(s->asked, 0);
        hold(0, STRONG_READY, LEASE);
        m = (struct message){.kind = MESSAGE_ASK, .sidecar = 5, .voters = 7, .ring = 8, .digest = digest_of(0), .wall_ms = time_of(s).wall_ms};
        share_on_ask(&region.sidecars[0].share, &m, bad[i], time_of(&region.sidecars[0]));
        ck_assert_uint_eq(region.sidecars[0].share.grant_count, 0);
    }
    ck_assert(share_is_inbox(SPAN_LIT("_INBOX.outrigger-00ff.a.17")));
    struct message own = {.kind = MESSAGE_BEACON, .sidecar = 101, .voters = 7, .number = 4, .inbox = SPAN_LIT("_INBOX.x")};
    share_on_beacon(&s->share, &own, time_of(s));
    ck_assert_str_eq(s->share.holder, "");
}
END_TEST

START_TEST(silence_and_refusals_are_tried_again)
{
    struct sidecar *s = &region.sidecars[1];
    begin();
    region.sidecars[0].is_cut = true;
    region_run(LEASE + LEASE / 3); /* at the end of the share */
    ck_assert(!is_serving(s));
    ck_assert_uint_ge(s->asked, 4);
    ck_assert_uint_le(s->asked, 10);
    region.sidecars[0].is_cut = false;
    hold(0, STRONG_READY, LEASE);
    region_run(700 * MS); /* the silence of the last one, and the pause behind it */
    ck_assert(is_serving(s));
    uint32_t asked = s->asked;
    hold(0, STRONG_READY, 0); /* it has no lease any more */
    region_run(2 * LEASE);
    ck_assert(!is_serving(s));
    ck_assert_uint_le(s->asked - asked, 40);
    while (s->share.asking.number == 0) {
        share_step(&s->share, time_of(s));
        region.now += 10 * MS;
    }
    struct incoming nobody = {.subject = "", .reply = "", .status = STATUS_NO_RESPONDERS, .description = "", .data = SPAN_LIT("")};
    share_on_answer(&s->share, s->share.asking.number, &nobody, time_of(s));
    asked = s->asked;
    region.sidecars[0].is_cut = true;
    region_run(LEASE);
    ck_assert_uint_eq(s->asked, asked); /* there is nobody to be asked */
}
END_TEST

START_TEST(another_holder)
{
    struct sidecar *s = &region.sidecars[2];
    begin();
    lose_lease(0);
    ck_assert(!is_serving(&region.sidecars[0]));
    ck_assert(is_serving(s)); /* within what it was given */
    hold(1, STRONG_READY, LEASE);
    region_run(LEASE / 2);
    ck_assert(is_serving(&region.sidecars[0]) && is_serving(&region.sidecars[1]) && is_serving(s));
    ck_assert_str_eq(s->share.holder, region.sidecars[1].inbox);
    struct message m = {.kind = MESSAGE_BEACON, .sidecar = 100, .voters = 7, .ring = 8, .digest = digest_of(0), .number = 2, .inbox = SPAN_LIT("_INBOX.x")};
    share_on_beacon(&s->share, &m, time_of(s)); /* of an older lease */
    ck_assert_str_eq(s->share.holder, region.sidecars[1].inbox);
    m.number = 6; /* of a newer one */
    share_on_beacon(&s->share, &m, time_of(s));
    ck_assert_str_eq(s->share.holder, "_INBOX.x");
    ck_assert(!is_serving(s) && !is_locking(s));
}
END_TEST

START_TEST(so_many_may_have_one)
{
    struct sidecar *s = &region.sidecars[0];
    set_rules(0, 0);
    hold(0, STRONG_READY, LEASE);
    s->is_cut = true; /* nobody wants its answers */
    struct message m = {.kind = MESSAGE_ASK, .voters = 7, .ring = 8, .digest = digest_of(0), .wall_ms = time_of(s).wall_ms};
    for (m.sidecar = 1000; m.sidecar < 1000 + SHARE_GRANTS_MAX + 10; m.sidecar++) {
        share_on_ask(&s->share, &m, "_INBOX.x.a.1", time_of(s));
    }
    ck_assert_uint_eq(s->share.grant_count, SHARE_GRANTS_MAX);
    region.now += LEASE / 2;
    hold(0, STRONG_READY, LEASE);
    m.wall_ms = time_of(s).wall_ms;
    m.sidecar = 1000; /* has one, and may have more of it */
    share_on_ask(&s->share, &m, "_INBOX.x.a.1", time_of(s));
    ck_assert_uint_eq(s->share.grants[0].until_us, time_of(s).us + LEASE + LEASE / 20);
    region.now += LEASE / 2 + LEASE / 20;
    hold(0, STRONG_READY, LEASE);
    m.wall_ms = time_of(s).wall_ms;
    m.sidecar = 5; /* all but that one have run out */
    share_on_ask(&s->share, &m, "_INBOX.x.a.1", time_of(s));
    ck_assert_uint_eq(s->share.grant_count, 2);
}
END_TEST

START_TEST(a_rule_is_confirmed_when_all_have_asked_anew)
{
    begin();
    region.now += 10 * MS;
    set_rules(0, 1);
    confirm(1, 2 * LEASE);
    ck_assert_uint_ne(share_renew_from_us(&region.sidecars[0].share), 0);
    hold(0, STRONG_READY, LEASE);
    ck_assert_uint_eq(share_renew_from_us(&region.sidecars[0].share), 0);
    region_run(200 * MS);
    ck_assert_uint_eq(done, 0);
    for (uint32_t i = 1; i < SIDECARS; i++) {
        ck_assert_uint_eq(done, 0);
        set_rules(i, 1);
        region_run(100 * MS);
    }
    ck_assert_uint_eq(done, 1);
    ck_assert_int_eq(confirmation.err, OK);
    confirm(1, 2 * LEASE); /* all have it, and that is known */
    region.now += 10 * MS;
    hold(0, STRONG_READY, LEASE);
    region_talk();
    ck_assert_uint_eq(done, 2);
}
END_TEST

START_TEST(a_rule_is_confirmed_when_shares_have_run_out)
{
    struct sidecar *s = &region.sidecars[0];
    begin();
    uint64_t begun = region.now;
    for (uint32_t i = 1; i < SIDECARS; i++) {
        region.sidecars[i].is_paused = true;
    }
    region.now += 10 * MS;
    set_rules(0, 1);
    confirm(1, 2 * LEASE);
    while (done == 0 && region.now < begun + 2 * LEASE) {
        hold(0, STRONG_READY, LEASE);
        region_run(20 * MS);
    }
    ck_assert_int_eq(confirmation.err, OK);
    ck_assert_uint_ge(region.now, begun + LEASE);
    ck_assert_uint_le(region.now, begun + LEASE + LEASE / 20 + 40 * MS);
    ck_assert_uint_eq(s->share.grant_count, 0);
}
END_TEST

START_TEST(after_a_take_over_unknown_shares_have_to_run_out)
{
    struct sidecar *s = &region.sidecars[0];
    set_rules(0, 1);
    s->lease = (struct share_lease){true, STRONG_READY, time_of(s).us + LEASE, time_of(s).us, 4, time_of(s).us};
    share_set_holder(&s->share, &s->lease, time_of(s));
    region.now += 10 * MS;
    confirm(1, 2 * LEASE);
    hold(0, STRONG_READY, LEASE);
    region_run(LEASE);
    ck_assert_uint_eq(done, 0);
    region_run(LEASE / 20);
    ck_assert_uint_eq(done, 1);
    ck_assert_int_eq(confirmation.err, OK);
}
END_TEST

START_TEST(a_holder_that_may_have_been_replaced_confirms_nothing)
{
    begin();
    for (uint32_t i = 0; i < SIDECARS; i++) {
        set_rules(i, 1);
    }
    region_run(100 * MS);
    confirm(1, 2 * LEASE);
    region_run(2 * LEASE - 50 * MS); /* all shares have run out, but the lease is not renewed */
    ck_assert_uint_eq(done, 0);
    region_run(100 * MS);
    ck_assert_uint_eq(done, 1);
    ck_assert_int_eq(confirmation.err, ERR_TIMEOUT);
    hold(0, STRONG_READY, LEASE);
    region.now += 10 * MS;
    confirm(1, 2 * LEASE);
    lose_lease(0);
    ck_assert_uint_eq(done, 2);
    ck_assert_int_eq(confirmation.err, ERR_UNAVAILABLE);
    confirm(1, 2 * LEASE);
    ck_assert_uint_eq(done, 3);
    ck_assert_int_eq(confirmation.err, ERR_UNAVAILABLE);
}
END_TEST

START_TEST(so_many_confirmations_at_a_time)
{
    struct sidecar *s = &region.sidecars[0];
    struct share_confirmation *many = xcalloc(SHARE_CONFIRMATIONS_MAX + 1, sizeof *many);
    begin();
    set_rules(0, 1);
    for (uint32_t i = 0; i <= SHARE_CONFIRMATIONS_MAX; i++) {
        many[i] = (struct share_confirmation){.digest = digest_of(1), .deadline_us = time_of(s).us + 10 * LEASE, .on_done = on_done};
        share_confirm(&s->share, &many[i], time_of(s));
    }
    ck_assert_uint_eq(done, 1);
    ck_assert_int_eq(many[SHARE_CONFIRMATIONS_MAX].err, ERR_OVERLOAD);
    for (uint32_t i = 1; i < SIDECARS; i++) {
        set_rules(i, 1);
    }
    hold(0, STRONG_READY, LEASE);
    region_run(200 * MS);
    ck_assert_uint_eq(done, SHARE_CONFIRMATIONS_MAX + 1);
    ck_assert_int_eq(many[0].err, OK);
    ck_assert_int_eq(many[SHARE_CONFIRMATIONS_MAX - 1].err, OK);
    free(many);
    confirm(1, 2 * LEASE);
    share_stop(&s->share);
    ck_assert_int_eq(confirmation.err, ERR_STOPPING);
    confirm(1, 2 * LEASE);
    ck_assert_int_eq(confirmation.err, ERR_STOPPING);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("strong/share");
    TCase *tc = tcase_create("share");
    tcase_add_checked_fixture(tc, setup, region_end);
    tcase_add_test(tc, others_have_what_is_left);
    tcase_add_test(tc, they_ask_every_third_of_the_lease);
    tcase_add_test(tc, time_counts_from_before_the_question);
    tcase_add_test(tc, while_it_waits_there_are_locks_only);
    tcase_add_test(tc, a_share_is_of_one_digest);
    tcase_add_test(tc, what_is_not_known_is_nobodys_digest);
    tcase_add_test(tc, nobody_has_more_than_a_lease);
    tcase_add_test(tc, answers_that_are_of_no_use);
    tcase_add_test(tc, an_answer_is_for_the_digest_of_its_question);
    tcase_add_test(tc, who_is_different_gets_nothing);
    tcase_add_test(tc, clocks_that_differ);
    tcase_add_test(tc, the_holder_looks_at_clocks_too);
    tcase_add_test(tc, only_inboxes_are_written_to);
    tcase_add_test(tc, silence_and_refusals_are_tried_again);
    tcase_add_test(tc, another_holder);
    tcase_add_test(tc, so_many_may_have_one);
    tcase_add_test(tc, a_rule_is_confirmed_when_all_have_asked_anew);
    tcase_add_test(tc, a_rule_is_confirmed_when_shares_have_run_out);
    tcase_add_test(tc, after_a_take_over_unknown_shares_have_to_run_out);
    tcase_add_test(tc, a_holder_that_may_have_been_replaced_confirms_nothing);
    tcase_add_test(tc, so_many_confirmations_at_a_time);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
