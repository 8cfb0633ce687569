#include "common/glob.h"

#include "tests/unit/check_main.h"

static bool matches(const char *pattern, const char *text)
{
    struct glob *glob;
    ck_assert_int_eq(glob_create(span_str(pattern), &glob), OK);
    bool result = glob_matches(glob, span_str(text));
    glob_destroy(&glob);
    return result;
}

START_TEST(each_sign_means_what_it_should)
{
    static const struct {
        const char *pattern;
        const char *text;
        bool is_match;
    } cases[] = {
        {"a", "a", true},           {"a", "b", false},          {"a", "", false},          {"a", "aa", false},
        {"*", "", true},            {"*", "abc", true},         {"a*", "a", true},         {"a*", "ab", true},
        {"a*", "ba", false},        {"*a", "ba", true},         {"*a", "ab", false},       {"a*b*c", "abc", true},
        {"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXcYb", false},  {"**a**", "xax", true},    {"?", "", false},
        {"?", "x", true},           {"??", "x", false},         {"a?c", "abc", true},      {"a?c", "ac", false},
        {"[abc]", "b", true},       {"[abc]", "d", false},      {"[a-c]x", "bx", true},    {"[a-c]x", "dx", false},
        {"[!a-c]", "d", true},      {"[!a-c]", "b", false},     {"[^a]", "b", true},       {"[^a]", "a", false},
        {"[]]", "]", true},         {"[]a]", "a", true},        {"[!]]", "]", false},      {"[!]]", "x", true},
        {"[a-]", "-", true},        {"[-a]", "-", true},        {"[a\\]b]", "]", true},    {"[\\a-\\c]", "b", true},
        {"\\*", "*", true},         {"\\*", "x", false},        {"a\\?", "a?", true},      {"\\\\", "\\", true},
        {"\\[x]", "[x]", true},     {"user:*:cart", "user:1:cart", true},                  {"user:*:cart", "user:1:cars", false},
        {"[a-c-e]", "-", true},     {"[a-c-e]", "e", true},     {"[a-c-e]", "d", false},   {"a]", "a]", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        ck_assert_msg(matches(cases[i].pattern, cases[i].text) == cases[i].is_match, "%s %s", cases[i].pattern, cases[i].text);
    }
}
END_TEST

START_TEST(bytes_of_all_kinds_match)
{
    struct glob *glob;
    struct span text = SPAN_LIT("\0\xff\n\x80");
    ck_assert_int_eq(glob_create(SPAN_LIT("\0[\xf0-\xff]?[!a]"), &glob), OK);
    ck_assert(glob_matches(glob, text));
    ck_assert(!glob_matches(glob, SPAN_LIT("\0\xef\n\x80")));
    glob_destroy(&glob);
}
END_TEST

START_TEST(what_is_no_pattern_is_told)
{
    static const struct {
        const char *pattern;
        const char *why;
    } cases[] = {
        {"", "a pattern has 1 to 250 bytes, not 0"}, {"a[b", "at byte 2: '[' without its ']'"},    {"[", "at byte 1: '[' without its ']'"},
        {"[]", "at byte 1: '[' without its ']'"},    {"[!]", "at byte 1: '[' without its ']'"},    {"x\\", "at byte 2: '\\' with nothing behind it"},
        {"[z-a]", "at byte 2: a range that goes backwards"}, {"[a\\", "at byte 1: '[' without its ']'"}, {"[a-\\", "at byte 1: '[' without its ']'"},
    };
    char why[80];
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct glob *glob;
        ck_assert_int_eq(glob_check(span_str(cases[i].pattern), why, sizeof why), ERR_INVALID);
        ck_assert_str_eq(why, cases[i].why);
        ck_assert_int_eq(glob_create(span_str(cases[i].pattern), &glob), ERR_INVALID);
        ck_assert_ptr_null(glob);
    }
    char large[GLOB_MAX + 1];
    memset(large, 'x', sizeof large);
    ck_assert_int_eq(glob_check(span_of(large, GLOB_MAX), why, sizeof why), OK);
    ck_assert_int_eq(glob_check(span_of(large, GLOB_MAX + 1), why, sizeof why), ERR_INVALID);
}
END_TEST

