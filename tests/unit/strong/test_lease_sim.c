/* What: the region's lease, its take-overs and its suspensions in worlds that go wrong at random (sim.h). In each: nothing is promised to two, a region that a write has left
 *       out does not serve before that write has passed its fence, and once all is quiet the region serves again. Without one of the guards that is seen to fail.
 *
 * SIM_SEED=n runs that world and prints its steps; SIM_SEEDS=n runs so many. SIM_GUARD=n leaves that guard out.
 */
#include "tests/unit/check_main.h"
#include "tests/unit/strong/sim.h"

#define SEEDS 300
#define CHAOS (12 * S)

static struct sim totals;

static uint32_t number_of(const char *name, uint32_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? (uint32_t)strtoul(text, NULL, 10) : otherwise;
}

/* --- what goes wrong --- */

static void begin_to_wait(struct sim *sim, struct sidecar *s)
{
    if (list_is_linked(&s->waiter.link) || sim->now_us < s->paused_until_us) {
        return;
    }
    s->waiter.deadline_us = sim->now_us + LEASE + sim_random(sim, 4 * LEASE);
    if (suspension_wait(&s->suspension, &s->waiter, sim->now_us) == OK) {
        sim_trace(sim, "sidecar %u suspends the region", s->index);
    }
    s->due_us = sim->now_us;
}

static void change_holder(struct sim *sim, uint32_t next)
{
    for (uint32_t i = 0; i < HOLDERS; i++) {
        sim_elect(sim, i, i == next, i == next ? sim_random(sim, 500 * MS) : sim_random(sim, 2 * S)); /* for a while there may be two, or none */
    }
}

static void hear_of_number(struct sim *sim, struct sidecar *s)
{
    uint64_t number = 0;
    for (uint32_t i = 0; i < HOLDERS; i++) {
        const struct holder *h = &sim->sidecars[i].holder;
        number = h->phase != HOLDER_IDLE ? MAX(number, h->number) : number;
    }
    if (sim->now_us >= s->paused_until_us) {
        suspension_on_number(&s->suspension, number);
        s->due_us = sim->now_us;
    }
}

static void mischief(struct sim *sim)
{
    struct sidecar *s = &sim->sidecars[sim_random(sim, SIDECARS)];
    struct line *line = &s->lines[sim_random(sim, sim->voter_count)];
    uint32_t place = (uint32_t)sim_random(sim, sim->voter_count);
    uint64_t dice = sim_random(sim, 100);
    sim->is_pool_whole = sim_random(sim, 8) != 0;
    if (dice < 15) {
        s->paused_until_us = sim->now_us + sim_random(sim, sim_random(sim, 3) == 0 ? 3 * LEASE : LEASE / 4);
        sim_trace(sim, "sidecar %u stands still until %.3f", s->index, (double)s->paused_until_us / 1e6);
    } else if (dice < 30) {
        line->cut_until_us = sim->now_us + sim_random(sim, 3 * LEASE);
    } else if (dice < 42) {
        sim_break_line(sim, line);
    } else if (dice < 47) {
        sim_break_voter(sim, place, sim_random(sim, 2 * S), false);
    } else if (dice < 52) {
        sim_break_voter(sim, place, sim_random(sim, S), sim_may_lose(sim, place));
    } else if (dice < 60) {
        change_holder(sim, (uint32_t)sim_random(sim, HOLDERS));
    } else if (dice < 63) {
        sim_trace(sim, "sidecar %u is started anew", s->index);
        sim_start(sim, s->index);
    } else if (dice < 67) {
        suspension_cancel(&s->suspension, &s->waiter);
    } else if (dice < 72) {
        hear_of_number(sim, s);
    } else if (sim->now_us % (8 * S) < 3 * S) { /* now and then, so that the region comes back in between */
        begin_to_wait(sim, s);
    }
}

/* --- the world --- */

