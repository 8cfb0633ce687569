/* What:    one pattern over bytes: `*` any run of bytes, `?` one byte, `[a-z_]` one of a set, `[!…]` or `[^…]` one that is not in it, `\` takes
 *          the next byte as it is.
 * Owns:    a struct glob is one allocation; it keeps no pointer into the pattern it was made from.
 * Threads: immutable once made; any thread.
 * Fails:   glob_check() and glob_create() with ERR_INVALID for what is no pattern; `why` says what is wrong, and where.
 *
 * Matching runs all possibilities at once, as bits: bit i stands for "the first i elements have matched". Each byte of the text moves every bit
 * that its element allows, and those in front of a `*` stay. So a text of n bytes takes n steps whatever the pattern is, and nothing is tried twice.
 */
#ifndef COMMON_GLOB_H
#define COMMON_GLOB_H

#include "common/base.h"
#include "common/err.h"

#define GLOB_MAX 250 /* bytes of a pattern */

struct glob;

/* Whether this is a pattern. An empty one is not: it would match no key. */
enum err glob_check(struct span pattern, char *why, size_t why_size);

/* What every match begins with, the escapes taken out; `out` has room for GLOB_MAX bytes. */
struct glob_prefix {
    size_t len;
    bool is_all;   /* the pattern is nothing but this: it matches one text */
    bool is_start; /* the pattern is this and `*`: it matches whatever begins so */
};
struct glob_prefix glob_prefix(struct span pattern, char out[static GLOB_MAX]); /* of a pattern that has been checked */

enum err glob_create(struct span pattern, struct glob **out); /* ERR_INVALID as glob_check(), or ERR_NOMEM */
void glob_destroy(struct glob **glob);
bool glob_matches(const struct glob *glob, struct span text);

/* Which pairs of neighbouring bytes a text has, by a hash: what a pattern spells out, a text that matches it has. */
#define GLOB_PAIRS_WORDS 8

struct glob_pairs {
    uint64_t bits[GLOB_PAIRS_WORDS];
};

struct glob_pairs glob_pairs_of(struct span text);
struct glob_pairs glob_pairs_needed(struct span pattern);

/* False: no text with these pairs matches. */
static inline bool glob_pairs_suffice(const struct glob_pairs *have, const struct glob_pairs *needed)
{
    uint64_t missing = 0;
    for (int i = 0; i < GLOB_PAIRS_WORDS; i++) {
        missing |= needed->bits[i] & ~have->bits[i];
    }
    return missing == 0;
}

#endif
