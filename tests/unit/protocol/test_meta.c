/* The replies here are what a memcached 1.6.38 has said, unless they are malformed. */

#include "proxy/protocol/meta.h"
#include "tests/unit/check_main.h"

#define MAX_VALUE (1U << 20)
#define K10 "kkkkkkkkkk"
#define K50 K10 K10 K10 K10 K10
#define K250 K50 K50 K50 K50 K50

static void check_write(struct meta_request request, enum err want_err, const char *want)
{
    struct chunk_pool pool;
    struct chain out;
    chunk_pool_init(&pool, 1U << 20);
    chain_init(&out, &pool);
    ck_assert_int_eq(meta_write(&out, &request), want_err);
    struct iovec iov[4];
    int n = chain_iov(&out, iov, 4);
    ck_assert_int_eq(n, want_err == OK ? 1 : 0);
    if (n > 0) {
        ck_assert_msg(iov[0].iov_len == strlen(want) && memcmp(iov[0].iov_base, want, iov[0].iov_len) == 0, "'%.*s' not '%s'",
                      (int)iov[0].iov_len, (char *)iov[0].iov_base, want);
    }
    chain_clear(&out);
    ck_assert_uint_eq(pool.used_bytes, 0);
    chunk_pool_deinit(&pool);
}

static struct meta_request with_key(enum meta_command command, struct span key)
{
    return (struct meta_request){.command = command, .with = META_WANT_VALUE | META_WANT_FLAGS, .key = key, .value_len = 7};
}

START_TEST(write_commands)
{
    struct span key = SPAN_LIT("key");
    check_write((struct meta_request){.command = META_GET, .key = key}, OK, "mg key\r\n");
    check_write(with_key(META_GET, key), OK, "mg key v f\r\n");
    check_write((struct meta_request){.command = META_GET, .key = key, .with = META_WANT_VALUE}, OK, "mg key v\r\n");
    check_write((struct meta_request){.command = META_GET,
                                      .key = key,
                                      .with = META_WANT_VALUE | META_WANT_FLAGS | META_WANT_CAS | META_WANT_TTL | META_VIVIFY |
                                              META_VERSION,
                                      .vivify_ttl = 30,
                                      .version = 123},
                OK, "mg key v f c t E123 N30\r\n");
    check_write((struct meta_request){.command = META_GET,
                                      .key = key,
                                      .with = META_WANT_VALUE | META_WANT_TTL | META_TTL | META_VIVIFY | META_RECACHE | META_ORDERED |
                                              META_WANT_HIT | META_NO_BUMP,
                                      .ttl = 5,
                                      .vivify_ttl = 30,
                                      .recache_ttl = -7,
                                      .ttl_order = "NRtT"},
                OK, "mg key N30 R-7 t T5 v h u\r\n");
    check_write((struct meta_request){.command = META_GET,
                                      .key = key,
                                      .with = META_WANT_TTL | META_TTL | META_ORDERED,
                                      .ttl = -1,
                                      .ttl_order = "Tt"},
                OK, "mg key T-1 t\r\n");
    check_write((struct meta_request){.command = META_DEBUG, .key = key}, OK, "me key\r\n");
    check_write((struct meta_request){.command = META_SET, .key = key, .value_len = 0}, OK, "ms key 0\r\n");
    check_write((struct meta_request){.command = META_SET,
                                      .key = key,
                                      .value_len = 1048576,
                                      .with = META_WANT_CAS | META_CAS | META_VERSION | META_TTL | META_CLIENT_FLAGS | META_MODE,
                                      .cas = UINT64_MAX,
                                      .version = 9223372036854775807ULL,
                                      .ttl = -1,
                                      .client_flags = UINT32_MAX,
                                      .mode = 'A'},
                OK, "ms key 1048576 c C18446744073709551615 E9223372036854775807 T-1 F4294967295 MA\r\n");
    check_write((struct meta_request){.command = META_DELETE,
                                      .key = key,
                                      .with = META_CAS | META_VERSION | META_TTL | META_INVALIDATE | META_DROP_VALUE,
                                      .cas = 2000,
                                      .version = 2005,
                                      .ttl = 20},
                OK, "md key C2000 E2005 T20 I x\r\n");
    check_write((struct meta_request){.command = META_ARITHMETIC,
                                      .key = key,
                                      .with = META_WANT_VALUE | META_MODE | META_DELTA,
                                      .mode = 'D',
                                      .delta = UINT64_MAX},
                OK, "ma key v MD D18446744073709551615\r\n");
}
END_TEST

