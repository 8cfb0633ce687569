#include "proxy/database/mapping.h"

#include "proxy/database/schema.h"
#include "tests/unit/check_main.h"

static struct config_source config;
static struct config_namespace namespace;
static struct source source;
static struct mapping_column columns[] = {
    {.name = "id", .type = "bigint(20)", .has_default = true},
    {.name = "part", .type = "varchar(20)", .is_nullable = true},
    {.name = "v", .type = "longtext", .is_nullable = true},
    {.name = "f", .type = "int(10) unsigned", .is_nullable = true},
    {.name = "ver", .type = "bigint(20) unsigned", .is_nullable = true},
    {.name = "e", .type = "datetime(6)", .is_nullable = true},
    {.name = "made_at", .type = "timestamp", .has_default = true},
};
static struct mapping_unique primary[] = {{"PRIMARY", "id"}, {"u", "part"}, {"u", "id"}};
static struct mapping_table table;
static char said[4096];

static void setup(void)
{
    config = (struct config_source){.table = "t", .key_column = "id", .value_column = "v", .flags_column = "f", .version_column = "ver",
                                    .expires_column = "e"};
    namespace = (struct config_namespace){.prefix = "p:", .name = "p", .source = &config, .write = WRITE_THROUGH};
    table = (struct mapping_table){.is_there = true, .is_transactional = true, .engine = "InnoDB", .columns = columns,
                                   .column_count = ARRAY_LEN(columns), .unique = primary, .unique_count = 3};
}

static void note(void *ctx, bool is_error, const char *text)
{
    size_t len = strlen(said);
    snprintf(said + len, sizeof said - len, "%s%s\n", is_error ? "" : "warning: ", text);
}

static void check(uint32_t errors, const char *expected)
{
    said[0] = '\0';
    source_init(&source, &namespace, 1000);
    ck_assert_uint_eq(mapping_check(&source, &table, note, NULL), errors);
    source_deinit(&source);
    ck_assert_str_eq(said, expected);
}

START_TEST(what_fits)
{
    check(0, "");
    config.key_column = NULL;
    config.key = (char *)(uintptr_t)"p:{ID}/{part}"; /* names of columns are the same in any case */
    check(0, "");
    namespace.write = WRITE_ASIDE;
    columns[6].has_default = false;
    check(0, "");
    columns[6].has_default = true;
}
END_TEST

START_TEST(no_table)
{
    table.is_there = false;
    check(1, "namespace p, table t: there is no such table, or the account may not see it\n");
    config.kind = SOURCE_ENTRIES;
    check(1, "namespace p, table t: there is no such table; outrigger --init-database --config FILE creates it\n");
}
END_TEST

START_TEST(no_columns)
{
    char *several[] = {(char *)(uintptr_t)"v", (char *)(uintptr_t)"w"};
    config = (struct config_source){.table = "t", .key_column = "k", .value_columns = several, .value_column_count = 2, .flags_column = "ff",
                                    .version_column = "vv", .expires_column = "ee"};
    namespace.write = WRITE_ASIDE;
    check(5, "namespace p, table t: key_column: there is no column k\n"
             "namespace p, table t: value_columns: there is no column w\n"
             "namespace p, table t: flags_column: there is no column ff\n"
             "namespace p, table t: version_column: there is no column vv\n"
             "namespace p, table t: expires_column: there is no column ee\n"
             "warning: namespace p, table t: no unique index begins with the key column k: every load may have to read the whole table\n");
}
END_TEST

START_TEST(types_that_do_not_fit)
{
    config.flags_column = "part";
    config.version_column = "id";
    config.expires_column = "v";
    check(3, "namespace p, table t: flags_column: column part is varchar(20), and must be an integer\n"
             "namespace p, table t: version_column: column id is bigint(20), and must be BIGINT UNSIGNED\n"
             "namespace p, table t: expires_column: column v is longtext, and must be DATETIME or TIMESTAMP\n");
}
END_TEST

START_TEST(indexes)
{
    config.key_column = "part";
    check(0, "warning: namespace p, table t: the unique index has more columns than the key (part): a key of which there are several rows can "
             "not be written\n");
    table.unique_count = 1;
    check(0, "warning: namespace p, table t: no unique index begins with the key column part: every load may have to read the whole table\n");
    config.key_column = "id";
    check(0, "");
}
END_TEST

START_TEST(what_can_not_be_written)
{
    table.is_transactional = false;
    snprintf(table.engine, sizeof table.engine, "MyISAM");
    columns[2].is_generated = true;
    columns[6].has_default = false;
    columns[5].is_nullable = false;
    config.version_column = NULL;
    check(4, "namespace p, table t: value_column: column v is generated, and write: through has to write it\n"
             "namespace p, table t: expires_column: column e is NOT NULL, and an entry without expiry is written as NULL\n"
             "namespace p, table t: its engine, MyISAM, has no transactions: a write that fails could be half done\n"
             "namespace p, table t: column made_at is NOT NULL, has no default and is not mapped: no row can be inserted\n"
             "warning: namespace p, table t: without version_column, cas commands are refused\n");
    columns[2].is_generated = false;
    columns[6].has_default = true;
    columns[5].is_nullable = true;
}
END_TEST

/* deploy/schema.sql has what --init-database runs. */
START_TEST(the_file_is_what_is_created)
{
    char path[512];
    static char text[16384];
    const char *end = strstr(__FILE__, "tests/unit/database/");
    ck_assert_ptr_nonnull(end);
    snprintf(path, sizeof path, "%.*sdeploy/schema.sql", (int)(end - __FILE__), __FILE__);
    FILE *file = fopen(path, "r");
    file = file != NULL ? file : fopen("deploy/schema.sql", "r"); /* run from the root */
    ck_assert_msg(file != NULL, "%s", path);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    fclose(file);
    char *statements[] = {schema_entries_sql("outrigger_entries"), schema_heartbeat_sql("outrigger_heartbeat"),
                          schema_first_heartbeat_sql("outrigger_heartbeat")};
    for (size_t i = 0; i < ARRAY_LEN(statements); i++) {
        ck_assert_msg(strstr(text, statements[i]) != NULL, "not in deploy/schema.sql: %s", statements[i]);
        free(statements[i]);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("mapping");
    TCase *tc = tcase_create("mapping");
    tcase_add_checked_fixture(tc, setup, NULL);
    tcase_add_test(tc, what_fits);
    tcase_add_test(tc, no_table);
    tcase_add_test(tc, no_columns);
    tcase_add_test(tc, types_that_do_not_fit);
    tcase_add_test(tc, indexes);
    tcase_add_test(tc, what_can_not_be_written);
    tcase_add_test(tc, the_file_is_what_is_created);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
