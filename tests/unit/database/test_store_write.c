/* Every operation on a real server (see mysql_fixture.h), and connections that are cut at every step of it. */
#include "proxy/database/store.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/unit/database/mysql_fixture.h"

#define MS 1000ULL
#define VALUE_MAX 1000

static struct config_source table;
static struct config_namespace namespace = {.prefix = "p:", .name = "p", .write = WRITE_THROUGH, .source = &table};
static struct source source;
static struct config_database database; /* the fixture's, or the proxy in front of it */
static struct store_connection *connection;
static struct write result;
static uint64_t next_version;

/* --- fixture --- */

static void open_connection(void)
{
    char error[STORE_ERROR_MAX];
    connection = store_mysql.open(&(struct store_options){
        .config = &database, .address = database.primary, .sources = &source, .source_count = 1, .max_value_size = VALUE_MAX, .is_writer = true});
    ck_assert_msg(store_mysql.connect(connection, error, sizeof error) == OK, "%s", error);
}

static void close_source(void)
{
    if (connection != NULL) {
        store_mysql.close(&connection);
        source_deinit(&source);
    }
}

static void open_source(struct config_source config)
{
    close_source();
    table = config;
    source_init(&source, &namespace, VALUE_MAX);
    open_connection();
}

static void open_entries(void)
{
    close_source();
    fixture_sql("CREATE OR REPLACE TABLE outrigger_entries (cache_key VARBINARY(250) PRIMARY KEY, value LONGBLOB NOT NULL, flags INT UNSIGNED NOT NULL "
                "DEFAULT 0, version BIGINT UNSIGNED NOT NULL, updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE "
                "CURRENT_TIMESTAMP(6), expires_at TIMESTAMP(6) NULL DEFAULT NULL) ENGINE=InnoDB");
    open_source((struct config_source){.kind = SOURCE_ENTRIES,
                                       .table = "outrigger_entries",
                                       .key_column = "cache_key",
                                       .value_column = "value",
                                       .flags_column = "flags",
                                       .version_column = "version",
                                       .expires_column = "expires_at"});
}

static void open_kv(const char *columns)
{
    close_source();
    fixture_sql("DROP TABLE IF EXISTS wkv");
    fixture_sql("CREATE TABLE wkv (%s) ENGINE=InnoDB", columns);
    open_source((struct config_source){.table = "wkv", .key_column = "k", .value_column = "v"});
}

/* A mapped table that has everything. */
static void open_full(void)
{
    close_source();
    fixture_sql("DROP TABLE IF EXISTS wfull");
    fixture_sql("CREATE TABLE wfull (k VARCHAR(50) COLLATE utf8mb4_general_ci PRIMARY KEY, v BLOB, f INT UNSIGNED, ver BIGINT UNSIGNED, "
                "e DATETIME(6), other INT NOT NULL DEFAULT 7) ENGINE=InnoDB");
    open_source((struct config_source){
        .table = "wfull", .key_column = "k", .value_column = "v", .flags_column = "f", .version_column = "ver", .expires_column = "e"});
}

static void setup(void)
{
    database = fixture.database;
    next_version = 1000;
    fixture_connect();
}

static void teardown(void)
{
    chunk_unref(&result.row.value);
    close_source();
    fixture_disconnect();
}

static struct write make(enum write_op op, const char *key, const char *value)
{
    struct write write = {.op = op, .value = span_str(value), .version = ++next_version, .deadline_us = clock_mono_us() + 5000 * MS};
    write.key_len = (uint16_t)snprintf(write.key, sizeof write.key, "%s", key);
    return write;
}

static enum err submit(struct write write)
{
    chunk_unref(&result.row.value);
    result = write;
    return store_mysql.write(connection, &result);
}

static void check_outcome(struct write write, enum write_outcome expected)
{
    static const char *const names[] = {"applied", "not stored", "exists", "not found", "non-numeric", "too large", "refused", "failed", "in doubt"};
    enum err err = submit(write);
    ck_assert_msg(result.outcome == expected, "op %d of %s: %s instead of %s: %s", write.op, write.key, names[result.outcome], names[expected],
                  result.error);
    ck_assert_int_eq(err, OK);
    ck_assert(result.outcome == WRITE_APPLIED || !result.row.found);
    ck_assert((result.outcome == WRITE_FAILED || result.outcome == WRITE_REFUSED) == (result.error[0] != '\0'));
}

static void check(enum write_op op, const char *key, const char *value, enum write_outcome expected)
{
    check_outcome(make(op, key, value), expected);
}

static void check_refused(struct write write, const char *part)
{
    check_outcome(write, WRITE_REFUSED);
    ck_assert_msg(strstr(result.error, part) != NULL && strstr(result.error, "namespace p") != NULL, "%s", result.error);
}

static void check_row(const char *expected)
{
    ck_assert(result.row.found);
    struct span got = span_of(result.row.value->data, result.row.value_len);
    ck_assert_msg(span_eq(got, span_str(expected)), "%.*s is not %s", SPAN_FMT(got), expected);
}

#define CHECK_SQL(expected, ...) ck_assert_str_eq(fixture_ask(__VA_ARGS__), expected)

/* --- the operations, on the built-in table and on a mapped one that has everything --- */

static void (*const open_both[])(void) = {open_entries, open_full};
static const char *const values[] = {"SELECT value FROM outrigger_entries WHERE cache_key='p:%s'", "SELECT v FROM wfull WHERE k='%s'"};
static const char *const rests[] = {
    "SELECT CONCAT(flags,' ',version,' ',IF(expires_at IS NULL,'never',ROUND(TIMESTAMPDIFF(MICROSECOND,NOW(6),expires_at)/10000000))) FROM "
    "outrigger_entries WHERE cache_key='p:%s'",
    "SELECT CONCAT(f,' ',ver,' ',IF(e IS NULL,'never',ROUND(TIMESTAMPDIFF(MICROSECOND,NOW(6),e)/10000000))) FROM wfull WHERE k='%s'"};

