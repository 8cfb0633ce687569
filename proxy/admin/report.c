#include "proxy/admin/report.h"

#include <jansson.h>

#include "common/clock.h"
#include "common/uri.h"
#include "proxy/admin/entry.h"
#include "proxy/metric.h"

static void dump(json_t *json, struct http_response *response)
{
    response->content_type = "application/json";
    json_dumpf(json, response->body, JSON_COMPACT);
    fputc('\n', response->body);
    json_decref(json);
}

/* --- /route --- */

static json_t *namespace_json(const struct namespace *namespace)
{
    const struct config_namespace *config = namespace->config;
    return json_pack("{s:s,s:s,s:s,s:s,s:s,s:I,s:I}", "name", config->name, "prefix", config->prefix, "read",
                     config->read == READ_THROUGH ? "through" : "aside", "write", config->write == WRITE_THROUGH ? "through" : "aside",
                     "on_set", config->on_set == ON_SET_INVALIDATE ? "invalidate" : "local", "ttl", (json_int_t)config->ttl_s, "tombstone_ttl",
                     (json_int_t)config->tombstone_ttl_s);
}

static json_t *node_json(const struct routes *routes, uint32_t index)
{
    const struct config *config = routes->view->config;
    const struct config_node *node = &config->pool.nodes[index];
    uint64_t up = metrics_sum(routes->metrics, METRIC_NODE_UP, index);
    return json_pack("{s:s,s:i,s:i,s:b,s:I,s:I}", "address", node->address.text, "index", (int)index, "weight", (int)node->weight, "is_up", up > 0,
                     "connections", (json_int_t)up, "connections_wanted", (json_int_t)config->threads * config->pool.connections);
}

void report_route(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    const struct admin_view *view = routes->view;
    struct span raw;
    char key[3 * KEY_MAX];
    size_t len = 0;
    if (view == NULL) {
        http_response_error(response, 503, "unavailable", "there is no pool to look at");
        return;
    }
    if (!uri_parameter(request->query, "key", &raw) || raw.len > sizeof key || uri_decode(raw, true, key, &len) != OK || len == 0 || len > KEY_MAX) {
        http_response_error(response, 400, "bad_key", "/route?key=KEY takes a key of 1 to 250 bytes");
        return;
    }
    uint32_t hash;
    uint32_t point;
    ketama_explain(view->ring, span_of(key, len), &hash, &point);
    uint32_t home = ketama_pick(view->ring, span_of(key, len));
    json_t *json = json_pack("{s:s,s:o,s:o,s:I,s:I,s:i}", "region", view->config->region, "namespace",
                             namespace_json(namespaces_find(view->namespaces, span_of(key, len))), "node", node_json(routes, home), "hash",
                             (json_int_t)hash, "point", (json_int_t)point, "nodes", (int)view->config->pool.node_count);
    entry_set_bytes(json, "key", "key64", span_of(key, len));
    dump(json, response);
}

/* --- /regions --- */

static void add_peer(const struct routes *routes, json_t *json, const struct bus_region_status *status, uint32_t index)
{
    static const struct {
        const char *name;
        enum metric metric;
    } counters[] = {{"received", METRIC_BUS_RECEIVED}, {"applied", METRIC_BUS_APPLIED}, {"failed", METRIC_BUS_FAILED}};
    for (size_t i = 0; i < ARRAY_LEN(counters); i++) {
        json_object_set_new(json, counters[i].name, json_integer((json_int_t)metrics_sum(routes->metrics, counters[i].metric, index)));
    }
    char text[TIMESTAMP_SIZE];
    uint64_t now_us = clock_mono_us();
    uint64_t age_ms = now_us > status->heard_us ? (now_us - status->heard_us) / 1000 : 0;
    bool is_heard = status->heard_us != 0;
    bool has_lag = metrics_sum(routes->metrics, METRIC_BUS_APPLIED, index) > 0;
    json_object_set_new(json, "last_seen", is_heard ? json_string(entry_timestamp(clock_wall_ms() - age_ms, text)) : json_null());
    json_object_set_new(json, "last_seen_age_ms", is_heard ? json_integer((json_int_t)age_ms) : json_null());
    json_object_set_new(json, "lag_ms", has_lag ? json_integer((json_int_t)status->lag_ms) : json_null());
    json_object_set_new(json, "backlog", is_heard ? json_integer((json_int_t)status->backlog) : json_null());
}

