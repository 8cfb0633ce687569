#include <inttypes.h>
#include <time.h>

#include "common/guard.h"
#include "proxy/cache/freshness.h"
#include "proxy/cache/rules_parts.h"

#define LOST_US 10000000ULL /* the watch may be away for so long before /readyz says so */

bool rules_post(struct rules *rules, struct mail *mail)
{
    return gate_post(&rules->gate, &rules->mailbox, mail);
}

/* --- the end of a request --- */

static void deliver_done(struct mail *mail, void *owner)
{
    struct rules_request *request = container_of(mail, struct rules_request, mail);
    request->on_done(request);
}

void rules_finish(struct rules_request *request, enum err err, const char *what)
{
    request->err = err;
    if (err != OK) {
        snprintf(request->text, sizeof request->text, "%s", what);
    }
    if (request->delivery != NULL) {
        delivery_done(request->delivery, err);
        free(request);
    } else if (request->reply_to != NULL) {
        request->mail.deliver = deliver_done;
        mailbox_post(request->reply_to, &request->mail);
    } else {
        request->on_done(request);
    }
}

static void fail(struct rules_request *request, enum err err, const char *fmt)
{
    char text[RULES_TEXT];
    snprintf(text, sizeof text, fmt, err_text(err));
    rules_finish(request, err, text);
}

/* --- behind SPREAD --- */

static bool is_strong(const struct rules *rules, const struct invalidation *event)
{
    return rules->config->strong != NULL && strong_is_concerned(rules->config, span_of(event->key, event->key_len));
}

static void on_confirmed(struct strong_confirmation *confirmation)
{
    struct rules_request *request = container_of(confirmation, struct rules_request, confirmation);
    const char *why = confirmation->text[0] != '\0' ? confirmation->text : err_text(confirmation->err);
    char text[RULES_TEXT];
    snprintf(text, sizeof text, "in force in this region%s, but not confirmed everywhere: %s; send it again",
             request->rules->bus != NULL ? " and published" : "", why);
    rules_finish(request, confirmation->err, text);
}

/* In force here, and on its way to everybody: that is not enough where nobody may serve what it hides. */
static void confirm(struct rules *rules, struct rules_request *request)
{
    if (rules->strong == NULL || !is_strong(rules, &request->record.event)) {
        rules_finish(request, OK, "");
    } else if (request->is_owed) {
        rules_finish(request, ERR_UNAVAILABLE,
                     "in force in this sidecar, and published once the bus is back; until then others serve what it hides: not confirmed; send it again");
    } else {
        request->confirmation = (struct strong_confirmation){
            .reply_to = &rules->mailbox, .on_done = on_confirmed, .event = request->record.event};
        strong_confirm(rules->strong, &request->confirmation);
    }
}

static void on_published(struct publication *publication)
{
    struct rules_request *request = container_of(publication, struct rules_request, publication);
    if (publication->err != OK) {
        fail(request, publication->err,
             request->is_owed ? "in force in this sidecar only, as the bus is away and the spool has not taken it: %s; send it again"
                              : "in force in this region, but the other regions could not be told: bus: %s; send it again");
        return;
    }
    confirm(request->rules, request);
}

/* In force in this process. */
static void on_spread(struct rules *rules, struct rules_request *request)
{
    if (request->delivery != NULL) {
        rules_finish(request, request->record.err, "");
        return;
    }
    if (rules->bus == NULL) {
        confirm(rules, request);
        return;
    }
    request->publication = (struct publication){
        .reply_to = &rules->mailbox, .on_done = on_published, .event = request->record.event};
    if (request->is_owed) {
        bus_owe(rules->bus, &request->publication, true);
    } else {
        bus_publish(rules->bus, &request->publication);
    }
}

/* --- SPREAD --- */

/* Before anybody is told that a rule is in force: who asks for a share must not be able to do so with a digest without it. */
static void publish_digest(struct rules *rules)
{
    uint64_t digest = atomic_load(&rules->is_known) ? rules->sent_digest : 0;
    if (atomic_exchange(&rules->digest, digest) != digest && rules->on_digest != NULL) {
        rules->on_digest(rules->digest_ctx);
    }
}

static void on_sent(void *ctx)
{
    struct rules *rules = ctx;
    if (rules->sent_is_listed) {
        atomic_store(&rules->is_known, true);
    }
    publish_digest(rules);
    while (!list_is_empty(&rules->waiting)) {
        struct rules_request *request = list_entry(rules->waiting.next, struct rules_request, link);
        if (request->change > rules->sent_change) {
            break;
        }
        list_remove(&request->link);
        on_spread(rules, request);
    }
    rules_catch_up_on_sent(rules);
    rules_send_index(rules);
}

