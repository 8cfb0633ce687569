#include <check.h>
#include <string.h>

#include "common/version.h"
#include "proxy/bus/invalidation_plain.h"
#include "tests/unit/check_main.h"

#define TIMESTAMP 1795464000123ULL

static struct invalidation event_of(const char *key, size_t len, uint64_t version, uint64_t timestamp_ms)
{
    struct invalidation e = {.version = version, .timestamp_ms = timestamp_ms, .key_len = (uint16_t)len};
    memcpy(e.key, key, len);
    return e;
}

static enum err decode(const char *text, struct invalidation **events, uint32_t *count)
{
    char error[200] = "";
    enum err err = invalidation_decode("east", span_str(text), events, count, error, sizeof error);
    ck_assert_msg((err == OK) == (*events != NULL), "%s", text);
    ck_assert_msg((err == OK) == (error[0] == '\0'), "%s: %s", text, error);
    return err;
}

static void refuse(const char *text)
{
    struct invalidation *events = NULL;
    uint32_t count = 1;
    ck_assert_msg(decode(text, &events, &count) == ERR_INVALID, "accepted: %s", text);
    ck_assert_uint_eq(count, 0);
}

static void accept(const char *text)
{
    struct invalidation *events = NULL;
    uint32_t count = 0;
    ck_assert_msg(decode(text, &events, &count) == OK, "refused: %s", text);
    ck_assert_uint_eq(count, 1);
    free(events);
}

#define MESSAGE(event) "{\"format\":1,\"region\":\"east\",\"events\":[" event "]}"
#define EVENT(key, version, timestamp) MESSAGE("{" key ",\"version\":" version ",\"timestamp\":" timestamp "}")

START_TEST(round_trip)
{
    char every[KEY_MAX];
    for (size_t i = 0; i < sizeof every; i++) {
        every[i] = (char)i;
    }
    struct invalidation in[] = {
        event_of("package:bash", 12, 3761234567890123456ULL, TIMESTAMP),
        event_of("k", 1, 1, 1),
        event_of("schl\xc3\xbcssel\xf0\x9f\x98\x80", 14, VERSION_MAX, TIMESTAMP),
        event_of("quote\"back\\slash/", 17, 2, TIMESTAMP),
        event_of("\xff", 1, 3, TIMESTAMP),
        event_of("\xff\xfe", 2, 4, TIMESTAMP),
        event_of("\xff\xfe\xfd", 3, 5, TIMESTAMP),
        event_of("nul\0inside", 10, 6, TIMESTAMP),
        event_of("\xed\xa0\x80", 3, 7, TIMESTAMP), /* half a surrogate pair: not UTF-8 */
        event_of("line\nend", 8, 8, TIMESTAMP),
        event_of(every, sizeof every, 9, VERSION_MAX >> VERSION_MS_SHIFT),
    };
    const struct invalidation *pointers[ARRAY_LEN(in)];
    for (size_t i = 0; i < ARRAY_LEN(in); i++) {
        pointers[i] = &in[i];
    }
    char *text = NULL;
    size_t len = 0;
    ck_assert_int_eq(invalidation_encode("east", pointers, ARRAY_LEN(in), &text, &len), OK);
    struct invalidation *out = NULL;
    uint32_t count = 0;
    char error[200] = "";
    ck_assert_int_eq(invalidation_decode("east", span_of(text, len), &out, &count, error, sizeof error), OK);
    ck_assert_uint_eq(count, ARRAY_LEN(in));
    for (size_t i = 0; i < count; i++) {
        ck_assert_uint_eq(out[i].version, in[i].version);
        ck_assert_uint_eq(out[i].timestamp_ms, in[i].timestamp_ms);
        ck_assert_uint_eq(out[i].key_len, in[i].key_len);
        ck_assert_mem_eq(out[i].key, in[i].key, in[i].key_len);
    }
    /* Every truncation is refused. */
    for (size_t i = 0; i < len; i++) {
        char *part = malloc(i + 1); /* of exactly that size, so that reading beyond shows */
        memcpy(part, text, i);
        struct invalidation *none = NULL;
        ck_assert_int_eq(invalidation_decode("east", span_of(part, i), &none, &count, error, sizeof error), ERR_INVALID);
        ck_assert_ptr_null(none);
        free(part);
    }
    free(out);
    free(text);
}
END_TEST

