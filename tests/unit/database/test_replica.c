#include "proxy/database/replica.h"

#include "common/version.h"
#include "tests/unit/check_main.h"

#define MS 1000ULL
#define WALL 1700000000000ULL

static struct replica r;

static uint64_t at(uint64_t wall_ms)
{
    return wall_ms << VERSION_MS_SHIFT;
}

static void setup(void)
{
    r = (struct replica){.max_lag_ms = 2000, .max_skew_ms = 500};
}

START_TEST(it_has_to_prove_itself)
{
    ck_assert(replica_may_try(&r, 0, MS, WALL)); /* the probe */
    ck_assert(!replica_may_try(&r, 0, MS, WALL));
    ck_assert(replica_heard(&r, at(WALL - 2000), 2 * MS, WALL));
    ck_assert(replica_may_try(&r, 0, 2 * MS, WALL));
    ck_assert(replica_may_try(&r, 0, 2 * MS, WALL));
    ck_assert(!replica_heard(&r, at(WALL - 2001), 3 * MS, WALL));
    ck_assert(!replica_may_try(&r, 0, 3 * MS, WALL));
    ck_assert(replica_may_try(&r, 0, (3 + REPLICA_RETRY_MS) * MS, WALL));
    ck_assert(!replica_may_try(&r, 0, (3 + REPLICA_RETRY_MS) * MS, WALL));
    ck_assert(!replica_heard(&r, 0, 600 * MS, WALL)); /* no heartbeat at all */
    ck_assert(replica_heard(&r, at(WALL + 300), 601 * MS, WALL)); /* the writer's clock is ahead */
}
END_TEST

START_TEST(what_it_can_not_prove_yet_is_not_asked_for)
{
    replica_heard(&r, at(WALL), MS, WALL);
    ck_assert(replica_may_try(&r, at(WALL - 501), MS, WALL));
    ck_assert(!replica_may_try(&r, at(WALL - 500), MS, WALL)); /* a heartbeat of this very moment would not do */
    ck_assert(!replica_may_try(&r, at(WALL), MS, WALL));
}
END_TEST

START_TEST(versions_are_lower_bounds_and_tell_loads_apart)
{
    for (uint64_t unique = 0; unique < 1000; unique++) {
        uint64_t version = replica_version(&r, at(WALL), at(WALL) + unique);
        ck_assert_uint_lt(version, at(WALL - 500));
        ck_assert_uint_ge(version, at(WALL - 501));
        ck_assert_uint_ne(version, replica_version(&r, at(WALL), at(WALL) + unique + 1));
        ck_assert_uint_lt(version, VERSION_MAX);
    }
    ck_assert_uint_lt(replica_version(&r, at(3), 77), 1ULL << VERSION_MS_SHIFT); /* no wrap */
    ck_assert_uint_eq(replica_age_ms(at(WALL - 7), WALL), 7);
    ck_assert_uint_eq(replica_age_ms(at(WALL + 7), WALL), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("replica");
    TCase *tc = tcase_create("replica");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, it_has_to_prove_itself);
    tcase_add_test(tc, what_it_can_not_prove_yet_is_not_asked_for);
    tcase_add_test(tc, versions_are_lower_bounds_and_tell_loads_apart);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
