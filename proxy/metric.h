/* What:    the sidecar's metric families (metrics.def) as an enum, and the registry made from them.
 * Owns:    struct metric_registry owns the registry and its label tables.
 * Threads: see common/metrics.h.
 */
#ifndef PROXY_METRIC_H
#define PROXY_METRIC_H

#include "common/config.h"
#include "common/metrics.h"

enum metric {
#define X(name, exported, type, dim1, dim2, help) METRIC_##name,
#include "proxy/metrics.def"
#undef X
    METRIC_COUNT
};

enum load_result { LOAD_FOUND, LOAD_ABSENT, LOAD_FAILED, LOAD_RESULTS };
enum query_result { QUERY_OK, QUERY_FAILED, QUERY_RESULTS };
enum reply_result {
    RESULT_HIT,
    RESULT_MISS,
    RESULT_STORED,
    RESULT_NOT_STORED,
    RESULT_EXISTS,
    RESULT_NOT_FOUND,
    RESULT_DELETED,
    RESULT_TOUCHED,
    RESULT_NUMBER,
    RESULT_OK,
    RESULT_TOO_LARGE,
    RESULT_NO_MEMORY,
    RESULT_REFUSED, /* the client's fault */
    RESULT_ERROR,
    REPLY_RESULTS
};
enum auth_result { AUTH_GRANTED, AUTH_DENIED, AUTH_MALFORMED, AUTH_RESULTS };

/* See proxy/database/write.h. */
enum write_outcome {
    WRITE_APPLIED,
    WRITE_NOT_STORED,  /* add: there is one; replace, append, prepend: there is none */
    WRITE_EXISTS,      /* the row's version is not `cas` */
    WRITE_NOT_FOUND,   /* cas, incr, decr, delete, touch: there is none */
    WRITE_NON_NUMERIC, /* incr, decr */
    WRITE_TOO_LARGE,
    WRITE_REFUSED,  /* the mapping has no place for it: `error` says why, and the same will be refused again */
    WRITE_FAILED,   /* `err` and `error` say why; nothing was committed, and nothing will be */
    WRITE_IN_DOUBT, /* it was sent, and nobody knows what came of it. It may still be committed for a while: see writer.h */
    WRITE_OUTCOMES,
};

enum lock_status { LOCK_GRANTED, LOCK_BUSY, LOCK_NO_SHARE, LOCK_REFUSED, LOCK_NODE, LOCK_STALE, LOCK_NOT_STRONG, LOCK_STATUSES }; /* as enum message_status of strong/message.h */
enum host_kind { HOST_PRIMARY, HOST_REPLICA, HOSTS };
enum replica_refusal { REFUSED_STALE, REFUSED_OLDER, REFUSED_FAILED, REFUSALS };
enum error_source { SOURCE_CLIENT, SOURCE_NODE, SOURCE_DATABASE, SOURCE_BUS, SOURCE_CLOCK, SOURCES };

enum handshake_result {
    HANDSHAKE_FULL,
    HANDSHAKE_RESUMED,
    HANDSHAKE_TIMEOUT,
    HANDSHAKE_CLOSED,      /* the client went away meanwhile, or without having said a word */
    HANDSHAKE_NOT_TLS,
    HANDSHAKE_CERTIFICATE, /* the client's is missing, or not good */
    HANDSHAKE_FAILED,
    HANDSHAKE_RESULTS
};
enum reload_result { RELOAD_DONE, RELOAD_REFUSED, RELOAD_RESULTS };

struct metric_registry;

/* Labels come from the configuration: namespaces by name, nodes by address; PEER 0 is the own region, then bus.peers in their order;
 * `commands` are the names of the client commands, in the order of their enum. The configuration must outlive the registry. */
struct metric_registry *metric_registry_create(const struct config *config, const char *const *commands, uint32_t command_count);
void metric_registry_destroy(struct metric_registry **registry);
struct metrics *metric_registry_metrics(struct metric_registry *registry);

/* Index of a series with two labels: the second dimension's size matters. */
static inline uint32_t metric_index2(uint32_t i1, uint32_t n2, uint32_t i2)
{
    return i1 * n2 + i2;
}

#endif