static const char *ask(int which, const char *const *queries, const char *key)
{
    char query[512];
    char *out = query;
    const char *mark = strstr(queries[which], "%s");
    out += snprintf(out, sizeof query, "%.*s%s%s", (int)(mark - queries[which]), queries[which], key, mark + 2);
    (void)out;
    return fixture_ask("%s", query);
}

static void expire(int which, const char *key)
{
    fixture_sql(which == 0 ? "UPDATE outrigger_entries SET expires_at=NOW(6) - INTERVAL 1 SECOND WHERE cache_key='p:%s'"
                           : "UPDATE wfull SET e=NOW(6) - INTERVAL 1 SECOND WHERE k='%s'",
                key);
}

START_TEST(set)
{
    open_both[_i]();
    struct write write = make(WRITE_SET, "p:a", "one");
    write.flags = 4294967295;
    write.exptime = 600;
    check_outcome(write, WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, values, "a"), "one");
    ck_assert_str_eq(ask(_i, rests, "a"), "4294967295 1001 60");
    check(WRITE_SET, "p:a", "two", WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, values, "a"), "two");
    ck_assert_str_eq(ask(_i, rests, "a"), "0 1002 never");
    check(WRITE_SET, "p:a", "", WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, values, "a"), "");
    write = make(WRITE_SET, "p:a", "x");
    write.value = (struct span){0};
    check_outcome(write, WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, values, "a"), "");
    write = make(WRITE_SET, "p:bin", "x");
    write.value = SPAN_LIT("\0\xff\r\n'\\");
    check_outcome(write, WRITE_APPLIED);
    CHECK_SQL("00FF0D0A275C", _i == 0 ? "SELECT HEX(value) FROM outrigger_entries WHERE cache_key='p:bin'" : "SELECT HEX(v) FROM wfull WHERE k='bin'");
    write = make(WRITE_SET, "p:abs", "x");
    write.exptime = atoll(fixture_ask("SELECT UNIX_TIMESTAMP()+3000"));
    ck_assert_int_gt(write.exptime, 30 * 86400);
    check_outcome(write, WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, rests, "abs"), "0 1006 300");
    write = make(WRITE_SET, "p:gone", "x");
    write.exptime = -1;
    check_outcome(write, WRITE_APPLIED);
    check(WRITE_REPLACE, "p:gone", "y", WRITE_NOT_STORED);
    write = make(WRITE_SET, "p:far", "x");
    write.exptime = INT64_MAX;
    check_outcome(write, WRITE_APPLIED);
    check(WRITE_REPLACE, "p:far", "y", WRITE_APPLIED);
    char large[VALUE_MAX + 2];
    memset(large, 'x', sizeof large);
    large[VALUE_MAX + 1] = '\0';
    check(WRITE_SET, "p:large", large, WRITE_TOO_LARGE);
    large[VALUE_MAX] = '\0';
    check(WRITE_SET, "p:large", large, WRITE_APPLIED);
}
END_TEST

START_TEST(add_and_replace)
{
    open_both[_i]();
    check(WRITE_REPLACE, "p:a", "x", WRITE_NOT_STORED);
    check(WRITE_ADD, "p:a", "one", WRITE_APPLIED);
    check(WRITE_ADD, "p:a", "two", WRITE_NOT_STORED);
    ck_assert_str_eq(ask(_i, values, "a"), "one");
    check(WRITE_REPLACE, "p:a", "three", WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, values, "a"), "three");
    expire(_i, "a");
    check(WRITE_REPLACE, "p:a", "x", WRITE_NOT_STORED);
    check(WRITE_APPEND, "p:a", "x", WRITE_NOT_STORED);
    check(WRITE_DELETE, "p:a", "", WRITE_NOT_FOUND);
    check(WRITE_TOUCH, "p:a", "", WRITE_NOT_FOUND);
    struct write write = make(WRITE_ADD, "p:a", "four");
    write.flags = 3;
    check_outcome(write, WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, values, "a"), "four");
    char expected[64];
    snprintf(expected, sizeof expected, "3 %llu never", (unsigned long long)write.version);
    ck_assert_str_eq(ask(_i, rests, "a"), expected);
}
END_TEST

START_TEST(append_and_prepend)
{
    open_both[_i]();
    check(WRITE_APPEND, "p:a", "x", WRITE_NOT_STORED);
    check(WRITE_PREPEND, "p:a", "x", WRITE_NOT_STORED);
    struct write write = make(WRITE_SET, "p:a", "mid");
    write.flags = 5;
    write.exptime = 600;
    check_outcome(write, WRITE_APPLIED);
    write = make(WRITE_APPEND, "p:a", "-end");
    write.flags = 9;
    write.exptime = 1;
    check_outcome(write, WRITE_APPLIED);
    check_row("mid-end");
    ck_assert_uint_eq(result.row.flags, 5);
    ck_assert_uint_eq(result.row.version, write.version);
    ck_assert_int_gt(result.row.expires_in_s, 590);
    check(WRITE_PREPEND, "p:a", "begin-", WRITE_APPLIED);
    check_row("begin-mid-end");
    check(WRITE_APPEND, "p:a", "", WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, values, "a"), "begin-mid-end");
    ck_assert_str_eq(ask(_i, rests, "a"), "5 1006 60");
    char large[VALUE_MAX + 1];
    memset(large, 'x', VALUE_MAX);
    large[VALUE_MAX] = '\0';
    check(WRITE_APPEND, "p:a", large, WRITE_TOO_LARGE);
    ck_assert_str_eq(ask(_i, values, "a"), "begin-mid-end");
}
END_TEST

static struct write arithmetic(enum write_op op, const char *key, uint64_t delta)
{
    struct write write = make(op, key, "");
    write.delta = delta;
    return write;
}

static void check_number(struct write write, uint64_t expected)
{
    check_outcome(write, WRITE_APPLIED);
    ck_assert_uint_eq(result.number, expected);
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)expected);
    check_row(text);
}

