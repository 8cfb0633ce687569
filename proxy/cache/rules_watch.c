#include <inttypes.h>
#include <sys/random.h>

#include "proxy/bus/rulebook.h"
#include "proxy/cache/rules_parts.h"

/* What the bus tells of rules: those of other regions, what is in this region's record, and that all that was in it at a moment has come. */

/* --- catching up --- */

static void deliver_caught_up(struct mail *mail, void *owner)
{
    struct rules_catch_up *c = container_of(mail, struct rules_catch_up, mail);
    c->on_done(c);
}

static void finish_catch_up(struct rules *rules, struct rules_catch_up *c, enum err err)
{
    if (list_is_linked(&c->link)) {
        list_remove(&c->link);
        rules->catching_up_count--;
    }
    c->err = err;
    c->mail.deliver = deliver_caught_up;
    mailbox_post(c->reply_to, &c->mail);
}

/* What was before the mark is known; and it is in force once what was known then has been sent. */
static bool is_caught_up(const struct rules *rules, const struct rules_catch_up *c)
{
    return c->is_recorded && c->is_seen && !rules->spread.is_sending && rules->sent_change >= c->change && atomic_load(&rules->is_known);
}

void rules_catch_up_on_sent(struct rules *rules)
{
    for (struct list *link = rules->catching_up.next; link != &rules->catching_up;) {
        struct rules_catch_up *c = list_entry(link, struct rules_catch_up, link);
        link = link->next;
        if (is_caught_up(rules, c)) {
            finish_catch_up(rules, c, OK);
        }
    }
}

static void on_mark_recorded(struct record *record)
{
    struct rules_catch_up *c = container_of(record, struct rules_catch_up, record);
    struct rules *rules = c->rules;
    if (record->err != OK) {
        finish_catch_up(rules, c, record->err);
        return;
    }
    c->is_recorded = true;
    c->listing = rules->listing;
    rules_catch_up_on_sent(rules);
}

/* The mark is the marker of a rule's removal, which nobody heeds, as there is no such rule. The record keeps the order in which it was written, and
 * writes an entry once, so who has seen the mark has seen all that was there before. */
static void deliver_catch_up(struct mail *mail, void *owner)
{
    struct rules *rules = owner;
    struct rules_catch_up *c = container_of(mail, struct rules_catch_up, mail);
    uint64_t random = 0;
    if (rules->bus == NULL) { /* all rules are our own */
        finish_catch_up(rules, c, OK);
        return;
    }
    if (rules->catching_up_count >= RULES_CATCHING_UP_MAX || getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random) {
        finish_catch_up(rules, c, ERR_OVERLOAD);
        return;
    }
    c->record = (struct record){.reply_to = &rules->mailbox, .on_done = on_mark_recorded, .is_removal = true};
    c->record.event = (struct invalidation){.version = rules_version_now(rules), .timestamp_ms = clock_wall_ms(), .is_pattern = true};
    c->record.event.key_len = (uint16_t)snprintf(c->record.event.key, sizeof c->record.event.key, "outrigger-mark-%016" PRIx64, random);
    list_push_back(&rules->catching_up, &c->link);
    rules->catching_up_count++;
    bus_record(rules->bus, &c->record);
}

void rules_catch_up(struct rules *rules, struct rules_catch_up *c)
{
    c->err = OK;
    c->rules = rules;
    c->is_recorded = c->is_seen = false;
    c->mail.deliver = deliver_catch_up;
    list_init(&c->link);
    if (!rules_post(rules, &c->mail)) {
        finish_catch_up(rules, c, ERR_STOPPING);
    }
}

static void on_mark_seen(struct rules *rules, const struct rule_event *event)
{
    for (struct list *link = rules->catching_up.next; link != &rules->catching_up; link = link->next) {
        struct rules_catch_up *c = list_entry(link, struct rules_catch_up, link);
        const struct invalidation *mark = &c->record.event;
        if (mark->version == event->event.version && rulebook_hash(span_of(mark->key, mark->key_len)) == event->hash) {
            c->is_seen = true;
            c->change = rules->change;
        }
    }
    rules_catch_up_on_sent(rules);
}

/* All that is in the record has been told since: marks that were not among it are lost, with the server's disk. */
static void give_marks_up(struct rules *rules)
{
    for (struct list *link = rules->catching_up.next; link != &rules->catching_up;) {
        struct rules_catch_up *c = list_entry(link, struct rules_catch_up, link);
        link = link->next;
        if (c->is_recorded && !c->is_seen && c->listing < rules->listing) {
            finish_catch_up(rules, c, ERR_UNAVAILABLE);
        }
    }
}

void rules_catch_up_stop(struct rules *rules)
{
    while (!list_is_empty(&rules->catching_up)) {
        finish_catch_up(rules, list_entry(rules->catching_up.next, struct rules_catch_up, link), ERR_STOPPING);
    }
}

