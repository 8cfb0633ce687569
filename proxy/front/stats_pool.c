#include <inttypes.h>

#include "proxy/front/stats.h"

/* Everything here counts from the last `stats reset`, but for what is a state. */

static uint64_t since(struct front *front, enum metric metric, uint32_t index)
{
    return metrics_since(front->baseline, metric, index);
}

/* ---- stats outrigger ---- */

static void namespace_lines(struct front *front, uint32_t index, FILE *out)
{
    static const struct {
        const char *name;
        enum metric metric;
    } lines[] = {
        {"hits", METRIC_HITS},
        {"misses", METRIC_MISSES},
        {"negative_hits", METRIC_NEGATIVE_HITS},
        {"lease_wins", METRIC_LEASE_WINS},
        {"lease_waits", METRIC_LEASE_WAITS},
        {"lease_timeouts", METRIC_LEASE_TIMEOUTS},
        {"fills", METRIC_FILLS},
        {"fills_refused", METRIC_FILLS_REFUSED},
        {"tombstones", METRIC_TOMBSTONES},
    };
    static const char *const loads[LOAD_RESULTS] = {[LOAD_FOUND] = "found", [LOAD_ABSENT] = "absent", [LOAD_FAILED] = "failed"};
    uint32_t namespaces = front->config->namespace_count;
    const char *name = front->config->namespaces[index].name;
    uint64_t requests = 0;
    for (uint32_t i = 0; i < COMMAND_COUNT; i++) {
        requests += since(front, METRIC_REQUESTS, metric_index2(i, namespaces, index));
    }
    stats_line(out, "namespace:%s:requests %" PRIu64, name, requests);
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        stats_line(out, "namespace:%s:%s %" PRIu64, name, lines[i].name, since(front, lines[i].metric, index));
    }
    for (uint32_t i = 0; i < LOAD_RESULTS; i++) {
        stats_line(out, "namespace:%s:loads_%s %" PRIu64, name, loads[i], since(front, METRIC_LOADS, metric_index2(index, LOAD_RESULTS, i)));
    }
}

static void bus_lines(struct front *front, FILE *out)
{
    const struct config_bus *bus = front->config->bus;
    stats_line(out, "bus:published %" PRIu64, since(front, METRIC_BUS_PUBLISHED, 0));
    stats_line(out, "bus:publish_failed %" PRIu64, since(front, METRIC_BUS_PUBLISH_FAILED, 0));
    stats_line(out, "bus:%s:connected %" PRIu64, front->config->region, metrics_sum(front->metrics, METRIC_BUS_CONNECTED, 0));
    for (uint32_t i = 1; i <= bus->peer_count; i++) {
        const char *region = bus->peers[i - 1].region;
        stats_line(out, "bus:%s:connected %" PRIu64, region, metrics_sum(front->metrics, METRIC_BUS_CONNECTED, i));
        stats_line(out, "bus:%s:received %" PRIu64, region, since(front, METRIC_BUS_RECEIVED, i));
        stats_line(out, "bus:%s:applied %" PRIu64, region, since(front, METRIC_BUS_APPLIED, i));
        stats_line(out, "bus:%s:failed %" PRIu64, region, since(front, METRIC_BUS_FAILED, i));
    }
}

void stats_outrigger(struct front *front, FILE *out)
{
    stats_line(out, "region %s", front->config->region);
    for (uint32_t i = 0; i < front->config->namespace_count; i++) {
        namespace_lines(front, i, out);
    }
    if (front->config->bus != NULL) {
        bus_lines(front, out);
    }
    if (front->config->database != NULL) {
        stats_line(out, "database:connections %" PRIu64, metrics_sum(front->metrics, METRIC_DATABASE_CONNECTIONS, 0));
        stats_line(out, "database:queue %" PRIu64, metrics_sum(front->metrics, METRIC_DATABASE_QUEUE, 0));
        stats_line(out, "database:connects %" PRIu64, since(front, METRIC_DATABASE_RECONNECTS, 0));
    }
}

/* ---- stats pool ---- */

/* Mean µs of a node's answers since the start: a histogram is not reset. */
static uint64_t mean_us(struct metrics *metrics, uint32_t node)
{
    uint64_t count = metrics_histogram_count(metrics, METRIC_NODE_SECONDS, node);
    return count == 0 ? 0 : metrics_histogram_sum_us(metrics, METRIC_NODE_SECONDS, node) / count;
}

void stats_pool(struct front *front, FILE *out)
{
    const struct config *config = front->config;
    const struct pool *pool = &front->cache->pool;
    uint64_t wanted = (uint64_t)config->threads * config->pool.connections;
    stats_line(out, "nodes %u", pool->count);
    for (uint32_t i = 0; i < pool->count; i++) {
        uint64_t up = metrics_sum(front->metrics, METRIC_NODE_UP, i);
        uint64_t errors = 0;
        for (uint32_t k = 0; k < ERR_COUNT; k++) {
            errors += since(front, METRIC_NODE_ERRORS, metric_index2(i, ERR_COUNT, k));
        }
        const char *version = node_version(pool->nodes[i]);
        stats_line(out, "node:%u:address %s", i, node_name(pool->nodes[i]));
        stats_line(out, "node:%u:weight %u", i, config->pool.nodes[i].weight);
        stats_line(out, "node:%u:state %s", i, up == 0 ? "down" : up < wanted ? "degraded" : "up");
        stats_line(out, "node:%u:version %s", i, version[0] == '\0' ? "unknown" : version);
        stats_line(out, "node:%u:connections %" PRIu64, i, up);
        stats_line(out, "node:%u:connections_wanted %" PRIu64, i, wanted);
        stats_line(out, "node:%u:connects %" PRIu64, i, since(front, METRIC_NODE_CONNECTS, i));
        stats_line(out, "node:%u:requests %" PRIu64, i, since(front, METRIC_NODE_REQUESTS, i));
        stats_line(out, "node:%u:errors %" PRIu64, i, errors);
        stats_line(out, "node:%u:mean_us %" PRIu64, i, mean_us(front->metrics, i));
    }
}
