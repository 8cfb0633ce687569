#include <errno.h>
#include <inttypes.h>

#include "proxy/protocol/token.h"
#include "tests/unit/check_main.h"

/* A heap copy of just these bytes, so that the sanitizer sees a read behind them. */
static char *exact_copy(const char *bytes, size_t len)
{
    char *copy = malloc(len + (len == 0));
    ck_assert_ptr_nonnull(copy);
    memcpy(copy, bytes, len);
    return copy;
}

START_TEST(break_finds_the_first_low_byte)
{
    for (size_t len = 0; len < 40; len++) {
        char text[40];
        memset(text, 'x', sizeof text);
        memset(text + len / 2, 0xff, len - len / 2); /* bytes beyond ASCII are no control characters */
        for (size_t at = 0; at <= len; at++) {
            for (int byte = 0; byte <= ' '; byte++) {
                char *copy = exact_copy(text, len);
                if (at < len) {
                    copy[at] = (char)byte;
                }
                const char *end = copy + len;
                ck_assert_ptr_eq(token_break(copy, end), copy + at);
                ck_assert_ptr_eq(token_end(copy, end), byte == ' ' ? copy + at : end);
                free(copy);
            }
        }
    }
}
END_TEST

START_TEST(break_takes_every_other_byte)
{
    for (int byte = ' ' + 1; byte < 256; byte++) {
        char text[17];
        memset(text, byte, sizeof text);
        ck_assert_ptr_eq(token_break(text, text + sizeof text), text + sizeof text);
    }
}
END_TEST

START_TEST(split)
{
    static const struct {
        const char *line;
        size_t max;
        const char *tokens; /* joined by '|' */
    } cases[] = {
        {"", 8, ""},
        {"   ", 8, ""},
        {"a", 8, "a"},
        {"get key", 8, "get|key"},
        {"  get   key  ", 8, "get|key"},
        {"set a 0 0 1 noreply", 8, "set|a|0|0|1|noreply"},
        {"a b c d", 3, "a|b|c"},
        {"a\tb\rc d", 8, "a\tb\rc|d"},
        {"a b ", 0, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct span tokens[8];
        char joined[100] = "";
        char *copy = exact_copy(cases[i].line, strlen(cases[i].line));
        size_t n = token_split(span_of(copy, strlen(cases[i].line)), tokens, cases[i].max);
        for (size_t j = 0; j < n; j++) {
            size_t used = strlen(joined);
            snprintf(joined + used, sizeof joined - used, "%s%.*s", j > 0 ? "|" : "", SPAN_FMT(tokens[j]));
        }
        ck_assert_str_eq(joined, cases[i].tokens);
        free(copy);
    }
}
END_TEST

/* memcached's own way, for comparison (util.c). */
static bool reference_u64(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    uint64_t value = strtoull(text, &end, 10);
    if (errno == ERANGE || end == text || (*end != '\0' && strchr(" \t\n\v\f\r", *end) == NULL)) {
        return false;
    }
    if ((int64_t)value < 0 && memchr(text, '-', (size_t)(end - text)) != NULL) {
        return false;
    }
    *out = value;
    return true;
}

static bool reference_i64(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    int64_t value = strtoll(text, &end, 10);
    if (errno == ERANGE || end == text || (*end != '\0' && strchr(" \t\n\v\f\r", *end) == NULL)) {
        return false;
    }
    *out = value;
    return true;
}

static void compare_numbers(const char *text)
{
    size_t len = strlen(text);
    char *copy = exact_copy(text, len);
    struct span token = span_of(copy, len);
    uint64_t u = 0, want_u = 0;
    int64_t i = 0, want_i = 0;
    bool good = reference_u64(text, &want_u);
    ck_assert_msg(token_u64(token, &u) == good && (!good || u == want_u), "u64 of '%s': %" PRIu64, text, u);
    good = reference_i64(text, &want_i);
    ck_assert_msg(token_i64(token, &i) == good && (!good || i == want_i), "i64 of '%s': %" PRId64, text, i);
    bool all_digits = len > 0 && len <= TOKEN_U64_MAX && strspn(text, "0123456789") == len;
    good = all_digits && reference_u64(text, &want_u);
    ck_assert_msg(token_digits(token, &u) == good && (!good || u == want_u), "digits of '%s': %" PRIu64, text, u);
    free(copy);
}

START_TEST(numbers_as_memcached_takes_them)
{
    static const char *const texts[] = {
        "",
        "0",
        "1",
        "-1",
        "+1",
        "-0",
        "+",
        "-",
        "--1",
        "+-1",
        "01",
        "1x",
        "x1",
        "0x10",
        "1.5",
        "1e3",
        " 1",
        "\t1",
        "\v\f\r\n1",
        "1\t",
        "1\tx",
        "1\rx",
        "1 x",
        "1\001",
        "\0011",
        "- 1",
        "-\t1",
        "123456789012345678",
        "1234567890123456789",
        "999999999999999999",
        "2147483648",
        "4294967296",
        "9223372036854775807",
        "9223372036854775808",
        "-9223372036854775807",
        "-9223372036854775808",
        "-9223372036854775809",
        "18446744073709551615",
        "18446744073709551616",
        "18446744073709551620",
        "-18446744073709551615",
        "-18446744073709551616",
        "99999999999999999999",
        "100000000000000000000",
        "00000000000000000000000001",
        "-00000000000000000000000001",
        "184467440737095516150",
    };
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        compare_numbers(texts[i]);
    }
}
END_TEST

