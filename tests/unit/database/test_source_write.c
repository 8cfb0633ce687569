#include "proxy/database/source_write.h"

#include "tests/unit/check_main.h"

static struct config_source config;
static struct config_namespace namespace = {.prefix = "p:", .name = "p", .source = &config};
static struct source source;
static struct span fields[KEY_FIELDS_MAX];
static struct member members[SOURCE_VALUES_MAX];
static struct reason why;

static void make(struct config_source of)
{
    config = of;
    source_init(&source, &namespace, 1000);
}

static void teardown(void)
{
    if (source.namespace != NULL) {
        source_members_free(&source, members);
        source_deinit(&source);
    }
}

static void check_sql(enum write_statement statement, const char *expected)
{
    char *sql = source_write_sql(&source, statement);
    ck_assert_str_eq(sql, expected);
    free(sql);
}

START_TEST(sql_of_everything)
{
    make((struct config_source){.table = "s.t", .key = "p:{a}/{b}", .value_column = "v", .flags_column = "f", .version_column = "w",
                                .expires_column = "e"});
    check_sql(STATEMENT_LOCK, "SELECT `a`,`b`,`w`,(COALESCE(TIMESTAMPDIFF(MICROSECOND,NOW(6),`e`)>0,1) AND `v` IS NOT NULL) FROM `s`.`t` WHERE "
                              "`a`=? AND `b`=? LIMIT 2 FOR UPDATE");
    check_sql(STATEMENT_INSERT,
              "INSERT INTO `s`.`t` (`a`,`b`,`v`,`f`,`w`,`e`) VALUES (?,?,?,?,?,FROM_UNIXTIME(?+?*UNIX_TIMESTAMP(NOW(6))))");
    check_sql(STATEMENT_UPDATE, "UPDATE `s`.`t` SET `v`=?,`f`=?,`w`=?,`e`=IF(?,`e`,FROM_UNIXTIME(?+?*UNIX_TIMESTAMP(NOW(6)))) WHERE `a`=? AND `b`=?");
    check_sql(STATEMENT_TOUCH, "UPDATE `s`.`t` SET `e`=FROM_UNIXTIME(?+?*UNIX_TIMESTAMP(NOW(6))) WHERE `a`=? AND `b`=?");
    check_sql(STATEMENT_DELETE, "DELETE FROM `s`.`t` WHERE `a`=? AND `b`=?");
}
END_TEST

START_TEST(key_columns_are_not_written)
{
    char *columns[] = {(char *)(uintptr_t)"k", (char *)(uintptr_t)"x"};
    make((struct config_source){.table = "t", .key_column = "k", .value_columns = columns, .value_column_count = 2});
    check_sql(STATEMENT_LOCK, "SELECT `k`,NULL,(1) FROM `t` WHERE `k`=? LIMIT 2 FOR UPDATE");
    check_sql(STATEMENT_INSERT, "INSERT INTO `t` (`k`,`x`) VALUES (?,?)");
    check_sql(STATEMENT_UPDATE, "UPDATE `t` SET `x`=? WHERE `k`=?");
    ck_assert_int_eq(source_value_key(&source, 0), 0);
    ck_assert_int_eq(source_value_key(&source, 1), -1);
    source_deinit(&source);
    make((struct config_source){.table = "t", .key_column = "k", .value_columns = columns, .value_column_count = 1});
    check_sql(STATEMENT_UPDATE, "UPDATE `t` SET `k`=`k` WHERE `k`=?");
}
END_TEST

START_TEST(sql_at_once)
{
    make((struct config_source){.kind = SOURCE_ENTRIES, .table = "t", .key_column = "k", .value_column = "v", .flags_column = "f",
                                .version_column = "w", .expires_column = "e"});
    check_sql(STATEMENT_SET_AT_ONCE,
              "INSERT INTO `t` (`k`,`v`,`f`,`w`,`e`) SELECT ?,?,?,?,FROM_UNIXTIME(?+?*UNIX_TIMESTAMP(NOW(6))) FROM DUAL WHERE "
              "UNIX_TIMESTAMP(SYSDATE(6))*1000000<? ON DUPLICATE KEY UPDATE `w`=IF(UNIX_TIMESTAMP(SYSDATE(6))*1000000<?,VALUES(`w`),`w`),"
              "`v`=IF(`w`=VALUES(`w`),VALUES(`v`),`v`),`f`=IF(`w`=VALUES(`w`),VALUES(`f`),`f`),`e`=IF(`w`=VALUES(`w`),VALUES(`e`),`e`)");
    check_sql(STATEMENT_DELETE_AT_ONCE, "DELETE FROM `t` WHERE `k`=? AND (COALESCE(TIMESTAMPDIFF(MICROSECOND,NOW(6),`e`)>0,1) AND `v` IS NOT "
                                        "NULL) AND UNIX_TIMESTAMP(SYSDATE(6))*1000000<?");
}
END_TEST

static enum err take(const char *text)
{
    source_members_free(&source, members);
    return source_members(&source, span_str(text), fields, members, &why);
}

static void check_member(uint32_t i, enum member_kind kind, struct span bytes)
{
    ck_assert_int_eq(members[i].kind, kind);
    ck_assert_msg(span_eq(members[i].bytes, bytes), "%.*s", SPAN_FMT(members[i].bytes));
}

