/* Runs against a real server, and is skipped without one:
 *
 *   OUTRIGGER_TEST_MYSQL=host:port:user:password:schema    an account that may create tables and views, and see the process list
 *   OUTRIGGER_TEST_MYSQL_CA=FILE                            all of it over TLS
 *   OUTRIGGER_TEST_MYSQL_PIDFILE=FILE                       the server's: it is stopped and killed, too
 *   OUTRIGGER_TEST_MYSQL_START=COMMAND                      what starts it again, in the background
 *
 * A throwaway server, as root on Debian 12 (D is a directory of nobody's):
 *   AS="setpriv --reuid=nobody --regid=nogroup --clear-groups"
 *   $AS mariadb-install-db --no-defaults --datadir=$D/data --auth-root-authentication-method=normal --skip-test-db
 *   $AS mariadbd --no-defaults --datadir=$D/data --socket=$D/s.sock --pid-file=$D/pid --bind-address=127.0.0.1 --port=23306 \
 *       --skip-name-resolve --max-allowed-packet=64M --autocommit=0 &
 *   mariadb -u root -S $D/s.sock -e "CREATE DATABASE test; CREATE USER t@'%' IDENTIFIED BY 'secret'; GRANT ALL ON *.* TO t@'%'"
 */
#include "proxy/database/loader.h"

#include <mysql.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "proxy/database/store.h"
#include "tests/unit/check_main.h"

#define MS 1000ULL
#define VALUE_MAX (1U << 20)

static struct address primary;
static struct config_database database;
static struct config_source table;
static struct config_namespace namespace = {.prefix = "p:", .name = "shop", .source = &table};
static struct config config;
static struct source source;
static struct store_connection *connection;
static MYSQL *admin;
static struct row row;
static char error[LOAD_ERROR_MAX];

/* --- fixture --- */

