#include "proxy/metric.h"

#include "common/base.h"
#include "common/err.h"

enum dim { DIM_NONE = -1, DIM_COMMAND, DIM_NAMESPACE, DIM_NODE, DIM_PEER, DIM_LOAD_RESULT, DIM_QUERY_RESULT, DIM_REPLY_RESULT, DIM_AUTH_RESULT, DIM_HOST, DIM_REFUSAL, DIM_WRITE_OUTCOME, DIM_ERROR, DIM_SOURCE, DIM_HANDSHAKE, DIM_RELOAD, DIM_LOCK_STATUS, DIMS };

static const struct metric_def defs[METRIC_COUNT] = {
#define X(name, exported, type, dim1, dim2, help) {exported, help, METRIC_##type, {DIM_##dim1, DIM_##dim2}},
#include "proxy/metrics.def"
#undef X
};

static const char *const load_results[LOAD_RESULTS] = {
    [LOAD_FOUND] = "found",
    [LOAD_ABSENT] = "absent",
    [LOAD_FAILED] = "failed",
};

static const char *const query_results[QUERY_RESULTS] = {
    [QUERY_OK] = "ok",
    [QUERY_FAILED] = "failed",
};

static const char *const reply_results[REPLY_RESULTS] = {
    [RESULT_HIT] = "hit",
    [RESULT_MISS] = "miss",
    [RESULT_STORED] = "stored",
    [RESULT_NOT_STORED] = "not_stored",
    [RESULT_EXISTS] = "exists",
    [RESULT_NOT_FOUND] = "not_found",
    [RESULT_DELETED] = "deleted",
    [RESULT_TOUCHED] = "touched",
    [RESULT_NUMBER] = "number",
    [RESULT_OK] = "ok",
    [RESULT_TOO_LARGE] = "too_large",
    [RESULT_NO_MEMORY] = "no_memory",
    [RESULT_REFUSED] = "refused",
    [RESULT_ERROR] = "error",
};

static const char *const auth_results[AUTH_RESULTS] = {
    [AUTH_GRANTED] = "granted",
    [AUTH_DENIED] = "denied",
    [AUTH_MALFORMED] = "malformed",
};

static const char *const write_outcomes[WRITE_OUTCOMES] = {
    [WRITE_APPLIED] = "applied",
    [WRITE_NOT_STORED] = "not_stored",
    [WRITE_EXISTS] = "exists",
    [WRITE_NOT_FOUND] = "not_found",
    [WRITE_NON_NUMERIC] = "non_numeric",
    [WRITE_TOO_LARGE] = "too_large",
    [WRITE_REFUSED] = "refused",
    [WRITE_FAILED] = "failed",
    [WRITE_IN_DOUBT] = "in_doubt",
};

static const char *const hosts[HOSTS] = {
    [HOST_PRIMARY] = "primary",
    [HOST_REPLICA] = "replica",
};

static const char *const refusals[REFUSALS] = {
    [REFUSED_STALE] = "stale",
    [REFUSED_OLDER] = "older",
    [REFUSED_FAILED] = "failed",
};

static const char *const sources[SOURCES] = {
    [SOURCE_CLIENT] = "client",
    [SOURCE_NODE] = "node",
    [SOURCE_DATABASE] = "database",
    [SOURCE_BUS] = "bus",
    [SOURCE_CLOCK] = "clock",
};

static const char *const handshakes[HANDSHAKE_RESULTS] = {
    [HANDSHAKE_FULL] = "full",
    [HANDSHAKE_RESUMED] = "resumed",
    [HANDSHAKE_TIMEOUT] = "timeout",
    [HANDSHAKE_CLOSED] = "closed",
    [HANDSHAKE_NOT_TLS] = "not_tls",
    [HANDSHAKE_CERTIFICATE] = "certificate",
    [HANDSHAKE_FAILED] = "failed",
};

static const char *const reloads[RELOAD_RESULTS] = {
    [RELOAD_DONE] = "done",
    [RELOAD_REFUSED] = "refused",
};

