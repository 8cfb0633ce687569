/* What:    invalidations by pattern: takes them in, has them recorded in the region and told to the others, and gives every worker the index of
 *          those in force.
 * Owns:    its thread, the table of rules and the indexes made of it. Requests are lent to it from rules_submit() until on_done.
 * Threads: rules_submit(), rules_apply(), rules_on_rule(), rules_on_watch() and the questions from any thread; the rest on the main thread.
 * Fails:   a request ends with ERR_INVALID (no pattern), ERR_OVERLOAD (too many rules), or the bus's errors; its text says what holds and what not.
 *
 *   request ──▶ RECORD in the region's bucket ──▶ SPREAD to the workers ──▶ PUBLISH to the other regions ──▶ on_done
 *                    │                                                        └── concerns a strong namespace ──▶ CONFIRM (proxy/strong) ──▶ on_done
 *                    └── can not be recorded, with a spool ──▶ SPREAD ──▶ the spool owes it to the record and to the other regions ──▶ on_done
 *                                                                         (to a strong namespace that is an error: nobody else knows of it yet)
 *   a rule of another region: the same, without PUBLISH, then delivery_done()
 *   a rule that another sidecar has recorded: SPREAD
 *
 * Without a bus a rule is this process's alone. An index is immutable: a new one is made for all rules that have come meanwhile, sent to every
 * worker's mailbox, and in force once all have it; only then is the one before freed, and the next one made.
 */
#ifndef PROXY_CACHE_RULES_H
#define PROXY_CACHE_RULES_H

#include "proxy/cache/cache.h"
#include "proxy/cache/rule_table.h"
#include "proxy/strong/strong.h"

#define RULES_TEXT (STRONG_TEXT + 100)

struct rules_request {
    struct mailbox *reply_to; /* on_done runs where this is drained; NULL: on the thread of the rules */
    void (*on_done)(struct rules_request *request);
    uint16_t pattern_len;
    char pattern[GLOB_MAX];

    enum err err; /* the result */
    uint64_t version;
    bool is_owed; /* OK, but as yet in force in this sidecar only: the bus is away, the spool has it for everybody else */
    char text[RULES_TEXT]; /* what went wrong, "" if nothing did */

    struct mail mail; /* from here on the rules' */
    struct list link;
    struct record record;
    struct publication publication;
    struct strong_confirmation confirmation;
    struct delivery *delivery; /* of another region's rule, else NULL */
    struct rules *rules;
    uint64_t change; /* in force once this change of the table is */
};

struct rules;

enum err rules_create(const struct config *config, struct log *log, struct metrics *metrics, uint32_t clock_id, struct rules **out);
/* Before rules_start(): this worker is given every index. */
void rules_add_worker(struct rules *rules, struct cache *cache);
enum err rules_start(struct rules *rules, struct bus *bus); /* or NULL */
/* Before rules_start(), both. Without a `struct strong` rules are not confirmed. The hook runs on the thread of the rules, after the digest has changed. */
void rules_set_strong(struct rules *rules, struct strong *strong);
void rules_set_on_digest(struct rules *rules, void (*on_digest)(void *ctx), void *ctx);
/* In two steps, as the bus is stopped: after strong, the bus and the workers' threads have stopped, and after the workers are destroyed. */
void rules_stop(struct rules *rules);
void rules_destroy(struct rules **rules);

void rules_submit(struct rules *rules, struct rules_request *request);
/* A rule of another region, or one that somebody has recorded: what a bus_sink is told. */
void rules_apply(struct rules *rules, struct delivery *delivery);
void rules_on_rule(struct rules *rules, const struct rule_event *event);
void rules_on_watch(struct rules *rules, enum rules_watch what);

/* The rules that concern a strong namespace and are in force in all workers: the same for the same rules, whatever their order. 0: the region's
 * rules are not known yet, which is nobody's digest. Any thread.
 *
 * A watch that is lost does not change it: what was in force is so still, and one rule more at the holder makes another digest. */
uint64_t rules_digest(const struct rules *rules);

/* Done once every rule that was in the region's record when this was called is in force in all workers, by what the watch tells: a mark is written
 * into the record, and waited for. A holder that takes over needs it before it serves or gives shares. Lent until on_done, which runs where reply_to
 * is drained. ERR_UNAVAILABLE, ERR_TIMEOUT, …: not known; to be tried again. ERR_OVERLOAD: too many at once. */
struct rules_catch_up {
    struct mailbox *reply_to;
    void (*on_done)(struct rules_catch_up *catch_up);
    void *ctx;
    enum err err;

    struct mail mail; /* the rules' from here on */
    struct list link;
    struct rules *rules;
    struct record record;
    uint64_t listing; /* when it was recorded */
    uint64_t change;  /* when it was seen */
    bool is_recorded;
    bool is_seen;
};
void rules_catch_up(struct rules *rules, struct rules_catch_up *catch_up);

/* For the sweep: whether there are any that this sidecar is to sweep. */
bool rules_are_to_be_swept(const struct rules *rules);
/* All of them, malloc'ed in *states, and an index of them, the caller's; NULL: there are none. Any thread. */
struct glob_index *rules_list(struct rules *rules, struct rule_state **states, uint32_t *count);
/* What a complete pass has found; takes nothing over. */
void rules_swept(struct rules *rules, const struct rule_state *states, uint32_t count);

/* Whether all rules of the region have come to all workers once. */
bool rules_are_known(const struct rules *rules);
/* For /readyz: false while the region's rules are not, or for some time no longer, known. */
bool rules_are_ready(struct rules *rules, char *text, size_t size);
/* The rules in force, as JSON. */
void rules_write(struct rules *rules, FILE *out);

#endif