START_TEST(incr_and_decr)
{
    static const char *const no_numbers[] = {"", "x", "1x", "-1", "+1", " 1", "1.5", "18446744073709551616", "000000000000000000001", "1e3"};
    open_both[_i]();
    check_outcome(arithmetic(WRITE_INCR, "p:n", 1), WRITE_NOT_FOUND);
    struct write write = make(WRITE_SET, "p:n", "10");
    write.flags = 5;
    write.exptime = 600;
    check_outcome(write, WRITE_APPLIED);
    check_number(arithmetic(WRITE_INCR, "p:n", 5), 15);
    check_number(arithmetic(WRITE_DECR, "p:n", 6), 9);
    ck_assert_str_eq(ask(_i, values, "n"), "9");
    ck_assert_str_eq(ask(_i, rests, "n"), "5 1004 60");
    check_number(arithmetic(WRITE_DECR, "p:n", 10), 0);
    check_number(arithmetic(WRITE_INCR, "p:n", UINT64_MAX), UINT64_MAX);
    check_number(arithmetic(WRITE_INCR, "p:n", 2), 1); /* wraps */
    check(WRITE_SET, "p:n", "18446744073709551615", WRITE_APPLIED);
    check_number(arithmetic(WRITE_DECR, "p:n", 1), UINT64_MAX - 1);
    check(WRITE_SET, "p:n", "5  ", WRITE_APPLIED);
    check_number(arithmetic(WRITE_INCR, "p:n", 1), 6);
    for (size_t i = 0; i < ARRAY_LEN(no_numbers); i++) {
        check(WRITE_SET, "p:n", no_numbers[i], WRITE_APPLIED);
        check_outcome(arithmetic(WRITE_INCR, "p:n", 1), WRITE_NON_NUMERIC);
        ck_assert_str_eq(ask(_i, values, "n"), no_numbers[i]);
    }
    write = arithmetic(WRITE_INCR, "p:new", 3);
    write.has_initial = true;
    write.initial = 100;
    write.exptime = 600;
    check_outcome(write, WRITE_APPLIED);
    ck_assert_uint_eq(result.number, 100);
    char expected[64];
    snprintf(expected, sizeof expected, "0 %llu 60", (unsigned long long)write.version);
    ck_assert_str_eq(ask(_i, rests, "new"), expected);
    check_outcome(write, WRITE_APPLIED);
    ck_assert_uint_eq(result.number, 103);
    expire(_i, "new");
    write.exptime = 0;
    check_number(write, 100);
    ck_assert_str_eq(ask(_i, values, "new"), "100");
}
END_TEST

START_TEST(delete_and_touch)
{
    open_both[_i]();
    check(WRITE_DELETE, "p:a", "", WRITE_NOT_FOUND);
    check(WRITE_TOUCH, "p:a", "", WRITE_NOT_FOUND);
    check(WRITE_SET, "p:a", "one", WRITE_APPLIED);
    check(WRITE_SET, "p:b", "two", WRITE_APPLIED);
    struct write write = make(WRITE_TOUCH, "p:a", "");
    write.exptime = 600;
    check_outcome(write, WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, rests, "a"), "0 1003 60"); /* a touch is no change: the version stays */
    check(WRITE_TOUCH, "p:a", "", WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, rests, "a"), "0 1003 never");
    check(WRITE_DELETE, "p:a", "", WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, values, "a"), "nothing");
    ck_assert_str_eq(ask(_i, values, "b"), "two");
    check(WRITE_DELETE, "p:a", "", WRITE_NOT_FOUND);
}
END_TEST

static struct write with_cas(enum write_op op, const char *key, const char *value, uint64_t cas)
{
    struct write write = make(op, key, value);
    write.has_cas = true;
    write.cas = cas;
    return write;
}

START_TEST(cas)
{
    open_both[_i]();
    check_outcome(with_cas(WRITE_SET, "p:a", "x", 5), WRITE_NOT_FOUND);
    check_outcome(with_cas(WRITE_REPLACE, "p:a", "x", 5), WRITE_NOT_STORED);
    check(WRITE_SET, "p:a", "one", WRITE_APPLIED);
    uint64_t version = result.version;
    check_outcome(with_cas(WRITE_SET, "p:a", "x", version + 1), WRITE_EXISTS);
    check_outcome(with_cas(WRITE_DELETE, "p:a", "x", version + 1), WRITE_EXISTS);
    check_outcome(with_cas(WRITE_APPEND, "p:a", "x", version + 1), WRITE_EXISTS);
    check_outcome(with_cas(WRITE_INCR, "p:a", "x", version + 1), WRITE_EXISTS);
    check_outcome(with_cas(WRITE_TOUCH, "p:a", "x", version + 1), WRITE_EXISTS);
    ck_assert_str_eq(ask(_i, values, "a"), "one");
    check_outcome(with_cas(WRITE_SET, "p:a", "two", version), WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, values, "a"), "two");
    check_outcome(with_cas(WRITE_SET, "p:a", "three", version), WRITE_EXISTS);
    check_outcome(with_cas(WRITE_ADD, "p:a", "three", version), WRITE_NOT_STORED);
    check_outcome(with_cas(WRITE_DELETE, "p:a", "", result.version), WRITE_EXISTS);
    uint64_t now = strtoull(fixture_ask(_i == 0 ? "SELECT version FROM outrigger_entries" : "SELECT ver FROM wfull"), NULL, 10);
    expire(_i, "a");
    check_outcome(with_cas(WRITE_SET, "p:a", "x", now), WRITE_NOT_FOUND);
    check(WRITE_SET, "p:a", "four", WRITE_APPLIED);
    check_outcome(with_cas(WRITE_DELETE, "p:a", "", result.version), WRITE_APPLIED);
    ck_assert_str_eq(ask(_i, values, "a"), "nothing");
}
END_TEST

/* --- what a mapping has no place for --- */

