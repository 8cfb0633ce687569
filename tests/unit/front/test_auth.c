#include "proxy/front/auth.h"

#include <unistd.h>

#include "tests/unit/check_main.h"

static char path[] = "/tmp/outrigger-auth-XXXXXX";
static struct credentials *credentials;
static struct auth auth;

static void set_up(void)
{
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, "ann:secret\n", 11), 11);
    close(fd);
    struct reason why;
    ck_assert_int_eq(credentials_open(path, &credentials, &why), OK);
    unlink(path);
    auth = (struct auth){.is_needed = true};
}

static void tear_down(void)
{
    credentials_close(&credentials);
}

static struct request parsed;
static struct span error;
static size_t consumed;

static enum parse_result parse(const char *text)
{
    struct codec codec;
    codec_init(&codec);
    return auth_parse(&codec, text, strlen(text), &consumed, &parsed, &error);
}

START_TEST(only_a_set_is_taken)
{
    const char *const lines[] = {"get a\r\n", "version\r\n", "quit\r\n", "\r\n", "\n", "set\r\n", "set a 0 0\r\n", "set a 0 0 x\r\n", "set a 0 0 -1\r\n",
                                 "set a 0 0 4294967296\r\n", "set a 0 0 18446744073709551615\r\n", "sets a 0 0 5\r\n", "add a 0 0 5\r\n", "SET a 0 0 5\r\n",
                                 "mg a v\r\n", "mn\r\n", "ms a 5\r\n", "stats\r\n", "GET / HTTP/1.1\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        ck_assert_msg(parse(lines[i]) == PARSE_ERROR, "%s", lines[i]);
        ck_assert(span_eq(error, SPAN_LIT("CLIENT_ERROR unauthenticated")));
        ck_assert_uint_eq(consumed, strlen(lines[i]));
        ck_assert_int_eq(parsed.op, OP_NONE);
    }
}
END_TEST

START_TEST(a_set_announces_the_credentials)
{
    const char *const lines[] = {"set any 0 0 10\r\n", "set  any 0 0 10\n", "set any flags exptime 10\r\n", "set any 0 0 10 noreply\r\n",
                                 "set any 0 0 10 a b c d e f\r\n"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        ck_assert_msg(parse(lines[i]) == PARSE_REQUEST, "%s", lines[i]);
        ck_assert_uint_eq(consumed, strlen(lines[i]));
        ck_assert_int_eq(parsed.op, OP_AUTH);
        ck_assert_int_eq(parsed.command, COMMAND_SASL);
        ck_assert(parsed.has_value && !parsed.noreply && parsed.is_first && parsed.is_last);
        ck_assert_uint_eq(parsed.value_len, 10);
        ck_assert_uint_eq(parsed.value_tail, 2);
        ck_assert(auth_allows(&auth, &parsed));
    }
}
END_TEST

START_TEST(half_a_line_is_waited_for_but_not_for_long)
{
    char text[CLASSIC_LINE_WAIT + 2];
    memset(text, 's', sizeof text);
    text[sizeof text - 1] = '\0';
    ck_assert_int_eq(parse(text), PARSE_CLOSE);
    text[CLASSIC_LINE_WAIT] = '\0';
    ck_assert_int_eq(parse(text), PARSE_MORE);
    ck_assert_uint_eq(consumed, 0);
    ck_assert_int_eq(parse("set a 0 0 10"), PARSE_MORE);
    ck_assert_int_eq(parse(""), PARSE_MORE);
}
END_TEST

/* A client that began with text never gets at the binary protocol, whatever its next line begins with. */
START_TEST(the_first_byte_decides)
{
    struct codec codec;
    codec_init(&codec);
    ck_assert_int_eq(auth_parse(&codec, "get a\r\n", 7, &consumed, &parsed, &error), PARSE_ERROR);
    ck_assert_int_eq(auth_parse(&codec, "\x80 a\r\n", 5, &consumed, &parsed, &error), PARSE_ERROR);
    ck_assert(span_eq(error, SPAN_LIT("CLIENT_ERROR unauthenticated")));
}
END_TEST

START_TEST(little_is_allowed_before)
{
    for (int op = 0; op <= OP_NONE; op++) {
        struct request request = {.op = (enum op)op};
        ck_assert_int_eq(auth_allows(&auth, &request), op == OP_SASL_LIST || op == OP_AUTH || op == OP_VERSION);
        ck_assert(auth_allows(&(struct auth){.is_needed = false}, &request));
    }
}
END_TEST

static struct auth_answer say_text(struct span value)
{
    struct request request = {.op = OP_AUTH, .protocol = PROTOCOL_CLASSIC, .has_value = true, .value_tail = 2, .value_len = value.len - 2};
    return auth_check(&auth, credentials, &request, value);
}

static void text_gives(struct span value, enum auth_result result, enum reply_status status, const char *text)
{
    struct auth_answer answer = say_text(value);
    ck_assert_msg(answer.result == result && answer.status == status, "%.*s", SPAN_FMT(value));
    ck_assert(span_eq(answer.text, span_str(text)));
    ck_assert_int_eq(auth.is_needed, result != AUTH_GRANTED);
}