START_TEST(write_every_flag)
{
    struct meta_request request = {
        .command = META_SET,
        .with = (META_DELTA << 1) - 1,
        .key = SPAN_LIT(K250),
        .cas = UINT64_MAX,
        .version = UINT64_MAX,
        .ttl = INT64_MIN,
        .vivify_ttl = UINT32_MAX,
        .client_flags = UINT32_MAX,
        .mode = 'S',
        .delta = UINT64_MAX,
        .value_len = SIZE_MAX,
    };
    check_write(request, OK,
                "ms " K250 " 18446744073709551615 v f c t C18446744073709551615 E18446744073709551615 T-9223372036854775808 "
                "N4294967295 F4294967295 I x MS D18446744073709551615\r\n");
}
END_TEST

START_TEST(write_binary_keys)
{
    check_write(with_key(META_GET, SPAN_LIT(" ")), OK, "mg IA== b v f\r\n");
    check_write(with_key(META_GET, SPAN_LIT("nul\0 \n")), OK, "mg bnVsACAK b v f\r\n");
    check_write(with_key(META_SET, SPAN_LIT("x\ry")), OK, "ms eA15 7 b v f\r\n");
    check_write(with_key(META_DELETE, SPAN_LIT("a\tb\x01\x7f")), OK, "md YQliAX8= b v f\r\n");
    check_write(with_key(META_GET, SPAN_LIT("key\x7f")), OK, "mg a2V5fw== b v f\r\n");
    check_write(with_key(META_GET, SPAN_LIT("\xff\xfe schl\xc3\xbcssel")), OK, "mg //4gc2NobMO8c3NlbA== b v f\r\n");
    check_write(with_key(META_GET, SPAN_LIT("schl\xc3\xbcssel\xff\x80~!")), OK, "mg schl\xc3\xbcssel\xff\x80~! v f\r\n");
    for (size_t at = 0; at < 20; at++) { /* wherever the byte stands */
        for (int byte = 0; byte < 256; byte++) {
            char key[20];
            struct chain out;
            memset(key, 'k', sizeof key);
            key[at] = (char)byte;
            chain_init(&out, NULL);
            struct meta_request request = with_key(META_GET, span_of(key, sizeof key));
            ck_assert_int_eq(meta_write(&out, &request), OK);
            bool is_binary = byte <= ' ' || byte == 0x7f;
            ck_assert_uint_eq(out.bytes, is_binary ? sizeof "mg  b v f\r\n" - 1 + 28 : sizeof "mg  v f\r\n" - 1 + 20);
            chain_clear(&out);
        }
    }
}
END_TEST

START_TEST(write_keys_of_every_length)
{
    char key[251];
    for (size_t len = 0; len <= sizeof key; len++) {
        char want[400];
        memset(key, 'k', sizeof key);
        snprintf(want, sizeof want, "mg %.*s v f\r\n", (int)len, key);
        check_write(with_key(META_GET, span_of(key, len)), len == 0 || len == 251 ? ERR_INVALID : OK, want);
        if (len > 0) {
            key[0] = ' '; /* 186 bytes are 248 in base64: what fits into memcached's 250 */
            struct meta_request request = with_key(META_GET, span_of(key, len));
            struct chain out;
            chain_init(&out, NULL);
            ck_assert_int_eq(meta_write(&out, &request), len > 186 ? ERR_INVALID : OK);
            ck_assert_uint_eq(out.bytes, len > 186 ? 0 : sizeof "mg  b v f\r\n" - 1 + (len + 2) / 3 * 4);
            chain_clear(&out);
        }
    }
    memset(key, '\t', sizeof key); /* not for base64, but a line takes it */
    char want[400];
    snprintf(want, sizeof want, "mg %.*s v f\r\n", 250, key);
    check_write(with_key(META_GET, span_of(key, 250)), OK, want);
}
END_TEST

START_TEST(write_without_memory)
{
    struct chunk_pool pool;
    struct chain out;
    chunk_pool_init(&pool, 0);
    chain_init(&out, &pool);
    struct meta_request request = with_key(META_GET, SPAN_LIT("key"));
    ck_assert_int_eq(meta_write(&out, &request), ERR_NOMEM);
    chain_clear(&out);
}
END_TEST

