/* What: elections against a scripted bucket: several candidates, lost answers, a bucket that is lost. Time is the test's. */
#include <unistd.h>

#include "proxy/bus/election.h"
#include "tests/unit/bus/fake_bucket.h"
#include "tests/unit/check_main.h"

#define LEASE (3 * S)
#define CANDIDATES 4
#define SLOTS 2

struct candidate {
    struct fake *fake;
    struct election election;
    bool is_dead; /* does nothing any more */
    bool is_deaf; /* what it sends gets there, and it never hears of it */
    bool is_mute; /* what it sends does not get there */
};

static struct candidate candidates[CANDIDATES];
static struct bucket bucket;
static struct log *test_log;
static uint64_t now;

static void setup(void)
{
    memset(&bucket, 0, sizeof bucket);
    memset(candidates, 0, sizeof candidates);
    now = 1000 * S;
    test_log = log_create(STDERR_FILENO, LOG_ERROR);
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        struct candidate *c = &candidates[i];
        c->fake = fake_create();
        struct election_context context = {&fake_config, &c->fake->transport, test_log, "relay", SLOTS, LEASE, 'e', 17 + i};
        election_init(&c->election, &context, now);
    }
}

static void teardown(void)
{
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        fake_destroy(candidates[i].fake);
    }
    log_destroy(&test_log);
}

/* Everything that was sent is answered, in the order of the candidates; false if that was nothing. */
static bool talk_once(void)
{
    bool was_any = false;
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        struct candidate *c = &candidates[i];
        struct sent sent[64];
        uint32_t count = c->fake->count;
        ck_assert_uint_le(count, 64);
        memcpy(sent, c->fake->sent, count * sizeof sent[0]);
        c->fake->count = 0;
        for (uint32_t k = 0; k < count; k++) {
            char text[512];
            was_any = true;
            if (!c->is_mute) {
                struct incoming answer = bucket_answer(&bucket, &sent[k], text, sizeof text);
                if (!c->is_deaf && !c->is_dead) {
                    ck_assert_int_eq(strncmp(sent[k].reply, "_INBOX.test.e.", 14), 0);
                    election_on_answer(&c->election, fake_number(&sent[k]), &answer, now);
                }
            }
            free(sent[k].data);
        }
    }
    return was_any;
}

/* Until there is no more to say. */
static void talk(void)
{
    while (talk_once()) {
    }
}

static void run(uint64_t us)
{
    for (uint64_t until = now + us; now < until; now += 100 * MS) {
        for (uint32_t i = 0; i < CANDIDATES; i++) {
            if (!candidates[i].is_dead) {
                ck_assert_uint_gt(election_step(&candidates[i].election, now), 0);
            }
        }
        talk();
    }
}

static void up(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        election_on_up(&candidates[i].election, now);
    }
    talk();
    run(100 * MS);
}

/* Who thinks that it has a slot. */
static uint32_t winners(void)
{
    uint32_t set = 0;
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        set |= !candidates[i].is_dead && election_is_won(&candidates[i].election) ? 1U << i : 0;
    }
    return set;
}

/* How many slots have a holder, as the bucket says. */
static uint32_t slots_held(void)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < SLOTS; i++) {
        char subject[SUBJECT_MAX];
        snprintf(subject, sizeof subject, "$KV.ROLES_west.relay.%u", i);
        count += bucket_entry(&bucket, subject)->data[0] != '\0';
    }
    return count;
}

static uint32_t one_of(uint32_t set)
{
    return (uint32_t)__builtin_ctz(set);
}

START_TEST(as_many_as_there_are_slots)
{
    up(1);
    ck_assert_uint_eq(winners(), 1); /* one alone has one slot, and no more */
    ck_assert_uint_eq(bucket.seq, 1);
    ck_assert(!election_is_lost(&candidates[0].election, false));
    up(CANDIDATES);
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS);
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        bool is_won = election_is_won(&candidates[i].election);
        ck_assert_int_eq(election_is_lost(&candidates[i].election, false), !is_won);
        ck_assert(!election_is_lost(&candidates[i].election, true)); /* nobody has been seen to renew yet */
    }
    uint32_t before = winners();
    run(20 * LEASE);
    ck_assert_uint_eq(winners(), before); /* they renew */
    ck_assert_uint_ge(bucket.seq, 2 * 3 * 19);
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        struct election *e = &candidates[i].election;
        ck_assert_int_eq(election_is_lost(e, true), !election_is_won(e));
        ck_assert(!election_is_silent(e, LEASE, now));
        ck_assert(!election_is_won(e) || e->until_us > now);
    }
}
END_TEST