START_TEST(what_members_are)
{
    char *columns[] = {(char *)(uintptr_t)"a", (char *)(uintptr_t)"b", (char *)(uintptr_t)"c"};
    make((struct config_source){.table = "t", .key_column = "k", .value_columns = columns, .value_column_count = 3});
    ck_assert_int_eq(take(" {\"b\" : -0.10e+05 ,\n\"c\":\"x,}\\\"\\u00fc\\u0000\",\"a\":null} "), OK);
    check_member(0, MEMBER_NULL, span_of("", 0));
    check_member(1, MEMBER_NUMBER, SPAN_LIT("-0.10e+05"));
    check_member(2, MEMBER_TEXT, SPAN_LIT("x,}\"\xc3\xbc\0"));
    ck_assert_int_eq(take("{\"c\":123456789012345678901234567890,\"a\":{\"base64\":\"AP8=\"},\"b\":false}"), OK);
    check_member(0, MEMBER_BYTES, SPAN_LIT("\0\xff"));
    check_member(1, MEMBER_NUMBER, SPAN_LIT("0"));
    check_member(2, MEMBER_NUMBER, SPAN_LIT("123456789012345678901234567890"));
    ck_assert_int_eq(take("{\"\\u0061\":1,\"b\":{\"base64\":\"\"},\"c\":\"\"}"), OK); /* the name is the same, however it is written */
    check_member(0, MEMBER_NUMBER, SPAN_LIT("1"));
    check_member(1, MEMBER_BYTES, span_of("", 0));
    static const char *const wrong[] = {
        "{\"a\":1,\"b\":2}",          "{\"a\":1,\"b\":2,\"c\":3,\"d\":4}", "{\"a\":1,\"b\":2,\"c\":[]}",          "{\"a\":1,\"b\":2,\"c\":{}}",
        "{\"a\":1,\"b\":2,\"c\":{\"base64\":\"A\"}}", "{\"a\":1,\"b\":2,\"c\":{\"base64\":\"A===\"}}", "{\"a\":1,\"b\":2,\"c\":{\"base64\":\"====\"}}",
        "{\"a\":1,\"b\":2,\"c\":{\"base64\":1}}", "{\"a\":1,\"b\":2,\"c\":3", "{\"a\":1,\"a\":1,\"b\":2,\"c\":3}", "3", "", "{\"a\":1,\"b\":2,\"c\":\"\xff\"}",
        "{\"a\":1,\"b\":2,\"c\":1e999}",
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        ck_assert_msg(take(wrong[i]) == ERR_UNSUPPORTED, "%s", wrong[i]);
        ck_assert(why.text[0] != '\0');
    }
}
END_TEST

START_TEST(cut_anywhere)
{
    const char *text = "{\"a\":{\"base64\":\"AP8=\"},\"b\":[1,{\"x\":\"}\\\"\"}],\"c\":\"\\ud83d\\ude00\"}";
    char *columns[] = {(char *)(uintptr_t)"a", (char *)(uintptr_t)"b", (char *)(uintptr_t)"c"};
    make((struct config_source){.table = "t", .key_column = "k", .value_columns = columns, .value_column_count = 3});
    for (size_t len = 0; len <= strlen(text); len++) {
        char *copy = xstrndup(text, len);
        ck_assert_int_eq(take(copy), ERR_UNSUPPORTED);
        source_members_free(&source, members);
        free(copy);
    }
}
END_TEST

START_TEST(numbers_and_times)
{
    uint64_t n;
    int64_t s;
    bool is_relative;
    ck_assert(source_number(SPAN_LIT("18446744073709551615"), &n) && n == UINT64_MAX);
    ck_assert(source_number(SPAN_LIT("007  "), &n) && n == 7);
    ck_assert(!source_number(SPAN_LIT("18446744073709551616"), &n));
    ck_assert(!source_number(SPAN_LIT("000000000000000000001"), &n));
    ck_assert(!source_number(SPAN_LIT("  "), &n) && !source_number(SPAN_LIT(""), &n) && !source_number(SPAN_LIT("-1"), &n));
    ck_assert_uint_eq(source_add(UINT64_MAX, 2, false), 1);
    ck_assert_uint_eq(source_add(3, 5, true), 0);
    ck_assert_uint_eq(source_add(5, 3, true), 2);
    ck_assert(!source_exptime(0, &s, &is_relative));
    ck_assert(source_exptime(30 * 86400, &s, &is_relative) && is_relative && s == 30 * 86400);
    ck_assert(source_exptime(30 * 86400 + 1, &s, &is_relative) && !is_relative && s == 30 * 86400 + 1);
    ck_assert(source_exptime(-1, &s, &is_relative) && !is_relative && s < 10 * 86400);
    ck_assert(source_exptime(INT64_MAX, &s, &is_relative) && !is_relative && s < INT32_MAX);
    ck_assert(source_exptime(INT64_MIN, &s, &is_relative) && !is_relative);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("source_write");
    TCase *tc = tcase_create("source_write");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, sql_of_everything);
    tcase_add_test(tc, key_columns_are_not_written);
    tcase_add_test(tc, sql_at_once);
    tcase_add_test(tc, what_members_are);
    tcase_add_test(tc, cut_anywhere);
    tcase_add_test(tc, numbers_and_times);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
