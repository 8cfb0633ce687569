#include "common/glob.h"

#include <assert.h>
#include <stdarg.h>

#define WORDS_MAX ((GLOB_MAX + 1 + 63) / 64)
#define SET_WORDS 4 /* 256 bits, one for each byte */

/* What is matched by one byte, or any run of them. */
enum element { ELEMENT_SET, ELEMENT_BYTE, ELEMENT_STAR, ELEMENT_END, ELEMENT_BAD };

struct cursor {
    struct span pattern;
    size_t at;
    uint8_t byte;            /* ELEMENT_BYTE */
    uint64_t set[SET_WORDS]; /* ELEMENT_SET */
    const char *problem;     /* ELEMENT_BAD, at `at` */
};

static void set_add(struct cursor *c, unsigned first, unsigned last)
{
    for (unsigned byte = first; byte <= last; byte++) {
        c->set[byte / 64] |= 1ULL << (byte % 64);
    }
}

static enum element bad(struct cursor *c, size_t at, const char *problem)
{
    c->at = at;
    c->problem = problem;
    return ELEMENT_BAD;
}

/* One byte of a set, escaped or not; false at the pattern's end. */
static bool set_byte(struct cursor *c, unsigned *out)
{
    const struct span p = c->pattern;
    if (c->at < p.len && p.data[c->at] == '\\') {
        c->at++;
    }
    if (c->at >= p.len) {
        return false;
    }
    *out = (unsigned char)p.data[c->at++];
    return true;
}

/* Behind the `[`. A `]` that comes first stands for itself. */
static enum element next_set(struct cursor *c)
{
    const struct span p = c->pattern;
    size_t start = c->at - 1;
    memset(c->set, 0, sizeof c->set);
    bool is_negated = c->at < p.len && (p.data[c->at] == '!' || p.data[c->at] == '^');
    c->at += is_negated;
    for (bool is_first = true; c->at < p.len && (p.data[c->at] != ']' || is_first); is_first = false) {
        unsigned first;
        size_t at = c->at;
        if (!set_byte(c, &first)) {
            break;
        }
        unsigned last = first;
        if (c->at + 1 < p.len && p.data[c->at] == '-' && p.data[c->at + 1] != ']') {
            c->at++;
            if (!set_byte(c, &last)) {
                break;
            }
        }
        if (last < first) {
            return bad(c, at, "a range that goes backwards");
        }
        set_add(c, first, last);
    }
    if (c->at >= p.len) {
        return bad(c, start, "'[' without its ']'");
    }
    c->at++;
    for (int i = 0; i < SET_WORDS && is_negated; i++) {
        c->set[i] = ~c->set[i];
    }
    return ELEMENT_SET;
}

static enum element next(struct cursor *c)
{
    const struct span p = c->pattern;
    if (c->at == p.len) {
        return ELEMENT_END;
    }
    char byte = p.data[c->at++];
    switch (byte) {
    case '*': return ELEMENT_STAR;
    case '?': memset(c->set, 0xff, sizeof c->set); return ELEMENT_SET;
    case '[': return next_set(c);
    case '\\':
        if (c->at == p.len) {
            return bad(c, c->at - 1, "'\\' with nothing behind it");
        }
        byte = p.data[c->at++];
        break;
    default: break;
    }
    c->byte = (uint8_t)byte;
    return ELEMENT_BYTE;
}

enum err glob_check(struct span pattern, char *why, size_t why_size)
{
    if (pattern.len == 0 || pattern.len > GLOB_MAX) {
        snprintf(why, why_size, "a pattern has 1 to %d bytes, not %zu", GLOB_MAX, pattern.len);
        return ERR_INVALID;
    }
    struct cursor c = {.pattern = pattern};
    enum element element;
    do {
        element = next(&c);
    } while (element != ELEMENT_END && element != ELEMENT_BAD);
    if (element == ELEMENT_BAD) {
        snprintf(why, why_size, "at byte %zu: %s", c.at + 1, c.problem);
        return ERR_INVALID;
    }
    return OK;
}

