/* Tables described, created and checked on a real server (see mysql_fixture.h). */
#include "proxy/database/schema.h"

#include <unistd.h>

#include "common/clock.h"
#include "proxy/database/store.h"
#include "tests/unit/database/mysql_fixture.h"

static struct config_source sources[3];
static struct config_namespace namespaces[] = {
    {.prefix = "e:", .name = "e", .write = WRITE_THROUGH, .source = &sources[0]},
    {.prefix = "t:", .name = "t", .write = WRITE_THROUGH, .source = &sources[1]},
    {.prefix = "", .name = "default"},
};
static struct config config;
static char *said;
static size_t said_len;

static void setup(void)
{
    fixture_connect();
    fixture_sql("DROP TABLE IF EXISTS outrigger_entries, outrigger_heartbeat, mapped");
    fixture_sql("DROP VIEW IF EXISTS mapped");
    sources[0] = (struct config_source){.kind = SOURCE_ENTRIES, .table = "outrigger_entries", .key_column = "cache_key", .value_column = "value",
                                        .flags_column = "flags", .version_column = "version", .expires_column = "expires_at"};
    sources[1] = (struct config_source){.table = "mapped", .key = "t:{a}/{b}", .value_column = "v", .version_column = "ver"};
    fixture.database.heartbeat_table = "outrigger_heartbeat";
    config = (struct config){.namespaces = namespaces, .namespace_count = 1, .database = &fixture.database, .max_value_size = 1000};
}

static void teardown(void)
{
    free(said);
    said = NULL;
    fixture_disconnect();
}

static void check(enum err (*what)(const struct config *, const struct store *, FILE *), enum err expected, const char *text)
{
    free(said);
    FILE *out = open_memstream(&said, &said_len);
    enum err err = what(&config, &store_mysql, out);
    fclose(out);
    ck_assert_msg(err == expected && strcmp(said, text) == 0, "%s: %s", err_text(err), said);
}

START_TEST(created_once_and_left_alone)
{
    check(schema_check, ERR_CONFIG, "namespace e, table outrigger_entries: there is no such table; outrigger --init-database --config FILE creates it\n");
    check(schema_init, OK, "outrigger_entries: is there (namespace e)\noutrigger_heartbeat: is there\n");
    check(schema_check, OK, "");
    fixture_sql("INSERT INTO outrigger_entries (cache_key, value, version) VALUES ('k', 'v', 1)");
    fixture_sql("UPDATE outrigger_heartbeat SET version = 7");
    check(schema_init, OK, "outrigger_entries: is there (namespace e)\noutrigger_heartbeat: is there\n");
    ck_assert_str_eq(fixture_ask("SELECT COUNT(*) FROM outrigger_entries"), "1");
    ck_assert_str_eq(fixture_ask("SELECT CONCAT(id,' ',version,' ',COUNT(*)) FROM outrigger_heartbeat"), "1 7 1");
    sources[0].table = "elsewhere.entries";
    fixture_sql("DROP DATABASE IF EXISTS elsewhere");
    fixture_sql("CREATE DATABASE elsewhere");
    check(schema_init, OK, "elsewhere.entries: is there (namespace e)\noutrigger_heartbeat: is there\n");
    check(schema_check, OK, "");
    fixture_sql("DROP DATABASE elsewhere");
}
END_TEST

START_TEST(another_table_of_that_name)
{
    fixture_sql("CREATE TABLE outrigger_entries (cache_key VARCHAR(50) PRIMARY KEY, value TEXT, flags INT UNSIGNED, version BIGINT) ENGINE=InnoDB");
    check(schema_init, ERR_CONFIG,
          "outrigger_entries: is there (namespace e)\noutrigger_heartbeat: is there\n"
          "namespace e, table outrigger_entries: version_column: column version is bigint(20), and must be BIGINT UNSIGNED\n"
          "namespace e, table outrigger_entries: expires_column: there is no column expires_at\n");
}
END_TEST

