#include "proxy/database/breaker.h"

#include "tests/unit/check_main.h"

#define MS 1000ULL

static struct breaker b;

static void setup(void)
{
    breaker_init(&b, 3, 7);
}

/* Opens it at a time; when the next trial may be. */
static uint64_t open_at(uint64_t now)
{
    while (!breaker_failure(&b, now)) {
    }
    ck_assert_int_eq(b.state, BREAKER_OPEN);
    return b.until_us;
}

START_TEST(it_opens_after_failures_in_a_row)
{
    for (int i = 0; i < 5; i++) {
        ck_assert(!breaker_failure(&b, MS));
        ck_assert(!breaker_failure(&b, MS));
        ck_assert(breaker_admits(&b, MS));
        breaker_success(&b);
    }
    ck_assert(!breaker_failure(&b, MS));
    ck_assert(!breaker_failure(&b, MS));
    ck_assert(breaker_failure(&b, MS));
    ck_assert(!breaker_admits(&b, MS));
    ck_assert(!breaker_failure(&b, MS)); /* what was under way already */
}
END_TEST

START_TEST(one_trial_at_a_time)
{
    uint64_t until = open_at(MS);
    ck_assert(!breaker_admits(&b, until - 1));
    ck_assert(breaker_admits(&b, until));
    ck_assert_int_eq(b.state, BREAKER_HALF_OPEN);
    ck_assert(!breaker_admits(&b, until));
    ck_assert(!breaker_admits(&b, until + 1000 * MS));
    breaker_success(&b);
    ck_assert(breaker_admits(&b, until + 1000 * MS));
    ck_assert(breaker_admits(&b, until + 1000 * MS));
}
END_TEST

START_TEST(a_trial_that_is_lost_is_followed_by_another)
{
    uint64_t until = open_at(MS);
    ck_assert(breaker_admits(&b, until));
    ck_assert(!breaker_admits(&b, until + BREAKER_MAX_MS * MS - 1));
    ck_assert(breaker_admits(&b, until + BREAKER_MAX_MS * MS));
    ck_assert(!breaker_admits(&b, until + BREAKER_MAX_MS * MS));
}
END_TEST

START_TEST(the_back_off_doubles_within_its_bounds)
{
    uint64_t now = MS;
    uint64_t expected = BREAKER_MIN_MS * MS;
    open_at(now);
    for (int i = 0; i < 40; i++) {
        uint64_t wait = b.until_us - now;
        ck_assert_uint_ge(wait, expected / 2);
        ck_assert_uint_lt(wait, expected);
        expected = expected * 2 < BREAKER_MAX_MS * MS ? expected * 2 : BREAKER_MAX_MS * MS;
        now = b.until_us;
        ck_assert(breaker_admits(&b, now));
        ck_assert(breaker_failure(&b, now)); /* one is enough for a trial */
    }
    breaker_success(&b);
    open_at(now);
    ck_assert_uint_lt(b.until_us - now, BREAKER_MIN_MS * MS); /* short again */
}
END_TEST

START_TEST(two_sidecars_do_not_come_back_together)
{
    int different = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct breaker other;
        breaker_init(&b, 1, seed);
        breaker_init(&other, 1, seed + 1000);
        breaker_failure(&b, 0);
        breaker_failure(&other, 0);
        different += b.until_us != other.until_us;
    }
    ck_assert_int_ge(different, 18);
}
END_TEST

START_TEST(a_sign_of_life_brings_the_trial_forward)
{
    uint64_t until = open_at(MS);
    breaker_retry(&b);
    ck_assert(breaker_admits(&b, until - 1));
    ck_assert(!breaker_admits(&b, until - 1));
    breaker_retry(&b); /* not a second one */
    ck_assert(!breaker_admits(&b, until - 1));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("breaker");
    TCase *tc = tcase_create("breaker");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, it_opens_after_failures_in_a_row);
    tcase_add_test(tc, one_trial_at_a_time);
    tcase_add_test(tc, a_trial_that_is_lost_is_followed_by_another);
    tcase_add_test(tc, the_back_off_doubles_within_its_bounds);
    tcase_add_test(tc, two_sidecars_do_not_come_back_together);
    tcase_add_test(tc, a_sign_of_life_brings_the_trial_forward);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
