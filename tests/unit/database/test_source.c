#include "proxy/database/source.h"

#include "tests/unit/check_main.h"

static struct config_source table;
static struct config_namespace namespace;
static struct source source;

static void make(struct config_source config, uint64_t max_value_size)
{
    table = config;
    namespace = (struct config_namespace){.prefix = "package:", .name = "package", .source = &table};
    source_init(&source, &namespace, max_value_size);
}

static void make_json(char **columns, uint32_t count, uint64_t max_value_size)
{
    make((struct config_source){.table = "t", .key_column = "k", .value_columns = columns, .value_column_count = count},
         max_value_size);
}

static void teardown(void)
{
    if (source.namespace != NULL) {
        source_deinit(&source);
    }
}

static void check_sql(const bool *is_guarded, const char *expected)
{
    char *sql = source_sql(&source, &(struct source_select){.key_count = 1, .is_guarded = is_guarded});
    ck_assert_str_eq(sql, expected);
    free(sql);
}

START_TEST(sql_of_one_column)
{
    make((struct config_source){.table = "packages", .key_column = "name", .value_column = "description"}, 1000);
    check_sql(NULL, "SELECT `name`, NULL, NULL, 0, NULL, `description` FROM `packages` WHERE `name` = ? LIMIT 16");
}
END_TEST

START_TEST(sql_of_everything)
{
    char *columns[] = {"a", "b"};
    make((struct config_source){.table = "shop.packages",
                                .key_column = "name",
                                .value_columns = columns,
                                .value_column_count = 2,
                                .flags_column = "f",
                                .expires_column = "e"},
         1000);
    check_sql((bool[]){false, true},
              "SELECT `name`, `f`, TIMESTAMPDIFF(MICROSECOND, NOW(6), `e`), 0+COALESCE(OCTET_LENGTH(`b`),0), NULL, `a`, "
              "IF(OCTET_LENGTH(`b`)<=1000,`b`,NULL) FROM `shop`.`packages` WHERE `name` = ? LIMIT 16");
}
END_TEST

START_TEST(names_are_quoted)
{
    make((struct config_source){.table = "t`; DROP TABLE x", .key_column = "k`", .value_column = "select"}, 1000);
    check_sql(NULL, "SELECT `k```, NULL, NULL, 0, NULL, `select` FROM `t``; DROP TABLE x` WHERE `k``` = ? LIMIT 16");
}
END_TEST

START_TEST(sql_of_several_keys)
{
    make((struct config_source){.table = "packages", .key_column = "name", .value_column = "description"}, 1000);
    char *sql = source_sql(&source, &(struct source_select){.key_count = 3});
    ck_assert_str_eq(sql, "SELECT `name`, NULL, NULL, 0, NULL, `description` FROM `packages` WHERE `name` IN (?,?,?) LIMIT 48");
    free(sql);
    sql = source_sql(&source, &(struct source_select){.key_count = 1, .witness = "SELECT 7 AS outrigger_witness"});
    ck_assert_str_eq(sql, "SELECT `name`, NULL, NULL, 0, outrigger_witness, `description` FROM (SELECT 7 AS outrigger_witness) AS "
                          "outrigger_w LEFT JOIN `packages` ON `name` = ? LIMIT 16");
    free(sql);
    sql = source_sql(&source, &(struct source_select){.key_count = 1, .is_locking = true});
    ck_assert_str_eq(sql, "SELECT `name`, NULL, NULL, 0, NULL, `description` FROM `packages` WHERE `name` = ? LIMIT 16 LOCK IN SHARE MODE");
    free(sql);
}
END_TEST

START_TEST(row_key_is_the_key_without_the_prefix)
{
    make((struct config_source){.table = "t", .key_column = "k", .value_column = "v"}, 1000);
    ck_assert(span_eq(source_row_key(&source, SPAN_LIT("package:bash")), SPAN_LIT("bash")));
    ck_assert(span_eq(source_row_key(&source, SPAN_LIT("package:package:x")), SPAN_LIT("package:x")));
    ck_assert_uint_eq(source_row_key(&source, SPAN_LIT("package:")).len, 0);
}
END_TEST

START_TEST(sql_of_a_composite_key)
{
    char *columns[] = {"a", "b"};
    make((struct config_source){.table = "orders",
                                .key = "package:{customer}/{id}",
                                .value_columns = columns,
                                .value_column_count = 2,
                                .version_column = "ver"},
         1000);
    ck_assert_uint_eq(source_key_at(&source, 0), SOURCE_KEY);
    ck_assert_uint_eq(source_key_at(&source, 1), SOURCE_VALUES + 2);
    ck_assert_uint_eq(source_version_at(&source), SOURCE_VALUES + 3);
    ck_assert_uint_eq(source_column_count(&source), SOURCE_VALUES + 4);
    check_sql(NULL, "SELECT `customer`, NULL, NULL, 0, NULL, `a`, `b`, `id`, `ver` FROM `orders` WHERE `customer` = ? AND `id` = ? LIMIT 16");
    char *sql = source_sql(&source, &(struct source_select){.key_count = 2});
    ck_assert_str_eq(sql, "SELECT `customer`, NULL, NULL, 0, NULL, `a`, `b`, `id`, `ver` FROM `orders` WHERE (`customer`,`id`) IN "
                          "((?,?),(?,?)) LIMIT 32");
    free(sql);
}
END_TEST

