/* Composite and numeric keys on a real server (see mysql_fixture.h). */
#include "proxy/database/store.h"

#include "tests/unit/database/mysql_fixture.h"

static struct config_source table;
static struct config_namespace namespace = {.prefix = "order:", .name = "order", .source = &table};
static struct source source;
static struct store_connection *connection;
static struct store_load loads[200];

static void open_source(struct config_source config)
{
    char error[STORE_ERROR_MAX];
    table = config;
    source_init(&source, &namespace, 1000);
    connection = store_mysql.open(&(struct store_options){
        .config = &fixture.database, .address = &fixture.primary, .sources = &source, .source_count = 1, .max_value_size = 1000});
    ck_assert_msg(store_mysql.connect(connection, error, sizeof error) == OK, "%s", error);
}

static void open_orders(const char *columns)
{
    fixture_sql("DROP TABLE IF EXISTS orders");
    fixture_sql("CREATE TABLE orders (%s)", columns);
    open_source((struct config_source){.table = "orders", .key = "order:{customer}:{id}", .value_column = "v", .version_column = "ver"});
}

static void teardown(void)
{
    if (connection != NULL) {
        store_mysql.close(&connection);
        source_deinit(&source);
    }
    fixture_disconnect();
}

/* Asks for all at once. */
static void load(const char *const *keys, uint32_t count, struct store_batch *batch)
{
    for (uint32_t i = 0; i < count; i++) {
        loads[i] = (struct store_load){.key = source_row_key(&source, span_str(keys[i]))};
    }
    *batch = (struct store_batch){.count = count, .loads = loads};
    ck_assert_int_eq(store_mysql.load(connection, batch), OK);
    for (uint32_t i = 0; i < count; i++) {
        ck_assert_msg(loads[i].err == OK, "%s: %s", keys[i], loads[i].error);
    }
}

static void check(const char *key, const char *value)
{
    struct store_batch batch;
    load(&key, 1, &batch);
    ck_assert_msg(loads[0].row.found == (value != NULL), "%s: found %d", key, loads[0].row.found);
    if (value != NULL) {
        ck_assert(span_eq(span_of(loads[0].row.value->data, loads[0].row.value_len), span_str(value)));
        chunk_unref(&loads[0].row.value);
    }
}

START_TEST(a_row_has_one_key)
{
    static const char *const absent[] = {"order:7:012",  "order:07:12", "order: 7:12", "order:7:12 ", "order:7.0:12", "order:7:1e1",
                                         "order:+7:12", "order:7:12:3", "order:12:7",  "order:7",     "order:",       "order::",
                                         "order:7:",    "order:-0:12",  "order:7:\xff"};
    open_orders("customer INT, id BIGINT UNSIGNED, v TEXT, ver BIGINT UNSIGNED, PRIMARY KEY (customer, id)");
    fixture_sql("INSERT INTO orders VALUES (7,12,'a',18446744073709551615),(7,13,'b',NULL),(-1,18446744073709551615,'c',0)");
    check("order:7:12", "a");
    ck_assert_uint_eq(loads[0].row.version, UINT64_MAX);
    check("order:7:13", "b");
    ck_assert_uint_eq(loads[0].row.version, 0);
    check("order:-1:18446744073709551615", "c");
    for (size_t i = 0; i < ARRAY_LEN(absent); i++) {
        check(absent[i], NULL);
    }
}
END_TEST

START_TEST(what_does_not_match_is_not_asked_for)
{
    struct store_batch batch;
    const char *const keys[] = {"order:7", "order:", "order:x"};
    open_orders("customer INT, id INT, v TEXT, ver BIGINT UNSIGNED, PRIMARY KEY (customer, id)");
    load(keys, 3, &batch);
    ck_assert_uint_eq(batch.queries, 0);
    load(keys, 1, &batch);
    ck_assert_uint_eq(batch.queries, 0);
}
END_TEST