START_TEST(exact_text)
{
    struct invalidation a = event_of("package:bash", 12, 3761, TIMESTAMP);
    struct invalidation b = event_of("\xff\xfe", 2, 9, 5);
    const struct invalidation *events[] = {&a, &b};
    char *text = NULL;
    size_t len = 0;
    ck_assert_int_eq(invalidation_encode("east", events, 2, &text, &len), OK);
    ck_assert_str_eq(text,
                     "{\"format\":1,\"region\":\"east\",\"events\":[{\"key\":\"package:bash\",\"version\":\"3761\",\"timestamp\":"
                     "1795464000123},{\"key64\":\"//4=\",\"version\":\"9\",\"timestamp\":5}]}");
    ck_assert_uint_eq(len, strlen(text));
    free(text);
}
END_TEST

START_TEST(encode_refuses)
{
    struct invalidation good = event_of("k", 1, 1, 1);
    const struct invalidation *events[INVALIDATION_EVENTS_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(events); i++) {
        events[i] = &good;
    }
    char *text = NULL;
    size_t len = 0;
    ck_assert_int_eq(invalidation_encode("east", events, 0, &text, &len), ERR_INVALID);
    ck_assert_int_eq(invalidation_encode("east", events, INVALIDATION_EVENTS_MAX + 1, &text, &len), ERR_INVALID);
    ck_assert_int_eq(invalidation_encode("", events, 1, &text, &len), ERR_INVALID);
    struct invalidation bad[] = {
        event_of("", 0, 1, 1),
        event_of("k", 1, 0, 1),
        event_of("k", 1, VERSION_MAX + 1, 1),
        event_of("k", 1, 1, 0),
        event_of("k", 1, 1, (VERSION_MAX >> VERSION_MS_SHIFT) + 1),
        event_of("k", 1, 1, 1),
    };
    bad[5].key_len = KEY_MAX + 1;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        events[1] = &bad[i];
        ck_assert_int_eq(invalidation_encode("east", events, 2, &text, &len), ERR_INVALID);
        ck_assert_ptr_null(text);
    }
    /* 1,024 of the longest do not fit. */
    char quotes[KEY_MAX];
    memset(quotes, '"', sizeof quotes);
    struct invalidation long_one = event_of(quotes, sizeof quotes, VERSION_MAX, TIMESTAMP);
    for (size_t i = 0; i < ARRAY_LEN(events); i++) {
        events[i] = &long_one;
    }
    ck_assert_int_eq(invalidation_encode("east", events, INVALIDATION_EVENTS_MAX, &text, &len), ERR_TOO_LARGE);
    ck_assert_ptr_null(text);
    ck_assert_int_eq(invalidation_encode("east", events, 512, &text, &len), OK);
    free(text);
}
END_TEST

START_TEST(keys)
{
    char text[2048];
    char key[600];
    accept(EVENT("\"key\":\"k\"", "\"1\"", "1"));
    refuse(EVENT("\"key\":\"\"", "\"1\"", "1"));
    refuse(EVENT("\"key\":5", "\"1\"", "1"));
    refuse(EVENT("\"key\":null", "\"1\"", "1"));
    refuse(EVENT("\"key\":\"a\\u0000b\"", "\"1\"", "1"));
    refuse(EVENT("\"key\":\"\xff\"", "\"1\"", "1"));
    refuse(EVENT("\"key\":\"k\",\"key64\":\"aw==\"", "\"1\"", "1"));
    refuse(EVENT("\"key\":\"k\",\"key\":\"l\"", "\"1\"", "1"));
    refuse(EVENT("\"prefix\":\"k*\"", "\"1\"", "1"));
    for (size_t len = 249; len <= 252; len++) {
        memset(key, 'k', len);
        key[len] = '\0';
        snprintf(text, sizeof text, MESSAGE("{\"key\":\"%s\",\"version\":\"1\",\"timestamp\":1}"), key);
        (len <= KEY_MAX ? accept : refuse)(text);
    }
}
END_TEST