static const char *const lock_statuses[LOCK_STATUSES] = {
    [LOCK_GRANTED] = "ok",
    [LOCK_BUSY] = "busy",
    [LOCK_NO_SHARE] = "no_share",
    [LOCK_REFUSED] = "refused",
    [LOCK_NODE] = "node",
    [LOCK_STALE] = "stale",
    [LOCK_NOT_STRONG] = "not_strong",
};

static const char *const errors[ERR_COUNT] = {
#define X(name, label, text) [name] = label,
#include "common/err.def"
#undef X
};

struct metric_registry {
    struct metrics *metrics;
    struct metric_dim dims[DIMS];
    const char **namespaces; /* the arrays are ours, the strings the configuration's */
    const char **nodes;
    const char **peers;
};

struct metric_registry *metric_registry_create(const struct config *config, const char *const *commands, uint32_t command_count)
{
    struct metric_registry *r = xcalloc(1, sizeof *r);
    r->namespaces = xcalloc(config->namespace_count + 1, sizeof *r->namespaces);
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        r->namespaces[i] = config->namespaces[i].name;
    }
    r->nodes = xcalloc(config->pool.node_count + 1, sizeof *r->nodes);
    for (uint32_t i = 0; i < config->pool.node_count; i++) {
        r->nodes[i] = config->pool.nodes[i].address.text;
    }
    uint32_t peer_count = 1 + (config->bus != NULL ? config->bus->peer_count : 0);
    r->peers = xcalloc(peer_count, sizeof *r->peers);
    r->peers[0] = config->region != NULL ? config->region : "";
    for (uint32_t i = 1; i < peer_count; i++) {
        r->peers[i] = config->bus->peers[i - 1].region;
    }
    r->dims[DIM_COMMAND] = (struct metric_dim){"command", commands, command_count};
    r->dims[DIM_NAMESPACE] = (struct metric_dim){"namespace", r->namespaces, config->namespace_count};
    r->dims[DIM_NODE] = (struct metric_dim){"node", r->nodes, config->pool.node_count};
    /* Not "region": targets often carry that label already. */
    r->dims[DIM_PEER] = (struct metric_dim){"peer", r->peers, peer_count};
    r->dims[DIM_LOAD_RESULT] = (struct metric_dim){"result", load_results, LOAD_RESULTS};
    r->dims[DIM_QUERY_RESULT] = (struct metric_dim){"result", query_results, QUERY_RESULTS};
    r->dims[DIM_REPLY_RESULT] = (struct metric_dim){"result", reply_results, REPLY_RESULTS};
    r->dims[DIM_AUTH_RESULT] = (struct metric_dim){"result", auth_results, AUTH_RESULTS};
    r->dims[DIM_WRITE_OUTCOME] = (struct metric_dim){"result", write_outcomes, WRITE_OUTCOMES};
    r->dims[DIM_HOST] = (struct metric_dim){"host", hosts, HOSTS};
    r->dims[DIM_REFUSAL] = (struct metric_dim){"reason", refusals, REFUSALS};
    r->dims[DIM_ERROR] = (struct metric_dim){"error", errors, ERR_COUNT};
    r->dims[DIM_SOURCE] = (struct metric_dim){"source", sources, SOURCES};
    r->dims[DIM_HANDSHAKE] = (struct metric_dim){"result", handshakes, HANDSHAKE_RESULTS};
    r->dims[DIM_RELOAD] = (struct metric_dim){"result", reloads, RELOAD_RESULTS};
    r->dims[DIM_LOCK_STATUS] = (struct metric_dim){"result", lock_statuses, LOCK_STATUSES};
    r->metrics = metrics_create(defs, METRIC_COUNT, r->dims, DIMS);
    return r;
}

void metric_registry_destroy(struct metric_registry **registry)
{
    struct metric_registry *r = *registry;
    *registry = NULL;
    if (r == NULL) {
        return;
    }
    metrics_destroy(&r->metrics);
    free(r->namespaces);
    free(r->nodes);
    free(r->peers);
    free(r);
}

struct metrics *metric_registry_metrics(struct metric_registry *registry)
{
    return registry->metrics;
}
