/* What: the region's lease against scripted voters: the first comeback, renewals, suspensions, take-overs, lost records, a pool that is not whole. Time is the test's. */
#include "proxy/strong/holder.h"
#include "tests/unit/strong/voters.h"

#define WAIT ((WINDOW + LEASE) * 21 / 20)
#define RING 0xabcU
#define SIDECARS 2

static struct world w; /* the first sidecar's voters; the second has its own connections to the same buckets */
static struct sidecar {
    struct holder holder;
    struct fake *fakes[VOTERS];
    struct vote votes[VOTERS];
    struct voters voters;
    uint32_t rules;
    uint32_t changes;
} sidecars[SIDECARS];
static struct holder *h;
static bool is_whole;
static enum err rule_err; /* ERR_COUNT: no answer yet */

static bool is_pool_whole(void *ctx)
{
    return is_whole;
}

static void on_rule(void *ctx, struct holder *holder)
{
    ((struct sidecar *)ctx)->rules++;
    if (rule_err != ERR_COUNT) {
        holder_rule_done(holder, rule_err, w.now_us);
    }
}

static void on_change(void *ctx, struct holder *holder)
{
    ((struct sidecar *)ctx)->changes++;
}

static void setup(void)
{
    world_begin(&w);
    is_whole = true;
    rule_err = OK;
    for (uint32_t k = 0; k < SIDECARS; k++) {
        struct sidecar *s = &sidecars[k];
        *s = (struct sidecar){.voters.count = VOTERS};
        for (uint32_t i = 0; i < VOTERS; i++) {
            s->fakes[i] = fake_create();
            struct vote_context context = {&fake_config, &s->fakes[i]->transport, w.log, i, 'v', 5 + i};
            vote_init(&s->votes[i], &context);
            s->voters.all[i] = &s->votes[i];
        }
        struct holder_context context = {&fake_config, w.log, &s->voters, RING, 100 + k, s, is_pool_whole, on_rule, on_change};
        holder_init(&s->holder, &context);
    }
    h = &sidecars[0].holder;
}

static void teardown(void)
{
    for (uint32_t k = 0; k < SIDECARS; k++) {
        holder_deinit(&sidecars[k].holder);
        for (uint32_t i = 0; i < VOTERS; i++) {
            fake_destroy(sidecars[k].fakes[i]);
        }
    }
    world_end(&w);
}

static void talk(uint32_t k)
{
    struct sidecar *s = &sidecars[k];
    for (bool was_any = true; was_any;) {
        was_any = false;
        for (uint32_t i = 0; i < VOTERS; i++) {
            while (s->fakes[i]->count > 0) {
                struct sent sent = s->fakes[i]->sent[--s->fakes[i]->count];
                char text[512];
                was_any = true;
                if (!w.is_mute[i]) {
                    struct incoming message = bucket_answer(&w.buckets[i], &sent, text, sizeof text);
                    vote_on_answer(&s->votes[i], fake_number(&sent), &message, w.now_us);
                }
                free(sent.data);
            }
        }
    }
}

static void step(void)
{
    for (uint32_t k = 0; k < SIDECARS; k++) {
        holder_step(&sidecars[k].holder, w.now_us);
        for (uint32_t i = 0; i < VOTERS; i++) {
            vote_step(&sidecars[k].votes[i], w.now_us);
        }
        talk(k);
    }
}

static void run(uint64_t us)
{
    for (uint64_t until_us = w.now_us + us; w.now_us < until_us; w.now_us += 50 * MS) {
        step();
    }
    step();
}

static void up(void)
{
    for (uint32_t k = 0; k < SIDECARS; k++) {
        for (uint32_t i = 0; i < VOTERS; i++) {
            vote_on_up(&sidecars[k].votes[i], w.now_us);
        }
        talk(k);
    }
    w.now_us += LEASE;
}

static void hold(uint64_t number, bool is_ready, uint64_t ring, uint64_t holder)
{
    for (uint32_t i = 0; i < VOTERS; i++) {
        world_write(&w, i, "west", (struct lease_record){number, is_ready, ring, holder});
    }
}

/* The first sidecar holds the lease, with number 2. */
static void begin_held(void)
{
    up();
    hold(2, true, RING, 55);
    holder_set_elected(h, true, w.now_us);
    run(100 * MS);
    ck_assert_int_eq(h->mode, STRONG_READY);
    ck_assert(holder_is_ready(h, w.now_us));
}