START_TEST(keys64)
{
    char text[2048];
    char key[600];
    accept(EVENT("\"key64\":\"aw==\"", "\"1\"", "1"));
    accept(EVENT("\"key64\":\"//4=\"", "\"1\"", "1"));
    accept(EVENT("\"key64\":\"////\"", "\"1\"", "1"));
    static const char *const bad[] = {"",     "a",     "aw",   "aw=",     "aw===",       "a===",     "====",
                                      "ax==", "//5=",  "a w=", "aw==\\n", "_-==",        "aw==aw==", "=aaa",
                                      "aa=a", "aaaa=", "aaa*", "aaa\\\\", "a\xc3\xa4==", "aaaaaaa"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        snprintf(text, sizeof text, MESSAGE("{\"key64\":\"%s\",\"version\":\"1\",\"timestamp\":1}"), bad[i]);
        refuse(text);
    }
    /* 250 bytes are 336 digits, two of them padding; 251 have one, 252 none. */
    memset(key, 'A', 336);
    key[336] = '\0';
    static const size_t padding[] = {2, 1, 0};
    for (size_t i = 0; i < 3; i++) {
        memset(key, 'A', 336);
        memset(key + 336 - padding[i], '=', padding[i]);
        snprintf(text, sizeof text, MESSAGE("{\"key64\":\"%s\",\"version\":\"1\",\"timestamp\":1}"), key);
        (i == 0 ? accept : refuse)(text);
    }
    memset(key, 'A', 340);
    key[340] = '\0';
    snprintf(text, sizeof text, MESSAGE("{\"key64\":\"%s\",\"version\":\"1\",\"timestamp\":1}"), key);
    refuse(text);
}
END_TEST

START_TEST(versions)
{
    accept(EVENT("\"key\":\"k\"", "\"9223372036854775807\"", "1"));
    refuse(EVENT("\"key\":\"k\"", "\"9223372036854775808\"", "1"));
    refuse(EVENT("\"key\":\"k\"", "\"18446744073709551617\"", "1")); /* 1, if it wrapped */
    refuse(EVENT("\"key\":\"k\"", "\"0\"", "1"));
    refuse(EVENT("\"key\":\"k\"", "\"01\"", "1"));
    refuse(EVENT("\"key\":\"k\"", "\"\"", "1"));
    refuse(EVENT("\"key\":\"k\"", "\"-1\"", "1"));
    refuse(EVENT("\"key\":\"k\"", "\"+1\"", "1"));
    refuse(EVENT("\"key\":\"k\"", "\" 1\"", "1"));
    refuse(EVENT("\"key\":\"k\"", "\"1 \"", "1"));
    refuse(EVENT("\"key\":\"k\"", "\"1e3\"", "1"));
    refuse(EVENT("\"key\":\"k\"", "\"0x1\"", "1"));
    refuse(EVENT("\"key\":\"k\"", "1", "1"));
    refuse(EVENT("\"key\":\"k\"", "null", "1"));
    refuse(MESSAGE("{\"key\":\"k\",\"timestamp\":1}"));
}
END_TEST

START_TEST(timestamps)
{
    accept(EVENT("\"key\":\"k\"", "\"1\"", "4398046511103")); /* 2^42 - 1 */
    refuse(EVENT("\"key\":\"k\"", "\"1\"", "4398046511104"));
    refuse(EVENT("\"key\":\"k\"", "\"1\"", "0"));
    refuse(EVENT("\"key\":\"k\"", "\"1\"", "-1"));
    refuse(EVENT("\"key\":\"k\"", "\"1\"", "1.5"));
    refuse(EVENT("\"key\":\"k\"", "\"1\"", "\"1\""));
    refuse(EVENT("\"key\":\"k\"", "\"1\"", "99999999999999999999"));
    refuse(MESSAGE("{\"key\":\"k\",\"version\":\"1\"}"));
}
END_TEST

