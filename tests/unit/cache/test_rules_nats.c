/* What: two sidecars of one region with a real nats-server: who has caught up has all that was recorded before. Skipped where no nats-server is installed. */
#include <arpa/inet.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proxy/cache/rules.h"
#include "tests/unit/bus/fake_transport.h"
#include "tests/unit/check_main.h"

#define ROUNDS 30

struct side {
    struct rules *rules;
    struct bus *bus;
};

static char *server_path;
static pid_t server;
static char store[] = "/tmp/outrigger-rules-XXXXXX";
static struct config_namespace namespaces[] = {{.prefix = (char *)""}, {.prefix = (char *)"cart:", .consistency = CONSISTENCY_STRONG}};
static struct config_strong strong_config;
static struct config_bus bus_config;
static struct config config;
static char url[64];
static struct log *test_log;
static struct metric_registry *registry;
static struct mailbox box;
static struct side sides[2];
static uint32_t done;

static uint16_t start_server(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    uint16_t port = (uint16_t)(20000 + getpid() * 41 % 12000);
    char text[8];
    snprintf(text, sizeof text, "%u", port);
    char *argv[] = {server_path, (char *)"-a", (char *)"127.0.0.1", (char *)"-p", text, (char *)"-js", (char *)"-sd", store, (char *)"-l", (char *)"/dev/null", NULL};
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(server_path, argv);
        _exit(127);
    }
    address.sin_port = htons(port);
    for (int i = 0; i < 1000; i++) {
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool is_there = connect(fd, (struct sockaddr *)&address, sizeof address) == 0;
        close(fd);
        if (is_there) {
            return port;
        }
        ck_assert_int_eq(waitpid(server, NULL, WNOHANG), 0);
        usleep(10000);
    }
    ck_abort_msg("nats-server does not start");
    return 0;
}

static void apply(void *ctx, struct delivery *delivery)
{
    rules_apply(((struct side *)ctx)->rules, delivery);
}

static void on_rule(void *ctx, const struct rule_event *event)
{
    rules_on_rule(((struct side *)ctx)->rules, event);
}

static void on_rules(void *ctx, enum rules_watch what)
{
    rules_on_watch(((struct side *)ctx)->rules, what);
}

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(store));
    snprintf(url, sizeof url, "nats://127.0.0.1:%u", start_server());
    bus_config = fake_bus_config;
    bus_config.url = url;
    bus_config.peer_count = 0;
    config = fake_config;
    config.bus = &bus_config;
    config.namespaces = namespaces;
    config.namespace_count = ARRAY_LEN(namespaces);
    config.strong = &strong_config;
    config.max_clock_skew_ms = 500;
    test_log = log_create(STDERR_FILENO, LOG_ERROR);
    registry = metric_registry_create(&config, NULL, 0);
    ck_assert_int_eq(mailbox_init(&box), OK);
    for (uint32_t i = 0; i < ARRAY_LEN(sides); i++) {
        struct side *s = &sides[i];
        ck_assert_int_eq(rules_create(&config, test_log, metric_registry_metrics(registry), 7 + i, &s->rules), OK);
        struct bus_sink sink = {.apply = apply, .ctx = s, .on_rule = on_rule, .on_rules = on_rules};
        ck_assert_int_eq(bus_create(&config, test_log, metric_registry_metrics(registry), sink, &s->bus), OK);
        ck_assert_int_eq(rules_start(s->rules, s->bus), OK);
    }
    for (uint32_t i = 0; i < ARRAY_LEN(sides); i++) {
        for (int k = 0; k < 2000 && rules_digest(sides[i].rules) == 0; k++) {
            usleep(10000);
        }
        ck_assert_uint_ne(rules_digest(sides[i].rules), 0);
    }
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static void teardown(void)
{
    for (uint32_t i = 0; i < ARRAY_LEN(sides); i++) {
        bus_stop(sides[i].bus);
        rules_stop(sides[i].rules);
        rules_destroy(&sides[i].rules);
        bus_destroy(&sides[i].bus);
    }
    mailbox_deinit(&box);
    metric_registry_destroy(&registry);
    log_destroy(&test_log);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    nftw(store, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void wait_until_done(uint32_t n)
{
    while (done < n) {
        struct pollfd poll_fd = {.fd = box.fd, .events = POLLIN};
        ck_assert_int_eq(poll(&poll_fd, 1, 20000), 1);
        mailbox_drain(&box, NULL);
    }
}

static void on_done(struct rules_request *request)
{
    ck_assert_msg(request->err == OK, "%s", request->text);
    done++;
}

static void on_caught_up(struct rules_catch_up *catch_up)
{
    ck_assert_int_eq(catch_up->err, OK);
    done++;
}

START_TEST(who_has_caught_up_has_what_was_recorded)
{
    uint64_t digest = rules_digest(sides[1].rules);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        struct rules_request request = {.reply_to = &box, .on_done = on_done};
        struct rules_catch_up catch_up = {.reply_to = &box, .on_done = on_caught_up};
        request.pattern_len = (uint16_t)snprintf(request.pattern, sizeof request.pattern, "cart:%u*", i % 20); /* some again, by newer ones */
        done = 0;
        rules_submit(sides[0].rules, &request);
        wait_until_done(1);
        rules_catch_up(sides[1].rules, &catch_up);
        wait_until_done(2);
        ck_assert_uint_ne(rules_digest(sides[1].rules), digest);
        digest = rules_digest(sides[1].rules);
        if (i < 20) { /* nothing is taken away meanwhile */
            ck_assert_uint_eq(digest, rules_digest(sides[0].rules));
        }
    }
}
END_TEST

int main(void)
{
    static const char *const places[] = {"/usr/sbin/nats-server", "/usr/local/bin/nats-server", "/usr/bin/nats-server"};
    for (size_t i = 0; i < ARRAY_LEN(places) && server_path == NULL; i++) {
        server_path = access(places[i], X_OK) == 0 ? (char *)places[i] : NULL;
    }
    Suite *suite = suite_create("cache/rules_nats");
    TCase *tc = tcase_create("rules_nats");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    if (server_path == NULL) {
        puts("cache/rules_nats: skipped, no nats-server is installed");
    } else {
        tcase_add_test(tc, who_has_caught_up_has_what_was_recorded);
    }
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