START_TEST(a_dead_holder_is_replaced_within_the_lease)
{
    up(CANDIDATES);
    run(LEASE);
    uint32_t before = winners();
    uint32_t dead = one_of(before);
    candidates[dead].is_dead = true;
    run(LEASE / 2);
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS - 1); /* not at once */
    run(LEASE);
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS);
    ck_assert_uint_eq(winners() & (before ^ 1U << dead), before ^ 1U << dead); /* and the other stays */
    candidates[dead].is_dead = false; /* it was only frozen, and finds out */
    run(LEASE);
    ck_assert(!election_is_won(&candidates[dead].election));
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS);
}
END_TEST

START_TEST(a_slot_given_back_is_taken_at_once)
{
    up(CANDIDATES);
    run(LEASE);
    uint32_t leaver = one_of(winners());
    ck_assert(election_resign(&candidates[leaver].election, now));
    ck_assert(election_is_resigning(&candidates[leaver].election));
    ck_assert_str_eq(fake_last(candidates[leaver].fake)->kv_operation, "DEL");
    talk();
    ck_assert(!election_is_resigning(&candidates[leaver].election));
    ck_assert(!election_is_won(&candidates[leaver].election));
    run(LEASE / 3 + 200 * MS);
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS);
    run(3 * LEASE);
    ck_assert(!election_is_won(&candidates[leaver].election)); /* it takes none any more */
    uint32_t loser = one_of(~winners() & 15U & ~(1U << leaver));
    ck_assert(!election_resign(&candidates[loser].election, now)); /* nothing to give back */
}
END_TEST

START_TEST(giving_back_while_a_renewal_is_under_way)
{
    up(1);
    struct election *e = &candidates[0].election;
    now += LEASE / 3;
    election_step(e, now);
    ck_assert_uint_eq(candidates[0].fake->count, 1); /* it will get there first, and change the number */
    ck_assert(election_resign(e, now));
    talk();
    ck_assert(!election_is_resigning(e));
    ck_assert_uint_eq(slots_held(), 0);
}
END_TEST

START_TEST(ending_while_the_bucket_is_being_looked_for)
{
    up(1);
    struct election *e = &candidates[0].election;
    ck_assert(election_is_won(e));
    election_on_down(e);
    ck_assert(!election_resign(e, now)); /* nobody hears it */
    e->is_resigning = false;
    election_on_up(e, now);
    ck_assert_int_eq(e->state, ELECTION_FINDING);
    ck_assert(election_resign(e, now));
    ck_assert(election_is_resigning(e));
    ck_assert_str_eq(fake_last(candidates[0].fake)->kv_operation, "DEL");
    talk();
    ck_assert(!election_is_resigning(e));
    ck_assert(!election_is_won(e));
    ck_assert_uint_eq(slots_held(), 0);
}
END_TEST

/* … and does not wait for what will not come. */
START_TEST(giving_back_to_a_bucket_that_takes_nothing)
{
    up(1);
    struct election *e = &candidates[0].election;
    election_on_down(e);
    bucket.is_full = true;
    election_on_up(e, now);
    ck_assert(election_resign(e, now));
    talk();
    ck_assert(!election_is_resigning(e));
}
END_TEST

/* Who ends while it takes a slot must not leave it to nobody for a lease. */
START_TEST(ending_while_a_slot_is_being_taken)
{
    up(SLOTS);
    up(SLOTS + 1);
    struct election *late = &candidates[SLOTS].election;
    ck_assert(!election_is_won(late));
    election_resign(&candidates[0].election, now);
    candidates[0].is_dead = true;
    talk();
    now += LEASE / 3 + 100 * MS;
    election_step(late, now);
    talk_once(); /* it sees the empty slot, and writes */
    ck_assert_uint_eq(candidates[SLOTS].fake->count, 1);
    ck_assert(!election_is_won(late));
    ck_assert(election_resign(late, now));
    ck_assert(election_is_resigning(late));
    talk();
    ck_assert(!election_is_resigning(late));
    ck_assert(!election_is_won(late));
    ck_assert_uint_eq(slots_held(), SLOTS - 1);
}
END_TEST

/* The write gets there, and its answer does not come back. */
START_TEST(a_lost_answer)
{
    up(1);
    struct election *e = &candidates[0].election;
    candidates[0].is_deaf = true;
    run(LEASE / 3 + 100 * MS);
    uint64_t seq = bucket.seq;
    ck_assert_uint_gt(seq, 1);
    candidates[0].is_deaf = false;
    run(LEASE / 3 + 100 * MS); /* refused, looked at, and found to be its own */
    ck_assert(election_is_won(e));
    ck_assert_uint_gt(bucket.seq, seq);
    ck_assert_uint_gt(e->until_us, now);
    run(2 * LEASE);
    ck_assert(election_is_won(e));
}
END_TEST

