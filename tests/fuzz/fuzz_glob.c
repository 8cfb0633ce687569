/* What:    any bytes as a pattern, a key and a rule. What is accepted must be matched the same by itself and through the index, and begin with what
 *          its prefix says. */
#include "common/glob_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    /* The first byte says how many of the rest are the pattern. */
    size_t pattern_len = MIN((size_t)data[0], size - 1);
    struct span pattern = span_of((const char *)data + 1, pattern_len);
    struct span key = span_of((const char *)data + 1 + pattern_len, MIN(size - 1 - pattern_len, (size_t)GLOB_MAX));
    char why[80] = "";
    struct glob *glob;
    struct glob_index *index;
    struct glob_rule rule = {pattern, 7};
    enum err err = glob_check(pattern, why, sizeof why);
    check((err == OK) == (why[0] == '\0'));
    check(glob_create(pattern, &glob) == err && glob_index_create(&rule, 1, &index) == err);
    if (err != OK) {
        return 0;
    }
    bool is_match = glob_matches(glob, key);
    check(glob_index_find(index, key) == (is_match ? 7U : 0U));
    struct glob_pairs pairs = glob_pairs_of(key);
    struct glob_pairs needed = glob_pairs_needed(pattern);
    check(!is_match || glob_pairs_suffice(&pairs, &needed));
    char text[GLOB_MAX];
    struct glob_prefix prefix = glob_prefix(pattern, text);
    bool begins_so = span_has_prefix(key, span_of(text, prefix.len));
    check(prefix.len <= pattern_len && (!is_match || begins_so));
    check(!prefix.is_start || is_match == begins_so);
    check(!prefix.is_all || is_match == span_eq(key, span_of(text, prefix.len)));
    glob_destroy(&glob);
    glob_index_destroy(&index);
    return 0;
}
