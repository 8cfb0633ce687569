#include <check.h>

#include "proxy/metric.h"
#include "tests/unit/check_main.h"

static const char *const commands[] = {"get", "set"};

static struct config_node nodes[] = {
    {{.text = "10.0.0.1:11211", .host = "10.0.0.1", .port = 11211}, 1},
    {{.text = "unix:/run/\"m\".sock", .path = "/run/\"m\".sock"}, 1},
};
static struct config_namespace namespaces[] = {{.prefix = "", .name = "default"}, {.prefix = "package:", .name = "package"}};
static struct config_peer peers[] = {{.region = "east"}, {.region = "south"}};
static struct config_bus bus = {.peers = peers, .peer_count = 2};

static char *page(struct metric_registry *registry)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    metrics_write_prometheus(metric_registry_metrics(registry), out);
    fclose(out);
    return text;
}

static void assert_line(const char *text, const char *line)
{
    char whole[256];
    snprintf(whole, sizeof whole, "\n%s\n", line);
    ck_assert_msg(strstr(text, whole) != NULL, "not on the page: %s\n%s", line, text);
}

START_TEST(test_labels)
{
    struct config config = {
        .region = "west", .namespaces = namespaces, .namespace_count = 2, .pool = {.nodes = nodes, .node_count = 2}, .bus = &bus};
    struct metric_registry *registry = metric_registry_create(&config, commands, 2);
    struct metrics_shard *s = metrics_shard_create(metric_registry_metrics(registry));
    metrics_add(s, METRIC_REQUESTS, metric_index2(1, 2, 1), 5);
    metrics_add(s, METRIC_HITS, 1, 6);
    metrics_add(s, METRIC_LOADS, metric_index2(1, LOAD_RESULTS, LOAD_ABSENT), 7);
    metrics_add(s, METRIC_REPLIES, metric_index2(1, REPLY_RESULTS, RESULT_NOT_STORED), 3);
    metrics_add(s, METRIC_AUTHENTICATIONS, AUTH_DENIED, 4);
    metrics_add(s, METRIC_NODE_ERRORS, metric_index2(1, ERR_COUNT, ERR_TIMEOUT), 8);
    metrics_add(s, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_STOPPING), 9);
    metrics_set(s, METRIC_BUS_CONNECTED, 2, 1);
    metrics_observe(s, METRIC_CLIENT_SECONDS, 1, 20);
    metrics_observe(s, METRIC_BUS_PUBLISH_SECONDS, 0, 20);
    char *text = page(registry);
    assert_line(text, "outrigger_requests_total{command=\"set\",namespace=\"package\"} 5");
    assert_line(text, "outrigger_hits_total{namespace=\"default\"} 0");
    assert_line(text, "outrigger_hits_total{namespace=\"package\"} 6");
    assert_line(text, "outrigger_loads_total{namespace=\"package\",result=\"absent\"} 7");
    assert_line(text, "outrigger_replies_total{command=\"set\",result=\"not_stored\"} 3");
    assert_line(text, "outrigger_authentications_total{result=\"denied\"} 4");
    assert_line(text, "outrigger_node_errors_total{node=\"unix:/run/\\\"m\\\".sock\",error=\"timeout\"} 8");
    assert_line(text, "outrigger_errors_total{source=\"bus\",error=\"stopping\"} 9");
    assert_line(text, "outrigger_bus_connected{peer=\"west\"} 0");
    assert_line(text, "outrigger_bus_connected{peer=\"south\"} 1");
    assert_line(text, "outrigger_client_duration_seconds_count{command=\"set\"} 1");
    assert_line(text, "outrigger_bus_publish_duration_seconds_bucket{le=\"0.000024\"} 1");
    assert_line(text, "outrigger_node_connections{node=\"10.0.0.1:11211\"} 0");
    assert_line(text, "outrigger_client_connections 0");
    free(text);
    metric_registry_destroy(&registry);
    ck_assert_ptr_null(registry);
}
END_TEST

START_TEST(test_without_bus)
{
    struct config config = {.namespaces = namespaces, .namespace_count = 1, .pool = {.nodes = nodes, .node_count = 1}};
    struct metric_registry *registry = metric_registry_create(&config, commands, 2);
    metrics_shard_create(metric_registry_metrics(registry));
    char *text = page(registry);
    assert_line(text, "outrigger_bus_connected{peer=\"\"} 0");
    ck_assert_ptr_null(strstr(text, "package"));
    free(text);
    metric_registry_destroy(&registry);
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("metric");
    tcase_add_test(tests, test_labels);
    tcase_add_test(tests, test_without_bus);
    Suite *suite = suite_create("metric");
    suite_add_tcase(suite, tests);
    return check_main(suite);
}