static void run(struct sim *sim, uint64_t us)
{
    uint64_t until_us = sim->now_us + us;
    while (sim->violation[0] == '\0' && sim_turn(sim, until_us)) {
    }
}

static void calm_down(struct sim *sim)
{
    sim_trace(sim, "quiet");
    sim->is_quiet = sim->is_pool_whole = true;
    for (uint32_t i = 0; i < SIDECARS; i++) {
        struct sidecar *s = &sim->sidecars[i];
        s->paused_until_us = 0;
        suspension_cancel(&s->suspension, &s->waiter);
        for (uint32_t k = 0; k < sim->voter_count; k++) {
            s->lines[k].cut_until_us = 0;
        }
    }
    run(sim, 6 * S); /* what is under way still */
    for (uint32_t i = 0; i < HOLDERS; i++) {
        sim_elect(sim, i, i == 1, 10 * MS);
    }
    run(sim, 20 * MS);
}

/* Whether what is quiet gets where it should. */
static void recover(struct sim *sim, const char *what)
{
    run(sim, 5 * S + (WINDOW + LEASE) * 21 / 20);
    if (sim->violation[0] == '\0' && !holder_is_ready(&sim->sidecars[1].holder, sim->now_us)) {
        snprintf(sim->violation, sizeof sim->violation, "%s: the region does not serve: %s", what, holder_problem(&sim->sidecars[1].holder, sim->now_us));
    }
}

static void suspend(struct sim *sim)
{
    struct sidecar *s = &sim->sidecars[3];
    s->waited = ERR_COUNT;
    s->waiter.deadline_us = sim->now_us + 3 * LEASE;
    if (suspension_wait(&s->suspension, &s->waiter, sim->now_us) == OK) {
        s->due_us = sim->now_us;
        run(sim, 3 * LEASE);
    }
    if (sim->violation[0] == '\0' && s->waited != OK) {
        snprintf(sim->violation, sizeof sim->violation, "the region could not be suspended");
    }
}

/* False: a promise was broken. */
static bool live(uint64_t seed, uint32_t broken_guard, bool is_traced)
{
    struct sim *sim = sim_create(seed, seed % 4 == 3 ? 5 : 3, broken_guard);
    sim->is_traced = is_traced;
    change_holder(sim, 0);
    run(sim, seed % 3 == 0 ? 100 * MS : 3 * S + WINDOW);
    for (uint64_t until_us = sim->now_us + CHAOS; sim->now_us < until_us && sim->violation[0] == '\0';) {
        run(sim, sim_random(sim, seed % 2 == 0 ? 200 * MS : S)); /* a storm, or weather */
        mischief(sim);
    }
    calm_down(sim);
    recover(sim, "after the chaos");
    suspend(sim);
    recover(sim, "after a suspension");
    bool is_well = sim->violation[0] == '\0';
    if (!is_well && broken_guard == GUARD_NONE) {
        fprintf(stderr, "SIM_SEED=%" PRIu64 ": %s\n", seed, sim->violation);
    }
    totals.readies += sim->readies;
    totals.comebacks += sim->comebacks;
    totals.takeovers += sim->takeovers;
    totals.proofs += sim->proofs;
    totals.losses += sim->losses;
    sim_destroy(sim);
    return is_well;
}

/* --- what is too seldom to be waited for --- */

static void cut(struct sim *sim, uint32_t sidecar, uint32_t voter)
{
    sim->sidecars[sidecar].lines[voter].cut_until_us = UINT64_MAX;
}