void rules_send_index(struct rules *rules)
{
    bool is_news = rules->sent_change != rules->change || rules->sent_is_listed != rules->is_listed;
    if (rules->spread.is_sending || !is_news) {
        return;
    }
    struct glob_index *index = NULL;
    enum err err = rules->table.count == 0 ? OK : rule_table_index(&rules->table, &index);
    if (err != OK) { /* the table keeps to the index's limits, so this is memory, and there is no going on without the rules */
        log_error(rules->log, "rules: %s", err_text(err));
        abort();
    }
    rules->sent_change = rules->change;
    rules->sent_is_listed = rules->is_listed;
    rules->sent_digest = rule_table_digest(&rules->table);
    metrics_set(rules->metrics, METRIC_RULES, 0, rules->table.count);
    atomic_store(&rules->count, rules->table.count);
    spread_send(&rules->spread, index);
}

/* --- the table --- */

/* What there is no room for is covered by "*" instead: too much is invalidated, never too little. */
struct rule *rules_put(struct rules *rules, const struct invalidation *event, const char *region)
{
    struct rule *rule;
    pthread_mutex_lock(&rules->table_lock);
    if (rule_table_put(&rules->table, event, region, &rule) != OK) {
        struct invalidation all = *event;
        log_warn(rules->log, "rules: there are too many: what matches %.*s is covered by * until some have been retired", event->key_len,
                 event->key);
        all.key[0] = '*';
        all.key_len = 1;
        rule_table_put(&rules->table, &all, region, &rule);
    }
    rule->is_strong = is_strong(rules, &rule->event);
    pthread_mutex_unlock(&rules->table_lock);
    rules->change++;
    return rule;
}

void rules_remove(struct rules *rules, struct rule *rule)
{
    pthread_mutex_lock(&rules->table_lock);
    rule_table_remove(&rules->table, rule);
    pthread_mutex_unlock(&rules->table_lock);
    rules->change++;
}

static void on_background_record(struct record *record)
{
    free(record);
}

void rules_record_in_background(struct rules *rules, const struct invalidation *event, const char *region, bool is_removal)
{
    struct record *record = xcalloc(1, sizeof *record);
    record->reply_to = &rules->mailbox;
    record->on_done = on_background_record;
    record->event = *event;
    record->is_removal = is_removal;
    snprintf(record->region, sizeof record->region, "%s", region);
    bus_record(rules->bus, record);
}

/* --- versions --- */

#define TICKS_PER_MS (1U << VERSION_SEQUENCE_BITS)

/* A rule must be newer than all that was stored before it. Clocks were moved past the rules before it, by up to the skew, and gave out versions
 * from there on; more of them than there are ticks in the time that has passed since is more than any worker can. */
uint64_t rules_version_above(const struct rules *rules, uint64_t version)
{
    uint64_t ticks = (clock_mono_us() - rules->spread.newest_us) * TICKS_PER_MS / 1000 + 16;
    uint64_t limit = version_shift(guard_wall_ms(rules->config) << VERSION_MS_SHIFT, (int64_t)rules->config->max_clock_skew_ms + SPREAD_SLACK_MS);
    return MAX(version, MIN(rules->spread.newest + (ticks << VERSION_ID_BITS), limit));
}

/* The clock of rules ticks in microseconds, for the same reason. */
uint64_t rules_version_now(struct rules *rules)
{
    uint64_t wall_ms = guard_wall_ms(rules->config);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    uint64_t tick = wall_ms * TICKS_PER_MS + (uint64_t)(now.tv_nsec / 1000 % 1000) * TICKS_PER_MS / 1000;
    rules->clock.last = MAX(rules->clock.last, tick);
    return rules_version_above(rules, freshness_rule(version_next(&rules->clock, wall_ms), rules->config->max_clock_skew_ms));
}

/* --- RECORD --- */

static void put_in_force(struct rules *rules, struct rules_request *request)
{
    const struct invalidation *event = &request->record.event;
    struct rule *old = rule_table_find(&rules->table, span_of(event->key, event->key_len));
    if (rules->bus != NULL && request->record.err == OK && old != NULL && old->event.version < event->version) {
        rules_record_in_background(rules, &old->event, old->region, true); /* the new one covers all that it did */
    }
    struct rule *rule = rules_put(rules, event, request->record.region);
    rule->listing = rules->listing;
    request->change = rules->change;
    list_push_back(&rules->waiting, &request->link);
    rules_send_index(rules);
}

static bool is_covered(struct rules *rules, const struct invalidation *event)
{
    const struct rule *rule = rule_table_find(&rules->table, span_of(event->key, event->key_len));
    return rule != NULL && rule->event.version >= event->version;
}