/* --- rules of other regions --- */

static void deliver_delivery(struct mail *mail, void *owner)
{
    struct rules *rules = owner;
    struct rules_request *request = container_of(mail, struct rules_request, mail);
    struct invalidation event = request->delivery->event;
    bool is_own = request->delivery->peer == PEER_NONE; /* from the spool: this region's record may not have it */
    const char *region = is_own ? rules->config->region : rules->config->bus->peers[request->delivery->peer].region;
    if (event.version == 0) { /* the bus has lost events: what is stored by now may be older than one of them */
        event.version = rules_version_now(rules);
    }
    struct rule *rule = rule_table_find(&rules->table, span_of(event.key, event.key_len));
    if (!is_own && rule != NULL && rule->event.version >= event.version) { /* delivered again, or late: what it says holds already */
        request->record.event = event;
        request->change = rules->change;
        if (rules->spread.is_sending) {
            list_push_back(&rules->waiting, &request->link);
        } else {
            rules_finish(request, OK, "");
        }
        return;
    }
    if (!rule_table_has_room(&rules->table, span_of(event.key, event.key_len))) {
        event.key[0] = '*';
        event.key_len = 1;
    }
    rule = rule_table_find(&rules->table, span_of(event.key, event.key_len));
    bool is_known = is_own && rule != NULL && rule->event.version >= event.version;
    event.version = is_known ? rule->event.version : rules_version_above(rules, event.version);
    request->record = (struct record){.event = event};
    snprintf(request->record.region, sizeof request->record.region, "%s", region);
    rules_record(rules, request);
}

void rules_apply(struct rules *rules, struct delivery *delivery)
{
    struct rules_request *request = xcalloc(1, sizeof *request);
    request->delivery = delivery;
    list_init(&request->link);
    request->mail.deliver = deliver_delivery;
    if (!rules_post(rules, &request->mail)) {
        rules_finish(request, ERR_STOPPING, err_text(ERR_STOPPING));
    }
}

/* --- this region's record --- */

struct news {
    struct mail mail;
    enum rules_watch what;
    struct rule_event event;
};

static void deliver_rule(struct mail *mail, void *owner)
{
    struct rules *rules = owner;
    struct news *news = container_of(mail, struct news, mail);
    const struct rule_event *event = &news->event;
    if (event->is_removed) {
        struct rule *rule = rule_table_find_version(&rules->table, event->hash, event->event.version);
        if (rule != NULL) {
            rules_remove(rules, rule);
        }
        on_mark_seen(rules, event);
    } else {
        struct rule *rule = rule_table_find(&rules->table, span_of(event->event.key, event->event.key_len));
        if (rule == NULL || rule->event.version < event->event.version) {
            rule = rules_put(rules, &event->event, event->region);
        }
        rule->listing = rules->listing;
    }
    free(news);
    rules_send_index(rules);
}

/* What we know and the record does not even have a marker of has been lost there: a server without its disk. */
static void put_back(struct rules *rules)
{
    uint32_t count = 0;
    for (size_t i = 0; i < RULE_BUCKETS; i++) {
        for (struct rule *rule = rules->table.buckets[i]; rule != NULL; rule = rule->next) {
            if (rule->listing != rules->listing) {
                rules_record_in_background(rules, &rule->event, rule->region, false);
                count++;
            }
        }
    }
    if (count > 0) {
        log_warn(rules->log, "rules: %u that this sidecar knows were not in the region's record; they are put back", count);
    }
}

static void deliver_watch(struct mail *mail, void *owner)
{
    struct rules *rules = owner;
    struct news *news = container_of(mail, struct news, mail);
    switch (news->what) {
    case RULES_LISTING: rules->listing++; break;
    case RULES_LOST:
        if (atomic_load(&rules->lost_us) == 0) {
            atomic_store(&rules->lost_us, clock_mono_us());
        }
        break;
    case RULES_KNOWN:
        atomic_store(&rules->lost_us, 0);
        put_back(rules);
        rules->is_listed = true;
        give_marks_up(rules);
        rules_send_index(rules);
    }
    free(news);
}

void rules_on_rule(struct rules *rules, const struct rule_event *event)
{
    struct news *news = xmalloc(sizeof *news);
    *news = (struct news){.mail = {.deliver = deliver_rule}, .event = *event};
    if (!rules_post(rules, &news->mail)) {
        free(news);
    }
}

void rules_on_watch(struct rules *rules, enum rules_watch what)
{
    struct news *news = xmalloc(sizeof *news);
    *news = (struct news){.mail = {.deliver = deliver_watch}, .what = what};
    if (!rules_post(rules, &news->mail)) {
        free(news);
    }
}