START_TEST(text_and_number_together)
{
    open_orders("customer VARCHAR(20) COLLATE utf8mb4_general_ci, id INT, v TEXT, ver BIGINT UNSIGNED, PRIMARY KEY (customer, id)");
    fixture_sql("INSERT INTO orders VALUES ('bob',1,'a',1),('a:b',2,'b',1),('\xc3\xa4',3,'c',1),('',4,'d',1)");
    check("order:bob:1", "a");
    check("order:Bob:1", NULL);
    check("order:bob :1", NULL);
    check("order:a:b:2", NULL); /* the field ends at the first ':', so this row has no key */
    check("order:\xc3\xa4:3", "c");
    check("order:a:3", NULL);
    check("order::4", "d");
}
END_TEST

static long long rows_read(void)
{
    return atoll(fixture_ask("SELECT SUM(variable_value) FROM information_schema.global_status WHERE variable_name IN "
                             "('HANDLER_READ_NEXT', 'HANDLER_READ_RND_NEXT')"));
}

START_TEST(many_are_one_statement_and_use_the_index)
{
    static const char *const types[] = {"INT", "VARCHAR(20) COLLATE utf8mb4_general_ci", "VARBINARY(20)"};
    for (size_t t = 0; t < ARRAY_LEN(types); t++) {
        char columns[200];
        char texts[100][32];
        const char *keys[100];
        struct store_batch batch;
        snprintf(columns, sizeof columns, "customer %s, id INT, v TEXT, ver BIGINT UNSIGNED, PRIMARY KEY (customer, id)", types[t]);
        open_orders(columns);
        fixture_sql("INSERT INTO orders SELECT seq MOD 10, seq, seq, seq FROM seq_1_to_20000");
        fixture_sql("ANALYZE TABLE orders");
        for (uint32_t i = 0; i < 100; i++) {
            snprintf(texts[i], sizeof texts[i], "order:%u:%u", i % 7, i * 3 + 1);
            keys[i] = texts[i];
        }
        load(keys, 100, &batch); /* prepares */
        for (uint32_t i = 0; i < 100; i++) {
            chunk_unref(&loads[i].row.value);
        }
        long long before = rows_read();
        load(keys, 100, &batch);
        ck_assert_msg(rows_read() - before < 5000, "%s: %lld rows read", types[t], rows_read() - before);
        ck_assert_uint_eq(batch.queries, 1);
        for (uint32_t i = 0; i < 100; i++) {
            uint32_t id = i * 3 + 1;
            ck_assert_int_eq(loads[i].row.found, id % 10 == i % 7);
            ck_assert_uint_eq(loads[i].row.version, loads[i].row.found ? id : 0);
            chunk_unref(&loads[i].row.value);
        }
        store_mysql.close(&connection);
        source_deinit(&source);
    }
}
END_TEST

START_TEST(a_version_that_is_none)
{
    struct store_batch batch = {.count = 1, .loads = loads};
    open_orders("customer INT, id INT, v TEXT, ver BIGINT, PRIMARY KEY (customer, id)");
    fixture_sql("INSERT INTO orders VALUES (1,1,'a',-1)");
    loads[0] = (struct store_load){.key = SPAN_LIT("1:1")};
    ck_assert_int_eq(store_mysql.load(connection, &batch), OK);
    ck_assert_int_eq(loads[0].err, ERR_DATABASE);
    ck_assert_msg(strstr(loads[0].error, "namespace order") != NULL && strstr(loads[0].error, "column ver") != NULL, "%s", loads[0].error);
}
END_TEST

int main(void)
{
    if (!fixture_init()) {
        return 0;
    }
    Suite *suite = suite_create("store_keys");
    TCase *tc = tcase_create("keys");
    tcase_set_timeout(tc, 60);
    tcase_add_checked_fixture(tc, fixture_connect, teardown);
    tcase_add_test(tc, a_row_has_one_key);
    tcase_add_test(tc, what_does_not_match_is_not_asked_for);
    tcase_add_test(tc, text_and_number_together);
    tcase_add_test(tc, many_are_one_statement_and_use_the_index);
    tcase_add_test(tc, a_version_that_is_none);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