START_TEST(text_credentials)
{
    text_gives(SPAN_LIT("ann wrong\r\n"), AUTH_DENIED, REPLY_AUTH_FAILED, "");
    text_gives(SPAN_LIT("ann secretx\r\n"), AUTH_DENIED, REPLY_AUTH_FAILED, "");
    text_gives(SPAN_LIT("ann secret\0\r\n"), AUTH_DENIED, REPLY_AUTH_FAILED, "");
    text_gives(SPAN_LIT("ann\r\n"), AUTH_MALFORMED, REPLY_ERROR, "CLIENT_ERROR bad authentication token format");
    text_gives(SPAN_LIT("\r\n"), AUTH_MALFORMED, REPLY_ERROR, "CLIENT_ERROR bad authentication token format");
    text_gives(SPAN_LIT("ann secret\n "), AUTH_MALFORMED, REPLY_ERROR, "CLIENT_ERROR bad command line termination");
    ck_assert_uint_eq(auth.failures, 6);
    text_gives(SPAN_LIT("ann secret\r\n"), AUTH_GRANTED, REPLY_STORED, "");
    ck_assert_uint_eq(auth.failures, 0);
    text_gives(SPAN_LIT(" ann  secret more\r\n"), AUTH_GRANTED, REPLY_STORED, "");
    text_gives(SPAN_LIT("ann wrong\r\n"), AUTH_DENIED, REPLY_AUTH_FAILED, "");
}
END_TEST

static void plain_gives(struct span mechanism, struct span value, enum auth_result result)
{
    struct request request = {.op = OP_AUTH, .protocol = PROTOCOL_BINARY, .key = mechanism, .has_value = true, .value_len = value.len};
    struct auth_answer answer = auth_check(&auth, credentials, &request, value);
    ck_assert_msg(answer.result == result, "%.*s", SPAN_FMT(value));
    ck_assert_int_eq(answer.status, result == AUTH_GRANTED ? REPLY_AUTH : REPLY_AUTH_FAILED);
    ck_assert(span_eq(answer.text, span_str(result == AUTH_GRANTED ? "Authenticated" : "")));
    ck_assert_int_eq(auth.is_needed, result != AUTH_GRANTED);
}

START_TEST(plain_credentials)
{
    plain_gives(SPAN_LIT("PLAIN"), SPAN_LIT("\0ann\0secret"), AUTH_GRANTED);
    plain_gives(SPAN_LIT("plain"), SPAN_LIT("ann\0ann\0secret"), AUTH_GRANTED);
    plain_gives(SPAN_LIT("PLAIN"), SPAN_LIT("bob\0ann\0secret"), AUTH_DENIED);
    plain_gives(SPAN_LIT("PLAIN"), SPAN_LIT("\0ann\0wrong"), AUTH_DENIED);
    plain_gives(SPAN_LIT("PLAIN"), SPAN_LIT("\0ann\0secret\0"), AUTH_DENIED);
    plain_gives(SPAN_LIT("PLAIN"), SPAN_LIT("\0ann\0"), AUTH_DENIED);
    plain_gives(SPAN_LIT("PLAIN"), SPAN_LIT("\0\0"), AUTH_DENIED);
    plain_gives(SPAN_LIT("PLAIN"), SPAN_LIT("ann secret"), AUTH_MALFORMED);
    plain_gives(SPAN_LIT("PLAIN"), SPAN_LIT("\0ann"), AUTH_MALFORMED);
    plain_gives(SPAN_LIT("PLAIN"), SPAN_LIT("\0"), AUTH_MALFORMED);
    plain_gives(SPAN_LIT("PLAIN"), SPAN_LIT(""), AUTH_MALFORMED);
    plain_gives(SPAN_LIT("PLAI"), SPAN_LIT("\0ann\0secret"), AUTH_MALFORMED);
    plain_gives(SPAN_LIT("CRAM-MD5"), SPAN_LIT("\0ann\0secret"), AUTH_MALFORMED);
    plain_gives(SPAN_LIT("PLAIN"), (struct span){NULL, 0}, AUTH_MALFORMED); /* it was too large */
}
END_TEST

START_TEST(failures_are_not_forever)
{
    for (int i = 0; i < AUTH_FAILURES_MAX; i++) {
        ck_assert(!auth_is_exhausted(&auth));
        say_text(SPAN_LIT("ann wrong\r\n"));
    }
    ck_assert(auth_is_exhausted(&auth));
}
END_TEST

int main(void)
{
    TCase *tests = tcase_create("auth");
    tcase_add_checked_fixture(tests, set_up, tear_down);
    tcase_add_test(tests, only_a_set_is_taken);
    tcase_add_test(tests, a_set_announces_the_credentials);
    tcase_add_test(tests, half_a_line_is_waited_for_but_not_for_long);
    tcase_add_test(tests, the_first_byte_decides);
    tcase_add_test(tests, little_is_allowed_before);
    tcase_add_test(tests, text_credentials);
    tcase_add_test(tests, plain_credentials);
    tcase_add_test(tests, failures_are_not_forever);
    Suite *suite = suite_create("auth");
    suite_add_tcase(suite, tests);
    return check_main(suite);
}