START_TEST(a_row_key_is_taken_apart)
{
    struct span fields[KEY_FIELDS_MAX];
    make((struct config_source){.table = "t", .key = "package:x{a}/{b}", .value_column = "v"}, 1000);
    ck_assert(source_split(&source, source_row_key(&source, SPAN_LIT("package:x1/2/3")), fields));
    ck_assert(span_eq(fields[0], SPAN_LIT("1")) && span_eq(fields[1], SPAN_LIT("2/3")));
    ck_assert(!source_split(&source, source_row_key(&source, SPAN_LIT("package:1/2")), fields));
    ck_assert(!source_split(&source, source_row_key(&source, SPAN_LIT("package:x1")), fields));
    source_deinit(&source);
    make((struct config_source){.table = "t", .key_column = "k", .value_column = "v"}, 1000);
    ck_assert(source_split(&source, source_row_key(&source, SPAN_LIT("package:x1/2")), fields));
    ck_assert(span_eq(fields[0], SPAN_LIT("x1/2")));
}
END_TEST

START_TEST(the_built_in_table_has_whole_keys)
{
    make((struct config_source){.kind = SOURCE_ENTRIES, .table = "e", .key_column = "cache_key", .value_column = "value"}, 1000);
    ck_assert(span_eq(source_row_key(&source, SPAN_LIT("package:bash")), SPAN_LIT("package:bash")));
}
END_TEST

START_TEST(versions)
{
    uint64_t v = 7;
    ck_assert_int_eq(source_version(SPAN_LIT(""), &v), OK);
    ck_assert_uint_eq(v, 0);
    ck_assert_int_eq(source_version(SPAN_LIT("18446744073709551615"), &v), OK);
    ck_assert_uint_eq(v, UINT64_MAX);
    ck_assert_int_eq(source_version(SPAN_LIT("18446744073709551616"), &v), ERR_DATABASE);
    ck_assert_int_eq(source_version(SPAN_LIT("-1"), &v), ERR_DATABASE);
    ck_assert_uint_eq(v, UINT64_MAX);
}
END_TEST

START_TEST(flags)
{
    uint32_t f = 7;
    ck_assert_int_eq(source_flags(SPAN_LIT(""), &f), OK);
    ck_assert_uint_eq(f, 0);
    ck_assert_int_eq(source_flags(SPAN_LIT("4294967295"), &f), OK);
    ck_assert_uint_eq(f, UINT32_MAX);
    ck_assert_int_eq(source_flags(SPAN_LIT("4294967296"), &f), ERR_DATABASE);
    ck_assert_int_eq(source_flags(SPAN_LIT("99999999999999999999999999"), &f), ERR_DATABASE);
    ck_assert_int_eq(source_flags(SPAN_LIT("-1"), &f), ERR_DATABASE);
    ck_assert_int_eq(source_flags(SPAN_LIT("1.5"), &f), ERR_DATABASE);
    ck_assert_uint_eq(f, UINT32_MAX);
}
END_TEST

START_TEST(expiry)
{
    int64_t s;
    ck_assert(!source_expiry(0, &s));
    ck_assert(!source_expiry(-1, &s));
    ck_assert(!source_expiry(INT64_MIN, &s));
    ck_assert(source_expiry(1, &s));
    ck_assert_int_eq(s, 1);
    ck_assert(source_expiry(1999999, &s));
    ck_assert_int_eq(s, 1);
    ck_assert(source_expiry(3600000000, &s));
    ck_assert_int_eq(s, 3600);
}
END_TEST

START_TEST(utf8)
{
    ck_assert(source_is_utf8(SPAN_LIT("")));
    ck_assert(source_is_utf8(SPAN_LIT("a\0b")));
    ck_assert(source_is_utf8(SPAN_LIT("gr\xc3\xbc\xc3\x9f \xe6\x97\xa5 \xf0\x9f\x98\x80")));
    ck_assert(source_is_utf8(SPAN_LIT("\xf4\x8f\xbf\xbf")));
    ck_assert(!source_is_utf8(SPAN_LIT("\xff")));
    ck_assert(!source_is_utf8(SPAN_LIT("a\x80")));
    ck_assert(!source_is_utf8(SPAN_LIT("\xc0\xaf")));
    ck_assert(!source_is_utf8(SPAN_LIT("\xe0\x80\xaf")));
    ck_assert(!source_is_utf8(SPAN_LIT("\xed\xa0\x80")));
    ck_assert(!source_is_utf8(SPAN_LIT("\xf4\x90\x80\x80")));
    ck_assert(!source_is_utf8(SPAN_LIT("\xf5\x80\x80\x80")));
    ck_assert(!source_is_utf8(span_of("\xe6\x97\xa5", 2)));
}
END_TEST

