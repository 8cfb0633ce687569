/* What: one region's suspension against scripted voters: when a wait is over, how long a proof is good, a region that comes back, voters that are away. Time is the test's. */
#include "proxy/strong/suspension.h"
#include "tests/unit/strong/voters.h"

#define WAIT (LEASE + LEASE / 20)
#define WAITERS 4

struct waiting {
    struct suspension_waiter waiter;
    enum err err; /* ERR_COUNT: has not ended */
};

static struct world w;
static struct suspension suspension;
static struct waiting waiting[WAITERS];

static void on_done(struct suspension_waiter *waiter, enum err err, uint64_t now_us)
{
    struct waiting *one = container_of(waiter, struct waiting, waiter);
    ck_assert_uint_eq(now_us, w.now_us);
    ck_assert_int_eq(one->err, ERR_COUNT);
    one->err = err;
}

static void setup(void)
{
    world_begin(&w);
    struct suspension_context context = {&fake_config, w.log, &w.voters, 1};
    suspension_init(&suspension, &context);
}

static void teardown(void)
{
    suspension_deinit(&suspension, w.now_us);
    world_end(&w);
}

static void step(void)
{
    suspension_step(&suspension, w.now_us);
    world_step(&w);
    world_talk(&w);
    suspension_step(&suspension, w.now_us);
}

static void run_until(uint64_t until_us)
{
    for (; w.now_us < until_us; w.now_us += 50 * MS) {
        step();
    }
    w.now_us = until_us;
    step();
}

static enum err begin(uint32_t i, uint64_t for_us)
{
    waiting[i].err = ERR_COUNT;
    waiting[i].waiter = (struct suspension_waiter){.on_done = on_done, .deadline_us = w.now_us + for_us};
    return suspension_wait(&suspension, &waiting[i].waiter, w.now_us);
}

static void hold(uint64_t number, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        world_write(&w, i, "east", (struct lease_record){.number = number, .is_ready = true, .ring = 1, .holder = 2});
    }
}

START_TEST(a_lease_after_the_proof)
{
    world_up(&w);
    hold(2, 0, VOTERS);
    uint64_t start_us = w.now_us;
    ck_assert(!suspension_is_proven(&suspension, w.now_us));
    ck_assert_int_eq(begin(0, 4 * LEASE), OK);
    step();
    for (uint32_t i = 0; i < VOTERS; i++) {
        struct lease_record record = world_record(&w, i, "east");
        ck_assert(record.number == 3 && !record.is_ready && record.holder == 0);
    }
    run_until(start_us + WAIT - 50 * MS);
    ck_assert_int_eq(waiting[0].err, ERR_COUNT);
    ck_assert(!suspension_is_proven(&suspension, w.now_us));
    run_until(start_us + WAIT);
    ck_assert_int_eq(waiting[0].err, OK);
    ck_assert(suspension_is_proven(&suspension, w.now_us)); /* the last proof is young */
    uint64_t proven_us = suspension.proven_us;
    ck_assert(suspension_is_proven(&suspension, proven_us + LEASE - 1));
    ck_assert(!suspension_is_proven(&suspension, proven_us + LEASE));
    ck_assert_uint_eq(suspension_step(&suspension, w.now_us), UINT64_MAX); /* nobody waits: nothing is done */
    w.now_us += 100 * S;
    uint64_t seq = w.buckets[0].seq;
    ck_assert_int_eq(begin(1, LEASE), OK);
    step(); /* proven once more, and no lease wait */
    ck_assert_int_eq(waiting[1].err, OK);
    ck_assert_uint_eq(w.buckets[0].seq, seq + 1);
    ck_assert(suspension_is_proven(&suspension, w.now_us));
    ck_assert_int_eq(begin(2, LEASE), OK);
    step(); /* not even that */
    ck_assert_int_eq(waiting[2].err, OK);
    ck_assert_uint_eq(w.buckets[0].seq, seq + 1);
}
END_TEST

START_TEST(a_region_that_never_was)
{
    world_up(&w);
    begin(0, 4 * LEASE);
    step();
    ck_assert_uint_eq(world_record(&w, 0, "east").number, 1);
    run_until(w.now_us + WAIT);
    ck_assert_int_eq(waiting[0].err, OK);
}
END_TEST

