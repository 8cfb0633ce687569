#include "ctl/response.h"
#include "tests/unit/check_main.h"

static const char whole[] = "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nCONTENT-length:  5 \r\nX-Empty:\r\n\r\nhello";

static enum response_state parse(const char *text, bool is_end, struct response *out)
{
    return response_parse(span_str(text), is_end, out);
}

START_TEST(test_whole)
{
    struct response r;
    struct span value;
    ck_assert_int_eq(parse(whole, false, &r), RESPONSE_WHOLE);
    ck_assert_uint_eq(r.status, 404);
    ck_assert(span_eq(r.body, SPAN_LIT("hello")));
    ck_assert(response_header(&r, "content-type", &value) && span_eq(value, SPAN_LIT("application/json")));
    ck_assert(response_header(&r, "X-Empty", &value) && value.len == 0);
    ck_assert(!response_header(&r, "Content", &value) && !response_header(&r, "X-Empt", &value) && !response_header(&r, "hello", &value));
    ck_assert_int_eq(parse("HTTP/1.1 200 OK\n\nbody to the end", true, &r), RESPONSE_WHOLE);
    ck_assert(span_eq(r.body, SPAN_LIT("body to the end")));
    ck_assert_int_eq(parse("HTTP/1.0 204\r\nContent-Length: 0\r\n\r\n", false, &r), RESPONSE_WHOLE);
    ck_assert(r.status == 204 && r.body.len == 0);
}
END_TEST

/* Whatever is missing at the end, it is not whole yet, or, when no more comes, not good. */
START_TEST(test_truncated)
{
    struct response r;
    for (size_t len = 0; len + 1 < sizeof whole; len++) {
        ck_assert_int_eq(response_parse(span_of(whole, len), false, &r), RESPONSE_MORE);
        ck_assert_int_eq(response_parse(span_of(whole, len), true, &r), RESPONSE_BAD);
    }
    ck_assert_int_eq(parse("HTTP/1.1 200 OK\r\n\r\nno length", false, &r), RESPONSE_MORE);
}
END_TEST

START_TEST(test_bad)
{
    const char *bad[] = {
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1 2000\r\n\r\n",
        "HTTP/1.1 099 \r\n\r\n",
        "HTTP/1.1  200\r\n\r\n",
        "ERROR\r\n\r\n",
        "\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 268435457\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    };
    struct response r;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        ck_assert_msg(parse(bad[i], false, &r) == RESPONSE_BAD, "%s", bad[i]);
    }
}
END_TEST

/* Headers without end are not read without end. */
START_TEST(test_endless)
{
    size_t len = RESPONSE_HEAD_MAX + 100;
    char *text = xmalloc(len);
    struct response r;
    memset(text, 'x', len);
    ck_assert_int_eq(response_parse(span_of(text, len), false, &r), RESPONSE_BAD);
    memcpy(text, "HTTP/1.1 200 OK\r\n", 17);
    ck_assert_int_eq(response_parse(span_of(text, len), false, &r), RESPONSE_BAD);
    ck_assert_int_eq(response_parse(span_of(text, RESPONSE_HEAD_MAX), false, &r), RESPONSE_MORE);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ctl/response");
    TCase *tc = tcase_create("response");
    tcase_add_test(tc, test_whole);
    tcase_add_test(tc, test_truncated);
    tcase_add_test(tc, test_bad);
    tcase_add_test(tc, test_endless);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