/* Parses what begins with `reply`, cut at every byte: only the whole gives a result. */
static struct meta_reply check_parse(const char *reply, size_t len, enum meta_result want)
{
    struct meta_reply out;
    size_t consumed, need;
    for (size_t cut = 0; cut <= len; cut++) {
        char *copy = malloc(cut + (cut == 0)); /* the sanitizer knows where it ends */
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, reply, cut);
        enum meta_result result = meta_parse(copy, cut, MAX_VALUE, &out, &consumed, &need);
        if (cut < len) {
            ck_assert_msg(result == META_MORE || (want == META_BAD && result == META_BAD), "'%s' cut at %zu: %d", reply, cut,
                          result);
            ck_assert(result == META_BAD || need == 0 || (need > cut && (want == META_BAD || need == len)));
        } else {
            ck_assert_msg(result == want, "'%s': %d", reply, result);
        }
        free(copy);
    }
    char *more = malloc(len + 10);
    ck_assert_ptr_nonnull(more);
    memcpy(more, reply, len);
    memcpy(more + len, "\r\nVA 5 f0\r", 10);
    ck_assert_int_eq(meta_parse(more, len, MAX_VALUE, &out, &consumed, &need), want);
    ck_assert_int_eq(meta_parse(more, len + 10, MAX_VALUE, &out, &consumed, &need), want);
    if (want == META_REPLY) {
        ck_assert_uint_eq(consumed, len);
        if (out.status == META_VA) { /* at the same place in what the caller holds */
            out.value.data = reply + (out.value.data - more);
        } else if (out.text.len > 0) {
            out.text.data = reply + (out.text.data - more);
        }
    }
    free(more);
    return out;
}

static const struct {
    const char *reply;
    struct meta_reply want;
} replies[] = {
    {"VA 5 f7\r\nhello\r\n", {META_VA, .client_flags = 7, .ttl = -1, .value_len = 5, .value = {"hello", 5}}},
    {"VA 5 f0\r\nhello\r\n", {META_VA, .ttl = -1, .value_len = 5, .value = {"hello", 5}}},
    {"VA 5 f0 c1000\r\nhello\r\n", {META_VA, .cas = 1000, .ttl = -1, .value_len = 5, .value = {"hello", 5}}},
    {"VA 1 f0 c9999999999999999999\r\nx\r\n",
     {META_VA, .cas = 9999999999999999999U, .ttl = -1, .value_len = 1, .value = {"x", 1}}},
    {"VA 1 f0 c18446744073709551615\r\nx\r\n", {META_VA, .cas = UINT64_MAX, .ttl = -1, .value_len = 1, .value = {"x", 1}}},
    {"VA 1 f0 c7 t30\r\nx\r\n", {META_VA, .cas = 7, .ttl = 30, .value_len = 1, .value = {"x", 1}}},
    {"VA 2\r\n6 \r\n", {META_VA, .ttl = -1, .value_len = 2, .value = {"6 ", 2}}},
    {"VA 0 f0\r\n\r\n", {META_VA, .ttl = -1, .value = {"", 0}}},
    {"VA 4 f0\r\n\r\nEN\r\n", {META_VA, .ttl = -1, .value_len = 4, .value = {"\r\nEN", 4}}},
    {"VA 5 f7 c1000 t60\r\nhello\r\n",
     {META_VA, .client_flags = 7, .cas = 1000, .ttl = 60, .value_len = 5, .value = {"hello", 5}}},
    {"VA 0 f0 c2000 t-1 W\r\n\r\n", {META_VA, .won = true, .cas = 2000, .ttl = -1, .value = {"", 0}}},
    {"VA 0 f0 c2000 t30 Z\r\n\r\n", {META_VA, .wait = true, .cas = 2000, .ttl = 30, .value = {"", 0}}},
    {"VA 0 f0 c2005 t20 X W\r\n\r\n", {META_VA, .won = true, .stale = true, .cas = 2005, .ttl = 20, .value = {"", 0}}},
    {"VA 0 f0 c2005 t20 Z X\r\n\r\n", {META_VA, .wait = true, .stale = true, .cas = 2005, .ttl = 20, .value = {"", 0}}},
    {"VA 1 kbnVsACAK b\r\n0\r\n", {META_VA, .ttl = -1, .value_len = 1, .value = {"0", 1}}},
    {"VA 0 s0 kkey O123 f0 t19 c2005 h1 l1 Z X\r\n\r\n",
     {META_VA, .wait = true, .stale = true, .cas = 2005, .ttl = 19, .was_hit = true, .last_access_s = 1, .value = {"", 0}}},
    {"VA 1 c18446744073709551615 f4294967295\r\nx\r\n",
     {META_VA, .cas = UINT64_MAX, .client_flags = UINT32_MAX, .ttl = -1, .value_len = 1, .value = {"x", 1}}},
    {"VA 1  f3   W \r\nx\r\n", {META_VA, .won = true, .client_flags = 3, .ttl = -1, .value_len = 1, .value = {"x", 1}}},
    {"HD\r\n", {META_HD, .ttl = -1}},
    {"HD c1000\r\n", {META_HD, .cas = 1000, .ttl = -1}},
    {"STAT evictions 7\r\n", {META_STAT, .ttl = -1, .text = {"evictions 7", 11}}},
    {"END\r\n", {META_END, .ttl = -1}},
    {"HD t60\r\n", {META_HD, .ttl = 60}},
    {"HD f5 kkey O1 W\r\n", {META_HD, .won = true, .client_flags = 5, .ttl = -1}},
    {"EN\r\n", {META_EN, .ttl = -1}},
    {"EN knokey O1\r\n", {META_EN, .ttl = -1}},
    {"NF\r\n", {META_NF, .ttl = -1}},
    {"NS\r\n", {META_NS, .ttl = -1}},
    {"EX\r\n", {META_EX, .ttl = -1}},
    {"MN\r\n", {META_MN, .ttl = -1}},
    {"ME a exp=-1 la=1 cas=2 fetch=no cls=1 size=61\r\n",
     {META_DEBUG_IS, .ttl = -1, .text = {"ME a exp=-1 la=1 cas=2 fetch=no cls=1 size=61", 45}}},
    {"HD s12 h1 l34\r\n", {META_HD, .ttl = -1, .size = 12, .was_hit = true, .last_access_s = 34}},
    {"OK\r\n", {META_OK, .ttl = -1}},
    {"VERSION 1.6.38\r\n", {META_VERSION_IS, .ttl = -1, .text = {"1.6.38", 6}}},
    {"ERROR\r\n", {META_REFUSED, .ttl = -1, .text = {"ERROR", 5}}},
    {"ERROR Too many open connections\r\n", {META_REFUSED, .ttl = -1, .text = {"ERROR Too many open connections", 31}}},
    {"CLIENT_ERROR invalid flag\r\n", {META_REFUSED, .ttl = -1, .text = {"CLIENT_ERROR invalid flag", 25}}},
    {"SERVER_ERROR object too large for cache\r\n",
     {META_REFUSED, .ttl = -1, .text = {"SERVER_ERROR object too large for cache", 39}}},
};

