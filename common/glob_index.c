#include "common/glob_index.h"

#define HASH_SEED 14695981039346656037ULL /* FNV-1a */
#define HASH_PRIME 1099511628211ULL

/* A text that rules begin with. */
struct slot {
    const char *text;
    uint64_t hash;
    uint64_t start_version; /* of the rule that is this text and `*`; 0: none */
    uint64_t all_version;   /* of the rule that is this text alone; 0: none */
    uint16_t len;
    bool is_used;
};

struct other {
    struct glob *glob;
    uint64_t version;
    const char *prefix;
    size_t prefix_len;
    struct glob_pairs needed;
};

struct glob_index {
    uint64_t newest;
    uint32_t mask; /* slots - 1 */
    uint32_t other_count;
    size_t len_max;      /* of the slots' texts */
    uint64_t lengths[4]; /* which lengths the slots' texts have */
    struct slot *slots;
    struct other *others; /* newest first */
    char *texts;
};

static uint64_t hash_byte(uint64_t hash, char byte)
{
    return (hash ^ (unsigned char)byte) * HASH_PRIME;
}

/* The low bits of FNV-1a alone are poor. */
static uint32_t place(const struct glob_index *x, uint64_t hash)
{
    return (uint32_t)((hash ^ hash >> 29) * 0x9e3779b97f4a7c15ULL >> 32) & x->mask;
}

static struct slot *find_slot(const struct glob_index *x, struct span text, uint64_t hash)
{
    for (uint32_t i = place(x, hash);; i = (i + 1) & x->mask) {
        struct slot *s = &x->slots[i];
        if (!s->is_used || (s->hash == hash && span_eq(span_of(s->text, s->len), text))) {
            return s;
        }
    }
}

static void add_text(struct glob_index *x, struct span text, const struct glob_prefix *prefix, uint64_t version)
{
    uint64_t hash = HASH_SEED;
    for (size_t i = 0; i < text.len; i++) {
        hash = hash_byte(hash, text.data[i]);
    }
    struct slot *s = find_slot(x, text, hash);
    if (!s->is_used) {
        *s = (struct slot){.text = text.data, .hash = hash, .len = (uint16_t)text.len, .is_used = true};
    }
    uint64_t *kept = prefix->is_all ? &s->all_version : &s->start_version;
    *kept = MAX(*kept, version);
    x->lengths[text.len / 64] |= 1ULL << (text.len % 64);
    x->len_max = MAX(x->len_max, text.len);
}

static enum err add_other(struct glob_index *x, struct span pattern, struct span prefix, uint64_t version)
{
    if (x->other_count == GLOB_INDEX_OTHERS) {
        return ERR_OVERLOAD;
    }
    struct glob *glob;
    enum err err = glob_create(pattern, &glob);
    if (err != OK) {
        return err;
    }
    uint32_t i = x->other_count++;
    for (; i > 0 && x->others[i - 1].version < version; i--) {
        x->others[i] = x->others[i - 1];
    }
    x->others[i] = (struct other){glob, version, prefix.data, prefix.len, glob_pairs_needed(pattern)};
    return OK;
}

enum err glob_index_create(const struct glob_rule *rules, uint32_t count, struct glob_index **out)
{
    char why[64];
    size_t bytes = 0;
    uint32_t slots = 16;
    *out = NULL;
    if (count > GLOB_INDEX_RULES + 1) { /* and the one that stands for those beyond */
        return ERR_OVERLOAD;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (glob_check(rules[i].pattern, why, sizeof why) != OK) {
            return ERR_INVALID;
        }
        bytes += rules[i].pattern.len;
    }
    while (slots < 2 * count) {
        slots *= 2;
    }
    struct glob_index *x = xcalloc(1, sizeof *x);
    x->mask = slots - 1;
    x->slots = calloc(slots, sizeof *x->slots);
    x->others = calloc(GLOB_INDEX_OTHERS, sizeof *x->others);
    x->texts = malloc(bytes + GLOB_MAX);
    enum err err = x->slots == NULL || x->others == NULL || x->texts == NULL ? ERR_NOMEM : OK;
    char *text = x->texts;
    for (uint32_t i = 0; i < count && err == OK; i++) {
        struct glob_prefix prefix = glob_prefix(rules[i].pattern, text);
        struct span start = span_of(text, prefix.len);
        if (prefix.is_all || prefix.is_start) {
            add_text(x, start, &prefix, rules[i].version);
        } else {
            err = add_other(x, rules[i].pattern, start, rules[i].version);
        }
        text += prefix.len;
        x->newest = MAX(x->newest, rules[i].version);
    }
    if (err != OK) {
        glob_index_destroy(&x);
    }
    *out = x;
    return err;
}

void glob_index_destroy(struct glob_index **index)
{
    struct glob_index *x = *index;
    *index = NULL;
    if (x == NULL) {
        return;
    }
    for (uint32_t i = 0; i < x->other_count; i++) {
        glob_destroy(&x->others[i].glob);
    }
    free(x->slots);
    free(x->others);
    free(x->texts);
    free(x);
}

static uint64_t find_texts(const struct glob_index *x, struct span key)
{
    uint64_t newest = 0;
    uint64_t hash = HASH_SEED;
    size_t end = MIN(key.len, x->len_max);
    for (size_t len = 0;; len++) {
        if ((x->lengths[len / 64] >> (len % 64)) & 1) {
            const struct slot *s = find_slot(x, span_of(key.data, len), hash);
            newest = MAX(newest, s->start_version);
            newest = len == key.len ? MAX(newest, s->all_version) : newest;
        }
        if (len == end) {
            return newest;
        }
        hash = hash_byte(hash, key.data[len]);
    }
}

uint64_t glob_index_find(const struct glob_index *x, struct span key)
{
    uint64_t newest = find_texts(x, span_of(key.data, MIN(key.len, (size_t)GLOB_MAX)));
    if (x->other_count == 0) {
        return newest;
    }
    struct glob_pairs pairs = glob_pairs_of(key);
    for (uint32_t i = 0; i < x->other_count && x->others[i].version > newest; i++) {
        const struct other *o = &x->others[i];
        if (glob_pairs_suffice(&pairs, &o->needed) && span_has_prefix(key, span_of(o->prefix, o->prefix_len)) && glob_matches(o->glob, key)) {
            return o->version;
        }
    }
    return newest;
}

uint64_t glob_index_newest(const struct glob_index *x)
{
    return x->newest;
}

bool glob_index_is_other(struct span pattern)
{
    char text[GLOB_MAX];
    struct glob_prefix prefix = glob_prefix(pattern, text);
    return !prefix.is_all && !prefix.is_start;
}
