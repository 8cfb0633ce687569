/* A node against a scripted memcached: a listening unix socket in the same thread, whose side of the talk each test writes out. */
#include "proxy/pool/node.h"

#include <fcntl.h>

#include "common/clock.h"
#include "tests/unit/check_main.h"
#include "tests/unit/pool/scripted_node.h"

#define GREETING "version\r\n"
#define OURS "VERSION 1.6.38\r\n"

static struct resolver resolver;
static struct config config;
static struct config_node config_node;
static struct metric_registry *registry;
static struct log *log_;
static struct node *node;

struct expectation {
    struct node_call call;
    int replies;
    enum err err;
    struct meta_reply reply;
    char value[64];
    uint64_t order;
};

static uint64_t order;

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct expectation *e = container_of(call, struct expectation, call);
    e->replies++;
    e->err = err;
    e->order = ++order;
    ck_assert_int_eq(err == OK, reply != NULL);
    if (reply != NULL) {
        e->reply = *reply;
        snprintf(e->value, sizeof e->value, "%.*s", SPAN_FMT(reply->value));
    }
}

static void expect_from_node(const char *text)
{
    char got[4096];
    size_t have = 0;
    while (have < strlen(text)) {
        turn();
        ssize_t n = read(client, got + have, sizeof got - 1 - have);
        if (n > 0) {
            have += (size_t)n;
        }
        ck_assert_int_ne(n, 0);
    }
    got[have] = '\0';
    ck_assert_str_eq(got, text);
}

static void say(const char *text)
{
    ck_assert_int_eq(write(client, text, strlen(text)), (ssize_t)strlen(text));
    turn();
    turn();
}

static void greet(const char *version)
{
    turn_until(try_accept());
    expect_from_node(GREETING);
    say(version);
}

static enum err get(struct expectation *e, const char *key)
{
    *e = (struct expectation){.call.on_reply = on_reply};
    struct meta_request request = {.command = META_GET, .with = META_WANT_VALUE | META_WANT_FLAGS, .key = span_str(key)};
    return node_submit(node, &request, (struct span){NULL, 0}, NULL, &e->call);
}

static void setup(void)
{
    scripted_open("test_node");
    config_node = (struct config_node){.address = {.text = path, .path = path}, .weight = 1};
    static struct config_namespace everything = {.prefix = "", .name = "default"};
    config = (struct config){
        .region = "test",
        .max_value_size = 1 << 20,
        .namespaces = &everything,
        .namespace_count = 1,
        .pool = {.nodes = &config_node, .node_count = 1, .versions = VERSIONS_ON, .connections = 1, .connect_timeout_ms = 300,
                 .timeout_ms = 100, .retry_min_ms = 5, .retry_max_ms = 20, .max_pending = 100},
    };
    static const char *const words[] = {"get"};
    registry = metric_registry_create(&config, words, 1);
    log_ = log_create(open("/dev/null", 1), LOG_ERROR);
    resolver_init(&resolver, &loop);
    struct node_context context = {&config, &loop, &resolver, log_, metrics_shard_create(metric_registry_metrics(registry))};
    node = node_create(&context, 0);
}

static void teardown(void)
{
    node_destroy(&node);
    resolver_deinit(&resolver);
    scripted_close();
    metric_registry_destroy(&registry);
    log_destroy(&log_);
}

START_TEST(is_up_after_the_greeting_only)
{
    struct expectation e;
    ck_assert_int_eq(get(&e, "early"), ERR_UNAVAILABLE);
    ck_assert(!node_was_tried(node));
    greet(OURS);
    ck_assert(node_is_up(node));
    ck_assert(node_has_versions(node));
    ck_assert_int_eq(e.replies, 0);
}
END_TEST

START_TEST(an_old_memcached_is_refused_when_versions_are_on)
{
    greet("VERSION 1.6.18\r\n");
    ck_assert(!node_is_up(node));
    ck_assert(node_was_tried(node));
}
END_TEST

