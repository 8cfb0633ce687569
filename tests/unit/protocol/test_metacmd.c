/* Lines to requests and replies to bytes, as a memcached 1.6.38 takes and gives them. */
#include <stdarg.h>

#include "proxy/protocol/classic.h"
#include "tests/unit/check_main.h"

#define K10 "kkkkkkkkkk"
#define K50 K10 K10 K10 K10 K10
#define K250 K50 K50 K50 K50 K50
#define O31 "o123456789012345678901234567890"

#define BAD_FORMAT "error[CLIENT_ERROR bad command line format]"
#define BAD_TOKEN "error[CLIENT_ERROR bad token in command line format]"
#define BAD_FLAGS "error[CLIENT_ERROR invalid or duplicate flag]"
#define DUPLICATE "error[CLIENT_ERROR duplicate flag]"
#define UNKNOWN "error[CLIENT_ERROR invalid flag]"
#define MANY_GET "error[CLIENT_ERROR options flags are too long]"
#define MANY "error[CLIENT_ERROR options flags too long]"
#define LONG_OPAQUE "error[CLIENT_ERROR opaque token too long]"
#define BAD_KEY "error[CLIENT_ERROR error decoding key]"
#define BAD_MODE(c) "error[CLIENT_ERROR invalid mode for " c " M token]"

struct text {
    size_t len;
    char data[4096];
};

static void __attribute__((format(printf, 2, 3))) text_fmt(struct text *text, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(text->data + text->len, sizeof text->data - text->len, fmt, args);
    va_end(args);
    ck_assert(len >= 0 && (size_t)len < sizeof text->data - text->len);
    text->len += (size_t)len;
}

static const char *const op_names[] = {
    [OP_GET] = "get",         [OP_GAT] = "gat",       [OP_SET] = "set",   [OP_ADD] = "add",   [OP_REPLACE] = "replace", [OP_APPEND] = "append",
    [OP_PREPEND] = "prepend", [OP_DELETE] = "delete", [OP_INCR] = "incr", [OP_DECR] = "decr", [OP_NOOP] = "noop",       [OP_DEBUG] = "debug",
};

/* "mg get(k) with[v T5] back[k O] opaque[ab] quiet": only what is there. Numbers are only told if the request says that they mean something. */
static void describe(struct text *text, const struct request *r)
{
    static const char letters[] = "vfctCETNFIxMDhlsRJu";
    ck_assert_int_eq(r->protocol, PROTOCOL_META);
    ck_assert(r->is_first && r->is_last && !r->noreply);
    text_fmt(text, "%s %s(", command_words[r->command], op_names[r->op]);
    for (size_t i = 0; i < r->key.len; i++) {
        unsigned char c = (unsigned char)r->key.data[i];
        text_fmt(text, c > ' ' && c < 0x7f ? "%c" : "\\x%02x", c);
    }
    text_fmt(text, "%s)", r->echo.is_base64 ? " b" : "");
    const uint64_t numbers[] = {['C'] = r->cas,
                                ['E'] = r->version,
                                ['T'] = (uint64_t)r->exptime,
                                ['N'] = (uint64_t)r->vivify_ttl,
                                ['F'] = r->flags,
                                ['D'] = r->delta,
                                ['R'] = (uint64_t)r->recache_ttl,
                                ['J'] = r->initial};
    for (size_t i = 0; letters[i] != '\0'; i++) {
        if (r->with & 1U << i) {
            text_fmt(text, " %c", letters[i]);
            if (strchr("CETNFDRJ", letters[i]) != NULL) {
                text_fmt(text, strchr("TNR", letters[i]) != NULL ? "%lld" : "%llu", (long long)numbers[(int)letters[i]]);
            }
        }
    }
    if (r->with & META_ORDERED) {
        text_fmt(text, " order[%.4s]", r->ttl_order);
    }
    if (r->has_value) {
        ck_assert_uint_eq(r->value_tail, 2);
        text_fmt(text, " =%zu", r->value_len);
    }
    if (r->echo.letter_count > 0) {
        text_fmt(text, " back[%.*s]", r->echo.letter_count, r->echo.letters);
    }
    if (r->echo.text_len > 0) {
        text_fmt(text, " opaque[%.*s]", r->echo.text_len, r->echo.text);
    }
    text_fmt(text, "%s", r->is_quiet ? " quiet" : "");
}

