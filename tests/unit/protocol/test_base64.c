#include "proxy/protocol/base64.h"
#include "tests/unit/check_main.h"

START_TEST(there_and_back)
{
    char bytes[256], text[BASE64_LEN(256)], back[BASE64_LEN(256) / 4 * 3];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (char)(255 - i);
    }
    for (size_t len = 0; len <= sizeof bytes; len++) {
        char *end = base64_put(text, span_of(bytes, len));
        ck_assert_uint_eq((size_t)(end - text), BASE64_LEN(len));
        ck_assert_uint_eq(base64_decode(span_of(text, BASE64_LEN(len)), back), len);
        ck_assert_mem_eq(back, bytes, len);
    }
}
END_TEST

/* As a memcached 1.6.38 has decoded them. */
START_TEST(what_memcached_takes)
{
    static const struct {
        struct span text;
        struct span want; /* empty: refused */
    } cases[] = {
        {SPAN_LIT("Zm9v"), SPAN_LIT("foo")},
        {SPAN_LIT("Zg=="), SPAN_LIT("f")},
        {SPAN_LIT("Zm8="), SPAN_LIT("fo")},
        {SPAN_LIT("//+/"), SPAN_LIT("\xff\xff\xbf")},
        {SPAN_LIT("Zg==Zg=="), SPAN_LIT("f")},
        {SPAN_LIT("Z-g=!="), SPAN_LIT("f")},
        {SPAN_LIT("=AAA"), SPAN_LIT("\0\0")},
        {SPAN_LIT("AAAA"), SPAN_LIT("\0\0\0")},
        {SPAN_LIT(""), SPAN_LIT("")},
        {SPAN_LIT("!"), SPAN_LIT("")},
        {SPAN_LIT("Z"), SPAN_LIT("")},
        {SPAN_LIT("Zg="), SPAN_LIT("")},
        {SPAN_LIT("Zm9vZ"), SPAN_LIT("")},
        {SPAN_LIT("===="), SPAN_LIT("")},
        {SPAN_LIT("A==="), SPAN_LIT("")},
        {SPAN_LIT("Zm9v===="), SPAN_LIT("")},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *out = malloc(cases[i].text.len / 4 * 3 + 1); /* the sanitizer knows where it ends, but for one byte */
        ck_assert_ptr_nonnull(out);
        size_t len = base64_decode(cases[i].text, out);
        ck_assert_msg(span_eq(span_of(out, len), cases[i].want), "%.*s", SPAN_FMT(cases[i].text));
        free(out);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("base64");
    TCase *tc = tcase_create("base64");
    tcase_add_test(tc, there_and_back);
    tcase_add_test(tc, what_memcached_takes);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