/* The same, while one voter does not answer. */
static void begin_held_at_two(void)
{
    w.is_mute[2] = false;
    up();
    w.is_mute[2] = true;
    hold(2, true, RING, 55);
    holder_set_elected(h, true, w.now_us);
    run(100 * MS);
    ck_assert(holder_is_ready(h, w.now_us));
}

START_TEST(the_first_time)
{
    up();
    ck_assert_uint_eq(holder_step(h, w.now_us), UINT64_MAX);
    ck_assert_ptr_null(holder_problem(h, w.now_us));
    holder_set_elected(h, true, w.now_us);
    step();
    ck_assert_int_eq(h->mode, STRONG_WAITING);
    ck_assert_uint_eq(h->number, 2);
    ck_assert_uint_eq(h->valid_until_us, w.now_us + LEASE);
    struct lease_record record = world_record(&w, 1, "west");
    ck_assert(record.number == 2 && !record.is_ready && record.ring == RING && record.holder == 100);
    ck_assert_str_eq(holder_problem(h, w.now_us), "it was away, and serves in 14 s");
    rule_err = ERR_COUNT;
    run(WAIT - 100 * MS);
    ck_assert_int_eq(h->mode, STRONG_WAITING);
    ck_assert_uint_eq(sidecars[0].rules, 0);
    run(200 * MS);
    ck_assert_uint_eq(sidecars[0].rules, 1);
    run(LEASE);
    ck_assert_uint_eq(sidecars[0].rules, 1); /* it is waited for */
    holder_rule_done(h, ERR_BUS, w.now_us);
    ck_assert_int_eq(h->mode, STRONG_WAITING);
    rule_err = OK;
    run(LEASE / 3 + 50 * MS);
    ck_assert_uint_eq(sidecars[0].rules, 2);
    ck_assert_int_eq(h->mode, STRONG_READY);
    ck_assert(world_record(&w, 0, "west").is_ready && world_record(&w, 1, "west").is_ready);
    ck_assert_ptr_null(holder_problem(h, w.now_us));
    ck_assert_uint_gt(sidecars[0].changes, 3);
}
END_TEST

START_TEST(ready_takes_a_majority)
{
    up();
    holder_set_elected(h, true, w.now_us);
    run(WAIT - 200 * MS);
    w.is_mute[0] = w.is_mute[1] = true;
    run(LEASE);
    ck_assert_uint_eq(sidecars[0].rules, 1);
    ck_assert_int_eq(h->mode, STRONG_WAITING);
    ck_assert(world_record(&w, 2, "west").is_ready);
    w.is_mute[0] = false;
    run(LEASE);
    ck_assert_int_eq(h->mode, STRONG_READY);
}
END_TEST

START_TEST(it_is_valid_from_before_it_was_sent)
{
    begin_held();
    w.is_mute[0] = true; /* and with two of three it goes on */
    run(5 * LEASE);
    ck_assert(holder_is_ready(h, w.now_us));
    while (h->due_us > w.now_us) {
        w.now_us += 50 * MS;
    }
    uint64_t sent_us = w.now_us;
    holder_step(h, w.now_us);
    w.now_us += 500 * MS; /* on its way */
    talk(0);
    ck_assert_uint_eq(h->valid_until_us, sent_us + LEASE);
    ck_assert_uint_eq(h->renewed_us, sent_us);
    w.is_mute[1] = true;
    run(LEASE);
    ck_assert_uint_eq(h->valid_until_us, sent_us + LEASE);
    ck_assert(!holder_is_ready(h, w.now_us));
    ck_assert_int_eq(h->mode, STRONG_READY);
    ck_assert_str_eq(holder_problem(h, w.now_us), "a majority of the voters has not answered yet");
    w.is_mute[1] = false; /* nobody has suspended it: it goes on */
    run(LEASE);
    ck_assert(holder_is_ready(h, w.now_us));
    ck_assert_uint_eq(h->number, 2);
}
END_TEST

START_TEST(it_was_suspended)
{
    begin_held();
    world_write(&w, 0, "west", (struct lease_record){.number = 5});
    run(LEASE / 3 + 50 * MS);
    ck_assert_int_eq(h->mode, STRONG_WAITING);
    ck_assert_uint_eq(h->number, 6);
    for (uint32_t i = 0; i < VOTERS; i++) {
        ck_assert(world_record(&w, i, "west").number == 6 && !world_record(&w, i, "west").is_ready);
    }
    run(WAIT + LEASE / 3);
    ck_assert_int_eq(h->mode, STRONG_READY);
    ck_assert_uint_eq(sidecars[0].rules, 1);
}
END_TEST