START_TEST(envelopes)
{
    static const char *const bad[] = {
        "",
        "null",
        "[]",
        "1",
        "\"x\"",
        "{}",
        "not json",
        MESSAGE(""),
        MESSAGE("1"),
        MESSAGE("[]"),
        MESSAGE("{}"),
        EVENT("\"key\":\"k\"", "\"1\"", "1") "x",
        EVENT("\"key\":\"k\"", "\"1\"", "1") "{}",
        "{\"region\":\"east\",\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
        "{\"format\":\"1\",\"region\":\"east\",\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
        "{\"format\":0,\"region\":\"east\",\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
        "{\"format\":-1,\"region\":\"east\",\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
        "{\"format\":1.0,\"region\":\"east\",\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
        "{\"format\":1,\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
        "{\"format\":1,\"region\":\"west\",\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
        "{\"format\":1,\"region\":\"eastern\",\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
        "{\"format\":1,\"region\":\"eas\",\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
        "{\"format\":1,\"region\":7,\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
        "{\"format\":1,\"region\":\"east\"}",
        "{\"format\":1,\"region\":\"east\",\"events\":{}}",
        "{\"format\":1,\"format\":1,\"region\":\"east\",\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        refuse(bad[i]);
    }
    /* One bad event spoils the message: applying half of it and acknowledging would lose the rest. */
    refuse(MESSAGE("{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1},{\"key\":\"k\",\"version\":\"x\",\"timestamp\":1}"));
    /* What we do not know is not our business. */
    accept(
        "{\"format\":1,\"x\":[1,{\"y\":null}],\"region\":\"east\",\"events\":[{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1,"
        "\"cause\":{\"who\":\"me\"}}]}");
}
END_TEST

START_TEST(newer_formats)
{
    struct invalidation *events = NULL;
    uint32_t count = 0;
    ck_assert_int_eq(decode("{\"format\":2}", &events, &count), ERR_UNSUPPORTED);
    ck_assert_int_eq(decode("{\"format\":9223372036854775807,\"region\":5,\"events\":0}", &events, &count), ERR_UNSUPPORTED);
    ck_assert_int_eq(decode("{\"format\":9223372036854775808}", &events, &count), ERR_INVALID);
}
END_TEST

START_TEST(limits)
{
    struct invalidation *events = NULL;
    uint32_t count = 0;
    char error[8]; /* a short one is no danger */
    size_t size = INVALIDATION_MESSAGE_MAX + 1;
    char *text = malloc(size);
    memset(text, ' ', size);
    const char *message = EVENT("\"key\":\"k\"", "\"1\"", "1");
    memcpy(text, message, strlen(message));
    ck_assert_int_eq(invalidation_decode("east", span_of(text, size), &events, &count, error, sizeof error), ERR_INVALID);
    ck_assert_int_eq(invalidation_decode("east", span_of(text, size - 1), &events, &count, error, sizeof error), OK);
    free(events);
    memset(text, '[', size); /* deep nesting */
    ck_assert_int_eq(invalidation_decode("east", span_of(text, size - 1), &events, &count, error, sizeof error), ERR_INVALID);
    for (uint32_t n = INVALIDATION_EVENTS_MAX; n <= INVALIDATION_EVENTS_MAX + 1; n++) {
        size_t used = (size_t)snprintf(text, size, "{\"format\":1,\"region\":\"east\",\"events\":[");
        for (uint32_t i = 0; i < n; i++) {
            used += (size_t)snprintf(text + used, size - used, "%s{\"key\":\"%u\",\"version\":\"1\",\"timestamp\":1}",
                                     i > 0 ? "," : "", i);
        }
        used += (size_t)snprintf(text + used, size - used, "]}");
        enum err err = invalidation_decode("east", span_of(text, used), &events, &count, error, sizeof error);
        ck_assert_int_eq(err, n > INVALIDATION_EVENTS_MAX ? ERR_INVALID : OK);
        free(events);
    }
    free(text);
}
END_TEST

