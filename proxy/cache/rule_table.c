#include "proxy/cache/rule_table.h"

#include <inttypes.h>

#include "proxy/bus/rulebook.h"

static struct rule **bucket_of(struct rule_table *t, uint64_t hash)
{
    return &t->buckets[(hash ^ hash >> 32) % RULE_BUCKETS];
}

static struct span pattern_of(const struct rule *r)
{
    return span_of(r->event.key, r->event.key_len);
}

struct rule *rule_table_find(struct rule_table *t, struct span pattern)
{
    uint64_t hash = rulebook_hash(pattern);
    struct rule *r = *bucket_of(t, hash);
    while (r != NULL && !(r->hash == hash && span_eq(pattern_of(r), pattern))) {
        r = r->next;
    }
    return r;
}

struct rule *rule_table_find_version(struct rule_table *t, uint64_t hash, uint64_t version)
{
    struct rule *r = *bucket_of(t, hash);
    while (r != NULL && !(r->hash == hash && r->event.version == version)) {
        r = r->next;
    }
    return r;
}

bool rule_table_has_room(struct rule_table *t, struct span pattern)
{
    if (rule_table_find(t, pattern) != NULL || span_eq(pattern, SPAN_LIT("*"))) { /* "*" takes the place of those that do not fit */
        return true;
    }
    return t->count < GLOB_INDEX_RULES && (!glob_index_is_other(pattern) || t->others < GLOB_INDEX_OTHERS);
}

enum err rule_table_put(struct rule_table *t, const struct invalidation *event, const char *region, struct rule **out)
{
    struct span pattern = span_of(event->key, event->key_len);
    struct rule *r = rule_table_find(t, pattern);
    *out = r;
    if (r == NULL) {
        if (!rule_table_has_room(t, pattern)) {
            return ERR_OVERLOAD;
        }
        r = xcalloc(1, sizeof *r);
        r->hash = rulebook_hash(pattern);
        struct rule **bucket = bucket_of(t, r->hash);
        r->next = *bucket;
        *bucket = r;
        t->count++;
        t->others += glob_index_is_other(pattern);
    }
    *out = r;
    if (event->version > r->event.version) {
        r->event = *event;
        r->passes = 0;
        snprintf(r->region, sizeof r->region, "%s", region);
    }
    return OK;
}

void rule_table_remove(struct rule_table *t, struct rule *rule)
{
    struct rule **at = bucket_of(t, rule->hash);
    while (*at != rule) {
        at = &(*at)->next;
    }
    *at = rule->next;
    t->count--;
    t->others -= glob_index_is_other(pattern_of(rule));
    free(rule);
}

void rule_table_clear(struct rule_table *t)
{
    for (size_t i = 0; i < RULE_BUCKETS; i++) {
        while (t->buckets[i] != NULL) {
            rule_table_remove(t, t->buckets[i]);
        }
    }
}

enum err rule_table_index(const struct rule_table *t, struct glob_index **out)
{
    uint32_t count = 0;
    struct glob_rule *rules = calloc(t->count + 1, sizeof *rules);
    *out = NULL;
    if (rules == NULL) {
        return ERR_NOMEM;
    }
    for (size_t i = 0; i < RULE_BUCKETS; i++) {
        for (const struct rule *r = t->buckets[i]; r != NULL; r = r->next) {
            rules[count++] = (struct glob_rule){pattern_of(r), r->event.version};
        }
    }
    enum err err = glob_index_create(rules, count, out);
    free(rules);
    return err;
}

/* Every bit of the result depends on every bit of the value (the last step of splitmix64). */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
    return x ^ x >> 31;
}

uint64_t rule_table_digest(const struct rule_table *t)
{
    uint64_t sum = 0x9e3779b97f4a7c15ULL; /* of no rules */
    for (size_t i = 0; i < RULE_BUCKETS; i++) {
        for (const struct rule *r = t->buckets[i]; r != NULL; r = r->next) {
            sum += r->is_strong ? mix(r->hash + mix(r->event.version)) : 0;
        }
    }
    return sum != 0 ? sum : 1;
}

void rule_table_list(const struct rule_table *t, struct rule_state *states, uint32_t *count)
{
    *count = 0;
    for (size_t i = 0; i < RULE_BUCKETS; i++) {
        for (const struct rule *r = t->buckets[i]; r != NULL; r = r->next) {
            states[(*count)++] = (struct rule_state){.hash = r->hash, .version = r->event.version, .passes = r->passes};
        }
    }
}

static void write_pattern(FILE *out, struct span pattern)
{
    for (size_t i = 0; i < pattern.len; i++) {
        unsigned char c = (unsigned char)pattern.data[i];
        if (c < ' ' || c >= 0x7f) {
            fprintf(out, "%%%02X", c);
        } else {
            fprintf(out, c == '"' || c == '\\' ? "\\%c" : c == '%' ? "%%25" : "%c", c);
        }
    }
}

void rule_table_write(const struct rule_table *t, FILE *out)
{
    bool is_first = true;
    fputs("{\"rules\":[", out);
    for (size_t i = 0; i < RULE_BUCKETS; i++) {
        for (const struct rule *r = t->buckets[i]; r != NULL; r = r->next) {
            fputs(is_first ? "{\"pattern\":\"" : ",{\"pattern\":\"", out);
            write_pattern(out, pattern_of(r));
            fprintf(out, "\",\"version\":\"%" PRIu64 "\",\"region\":\"%s\",\"timestamp\":%" PRIu64 "}", r->event.version, r->region,
                    r->event.timestamp_ms);
            is_first = false;
        }
    }
    fputs("]}\n", out);
}
