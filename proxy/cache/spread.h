/* What:    gives every worker the index of the rules in force, and says when all have it.
 * Owns:    the index that is in force and the one on its way; the one before is freed once no worker has it any more.
 * Threads: the one of the rules, which drains `mailbox`; before it runs, the main thread.
 * Fails:   never.
 */
#ifndef PROXY_CACHE_SPREAD_H
#define PROXY_CACHE_SPREAD_H

#include "proxy/cache/cache.h"

#define SPREAD_SLACK_MS 20 /* what a rule may lie ahead of the clock that is moved past it, the skew apart */

struct spread_reader;

struct spread {
    struct mailbox *mailbox;
    void (*on_sent)(void *ctx); /* all workers have it; from within spread_send() if there are none */
    void *ctx;
    bool is_sending; /* one at a time */
    uint64_t newest; /* of the rules that were sent: the workers' clocks have moved past it */
    uint64_t newest_us; /* when that was */

    struct glob_index *index;
    struct glob_index *next; /* on its way */
    uint32_t unsent; /* workers that have not confirmed */
    uint32_t reader_count;
    struct spread_reader *readers;
};

void spread_init(struct spread *spread, uint32_t workers_max, struct mailbox *mailbox, void (*on_sent)(void *ctx), void *ctx);
void spread_deinit(struct spread *spread);
void spread_add_worker(struct spread *spread, struct cache *cache);

/* Takes the index over; NULL: no rules. None is being sent. */
void spread_send(struct spread *spread, struct glob_index *index);

#endif