START_TEST(patterns)
{
    struct invalidation in[] = {event_of("user:*", 6, 9, TIMESTAMP), event_of("\xff*", 2, 9, TIMESTAMP)};
    for (size_t i = 0; i < ARRAY_LEN(in); i++) {
        in[i].is_pattern = true;
        const struct invalidation *pointer = &in[i];
        char *text = NULL;
        size_t len = 0;
        ck_assert_int_eq(invalidation_encode("east", &pointer, 1, &text, &len), OK);
        struct invalidation out;
        char region[REGION_MAX];
        char error[200] = "";
        ck_assert_int_eq(invalidation_decode_rule(span_of(text, len), &out, region, error, sizeof error), OK);
        ck_assert_str_eq(region, "east");
        ck_assert(out.is_pattern && span_eq(span_of(out.key, out.key_len), span_of(in[i].key, in[i].key_len)) && out.version == 9);
        free(text);
    }
    accept(EVENT("\"pattern\":\"a*\"", "\"1\"", "1"));
    refuse(EVENT("\"pattern\":\"[\"", "\"1\"", "1"));
    refuse(EVENT("\"pattern\":\"\"", "\"1\"", "1"));
    refuse(EVENT("\"pattern\":\"a\",\"key\":\"a\"", "\"1\"", "1"));
    refuse(EVENT("\"pattern64\":\"%%\"", "\"1\"", "1"));
    struct invalidation out;
    char region[REGION_MAX];
    char error[200] = "";
    ck_assert_int_eq(invalidation_decode_rule(span_str(EVENT("\"key\":\"a\"", "\"1\"", "1")), &out, region, error, sizeof error), ERR_INVALID);
    ck_assert_int_eq(invalidation_decode_rule(SPAN_LIT("{}"), &out, region, error, sizeof error), ERR_INVALID);
    in[0].key[0] = '[';
    ck_assert(!invalidation_is_valid(&in[0]));
}
END_TEST

/* Whatever the short way takes is what the general one makes of it; and it takes the common messages. */
START_TEST(plain)
{
    char quotes[KEY_MAX];
    memset(quotes, '"', sizeof quotes);
    struct invalidation in[] = {
        event_of("package:bash", 12, 3761234567890123456ULL, TIMESTAMP), event_of("k", 1, 1, 1), event_of("a\"b\\c/d{}~ ", 11, VERSION_MAX, TIMESTAMP),
        event_of(quotes, sizeof quotes, 9, VERSION_MAX >> VERSION_MS_SHIFT)};
    const struct invalidation *pointers[ARRAY_LEN(in)];
    for (size_t i = 0; i < ARRAY_LEN(in); i++) {
        pointers[i] = &in[i];
    }
    char *text = NULL;
    char *json = NULL;
    size_t len = 0;
    size_t json_len = 0;
    ck_assert(invalidation_plain_encode("east", pointers, ARRAY_LEN(in), &text, &len));
    ck_assert_int_eq(invalidation_encode_json("east", pointers, ARRAY_LEN(in), &json, &json_len), OK);
    ck_assert_uint_eq(len, json_len);
    ck_assert_mem_eq(text, json, len);
    struct invalidation *out = NULL;
    uint32_t count = 0;
    ck_assert(!invalidation_plain_decode("west", span_of(text, len), &out, &count));
    ck_assert(invalidation_plain_decode("east", span_of(text, len), &out, &count));
    ck_assert_uint_eq(count, ARRAY_LEN(in));
    for (size_t i = 0; i < count; i++) {
        ck_assert_uint_eq(out[i].version, in[i].version);
        ck_assert_uint_eq(out[i].timestamp_ms, in[i].timestamp_ms);
        ck_assert_uint_eq(out[i].key_len, in[i].key_len);
        ck_assert_mem_eq(out[i].key, in[i].key, in[i].key_len);
    }
    free(out);
    free(json);
    free(text);
}
END_TEST

static bool is_plain(const char *text)
{
    struct invalidation *events = NULL;
    uint32_t count = 0;
    bool is_taken = invalidation_plain_decode("east", span_str(text), &events, &count);
    ck_assert(is_taken == (events != NULL));
    free(events);
    return is_taken;
}

