#include "proxy/front/stats.h"

#include <inttypes.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/clock.h"

static void stat_u64(FILE *out, const char *name, uint64_t value)
{
    fprintf(out, "STAT %s %" PRIu64 "\r\n", name, value);
}

static void stat_text(FILE *out, const char *name, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fprintf(out, "STAT %s ", name);
    vfprintf(out, fmt, args);
    fputs("\r\n", out);
    va_end(args);
}

static uint64_t sum(struct front *front, enum metric metric, uint32_t count)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        total += metrics_sum(front->metrics, metric, i);
    }
    return total;
}

static uint64_t requests(struct front *front, enum command command)
{
    uint32_t namespaces = front->config->namespace_count;
    uint64_t total = 0;
    for (uint32_t i = 0; i < namespaces; i++) {
        total += metrics_sum(front->metrics, METRIC_REQUESTS, metric_index2(command, namespaces, i));
    }
    return total;
}

static void general(struct front *front, FILE *out)
{
    uint32_t namespaces = front->config->namespace_count;
    uint64_t now_ms = clock_wall_ms();
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    stat_u64(out, "pid", (uint64_t)getpid());
    stat_u64(out, "uptime", (now_ms - front->started_ms) / 1000);
    stat_u64(out, "time", now_ms / 1000);
    stat_text(out, "version", "1.6.38-outrigger-%s", OUTRIGGER_VERSION);
    stat_text(out, "libevent", "%s", event_get_version());
    stat_u64(out, "pointer_size", 8 * sizeof(void *));
    stat_text(out, "rusage_user", "%ld.%06ld", (long)usage.ru_utime.tv_sec, (long)usage.ru_utime.tv_usec);
    stat_text(out, "rusage_system", "%ld.%06ld", (long)usage.ru_stime.tv_sec, (long)usage.ru_stime.tv_usec);
    stat_u64(out, "max_connections", front->config->max_connections);
    stat_u64(out, "curr_connections", sum(front, METRIC_CONNECTIONS, 1));
    stat_u64(out, "total_connections", sum(front, METRIC_CONNECTIONS_TOTAL, 1));
    stat_u64(out, "rejected_connections", sum(front, METRIC_CONNECTIONS_REFUSED, 1));
    stat_u64(out, "cmd_get", requests(front, COMMAND_GET) + requests(front, COMMAND_GETS) + requests(front, COMMAND_GAT) +
                                 requests(front, COMMAND_GATS));
    stat_u64(out, "cmd_set", requests(front, COMMAND_SET) + requests(front, COMMAND_ADD) + requests(front, COMMAND_REPLACE) +
                                 requests(front, COMMAND_APPEND) + requests(front, COMMAND_PREPEND) + requests(front, COMMAND_CAS));
    stat_u64(out, "cmd_delete", requests(front, COMMAND_DELETE));
    stat_u64(out, "cmd_flush", requests(front, COMMAND_FLUSH_ALL));
    stat_u64(out, "cmd_touch", requests(front, COMMAND_TOUCH) + requests(front, COMMAND_GAT) + requests(front, COMMAND_GATS));
    stat_u64(out, "get_hits", sum(front, METRIC_HITS, namespaces));
    stat_u64(out, "get_misses", sum(front, METRIC_MISSES, namespaces) + sum(front, METRIC_NEGATIVE_HITS, namespaces));
    stat_u64(out, "bytes_read", sum(front, METRIC_BYTES_READ, 1));
    stat_u64(out, "bytes_written", sum(front, METRIC_BYTES_WRITTEN, 1));
    stat_u64(out, "accepting_conns", front->is_draining ? 0 : 1);
    stat_u64(out, "threads", front->config->threads);
    stat_text(out, "region", "%s", front->config->region);
}

static void settings(struct front *front, FILE *out)
{
    const struct config *config = front->config;
    stat_u64(out, "maxconns", config->max_connections);
    stat_u64(out, "num_threads", config->threads);
    stat_u64(out, "item_size_max", config->max_value_size);
    stat_u64(out, "idle_timeout", config->idle_timeout_ms / 1000);
    stat_u64(out, "pool_nodes", config->pool.node_count);
    stat_u64(out, "pool_connections", config->pool.connections);
    stat_u64(out, "namespaces", config->namespace_count);
}

char *stats_text(struct front *front, struct span argument, size_t *len)
{
    char *text = NULL;
    FILE *out = open_memstream(&text, len);
    if (out == NULL) {
        return NULL;
    }
    bool is_known = true;
    if (argument.len == 0) {
        general(front, out);
    } else if (span_eq(argument, SPAN_LIT("settings"))) {
        settings(front, out);
    } else {
        /* A sidecar holds no items of its own. */
        is_known = span_eq(argument, SPAN_LIT("items")) || span_eq(argument, SPAN_LIT("slabs")) || span_eq(argument, SPAN_LIT("sizes"));
    }
    fclose(out);
    if (!is_known) {
        free(text);
        return NULL;
    }
    return text;
}