/* Eight digits are looked at together: every byte at every place among them. */
START_TEST(numbers_with_every_byte)
{
    for (size_t len = 1; len <= 20; len++) {
        for (size_t at = 0; at < len; at++) {
            for (int byte = 1; byte < 256; byte++) {
                char text[21] = "98765432109876543210";
                text[len] = '\0';
                text[at] = (char)byte;
                compare_numbers(text);
            }
        }
    }
}
END_TEST

START_TEST(numbers_at_random)
{
    static const char letters[] = "0123456789012345678901234567890123456789-+ \t\rx";
    uint64_t seed = 88172645463325252ULL;
    for (int round = 0; round < 100000; round++) {
        char text[32];
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        size_t len = (seed >> 33) % 26;
        for (size_t i = 0; i < len; i++) {
            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            text[i] = letters[(seed >> 33) % (round % 3 == 0 ? sizeof letters - 1 : 40)];
        }
        text[len] = '\0';
        compare_numbers(text);
    }
}
END_TEST

static void compare_put(uint64_t value)
{
    char want[32];
    char got[32];
    memset(got, '!', sizeof got);
    int len = snprintf(want, sizeof want, "%" PRIu64, value);
    char *end = token_put_u64(got, value);
    ck_assert_int_eq(end - got, len);
    ck_assert_mem_eq(got, want, len);
    ck_assert_int_eq(*end, '!');
    len = snprintf(want, sizeof want, "%" PRId64, (int64_t)value);
    end = token_put_i64(got, (int64_t)value);
    ck_assert_int_eq(end - got, len);
    ck_assert_mem_eq(got, want, len);
}

START_TEST(put)
{
    for (uint64_t value = 0; value < 20000; value++) {
        compare_put(value);
    }
    for (uint64_t power = 10, i = 1; i < 20; i++, power *= 10) {
        compare_put(power - 1);
        compare_put(power);
        compare_put(power + 1);
    }
    for (unsigned bit = 0; bit < 64; bit++) {
        compare_put((1ULL << bit) - 1);
        compare_put(1ULL << bit);
        compare_put(0 - (1ULL << bit));
    }
    compare_put(UINT64_MAX);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("token");
    TCase *tc = tcase_create("token");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, break_finds_the_first_low_byte);
    tcase_add_test(tc, break_takes_every_other_byte);
    tcase_add_test(tc, split);
    tcase_add_test(tc, numbers_as_memcached_takes_them);
    tcase_add_test(tc, numbers_with_every_byte);
    tcase_add_test(tc, numbers_at_random);
    tcase_add_test(tc, put);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
