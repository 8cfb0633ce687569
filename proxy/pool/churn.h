/* What:    looks for nodes that lose tombstones before their time: flush_all, by whomever, and evictions of entries that are not old yet. Such a
 *          node is as good as a new one, and its keys are loaded from the primary for a while (node_is_young(), design §3).
 * Owns:    a timer and a call for each node.
 * Threads: its loop's.
 * Fails:   a node that does not answer is looked at again later. What happens between two looks is seen CHURN_LOOK_MS late.
 *
 *   stats        cmd_flush, evictions: have they grown?
 *   stats items  if so, evicted_time: how long ago was what was evicted last used?
 */
#ifndef PROXY_POOL_CHURN_H
#define PROXY_POOL_CHURN_H

#include "proxy/pool/pool.h"

#define CHURN_LOOK_MS 1000

struct churn;

/* `age_s`: entries younger than this must not be evicted. */
struct churn *churn_create(struct pool *pool, struct loop *loop, struct log *log, uint32_t age_s);
void churn_destroy(struct churn **churn); /* after pool_deinit() */

#endif
