/* What:    takes out of the pool what rules hide, and retires rules that hide nothing any more.
 * Owns:    its thread and its connections to the nodes, which are no worker's.
 * Threads: made and ended on the main thread; sweep_stop() joins.
 * Fails:   a node that can not be swept keeps every rule in force; it is tried again.
 *
 *   each pass, on the one sidecar of the region that is elected (without a bus: on this one), for each node in turn:
 *     lru_crawler metadump ──▶ entries that are older than a rule that covers them ──▶ md K C<cas>, on a second connection
 *   a rule is retired after a pass over all nodes that began when the rule was old enough, and found no entry of it
 *
 * Old enough is older than any tombstone lasts: by then no load that began before the rule is under way, and no replica lags behind it. A crawler
 * may miss entries that are in use just then; those that are in use are found by who uses them. What has no version (another client's entries, an
 * old pool's) is as old as can be for a rule: it is removed, but does not keep a rule in force after two passes.
 */
#ifndef PROXY_CACHE_SWEEP_H
#define PROXY_CACHE_SWEEP_H

#include "proxy/cache/rules.h"

struct sweep;

enum err sweep_create(const struct config *config, struct log *log, struct metrics *metrics, struct rules *rules, struct sweep **out);
void sweep_stop(struct sweep **sweep);

#endif