START_TEST(keys_are_exact)
{
    open_full();
    fixture_sql("INSERT INTO wfull (k, v) VALUES ('bash', 'b'), ('tail', 't')");
    check_refused(make(WRITE_SET, "p:Bash", "x"), "another row");
    check_refused(make(WRITE_ADD, "p:BASH", "x"), "another row");
    check_refused(make(WRITE_SET, "p:tail ", "x"), "another row");
    check_refused(make(WRITE_SET, "p:\xff", "x"), "no row has such a key");
    check(WRITE_DELETE, "p:Bash", "", WRITE_NOT_FOUND);
    check(WRITE_REPLACE, "p:Bash", "x", WRITE_NOT_STORED);
    check(WRITE_DELETE, "p:\xff", "", WRITE_NOT_FOUND);
    check_outcome(arithmetic(WRITE_INCR, "p:Bash", 1), WRITE_NOT_FOUND);
    CHECK_SQL("bash=b,tail=t", "SELECT GROUP_CONCAT(k,'=',v ORDER BY k) FROM wfull");
    open_kv("k INT PRIMARY KEY, v TEXT");
    check(WRITE_SET, "p:7", "seven", WRITE_APPLIED);
    check(WRITE_SET, "p:0", "zero", WRITE_APPLIED);
    static const char *const wrong[] = {"p:07", "p: 7", "p:7 ", "p:7.0", "p:08", "p:8 ", "p:8.4", "p:+8", "p:abc", "p:", "p:99999999999", "p:-0"};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        check_outcome(make(WRITE_SET, wrong[i], "x"), WRITE_REFUSED);
        check(WRITE_DELETE, wrong[i], "", WRITE_NOT_FOUND);
    }
    CHECK_SQL("0=zero,7=seven", "SELECT GROUP_CONCAT(k,'=',v ORDER BY k) FROM wkv");
    open_kv("k CHAR(4) COLLATE utf8mb4_bin PRIMARY KEY, v TEXT");
    check_outcome(make(WRITE_SET, "p:a ", "x"), WRITE_REFUSED);
    check_outcome(make(WRITE_SET, "p:abcde", "x"), WRITE_REFUSED);
    CHECK_SQL("0", "SELECT COUNT(*) FROM wkv");
    open_kv("k INT AUTO_INCREMENT PRIMARY KEY, v TEXT");
    check(WRITE_SET, "p:0", "zero", WRITE_APPLIED);
    CHECK_SQL("0=zero", "SELECT GROUP_CONCAT(k,'=',v ORDER BY k) FROM wkv");
}
END_TEST

START_TEST(composite_keys)
{
    fixture_sql("DROP TABLE IF EXISTS worders");
    fixture_sql("CREATE TABLE worders (a INT, b VARBINARY(10), v TEXT, PRIMARY KEY (a, b)) ENGINE=InnoDB");
    open_source((struct config_source){.table = "worders", .key = "p:{a}/{b}", .value_column = "v"});
    check(WRITE_SET, "p:1/x", "one", WRITE_APPLIED);
    check(WRITE_SET, "p:1/x/y", "two", WRITE_APPLIED);
    check(WRITE_SET, "p:1/x", "three", WRITE_APPLIED);
    check_refused(make(WRITE_SET, "p:1", "x"), "no row has such a key");
    check_outcome(make(WRITE_SET, "p:01/x", "x"), WRITE_REFUSED);
    check(WRITE_DELETE, "p:1", "", WRITE_NOT_FOUND);
    CHECK_SQL("1/x=three,1/x/y=two", "SELECT GROUP_CONCAT(a,'/',b,'=',v ORDER BY b) FROM worders");
    check(WRITE_DELETE, "p:1/x", "", WRITE_APPLIED);
    CHECK_SQL("1/x/y=two", "SELECT GROUP_CONCAT(a,'/',b,'=',v ORDER BY b) FROM worders");
}
END_TEST