START_TEST(a_take_over)
{
    begin_held();
    uint64_t until_us = h->valid_until_us;
    ck_assert_uint_eq(sidecars[0].rules, 0);
    holder_set_elected(h, false, w.now_us);
    holder_set_elected(&sidecars[1].holder, true, w.now_us);
    step();
    ck_assert_int_eq(h->mode, STRONG_OUT);
    ck_assert_uint_eq(h->valid_until_us, until_us); /* it runs out */
    struct holder *next = &sidecars[1].holder;
    ck_assert_int_eq(next->mode, STRONG_READY);
    ck_assert_uint_eq(next->number, 2);
    ck_assert_uint_eq(next->taken_over_us, w.now_us);
    ck_assert_uint_eq(world_record(&w, 2, "west").holder, 101);
    uint64_t seq = w.buckets[0].seq;
    run(LEASE - 50 * MS);
    ck_assert_uint_le(w.buckets[0].seq, seq + 3); /* the first does nothing any more */
    ck_assert_uint_eq(sidecars[1].rules, 0);
}
END_TEST

/* Both think that they were elected: each steps back when it sees the other, and the lease is never both's for long. */
START_TEST(two_are_elected)
{
    begin_held();
    run(LEASE);
    struct holder *next = &sidecars[1].holder;
    holder_set_elected(next, true, w.now_us);
    step();
    ck_assert_int_eq(next->mode, STRONG_READY);
    run(LEASE / 3 + 50 * MS);
    ck_assert(h->mode != STRONG_READY || next->mode != STRONG_READY);
    holder_set_elected(h, false, w.now_us);
    run(LEASE);
    ck_assert(holder_is_ready(next, w.now_us));
    ck_assert_uint_eq(next->number, 2);
}
END_TEST

/* The voter was away when we took over; or another has taken over since, and went there first. Either way going over its name is a take-over. */
START_TEST(another_name_at_a_voter_that_was_away)
{
    begin_held_at_two();
    uint64_t taken_over_us = h->taken_over_us;
    run(LEASE);
    ck_assert_uint_eq(h->taken_over_us, taken_over_us);
    w.is_mute[2] = false;
    run(LEASE);
    ck_assert(holder_is_ready(h, w.now_us));
    ck_assert_uint_gt(h->taken_over_us, taken_over_us);
    ck_assert_uint_eq(world_record(&w, 2, "west").holder, 100);
    taken_over_us = h->taken_over_us;
    run(LEASE);
    ck_assert_uint_eq(h->taken_over_us, taken_over_us);
}
END_TEST

/* What is taken over is what has come to serve, with the same pool. */
START_TEST(what_is_no_take_over)
{
    static const struct lease_record records[] = {{3, false, 0, 0}, {4, false, RING, 55}, {4, true, RING + 1, 55}, {1, false, 0, 0}};
    static const uint64_t numbers[] = {4, 6, 6, 2};
    for (uint32_t i = 0; i < ARRAY_LEN(records); i++) {
        teardown();
        setup();
        up();
        hold(records[i].number, records[i].is_ready, records[i].ring, records[i].holder);
        holder_set_elected(h, true, w.now_us);
        step();
        ck_assert_int_eq(h->mode, STRONG_WAITING);
        ck_assert_uint_eq(h->number, numbers[i]);
    }
}
END_TEST

START_TEST(another_goes_for_the_same_number)
{
    up();
    w.is_mute[2] = true;
    holder_set_elected(h, true, w.now_us);
    step();
    ck_assert_int_eq(h->mode, STRONG_WAITING);
    w.is_mute[2] = false;
    world_write(&w, 2, "west", (struct lease_record){2, false, RING, 77});
    run(2 * LEASE / 3 + 100 * MS);
    ck_assert_uint_eq(h->number, 4);
    run(WAIT + LEASE);
    ck_assert(holder_is_ready(h, w.now_us));
}
END_TEST

START_TEST(a_voter_lost_its_data)
{
    begin_held();
    bucket_lose(&w.buckets[1]);
    run(2 * LEASE); /* it is made anew, is blank, and gets the record: the lease is valid all the time */
    ck_assert(holder_is_ready(h, w.now_us));
    ck_assert_uint_eq(world_record(&w, 1, "west").number, 2);
    w.is_mute[0] = w.is_mute[1] = true;
    run(2 * LEASE);
    ck_assert(!holder_is_ready(h, w.now_us));
    bucket_lose(&w.buckets[1]);
    w.is_mute[1] = false;
    run(LEASE + LEASE); /* it was lost while nothing was valid: whoever was there may have been suspended */
    ck_assert_uint_eq(h->number, 4);
    ck_assert_int_eq(h->mode, STRONG_WAITING);
}
END_TEST