/* What can not be recorded is in force here at once, and the spool sees to it that everybody else hears of it, after a restart, too. */
static void on_recorded(struct record *record)
{
    struct rules_request *request = container_of(record, struct rules_request, record);
    struct rules *rules = request->rules;
    const struct delivery *delivery = request->delivery;
    bool is_ours = delivery == NULL || delivery->peer == PEER_NONE;
    request->is_owed = record->err != OK && is_ours && bus_has_spool(rules->bus);
    if (request->is_owed && delivery != NULL && is_covered(rules, &record->event)) {
        rules_finish(request, record->err, ""); /* tried again by the spool, and in force already */
        return;
    }
    if (record->err != OK && !request->is_owed) {
        fail(request, record->err, "nothing is invalidated: the rule could not be recorded in this region: bus: %s; send it again");
        return;
    }
    put_in_force(rules, request);
}

void rules_record(struct rules *rules, struct rules_request *request)
{
    request->rules = rules;
    if (rules->bus == NULL) {
        put_in_force(rules, request);
        return;
    }
    request->record.reply_to = &rules->mailbox;
    request->record.on_done = on_recorded;
    bus_record(rules->bus, &request->record);
}

static void deliver_request(struct mail *mail, void *owner)
{
    struct rules *rules = owner;
    struct rules_request *request = container_of(mail, struct rules_request, mail);
    struct span pattern = span_of(request->pattern, request->pattern_len);
    char why[RULES_TEXT] = "";
    if (glob_check(pattern, why, sizeof why) != OK) {
        rules_finish(request, ERR_INVALID, why);
        return;
    }
    if (!rule_table_has_room(&rules->table, pattern)) {
        snprintf(why, sizeof why, "there are too many rules: %u of %u, and %u of %u that are no plain prefix; wait for the sweep, or use one prefix for many",
                 rules->table.count, GLOB_INDEX_RULES, rules->table.others, GLOB_INDEX_OTHERS);
        rules_finish(request, ERR_OVERLOAD, why);
        return;
    }
    request->version = rules_version_now(rules);
    request->record = (struct record){
        .event = {.version = request->version, .timestamp_ms = clock_wall_ms(), .key_len = request->pattern_len, .is_pattern = true}};
    memcpy(request->record.event.key, pattern.data, pattern.len);
    snprintf(request->record.region, sizeof request->record.region, "%s", rules->config->region);
    rules_record(rules, request);
}

void rules_submit(struct rules *rules, struct rules_request *request)
{
    request->err = OK;
    request->version = 0;
    request->is_owed = false;
    request->text[0] = '\0';
    request->delivery = NULL;
    list_init(&request->link);
    request->mail.deliver = deliver_request;
    if (!rules_post(rules, &request->mail)) {
        rules_finish(request, ERR_STOPPING, err_text(ERR_STOPPING));
    }
}

/* --- the sweep --- */

bool rules_are_to_be_swept(const struct rules *rules)
{
    return atomic_load(&rules->count) > 0 && rules_are_known(rules) && (rules->bus == NULL || bus_is_sweeper(rules->bus));
}

struct glob_index *rules_list(struct rules *rules, struct rule_state **states, uint32_t *count)
{
    struct glob_index *index = NULL;
    *states = NULL;
    *count = 0;
    pthread_mutex_lock(&rules->table_lock);
    if (rules->table.count > 0 && rule_table_index(&rules->table, &index) == OK) {
        *states = xcalloc(rules->table.count, sizeof **states);
        rule_table_list(&rules->table, *states, count);
    }
    pthread_mutex_unlock(&rules->table_lock);
    return index;
}

struct swept {
    struct mail mail;
    uint32_t count;
    struct rule_state states[];
};

static void deliver_swept(struct mail *mail, void *owner)
{
    struct rules *rules = owner;
    struct swept *swept = container_of(mail, struct swept, mail);
    uint32_t retired = 0;
    for (uint32_t i = 0; i < swept->count; i++) {
        const struct rule_state *state = &swept->states[i];
        struct rule *rule = rule_table_find_version(&rules->table, state->hash, state->version);
        if (rule == NULL) {
            continue; /* a newer one has taken its place meanwhile */
        }
        pthread_mutex_lock(&rules->table_lock);
        rule->passes++;
        pthread_mutex_unlock(&rules->table_lock);
        retired += state->is_retired;
        if (state->is_retired && rules->bus != NULL) {
            rules_record_in_background(rules, &rule->event, rule->region, true); /* the watch then takes it away, here as elsewhere */
        } else if (state->is_retired) {
            rules_remove(rules, rule);
        }
    }
    if (retired > 0) {
        log_info(rules->log, "rules: %u hide nothing any more, and are retired", retired);
    }
    free(swept);
    rules_send_index(rules);
}