START_TEST(values_are_stored_as_they_are_or_not_at_all)
{
    static const char *const cases[][3] = {
        /* column, what it keeps, what it would change or not take */
        {"INT", "-12", "012"},          {"INT", "0", "99999999999"},     {"INT", "7", "x"},
        {"INT", "7", " 7"},             {"VARCHAR(3)", "abc", "abcd"},   {"CHAR(5)", "abc", "abc "},
        {"DECIMAL(6,2)", "1.50", "1.5"}, {"DATE", "2024-01-31", "2024-1-31"}, {"VARCHAR(9) CHARACTER SET latin1", "\xc3\xbc", "\xe6\x97\xa5"},
        {"TEXT", "\xc3\xbc", "\xff"},   {"ENUM('x','y')", "y", "z"},     {"INT CHECK (v > 3)", "4", "3"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char columns[200];
        snprintf(columns, sizeof columns, "k INT PRIMARY KEY, v %s", cases[i][0]);
        open_kv(columns);
        check_outcome(make(WRITE_SET, "p:1", cases[i][2]), WRITE_REFUSED);
        CHECK_SQL("0", "SELECT COUNT(*) FROM wkv");
        check(WRITE_SET, "p:1", cases[i][1], WRITE_APPLIED);
        check_row(cases[i][1]);
        check_outcome(make(WRITE_SET, "p:1", cases[i][2]), WRITE_REFUSED);
        CHECK_SQL(cases[i][1], "SELECT v FROM wkv");
    }
}
END_TEST

START_TEST(columns_that_are_not_there)
{
    open_kv("k INT PRIMARY KEY, v TEXT, must INT NOT NULL DEFAULT 3");
    struct write write = make(WRITE_SET, "p:1", "x");
    write.flags = 1;
    check_refused(write, "no flags_column");
    write.flags = 0;
    write.exptime = 600; /* the cache entry's alone */
    check_outcome(write, WRITE_APPLIED);
    check_refused(with_cas(WRITE_SET, "p:1", "x", 1), "no version_column");
    check_refused(with_cas(WRITE_DELETE, "p:1", "x", 1), "no version_column");
    write = make(WRITE_TOUCH, "p:1", "");
    write.exptime = 10;
    check_outcome(write, WRITE_APPLIED);
    check(WRITE_TOUCH, "p:2", "", WRITE_NOT_FOUND);
    check_number((check(WRITE_SET, "p:1", "5", WRITE_APPLIED), arithmetic(WRITE_INCR, "p:1", 2)), 7);
    fixture_sql("ALTER TABLE wkv ADD needed INT NOT NULL");
    check_refused(make(WRITE_SET, "p:2", "x"), "needed");
    fixture_sql("ALTER TABLE wkv DROP needed, ADD u INT DEFAULT 1, ADD UNIQUE (u)");
    check_refused(make(WRITE_SET, "p:2", "x"), "Duplicate"); /* not the key's fault, and not the other row's either */
    CHECK_SQL("1=7", "SELECT GROUP_CONCAT(k,'=',v ORDER BY k) FROM wkv");
    fixture_sql("UPDATE wkv SET v = NULL");
    check(WRITE_REPLACE, "p:1", "x", WRITE_NOT_STORED); /* a NULL is no row for loads either */
    check(WRITE_ADD, "p:1", "x", WRITE_APPLIED);
    CHECK_SQL("1=x", "SELECT GROUP_CONCAT(k,'=',v ORDER BY k) FROM wkv");
    fixture_sql("DROP TABLE wkv");
    check(WRITE_SET, "p:1", "x", WRITE_FAILED);
    ck_assert_msg(strstr(result.error, "namespace p, table wkv") != NULL, "%s", result.error);
    fixture_sql("CREATE TABLE wkv (k VARBINARY(9) PRIMARY KEY, v BLOB) ENGINE=InnoDB");
    check(WRITE_SET, "p:\xff", "\xff", WRITE_APPLIED);
}
END_TEST

START_TEST(json)
{
    char *columns[] = {"k", "t", "n", "d", "raw", "bits"};
    fixture_sql("DROP TABLE IF EXISTS wwide");
    fixture_sql("CREATE TABLE wwide (k VARCHAR(20) COLLATE utf8mb4_bin PRIMARY KEY, t TEXT, n BIGINT UNSIGNED, d DECIMAL(40,20), "
                "raw VARBINARY(20), bits BIT(12), other INT DEFAULT 9) ENGINE=InnoDB");
    open_source((struct config_source){.table = "wwide", .key_column = "k", .value_columns = columns, .value_column_count = 6});
    const char *text = "{ \"d\" : 12345678901234567890.12345678901234567891, \"k\":\"a\",\"t\":\"say \\\"}\\\" \xc3\xbc\",\"n\":18446744073709551615,"
                       "\"raw\":{\"base64\":\"/wA=\"},\"bits\":2049 }";
    check(WRITE_SET, "p:a", text, WRITE_APPLIED);
    check_row("{\"k\":\"a\",\"t\":\"say \\\"}\\\" \xc3\xbc\",\"n\":18446744073709551615,\"d\":12345678901234567890.12345678901234567891,"
              "\"raw\":{\"base64\":\"/wA=\"},\"bits\":2049}");
    CHECK_SQL("18446744073709551615 12345678901234567890.12345678901234567891 FF00 2049 9",
              "SELECT CONCAT(n,' ',d,' ',HEX(raw),' ',bits+0,' ',other) FROM wwide");
    /* What loads answer can be written back. */
    char *back = xstrndup(result.row.value->data, result.row.value_len);
    fixture_sql("UPDATE wwide SET other = 8");
    check(WRITE_SET, "p:a", back, WRITE_APPLIED);
    check_row(back);
    free(back);
    CHECK_SQL("8", "SELECT other FROM wwide");
    check(WRITE_SET, "p:a", "{\"k\":\"a\",\"t\":null,\"n\":true,\"d\":1.5,\"raw\":\"x\",\"bits\":null}", WRITE_APPLIED);
    check_row("{\"k\":\"a\",\"t\":null,\"n\":1,\"d\":1.50000000000000000000,\"raw\":\"x\",\"bits\":null}");
    static const char *const wrong[][2] = {
        {"", "not a JSON object"},
        {"[]", "not a JSON object"},
        {"{\"k\":\"a\"", "not a JSON object"},
        {"{\"k\":\"a\",\"k\":\"a\"}", "not a JSON object"},
        {"{\"k\":\"a\",\"t\":null,\"n\":1,\"d\":1,\"raw\":\"x\"}", "member \"bits\" is missing"},
        {"{\"k\":\"b\",\"t\":null,\"n\":1,\"d\":1,\"raw\":\"x\",\"bits\":1}", "member \"k\" is part of the key"},
        {"{\"k\":\"a\",\"other\":1}", "member \"other\" is none"},
        {"{\"k\":\"a\",\"t\":[1],\"n\":1,\"d\":1,\"raw\":\"x\",\"bits\":1}", "member \"t\" is neither"},
        {"{\"k\":\"a\",\"t\":{\"base64\":\"a\"},\"n\":1,\"d\":1,\"raw\":\"x\",\"bits\":1}", "member \"t\" is neither"},
        {"{\"k\":\"a\",\"t\":{\"base64\":\"/w==\"},\"n\":1,\"d\":1,\"raw\":\"x\",\"bits\":1}", "column t is for text"},
        {"{\"k\":\"a\",\"t\":null,\"n\":-1,\"d\":1,\"raw\":\"x\",\"bits\":1}", "n"},
        {"{\"k\":\"a\",\"t\":null,\"n\":\"x\",\"d\":1,\"raw\":\"x\",\"bits\":1}", "n"},
        {"{\"k\":\"a\",\"t\":null,\"n\":1,\"d\":1,\"raw\":\"xxxxxxxxxxxxxxxxxxxxx\",\"bits\":1}", "raw"},
    };
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
        check_refused(make(WRITE_SET, "p:a", wrong[i][0]), wrong[i][1]);
    }
    check_refused(make(WRITE_APPEND, "p:a", "x"), "single value_column");
    check_refused(arithmetic(WRITE_INCR, "p:a", 1), "single value_column");
    CHECK_SQL("1", "SELECT n FROM wwide");
    check(WRITE_DELETE, "p:a", "", WRITE_APPLIED);
    CHECK_SQL("0", "SELECT COUNT(*) FROM wwide");
}
END_TEST

/* --- others, and servers that will not --- */

struct other {
    pthread_t id;
    uint64_t number;
};