/* What is behind a line that was bad, and that is the first to be parsed. */
static void parse_cut(const char *line, size_t len, size_t cut, struct text *said)
{
    struct classic classic;
    classic_init(&classic);
    said->len = 0;
    said->data[0] = '\0';
    for (size_t have = cut;; have = len) {
        char *copy = malloc(have + (have == 0)); /* the sanitizer knows where it ends */
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, line, have);
        struct request request;
        memset(&request, 0x5a, sizeof request); /* what is told must have been set */
        struct span error = {NULL, 0};
        size_t consumed = 0;
        enum parse_result result = classic_parse(&classic, copy, have, &consumed, &request, &error);
        if (result == PARSE_REQUEST) {
            describe(said, &request);
        } else if (result == PARSE_ERROR) {
            ck_assert(request.op == OP_NONE && request.protocol == PROTOCOL_CLASSIC && request.is_last);
            text_fmt(said, "error[%.*s]", SPAN_FMT(error));
            if (classic.swallow > 0) {
                text_fmt(said, " swallow %zu", classic.swallow);
            }
        }
        free(copy);
        ck_assert_uint_eq(consumed, result == PARSE_MORE ? 0 : len);
        if (have == len) {
            break;
        }
        ck_assert_int_eq(result, PARSE_MORE);
    }
}

static void check_line(const char *line, size_t len, const char *want)
{
    struct text said;
    for (size_t cut = 0; cut <= len; cut++) {
        parse_cut(line, len, cut, &said);
        ck_assert_msg(strcmp(said.data, want) == 0, "%s cut at %zu\n  gave %s\n  not  %s", line, cut, said.data, want);
    }
}

/* Each line with "\r\n", and with a newline alone. */
struct line {
    const char *line;
    const char *want;
};

static void check_lines(const struct line *lines, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char text[1024];
        int len = snprintf(text, sizeof text, "%s\r\n", lines[i].line);
        check_line(text, (size_t)len, lines[i].want);
        len = snprintf(text, sizeof text, "%s\n", lines[i].line);
        check_line(text, (size_t)len, lines[i].want);
    }
}

START_TEST(mg_lines)
{
    static const struct line lines[] = {
        {"mg a", "mg get(a)"},
        {"mg a v", "mg get(a) v"},
        {"mg a v f c t h l s u", "mg get(a) v f c t h l s u back[fcthls]"},
        {"mg a s k v Oab f q", "mg get(a) v f s back[skOf] opaque[ab] quiet"},
        {"mg a O", "mg get(a) back[O]"},
        {"mg a O" O31 " k", "mg get(a) back[Ok] opaque[" O31 "]"},
        {"mg a O" O31 "x k", LONG_OPAQUE},
        {"mg a Ox\ty k", "mg get(a) back[Ok] opaque[x\ty]"},
        {"  mg   a  v   k  ", "mg get(a) v back[k]"},
        {"mg a\tb v", "mg get(a\\x09b) v"},
        {"mg " K250 " v", "mg get(" K250 ") v"},
        {"mg " K250 "k v", BAD_FORMAT},
        {"mg a T30 v", "mg gat(a) v T30"},
        {"mg a t T30", "mg gat(a) t T30 back[t]"},
        {"mg a T30 t", "mg gat(a) t T30 order[Tt] back[t]"},
        {"mg a N30 R9 E5 v", "mg get(a) v E5 N30 R9"},
        {"mg a R9 v N30 T1 t", "mg gat(a) v t T1 N30 R9 order[RNTt] back[t]"},
        {"mg a T-1 N-2 R-3", "mg gat(a) T-1 N-2 R-3"},
        {"mg a T4294967297 N+7", "mg gat(a) T1 N7"},
        {"mg a C1 F2 M! D3 J4 I x P L v", "mg get(a) v"},
        {"mg a vv kx qq", "mg get(a) v back[k] quiet"},
        {"mg Zm9v b k v", "mg get(foo b) v back[k]"},
        {"mg IAoA v b", "mg get(\\x20\\x0a\\x00 b) v"},
        {"mg", "error[ERROR]"},
        {"mg ", "error[ERROR]"},
        {"mg a z", UNKNOWN},
        {"mg a v z v", UNKNOWN},
        {"mg a v v", DUPLICATE},
        {"mg a Tx z", UNKNOWN},
        {"mg a \x80", DUPLICATE},
        {"mg a \x7f", DUPLICATE},
        {"mg a T", BAD_TOKEN},
        {"mg a Nx", BAD_TOKEN},
        {"mg a R1x", BAD_TOKEN},
        {"mg a C-1", BAD_TOKEN},
        {"mg a E18446744073709551616", BAD_TOKEN},
        {"mg a Fx", BAD_FORMAT},
        {"mg a Tx Fx", BAD_TOKEN},
        {"mg a Dx", "error[CLIENT_ERROR invalid numeric delta value]"},
        {"mg a Fx Jx", "error[CLIENT_ERROR invalid numeric initial value]"},
        {"mg a M", "error[CLIENT_ERROR incorrect length for M token]"},
        {"mg a Mxx", "error[CLIENT_ERROR incorrect length for M token]"},
        {"mg Zg b", BAD_KEY},
        {"mg Zg b Tx", BAD_TOKEN},
        {"mg a v f c t h l s k q u I x P L C1 E1 F1", "mg get(a) v f c t E1 h l s u back[fcthlsk] quiet"},
        {"mg a v f c t h l s k q u I x P L C1 E1 F1 D1", MANY_GET},
        {"mg a v v v v v v v v v v v v v v v v v", DUPLICATE},
        {"mg a v v v v v v v v v v v v v v v v v v", MANY_GET},
        {"mg " K250 "k v v v v v v v v v v v v v v v v v v", BAD_FORMAT},
    };
    check_lines(lines, ARRAY_LEN(lines));
}
END_TEST