START_TEST(another_has_suspended_it)
{
    world_up(&w);
    hold(5, 0, VOTERS);
    uint64_t start_us = w.now_us;
    begin(0, 4 * LEASE);
    run_until(start_us + WAIT - 50 * MS);
    ck_assert_uint_eq(suspension.number, 5);
    ck_assert_int_eq(waiting[0].err, ERR_COUNT); /* since when is not known: the wait is the same */
    run_until(start_us + WAIT);
    ck_assert_int_eq(waiting[0].err, OK);
}
END_TEST

START_TEST(a_minority_is_away)
{
    world_up(&w);
    hold(2, 0, 2);
    hold(4, 2, VOTERS);
    w.is_mute[0] = true;
    uint64_t start_us = w.now_us;
    begin(0, 4 * LEASE);
    run_until(start_us + WAIT + 100 * MS);
    ck_assert_int_eq(waiting[0].err, OK);
    ck_assert_uint_eq(world_record(&w, 0, "east").number, 2);
    ck_assert_uint_eq(world_record(&w, 1, "east").number, 5);
    ck_assert_uint_eq(world_record(&w, 2, "east").number, 5);
}
END_TEST

START_TEST(no_majority)
{
    ck_assert_int_eq(begin(0, LEASE), ERR_UNAVAILABLE); /* not connected */
    world_up(&w);
    hold(2, 0, VOTERS);
    w.is_mute[0] = w.is_mute[1] = true; /* they look as if they were there */
    ck_assert_int_eq(begin(0, 2 * LEASE), OK);
    ck_assert_int_eq(begin(1, LEASE), OK);
    run_until(w.now_us + LEASE - MS);
    ck_assert_int_eq(waiting[1].err, ERR_COUNT);
    w.now_us += MS;
    step();
    ck_assert_int_eq(waiting[1].err, ERR_TIMEOUT);
    ck_assert_int_eq(waiting[0].err, ERR_COUNT);
    vote_on_down(&w.votes[0], w.now_us);
    step();
    ck_assert_int_eq(waiting[0].err, ERR_COUNT);
    vote_on_down(&w.votes[1], w.now_us);
    step();
    ck_assert_int_eq(waiting[0].err, ERR_UNAVAILABLE);
    ck_assert_int_eq(begin(0, LEASE), ERR_UNAVAILABLE);
}
END_TEST

/* It need not be out any more when the wait is over: what it fills then is newer than the write. */
START_TEST(a_region_that_comes_back_meanwhile)
{
    world_up(&w);
    hold(2, 0, VOTERS);
    uint64_t start_us = w.now_us;
    begin(0, 4 * LEASE);
    step();
    hold(4, 0, VOTERS);
    run_until(start_us + WAIT);
    ck_assert_int_eq(waiting[0].err, OK);
    ck_assert_uint_eq(world_record(&w, 0, "east").number, 4); /* it was left in peace */
    ck_assert(!suspension_is_proven(&suspension, w.now_us));
    begin(1, 4 * LEASE); /* too long after that proof */
    start_us = w.now_us;
    run_until(start_us + WAIT);
    ck_assert_uint_eq(world_record(&w, 0, "east").number, 5);
    ck_assert_int_eq(waiting[1].err, ERR_COUNT);
    run_until(start_us + WAIT + LEASE / 3 + 50 * MS);
    ck_assert_int_eq(waiting[1].err, OK);
}
END_TEST

START_TEST(it_says_that_it_is_back)
{
    world_up(&w);
    hold(2, 0, VOTERS);
    begin(0, 4 * LEASE);
    run_until(w.now_us + WAIT);
    ck_assert(suspension_is_proven(&suspension, w.now_us));
    suspension_on_number(&suspension, 2); /* late */
    ck_assert(suspension_is_proven(&suspension, w.now_us));
    suspension_on_number(&suspension, 4);
    ck_assert(!suspension_is_proven(&suspension, w.now_us));
}
END_TEST

/* One voter's answers only. */
static void talk_to(uint32_t voter)
{
    for (uint32_t i = 0; i < VOTERS; i++) {
        w.is_mute[i] = i != voter;
        while (i == voter && w.fakes[i]->count > 0) {
            struct sent sent = w.fakes[i]->sent[--w.fakes[i]->count];
            char text[512];
            struct incoming message = bucket_answer(&w.buckets[i], &sent, text, sizeof text);
            vote_on_answer(&w.votes[i], fake_number(&sent), &message, w.now_us);
            free(sent.data);
        }
    }
}