START_TEST(plain_refuses)
{
    static const char *const others[] = {
        "", "{", MESSAGE(""), MESSAGE("{}"), " " MESSAGE("{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}"),
        MESSAGE("{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}") " ", MESSAGE("{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1},"),
        EVENT("\"key\":\"\"", "\"1\"", "1"), EVENT("\"key\":\"k\\n\"", "\"1\"", "1"), EVENT("\"key\":\"k\\u0041\"", "\"1\"", "1"),
        EVENT("\"key\":\"k\x7f\"", "\"1\"", "1"), EVENT("\"key\":\"\xc3\xbc\"", "\"1\"", "1"), EVENT("\"key64\":\"//4=\"", "\"1\"", "1"),
        EVENT("\"pattern\":\"k*\"", "\"1\"", "1"), EVENT("\"key\":\"k\"", "\"0\"", "1"), EVENT("\"key\":\"k\"", "\"01\"", "1"),
        EVENT("\"key\":\"k\"", "\"9223372036854775808\"", "1"), EVENT("\"key\":\"k\"", "\"10000000000000000001\"", "1"),
        EVENT("\"key\":\"k\"", "\"1\"", "0"), EVENT("\"key\":\"k\"", "\"1\"", "1.5"), EVENT("\"key\":\"k\"", "\"1\"", "1e3"),
        EVENT("\"key\":\"k\"", "\"1\"", "-1"), EVENT("\"key\":\"k\"", "1", "1")};
    ck_assert(is_plain(EVENT("\"key\":\"k\"", "\"1\"", "1")));
    for (size_t i = 0; i < ARRAY_LEN(others); i++) {
        ck_assert_msg(!is_plain(others[i]), "%s", others[i]);
    }
    char key[KEY_MAX + 2] = "";
    char text[KEY_MAX + 200];
    memset(key, 'k', KEY_MAX + 1);
    snprintf(text, sizeof text, EVENT("\"key\":\"%s\"", "\"1\"", "1"), key);
    ck_assert(!is_plain(text));
    key[KEY_MAX] = '\0';
    snprintf(text, sizeof text, EVENT("\"key\":\"%s\"", "\"1\"", "1"), key);
    ck_assert(is_plain(text));
}
END_TEST

/* More ends of objects than events may be in one message, as keys can have them, too. */
START_TEST(plain_counts)
{
    struct invalidation in = event_of("}}}}", 4, 1, 1);
    const struct invalidation *pointers[INVALIDATION_EVENTS_MAX];
    for (size_t i = 0; i < ARRAY_LEN(pointers); i++) {
        pointers[i] = &in;
    }
    char *text = NULL;
    size_t len = 0;
    ck_assert(invalidation_plain_encode("east", pointers, INVALIDATION_EVENTS_MAX, &text, &len));
    struct invalidation *out = NULL;
    uint32_t count = 0;
    ck_assert(invalidation_plain_decode("east", span_of(text, len), &out, &count));
    ck_assert_uint_eq(count, INVALIDATION_EVENTS_MAX);
    free(out);
    char *more = malloc(len + 64); /* one event too many */
    memcpy(more, text, len - 2);
    int n = snprintf(more + len - 2, 66, ",{\"key\":\"k\",\"version\":\"1\",\"timestamp\":1}]}");
    out = NULL;
    ck_assert(!invalidation_plain_decode("east", span_of(more, len - 2 + (size_t)n), &out, &count));
    ck_assert_ptr_null(out);
    free(more);
    free(text);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bus/invalidation");
    TCase *tc = tcase_create("invalidation");
    tcase_add_test(tc, round_trip);
    tcase_add_test(tc, exact_text);
    tcase_add_test(tc, encode_refuses);
    tcase_add_test(tc, keys);
    tcase_add_test(tc, keys64);
    tcase_add_test(tc, versions);
    tcase_add_test(tc, timestamps);
    tcase_add_test(tc, envelopes);
    tcase_add_test(tc, newer_formats);
    tcase_add_test(tc, limits);
    tcase_add_test(tc, patterns);
    tcase_add_test(tc, plain);
    tcase_add_test(tc, plain_refuses);
    tcase_add_test(tc, plain_counts);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
