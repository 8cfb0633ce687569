#include <check.h>

#include "common/base.h"
#include "common/version.h"
#include "tests/unit/check_main.h"

#define NOW 1795000000000ULL /* 2026 */

START_TEST(layout)
{
    struct version_clock clock;
    version_clock_init(&clock, 1023, 500);
    uint64_t v = version_next(&clock, NOW);
    ck_assert_uint_eq(version_ms(v), NOW);
    ck_assert_uint_eq(v & (VERSION_IDS - 1), 1023);
    ck_assert_uint_eq(v, NOW << 21 | 1023);
    ck_assert_uint_lt(v, VERSION_MAX);
    /* The last millisecond that fits, in the year 2109. */
    version_clock_init(&clock, 1023, 500);
    ck_assert_uint_le(version_next(&clock, (1ULL << 42) - 1), VERSION_MAX);
}
END_TEST

START_TEST(id_is_cut_to_its_bits)
{
    struct version_clock clock;
    version_clock_init(&clock, 1024 + 5, 500);
    ck_assert_uint_eq(version_next(&clock, NOW) & (VERSION_IDS - 1), 5);
}
END_TEST

START_TEST(always_newer)
{
    struct version_clock clock;
    version_clock_init(&clock, 1, 500);
    uint64_t last = 0;
    uint64_t wall = NOW;
    for (unsigned i = 0; i < 100000; i++) { /* the wall clock stands still, jumps ahead and falls back */
        wall = i % 1000 == 0 ? wall + 3 : i % 777 == 0 ? wall - 2 : wall;
        uint64_t v = version_next(&clock, wall);
        ck_assert_uint_gt(v, last);
        ck_assert_uint_ge(version_ms(v), wall);
        last = v;
    }
}
END_TEST

/* More versions in a millisecond than the sequence has: they go on into the next. */
START_TEST(sequence_runs_over)
{
    struct version_clock clock;
    version_clock_init(&clock, 9, 500);
    uint64_t v = 0;
    for (unsigned i = 0; i <= 1U << VERSION_SEQUENCE_BITS; i++) {
        v = version_next(&clock, NOW);
    }
    ck_assert_uint_eq(version_ms(v), NOW + 1);
    ck_assert_uint_eq(v & (VERSION_IDS - 1), 9);
}
END_TEST

START_TEST(two_clocks_never_agree)
{
    struct version_clock a, b;
    version_clock_init(&a, 1, 500);
    version_clock_init(&b, 2, 500);
    uint64_t x = version_next(&a, NOW);
    uint64_t y = version_next(&b, NOW);
    ck_assert_uint_ne(x, y);
    ck_assert_uint_eq(version_ms(x), version_ms(y));
}
END_TEST

START_TEST(observe)
{
    struct version_clock a, b;
    version_clock_init(&a, 1, 500);
    version_clock_init(&b, 0, 500);
    uint64_t ahead = version_next(&a, NOW + 400);
    ck_assert(version_observe(&b, ahead, NOW));
    ck_assert_uint_gt(version_next(&b, NOW), ahead); /* though b's id is smaller */
    uint64_t last = version_next(&b, NOW);
    ck_assert(version_observe(&b, version_next(&a, NOW) - (1ULL << 40), NOW)); /* what is old moves nothing */
    ck_assert_uint_eq(version_next(&b, NOW), last + VERSION_IDS);
    ck_assert(version_observe(&b, 0, NOW));
}
END_TEST

START_TEST(observe_too_far_ahead)
{
    static const uint64_t far[] = {(NOW + 501) << VERSION_MS_SHIFT, VERSION_MAX, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_LEN(far); i++) {
        struct version_clock clock;
        version_clock_init(&clock, 0, 500);
        ck_assert(!version_observe(&clock, far[i], NOW));
        uint64_t v = version_next(&clock, NOW);
        ck_assert_uint_eq(version_ms(v), NOW + 500);
        ck_assert(!version_observe(&clock, far[i], NOW)); /* again: no further */
        ck_assert_uint_eq(version_ms(version_next(&clock, NOW)), NOW + 500);
    }
    struct version_clock clock;
    version_clock_init(&clock, 0, 500);
    ck_assert(version_observe(&clock, (NOW + 500) << VERSION_MS_SHIFT, NOW)); /* just not */
}
END_TEST

START_TEST(shift)
{
    uint64_t v = NOW << VERSION_MS_SHIFT | 12345;
    ck_assert_uint_eq(version_shift(v, 0), v);
    ck_assert_uint_eq(version_shift(v, 500), (NOW + 500) << VERSION_MS_SHIFT | 12345);
    ck_assert_uint_eq(version_shift(v, -500), (NOW - 500) << VERSION_MS_SHIFT | 12345);
    ck_assert_uint_eq(version_shift(version_shift(v, -1), 1), v);
    ck_assert_uint_eq(version_shift(100, -1), 0);
    ck_assert_uint_eq(version_shift(0, -1), 0);
    ck_assert_uint_eq(version_shift(VERSION_MAX, 1), VERSION_MAX);
    ck_assert_uint_eq(version_shift(VERSION_MAX - 1, 1), VERSION_MAX);
    ck_assert_uint_eq(version_shift(VERSION_MAX, 0), VERSION_MAX);
    ck_assert_uint_eq(version_shift(0, (int64_t)(VERSION_MAX >> VERSION_MS_SHIFT)), VERSION_MAX >> VERSION_MS_SHIFT << VERSION_MS_SHIFT);
}
END_TEST

/* Distances that do not fit into a version at all. */
START_TEST(shift_saturates)
{
    static const int64_t far[] = {1LL << 42, 1LL << 43, (1LL << 43) + 7, 1LL << 62, INT64_MAX};
    uint64_t v = NOW << VERSION_MS_SHIFT;
    for (size_t i = 0; i < ARRAY_LEN(far); i++) {
        ck_assert_uint_eq(version_shift(v, far[i]), VERSION_MAX);
        ck_assert_uint_eq(version_shift(0, far[i]), VERSION_MAX);
        ck_assert_uint_eq(version_shift(v, -far[i]), 0);
    }
    ck_assert_uint_eq(version_shift(v, INT64_MIN), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("version");
    TCase *all = tcase_create("all");
    tcase_add_test(all, layout);
    tcase_add_test(all, id_is_cut_to_its_bits);
    tcase_add_test(all, always_newer);
    tcase_add_test(all, sequence_runs_over);
    tcase_add_test(all, two_clocks_never_agree);
    tcase_add_test(all, observe);
    tcase_add_test(all, observe_too_far_ahead);
    tcase_add_test(all, shift);
    tcase_add_test(all, shift_saturates);
    suite_add_tcase(suite, all);
    return check_main(suite);
}