/* One of the two that count loses its data before the other has answered: the two have never had it at once. */
static void lose_in_between(void)
{
    world_up(&w);
    hold(2, 0, VOTERS);
    begin(0, 20 * LEASE);
    suspension_step(&suspension, w.now_us);
    talk_to(0);
    ck_assert_uint_eq(world_record(&w, 0, "east").number, 3);
    bucket_lose(&w.buckets[0]); /* and nobody here notices yet */
    talk_to(1);
    ck_assert_uint_eq(world_record(&w, 1, "east").number, 3);
    ck_assert_uint_eq(suspension.proven_us, w.now_us);
}

START_TEST(a_voter_that_loses_it_does_not_count)
{
    lose_in_between();
    run_until(w.now_us + 3 * LEASE);
    ck_assert_int_eq(waiting[0].err, ERR_COUNT);
    vote_on_up(&w.votes[0], w.now_us);
    w.is_mute[0] = false;
    uint64_t back_us = w.now_us;
    run_until(back_us + LEASE + WAIT - 50 * MS); /* blank, and then the wait of a majority that has it */
    ck_assert_int_eq(waiting[0].err, ERR_COUNT);
    run_until(back_us + LEASE + WAIT + LEASE);
    ck_assert_int_eq(waiting[0].err, OK);
}
END_TEST

/* … even if another has written the same there again. */
START_TEST(a_voter_that_was_told_again)
{
    lose_in_between();
    run_until(w.now_us + LEASE);
    vote_on_up(&w.votes[0], w.now_us);
    w.is_mute[0] = false;
    world_talk(&w);
    world_write(&w, 0, "east", (struct lease_record){.number = 3});
    uint64_t back_us = w.now_us;
    run_until(back_us + LEASE + WAIT - 50 * MS);
    ck_assert_int_eq(waiting[0].err, ERR_COUNT);
    run_until(back_us + LEASE + WAIT + LEASE);
    ck_assert_int_eq(waiting[0].err, OK);
}
END_TEST

START_TEST(cancelled_and_stopped)
{
    world_up(&w);
    hold(2, 0, VOTERS);
    begin(0, 4 * LEASE);
    suspension_cancel(&suspension, &waiting[0].waiter);
    suspension_cancel(&suspension, &waiting[0].waiter);
    step();
    ck_assert_uint_eq(world_record(&w, 0, "east").number, 2); /* nothing had been written */
    ck_assert_uint_eq(suspension.waiting, 0);
    begin(1, 4 * LEASE);
    step();
    suspension_deinit(&suspension, w.now_us);
    ck_assert_int_eq(waiting[0].err, ERR_COUNT);
    ck_assert_int_eq(waiting[1].err, ERR_STOPPING);
}
END_TEST

START_TEST(many_wait)
{
    static struct waiting many[SUSPENSION_WAITERS_MAX + 1];
    world_up(&w);
    hold(2, 0, VOTERS);
    for (uint32_t i = 0; i <= SUSPENSION_WAITERS_MAX; i++) {
        many[i].err = ERR_COUNT;
        many[i].waiter = (struct suspension_waiter){.on_done = on_done, .deadline_us = w.now_us + 4 * LEASE};
        ck_assert_int_eq(suspension_wait(&suspension, &many[i].waiter, w.now_us), i < SUSPENSION_WAITERS_MAX ? OK : ERR_OVERLOAD);
    }
    run_until(w.now_us + WAIT);
    for (uint32_t i = 0; i < SUSPENSION_WAITERS_MAX; i++) {
        ck_assert_int_eq(many[i].err, OK);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("strong/suspension");
    TCase *tc = tcase_create("suspension");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_lease_after_the_proof);
    tcase_add_test(tc, a_region_that_never_was);
    tcase_add_test(tc, another_has_suspended_it);
    tcase_add_test(tc, a_minority_is_away);
    tcase_add_test(tc, no_majority);
    tcase_add_test(tc, a_region_that_comes_back_meanwhile);
    tcase_add_test(tc, it_says_that_it_is_back);
    tcase_add_test(tc, a_voter_that_loses_it_does_not_count);
    tcase_add_test(tc, a_voter_that_was_told_again);
    tcase_add_test(tc, cancelled_and_stopped);
    tcase_add_test(tc, many_wait);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
