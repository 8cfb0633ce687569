/* What:    what the tests of the store share that run against a real server: OUTRIGGER_TEST_MYSQL=host:port:user:password:schema, an
 *          account that may do everything (see test_store_mysql.c for how to have such a server). Without it they are skipped. */
#ifndef TESTS_UNIT_DATABASE_MYSQL_FIXTURE_H
#define TESTS_UNIT_DATABASE_MYSQL_FIXTURE_H

#include <mysql.h>
#include <stdarg.h>

#include "common/config.h"
#include "tests/unit/check_main.h"

struct fixture {
    struct address address;
    struct config_database database;
    struct address primary;
    MYSQL *admin;
};

static struct fixture fixture;

static inline bool fixture_init(void)
{
    const char *text = getenv("OUTRIGGER_TEST_MYSQL");
    if (text == NULL) {
        printf("skipped: OUTRIGGER_TEST_MYSQL is not set\n");
        return false;
    }
    char *parts[5];
    char *rest = xstrdup(text); /* lives as long as the process */
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        parts[i] = strsep(&rest, ":");
        if (parts[i] == NULL) {
            fprintf(stderr, "OUTRIGGER_TEST_MYSQL is not host:port:user:password:schema\n");
            exit(2);
        }
    }
    fixture.primary = (struct address){.text = parts[0], .host = parts[0], .port = (uint16_t)atoi(parts[1])};
    fixture.database = (struct config_database){
        .primary = &fixture.primary,
        .primary_count = 1,
        .user = parts[2],
        .password = parts[3],
        .schema = parts[4],
        .threads = 4,
        .write_threads = 2,
        .batch = 128,
        .queue = 100,
        .connect_timeout_ms = 2000,
        .timeout_ms = 1000,
        .tls_ca = getenv("OUTRIGGER_TEST_MYSQL_CA"),
    };
    return true;
}

static inline void fixture_sql(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline void fixture_sql(const char *fmt, ...)
{
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    ck_assert_msg(mysql_query(fixture.admin, text) == 0, "%s: %s", text, mysql_error(fixture.admin));
    MYSQL_RES *result = mysql_store_result(fixture.admin);
    if (result != NULL) {
        mysql_free_result(result);
    }
}

/* The first column of the first row; "NULL" for NULL, "nothing" without a row. */
static inline const char *fixture_ask(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline const char *fixture_ask(const char *fmt, ...)
{
    static char out[8192];
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    ck_assert_msg(mysql_query(fixture.admin, text) == 0, "%s: %s", text, mysql_error(fixture.admin));
    MYSQL_RES *result = mysql_store_result(fixture.admin);
    ck_assert_msg(result != NULL, "%s: no result", text);
    MYSQL_ROW values = mysql_fetch_row(result);
    snprintf(out, sizeof out, "%s", values == NULL ? "nothing" : values[0] == NULL ? "NULL" : values[0]);
    mysql_free_result(result);
    return out;
}

static inline MYSQL *fixture_connection(void)
{
    const struct config_database *d = &fixture.database;
    MYSQL *mysql = mysql_init(NULL);
    mysql_options(mysql, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    mysql_options(mysql, MYSQL_INIT_COMMAND, "SET autocommit=1, sql_mode=''");
    ck_assert_msg(mysql_real_connect(mysql, fixture.primary.host, d->user, d->password, d->schema, fixture.primary.port, NULL, 0) != NULL, "%s",
                  mysql_error(mysql));
    return mysql;
}

static inline void fixture_connect(void)
{
    fixture.admin = fixture_connection();
}

static inline void fixture_disconnect(void)
{
    mysql_close(fixture.admin);
}

#endif