START_TEST(an_old_memcached_serves_without_versions)
{
    config.pool.versions = VERSIONS_AUTO;
    greet("VERSION 1.6.18\r\n");
    ck_assert(node_is_up(node));
    ck_assert(!node_has_versions(node));
}
END_TEST

START_TEST(replies_come_in_order_whatever_the_cuts)
{
    greet(OURS);
    struct expectation a, b, c;
    ck_assert_int_eq(get(&a, "a"), OK);
    ck_assert_int_eq(get(&b, "b"), OK);
    ck_assert_int_eq(get(&c, "c"), OK);
    expect_from_node("mg a v f\r\nmg b v f\r\nmg c v f\r\n");
    const char *replies = "VA 3 f7\r\none\r\nEN\r\nVA 0 f0\r\n\r\n";
    for (size_t i = 0; replies[i] != '\0'; i++) {
        say((char[]){replies[i], '\0'});
    }
    ck_assert_int_eq(a.replies + b.replies + c.replies, 3);
    ck_assert_int_eq(a.reply.status, META_VA);
    ck_assert_str_eq(a.value, "one");
    ck_assert_uint_eq(a.reply.client_flags, 7);
    ck_assert_int_eq(b.reply.status, META_EN);
    ck_assert_uint_eq(c.reply.value_len, 0);
    ck_assert(a.order < b.order && b.order < c.order);
}
END_TEST

START_TEST(a_late_reply_belongs_to_nobody)
{
    greet(OURS);
    struct expectation slow, fast;
    ck_assert_int_eq(get(&slow, "slow"), OK);
    turn_until(slow.replies > 0 || !node_is_up(node));
    ck_assert_int_eq(slow.err, ERR_TIMEOUT);
    /* The node was silent for a whole timeout, so it is given up; on the new connection things go on. */
    turn_until(!node_is_up(node));
    close(client);
    greet(OURS);
    ck_assert_int_eq(get(&fast, "fast"), OK);
    say("EN\r\n");
    ck_assert_int_eq(fast.replies, 1);
    ck_assert_int_eq(fast.reply.status, META_EN);
    ck_assert_int_eq(slow.replies, 1);
}
END_TEST

START_TEST(a_node_that_still_talks_is_kept_and_the_slot_stays)
{
    config.pool.timeout_ms = 1000;
    greet(OURS);
    struct expectation first, slow, after;
    ck_assert_int_eq(get(&first, "first"), OK);
    uint64_t started = clock_mono_us();
    turn_until(clock_mono_us() - started > 600000);
    ck_assert_int_eq(get(&slow, "slow"), OK);
    say("EN\r\n"); /* for first, so the connection is alive */
    turn_until(clock_mono_us() - started > 1200000 || slow.replies > 0);
    say("VA 100 f0\r\n0123456789"); /* the beginning of the slow one's reply: it goes on talking */
    turn_until(slow.replies > 0);
    ck_assert_int_eq(slow.err, ERR_TIMEOUT);
    ck_assert(node_is_up(node));
    ck_assert_int_eq(get(&after, "after"), OK);
    char rest[93];
    memset(rest, 'x', 90);
    strcpy(rest + 90, "\r\n");
    say(rest);
    say("VA 2 f0\r\nok\r\n");
    ck_assert_int_eq(after.replies, 1);
    ck_assert_str_eq(after.value, "ok");
    ck_assert_int_eq(slow.replies, 1);
}
END_TEST

START_TEST(a_lost_connection_fails_what_is_under_way_and_comes_back)
{
    greet(OURS);
    struct expectation a, b;
    ck_assert_int_eq(get(&a, "a"), OK);
    expect_from_node("mg a v f\r\n");
    close(client);
    turn_until(a.replies > 0);
    ck_assert_int_eq(a.err, ERR_CLOSED);
    ck_assert_int_eq(get(&b, "b"), ERR_UNAVAILABLE);
    greet(OURS);
    ck_assert(node_is_up(node));
    ck_assert_int_eq(get(&b, "b"), OK);
    say("EN\r\n");
    ck_assert_int_eq(b.replies, 1);
}
END_TEST