/* Ten increments on a connection of its own. */
static void *increment(void *arg)
{
    struct other *other = arg;
    char error[STORE_ERROR_MAX];
    struct store_connection *c = store_mysql.open(&(struct store_options){
        .config = &database, .address = database.primary, .sources = &source, .source_count = 1, .max_value_size = VALUE_MAX, .is_writer = true});
    enum err err = store_mysql.connect(c, error, sizeof error);
    for (int i = 0; i < 50 && err == OK; i++) {
        struct write write = {.op = WRITE_INCR, .delta = 1, .has_initial = true, .initial = 1, .version = 1, .key_len = 3, .key = "p:n",
                              .deadline_us = clock_mono_us() + 5000 * MS};
        err = store_mysql.write(c, &write);
        other->number += err == OK && write.outcome == WRITE_APPLIED;
        chunk_unref(&write.row.value);
    }
    store_mysql.close(&c);
    return NULL;
}

START_TEST(increments_at_once_are_all_counted)
{
    struct other others[6] = {0};
    uint64_t sum = 0;
    char text[32];
    open_both[_i]();
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        ck_assert_int_eq(pthread_create(&others[i].id, NULL, increment, &others[i]), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        pthread_join(others[i].id, NULL);
        sum += others[i].number;
    }
    ck_assert_uint_gt(sum, 100);
    snprintf(text, sizeof text, "%llu", (unsigned long long)sum);
    ck_assert_str_eq(ask(_i, values, "n"), text);
}
END_TEST

START_TEST(a_lock_is_not_waited_for_forever)
{
    open_both[_i]();
    check(WRITE_SET, "p:a", "one", WRITE_APPLIED);
    MYSQL *holder = fixture_connection();
    ck_assert_int_eq(mysql_query(holder, "START TRANSACTION"), 0);
    ck_assert_int_eq(mysql_query(holder, _i == 0 ? "UPDATE outrigger_entries SET flags=1" : "UPDATE wfull SET f=1"), 0);
    struct write write = make(WRITE_SET, "p:a", "two");
    write.deadline_us = clock_mono_us() + 200 * MS; /* nobody interrupts it here: the server's limits and the fence must do */
    uint64_t begin = clock_mono_us();
    submit(write);
    ck_assert_msg(result.outcome == WRITE_FAILED || result.outcome == WRITE_IN_DOUBT, "%d", result.outcome);
    ck_assert_uint_lt(clock_mono_us() - begin, 4000 * MS);
    mysql_query(holder, "ROLLBACK");
    mysql_close(holder);
    ck_assert_str_eq(ask(_i, values, "a"), "one");
}
END_TEST

/* What takes a transaction looks at the clock before its COMMIT, when it has all the row's locks. */
START_TEST(so_it_does_with_transactions)
{
    open_both[_i]();
    check(WRITE_SET, "p:a", "1", WRITE_APPLIED);
    const enum write_op ops[] = {WRITE_REPLACE, WRITE_APPEND, WRITE_INCR, WRITE_ADD};
    for (size_t i = 0; i < ARRAY_LEN(ops); i++) {
        struct write late = make(ops[i], ops[i] == WRITE_ADD ? "p:new" : "p:a", ops[i] == WRITE_INCR ? "" : "2");
        late.delta = 1;
        late.deadline_us = clock_mono_us() - 1000;
        submit(late);
        ck_assert_int_eq(result.outcome, WRITE_FAILED);
        ck_assert_int_eq(result.err, ERR_TIMEOUT);
    }
    ck_assert_str_eq(ask(_i, values, "a"), "1");
    ck_assert_str_eq(ask(_i, values, "new"), "nothing");
    check(WRITE_SET, "p:a", "3", WRITE_APPLIED);
}
END_TEST

START_TEST(the_fence_holds_late_statements_back)
{
    open_entries();
    check(WRITE_SET, "p:a", "one", WRITE_APPLIED);
    struct write late = make(WRITE_SET, "p:a", "two");
    late.deadline_us = clock_mono_us() - 1000;
    submit(late);
    ck_assert_int_eq(result.outcome, WRITE_FAILED);
    ck_assert_int_eq(result.err, ERR_TIMEOUT);
    late = make(WRITE_SET, "p:new", "two");
    late.deadline_us = clock_mono_us() - 1000;
    submit(late);
    ck_assert_int_eq(result.outcome, WRITE_FAILED);
    late = make(WRITE_DELETE, "p:a", "");
    late.deadline_us = clock_mono_us() - 1000;
    submit(late);
    ck_assert_int_eq(result.outcome, WRITE_FAILED);
    CHECK_SQL("p:a=one", "SELECT GROUP_CONCAT(cache_key,'=',value) FROM outrigger_entries");
    check(WRITE_SET, "p:a", "three", WRITE_APPLIED);
}
END_TEST

START_TEST(a_read_only_server_says_so)
{
    open_both[_i]();
    close_source();
    fixture_sql("CREATE OR REPLACE USER reader@127.0.0.1 IDENTIFIED BY 'secret'");
    fixture_sql("GRANT SELECT, INSERT, UPDATE, DELETE ON *.* TO reader@127.0.0.1");
    database.user = xstrdup("reader");
    database.password = xstrdup("secret");
    open_both[_i]();
    fixture_sql("SET GLOBAL read_only=1");
    submit(make(WRITE_SET, "p:a", "x"));
    enum write_outcome stored = result.outcome;
    char text[WRITE_ERROR_MAX];
    snprintf(text, sizeof text, "%s", result.error);
    submit(with_cas(WRITE_SET, "p:a", "x", 1));
    submit(make(WRITE_ADD, "p:a", "x"));
    enum write_outcome added = result.outcome;
    fixture_sql("SET GLOBAL read_only=0");
    ck_assert_int_eq(stored, WRITE_FAILED);
    ck_assert_msg(strstr(text, "read-only") != NULL, "%s", text);
    ck_assert_int_eq(added, WRITE_FAILED);
    ck_assert_str_eq(ask(_i, values, "a"), "nothing");
    check(WRITE_SET, "p:a", "x", WRITE_APPLIED); /* the connection is as good as before */
}
END_TEST

