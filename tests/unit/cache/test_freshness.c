#include "proxy/cache/freshness.h"

#include "tests/unit/check_main.h"

#define AT(ms) ((uint64_t)(ms) << VERSION_MS_SHIFT)

START_TEST(data_is_allowed_from_the_invalidation_on)
{
    ck_assert(!freshness_allows(AT(1000) - 1, AT(1000)));
    ck_assert(freshness_allows(AT(1000), AT(1000)));
    ck_assert(freshness_allows(AT(1000) + 1, AT(1000)));
}
END_TEST

START_TEST(a_fill_needs_data_that_is_not_older_than_its_lease)
{
    ck_assert(!freshness_may_fill(AT(999), AT(1000)));
    ck_assert(freshness_may_fill(AT(1000), AT(1000)));
}
END_TEST

START_TEST(an_entry_survives_only_beyond_the_skew)
{
    ck_assert(!freshness_survives(AT(1000), AT(1000), 500));
    ck_assert(!freshness_survives(AT(1499), AT(1000), 500));
    ck_assert(freshness_survives(AT(1500), AT(1000), 500));
    ck_assert(freshness_survives(AT(1000), AT(1000), 0));
    ck_assert(!freshness_survives(AT(999), AT(1000), 0));
}
END_TEST

START_TEST(nothing_survives_an_invalidation_at_the_end_of_time)
{
    ck_assert(!freshness_survives(AT(1000), VERSION_MAX, 500));
}
END_TEST

START_TEST(a_tombstone_is_strictly_newer_than_what_was_there)
{
    ck_assert_uint_eq(freshness_tombstone(AT(800), AT(1000), AT(1001)), AT(1000));
    ck_assert_uint_eq(freshness_tombstone(AT(1000), AT(1000), AT(1001)), AT(1001)); /* the same CAS would leave a fill's guard in force */
    ck_assert_uint_eq(freshness_tombstone(AT(1200), AT(1000), AT(1201)), AT(1201));
    ck_assert_uint_eq(freshness_tombstone(AT(9000), AT(1000), AT(1500)), AT(9000) + 1); /* from beyond the skew */
}
END_TEST

START_TEST(an_entry_stays_until_nothing_older_than_what_it_covers_can_be_loaded)
{
    ck_assert_uint_eq(freshness_keep_until_ms(AT(1000), 700), 1700);
    ck_assert_uint_eq(freshness_keep_until_ms(0, 700), 0); /* it covers nothing */
}
END_TEST

START_TEST(a_rule_hides_what_is_older)
{
    uint64_t rule = freshness_rule(AT(1000), 500);
    ck_assert(freshness_is_hidden(AT(1499), rule));
    ck_assert(!freshness_is_hidden(AT(1500), rule));
    ck_assert(!freshness_is_hidden(AT(1), 0)); /* there is no rule */
}
END_TEST

START_TEST(a_lock_is_a_tombstone_from_the_future)
{
    ck_assert(freshness_is_lock(AT(2001), 1000, 500));
    ck_assert(!freshness_is_lock(AT(2000), 1000, 500)); /* a rule of a clock that is ahead may be so far ahead */
    ck_assert(!freshness_is_lock(AT(900), 1000, 500));
    ck_assert_uint_eq(freshness_lock_ttl_s(AT(11000), 1000, 500), 12); /* 11 s, and memcached may count one of them at once */
    ck_assert_uint_eq(freshness_lock_ttl_s(AT(11001), 1000, 500), 13);
    ck_assert_uint_eq(freshness_lock_ttl_s(AT(1), 10000, 500), 1);
    ck_assert(freshness_is_hidden(AT(900), freshness_rule(AT(1000), 500)) && !freshness_is_hidden(AT(2001), freshness_rule(AT(1500), 500))); /* no rule hides one that lives */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("freshness");
    TCase *tc = tcase_create("rule");
    tcase_add_test(tc, data_is_allowed_from_the_invalidation_on);
    tcase_add_test(tc, a_fill_needs_data_that_is_not_older_than_its_lease);
    tcase_add_test(tc, an_entry_survives_only_beyond_the_skew);
    tcase_add_test(tc, nothing_survives_an_invalidation_at_the_end_of_time);
    tcase_add_test(tc, a_tombstone_is_strictly_newer_than_what_was_there);
    tcase_add_test(tc, an_entry_stays_until_nothing_older_than_what_it_covers_can_be_loaded);
    tcase_add_test(tc, a_rule_hides_what_is_older);
    tcase_add_test(tc, a_lock_is_a_tombstone_from_the_future);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