/* A voter that has the suspension loses its data, and hears of the holder first; which knows of another voter only, that has not heard of the suspension. */
static bool lose_a_suspension(uint32_t broken_guard, bool is_late)
{
    struct sim *sim = sim_create(7, 3, broken_guard);
    struct sidecar *holding = &sim->sidecars[0], *suspending = &sim->sidecars[3];
    sim->is_quiet = true;
    sim->is_traced = getenv("SIM_TRACE") != NULL;
    sim_elect(sim, 0, true, 0);
    run(sim, 6 * S);
    ck_assert(holder_is_ready(&holding->holder, sim->now_us));
    while (sim->now_us > holding->holder.renewed_us + 60 * MS) {
        run(sim, MS);
    }
    cut(sim, 0, 0);
    cut(sim, 0, 1);
    for (uint32_t i = 0; i < sim->voter_count; i++) { /* the suspender does not get to the voter south */
        suspending->lines[i].cut_until_us = suspending->lines[i].place == 2 ? UINT64_MAX : 0;
    }
    suspending->waiter.deadline_us = UINT64_MAX;
    suspending->waited = ERR_COUNT;
    ck_assert_int_eq(suspension_wait(&suspending->suspension, &suspending->waiter, sim->now_us), OK);
    suspending->due_us = sim->now_us;
    while (suspending->suspension.over_us == UINT64_MAX) { /* confirmed */
        run(sim, MS);
    }
    run(sim, is_late ? 800 * MS : 0);
    sim_break_voter(sim, 0, 0, true);
    struct line *line = &holding->lines[0];
    line->cut_until_us = 0;
    sim_push(sim, &(struct event){.kind = RECONNECT, .sidecar = 0, .voter = 0, .epoch = line->epoch}, 5 * MS);
    run(sim, 3 * S);
    bool is_well = sim->violation[0] == '\0' && suspending->waited == OK;
    sim_destroy(sim);
    return is_well;
}

START_TEST(a_voter_loses_a_suspension)
{
    ck_assert(lose_a_suspension(GUARD_NONE, false));
    ck_assert(lose_a_suspension(GUARD_NONE, true));
    ck_assert(!lose_a_suspension(GUARD_STRONG_BLANK_VOTE, false)); /* the lease is valid still, and renewed */
    ck_assert(!lose_a_suspension(GUARD_STRONG_CREATE, true));      /* it is not, and the record is made all the same */
}
END_TEST

START_TEST(promises_are_kept)
{
    if (getenv("SIM_SEED") != NULL) {
        ck_assert(live(number_of("SIM_SEED", 0), number_of("SIM_GUARD", GUARD_NONE), true));
        return;
    }
    uint32_t seeds = number_of("SIM_SEEDS", SEEDS);
    uint32_t broken = 0;
    for (uint32_t seed = 0; seed < seeds; seed++) {
        broken += !live(seed, number_of("SIM_GUARD", GUARD_NONE), false);
    }
    printf("%u worlds: served %u times, %u after a comeback, %u after a take-over; left out %u times; data lost %u times\n", seeds, totals.readies, totals.comebacks,
           totals.takeovers, totals.proofs, totals.losses);
    ck_assert_uint_eq(broken, 0);
    ck_assert_uint_gt(totals.readies, seeds);
    ck_assert_uint_gt(totals.takeovers, seeds / 4);
    ck_assert_uint_gt(totals.proofs, seeds);
    ck_assert_uint_gt(totals.losses, seeds / 4);
}
END_TEST

/* Each guard is there for a reason, which a world shows in which it is not. */
START_TEST(a_guard_that_is_missing_is_noticed)
{
    static const uint32_t guards[] = {GUARD_STRONG_LEASE_WAIT, GUARD_STRONG_FROM_SENDING, GUARD_STRONG_COMEBACK_WAIT, GUARD_STRONG_PROOF_AGE};
    uint32_t seed = 0;
    while (live(seed, guards[_i], false)) {
        ck_assert_uint_lt(++seed, 20 * SEEDS);
    }
    printf("without guard %u: broken in world %u\n", guards[_i], seed);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("strong/lease_sim");
    TCase *tc = tcase_create("lease_sim");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, promises_are_kept);
    if (getenv("SIM_SEED") == NULL && getenv("SIM_GUARD") == NULL) {
        tcase_add_loop_test(tc, a_guard_that_is_missing_is_noticed, 0, 4);
        tcase_add_test(tc, a_voter_loses_a_suspension);
    }
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
