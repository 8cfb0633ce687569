/* Locks against a scripted memcached: a listening unix socket in the same thread. What memcached makes of it all is seen in tests/e2e/test_strong.py. */
#include "proxy/cache/lock.h"

#include <fcntl.h>
#include <inttypes.h>

#include "common/clock.h"
#include "proxy/cache/fill.h"
#include "tests/unit/check_main.h"
#include "tests/unit/pool/scripted_node.h"

#define SKEW_MS 500

static struct config config;
static struct config_strong strong;
static struct config_node config_node;
static struct config_namespace config_namespaces[2];
static struct namespaces namespaces;
static struct ketama *ring;
static struct metric_registry *registry;
static struct log *log_;
static struct cache cache;
static char line[512];
static struct strong_task task;
static int done;

static void on_done(struct mail *mail, void *owner)
{
    ck_assert_ptr_eq(mail, &task.mail);
    done++;
}

/* The next line that the node is sent. */
static const char *asked(void)
{
    size_t have = 0;
    while (have == 0 || line[have - 1] != '\n') {
        turn();
        ssize_t n = read(client, line + have, 1);
        ck_assert_int_ne(n, 0);
        have += n > 0 ? 1 : 0;
        ck_assert_uint_lt(have, sizeof line);
    }
    line[have - 2] = '\0';
    return line;
}