/* --- cut connections: a proxy that cuts at the n-th thing the client says, before or after the server has heard it --- */

static struct {
    int listener;
    uint16_t port;
    struct address address;
    pthread_t id;
    _Atomic int cut_at;        /* 0: never; counts down with everything the client says */
    _Atomic bool is_heard;     /* whether the server gets what is cut, and answers it to nobody */
    _Atomic bool has_cut;
} proxy;

static bool pass(int from, int to)
{
    char bytes[65536];
    ssize_t n = recv(from, bytes, sizeof bytes, 0);
    return n > 0 && send(to, bytes, (size_t)n, MSG_NOSIGNAL) == n;
}

/* One packet of the client's, which is one thing it says: three bytes of length, a number, and a command. */
static ssize_t take_packet(int client, char *bytes, size_t size)
{
    if (recv(client, bytes, 4, MSG_WAITALL) != 4) {
        return -1;
    }
    size_t len = (unsigned char)bytes[0] | (size_t)(unsigned char)bytes[1] << 8 | (size_t)(unsigned char)bytes[2] << 16;
    ck_assert_uint_lt(len + 4, size);
    return recv(client, bytes + 4, len, MSG_WAITALL) == (ssize_t)len ? (ssize_t)len + 4 : -1;
}

static void serve(int client, int server)
{
    for (;;) {
        struct pollfd p[] = {{.fd = client, .events = POLLIN}, {.fd = server, .events = POLLIN}};
        poll(p, 2, -1);
        if (p[0].revents != 0) {
            char bytes[65536];
            ssize_t n = take_packet(client, bytes, sizeof bytes);
            if (n < 0) {
                return;
            }
            bool is_cut = atomic_load(&proxy.cut_at) > 0 && atomic_fetch_sub(&proxy.cut_at, 1) == 1;
            if (is_cut && atomic_load(&proxy.is_heard)) {
                bool is_answered = bytes[4] != 0x19; /* closing a statement is not */
                if (send(server, bytes, (size_t)n, MSG_NOSIGNAL) == n && is_answered) {
                    n = recv(server, bytes, sizeof bytes, 0);
                }
            }
            if (is_cut) {
                atomic_store(&proxy.has_cut, true);
                return;
            }
            if (send(server, bytes, (size_t)n, MSG_NOSIGNAL) != n) {
                return;
            }
        }
        if (p[1].revents != 0 && !pass(server, client)) {
            return;
        }
    }
}

static void *proxy_main(void *arg)
{
    for (;;) {
        int client = accept(proxy.listener, NULL, NULL);
        if (client < 0) {
            return NULL;
        }
        struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(fixture.primary.port)};
        inet_pton(AF_INET, fixture.primary.host, &at.sin_addr);
        int server = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        setsockopt(server, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        if (connect(server, (struct sockaddr *)&at, sizeof at) == 0) {
            serve(client, server);
        }
        close(client);
        close(server);
    }
}

static void start_proxy(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    proxy.listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(proxy.listener, (struct sockaddr *)&at, sizeof at), 0);
    ck_assert_int_eq(listen(proxy.listener, 5), 0);
    getsockname(proxy.listener, (struct sockaddr *)&at, &len);
    proxy.port = ntohs(at.sin_port);
    ck_assert_int_eq(pthread_create(&proxy.id, NULL, proxy_main, NULL), 0);
    proxy.address = fixture.primary;
    proxy.address.port = proxy.port;
    database.primary = &proxy.address;
}

static void stop_proxy(void)
{
    shutdown(proxy.listener, SHUT_RDWR);
    pthread_join(proxy.id, NULL);
    close(proxy.listener);
    source_deinit(&source);
}

/* Waits until the server has ended what the client left behind, so that the row is what it will be. */
static void wait_for_end(void)
{
    uint64_t until = clock_mono_us() + 10000 * MS;
    while (atoi(fixture_ask("SELECT COUNT(*) FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user = "
                            "SUBSTRING_INDEX(USER(), '@', 1)")) > 0) {
        ck_assert(clock_mono_us() < until);
        usleep(1000);
    }
}

static const enum write_op cut_ops[] = {WRITE_SET, WRITE_ADD, WRITE_APPEND, WRITE_INCR, WRITE_DELETE, WRITE_TOUCH, WRITE_SET};
static const bool cut_cas[] = {false, false, false, false, false, false, true};

/* One write, cut at its n-th step; false once it has fewer steps. Warm: what it needs is prepared already. */
static bool cut(int which, size_t op, int step, bool is_heard, bool is_warm, unsigned outcomes[WRITE_OUTCOMES])
{
    char before[64], after[64];
    open_connection();
    fixture_sql(which == 0 ? "DELETE FROM outrigger_entries" : "DELETE FROM wfull");
    check(WRITE_SET, "p:a", "10", WRITE_APPLIED);
    store_mysql.close(&connection);
    open_connection();
    if (is_warm) {
        check(cut_ops[op], "p:warm", "1", (cut_ops[op] == WRITE_SET && !cut_cas[op]) || cut_ops[op] == WRITE_ADD ? WRITE_APPLIED
                                          : cut_ops[op] == WRITE_APPEND ? WRITE_NOT_STORED
                                          : cut_ops[op] == WRITE_SET ? WRITE_APPLIED : WRITE_NOT_FOUND);
    }
    struct write write = make(cut_ops[op], cut_ops[op] == WRITE_ADD ? "p:b" : "p:a", "5");
    write.delta = 1;
    write.exptime = cut_ops[op] == WRITE_TOUCH ? 600 : 0;
    write.has_cas = cut_cas[op];
    write.cas = cut_cas[op] ? strtoull(fixture_ask(which == 0 ? "SELECT version FROM outrigger_entries WHERE cache_key='p:a'"
                                                              : "SELECT ver FROM wfull WHERE k='a'"), NULL, 10) : 0;
    const char *key = cut_ops[op] == WRITE_ADD ? "b" : "a";
    const char *const *what = cut_ops[op] == WRITE_TOUCH ? rests : values;
    snprintf(before, sizeof before, "%s", ask(which, what, key));
    atomic_store(&proxy.has_cut, false);
    atomic_store(&proxy.is_heard, is_heard);
    atomic_store(&proxy.cut_at, step);
    enum err err = submit(write);
    atomic_store(&proxy.cut_at, 0);
    bool has_cut = atomic_load(&proxy.has_cut);
    store_mysql.close(&connection);
    wait_for_end();
    snprintf(after, sizeof after, "%s", ask(which, what, key));
    bool is_changed = strcmp(before, after) != 0;
    outcomes[result.outcome]++;
    if (!has_cut) {
        ck_assert_msg(result.outcome == WRITE_APPLIED && is_changed, "%s", result.error);
        return false;
    }
    ck_assert_int_eq(err, ERR_CLOSED);
    ck_assert_msg(result.outcome == WRITE_FAILED || result.outcome == WRITE_IN_DOUBT, "step %d of op %zu: outcome %d", step, op, result.outcome);
    ck_assert_msg(result.outcome == WRITE_IN_DOUBT || !is_changed, "step %d of op %zu: failed, but %s became %s", step, op, before, after);
    ck_assert(result.error[0] != '\0');
    return true;
}