void rules_swept(struct rules *rules, const struct rule_state *states, uint32_t count)
{
    struct swept *swept = xmalloc(sizeof *swept + count * sizeof swept->states[0]);
    swept->mail.deliver = deliver_swept;
    swept->count = count;
    memcpy(swept->states, states, count * sizeof states[0]);
    if (!rules_post(rules, &swept->mail)) {
        free(swept);
    }
}

/* --- questions --- */

bool rules_are_known(const struct rules *rules)
{
    return atomic_load(&rules->is_known);
}

uint64_t rules_digest(const struct rules *rules)
{
    return atomic_load(&rules->digest);
}

bool rules_are_ready(struct rules *rules, char *text, size_t size)
{
    uint64_t lost_us = atomic_load(&rules->lost_us);
    uint64_t away_us = lost_us != 0 ? clock_mono_us() - lost_us : 0;
    bool is_known = rules_are_known(rules);
    if (is_known && away_us < LOST_US) {
        return true;
    }
    snprintf(text, size, is_known ? "not watched for %" PRIu64 " s: rules of others may be missing" : "not known yet: rules may be missing",
             away_us / 1000000);
    return false;
}

void rules_write(struct rules *rules, FILE *out)
{
    pthread_mutex_lock(&rules->table_lock);
    rule_table_write(&rules->table, out);
    pthread_mutex_unlock(&rules->table_lock);
}

/* --- from start to end --- */

static void *rules_main(void *arg)
{
    struct rules *rules = arg;
    pthread_setname_np(pthread_self(), "rules");
    while (!atomic_load(&rules->is_ending)) {
        mailbox_wait(&rules->mailbox, rules, UINT64_MAX);
    }
    return NULL;
}

enum err rules_create(const struct config *config, struct log *log, struct metrics *metrics, uint32_t clock_id, struct rules **out)
{
    struct rules *rules = xcalloc(1, sizeof *rules);
    rules->config = config;
    rules->log = log;
    rules->metrics = metrics_shard_create(metrics);
    spread_init(&rules->spread, config->threads, &rules->mailbox, on_sent, rules);
    list_init(&rules->waiting);
    list_init(&rules->catching_up);
    version_clock_init(&rules->clock, clock_id, config->max_clock_skew_ms);
    pthread_mutex_init(&rules->table_lock, NULL);
    enum err err = mailbox_init(&rules->mailbox);
    if (err != OK) {
        rules_destroy(&rules);
    }
    *out = rules;
    return err;
}

void rules_add_worker(struct rules *rules, struct cache *cache)
{
    spread_add_worker(&rules->spread, cache);
}

void rules_set_strong(struct rules *rules, struct strong *strong)
{
    rules->strong = strong;
}

void rules_set_on_digest(struct rules *rules, void (*on_digest)(void *ctx), void *ctx)
{
    rules->on_digest = on_digest;
    rules->digest_ctx = ctx;
}

enum err rules_start(struct rules *rules, struct bus *bus)
{
    rules->bus = bus;
    if (bus == NULL) {
        atomic_store(&rules->is_known, true); /* there are none yet, and nobody else makes any */
        atomic_store(&rules->digest, rule_table_digest(&rules->table));
    }
    rules->has_thread = pthread_create(&rules->thread, NULL, rules_main, rules) == 0;
    return rules->has_thread ? OK : ERR_NOMEM;
}

void rules_stop(struct rules *rules)
{
    if (!gate_close(&rules->gate)) {
        return;
    }
    atomic_store(&rules->is_ending, true);
    mailbox_wake(&rules->mailbox);
    if (rules->has_thread) {
        pthread_join(rules->thread, NULL);
        rules->has_thread = false;
    }
    while (mailbox_drain(&rules->mailbox, rules) > 0) { /* what the bus has given back */
    }
    rules_catch_up_stop(rules);
    struct list *link;
    while ((link = list_pop_front(&rules->waiting)) != NULL) {
        rules_finish(list_entry(link, struct rules_request, link), ERR_STOPPING, err_text(ERR_STOPPING));
    }
}

void rules_destroy(struct rules **out)
{
    struct rules *rules = *out;
    *out = NULL;
    if (rules == NULL) {
        return;
    }
    rules_stop(rules);
    mailbox_deinit(&rules->mailbox);
    pthread_mutex_destroy(&rules->table_lock);
    rule_table_clear(&rules->table);
    spread_deinit(&rules->spread);
    free(rules);
}
