#include "common/uri.h"
#include "tests/unit/check_main.h"

static void decodes(const char *raw, bool is_query, struct span wanted)
{
    char out[256];
    size_t len = 99;
    ck_assert_msg(uri_decode(span_str(raw), is_query, out, &len) == OK, "%s", raw);
    ck_assert_msg(span_eq(span_of(out, len), wanted), "%s: %.*s", raw, (int)len, out);
}

START_TEST(test_decode)
{
    decodes("", false, SPAN_LIT(""));
    decodes("abc", false, SPAN_LIT("abc"));
    decodes("a%20b%2Fc%2f", false, SPAN_LIT("a b/c/"));
    decodes("%00%ff%7E", false, SPAN_LIT("\0\377~"));
    decodes("a+b", false, SPAN_LIT("a+b"));
    decodes("a+b%2B", true, SPAN_LIT("a b+"));
    decodes("%25%32%35", false, SPAN_LIT("%25"));
    const char *bad[] = {"%", "a%", "%1", "%g0", "%0g", "%%20", "100%", "% 1", "%-1"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        char out[16];
        size_t len;
        ck_assert_msg(uri_decode(span_str(bad[i]), false, out, &len) == ERR_INVALID, "%s", bad[i]);
    }
    char in_place[] = "%41%42c";
    size_t len;
    ck_assert_int_eq(uri_decode(span_str(in_place), false, in_place, &len), OK);
    ck_assert(span_eq(span_of(in_place, len), SPAN_LIT("ABc")));
}
END_TEST

START_TEST(test_parameter)
{
    struct span raw;
    struct span query = SPAN_LIT("ttl=5&key=a%26b&empty=&flag&ttl=6&keys=x");
    ck_assert(uri_parameter(query, "ttl", &raw) && span_eq(raw, SPAN_LIT("5")));
    ck_assert(uri_parameter(query, "key", &raw) && span_eq(raw, SPAN_LIT("a%26b")));
    ck_assert(uri_parameter(query, "keys", &raw) && span_eq(raw, SPAN_LIT("x")));
    ck_assert(uri_parameter(query, "empty", &raw) && raw.len == 0);
    ck_assert(uri_parameter(query, "flag", &raw) && raw.len == 0);
    ck_assert(!uri_parameter(query, "fla", &raw) && !uri_parameter(query, "flags", &raw) && !uri_parameter(query, "5", &raw));
    ck_assert(!uri_parameter(SPAN_LIT(""), "a", &raw) && !uri_parameter(SPAN_LIT("&&=&"), "a", &raw));
}
END_TEST

/* Every byte comes back as it was. */
START_TEST(test_round_trip)
{
    char bytes[256];
    for (int i = 0; i < 256; i++) {
        bytes[i] = (char)i;
    }
    char text[3 * 256];
    char out[3 * 256];
    size_t text_len = uri_encode(span_of(bytes, 256), text);
    for (size_t i = 0; i < text_len; i++) {
        ck_assert(strchr("%-_.~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", text[i]) != NULL);
    }
    for (int is_query = 0; is_query < 2; is_query++) {
        size_t len;
        ck_assert_int_eq(uri_decode(span_of(text, text_len), is_query, out, &len), OK);
        ck_assert(span_eq(span_of(out, len), span_of(bytes, 256)));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("uri");
    TCase *tc = tcase_create("uri");
    tcase_add_test(tc, test_decode);
    tcase_add_test(tc, test_parameter);
    tcase_add_test(tc, test_round_trip);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