START_TEST(cut_at_every_step)
{
    start_proxy();
    open_both[_i]();
    store_mysql.close(&connection);
    for (size_t op = 0; op < ARRAY_LEN(cut_ops); op++) {
        for (int how = 0; how < 4; how++) {
            unsigned outcomes[WRITE_OUTCOMES] = {0};
            int step = 1;
            while (cut(_i, op, step, how % 2 == 0, how / 2 == 0, outcomes)) {
                step++;
                ck_assert_int_lt(step, 60);
            }
            ck_assert_int_ge(step, 2);
            ck_assert(outcomes[WRITE_FAILED] > 0 || step == 2); /* one statement that commits is all there is */
            ck_assert_msg(outcomes[WRITE_IN_DOUBT] > 0, "op %zu, way %d: none of %d steps leaves it in doubt; %u applied, %u failed", op, how, step, outcomes[WRITE_APPLIED], outcomes[WRITE_FAILED]);
        }
    }
    stop_proxy();
}
END_TEST

static char writer_id[32];

static void *kill_when_blocked(void *arg)
{
    MYSQL *mysql = arg;
    char text[128];
    for (int i = 0; i < 5000; i++) {
        mysql_query(mysql, "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state='LOCK WAIT'");
        MYSQL_RES *rows = mysql_store_result(mysql);
        bool is_blocked = rows != NULL && atoi(mysql_fetch_row(rows)[0]) > 0;
        mysql_free_result(rows);
        if (is_blocked) {
            break;
        }
        usleep(1000);
    }
    snprintf(text, sizeof text, "KILL %s %s", "CONNECTION", writer_id);
    mysql_query(mysql, text);
    return NULL;
}

START_TEST(killed_while_waiting_for_a_lock)
{
    database.timeout_ms = 20000; /* no limit of the server's may come first */
    open_both[_i]();
    check(WRITE_SET, "p:a", "one", WRITE_APPLIED);
    snprintf(writer_id, sizeof writer_id, "%s",
             fixture_ask("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user = SUBSTRING_INDEX(USER(), '@', 1) "
                         "ORDER BY id DESC LIMIT 1"));
    MYSQL *holder = fixture_connection();
    ck_assert_int_eq(mysql_query(holder, "START TRANSACTION"), 0);
    ck_assert_int_eq(mysql_query(holder, _i == 0 ? "UPDATE outrigger_entries SET flags=1" : "UPDATE wfull SET f=1"), 0);
    pthread_t killer;
    ck_assert_int_eq(pthread_create(&killer, NULL, kill_when_blocked, fixture.admin), 0);
    struct write write = make(WRITE_SET, "p:a", "two");
    write.deadline_us += 20000 * MS;
    ck_assert_int_eq(submit(write), ERR_CLOSED);
    pthread_join(killer, NULL);
    ck_assert_int_eq(result.outcome, _i == 0 ? WRITE_IN_DOUBT : WRITE_FAILED); /* one statement that commits; a transaction */
    ck_assert_int_eq(mysql_query(holder, "ROLLBACK"), 0);
    mysql_close(holder);
    ck_assert_str_eq(ask(_i, values, "a"), "one");
}
END_TEST

int main(void)
{
    if (!fixture_init()) {
        return 0;
    }
    Suite *suite = suite_create("store_write");
    TCase *tc = tcase_create("both");
    tcase_set_timeout(tc, 240);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_loop_test(tc, set, 0, 2);
    tcase_add_loop_test(tc, add_and_replace, 0, 2);
    tcase_add_loop_test(tc, append_and_prepend, 0, 2);
    tcase_add_loop_test(tc, incr_and_decr, 0, 2);
    tcase_add_loop_test(tc, delete_and_touch, 0, 2);
    tcase_add_loop_test(tc, cas, 0, 2);
    tcase_add_loop_test(tc, increments_at_once_are_all_counted, 0, 2);
    tcase_add_loop_test(tc, a_lock_is_not_waited_for_forever, 0, 2);
    tcase_add_loop_test(tc, a_read_only_server_says_so, 0, 2);
    tcase_add_loop_test(tc, cut_at_every_step, 0, 2);
    tcase_add_loop_test(tc, killed_while_waiting_for_a_lock, 0, 2);
    suite_add_tcase(suite, tc);
    tc = tcase_create("mapping");
    tcase_set_timeout(tc, 240);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, keys_are_exact);
    tcase_add_test(tc, composite_keys);
    tcase_add_test(tc, values_are_stored_as_they_are_or_not_at_all);
    tcase_add_test(tc, columns_that_are_not_there);
    tcase_add_test(tc, json);
    tcase_add_loop_test(tc, so_it_does_with_transactions, 0, 2);
    tcase_add_test(tc, the_fence_holds_late_statements_back);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