static json_t *strong_json(struct strong *strong, uint32_t index)
{
    static const char *const modes[] = {[STRONG_OUT] = "out", [STRONG_TAKING] = "taking", [STRONG_WAITING] = "waiting", [STRONG_READY] = "ready"};
    struct strong_status status;
    strong_region_status(strong, index, &status);
    json_t *json = json_pack("{s:s,s:I,s:b,s:b,s:b}", "lease", status.is_heard ? modes[status.mode] : "unknown", "number", (json_int_t)status.number,
                             "is_suspended", status.is_suspended, "is_connected", status.is_connected, "is_vote", status.is_vote);
    json_object_set_new(json, "problem", status.problem[0] != '\0' ? json_string(status.problem) : json_null());
    return json;
}

/* Voters that are no regions. */
static json_t *witnesses_json(struct strong *strong, const struct config *config)
{
    json_t *witnesses = json_array();
    for (uint32_t i = 0; i < config->strong->witness_count; i++) {
        struct strong_status status;
        strong_region_status(strong, 1 + config->bus->peer_count + i, &status);
        json_t *json = json_pack("{s:s,s:b,s:b}", "name", config->strong->witnesses[i].region, "is_connected", status.is_connected, "is_vote", status.is_vote);
        json_object_set_new(json, "problem", status.problem[0] != '\0' ? json_string(status.problem) : json_null());
        json_array_append_new(witnesses, json);
    }
    return witnesses;
}

static json_t *region_json(const struct routes *routes, const char *name, uint32_t index)
{
    struct bus_region_status status = {.problem = ""};
    bool is_own = index == 0;
    bool has_bus = routes->view->bus != NULL;
    bool is_connected = has_bus && metrics_sum(routes->metrics, METRIC_BUS_CONNECTED, index) > 0;
    json_t *json = json_pack("{s:s,s:b,s:b}", "region", name, "is_own", is_own, "is_connected", is_connected);
    if (has_bus) {
        bus_region_status(routes->view->bus, index, &status);
    }
    json_object_set_new(json, "problem", status.problem[0] != '\0' ? json_string(status.problem) : json_null());
    if (routes->view->strong != NULL) {
        json_object_set_new(json, "strong", strong_json(routes->view->strong, index));
    }
    if (is_own) {
        json_object_set_new(json, "published", json_integer((json_int_t)metrics_sum(routes->metrics, METRIC_BUS_PUBLISHED, 0)));
        json_object_set_new(json, "publish_failed", json_integer((json_int_t)metrics_sum(routes->metrics, METRIC_BUS_PUBLISH_FAILED, 0)));
    } else {
        add_peer(routes, json, &status, index);
    }
    return json;
}

void report_regions(const struct routes *routes, const struct http_request *request, struct http_response *response)
{
    if (routes->view == NULL) {
        http_response_error(response, 503, "unavailable", "there are no regions to look at");
        return;
    }
    const struct config *config = routes->view->config;
    json_t *regions = json_array();
    json_array_append_new(regions, region_json(routes, config->region, 0));
    for (uint32_t i = 0; config->bus != NULL && i < config->bus->peer_count; i++) {
        json_array_append_new(regions, region_json(routes, config->bus->peers[i].region, i + 1));
    }
    json_t *json = json_pack("{s:b,s:o}", "has_bus", config->bus != NULL, "regions", regions);
    if (routes->view->strong != NULL) {
        json_object_set_new(json, "witnesses", witnesses_json(routes->view->strong, config));
    }
    dump(json, response);
}