START_TEST(ms_lines)
{
    static const struct line lines[] = {
        {"ms a 5", "ms set(a) =5"},
        {"ms a 0 T0 F7 q", "ms set(a) T0 F7 =0 quiet"},
        {"ms a 5 MS", "ms set(a) =5"},
        {"ms a 5 ME", "ms add(a) =5"},
        {"ms a 5 MR", "ms replace(a) =5"},
        {"ms a 5 MA N60", "ms append(a) N60 =5"},
        {"ms a 5 MP", "ms prepend(a) =5"},
        {"ms a 5 C12 E34 I c s k Oz", "ms set(a) c C12 E34 I s =5 back[cskO] opaque[z]"},
        {"ms a 5 v f t h l u x R1 D1 J1 P L", "ms set(a) =5"},
        {"ms a 5 F4294967297", "ms set(a) F1 =5"},
        {"ms a 4294967297", "ms set(a) =1"},
        {"ms a 2147483645", "ms set(a) =2147483645"},
        {"ms Zm9v 2 b", "ms set(foo b) =2"},
        {"ms", "error[ERROR]"},
        {"ms a", BAD_FORMAT},
        {"ms " K250 "k 5", BAD_FORMAT},
        {"ms a x", BAD_FORMAT},
        {"ms a v", BAD_FORMAT},
        {"ms a -1", BAD_FORMAT},
        {"ms a 2147483646", BAD_FORMAT},
        {"ms a 5 z", UNKNOWN " swallow 7"},
        {"ms a 5 q q", DUPLICATE " swallow 7"},
        {"ms a 5 Tx q", BAD_TOKEN " swallow 7"},
        {"ms a 5 Fx", BAD_FORMAT " swallow 7"},
        {"ms a 5 Me", BAD_MODE("ms") " swallow 7"},
        {"ms a 5 MI O" O31 "x", BAD_MODE("ms") " swallow 7"},
        {"ms a 5 O" O31 "x", LONG_OPAQUE " swallow 7"},
        {"ms ! 5 b", BAD_KEY " swallow 7"},
        {"ms a 0 z", UNKNOWN " swallow 2"},
        {"ms a 5 v f c t h l s k q u I x P L C1 E1", "ms set(a) c C1 E1 I s =5 back[csk] quiet"},
        {"ms a 5 v f c t h l s k q u I x P L C1 E1 F1", MANY},
        {"ms a x v f c t h l s k q u I x P L C1 E1 F1", MANY},
        {"ms a 5 z v f c t h l s k q u I x P L C1 E1", MANY},
    };
    check_lines(lines, ARRAY_LEN(lines));
}
END_TEST

