/* What:    which of many rules {pattern, version} cover a key: the newest version of those that match.
 * Owns:    its tables; the patterns are copied.
 * Threads: immutable once made; any thread.
 * Fails:   ERR_OVERLOAD for more rules than it takes, ERR_INVALID for what is no pattern, ERR_NOMEM.
 *
 * Rules that are a text, or a text and `*`, stand in a hash table by that text, so that a lookup takes one probe for each length that occurs among
 * them, however many there are: O(key length). All others are tried one after the other, behind a look at what they spell out and begin with; there may be
 * GLOB_INDEX_OTHERS of them.
 */
#ifndef COMMON_GLOB_INDEX_H
#define COMMON_GLOB_INDEX_H

#include "common/glob.h"

#define GLOB_INDEX_RULES 10000
#define GLOB_INDEX_OTHERS 256

struct glob_rule {
    struct span pattern;
    uint64_t version;
};

struct glob_index;

enum err glob_index_create(const struct glob_rule *rules, uint32_t count, struct glob_index **out);
void glob_index_destroy(struct glob_index **index);

/* The newest version of the rules that match; 0: none does. */
uint64_t glob_index_find(const struct glob_index *index, struct span key);

/* The newest version of all; what is not older needs no lookup. */
uint64_t glob_index_newest(const struct glob_index *index);

/* Whether a pattern is of those that may be few only. */
bool glob_index_is_other(struct span pattern);

#endif