START_TEST(mapped_tables)
{
    config.namespace_count = 3;
    check(schema_init, ERR_CONFIG, "outrigger_entries: is there (namespace e)\noutrigger_heartbeat: is there\n"
                                   "namespace t, table mapped: there is no such table, or the account may not see it\n");
    fixture_sql("CREATE TABLE mapped (a INT, b VARCHAR(9), v TEXT, ver BIGINT UNSIGNED, n INT NOT NULL DEFAULT 3, "
                "g INT GENERATED ALWAYS AS (a + 1) VIRTUAL, i INT NOT NULL AUTO_INCREMENT UNIQUE, PRIMARY KEY (b, a)) ENGINE=InnoDB");
    check(schema_check, OK, "");
    fixture_sql("ALTER TABLE mapped ADD must INT NOT NULL, ADD c INT, DROP PRIMARY KEY, ADD UNIQUE (c, a, b), ADD UNIQUE (b(3), a)");
    check(schema_check, ERR_CONFIG,
          "warning: namespace t, table mapped: no unique index begins with the key columns a, …: every load may have to read the whole table\n"
          "namespace t, table mapped: column must is NOT NULL, has no default and is not mapped: no row can be inserted\n");
    fixture_sql("DROP TABLE mapped");
    fixture_sql("CREATE TABLE mapped (a INT, b INT, v TEXT, ver BIGINT UNSIGNED, PRIMARY KEY (a, b)) ENGINE=MyISAM");
    check(schema_check, ERR_CONFIG, "namespace t, table mapped: its engine, MyISAM, has no transactions: a write that fails could be half done\n");
    fixture_sql("DROP TABLE mapped");
    fixture_sql("CREATE VIEW mapped AS SELECT 1 AS a, 2 AS b, 'x' AS v");
    check(schema_check, ERR_CONFIG, "namespace t, table mapped: version_column: there is no column ver\n");
}
END_TEST

START_TEST(no_database)
{
    struct address nobody = fixture.primary;
    nobody.port = 1;
    fixture.database.primary = &nobody;
    free(said);
    FILE *out = open_memstream(&said, &said_len);
    ck_assert_int_eq(schema_check(&config, &store_mysql, out), ERR_UNAVAILABLE);
    fclose(out);
    ck_assert(said[0] != '\0');
    config.database = NULL;
    check(schema_init, ERR_CONFIG, "there is no database section\n");
}
END_TEST

START_TEST(in_the_background)
{
    char path[] = "/tmp/outrigger-test-XXXXXX";
    char text[1024] = "";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    unlink(path);
    struct log *log = log_create(fd, LOG_INFO);
    struct schema_watch *watch;
    ck_assert_int_eq(schema_watch_start(&config, &store_mysql, log, &watch), OK);
    for (uint64_t until = clock_mono_us() + 10000000; text[0] == '\0';) {
        ck_assert(clock_mono_us() < until);
        ck_assert_int_ge(pread(fd, text, sizeof text - 1, 0), 0);
        usleep(1000);
    }
    schema_watch_stop(&watch);
    ck_assert_msg(strstr(text, "namespace e, table outrigger_entries: there is no such table") != NULL, "%s", text);
    struct address nobody = fixture.primary;
    nobody.port = 1;
    fixture.database.primary = &nobody;
    ck_assert_int_eq(schema_watch_start(&config, &store_mysql, log, &watch), OK);
    schema_watch_stop(&watch);
    log_destroy(&log);
    close(fd);
}
END_TEST

int main(void)
{
    if (!fixture_init()) {
        return 0;
    }
    Suite *suite = suite_create("store_schema");
    TCase *tc = tcase_create("schema");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, created_once_and_left_alone);
    tcase_add_test(tc, another_table_of_that_name);
    tcase_add_test(tc, mapped_tables);
    tcase_add_test(tc, no_database);
    tcase_add_test(tc, in_the_background);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