START_TEST(parse_replies)
{
    for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
        const struct meta_reply *want = &replies[i].want;
        struct meta_reply got = check_parse(replies[i].reply, strlen(replies[i].reply), META_REPLY);
        ck_assert_msg(got.status == want->status && got.won == want->won && got.wait == want->wait && got.stale == want->stale,
                      "%s", replies[i].reply);
        ck_assert_msg(got.size == want->size && got.was_hit == want->was_hit && got.last_access_s == want->last_access_s, "%s",
                      replies[i].reply);
        ck_assert_msg(got.client_flags == want->client_flags && got.cas == want->cas && got.ttl == want->ttl, "%s",
                      replies[i].reply);
        ck_assert_msg(got.value_len == want->value_len && span_eq(got.value, want->value) && span_eq(got.text, want->text), "%s",
                      replies[i].reply);
    }
}
END_TEST

START_TEST(parse_a_value_of_some_size)
{
    static const size_t sizes[] = {1, 1024, 4096, MAX_VALUE};
    for (size_t i = 0; i < ARRAY_LEN(sizes) * 2; i++) {
        size_t size = sizes[i / 2];
        char *reply = malloc(size + 64);
        ck_assert_ptr_nonnull(reply);
        size_t head = (size_t)snprintf(reply, 64, i % 2 == 0 ? "VA %zu f0\r\n" : "VA %zu f0 c9\r\n", size);
        memset(reply + head, '\n', size);
        memcpy(reply + head + size, "\r\n", 2);
        struct meta_reply out;
        size_t consumed, need;
        ck_assert_int_eq(meta_parse(reply, head - 1, MAX_VALUE, &out, &consumed, &need), META_MORE);
        ck_assert_uint_eq(need, 0);
        ck_assert_int_eq(meta_parse(reply, head, MAX_VALUE, &out, &consumed, &need), META_MORE);
        ck_assert_uint_eq(need, head + size + 2);
        ck_assert_int_eq(meta_parse(reply, head + size + 1, MAX_VALUE, &out, &consumed, &need), META_MORE);
        ck_assert_uint_eq(need, head + size + 2);
        ck_assert_int_eq(meta_parse(reply, head + size + 2, MAX_VALUE, &out, &consumed, &need), META_REPLY);
        ck_assert_uint_eq(consumed, head + size + 2);
        ck_assert_ptr_eq(out.value.data, reply + head);
        ck_assert_uint_eq(out.value.len, size);
        ck_assert_int_eq(meta_parse(reply, head + size + 2, size - 1, &out, &consumed, &need), META_TOO_LARGE);
        ck_assert_uint_eq(consumed, head);
        ck_assert_uint_eq(out.value_len, size);
        free(reply);
    }
}
END_TEST