static bool parse_environment(void)
{
    const char *text = getenv("OUTRIGGER_TEST_MYSQL");
    if (text == NULL) {
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
    primary = (struct address){.text = xstrdup(text), .host = parts[0], .port = (uint16_t)atoi(parts[1])};
    database = (struct config_database){
        .primary = &primary,
        .primary_count = 1,
        .breaker_failures = 1000,
        .heartbeat_table = "heartbeat",
        .heartbeat_writer = HEARTBEAT_OFF,
        .user = parts[2],
        .password = parts[3],
        .schema = parts[4],
        .threads = 4,
        .batch = STORE_BATCH_MAX,
        .queue = 100,
        .connect_timeout_ms = 2000,
        .timeout_ms = 1000,
        .tls_ca = getenv("OUTRIGGER_TEST_MYSQL_CA"),
    };
    database.primary->text[strlen(parts[0]) + 1 + strlen(parts[1])] = '\0';
    return true;
}

static void sql(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void sql(const char *fmt, ...)
{
    char text[4096];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    ck_assert_msg(mysql_query(admin, text) == 0, "%s: %s", text, mysql_error(admin));
    MYSQL_RES *result = mysql_store_result(admin);
    if (result != NULL) {
        mysql_free_result(result);
    }
}

static void sql_text(const char *text, char *out, size_t size)
{
    ck_assert_msg(mysql_query(admin, text) == 0, "%s: %s", text, mysql_error(admin));
    MYSQL_RES *result = mysql_store_result(admin);
    MYSQL_ROW values = mysql_fetch_row(result);
    ck_assert_msg(values != NULL, "no row: %s", text);
    snprintf(out, size, "%s", values[0] != NULL ? values[0] : "NULL");
    mysql_free_result(result);
}

static pid_t server_pid(void)
{
    FILE *f = fopen(getenv("OUTRIGGER_TEST_MYSQL_PIDFILE"), "r");
    ck_assert_ptr_nonnull(f);
    int pid = 0;
    ck_assert_int_eq(fscanf(f, "%d", &pid), 1);
    fclose(f);
    return pid;
}

static void admin_connect(void)
{
    if (getenv("OUTRIGGER_TEST_MYSQL_PIDFILE") != NULL) {
        kill(server_pid(), SIGCONT); /* a test that failed may have left it stopped */
    }
    admin = mysql_init(NULL);
    mysql_options(admin, MYSQL_SET_CHARSET_NAME, "utf8mb4");
    ck_assert_msg(mysql_real_connect(admin, database.primary->host, database.user, database.password, database.schema,
                                     database.primary->port, NULL, 0) != NULL,
                  "%s", mysql_error(admin));
    sql("SET autocommit=1");
}

static void open_source(struct config_source config_source, uint64_t max_value_size)
{
    table = config_source;
    config = (struct config){
        .namespaces = &namespace, .namespace_count = 1, .database = &database, .max_value_size = max_value_size};
    source_init(&source, &namespace, max_value_size);
    connection = store_mysql.open(
        &(struct store_options){.config = &database, .address = &primary, .sources = &source, .source_count = 1, .max_value_size = max_value_size});
    ck_assert_msg(store_mysql.connect(connection, error, sizeof error) == OK, "%s", error);
}

static void close_source(void)
{
    if (connection != NULL) {
        store_mysql.close(&connection);
        source_deinit(&source);
    }
}

static void open_kv(const char *columns)
{
    close_source();
    sql("DROP TABLE IF EXISTS kv");
    sql("CREATE TABLE kv (%s)", columns);
    open_source((struct config_source){.table = "kv", .key_column = "k", .value_column = "v"}, VALUE_MAX);
}

static void teardown(void)
{
    close_source();
    mysql_close(admin);
}

static enum err load_span(struct span key)
{
    struct store_load load = {.key = key};
    struct store_batch batch = {.source = 0, .count = 1, .loads = &load};
    enum err err = store_mysql.load(connection, &batch);
    ck_assert(load.is_done);
    ck_assert(err == OK || load.err == err);
    snprintf(error, sizeof error, "%s", load.error);
    if (load.err == OK) {
        row = load.row;
    }
    return load.err;
}

static void check_found(const char *key, const char *value)
{
    enum err err = load_span(span_str(key));
    ck_assert_msg(err == OK, "%s: %s", key, error);
    ck_assert_msg(row.found, "%s not found", key);
    struct span got = span_of(row.value->data, row.value_len);
    ck_assert_msg(span_eq(got, span_str(value)), "%s: %.*s is not %s", key, SPAN_FMT(got), value);
    ck_assert_uint_ge(row.value->cap, row.value_len + ROW_VALUE_SLACK);
    chunk_unref(&row.value);
}

static void check_absent_span(struct span key)
{
    enum err err = load_span(key);
    ck_assert_msg(err == OK, "%.*s: %s", SPAN_FMT(key), error);
    ck_assert_msg(!row.found, "%.*s found", SPAN_FMT(key));
}

static void check_absent(const char *key)
{
    check_absent_span(span_str(key));
}

static void check_error(const char *key, enum err expected, const char *part1, const char *part2)
{
    enum err err = load_span(span_str(key));
    ck_assert_msg(err == expected, "%s: %s instead of %s: %s", key, err_text(err), err_text(expected), error);
    ck_assert_msg(strstr(error, part1) != NULL && strstr(error, part2) != NULL, "%s", error);
}

/* --- keys --- */

START_TEST(text_keys_are_exact)
{
    open_kv("k VARCHAR(100) COLLATE utf8mb4_general_ci PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv VALUES ('bash','B'),('pad ','P'),('gr\xc3\xbc\xc3\x9f','G'),('\xf0\x9f\x98\x80','S'),('','E'),('%s','L')",
        "01234567890123456789012345678901234567890123456789012345678901234567890123456789");
    check_found("bash", "B");
    check_absent("BASH");
    check_absent("Bash");
    check_absent("bash ");
    check_absent("b\xc3\xa0sh");
    check_found("pad ", "P");
    check_absent("pad");
    check_absent("pad  ");
    check_found("gr\xc3\xbc\xc3\x9f", "G");
    check_absent("grus");
    check_found("\xf0\x9f\x98\x80", "S");
    check_absent("\xf0\x9f\x98\x81");
    check_found("", "E");
    check_absent(" ");
    check_found("01234567890123456789012345678901234567890123456789012345678901234567890123456789", "L");
    check_absent("' OR 1=1 -- ");
    check_absent_span(SPAN_LIT("bash\0"));
    check_absent_span(SPAN_LIT("bash\xff"));
    check_absent_span(SPAN_LIT("\xff"));
}
END_TEST

START_TEST(every_variant_finds_its_own_row)
{
    open_kv("k VARCHAR(100) COLLATE utf8mb4_general_ci, v TEXT, INDEX (k)");
    sql("INSERT INTO kv VALUES ('a','1'),('A','2'),('a ','3'),('\xc3\xa4','4')");
    check_found("a", "1");
    check_found("A", "2");
    check_found("a ", "3");
    check_found("\xc3\xa4", "4");
    check_absent("A ");
}
END_TEST

START_TEST(other_character_sets)
{
    open_kv("k VARCHAR(100) CHARACTER SET latin1 PRIMARY KEY, v TEXT CHARACTER SET latin1");
    sql("INSERT INTO kv VALUES ('m\xc3\xbcll','\xc3\xa4')");
    check_found("m\xc3\xbcll", "\xc3\xa4");
    check_absent("mull");
    check_absent("\xe6\x97\xa5");
    check_absent_span(SPAN_LIT("m\xfcll")); /* how latin1 would write it */
    open_kv("k CHAR(10) CHARACTER SET utf8mb3 PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv VALUES ('\xe6\x97\xa5','x')");
    check_found("\xe6\x97\xa5", "x");
    check_absent("\xe6\x97\xa5 ");
    check_absent("\xf0\x9f\x98\x80");
    open_kv("k VARCHAR(100) COLLATE utf8mb4_bin PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv VALUES ('a','1'),('A','2')");
    check_found("a", "1");
    check_found("A", "2");
}
END_TEST

START_TEST(binary_keys)
{
    open_kv("k VARBINARY(100) PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv VALUES ('a','1'),('A','2'),('a ','3'),(x'ff00fe','4')");
    check_found("a", "1");
    check_found("A", "2");
    check_found("a ", "3");
    ck_assert_int_eq(load_span(SPAN_LIT("\xff\0\xfe")), OK);
    ck_assert(row.found);
    chunk_unref(&row.value);
    check_absent_span(SPAN_LIT("\xff\0\xff"));
    check_absent("a  ");
}
END_TEST

START_TEST(number_keys_are_exact)
{
    static const char *const not_there[] = {"12abc", "012", "12.0", " 12", "12 ", "1.2e1", "+12", "", "abc", "-", "0x0c", "\xff"};
    open_kv("k BIGINT PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv VALUES (12,'twelve'),(0,'zero'),(-5,'m'),(9007199254740993,'3'),(9007199254740992,'2')");
    check_found("12", "twelve");
    check_found("0", "zero");
    check_found("-5", "m");
    check_found("9007199254740993", "3");
    check_found("9007199254740992", "2");
    for (size_t i = 0; i < ARRAY_LEN(not_there); i++) {
        check_absent(not_there[i]);
    }
    open_kv("k DECIMAL(10,2) PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv VALUES (1.5,'x')");
    check_found("1.50", "x");
    check_absent("1.5");
    open_kv("k DATE PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv VALUES ('2024-01-31','x')");
    check_found("2024-01-31", "x");
    check_absent("2024-1-31");
    check_absent("20240131");
    check_absent("rubbish");
    check_absent("");
}
END_TEST

static long long rows_read(void)
{
    char text[64];
    sql_text("SELECT SUM(variable_value) FROM information_schema.global_status WHERE variable_name IN "
             "('HANDLER_READ_NEXT', 'HANDLER_READ_RND_NEXT')",
             text, sizeof text);
    return atoll(text);
}

START_TEST(keys_use_the_index)
{
    static const char *const types[] = {"VARCHAR(100) COLLATE utf8mb4_general_ci", "VARCHAR(100) COLLATE utf8mb4_bin",
                                        "VARCHAR(100) CHARACTER SET latin1", "VARCHAR(100) CHARACTER SET utf8mb3",
                                        "VARBINARY(100)", "BIGINT"};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        char columns[200];
        snprintf(columns, sizeof columns, "k %s PRIMARY KEY, v TEXT", types[i]);
        open_kv(columns);
        sql("INSERT INTO kv SELECT seq, 'x' FROM seq_1_to_20000");
        long long before = rows_read();
        for (int n = 0; n < 10; n++) {
            check_found("777", "x");
        }
        ck_assert_msg(rows_read() - before < 20000, "%s: %lld rows read", types[i], rows_read() - before);
        if (i < 3) {
            before = rows_read();
            for (int n = 0; n < 10; n++) {
                check_absent("\xe6\x97\xa5");
            }
            ck_assert_msg(rows_read() - before < 20000, "%s: %lld rows read for a strange key", types[i], rows_read() - before);
        }
    }
}
END_TEST

/* --- batches --- */

static struct store_load items[STORE_BATCH_MAX];
static struct store_batch batch;

static void load_batch(uint32_t count, const char *const *keys)
{
    batch = (struct store_batch){.source = 0, .count = count, .loads = items};
    for (uint32_t i = 0; i < count; i++) {
        items[i] = (struct store_load){.key = span_str(keys[i])};
    }
    ck_assert_int_eq(store_mysql.load(connection, &batch), OK);
}

static void check_item(uint32_t i, const char *value)
{
    ck_assert_msg(items[i].err == OK, "%u: %s", i, items[i].error);
    ck_assert_msg(items[i].row.found == (value != NULL), "%u", i);
    if (value != NULL) {
        ck_assert(span_eq(span_of(items[i].row.value->data, items[i].row.value_len), span_str(value)));
        chunk_unref(&items[i].row.value);
    }
}

START_TEST(a_batch_is_one_statement)
{
    static char texts[STORE_BATCH_MAX][16];
    const char *keys[STORE_BATCH_MAX];
    static const char *const types[] = {"VARCHAR(100) COLLATE utf8mb4_general_ci", "VARCHAR(100) CHARACTER SET latin1", "VARBINARY(100)", "BIGINT"};
    for (uint32_t i = 0; i < STORE_BATCH_MAX; i++) {
        snprintf(texts[i], sizeof texts[i], "%u", 2 * i + 1);
        keys[i] = texts[i];
    }
    for (size_t n = 0; n < ARRAY_LEN(types); n++) {
        char columns[200];
        snprintf(columns, sizeof columns, "k %s PRIMARY KEY, v TEXT", types[n]);
        open_kv(columns);
        sql("INSERT INTO kv SELECT seq, seq FROM seq_1_to_20000 WHERE seq %% 10 <> 3");
        for (uint32_t count = 1; count <= STORE_BATCH_MAX; count = count == 1 ? 3 : count == 3 ? 4 : count == 4 ? 65 : 2 * count - 2) {
            long long before = rows_read();
            load_batch(count, keys);
            ck_assert_msg(rows_read() - before < 2000, "%s, %u keys: %lld rows read", types[n], count, rows_read() - before);
            for (uint32_t i = 0; i < count; i++) {
                check_item(i, (2 * i + 1) % 10 == 3 ? NULL : keys[i]);
            }
            ck_assert_uint_eq(batch.queries, 1);
            ck_assert_uint_eq(batch.queries_failed, 0);
            ck_assert_uint_eq(batch.keys_asked, count);
        }
    }
}
END_TEST

START_TEST(in_a_batch_keys_are_exact_too)
{
    open_kv("k VARCHAR(100) COLLATE utf8mb4_general_ci, v TEXT, KEY (k)");
    sql("INSERT INTO kv VALUES ('bash','B'),('BASH','C'),('pad ','P'),('\xf0\x9f\x98\x80','S')");
    load_batch(7, (const char *const[]){"bash", "Bash", "pad", "BASH", "bash", "\xf0\x9f\x98\x80", "pad "});
    check_item(0, "B");
    check_item(1, NULL);
    check_item(2, NULL);
    check_item(3, "C");
    check_item(4, "B");
    check_item(5, "S");
    check_item(6, "P");
    /* So many rows that equal one key that another's does not fit into the LIMIT. */
    sql("INSERT INTO kv SELECT 'pAd', seq FROM seq_1_to_100");
    load_batch(3, (const char *const[]){"pad", "pad ", "bash"});
    check_item(0, NULL);
    check_item(1, "P");
    check_item(2, "B");
    open_kv("k BIGINT PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv VALUES (12,'T'),(0,'N'),(-5,'M')");
    load_batch(8, (const char *const[]){"12", "12abc", "012", "0", "-5", "", "x", "123456789012345678901234567890"});
    check_item(0, "T");
    check_item(1, NULL);
    check_item(2, NULL);
    check_item(3, "N");
    check_item(4, "M");
    check_item(5, NULL);
    check_item(6, NULL);
    check_item(7, NULL);
}
END_TEST

START_TEST(in_a_batch_a_bad_row_fails_alone)
{
    open_kv("k VARCHAR(100) PRIMARY KEY, v LONGTEXT");
    sql("INSERT INTO kv VALUES ('a','A'),('large',REPEAT('x', %u)),('b','B')", VALUE_MAX + 1);
    load_batch(4, (const char *const[]){"a", "large", "none", "b"});
    check_item(0, "A");
    ck_assert_int_eq(items[1].err, ERR_TOO_LARGE);
    check_item(2, NULL);
    check_item(3, "B");
    sql("RENAME TABLE kv TO kv_away");
    load_batch(4, (const char *const[]){"a", "b", "c", "d"});
    sql("RENAME TABLE kv_away TO kv");
    for (uint32_t i = 0; i < 4; i++) {
        ck_assert_int_eq(items[i].err, ERR_DATABASE);
        ck_assert_ptr_nonnull(strstr(items[i].error, "table kv"));
    }
    ck_assert_uint_le(batch.queries, 2);
    load_batch(2, (const char *const[]){"a", "b"});
    check_item(0, "A");
    check_item(1, "B");
}
END_TEST

/* --- locking loads --- */

struct locking {
    pthread_t thread;
    uint32_t count;
    const char *keys[4];
};

static void *load_locking(void *arg)
{
    struct locking *l = arg;
    batch = (struct store_batch){.source = 0, .is_locking = true, .count = l->count, .loads = items};
    for (uint32_t i = 0; i < l->count; i++) {
        items[i] = (struct store_load){.key = span_str(l->keys[i])};
    }
    store_mysql.load(connection, &batch);
    return NULL;
}

/* Waits until the load waits for a lock of ours. */
static void wait_until_locked(void)
{
    char text[32] = "0";
    for (unsigned i = 0; i < 50 && strcmp(text, "0") == 0; i++) {
        usleep(110000); /* InnoDB shows anew only what nobody has looked at for a tenth of a second */
        sql_text("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'", text, sizeof text);
    }
    ck_assert_str_ne(text, "0");
}

/* With our transaction open: the load begins, waits for it, and sees what it has committed. */
static void check_waits(struct locking *l, const char *end)
{
    ck_assert_int_eq(pthread_create(&l->thread, NULL, load_locking, l), 0);
    wait_until_locked();
    sql("%s", end);
    pthread_join(l->thread, NULL);
}

static void locking_loads_wait(enum store_role role)
{
    open_kv("k VARCHAR(100) PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv VALUES ('a','old'),('b','B')");
    store_mysql.close(&connection);
    database.timeout_ms = 4000;
    connection = store_mysql.open(&(struct store_options){.config = &database, .address = &primary, .role = role, .sources = &source,
                                                          .source_count = 1, .max_value_size = VALUE_MAX});
    ck_assert_msg(store_mysql.connect(connection, error, sizeof error) == OK, "%s", error);
    sql("START TRANSACTION");
    sql("UPDATE kv SET v = 'new' WHERE k = 'a'");
    check_found("a", "old"); /* a plain one does not */
    check_waits(&(struct locking){.count = 1, .keys = {"a"}}, "COMMIT");
    check_item(0, "new");
    sql("START TRANSACTION");
    sql("INSERT INTO kv VALUES ('c','C')");
    check_absent("c");
    check_waits(&(struct locking){.count = 3, .keys = {"b", "c", "none"}}, "COMMIT");
    ck_assert_uint_eq(batch.queries, 1);
    check_item(0, "B");
    check_item(1, "C");
    check_item(2, NULL);
    sql("START TRANSACTION");
    sql("DELETE FROM kv WHERE k = 'c'");
    check_waits(&(struct locking){.count = 1, .keys = {"c"}}, "COMMIT");
    check_item(0, NULL);
    sql("START TRANSACTION");
    sql("INSERT INTO kv VALUES ('d','D')");
    check_waits(&(struct locking){.count = 1, .keys = {"d"}}, "ROLLBACK");
    check_item(0, NULL);
    /* Longer than a load may take: the server says so before the deadline, and the connection is as good as before. */
    sql("START TRANSACTION");
    sql("UPDATE kv SET v = 'newer' WHERE k = 'a'");
    load_locking(&(struct locking){.count = 2, .keys = {"a", "b"}});
    ck_assert_int_eq(items[0].err, ERR_TIMEOUT);
    ck_assert_ptr_nonnull(strstr(items[0].error, "Lock wait timeout exceeded"));
    sql("COMMIT");
    load_locking(&(struct locking){.count = 2, .keys = {"a", "b"}});
    check_item(0, "newer");
    check_item(1, "B");
    database.timeout_ms = 1000;
}

START_TEST(locking_loads_wait_for_writers)
{
    locking_loads_wait(STORE_PRIMARY);
}
END_TEST

START_TEST(so_they_do_with_a_witness)
{
    locking_loads_wait(STORE_PRIMARY_OF_SEVERAL);
}
END_TEST

/* --- replicas and primaries --- */

static void reopen(enum store_role role)
{
    store_mysql.close(&connection);
    connection = store_mysql.open(&(struct store_options){.config = &database, .address = &primary, .role = role, .sources = &source,
                                                          .source_count = 1, .max_value_size = VALUE_MAX});
    ck_assert_msg(store_mysql.connect(connection, error, sizeof error) == OK, "%s", error);
}

static enum err beat(uint64_t version, uint64_t owner, uint64_t lease_us, bool *is_owner)
{
    return store_mysql.beat(connection, version, owner, lease_us, is_owner, error, sizeof error);
}

START_TEST(the_heartbeat_comes_with_the_rows)
{
    open_kv("k VARCHAR(100) PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv SELECT seq, seq FROM seq_1_to_20000");
    sql("DROP TABLE IF EXISTS heartbeat");
    sql("CREATE TABLE heartbeat (id TINYINT UNSIGNED PRIMARY KEY, version BIGINT UNSIGNED NOT NULL, owner BIGINT UNSIGNED NOT NULL, "
        "beat_at DATETIME(6) NOT NULL) ENGINE=InnoDB");
    reopen(STORE_REPLICA);
    load_batch(3, (const char *const[]){"1", "none", "2"});
    ck_assert_uint_eq(items[0].heartbeat, 0); /* there is none, so nothing is proved; the values are not used */
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_int_eq(items[i].err, OK);
        if (items[i].row.found) {
            chunk_unref(&items[i].row.value);
        }
    }
    sql("INSERT INTO heartbeat VALUES (1, 9223372036854775807, 0, '2000-01-01')");
    long long before = rows_read();
    load_batch(3, (const char *const[]){"1", "none", "2"});
    ck_assert_msg(rows_read() - before < 100, "%lld rows read", rows_read() - before);
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(items[i].heartbeat, INT64_MAX);
    }
    check_item(0, "1");
    check_item(1, NULL);
    check_item(2, "2");
    sql("UPDATE heartbeat SET version = 77");
    load_batch(1, (const char *const[]){"none"});
    ck_assert_uint_eq(items[0].heartbeat, 77);
    check_item(0, NULL);
}
END_TEST

