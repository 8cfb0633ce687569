#include "proxy/cache/rule_table.h"

#include "tests/unit/check_main.h"

static struct rule_table table;

static struct invalidation rule_of(const char *pattern, uint64_t version)
{
    struct invalidation event = {.version = version, .timestamp_ms = 5, .key_len = (uint16_t)strlen(pattern), .is_pattern = true};
    memcpy(event.key, pattern, strlen(pattern));
    return event;
}

static enum err put(const char *pattern, uint64_t version)
{
    struct rule *rule;
    struct invalidation event = rule_of(pattern, version);
    return rule_table_put(&table, &event, "east", &rule);
}

static void teardown(void)
{
    rule_table_clear(&table);
    ck_assert_uint_eq(table.count + table.others, 0);
}

START_TEST(the_newest_of_a_pattern_holds)
{
    ck_assert_int_eq(put("a*", 5), OK);
    ck_assert_int_eq(put("a*", 9), OK);
    ck_assert_int_eq(put("a*", 7), OK);
    ck_assert_uint_eq(table.count, 1);
    struct rule *rule = rule_table_find(&table, SPAN_LIT("a*"));
    ck_assert_uint_eq(rule->event.version, 9);
    ck_assert_ptr_eq(rule_table_find_version(&table, rule->hash, 9), rule);
    ck_assert_ptr_null(rule_table_find_version(&table, rule->hash, 7));
    rule_table_remove(&table, rule);
    ck_assert_ptr_null(rule_table_find(&table, SPAN_LIT("a*")));
}
END_TEST

START_TEST(there_is_room_for_so_many)
{
    char pattern[32];
    for (uint32_t i = 0; i < GLOB_INDEX_OTHERS; i++) {
        snprintf(pattern, sizeof pattern, "*%u", i);
        ck_assert_int_eq(put(pattern, 1), OK);
    }
    ck_assert_int_eq(put("*more", 1), ERR_OVERLOAD);
    for (uint32_t i = table.count; i < GLOB_INDEX_RULES; i++) {
        snprintf(pattern, sizeof pattern, "%u*", i);
        ck_assert_int_eq(put(pattern, 1), OK);
    }
    ck_assert_int_eq(put("more*", 1), ERR_OVERLOAD);
    ck_assert_int_eq(put("*7", 2), OK);  /* it is there */
    ck_assert_int_eq(put("*", 3), OK); /* what stands for all that have no room */
    struct glob_index *index;
    ck_assert_int_eq(rule_table_index(&table, &index), OK);
    ck_assert_uint_eq(glob_index_find(index, SPAN_LIT("x")), 3);
    glob_index_destroy(&index);
}
END_TEST

/* Flagged as whoever puts it flags it. */
static void put_strong(const char *pattern, uint64_t version)
{
    struct rule *rule;
    struct invalidation event = rule_of(pattern, version);
    ck_assert_int_eq(rule_table_put(&table, &event, "east", &rule), OK);
    rule->is_strong = true;
}

START_TEST(a_digest_is_of_what_is_there)
{
    char pattern[32];
    uint64_t empty = rule_table_digest(&table);
    ck_assert_uint_ne(empty, 0);
    put("other*", 5);
    ck_assert_uint_eq(rule_table_digest(&table), empty);
    for (uint64_t i = 0; i < 1000; i++) {
        snprintf(pattern, sizeof pattern, "%lu*", i);
        put_strong(pattern, 1 + i % 7);
    }
    uint64_t digest = rule_table_digest(&table);
    rule_table_clear(&table);
    for (uint64_t i = 1000; i-- > 0;) {
        snprintf(pattern, sizeof pattern, "%lu*", i);
        put_strong(pattern, i % 3 == 0 && i % 7 > 0 ? i % 7 : 1 + i % 7); /* some of them older first */
        put_strong("removed*", 1 + i);
    }
    ck_assert_uint_ne(rule_table_digest(&table), digest);
    for (uint64_t i = 0; i < 1000; i++) {
        snprintf(pattern, sizeof pattern, "%lu*", i);
        put_strong(pattern, 1 + i % 7);
    }
    ck_assert_uint_ne(rule_table_digest(&table), digest);
    rule_table_remove(&table, rule_table_find(&table, SPAN_LIT("removed*")));
    ck_assert_uint_eq(rule_table_digest(&table), digest);
    put_strong("7*", 9);
    ck_assert_uint_ne(rule_table_digest(&table), digest);
}
END_TEST

START_TEST(it_is_told_as_json)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    put("a\"\\\x01%\xff*", 5);
    rule_table_write(&table, out);
    fclose(out);
    ck_assert_str_eq(text, "{\"rules\":[{\"pattern\":\"a\\\"\\\\%01%25%FF*\",\"version\":\"5\",\"region\":\"east\",\"timestamp\":5}]}\n");
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cache/rule_table");
    TCase *tc = tcase_create("rule_table");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, the_newest_of_a_pattern_holds);
    tcase_add_test(tc, there_is_room_for_so_many);
    tcase_add_test(tc, a_digest_is_of_what_is_there);
    tcase_add_test(tc, it_is_told_as_json);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