START_TEST(a_missing_record_is_gone_round)
{
    up();
    hold(2, true, RING, 55);
    *world_entry(&w, 0, "west") = (struct bucket_entry){.seq = 0};
    holder_set_elected(h, true, w.now_us);
    run(LEASE);
    ck_assert_int_eq(h->mode, STRONG_READY); /* taken over at the two others; under that lease the third has it, too */
    ck_assert_uint_eq(h->number, 2);
    ck_assert_uint_eq(world_record(&w, 0, "west").number, 2);
}
END_TEST

START_TEST(a_node_is_away)
{
    up();
    is_whole = false;
    hold(3, false, 0, 0);
    holder_set_elected(h, true, w.now_us);
    run(LEASE);
    ck_assert_int_eq(h->mode, STRONG_OUT);
    ck_assert_uint_eq(world_record(&w, 0, "west").number, 3);
    ck_assert_str_eq(holder_problem(h, w.now_us), "a node of the pool is away, and the lease can not be taken without it");
    is_whole = true;
    run(LEASE);
    ck_assert_int_eq(h->mode, STRONG_WAITING);
    ck_assert_uint_eq(h->number, 4);
}
END_TEST

START_TEST(a_rule_of_an_earlier_comeback)
{
    up();
    rule_err = ERR_COUNT;
    holder_set_elected(h, true, w.now_us);
    run(WAIT + 100 * MS);
    ck_assert_uint_eq(sidecars[0].rules, 1);
    world_write(&w, 0, "west", (struct lease_record){.number = 3});
    run(4 * LEASE); /* it does not go for it at once */
    ck_assert_uint_eq(h->number, 4);
    holder_rule_done(h, OK, w.now_us);
    run(LEASE);
    ck_assert_int_eq(h->mode, STRONG_WAITING);
    rule_err = OK;
    run(WAIT);
    ck_assert_uint_eq(sidecars[0].rules, 2);
    ck_assert_int_eq(h->mode, STRONG_READY);
}
END_TEST

START_TEST(suspended_again_and_again)
{
    up();
    holder_set_elected(h, true, w.now_us);
    run(LEASE);
    ck_assert_int_eq(h->mode, STRONG_WAITING);
    uint64_t last_us = 0;
    for (uint32_t i = 0; i < 4; i++) { /* always before it is back: it tries again later and later */
        uint64_t number = h->number + 1;
        uint64_t from_us = w.now_us;
        world_write(&w, 0, "west", (struct lease_record){.number = number});
        while (h->number != number + 1) {
            run(100 * MS);
        }
        ck_assert_uint_gt(w.now_us - from_us, last_us);
        last_us = w.now_us - from_us;
    }
    run(WAIT + LEASE);
    ck_assert_int_eq(h->mode, STRONG_READY);
    uint64_t number = h->number + 1; /* once it has served it begins anew */
    world_write(&w, 0, "west", (struct lease_record){.number = number});
    run(LEASE);
    ck_assert_uint_eq(h->number, number + 1);
}
END_TEST

START_TEST(no_majority)
{
    holder_set_elected(h, true, w.now_us);
    run(LEASE);
    ck_assert_str_eq(holder_problem(h, w.now_us), "0 of 3 voters can be used, and 2 are needed");
    up();
    w.is_mute[0] = w.is_mute[1] = true;
    run(2 * LEASE);
    ck_assert_int_eq(h->mode, STRONG_OUT);
    ck_assert_uint_eq(world_record(&w, 2, "west").number, 0);
    w.is_mute[0] = false;
    run(LEASE);
    ck_assert_int_eq(h->mode, STRONG_WAITING);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("strong/holder");
    TCase *tc = tcase_create("holder");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, the_first_time);
    tcase_add_test(tc, ready_takes_a_majority);
    tcase_add_test(tc, it_is_valid_from_before_it_was_sent);
    tcase_add_test(tc, it_was_suspended);
    tcase_add_test(tc, a_take_over);
    tcase_add_test(tc, two_are_elected);
    tcase_add_test(tc, another_name_at_a_voter_that_was_away);
    tcase_add_test(tc, what_is_no_take_over);
    tcase_add_test(tc, another_goes_for_the_same_number);
    tcase_add_test(tc, a_voter_lost_its_data);
    tcase_add_test(tc, a_missing_record_is_gone_round);
    tcase_add_test(tc, a_node_is_away);
    tcase_add_test(tc, a_rule_of_an_earlier_comeback);
    tcase_add_test(tc, suspended_again_and_again);
    tcase_add_test(tc, no_majority);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