START_TEST(one_owner_beats_and_never_backwards)
{
    char text[32];
    bool is_owner;
    open_kv("k INT PRIMARY KEY, v TEXT");
    sql("DROP TABLE IF EXISTS heartbeat");
    ck_assert_int_eq(beat(5, 1, 1000000, &is_owner), ERR_DATABASE);
    ck_assert_ptr_nonnull(strstr(error, "heartbeat"));
    sql("CREATE TABLE heartbeat (id TINYINT UNSIGNED PRIMARY KEY, version BIGINT UNSIGNED NOT NULL, owner BIGINT UNSIGNED NOT NULL, "
        "beat_at DATETIME(6) NOT NULL) ENGINE=InnoDB");
    sql("INSERT INTO heartbeat VALUES (1, 0, 0, '2000-01-01')");
    ck_assert_int_eq(beat(50, 11, 60000000, &is_owner), OK);
    ck_assert(is_owner);
    ck_assert_int_eq(beat(60, 12, 60000000, &is_owner), OK); /* another, within the lease */
    ck_assert(!is_owner);
    ck_assert_int_eq(beat(40, 11, 60000000, &is_owner), OK); /* its clock went back */
    ck_assert(is_owner);
    sql_text("SELECT version FROM heartbeat", text, sizeof text);
    ck_assert_str_eq(text, "50");
    usleep(2000);
    ck_assert_int_eq(beat(45, 12, 1000, &is_owner), OK); /* the lease is over */
    ck_assert(is_owner);
    sql_text("SELECT CONCAT(version, ' ', owner) FROM heartbeat", text, sizeof text);
    ck_assert_str_eq(text, "50 12");
}
END_TEST

