#include "common/glob_index.h"

#include "tests/unit/check_main.h"

static uint32_t draw(uint64_t *state, uint32_t limit)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*state >> 33) % limit;
}

static struct glob_index *create(const struct glob_rule *rules, uint32_t count)
{
    struct glob_index *index;
    ck_assert_int_eq(glob_index_create(rules, count, &index), OK);
    return index;
}

START_TEST(the_newest_rule_that_matches_counts)
{
    const struct glob_rule rules[] = {
        {SPAN_LIT("user:*"), 5}, {SPAN_LIT("user:*"), 9},     {SPAN_LIT("user:1*"), 7}, {SPAN_LIT("user:1"), 20},
        {SPAN_LIT("u*r:2"), 30}, {SPAN_LIT("[pq]age:?"), 40}, {SPAN_LIT("a\\*b"), 50},  {SPAN_LIT("*:2"), 25},
    };
    struct glob_index *index = create(rules, ARRAY_LEN(rules));
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("user:")), 9);
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("user:1")), 20);
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("user:11")), 9);
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("user:2")), 30);
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("x:2")), 25);
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("user")), 0);
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("page:x")), 40);
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("a*b")), 50);
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("axb")), 0);
    ck_assert_uint_eq(glob_index_newest(index), 50);
    glob_index_destroy(&index);
}
END_TEST

START_TEST(a_star_alone_covers_everything)
{
    struct glob_index *index = create(&(struct glob_rule){SPAN_LIT("*"), 3}, 1);
    char key[GLOB_MAX];
    memset(key, 'x', sizeof key);
    ck_assert_uint_eq(glob_index_find(index, span_of(key, sizeof key)), 3);
    ck_assert_uint_eq(glob_index_find(index, span_of(key, 1)), 3);
    glob_index_destroy(&index);
}
END_TEST

START_TEST(no_rules_cover_nothing)
{
    struct glob_index *index = create(NULL, 0);
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("x")), 0);
    glob_index_destroy(&index);
}
END_TEST

START_TEST(limits_are_told)
{
    struct glob_rule *rules = xcalloc(GLOB_INDEX_RULES + 2, sizeof *rules);
    struct glob_index *index;
    for (uint32_t i = 0; i < GLOB_INDEX_RULES + 2; i++) {
        rules[i] = (struct glob_rule){SPAN_LIT("a*"), i + 1};
    }
    ck_assert_int_eq(glob_index_create(rules, GLOB_INDEX_RULES + 2, &index), ERR_OVERLOAD);
    ck_assert_int_eq(glob_index_create(rules, GLOB_INDEX_RULES + 1, &index), OK);
    glob_index_destroy(&index);
    for (uint32_t i = 0; i < GLOB_INDEX_OTHERS + 1; i++) {
        rules[i] = (struct glob_rule){SPAN_LIT("*a"), i + 1};
    }
    ck_assert_int_eq(glob_index_create(rules, GLOB_INDEX_OTHERS + 1, &index), ERR_OVERLOAD);
    ck_assert_ptr_null(index);
    rules[3].pattern = SPAN_LIT("[");
    ck_assert_int_eq(glob_index_create(rules, 5, &index), ERR_INVALID);
    ck_assert(glob_index_is_other(SPAN_LIT("*a")) && !glob_index_is_other(SPAN_LIT("a*")) && !glob_index_is_other(SPAN_LIT("a")));
    free(rules);
}
END_TEST

/* Random rules over few letters, so that they overlap, against trying them one after the other. */
START_TEST(lookups_find_what_trying_all_rules_finds)
{
    enum { RULES = 400, LEN = 6 };
    static const char letters[] = "aabbc*?";
    static char texts[RULES][LEN];
    struct glob_rule rules[RULES];
    struct glob *globs[RULES];
    uint64_t state = 7;
    uint32_t others = 0;
    for (uint32_t i = 0; i < RULES; i++) {
        size_t len;
        do {
            len = 1 + draw(&state, LEN);
            for (size_t j = 0; j < len; j++) {
                texts[i][j] = letters[draw(&state, sizeof letters - 1)];
            }
        } while (glob_index_is_other(span_of(texts[i], len)) && others == 200);
        rules[i] = (struct glob_rule){span_of(texts[i], len), 1 + draw(&state, 100000)};
        others += glob_index_is_other(rules[i].pattern);
        ck_assert_int_eq(glob_create(rules[i].pattern, &globs[i]), OK);
    }
    for (uint32_t count = 0; count <= RULES; count += 20) {
        struct glob_index *index = create(rules, count);
        for (int n = 0; n < 2000; n++) {
            char key[8];
            size_t len = draw(&state, sizeof key);
            for (size_t j = 0; j < len; j++) {
                key[j] = "abc"[draw(&state, 3)];
            }
            uint64_t expected = 0;
            for (uint32_t i = 0; i < count; i++) {
                expected = glob_matches(globs[i], span_of(key, len)) ? MAX(expected, rules[i].version) : expected;
            }
            ck_assert_uint_eq(glob_index_find(index, span_of(key, len)), expected);
        }
        glob_index_destroy(&index);
    }
    for (uint32_t i = 0; i < RULES; i++) {
        glob_destroy(&globs[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("glob_index");
    TCase *tc = tcase_create("glob_index");
    tcase_add_test(tc, the_newest_rule_that_matches_counts);
    tcase_add_test(tc, a_star_alone_covers_everything);
    tcase_add_test(tc, no_rules_cover_nothing);
    tcase_add_test(tc, limits_are_told);
    tcase_add_test(tc, lookups_find_what_trying_all_rules_finds);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