START_TEST(parse_hostile_nodes)
{
    static const char *const bad[] = {
        "\r\n",
        "\n",
        " \r\n",
        "HD\n",
        "EN \n",
        "VA 1 f0\nx\r\n",
        "VA\r\n",
        "VA \r\n",
        "VA 1 f0 c\r\nx\r\n",
        "VA 1 f0 c1x\r\nx\r\n",
        "VA 1 f0 c-1\r\nx\r\n",
        "VA 1 f0 c18446744073709551616\r\nx\r\n",
        "VA -1 f0\r\n",
        "VA +1 f0\r\nx\r\n",
        "VA 1x f0\r\nx\r\n",
        "VA x\r\n",
        "VA  1 f0\r\nx\r\n",
        "VA 1073741825 f0\r\n",
        "VA 1073741825 c1\r\n",
        "VA 999999999999999999 f0\r\n",
        "VA 18446744073709551615 f0\r\n",
        "VA 18446744073709551614\r\n",
        "VA 99999999999999999999999 f0\r\n",
        "VA 1 f0\r\nxyz",
        "VA 1 f0\r\nx\r\r",
        "VA 1 f0 c1\r\nx\n\n",
        "VA 0 f0\r\nEN\r\n",
        "VA 1 fx\r\nx\r\n",
        "VA 1 f\r\nx\r\n",
        "VA 1 f4294967296\r\nx\r\n",
        "VA 1 c-1\r\nx\r\n",
        "VA 1 c18446744073709551616\r\nx\r\n",
        "HD t-2\r\n",
        "HD t\r\n",
        "HD t9223372036854775808\r\n",
        "HDX\r\n",
        "hd\r\n",
        "XX\r\n",
        "STORED\r\n",
        "VALUE a 0 1\r\nx\r\nEND\r\n",
        "VERSION\r\n",
        "error\r\n",
        "5\r\n",
        "\x80\r\n",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        check_parse(bad[i], strlen(bad[i]), META_BAD);
    }
    check_parse("\0\0\r\n", 4, META_BAD);
    check_parse("VA 1 f0\0\r\nx\r\n", 13, META_BAD);
}
END_TEST

START_TEST(parse_long_lines)
{
    char line[3000];
    struct meta_reply out;
    size_t consumed, need;
    static const char *const starts[] = {"SERVER_ERROR ", "VA 1 k", "HD k", "", "VA 1", "VA 00000000000000000000000000"};
    for (size_t i = 0; i < ARRAY_LEN(starts); i++) {
        memset(line, i < 4 ? 'x' : '0', sizeof line);
        memcpy(line, starts[i], strlen(starts[i]));
        ck_assert_int_eq(meta_parse(line, 2047, MAX_VALUE, &out, &consumed, &need), META_MORE);
        ck_assert_int_eq(meta_parse(line, 2048, MAX_VALUE, &out, &consumed, &need), META_BAD);
        ck_assert_int_eq(meta_parse(line, sizeof line, MAX_VALUE, &out, &consumed, &need), META_BAD);
        memcpy(line + 2046, "\r\n", 2);
        ck_assert_int_eq(meta_parse(line, 2048, MAX_VALUE, &out, &consumed, &need), i == 0 || i == 2 ? META_REPLY
                                                                                    : i == 1         ? META_MORE
                                                                                                     : META_BAD);
        memcpy(line + 2046, "x\r\n", 3);
        ck_assert_int_eq(meta_parse(line, 2049, MAX_VALUE, &out, &consumed, &need), META_BAD);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("meta");
    TCase *tc = tcase_create("write");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, write_commands);
    tcase_add_test(tc, write_every_flag);
    tcase_add_test(tc, write_binary_keys);
    tcase_add_test(tc, write_keys_of_every_length);
    tcase_add_test(tc, write_without_memory);
    suite_add_tcase(suite, tc);
    tc = tcase_create("parse");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, parse_replies);
    tcase_add_test(tc, parse_a_value_of_some_size);
    tcase_add_test(tc, parse_hostile_nodes);
    tcase_add_test(tc, parse_long_lines);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