static void check_hostile(const char *bytes)
{
    greet(OURS);
    struct expectation e;
    ck_assert_int_eq(get(&e, "k"), OK);
    expect_from_node("mg k v f\r\n");
    say(bytes);
    ck_assert_int_eq(e.replies, 1);
    ck_assert_int_eq(e.err, ERR_PROTOCOL);
    ck_assert(!node_is_up(node));
}

START_TEST(nonsense_ends_the_connection)
{
    static const char *const nonsense[] = {"HELLO\r\n", "VA x f0\r\n", "VA 99999999999 f0\r\n", "VA 3 f0\r\nabcdef\r\n", "\r\n", "VA -1\r\n"};
    check_hostile(nonsense[_i]);
}
END_TEST

START_TEST(a_value_that_is_too_large_costs_its_reader_only)
{
    greet(OURS);
    struct expectation large, after;
    ck_assert_int_eq(get(&large, "large"), OK);
    ck_assert_int_eq(get(&after, "after"), OK);
    expect_from_node("mg large v f\r\nmg after v f\r\n");
    say("VA 2000000 f0\r\n");
    ck_assert_int_eq(large.replies, 1);
    ck_assert_int_eq(large.err, ERR_TOO_LARGE);
    char piece[10001];
    memset(piece, 'x', 10000);
    piece[10000] = '\0';
    for (int i = 0; i < 200; i++) {
        say(piece);
    }
    say("\r\nVA 2 f0\r\nok\r\n");
    ck_assert_int_eq(after.replies, 1);
    ck_assert_str_eq(after.value, "ok");
    ck_assert(node_is_up(node));
}
END_TEST

START_TEST(a_full_memcached_is_not_taken_for_an_old_one)
{
    config.pool.versions = VERSIONS_AUTO;
    greet("ERROR Too many open connections\r\n");
    ck_assert(!node_is_up(node));
    close(client);
    greet(OURS);
    ck_assert(node_is_up(node));
}
END_TEST

START_TEST(a_reply_to_nothing_ends_the_connection)
{
    greet(OURS);
    say("EN\r\n");
    ck_assert(!node_is_up(node));
}
END_TEST

START_TEST(an_error_line_is_a_reply)
{
    greet(OURS);
    struct expectation e;
    ck_assert_int_eq(get(&e, "k"), OK);
    say("SERVER_ERROR out of memory\r\n");
    ck_assert_int_eq(e.err, OK);
    ck_assert_int_eq(e.reply.status, META_REFUSED);
    ck_assert(node_is_up(node));
}
END_TEST

START_TEST(what_is_under_way_is_bounded)
{
    greet(OURS);
    static struct expectation many[101];
    for (int i = 0; i < 100; i++) {
        ck_assert_int_eq(get(&many[i], "k"), OK);
    }
    ck_assert_int_eq(get(&many[100], "k"), ERR_OVERLOAD);
}
END_TEST

START_TEST(a_stored_value_goes_behind_its_line)
{
    greet(OURS);
    struct expectation e = {.call.on_reply = on_reply};
    struct meta_request request = {.command = META_SET, .with = META_TTL | META_CLIENT_FLAGS, .key = SPAN_LIT("k"), .ttl = 60,
                                   .client_flags = 5, .value_len = 3};
    ck_assert_int_eq(node_submit(node, &request, SPAN_LIT("abc\r\n"), NULL, &e.call), OK);
    expect_from_node("ms k 3 T60 F5\r\nabc\r\n");
    say("HD\r\n");
    ck_assert_int_eq(e.reply.status, META_HD);
}
END_TEST

START_TEST(destruction_ends_what_is_under_way)
{
    greet(OURS);
    struct expectation e;
    ck_assert_int_eq(get(&e, "k"), OK);
    node_destroy(&node);
    ck_assert_int_eq(e.replies, 1);
    ck_assert_int_eq(e.err, ERR_STOPPING);
}
END_TEST

