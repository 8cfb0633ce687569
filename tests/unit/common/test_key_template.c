#include "common/key_template.h"

#include "tests/unit/check_main.h"

static struct key_template key;
static struct reason why;
static struct span fields[KEY_FIELDS_MAX];

static void make(const char *text)
{
    key_template_deinit(&key);
    enum err err = key_template_parse(text, &key, &why);
    ck_assert_msg(err == OK, "%s: %s", text, why.text);
}

static void teardown(void)
{
    key_template_deinit(&key);
}

static void check_split(const char *text, uint32_t count, const char *const *expected)
{
    ck_assert_msg(key_template_split(&key, 0, span_str(text), fields), "%s does not match", text);
    ck_assert_uint_eq(key.count, count);
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_msg(span_eq(fields[i], span_str(expected[i])), "%s: field %u is %.*s", text, i, SPAN_FMT(fields[i]));
    }
}

static void check_other(const char *text)
{
    ck_assert_msg(!key_template_split(&key, 0, span_str(text), fields), "%s matches", text);
}

START_TEST(fields_end_at_the_next_literal)
{
    make("order:{customer}:{id}");
    ck_assert_str_eq(key.columns[0], "customer");
    ck_assert_str_eq(key.columns[1], "id");
    check_split("order:7:12", 2, (const char *[]){"7", "12"});
    check_split("order:7:12:3", 2, (const char *[]){"7", "12:3"});
    check_split("order::", 2, (const char *[]){"", ""});
    check_split("order:a b:\xff", 2, (const char *[]){"a b", "\xff"});
    check_other("order:7");
    check_other("order:");
    check_other("order");
    check_other("");
    check_other("ordeR:7:12");
    check_other("xorder:7:12");
}
END_TEST

START_TEST(a_literal_must_follow_where_its_first_byte_stands)
{
    make("{a}--{b}.json");
    check_split("x--y.json", 2, (const char *[]){"x", "y"});
    check_other("x-y--z.json"); /* or one row would have two keys */
    check_other("x--y.json.json");
    check_other("x--y.jso");
    check_other("x--y.jsonx");
    check_other("x--.y.json");
}
END_TEST

START_TEST(a_key_is_put_together_in_one_way)
{
    static const char *const keys[] = {"a:1-2", "a::-", "a:1-2-3", "a:-1-2"};
    make("a:{x}-{y}");
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        char back[64];
        ck_assert(key_template_split(&key, 0, span_str(keys[i]), fields));
        snprintf(back, sizeof back, "a:%.*s-%.*s", SPAN_FMT(fields[0]), SPAN_FMT(fields[1]));
        ck_assert_str_eq(back, keys[i]);
    }
}
END_TEST

START_TEST(the_front_may_be_gone_already)
{
    make("order:x{id}");
    ck_assert(key_template_split(&key, 6, SPAN_LIT("x12"), fields));
    ck_assert(span_eq(fields[0], SPAN_LIT("12")));
    ck_assert(!key_template_split(&key, 6, SPAN_LIT("12"), fields));
    ck_assert(key_template_split(&key, 7, SPAN_LIT("12"), fields));
    ck_assert(key_template_split(&key, 7, SPAN_LIT(""), fields));
    ck_assert_uint_eq(fields[0].len, 0);
}
END_TEST

START_TEST(braces_are_doubled)
{
    make("{{tag}}:{id}}}");
    check_split("{tag}:5}", 1, (const char *[]){"5"});
    check_other("tag:5}");
}
END_TEST

START_TEST(a_column_alone)
{
    key_template_of_column("name", &key);
    check_split("", 1, (const char *[]){""});
    check_split("a:{b}", 1, (const char *[]){"a:{b}"});
}
END_TEST

START_TEST(what_is_no_template)
{
    static const char *const cases[][2] = {
        {"order", "has no {column}"},
        {"", "has no {column}"},
        {"{{x}}", "has no {column}"},
        {"{a}{b}", "two fields without text between them"},
        {"{a}:{b", "has a '{' without '}'"},
        {"a}:{b}", "has a '}' without '{'"},
        {"{a}}:{b}", "has a '}' without '{'"},
        {"{}", "is not a column name"},
        {"{a b}", "space or control character"},
        {"{a;b}", "is not a column name"},
        {"x {a}", "space or control character"},
        {"{a}:{a}", "the column \"a\" twice"},
        {"{a}.{b}.{c}.{d}.{e}.{f}.{g}.{h}.{i}", "more than 8 fields"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        ck_assert_msg(key_template_parse(cases[i][0], &key, &why) == ERR_INVALID, "%s", cases[i][0]);
        ck_assert_msg(strstr(why.text, cases[i][1]) != NULL, "%s: %s", cases[i][0], why.text);
        ck_assert_uint_eq(key.count, 0);
    }
    make("{a}.{b}.{c}.{d}.{e}.{f}.{g}.{h}");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("key_template");
    TCase *tc = tcase_create("key_template");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, fields_end_at_the_next_literal);
    tcase_add_test(tc, a_literal_must_follow_where_its_first_byte_stands);
    tcase_add_test(tc, a_key_is_put_together_in_one_way);
    tcase_add_test(tc, the_front_may_be_gone_already);
    tcase_add_test(tc, braces_are_doubled);
    tcase_add_test(tc, a_column_alone);
    tcase_add_test(tc, what_is_no_template);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