static struct column column(enum column_kind kind, struct span bytes)
{
    return (struct column){.kind = kind, .bytes = bytes};
}

static void check_json(const struct column *columns, const char *expected)
{
    struct row row = {0};
    ck_assert_int_eq(source_json(&source, columns, &row), OK);
    ck_assert_msg(span_eq(span_of(row.value->data, row.value_len), span_str(expected)), "%.*s is not %s", (int)row.value_len,
                  row.value->data, expected);
    ck_assert_uint_ge(row.value->cap, row.value_len + ROW_VALUE_SLACK);
    chunk_unref(&row.value);
}

START_TEST(json_of_all_kinds)
{
    char *names[] = {"z", "a", "bin", "n", "bits", "none"};
    make_json(names, 6, 1000);
    struct column columns[] = {
        column(COLUMN_TEXT, SPAN_LIT("say \"hi\"\n\\ \xc3\xbc\x01")),
        column(COLUMN_TEXT, SPAN_LIT("")),
        column(COLUMN_TEXT, SPAN_LIT("\xff\x00\x01")),
        column(COLUMN_NUMBER, SPAN_LIT("18446744073709551615")),
        column(COLUMN_BITS, SPAN_LIT("\x01\x02")),
        {.is_null = true},
    };
    check_json(columns, "{\"z\":\"say \\\"hi\\\"\\n\\\\ \xc3\xbc\\u0001\",\"a\":\"\",\"bin\":{\"base64\":\"/wAB\"},"
                        "\"n\":18446744073709551615,\"bits\":258,\"none\":null}");
}
END_TEST

START_TEST(json_numbers_keep_their_digits)
{
    static const struct {
        const char *text, *json;
    } cases[] = {
        {"0", "0"},
        {"-0.00", "-0.00"},
        {"12345678901234567890123456789.123456789012345678901234567890",
         "12345678901234567890123456789.123456789012345678901234567890"},
        {"0.1", "0.1"},
        {"1e22", "1e22"},
        {"-1.5e-300", "-1.5e-300"},
        {"1E+5", "1E+5"},
        {"0000000042", "42"},
        {"00", "0"},
        {"000.50", "0.50"},
        {"2024", "2024"},
        {"inf", "\"inf\""},
        {"", "\"\""},
        {"-", "\"-\""},
        {"1.", "\"1.\""},
        {"1e", "\"1e\""},
        {"1 ", "\"1 \""},
    };
    char *names[] = {"n"};
    make_json(names, 1, 1000);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char expected[128];
        snprintf(expected, sizeof expected, "{\"n\":%s}", cases[i].json);
        struct column c = column(COLUMN_NUMBER, span_str(cases[i].text));
        check_json(&c, expected);
    }
}
END_TEST

START_TEST(json_up_to_the_limit)
{
    char *names[] = {"a"};
    char bytes[2000];
    for (size_t len = 0; len < 300; len++) {
        for (int kind = 0; kind < 3; kind++) {
            memset(bytes, kind == 0 ? 'x' : kind == 1 ? '"' : 0xff, sizeof bytes);
            size_t text_len = kind == 0 ? len + 2 : kind == 1 ? 2 * len + 2 : (len + 2) / 3 * 4 + 13;
            if (len == 0) {
                text_len = 2;
            }
            struct column c = column(COLUMN_TEXT, span_of(bytes, len));
            struct row row = {0};
            make_json(names, 1, 6 + text_len);
            ck_assert_int_eq(source_json(&source, &c, &row), OK);
            ck_assert_uint_eq(row.value_len, 6 + text_len);
            ck_assert_uint_ge(row.value->cap, row.value_len + ROW_VALUE_SLACK);
            chunk_unref(&row.value);
            source_deinit(&source);
            make_json(names, 1, 6 + text_len - 1);
            ck_assert_int_eq(source_json(&source, &c, &row), ERR_TOO_LARGE);
            ck_assert_ptr_null(row.value);
            source_deinit(&source);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("source");
    TCase *tc = tcase_create("sql");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, sql_of_one_column);
    tcase_add_test(tc, sql_of_everything);
    tcase_add_test(tc, names_are_quoted);
    tcase_add_test(tc, sql_of_several_keys);
    tcase_add_test(tc, row_key_is_the_key_without_the_prefix);
    tcase_add_test(tc, sql_of_a_composite_key);
    tcase_add_test(tc, a_row_key_is_taken_apart);
    tcase_add_test(tc, the_built_in_table_has_whole_keys);
    suite_add_tcase(suite, tc);
    tc = tcase_create("row");
    tcase_add_checked_fixture(tc, NULL, teardown);
    tcase_add_test(tc, flags);
    tcase_add_test(tc, versions);
    tcase_add_test(tc, expiry);
    tcase_add_test(tc, utf8);
    tcase_add_test(tc, json_of_all_kinds);
    tcase_add_test(tc, json_numbers_keep_their_digits);
    tcase_add_test(tc, json_up_to_the_limit);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