static enum err set(struct expectation *e, struct chunk *chunk, size_t len)
{
    *e = (struct expectation){.call.on_reply = on_reply};
    struct meta_request request = {.command = META_SET, .key = span_str("k"), .value_len = len - 2};
    return node_submit(node, &request, span_of(chunk->data, len), chunk, &e->call);
}

/* Takes what has been written to it, a piece every now and then; nothing is said. */
static size_t take_a_piece(void)
{
    static char piece[100000];
    turn();
    usleep(5000);
    ssize_t n = read(client, piece, sizeof piece);
    ck_assert_int_ne(n, 0);
    return n > 0 ? (size_t)n : 0;
}

START_TEST(a_node_that_still_takes_a_large_value_is_not_silent)
{
    struct expectation large, small;
    size_t len = 32 << 20;
    config.pool.timeout_ms = 700;
    greet(OURS);
    turn_until(node_is_up(node));
    struct chunk *chunk = chunk_get(&loop.chunks, len);
    memset(chunk->data, 'x', len);
    ck_assert_int_eq(set(&large, chunk, len), OK);
    ck_assert_int_eq(get(&small, "k"), OK);
    uint64_t until_us = clock_mono_us() + 1500000; /* more than two timeouts */
    while (clock_mono_us() < until_us) {
        take_a_piece();
    }
    ck_assert_int_eq(large.err, ERR_TIMEOUT);
    ck_assert_int_eq(small.err, ERR_TIMEOUT);
    ck_assert(node_is_up(node));
    until_us = clock_mono_us() + 10000000;
    while (node_is_up(node)) { /* it takes nothing any more */
        turn();
        ck_assert_uint_lt(clock_mono_us(), until_us);
    }
    chunk_unref(&chunk);
}
END_TEST

START_TEST(large_values_that_wait_do_not_lock_out_small_requests)
{
    static struct expectation e[100];
    size_t len = 1 << 20;
    enum err err = OK;
    int n = 0;
    greet(OURS);
    turn_until(node_is_up(node));
    struct chunk *chunk = chunk_get(&loop.chunks, len);
    memset(chunk->data, 'x', len);
    while (n < 99 && (err = set(&e[n], chunk, len)) == OK) {
        n++;
    }
    ck_assert_int_eq(err, ERR_OVERLOAD);
    ck_assert_int_ge(n, 65);
    ck_assert_int_eq(get(&e[n], "k"), OK);
    chunk_unref(&chunk);
    node_destroy(&node);
    ck_assert_int_eq(e[n].replies, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("node");
    TCase *tc = tcase_create("scripted");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, is_up_after_the_greeting_only);
    tcase_add_test(tc, an_old_memcached_is_refused_when_versions_are_on);
    tcase_add_test(tc, an_old_memcached_serves_without_versions);
    tcase_add_test(tc, replies_come_in_order_whatever_the_cuts);
    tcase_add_test(tc, a_late_reply_belongs_to_nobody);
    tcase_add_test(tc, a_node_that_still_talks_is_kept_and_the_slot_stays);
    tcase_add_test(tc, a_lost_connection_fails_what_is_under_way_and_comes_back);
    tcase_add_loop_test(tc, nonsense_ends_the_connection, 0, 6);
    tcase_add_test(tc, a_value_that_is_too_large_costs_its_reader_only);
    tcase_add_test(tc, a_full_memcached_is_not_taken_for_an_old_one);
    tcase_add_test(tc, a_reply_to_nothing_ends_the_connection);
    tcase_add_test(tc, an_error_line_is_a_reply);
    tcase_add_test(tc, what_is_under_way_is_bounded);
    tcase_add_test(tc, a_stored_value_goes_behind_its_line);
    tcase_add_test(tc, destruction_ends_what_is_under_way);
    tcase_add_test(tc, a_node_that_still_takes_a_large_value_is_not_silent);
    tcase_add_test(tc, large_values_that_wait_do_not_lock_out_small_requests);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
