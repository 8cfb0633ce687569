/* What:    the rules that hold, by their patterns: of each pattern the newest.
 * Owns:    its rules.
 * Threads: one at a time.
 * Fails:   rule_table_put() with ERR_OVERLOAD when there are too many.
 */
#ifndef PROXY_CACHE_RULE_TABLE_H
#define PROXY_CACHE_RULE_TABLE_H

#include "common/glob_index.h"
#include "proxy/bus/bus.h"

#define RULE_BUCKETS 16384

struct rule {
    struct rule *next; /* in its bucket */
    uint64_t hash;
    uint64_t listing; /* the last listing that it was in */
    uint32_t passes;  /* of the sweep, complete ones */
    bool is_strong;   /* concerns a strong namespace; whoever puts it says so */
    char region[REGION_MAX];
    struct invalidation event;
};

struct rule_table {
    struct rule *buckets[RULE_BUCKETS];
    uint32_t count;
    uint32_t others; /* of those that the index takes only few of */
};

struct rule *rule_table_find(struct rule_table *table, struct span pattern);
struct rule *rule_table_find_version(struct rule_table *table, uint64_t hash, uint64_t version);
/* Whether there is room for a rule with this pattern. */
bool rule_table_has_room(struct rule_table *table, struct span pattern);
/* Adds a rule, or moves the one with this pattern forward; never back. *out: what holds now. */
enum err rule_table_put(struct rule_table *table, const struct invalidation *event, const char *region, struct rule **out);
void rule_table_remove(struct rule_table *table, struct rule *rule);
void rule_table_clear(struct rule_table *table);
/* A rule as the sweep sees it. */
struct rule_state {
    uint64_t hash;
    uint64_t version;
    uint32_t passes; /* complete ones, before this one */
    bool is_dirty;   /* the sweep's: an entry was found */
    bool is_retired; /* the sweep's verdict */
};
/* All of them; there is room for table->count. */
void rule_table_list(const struct rule_table *table, struct rule_state *states, uint32_t *count);
/* {"rules":[{"pattern", "version", "region", "timestamp"}, …]}; bytes that are no printable ASCII, and '%', as %XX. */
void rule_table_write(const struct rule_table *table, FILE *out);
/* Of those that are strong: the same for the same patterns and versions in any order, and never 0. */
uint64_t rule_table_digest(const struct rule_table *table);
/* The index of them all. */
enum err rule_table_index(const struct rule_table *table, struct glob_index **out);

#endif