START_TEST(other_lines)
{
    static const struct line lines[] = {
        {"md a", "md delete(a)"},
        {"md a q k Oz", "md delete(a) back[kO] opaque[z] quiet"},
        {"md a I x T30 C1 E2 F3", "md delete(a) C1 E2 T30 F3 I x"},
        {"md a v f c t h l s u N1 R1 D1 J1 Mx", "md delete(a)"},
        {"md Zm9v b k", "md delete(foo b) back[k]"},
        {"md", "error[ERROR]"},
        {"md " K250 "k", BAD_FORMAT},
        {"md a z", BAD_FLAGS},
        {"md a k k", BAD_FLAGS},
        {"md a Tx", BAD_FLAGS},
        {"md a Mxx", BAD_FLAGS},
        {"md Zg b", BAD_FLAGS},
        {"md a O" O31 "x", LONG_OPAQUE},
        {"md a v f c t h l s k q u I x P L C1 E1 F1 T1", MANY},
        {"ma a", "ma incr(a)"},
        {"ma a v D5", "ma incr(a) v D5"},
        {"ma a MI v q", "ma incr(a) v quiet"},
        {"ma a M+", "ma incr(a)"},
        {"ma a MD", "ma decr(a)"},
        {"ma a M-", "ma decr(a)"},
        {"ma a N60 J13 C1 E2 T3 t c k", "ma incr(a) c t C1 E2 T3 N60 J13 order[NTt] back[tck]"},
        {"ma a f h l s I x F1 R1 u", "ma incr(a)"},
        {"ma", "error[ERROR]"},
        {"ma a z", BAD_FLAGS},
        {"ma a Dx", BAD_FLAGS},
        {"ma a Md", BAD_MODE("ma")},
        {"ma a MS O" O31 "x", BAD_MODE("ma")},
        {"ma a O" O31 "x", LONG_OPAQUE},
        {"ma a v f c t h l s k q u I x P L C1 E1 F1 T1", MANY},
        {"mn", "mn noop()"},
        {"  mn a b c", "mn noop()"},
        {"me a", "me debug(a)"},
        {"me a q x y z z z z z z z z z z z z z z z z z z z z z", "me debug(a)"},
        {"me Zm9v b", "me debug(foo b)"},
        {"me Zm9v bb b", "me debug(Zm9v)"},
        {"me Zg b", BAD_FORMAT},
        {"me", BAD_FORMAT},
        {"me " K250 "k", BAD_FORMAT},
        {"m", "error[ERROR]"},
        {"mx a v", "error[ERROR]"},
        {"MG a", "error[ERROR]"},
        {"mgg a", "error[ERROR]"},
    };
    check_lines(lines, ARRAY_LEN(lines));
    check_line("mg a v\0 k\r\n", 11, "mg get(a) v");
    check_line("mg a\0 v\r\n", 9, "mg get(a)");
    check_line("mg a O\0x k\n", 11, "mg get(a) back[O]");
    check_line("mg a v\r\r\n", 9, "mg get(a) v");
    check_line("mg a k \r\n", 9, "mg get(a) back[k]");
    check_line("mg\0a\r\n", 6, "error[ERROR]");
}
END_TEST

/* A line, a reply to it, and the bytes that come of it. */
struct rendering {
    const char *line;
    struct reply reply;
    const char *want;
};

static void check_rendering(const char *line, const struct reply *reply, size_t limit, const char *want, size_t want_len)
{
    struct classic classic;
    classic_init(&classic);
    char bytes[1024];
    size_t len = (size_t)snprintf(bytes, sizeof bytes, "%s\r\n", line);
    size_t consumed;
    struct request request;
    struct span error;
    ck_assert_int_eq(classic_parse(&classic, bytes, len, &consumed, &request, &error), PARSE_REQUEST);
    struct chunk_pool pool;
    struct chain out;
    chunk_pool_init(&pool, limit);
    chain_init(&out, &pool);
    enum err err = classic_render(&classic, &request, reply, &out);
    ck_assert_int_eq(err, limit == 0 && want_len > 0 ? ERR_NOMEM : OK);
    if (err == OK) {
        ck_assert_msg(out.bytes == want_len, "%s: %zu bytes, not %zu", line, out.bytes, want_len);
        struct iovec iov[8];
        int n = chain_iov(&out, iov, 8);
        for (int i = 0; i < n; want += iov[i].iov_len, i++) {
            ck_assert_msg(memcmp(iov[i].iov_base, want, iov[i].iov_len) == 0, "%s\n  gave %.*s\n  not  %s", line, (int)iov[i].iov_len,
                          (char *)iov[i].iov_base, want);
        }
    }
    chain_clear(&out);
    ck_assert_uint_eq(pool.used_bytes, 0);
    chunk_pool_deinit(&pool);
}