static void say(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void say(const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    ck_assert_int_eq(write(client, text, (size_t)len), len);
}

static void check_asked(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void check_asked(const char *fmt, ...)
{
    char text[256];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    ck_assert_str_eq(asked(), text);
}

static uint64_t version_in(int64_t ms)
{
    return version_shift(clock_wall_ms() << VERSION_MS_SHIFT, ms);
}

static void serve(enum strong_task_kind kind, const char *key, uint64_t version)
{
    task = (struct strong_task){.kind = kind, .version = version, .reply_to = &loop.mailbox, .on_done = on_done, .key_len = (uint16_t)strlen(key), .err = ERR_COUNT};
    memcpy(task.key, key, strlen(key));
    done = 0;
    lock_serve(&cache, &task);
}

static void check_done(enum err err)
{
    turn_until(done > 0);
    ck_assert_int_eq(task.err, err);
    ck_assert_uint_eq(cache.pending, 0);
}

static void setup(void)
{
    scripted_open("test_lock");
    config_node = (struct config_node){.address = {.text = path, .path = path}, .weight = 1};
    config_namespaces[0] = (struct config_namespace){.prefix = "s:", .name = "s", .read = READ_THROUGH, .consistency = CONSISTENCY_STRONG, .lease_ttl_s = 10, .tombstone_ttl_s = 30};
    config_namespaces[1] = (struct config_namespace){.prefix = "", .name = "default", .read = READ_THROUGH, .lease_ttl_s = 10, .tombstone_ttl_s = 30};
    strong = (struct config_strong){.lease_ms = 3000, .lock_window_ms = 10000, .prepare_timeout_ms = 1000};
    config = (struct config){
        .region = "test",
        .max_value_size = 1 << 20,
        .max_clock_skew_ms = SKEW_MS,
        .namespaces = config_namespaces,
        .namespace_count = 2,
        .strong = &strong,
        .pool = {.nodes = &config_node, .node_count = 1, .versions = VERSIONS_ON, .connections = 1, .connect_timeout_ms = 300,
                 .timeout_ms = 5000, .retry_min_ms = 5, .retry_max_ms = 20, .max_pending = 100},
    };
    static const char *const words[] = {"get"};
    registry = metric_registry_create(&config, words, 1);
    log_ = log_create(open("/dev/null", 1), LOG_ERROR);
    namespaces_init(&namespaces, &config);
    ck_assert_int_eq(ketama_create(&(struct ketama_node){.host = path, .weight = 1}, 1, &ring), OK);
    struct metrics_shard *shard = metrics_shard_create(metric_registry_metrics(registry));
    cache_init(&cache, &config, &namespaces, &loop, log_, shard, 1);
    pool_init(&cache.pool, ring, &config, &loop, log_, shard);
    turn_until(try_accept());
    check_asked("version");
    say("VERSION 1.6.38\r\n");
    turn_until(node_is_up(cache.pool.nodes[0]));
}

static void teardown(void)
{
    cache.is_stopping = true;
    pool_deinit(&cache.pool);
    cache_deinit(&cache);
    namespaces_deinit(&namespaces);
    ketama_destroy(&ring);
    scripted_close();
    log_destroy(&log_);
    metric_registry_destroy(&registry);
}

START_TEST(a_lock_replaces_what_is_there)
{
    uint64_t version = version_in(10000);
    serve(TASK_LOCK, "s:k", version);
    check_asked("mg s:k c E%" PRIu64 " N10", version);
    say("HD c77\r\n"); /* an entry */
    check_asked("md s:k C77 E%" PRIu64 " T12 I x", version);
    say("EX\r\n"); /* it has changed meanwhile */
    check_asked("mg s:k c E%" PRIu64 " N10", version);
    say("HD c%" PRIu64 " W\r\n", version); /* now there is nothing: a stub of our own, which is no lock yet */
    check_asked("md s:k C%" PRIu64 " E%" PRIu64 " T12 I x", version, version);
    say("HD\r\n");
    check_done(OK);
    serve(TASK_LOCK, "s:k", version);
    asked();
    say("HD c%" PRIu64 " W X\r\n", version_in(900)); /* a tombstone of a clock that is ahead, and had been moved past a rule */
    asked();
    say("NF\r\n");
    asked();
    say("HD c5 Z X\r\n"); /* one that somebody loads for */
    check_asked("md s:k C5 E%" PRIu64 " T12 I x", version);
    say("HD\r\n");
    check_done(OK);
}
END_TEST

START_TEST(a_live_lock_of_another_is_left_alone)
{
    uint64_t version = version_in(10000);
    serve(TASK_LOCK, "s:k", version);
    asked();
    say("HD c%" PRIu64 " W X\r\n", version + 1);
    check_done(ERR_CONFLICT);
    serve(TASK_LOCK, "s:k", version); /* its own: the message came twice */
    asked();
    say("HD c%" PRIu64 " Z X\r\n", version);
    check_done(OK);
    serve(TASK_INVALIDATE, "s:k", 0);
    asked();
    say("HD c%" PRIu64 " W X\r\n", version);
    check_done(OK);
    lease_give_back(&cache, &namespaces.sorted[1], SPAN_LIT("s:k"), 0, version, true);
    ck_assert_uint_eq(cache.pending, 0);
}
END_TEST

START_TEST(commit_takes_its_own_lock_only)
{
    uint64_t version = version_in(10000), before = version_in(0), now = 0, lock = 0;
    for (int i = 0; i < 3; i++) {
        serve(TASK_COMMIT, "s:k", version);
        ck_assert_int_eq(sscanf(asked(), "md s:k C%" SCNu64 " E%" SCNu64 " T30 I x", &lock, &now), 2);
        ck_assert_ptr_nonnull(strstr(line, " T30 I x"));
        ck_assert_uint_eq(lock, version);
        ck_assert_uint_ge(now, before);
        ck_assert_uint_le(now, version_in(1000));
        say("%s\r\n", (const char *const[]){"HD", "EX", "NF"}[i]);
        check_done(OK);
    }
}
END_TEST

START_TEST(an_invalidation_never_marks_what_it_has_not_seen)
{
    uint64_t seen = 0;
    serve(TASK_INVALIDATE, "s:k", 0);
    for (uint64_t i = 1; i <= 16; i++) {
        asked();
        say("HD c%" PRIu64 "\r\n", i);
        ck_assert_int_eq(sscanf(asked(), "md s:k C%" SCNu64, &seen), 1);
        ck_assert_uint_eq(seen, i);
        say("EX\r\n");
    }
    check_done(ERR_CONFLICT);
}
END_TEST

START_TEST(what_can_not_be_a_lock_is_refused)
{
    serve(TASK_LOCK, "s:k", version_in(2 * SKEW_MS)); /* over already, for some clocks */
    check_done(ERR_TIMEOUT);
    serve(TASK_LOCK, "s:k", version_in(2 * 86400000LL));
    check_done(ERR_INVALID);
    serve(TASK_LOCK, "k", version_in(10000));
    check_done(ERR_INVALID);
    serve(TASK_LOCK, "", version_in(10000));
    check_done(ERR_INVALID);
    serve(TASK_LOCK, "s:k", version_in(10000));
    asked();
    say("SERVER_ERROR out of memory\r\n");
    check_done(ERR_REMOTE);
}
END_TEST

START_TEST(nothing_is_served_without_a_share_nor_from_a_young_node)
{
    struct strong_validity validity = {0};
    strong.lock_window_ms = 0;
    ck_assert(!lock_may_serve(&cache, 0));
    cache.validity = &validity;
    ck_assert(!lock_may_serve(&cache, 0));
    atomic_store(&validity.serve_until_us, clock_mono_us() + 60000000);
    ck_assert(lock_may_serve(&cache, 0));
    strong.lock_window_ms = 10000;
    ck_assert(!lock_may_serve(&cache, 0)); /* it was connected to just now, and may have lost locks before */
    strong.lock_window_ms = 0;
    atomic_store(&validity.serve_until_us, clock_mono_us() - 1);
    ck_assert(!lock_may_serve(&cache, 0));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("lock");
    TCase *tc = tcase_create("lock");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, a_lock_replaces_what_is_there);
    tcase_add_test(tc, a_live_lock_of_another_is_left_alone);
    tcase_add_test(tc, commit_takes_its_own_lock_only);
    tcase_add_test(tc, an_invalidation_never_marks_what_it_has_not_seen);
    tcase_add_test(tc, what_can_not_be_a_lock_is_refused);
    tcase_add_test(tc, nothing_is_served_without_a_share_nor_from_a_young_node);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