START_TEST(a_primary_that_turns_read_only_is_none)
{
    open_kv("k VARCHAR(100) PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv SELECT seq, seq FROM seq_1_to_20000");
    reopen(STORE_PRIMARY_OF_SEVERAL);
    long long before = rows_read();
    load_batch(3, (const char *const[]){"1", "none", "2"});
    ck_assert_msg(rows_read() - before < 100, "%lld rows read", rows_read() - before);
    check_item(0, "1");
    check_item(1, NULL);
    check_item(2, "2");
    sql("SET GLOBAL read_only = 1");
    enum err absent = load_span(SPAN_LIT("none"));
    enum err present = load_span(SPAN_LIT("1"));
    store_mysql.close(&connection);
    connection = store_mysql.open(&(struct store_options){.config = &database, .address = &primary, .role = STORE_PRIMARY_OF_SEVERAL,
                                                          .sources = &source, .source_count = 1, .max_value_size = VALUE_MAX});
    enum err connecting = store_mysql.connect(connection, error, sizeof error);
    sql("SET GLOBAL read_only = 0");
    ck_assert_int_eq(absent, ERR_CLOSED);
    ck_assert_int_eq(present, ERR_CLOSED);
    ck_assert_int_eq(connecting, ERR_UNSUPPORTED);
    ck_assert_ptr_nonnull(strstr(error, "read-only"));
}
END_TEST