START_TEST(the_prefix_is_what_all_matches_begin_with)
{
    static const struct {
        const char *pattern;
        const char *prefix;
        bool is_all;
        bool is_start;
    } cases[] = {
        {"abc", "abc", true, false},  {"abc*", "abc", false, true},  {"*", "", false, true},      {"**", "", false, true},
        {"a\\*b*", "a*b", false, true}, {"a\\*", "a*", true, false}, {"a?", "a", false, false},   {"a*b", "a", false, false},
        {"a[b]*", "a", false, false}, {"a**", "a", false, true},     {"a*?", "a", false, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[GLOB_MAX];
        struct glob_prefix prefix = glob_prefix(span_str(cases[i].pattern), text);
        ck_assert_msg(span_eq(span_of(text, prefix.len), span_str(cases[i].prefix)), "%s", cases[i].pattern);
        ck_assert_msg(prefix.is_all == cases[i].is_all && prefix.is_start == cases[i].is_start, "%s", cases[i].pattern);
    }
}
END_TEST

/* 250 stars and bytes against a text that almost matches: a matcher that tries one way after the other would not end. */
static bool pairs_suffice(const char *pattern, const char *text)
{
    struct glob_pairs have = glob_pairs_of(span_str(text));
    struct glob_pairs needed = glob_pairs_needed(span_str(pattern));
    return glob_pairs_suffice(&have, &needed);
}

START_TEST(pairs_of_what_is_spelled_out_are_needed)
{
    ck_assert(pairs_suffice("*needle*", "a needle in hay"));
    ck_assert(!pairs_suffice("*needle*", "user:1:session:2"));
    ck_assert(!pairs_suffice("*needle*", ""));
    ck_assert(!pairs_suffice("*\\*\\[*", "a*b[c"));
    ck_assert(pairs_suffice("*\\*\\[*", "a*[c"));
    ck_assert(pairs_suffice("n*e?e[a-d]l", "xyz")); /* no two bytes stand together */
    ck_assert(pairs_suffice("a*b", "a") && pairs_suffice("*", "") && pairs_suffice("?", ""));
    ck_assert(!pairs_suffice("x*ab", "xb"));
}
END_TEST

START_TEST(no_pattern_takes_long)
{
    char pattern[GLOB_MAX];
    char text[GLOB_MAX];
    for (size_t i = 0; i < sizeof pattern; i++) {
        pattern[i] = i % 2 == 0 ? '*' : 'a';
    }
    memset(text, 'a', sizeof text);
    pattern[sizeof pattern - 1] = 'b';
    struct glob *glob;
    ck_assert_int_eq(glob_create(span_of(pattern, sizeof pattern), &glob), OK);
    for (int i = 0; i < 1000; i++) {
        ck_assert(!glob_matches(glob, span_of(text, sizeof text)));
    }
    text[sizeof text - 1] = 'b';
    ck_assert(glob_matches(glob, span_of(text, sizeof text)));
    glob_destroy(&glob);
}
END_TEST

/* --- against a matcher that is too simple to be wrong --- */

static bool naive_set(struct span *p, unsigned char byte)
{
    bool is_negated = p->data[0] == '!' || p->data[0] == '^';
    size_t i = is_negated;
    bool is_in = false;
    for (bool is_first = true; p->data[i] != ']' || is_first; is_first = false) {
        i += p->data[i] == '\\';
        unsigned char first = (unsigned char)p->data[i++];
        unsigned char last = first;
        if (p->data[i] == '-' && p->data[i + 1] != ']') {
            i++;
            i += p->data[i] == '\\';
            last = (unsigned char)p->data[i++];
        }
        is_in = is_in || (first <= byte && byte <= last);
    }
    i++;
    *p = span_of(p->data + i, p->len - i);
    return is_in != is_negated;
}

static bool naive(struct span p, struct span t)
{
    if (p.len == 0) {
        return t.len == 0;
    }
    char sign = p.data[0];
    struct span rest = span_of(p.data + 1, p.len - 1);
    if (sign == '*') {
        return naive(rest, t) || (t.len > 0 && naive(p, span_of(t.data + 1, t.len - 1)));
    }
    if (t.len == 0) {
        return false;
    }
    bool is_match = true;
    if (sign == '[') {
        is_match = naive_set(&rest, (unsigned char)t.data[0]);
    } else if (sign != '?') {
        if (sign == '\\') {
            sign = rest.data[0];
            rest = span_of(rest.data + 1, rest.len - 1);
        }
        is_match = sign == t.data[0];
    }
    return is_match && naive(rest, span_of(t.data + 1, t.len - 1));
}

static uint32_t draw(uint64_t *state, uint32_t limit)
{
    *state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (uint32_t)(*state >> 33) % limit;
}

START_TEST(random_patterns_match_as_the_naive_matcher_says)
{
    static const char letters[] = "ab*?[]-!^\\ab*ab";
    uint64_t state = 42;
    char why[80];
    uint32_t patterns = 0;
    uint32_t hits = 0;
    while (patterns < 5000) {
        char pattern[16];
        size_t len = 1 + draw(&state, 12);
        for (size_t i = 0; i < len; i++) {
            pattern[i] = letters[draw(&state, sizeof letters - 1)];
        }
        struct span p = span_of(pattern, len);
        struct glob *glob;
        if (glob_check(p, why, sizeof why) != OK) {
            continue;
        }
        patterns++;
        ck_assert_int_eq(glob_create(p, &glob), OK);
        for (int n = 0; n < 10; n++) {
            char text[12];
            size_t text_len = draw(&state, 9);
            for (size_t i = 0; i < text_len; i++) {
                text[i] = "abab]-!*"[draw(&state, 8)];
            }
            bool expected = naive(p, span_of(text, text_len));
            hits += expected;
            struct glob_pairs have = glob_pairs_of(span_of(text, text_len));
            struct glob_pairs needed = glob_pairs_needed(p);
            ck_assert_msg(!expected || glob_pairs_suffice(&have, &needed), "%.*s %.*s", (int)len, pattern, (int)text_len, text);
            ck_assert_msg(glob_matches(glob, span_of(text, text_len)) == expected, "%.*s %.*s", (int)len, pattern, (int)text_len, text);
        }
        glob_destroy(&glob);
    }
    ck_assert_uint_gt(hits, 1200); /* both answers were seen often */
    ck_assert_uint_lt(hits, 48000);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("glob");
    TCase *tc = tcase_create("glob");
    tcase_add_test(tc, each_sign_means_what_it_should);
    tcase_add_test(tc, bytes_of_all_kinds_match);
    tcase_add_test(tc, what_is_no_pattern_is_told);
    tcase_add_test(tc, the_prefix_is_what_all_matches_begin_with);
    tcase_add_test(tc, pairs_of_what_is_spelled_out_are_needed);
    tcase_add_test(tc, no_pattern_takes_long);
    tcase_add_test(tc, random_patterns_match_as_the_naive_matcher_says);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