struct glob_prefix glob_prefix(struct span pattern, char out[static GLOB_MAX])
{
    struct glob_prefix prefix = {0};
    struct cursor c = {.pattern = pattern};
    enum element element;
    while ((element = next(&c)) == ELEMENT_BYTE) {
        out[prefix.len++] = (char)c.byte;
    }
    prefix.is_all = element == ELEMENT_END;
    while (element == ELEMENT_STAR) {
        element = next(&c);
        prefix.is_start = element == ELEMENT_END;
    }
    return prefix;
}

/* --- pairs of bytes --- */

static void pairs_add(struct glob_pairs *pairs, uint8_t first, uint8_t second)
{
    uint32_t bit = ((uint32_t)first << 8 | second) * 2654435769U >> 23;
    static_assert(GLOB_PAIRS_WORDS * 64 == 1 << 9, "the bits that are left");
    pairs->bits[bit / 64] |= 1ULL << (bit % 64);
}

struct glob_pairs glob_pairs_of(struct span text)
{
    struct glob_pairs pairs = {0};
    for (size_t i = 1; i < text.len; i++) {
        pairs_add(&pairs, (uint8_t)text.data[i - 1], (uint8_t)text.data[i]);
    }
    return pairs;
}

struct glob_pairs glob_pairs_needed(struct span pattern)
{
    struct glob_pairs pairs = {0};
    struct cursor c = {.pattern = pattern};
    enum element element;
    bool is_behind_byte = false;
    uint8_t before = 0;
    while ((element = next(&c)) != ELEMENT_END && element != ELEMENT_BAD) {
        if (element == ELEMENT_BYTE && is_behind_byte) {
            pairs_add(&pairs, before, c.byte);
        }
        is_behind_byte = element == ELEMENT_BYTE;
        before = c.byte;
    }
    return pairs;
}

/* --- matching --- */

/* `words` uint64_t each: `loops`, then one row for each byte. */
struct glob {
    uint32_t count; /* elements, stars not counted */
    uint32_t words;
    uint64_t bits[];
};

static uint64_t *row(struct glob *g, unsigned byte)
{
    return &g->bits[(size_t)(1 + byte) * g->words];
}

enum err glob_create(struct span pattern, struct glob **out)
{
    char why[64];
    *out = NULL;
    if (glob_check(pattern, why, sizeof why) != OK) {
        return ERR_INVALID;
    }
    struct cursor c = {.pattern = pattern};
    uint32_t count = 0;
    enum element element;
    while ((element = next(&c)) != ELEMENT_END) {
        count += element != ELEMENT_STAR;
    }
    uint32_t words = (count + 1 + 63) / 64;
    struct glob *g = calloc(1, sizeof *g + (size_t)257 * words * sizeof g->bits[0]);
    if (g == NULL) {
        return ERR_NOMEM;
    }
    g->count = count;
    g->words = words;
    c = (struct cursor){.pattern = pattern};
    uint32_t i = 0;
    while ((element = next(&c)) != ELEMENT_END) {
        uint64_t bit = 1ULL << (i % 64);
        if (element == ELEMENT_STAR) {
            g->bits[i / 64] |= bit;
            continue;
        }
        for (unsigned byte = 0; byte < 256; byte++) {
            bool is_in = element == ELEMENT_BYTE ? byte == c.byte : (c.set[byte / 64] >> (byte % 64)) & 1;
            row(g, byte)[i / 64] |= is_in ? bit : 0;
        }
        i++;
    }
    *out = g;
    return OK;
}

void glob_destroy(struct glob **glob)
{
    free(*glob);
    *glob = NULL;
}

bool glob_matches(const struct glob *g, struct span text)
{
    uint64_t state[WORDS_MAX] = {1};
    const uint64_t *loops = g->bits;
    uint32_t words = g->words;
    for (size_t n = 0; n < text.len; n++) {
        const uint64_t *allowed = &g->bits[(size_t)(1 + (unsigned char)text.data[n]) * words];
        uint64_t carry = 0;
        uint64_t alive = 0;
        for (uint32_t w = 0; w < words; w++) {
            uint64_t moved = state[w] & allowed[w];
            state[w] = (moved << 1) | carry | (state[w] & loops[w]);
            carry = moved >> 63;
            alive |= state[w];
        }
        if (alive == 0) {
            return false;
        }
    }
    return (state[g->count / 64] >> (g->count % 64)) & 1;
}
