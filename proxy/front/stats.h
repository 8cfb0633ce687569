/* What:    the answers to stats, in memcached's form, from this sidecar's own metrics.
 * Owns:    nothing.
 * Threads: its worker's; the sums are as of now, over all workers.
 *
 *   stats                       stats.c        memcached's own counters, as far as one that holds nothing has them
 *   stats settings              stats.c
 *   stats detail on|off|dump    stats.c        by namespace, whether on or off
 *   stats outrigger, pool       stats_pool.c   what there is behind: namespaces, nodes, bus, database
 *   stats conns                 stats_conns.c  visits all workers
 *   stats reset                 stats.c        what `stats` shows begins at zero again; metrics do not, as Prometheus wants it
 */
#ifndef PROXY_FRONT_STATS_H
#define PROXY_FRONT_STATS_H

#include "proxy/front/session.h"

/* Ends the operation, at once or (stats conns) as an exclusive one later. What stood behind stats is its key. */
void stats_start(struct front *front, struct operation *op);

/* What a reply is counted as. */
extern const uint8_t stats_reply_results[REPLY_STATUS_COUNT];

static inline void stats_count_reply(struct metrics_shard *shard, enum command command, enum reply_status status)
{
    metrics_add(shard, METRIC_REPLIES, metric_index2(command, REPLY_RESULTS, stats_reply_results[status]), 1);
}

/* For the parts: a line, without its end; returns how many bytes that made. */
int stats_line(FILE *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void stats_outrigger(struct front *front, FILE *out);
void stats_pool(struct front *front, FILE *out);
void stats_conns_start(struct front *front, struct operation *op);

#endif