/* The write gets there, its answer does not, and another slot falls free meanwhile: who takes that one has two, and renews one of them. */
START_TEST(a_slot_whose_taking_had_no_answer_is_the_first_to_be_tried_again)
{
    up(SLOTS);
    up(SLOTS + 1);
    struct election *e = &candidates[SLOTS].election;
    struct fake *fake = candidates[SLOTS].fake;
    uint32_t other = candidates[0].election.own;
    e->backoff.random = other; /* it would begin with that one */
    candidates[1].is_dead = true;
    for (uint32_t i = 0; e->writing == 0; i++) {
        ck_assert_uint_lt(i, 100);
        talk();
        now += 100 * MS;
        election_step(&candidates[0].election, now);
        e->due_us = now; /* all are looked at, and the dead one's slot is taken once the lease has passed */
        election_step(e, now);
    }
    uint32_t slot = e->writing_slot;
    ck_assert_uint_ne(slot, other);
    ck_assert_uint_eq(fake->count, SLOTS + 1);
    struct sent sent[SLOTS + 1];
    memcpy(sent, fake->sent, sizeof sent);
    fake->count = 0;
    ck_assert(election_resign(&candidates[0].election, now));
    talk();
    for (uint32_t i = 0; i < SLOTS + 1; i++) {
        char text[512];
        struct incoming answer = bucket_answer(&bucket, &sent[i], text, sizeof text);
        if (i < SLOTS) {
            election_on_answer(e, fake_number(&sent[i]), &answer, now);
        }
        free(sent[i].data);
    }
    ck_assert(!election_is_won(e));
    now = e->due_us;
    election_step(e, now);
    ck_assert_uint_ne(e->writing, 0);
    ck_assert_uint_eq(e->writing_slot, slot);
    talk(); /* refused, looked at, and found to be its own */
    ck_assert(election_is_won(e));
    ck_assert_uint_eq(e->own, slot);
    run(LEASE / 2);
    ck_assert_uint_eq(slots_held(), 1);
}
END_TEST

/* The server answers what it is asked and what is published to it by different hands: a look may be answered after the write that was sent
 * behind it, with what was there before. */
START_TEST(a_look_that_was_overtaken_by_a_write)
{
    const char *entry = "$KV.ROLES_west.relay.";
    up(SLOTS);
    up(SLOTS + 1);
    struct election *e = &candidates[SLOTS].election;
    struct fake *fake = candidates[SLOTS].fake;
    for (uint32_t i = 0; i < SLOTS; i++) {
        candidates[i].is_dead = true;
    }
    for (; fake->count < SLOTS + 1; now += 100 * MS) { /* both slots are looked at and, since the lease has passed, one of them is taken */
        fake_clear(fake);
        election_step(e, now);
        if (fake->count == SLOTS) {
            talk();
        }
    }
    struct sent sent[SLOTS + 1];
    memcpy(sent, fake->sent, sizeof sent);
    fake->count = 0;
    char texts[SLOTS + 1][512];
    struct incoming answers[SLOTS + 1];
    for (uint32_t i = 0; i < SLOTS + 1; i++) {
        answers[i] = bucket_answer(&bucket, &sent[i], texts[i], sizeof texts[i]);
    }
    ck_assert_int_eq(strncmp(sent[SLOTS].subject, entry, strlen(entry)), 0);
    for (uint32_t i = SLOTS + 1; i-- > 0;) {
        election_on_answer(e, fake_number(&sent[i]), &answers[i], now);
        free(sent[i].data);
    }
    ck_assert(election_is_won(e));
    ck_assert_uint_gt(e->until_us, now);
    ck_assert_uint_eq(fake->count, 0);
    ck_assert(election_resign(e, now)); /* and it is given back if the end comes now */
    talk();
    ck_assert_uint_eq(slots_held(), SLOTS - 1);
}
END_TEST

START_TEST(who_is_cut_off_keeps_what_it_had_until_it_hears_better)
{
    up(CANDIDATES);
    run(LEASE);
    uint32_t before = winners();
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        election_on_down(&candidates[i].election);
    }
    run(5 * LEASE);
    ck_assert_uint_eq(winners(), before);
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        ck_assert(election_is_silent(&candidates[i].election, 4 * LEASE, now));
        ck_assert(!election_is_lost(&candidates[i].election, false));
    }
    for (uint32_t i = CANDIDATES; i-- > 0;) { /* those that have none are the first to be back, and wait all the same */
        election_on_up(&candidates[i].election, now);
        talk();
        run(100 * MS);
    }
    ck_assert_uint_eq(winners(), before);
    run(2 * LEASE);
    ck_assert_uint_eq(winners(), before);
}
END_TEST