/* --- values --- */

START_TEST(values_are_their_bytes)
{
    open_kv("k INT PRIMARY KEY, v LONGBLOB");
    sql("INSERT INTO kv VALUES (1, x'00ff0d0a00'), (2, ''), (3, NULL)");
    sql("INSERT INTO kv VALUES (63, REPEAT('a',63)), (64, REPEAT('b',64)), (65, REPEAT('c',65))");
    ck_assert_int_eq(load_span(SPAN_LIT("1")), OK);
    ck_assert(row.found);
    ck_assert(span_eq(span_of(row.value->data, row.value_len), SPAN_LIT("\0\xff\r\n\0")));
    ck_assert_uint_eq(row.flags, 0);
    ck_assert_int_eq(row.expires_in_s, -1);
    chunk_unref(&row.value);
    check_found("2", "");
    check_absent("3");
    check_absent("4");
    check_found("63", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa");
    check_found("64", "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb");
    check_found("65", "ccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc");
    ck_assert_int_eq(row.value == NULL, 1);
}
END_TEST

START_TEST(values_of_other_types_are_text)
{
    static const char *const cases[][2] = {
        {"DECIMAL(60,20)", "1234567890123456789012345678901234567890.12345678901234567890"},
        {"BIGINT UNSIGNED", "18446744073709551615"},  {"BIGINT", "-9223372036854775808"},
        {"INT(8) ZEROFILL", "42"},                    {"DOUBLE", "0.1"},
        {"DOUBLE", "1e22"},                           {"DOUBLE", "123456789012345680000"},
        {"DOUBLE", "-1.7976931348623157e308"},        {"DOUBLE", "3.0000000000000004"},
        {"FLOAT", "0.1"},                             {"FLOAT", "16777216"},
        {"YEAR", "2024"},                             {"DATETIME(6)", "'2024-01-31 10:11:12.000345'"},
        {"DATETIME", "'2024-01-31 10:11:12'"},        {"DATE", "'2024-01-31'"},
        {"TIME", "'-123:00:05'"},                     {"TIMESTAMP(3)", "'2024-01-31 10:11:12.5'"},
        {"ENUM('x','y')", "'y'"},                     {"SET('x','y')", "'x,y'"},
        {"JSON", "'{\"a\": [1, 2]}'"},                {"TINYINT(1)", "1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char columns[200], expected[200];
        snprintf(columns, sizeof columns, "k INT PRIMARY KEY, v %s", cases[i][0]);
        open_kv(columns);
        sql("INSERT INTO kv VALUES (1, %s)", cases[i][1]);
        sql_text("SELECT v FROM kv", expected, sizeof expected); /* as the server itself writes it */
        check_found("1", expected);
    }
}
END_TEST

static void check_large(const char *key, size_t len)
{
    enum err err = load_span(span_str(key));
    ck_assert_msg(err == OK, "%s", error);
    ck_assert(row.found);
    ck_assert_uint_eq(row.value_len, len);
    ck_assert(row.value->data[0] == 'v' && memcmp(row.value->data, row.value->data + 1, len - 1) == 0); /* all the same */
    chunk_unref(&row.value);
}

START_TEST(large_values_are_bounded)
{
    open_kv("k INT PRIMARY KEY, v LONGTEXT");
    sql("INSERT INTO kv VALUES (1, REPEAT('v', %u)), (2, REPEAT('v', %u)), (3, REPEAT('v', 30000000)), (4, REPEAT('v', 70000))",
        VALUE_MAX, VALUE_MAX + 1);
    for (int i = 0; i < 3; i++) {
        check_large("1", VALUE_MAX);
        check_error("2", ERR_TOO_LARGE, "shop", "1048577");
        check_error("3", ERR_TOO_LARGE, "shop", "30000000");
        check_large("4", 70000);
    }
    close_source();
    open_source((struct config_source){.table = "kv", .key_column = "k", .value_column = "v"}, 100);
    check_error("4", ERR_TOO_LARGE, "shop", "70000");
    sql("INSERT INTO kv VALUES (5, REPEAT('v', 100)), (6, REPEAT('\xc3\xbc', 51))");
    check_large("5", 100);
    check_error("6", ERR_TOO_LARGE, "shop", "102");
}
END_TEST

START_TEST(columns_become_json)
{
    sql("DROP TABLE IF EXISTS wide");
    sql("CREATE TABLE wide (k VARCHAR(20) PRIMARY KEY, t TEXT, i INT(6) ZEROFILL, u BIGINT UNSIGNED, d DECIMAL(40,20), f DOUBLE, "
        "b BIT(12), raw VARBINARY(10), dt DATETIME(3), y YEAR, e ENUM('x','y'), j JSON, n INT, `big` LONGTEXT)");
    sql("INSERT INTO wide VALUES ('a', 'say \"h\xc3\xbc\"\\n', 42, 18446744073709551615, "
        "'12345678901234567890.12345678901234567891', 0.1, "
        "b'100000000001', x'ff00', '2024-01-31 10:11:12.5', 2024, 'y', '{\"x\": 1}', NULL, REPEAT('v', 80))");
    sql("INSERT INTO wide (k, raw, big) VALUES ('b', 'text', REPEAT('v', 600)), ('c', '', REPEAT('v', 1001))");
    char *columns[] = {"k", "t", "i", "u", "d", "f", "b", "raw", "dt", "y", "e", "j", "n"};
    struct config_source wide = {.table = "wide", .key_column = "k", .value_columns = columns, .value_column_count = 13};
    open_source(wide, 1000);
    check_found("a", "{\"k\":\"a\",\"t\":\"say \\\"h\xc3\xbc\\\"\\n\",\"i\":42,\"u\":18446744073709551615,"
                     "\"d\":12345678901234567890.12345678901234567891,\"f\":0.1,\"b\":2049,\"raw\":{\"base64\":\"/wA=\"},"
                     "\"dt\":\"2024-01-31 10:11:12.500\",\"y\":2024,\"e\":\"y\",\"j\":\"{\\\"x\\\": 1}\",\"n\":null}");
    check_found("b", "{\"k\":\"b\",\"t\":null,\"i\":null,\"u\":null,\"d\":null,\"f\":null,\"b\":null,\"raw\":\"text\","
                     "\"dt\":null,\"y\":null,\"e\":null,\"j\":null,\"n\":null}");
    close_source();
    char *big[] = {"big", "t", "k"};
    open_source((struct config_source){.table = "wide", .key_column = "k", .value_columns = big, .value_column_count = 3}, 200);
    check_found("a", "{\"big\":\"vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv\","
                     "\"t\":\"say \\\"h\xc3\xbc\\\"\\n\",\"k\":\"a\"}");
    check_error("b", ERR_TOO_LARGE, "shop", "600");
    check_error("c", ERR_TOO_LARGE, "shop", "1001");
    close_source();
    open_source((struct config_source){.table = "wide", .key_column = "k", .value_columns = big, .value_column_count = 3}, 90);
    check_error("a", ERR_TOO_LARGE, "shop", "max_value_size");
}
END_TEST

START_TEST(flags_come_from_their_column)
{
    open_kv("k INT PRIMARY KEY, v TEXT, f BIGINT");
    close_source();
    sql("INSERT INTO kv VALUES (1,'x',NULL),(2,'x',7),(3,'x',4294967295),(4,'x',4294967296),(5,'x',-1)");
    open_source((struct config_source){.table = "kv", .key_column = "k", .value_column = "v", .flags_column = "f"}, 100);
    check_found("1", "x");
    ck_assert_uint_eq(row.flags, 0);
    check_found("2", "x");
    ck_assert_uint_eq(row.flags, 7);
    check_found("3", "x");
    ck_assert_uint_eq(row.flags, UINT32_MAX);
    check_error("4", ERR_DATABASE, "shop", "column f");
    check_error("5", ERR_DATABASE, "shop", "-1");
    check_found("2", "x");
}
END_TEST

START_TEST(rows_expire_by_the_servers_clock)
{
    static const char *const types[] = {"DATETIME", "TIMESTAMP NULL", "DATETIME(6)"};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        char columns[200];
        snprintf(columns, sizeof columns, "k INT PRIMARY KEY, v TEXT, e %s", types[i]);
        open_kv(columns);
        close_source();
        sql("INSERT INTO kv VALUES (1,'x',NULL),(2,'x',NOW() + INTERVAL 1 HOUR),(3,'x',NOW() - INTERVAL 1 SECOND)");
        sql("INSERT INTO kv VALUES (4,'x',NOW(6) + INTERVAL 3 SECOND)");
        open_source((struct config_source){.table = "kv", .key_column = "k", .value_column = "v", .expires_column = "e"}, 100);
        check_found("1", "x");
        ck_assert_int_eq(row.expires_in_s, -1);
        check_found("2", "x");
        ck_assert_int_ge(row.expires_in_s, 3590);
        ck_assert_int_le(row.expires_in_s, 3600);
        check_absent("3");
        check_found("4", "x");
        ck_assert_int_ge(row.expires_in_s, 1);
        ck_assert_int_le(row.expires_in_s, 3);
    }
    usleep(3200000);
    check_absent("4");
}
END_TEST

/* --- what is seen, and what goes wrong --- */

START_TEST(every_load_sees_what_is_committed)
{
    open_kv("k INT PRIMARY KEY, v TEXT");
    sql("INSERT INTO kv VALUES (1, '0')");
    for (int i = 1; i < 50; i++) {
        char old[16], new[16];
        snprintf(old, sizeof old, "%d", i - 1);
        snprintf(new, sizeof new, "%d", i);
        sql("START TRANSACTION");
        sql("UPDATE kv SET v = '%d' WHERE k = 1", i);
        check_found("1", old);
        sql("COMMIT");
        check_found("1", new);
    }
    sql("DELETE FROM kv");
    check_absent("1");
    sql("INSERT INTO kv VALUES (1, 'again')");
    check_found("1", "again");
}
END_TEST

START_TEST(a_wrong_mapping_says_so)
{
    open_kv("k INT PRIMARY KEY, v TEXT");
    close_source();
    open_source((struct config_source){.table = "kv", .key_column = "k", .value_column = "value"}, 100);
    check_error("1", ERR_DATABASE, "namespace shop, table kv", "Unknown column 'value'");
    sql("ALTER TABLE kv ADD value TEXT");
    check_absent("1");
    close_source();
    open_source((struct config_source){.table = "nothing", .key_column = "k", .value_column = "v"}, 100);
    check_error("1", ERR_DATABASE, "namespace shop, table nothing", "doesn't exist");
    check_error("1", ERR_DATABASE, "namespace shop, table nothing", "doesn't exist");
}
END_TEST

START_TEST(an_altered_table_is_noticed)
{
    open_kv("k INT PRIMARY KEY, v VARCHAR(100)");
    sql("INSERT INTO kv VALUES (1, '007')");
    check_found("1", "007");
    sql("ALTER TABLE kv MODIFY v LONGTEXT");
    sql("INSERT INTO kv VALUES (2, REPEAT('v', %u))", VALUE_MAX + 1);
    check_found("1", "007");
    check_error("2", ERR_TOO_LARGE, "shop", "1048577");
    sql("DELETE FROM kv WHERE k = 2");
    sql("ALTER TABLE kv MODIFY k VARCHAR(20), MODIFY v INT");
    check_found("1", "7");
    check_absent("1 ");
    sql("ALTER TABLE kv DROP v");
    check_error("1", ERR_DATABASE, "shop", "Unknown column 'v'");
    sql("ALTER TABLE kv ADD v TEXT, ADD x INT FIRST");
    sql("UPDATE kv SET v = 'back'");
    check_found("1", "back");
    sql("DROP TABLE kv");
    check_error("1", ERR_DATABASE, "shop", "doesn't exist");
}
END_TEST

START_TEST(slow_statements_are_ended_by_the_server)
{
    open_kv("k INT PRIMARY KEY, v TEXT");
    close_source();
    sql("INSERT INTO kv VALUES (1, 'x')");
    sql("CREATE OR REPLACE VIEW slow AS SELECT k, SLEEP(5) AS v FROM kv");
    open_source((struct config_source){.table = "slow", .key_column = "k", .value_column = "v"}, 100);
    uint64_t begin = clock_mono_us();
    check_error("1", ERR_TIMEOUT, "shop", "");
    ck_assert(clock_mono_us() - begin < 4500 * MS); /* SLEEP(5) */
    check_absent("2");
}
END_TEST

START_TEST(a_killed_connection_is_told_from_an_error)
{
    open_kv("k INT PRIMARY KEY, v TEXT");
    check_absent("1");
    ck_assert(store_mysql.is_alive(connection));
    char id[64];
    sql_text("SELECT id FROM information_schema.processlist WHERE id <> CONNECTION_ID() AND user = "
             "SUBSTRING_INDEX(USER(), '@', 1) ORDER BY id DESC LIMIT 1",
             id, sizeof id);
    sql("KILL %s", id);
    for (uint64_t until_us = clock_mono_us() + 10000 * MS; store_mysql.is_alive(connection); usleep(1000)) {
        ck_assert_uint_lt(clock_mono_us(), until_us);
    }
    ck_assert_int_eq(load_span(SPAN_LIT("1")), ERR_CLOSED);
    ck_assert_int_eq(load_span(SPAN_LIT("1")), ERR_CLOSED);
}
END_TEST

START_TEST(a_wrong_password_says_so)
{
    struct config_database wrong = database;
    wrong.password = "wrong";
    connection = store_mysql.open(&(struct store_options){.config = &wrong, .address = &primary, .sources = &source, .source_count = 0});
    ck_assert_int_eq(store_mysql.connect(connection, error, sizeof error), ERR_UNAVAILABLE);
    ck_assert_msg(strstr(error, "Access denied") != NULL, "%s", error);
    store_mysql.close(&connection);
    struct address nobody = primary;
    nobody.port = 1;
    connection = store_mysql.open(&(struct store_options){.config = &wrong, .address = &nobody, .sources = &source, .source_count = 0});
    ck_assert_int_eq(store_mysql.connect(connection, error, sizeof error), ERR_UNAVAILABLE);
    store_mysql.close(&connection);
}
END_TEST

START_TEST(a_unix_socket_does_too)
{
    char path[256];
    struct config_database local = database;
    sql_text("SELECT @@socket", path, sizeof path);
    if (local.tls_ca != NULL || access(path, W_OK) != 0) {
        return; /* another host's, or a certificate that names a host */
    }
    open_kv("k INT PRIMARY KEY, v TEXT");
    store_mysql.close(&connection);
    sql("INSERT INTO kv VALUES (1, 'x')");
    struct address at = {.text = path, .path = path};
    connection = store_mysql.open(
        &(struct store_options){.config = &local, .address = &at, .sources = &source, .source_count = 1, .max_value_size = VALUE_MAX});
    ck_assert_msg(store_mysql.connect(connection, error, sizeof error) == OK, "%s", error);
    check_found("1", "x");
    close_source();
}
END_TEST

/* --- the loader on the real store --- */

static struct metric_registry *registry;
static struct log *log_;
static struct mailbox box;
static struct loader *loader;
static unsigned done_count;

static void on_done(struct load *load)
{
    done_count++;
}

static bool is_ready(void)
{
    return loader_is_ready(loader, error, sizeof error);
}

#define WAIT_FOR(condition)                                                          \
    do {                                                                             \
        uint64_t until = clock_mono_us() + 10000 * MS;                               \
        while (!(condition)) {                                                       \
            ck_assert_msg(clock_mono_us() < until, "never: %s: %s", #condition, error); \
            usleep(1000);                                                            \
        }                                                                            \
    } while (0)

static void start_loader(void)
{
    open_kv("k VARCHAR(100) PRIMARY KEY, v TEXT");
    close_source();
    sql("INSERT INTO kv VALUES ('1', 'x')");
    config = (struct config){
        .namespaces = &namespace, .namespace_count = 1, .database = &database, .max_value_size = VALUE_MAX};
    registry = metric_registry_create(&config, NULL, 0);
    log_ = log_create(STDERR_FILENO, LOG_ERROR);
    ck_assert_int_eq(mailbox_init(&box), OK);
    ck_assert_int_eq(loader_create(&config, log_, metric_registry_metrics(registry), &loader), OK);
    WAIT_FOR(metrics_sum(metric_registry_metrics(registry), METRIC_DATABASE_CONNECTIONS, 0) == database.threads);
    ck_assert(is_ready());
}

static void stop_loader(void)
{
    uint64_t begin = clock_mono_us();
    loader_destroy(&loader);
    ck_assert_msg(clock_mono_us() - begin < 5000 * MS, "stopping took %u ms", (unsigned)((clock_mono_us() - begin) / MS));
    mailbox_drain(&box, NULL);
    mailbox_deinit(&box);
    log_destroy(&log_);
    metric_registry_destroy(&registry);
}

static enum err submit(struct load *load, uint64_t timeout_us)
{
    *load = (struct load){.reply_to = &box, .on_done = on_done, .deadline_us = clock_mono_us() + timeout_us, .key_len = 3};
    memcpy(load->key, "p:1", 3);
    struct loader_intake intake = {0};
    enum err err = loader_submit(loader, &intake, load);
    loader_flush(loader, &intake);
    return err;
}

static enum err run(uint64_t timeout_us)
{
    struct load load;
    unsigned done = done_count;
    enum err err = submit(&load, timeout_us);
    while (err == OK && done_count == done) {
        poll(&(struct pollfd){.fd = box.fd, .events = POLLIN}, 1, 1000);
        mailbox_drain(&box, NULL);
    }
    if (err == OK && load.err == OK) {
        ck_assert(load.found);
        ck_assert(span_eq(span_of(load.value->data, load.value_len), SPAN_LIT("x")));
        chunk_unref(&load.value);
    }
    return load.err;
}

START_TEST(loads_in_parallel)
{
    struct load loads[100];
    start_loader();
    for (int round = 0; round < 20; round++) {
        unsigned done = done_count;
        for (size_t i = 0; i < ARRAY_LEN(loads); i++) {
            ck_assert_int_eq(submit(&loads[i], 2000 * MS), OK);
        }
        while (done_count < done + ARRAY_LEN(loads)) {
            poll(&(struct pollfd){.fd = box.fd, .events = POLLIN}, 1, 1000);
            mailbox_drain(&box, NULL);
        }
        for (size_t i = 0; i < ARRAY_LEN(loads); i++) {
            ck_assert_msg(loads[i].err == OK && loads[i].found, "%s", loads[i].error);
            chunk_unref(&loads[i].value);
        }
    }
    stop_loader();
}
END_TEST

START_TEST(deadlines_hold_with_a_stopped_server)
{
    start_loader();
    ck_assert_int_eq(run(1000 * MS), OK);
    pid_t pid = server_pid();
    kill(pid, SIGSTOP);
    usleep(50000); /* its threads stop one by one */
    for (int i = 0; i < 4; i++) {
        uint64_t begin = clock_mono_us();
        ck_assert_int_eq(run(200 * MS), ERR_TIMEOUT);
        ck_assert(clock_mono_us() - begin < 5000 * MS); /* nothing else would end it */
    }
    /* All connections are gone now, and new ones are not answered: no load waits for them. */
    uint64_t begin = clock_mono_us();
    ck_assert_int_eq(run(2000 * MS), ERR_UNAVAILABLE);
    ck_assert(clock_mono_us() - begin < 1500 * MS); /* well before its own deadline */
    begin = clock_mono_us();
    ck_assert_int_eq(run(2000 * MS), ERR_UNAVAILABLE);
    ck_assert(clock_mono_us() - begin < 1500 * MS);
    ck_assert(!is_ready());
    kill(pid, SIGCONT);
    WAIT_FOR(is_ready());
    ck_assert_int_eq(run(1000 * MS), OK);
    stop_loader();
}
END_TEST

START_TEST(stopping_is_quick_with_a_stopped_server)
{
    struct load loads[8];
    pid_t pid = server_pid();
    start_loader();
    kill(pid, SIGSTOP);
    usleep(50000);
    for (size_t i = 0; i < ARRAY_LEN(loads); i++) {
        ck_assert_int_eq(submit(&loads[i], 5000 * MS), OK);
    }
    usleep(50000);
    stop_loader(); /* under way */
    ck_assert_uint_eq(done_count, ARRAY_LEN(loads));
    for (size_t i = 0; i < ARRAY_LEN(loads); i++) {
        ck_assert_int_eq(loads[i].err, ERR_STOPPING);
    }
    registry = metric_registry_create(&config, NULL, 0);
    log_ = log_create(STDERR_FILENO, LOG_ERROR);
    ck_assert_int_eq(mailbox_init(&box), OK);
    ck_assert_int_eq(loader_create(&config, log_, metric_registry_metrics(registry), &loader), OK);
    usleep(100000);
    stop_loader(); /* connecting */
    kill(pid, SIGCONT);
}
END_TEST

START_TEST(a_killed_server_comes_back)
{
    start_loader();
    ck_assert_int_eq(run(1000 * MS), OK);
    mysql_close(admin);
    kill(server_pid(), SIGKILL);
    WAIT_FOR(!is_ready()); /* without any load: idle connections are looked at */
    uint64_t begin = clock_mono_us();
    ck_assert_int_eq(run(2000 * MS), ERR_UNAVAILABLE);
    ck_assert(clock_mono_us() - begin < 1500 * MS); /* well before its own deadline */
    ck_assert_int_eq(system(getenv("OUTRIGGER_TEST_MYSQL_START")), 0);
    WAIT_FOR(is_ready());
    ck_assert_int_eq(run(1000 * MS), OK);
    /* Again, and a load is the first to see it: it waits for the new connection. */
    kill(server_pid(), SIGKILL);
    usleep(50000);
    ck_assert_int_eq(system(getenv("OUTRIGGER_TEST_MYSQL_START")), 0);
    uint64_t until = clock_mono_us() + 10000 * MS;
    while (run(2000 * MS) != OK) {
        ck_assert(clock_mono_us() < until);
        usleep(10000);
    }
    stop_loader();
    admin_connect();
}
END_TEST

int main(void)
{
    if (!parse_environment()) {
        printf("skipped: OUTRIGGER_TEST_MYSQL is not set\n");
        return 0;
    }
    Suite *suite = suite_create("store_mysql");
    TCase *tc = tcase_create("store");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, admin_connect, teardown);
    tcase_add_test(tc, text_keys_are_exact);
    tcase_add_test(tc, every_variant_finds_its_own_row);
    tcase_add_test(tc, other_character_sets);
    tcase_add_test(tc, binary_keys);
    tcase_add_test(tc, number_keys_are_exact);
    tcase_add_test(tc, keys_use_the_index);
    tcase_add_test(tc, a_batch_is_one_statement);
    tcase_add_test(tc, in_a_batch_keys_are_exact_too);
    tcase_add_test(tc, in_a_batch_a_bad_row_fails_alone);
    tcase_add_test(tc, locking_loads_wait_for_writers);
    tcase_add_test(tc, so_they_do_with_a_witness);
    tcase_add_test(tc, the_heartbeat_comes_with_the_rows);
    tcase_add_test(tc, one_owner_beats_and_never_backwards);
    tcase_add_test(tc, a_primary_that_turns_read_only_is_none);
    tcase_add_test(tc, values_are_their_bytes);
    tcase_add_test(tc, values_of_other_types_are_text);
    tcase_add_test(tc, large_values_are_bounded);
    tcase_add_test(tc, columns_become_json);
    tcase_add_test(tc, flags_come_from_their_column);
    tcase_add_test(tc, rows_expire_by_the_servers_clock);
    tcase_add_test(tc, every_load_sees_what_is_committed);
    tcase_add_test(tc, a_wrong_mapping_says_so);
    tcase_add_test(tc, an_altered_table_is_noticed);
    tcase_add_test(tc, slow_statements_are_ended_by_the_server);
    tcase_add_test(tc, a_killed_connection_is_told_from_an_error);
    tcase_add_test(tc, a_wrong_password_says_so);
    tcase_add_test(tc, a_unix_socket_does_too);
    suite_add_tcase(suite, tc);
    tc = tcase_create("loader");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, admin_connect, teardown);
    tcase_add_test(tc, loads_in_parallel);
    if (getenv("OUTRIGGER_TEST_MYSQL_PIDFILE") != NULL) {
        tcase_add_test(tc, deadlines_hold_with_a_stopped_server);
        tcase_add_test(tc, stopping_is_quick_with_a_stopped_server);
        if (getenv("OUTRIGGER_TEST_MYSQL_START") != NULL) {
            tcase_add_test(tc, a_killed_server_comes_back);
        }
    }
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