#define HIT                                                                                                                                          \
    {                                                                                                                                                \
        REPLY_VALUE, .flags = 7, .cas = 18446744073709551615ULL, .value = {"hi", 2}, .ttl = -1, .last_access_s = 9, .size = 2, .was_hit = true       \
    }
#define TEXT(s) {REPLY_ERROR, .text = {s, sizeof(s) - 1}}

START_TEST(renderings)
{
    static const struct rendering cases[] = {
        {"mg a v", HIT, "VA 2\r\nhi\r\n"},
        {"mg a", HIT, "HD\r\n"},
        {"mg a q", HIT, "HD\r\n"},
        {"mg a v", {REPLY_VALUE, .value = {"", 0}}, "VA 0\r\n\r\n"},
        {"mg a k f", HIT, "HD ka f7\r\n"},
        {"mg a v s t O1 c h l f k", HIT, "VA 2 s2 t-1 O1 c18446744073709551615 h1 l9 f7 ka\r\nhi\r\n"},
        {"mg a t h", {REPLY_VALUE, .ttl = 4294967290}, "HD t4294967290 h0\r\n"},
        {"mg AAA= b v k", HIT, "VA 2 kAAA= b\r\nhi\r\n"},
        {"mg a f", {REPLY_VALUE, .won = true, .stale = true}, "HD f0 X W\r\n"},
        {"mg a", {REPLY_VALUE, .wait = true, .stale = true}, "HD Z X\r\n"},
        {"mg a v q", {REPLY_VALUE, .won = true}, "VA 0 W\r\n\r\n"},
        {"mg a v f k Oab c", {.status = REPLY_MISS}, "EN ka Oab\r\n"},
        {"mg a v", {.status = REPLY_MISS}, "EN\r\n"},
        {"mg a v q k", {.status = REPLY_MISS}, ""},
        {"mg a v q k", TEXT("SERVER_ERROR node x: timed out"), "SERVER_ERROR node x: timed out\r\n"},
        {"ms a 2", {.status = REPLY_STORED}, "HD\r\n"},
        {"ms a 2 q", {.status = REPLY_STORED}, ""},
        {"ms a 2 O7 c s k", {REPLY_STORED, .cas = 12, .size = 34}, "HD O7 c12 s34 ka\r\n"},
        {"ms a 2 q k c", {.status = REPLY_NOT_STORED}, "NS ka c0\r\n"},
        {"ms a 2 q c", {.status = REPLY_EXISTS}, "EX c0\r\n"},
        {"ms a 2 q O1", {.status = REPLY_NOT_FOUND}, "NF O1\r\n"},
        {"ms AAA= 2 b k", {.status = REPLY_STORED}, "HD kAAA= b\r\n"},
        {"ms a 2 q k", {.status = REPLY_BAD_CHUNK}, "CLIENT_ERROR bad data chunk\r\n"},
        {"ms a 2 q k", {.status = REPLY_TOO_LARGE}, "SERVER_ERROR object too large for cache\r\n"},
        {"ms a 2 q k", {.status = REPLY_NO_MEMORY}, "SERVER_ERROR out of memory storing object\r\n"},
        {"md a", {.status = REPLY_DELETED}, "HD\r\n"},
        {"md a q", {.status = REPLY_DELETED}, ""},
        {"md a k c O1 s", {.status = REPLY_DELETED}, "HD ka O1\r\n"},
        {"md a q", {.status = REPLY_NOT_FOUND}, "NF\r\n"},
        {"md a q k", {.status = REPLY_EXISTS}, "EX ka\r\n"},
        {"ma a", {REPLY_NUMBER, .number = 5}, "HD\r\n"},
        {"ma a v", {REPLY_NUMBER, .number = 18446744073709551615ULL}, "VA 20\r\n18446744073709551615\r\n"},
        {"ma a v t k c O1", {REPLY_NUMBER, .number = 7, .ttl = 30, .cas = 9}, "VA 1 t30 ka c9 O1\r\n7\r\n"},
        {"ma a t", {REPLY_NUMBER, .ttl = -1}, "HD t-1\r\n"},
        {"ma a q v", {.status = REPLY_NUMBER}, ""},
        {"ma a q t k", {.status = REPLY_NOT_FOUND}, "NF ka\r\n"},
        {"ma a q", {.status = REPLY_EXISTS}, "EX\r\n"},
        {"ma a q", {.status = REPLY_NON_NUMERIC}, "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"},
        {"mn", {.status = REPLY_NOOP}, "MN\r\n"},
        {"me a", {.status = REPLY_MISS}, "EN\r\n"},
        {"me a", {REPLY_DEBUG, .text = SPAN_LIT("ME a exp=-1 la=1")}, "ME a exp=-1 la=1\r\n"},
        {"me YSBi b", {REPLY_DEBUG, .text = SPAN_LIT("ME a b exp=5 la=1")}, "ME YSBi exp=5 la=1\r\n"},
        {"me a\tb", {REPLY_DEBUG, .text = SPAN_LIT("ME YQli exp=5 la=1")}, "ME a\tb exp=5 la=1\r\n"},
        {"me a", {REPLY_DEBUG, .text = SPAN_LIT("ME something else")}, "ME something else\r\n"},
        {"mg a", {.status = REPLY_NONE}, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        check_rendering(cases[i].line, &cases[i].reply, 1U << 20, cases[i].want, strlen(cases[i].want));
        check_rendering(cases[i].line, &cases[i].reply, 0, cases[i].want, strlen(cases[i].want));
    }
}
END_TEST

START_TEST(rendering_of_every_size)
{
    static const size_t sizes[] = {1, 100, CHAIN_REF_MIN - 1, CHAIN_REF_MIN, 50000};
    for (size_t i = 0; i < ARRAY_LEN(sizes) * 2; i++) {
        struct chunk *chunk = chunk_get(NULL, sizes[i / 2]);
        ck_assert_ptr_nonnull(chunk);
        memset(chunk->data, 'x', sizes[i / 2]);
        struct reply reply = {REPLY_VALUE, .chunk = i % 2 == 0 ? chunk : NULL, .value = span_of(chunk->data, sizes[i / 2]), .ttl = INT64_MAX};
        char *want = malloc(sizes[i / 2] + 1024);
        ck_assert_ptr_nonnull(want);
        size_t len = (size_t)snprintf(want, 1024, "VA %zu k" K250 " O" O31 " t9223372036854775807\r\n", sizes[i / 2]);
        memset(want + len, 'x', sizes[i / 2]);
        memcpy(want + len + sizes[i / 2], "\r\n", 2);
        if (i % 2 == 0 || sizes[i / 2] < CHAIN_REF_MIN) { /* what is not in a chunk is small: an error text, a number */
            check_rendering("mg " K250 " v k O" O31 " t", &reply, 1U << 20, want, len + sizes[i / 2] + 2);
        }
        free(want);
        chunk_unref(&chunk);
    }
}
END_TEST

/* The longest head that there is fits into what is reserved for it. */
START_TEST(rendering_of_the_longest_head)
{
    struct reply reply = {REPLY_VALUE,
                          .flags = UINT32_MAX,
                          .cas = UINT64_MAX,
                          .ttl = INT64_MAX,
                          .last_access_s = INT64_MAX,
                          .size = UINT64_MAX,
                          .was_hit = true,
                          .won = true,
                          .wait = true,
                          .stale = true};
    char line[1024], want[1024];
    char key[248];
    memset(key, '/', sizeof key);
    snprintf(line, sizeof line, "mg %.248s b k O" O31 " f c t h l s", key);
    int len = snprintf(want, sizeof want,
                       "HD k%.248s b O" O31 " f4294967295 c18446744073709551615 t9223372036854775807 h1 l9223372036854775807 s18446744073709551615 "
                       "Z X W\r\n",
                       key);
    check_rendering(line, &reply, 1U << 20, want, (size_t)len);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metacmd");
    TCase *tc = tcase_create("parse");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, mg_lines);
    tcase_add_test(tc, ms_lines);
    tcase_add_test(tc, other_lines);
    suite_add_tcase(suite, tc);
    tc = tcase_create("render");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, renderings);
    tcase_add_test(tc, rendering_of_every_size);
    tcase_add_test(tc, rendering_of_the_longest_head);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
