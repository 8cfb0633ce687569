/* What:    what the rules are made of, for the files that make it: rules.c (requests, the table, the thread), rules_watch.c (what the bus tells).
 * Owns:    see rules.h.
 * Threads: see rules.h; what follows "The thread's." is that of the rules alone, and so are the functions but rules_post().
 */
#ifndef PROXY_CACHE_RULES_PARTS_H
#define PROXY_CACHE_RULES_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "common/gate.h"
#include "proxy/cache/rules.h"
#include "proxy/cache/spread.h"

#define RULES_CATCHING_UP_MAX 16

struct rules {
    const struct config *config;
    struct log *log;
    struct metrics_shard *metrics;
    struct bus *bus;       /* or NULL */
    struct strong *strong; /* or NULL */
    void (*on_digest)(void *ctx); /* or NULL */
    void *digest_ctx;
    struct mailbox mailbox;
    pthread_t thread;
    bool has_thread;
    struct gate gate;         /* closed: nothing is taken any more */
    _Atomic bool is_ending;   /* the thread is to end */
    _Atomic bool is_known;    /* to all workers */
    _Atomic uint32_t count;   /* of the rules */
    _Atomic uint64_t lost_us; /* since when the watch is away; 0: it is not */
    _Atomic uint64_t digest;  /* of what all workers have; 0: not known */

    pthread_mutex_t table_lock; /* the thread writes, admin reads */
    struct rule_table table;

    /* The thread's. */
    struct version_clock clock;
    struct spread spread;
    uint64_t change;  /* counts changes of the table */
    uint64_t listing; /* counts listings */
    bool is_listed;   /* the record of the region is known */
    uint64_t sent_change; /* what was sent to the workers last: */
    uint64_t sent_digest;
    bool sent_is_listed;
    struct list waiting;     /* requests whose change is not in force yet, oldest first */
    struct list catching_up; /* struct rules_catch_up */
    uint32_t catching_up_count;
};

/* False: nothing is taken any more. */
bool rules_post(struct rules *rules, struct mail *mail);

void rules_finish(struct rules_request *request, enum err err, const char *what);
/* Into the region's record, and on from there. */
void rules_record(struct rules *rules, struct rules_request *request);
void rules_record_in_background(struct rules *rules, const struct invalidation *event, const char *region, bool is_removal);

struct rule *rules_put(struct rules *rules, const struct invalidation *event, const char *region);
void rules_remove(struct rules *rules, struct rule *rule);
/* What has changed goes to the workers, now or when they have what was sent before. */
void rules_send_index(struct rules *rules);

/* A version for a rule of now; the given one, or more if something may have been stored with a newer one already. */
uint64_t rules_version_now(struct rules *rules);
uint64_t rules_version_above(const struct rules *rules, uint64_t version);

/* rules_watch.c: all workers have what was sent; the end. */
void rules_catch_up_on_sent(struct rules *rules);
void rules_catch_up_stop(struct rules *rules);

#endif