START_TEST(one_is_cut_off_and_loses_its_slot)
{
    up(CANDIDATES);
    run(LEASE);
    uint32_t cut = one_of(winners());
    candidates[cut].is_mute = true;
    run(2 * LEASE);
    ck_assert(election_is_won(&candidates[cut].election)); /* for all it knows */
    ck_assert_uint_lt(candidates[cut].election.until_us, now);
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS + 1);
    candidates[cut].is_mute = false;
    run(LEASE);
    ck_assert(!election_is_won(&candidates[cut].election));
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS);
}
END_TEST

START_TEST(a_bucket_that_is_lost_is_made_anew)
{
    up(CANDIDATES);
    run(LEASE);
    uint32_t before = winners();
    memset(&bucket, 0, sizeof bucket);
    run(5 * LEASE);
    ck_assert(bucket.is_there);
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS);
    ck_assert_int_ne(before & winners(), 0);
}
END_TEST

START_TEST(a_bucket_that_takes_nothing_is_as_good_as_none)
{
    bucket.is_full = true;
    up(CANDIDATES);
    run(2 * LEASE);
    ck_assert_uint_eq(winners(), 0);
    for (uint32_t i = 0; i < CANDIDATES; i++) {
        ck_assert(election_is_silent(&candidates[i].election, LEASE, now));
    }
    bucket.is_full = false;
    run(6 * S);
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS);
}
END_TEST

START_TEST(a_bucket_that_is_being_made_is_asked_for_nothing)
{
    bucket.making = 5; /* fake_bucket.h fails a candidate that looks, or writes, before */
    up(CANDIDATES);
    ck_assert_uint_eq(winners(), 0);
    run(4 * S);
    ck_assert_uint_eq(bucket.making, 0);
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS);
    ck_assert_uint_eq(bucket.created, 1);
    for (uint32_t i = 0; i < CANDIDATES; i++) { /* the server is restarted, without its store */
        election_on_down(&candidates[i].election);
        fake_clear(candidates[i].fake);
    }
    bucket_lose(&bucket);
    bucket.making = 5;
    up(CANDIDATES);
    run(20 * S);
    ck_assert_int_eq(__builtin_popcount(winners()), SLOTS);
    ck_assert_uint_eq(bucket.created, 2);
}
END_TEST

START_TEST(nonsense_is_not_heeded)
{
    static const char *const texts[] = {"", "{", "[]", "{}", "{\"stream\":1,\"seq\":\"x\"}", "{\"stream\":\"OTHER\",\"seq\":7}",
                                        "{\"message\":7}", "{\"message\":{\"seq\":-1,\"data\":7}}", "{\"error\":{}}"};
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        teardown();
        setup();
        struct election *e = &candidates[0].election;
        election_on_up(e, now);
        for (uint64_t number = 0; number < 20; number++) {
            struct incoming message = fake_answer(texts[i]);
            election_on_answer(e, number, &message, now);
            election_step(e, now);
            now += 500 * MS;
        }
        ck_assert(!election_is_won(e));
        fake_clear(candidates[0].fake);
        up(1);
        ck_assert(election_is_won(e));
    }
}
END_TEST

START_TEST(a_transport_that_takes_nothing)
{
    candidates[0].fake->answer = ERR_OVERLOAD;
    up(1);
    run(2 * LEASE);
    ck_assert(!election_is_won(&candidates[0].election));
    candidates[0].fake->answer = OK;
    run(6 * S);
    ck_assert(election_is_won(&candidates[0].election));
    candidates[0].fake->answer = ERR_UNAVAILABLE;
    ck_assert(!election_resign(&candidates[0].election, now));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus/election");
    TCase *tc = tcase_create("election");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, as_many_as_there_are_slots);
    tcase_add_test(tc, a_dead_holder_is_replaced_within_the_lease);
    tcase_add_test(tc, a_slot_given_back_is_taken_at_once);
    tcase_add_test(tc, giving_back_while_a_renewal_is_under_way);
    tcase_add_test(tc, ending_while_the_bucket_is_being_looked_for);
    tcase_add_test(tc, giving_back_to_a_bucket_that_takes_nothing);
    tcase_add_test(tc, ending_while_a_slot_is_being_taken);
    tcase_add_test(tc, a_lost_answer);
    tcase_add_test(tc, a_slot_whose_taking_had_no_answer_is_the_first_to_be_tried_again);
    tcase_add_test(tc, a_look_that_was_overtaken_by_a_write);
    tcase_add_test(tc, who_is_cut_off_keeps_what_it_had_until_it_hears_better);
    tcase_add_test(tc, one_is_cut_off_and_loses_its_slot);
    tcase_add_test(tc, a_bucket_that_is_lost_is_made_anew);
    tcase_add_test(tc, a_bucket_that_takes_nothing_is_as_good_as_none);
    tcase_add_test(tc, a_bucket_that_is_being_made_is_asked_for_nothing);
    tcase_add_test(tc, nonsense_is_not_heeded);
    tcase_add_test(tc, a_transport_that_takes_nothing);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
