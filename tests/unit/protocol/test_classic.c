#include <stdarg.h>

#include "proxy/protocol/classic.h"
#include "proxy/protocol/token.h"
#include "tests/unit/check_main.h"

#define BAD_FORMAT "error[CLIENT_ERROR bad command line format] "
#define BAD_EXPTIME "error[CLIENT_ERROR invalid exptime argument] "
#define BAD_DELTA "error[CLIENT_ERROR invalid numeric delta argument] "
#define BAD_DELETE "error[CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]] "
#define K10 "kkkkkkkkkk"
#define K50 K10 K10 K10 K10 K10
#define K250 K50 K50 K50 K50 K50

struct text {
    char *data;
    size_t len;
    size_t cap;
};

static void text_add(struct text *text, const char *bytes, size_t len)
{
    if (text->len + len + 1 > text->cap) {
        text->cap = (text->len + len + 1) * 2;
        text->data = realloc(text->data, text->cap);
        ck_assert_ptr_nonnull(text->data);
    }
    if (len > 0) {
        memcpy(text->data + text->len, bytes, len);
    }
    text->len += len;
    text->data[text->len] = '\0';
}

static void __attribute__((format(printf, 2, 3))) text_fmt(struct text *text, const char *fmt, ...)
{
    char line[1024];
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    ck_assert_int_lt(len, (int)sizeof line);
    text_add(text, line, (size_t)len);
}

/* "set(k f1 e2 =3) " and the like; a group's keys carry '<' (first) and '>' (last). */
static void describe(struct text *text, const struct request *r)
{
    text_fmt(text, "%s%s(", r->is_first ? "<" : "", command_words[r->command]);
    text_fmt(text, "%.*s", SPAN_FMT(r->key));
    if (r->flags != 0) {
        text_fmt(text, " f%u", r->flags);
    }
    if (r->exptime != 0) {
        text_fmt(text, " e%lld", (long long)r->exptime);
    }
    if (r->cas != 0) {
        text_fmt(text, " c%llu", (unsigned long long)r->cas);
    }
    if (r->delta != 0) {
        text_fmt(text, " d%llu", (unsigned long long)r->delta);
    }
    if (r->has_value) {
        text_fmt(text, " =%zu", r->value_len);
    }
    text_fmt(text, ")%s%s ", r->noreply ? "!" : "", r->is_last ? ">" : "");
}

/* A client's session, as far as the codec goes: values are skipped. */
struct feed {
    struct classic classic;
    struct text said;
    size_t skip;
    bool closed;
};

/* Takes what it can from data[0..len) and returns how much. */
static size_t feed_some(struct feed *feed, const char *data, size_t len)
{
    size_t at = 0;
    while (!feed->closed) {
        size_t n = MIN(feed->skip, len - at);
        feed->skip -= n;
        at += n;
        char *copy = malloc(len - at + (len == at)); /* at another address each time, and the sanitizer knows its end */
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, data + at, len - at);
        size_t consumed = 99;
        struct request request;
        struct span error = SPAN_LIT("unset");
        enum parse_result result = classic_parse(&feed->classic, copy, len - at, &consumed, &request, &error);
        ck_assert_uint_le(consumed, len - at);
        at += consumed;
        if (result == PARSE_REQUEST) {
            describe(&feed->said, &request);
            feed->skip = request.has_value ? request.value_len + 2 : 0;
        } else if (result != PARSE_MORE) {
            feed->closed = result == PARSE_CLOSE;
            text_fmt(&feed->said, "%s[%.*s] ", feed->closed ? "close" : "error", SPAN_FMT(error));
        }
        free(copy);
        if (result == PARSE_MORE) {
            ck_assert_uint_eq(consumed, 0);
            break;
        }
    }
    return at;
}

/* Hands in up to `first` bytes, then `step` more each time. */
static char *parse_in_pieces(const char *input, size_t len, size_t first, size_t step)
{
    struct feed feed = {.said = {0}};
    classic_init(&feed.classic);
    text_add(&feed.said, "", 0);
    size_t at = 0;
    for (size_t have = MIN(first, len);; have = MIN(have + step, len)) {
        at += feed_some(&feed, input + at, have - at);
        if (have == len || feed.closed) {
            break;
        }
    }
    return feed.said.data;
}

static void check_parse_len(const char *input, size_t len, const char *want)
{
    char *got = parse_in_pieces(input, len, len, 1);
    ck_assert_msg(strcmp(got, want) == 0, "'%s'\n  gave %s\n  not  %s", input, got, want);
    free(got);
    for (size_t cut = 0; cut <= len; cut++) {
        got = parse_in_pieces(input, len, cut, cut == 0 ? 1 : len);
        ck_assert_msg(strcmp(got, want) == 0, "'%s' cut at %zu\n  gave %s\n  not  %s", input, cut, got, want);
        free(got);
    }
}

static void check_parse(const char *input, const char *want)
{
    check_parse_len(input, strlen(input), want);
}

START_TEST(every_command_is_found)
{
    for (enum command command = 0; command < COMMAND_MG; command++) { /* the classic ones */
        static const char *const rests[] = {"", " k", " 1", " 1 k", " k 1", " k 0 0 0", " k 0 0 0 0"};
        bool found = false;
        for (size_t i = 0; i < ARRAY_LEN(rests); i++) {
            char line[64];
            struct classic classic;
            size_t consumed;
            struct request request;
            struct span error;
            classic_init(&classic);
            int len = snprintf(line, sizeof line, "%s%s\r\n", command_words[command], rests[i]);
            if (classic_parse(&classic, line, (size_t)len, &consumed, &request, &error) == PARSE_REQUEST) {
                ck_assert_int_eq(request.command, command);
                found = true;
            }
        }
        ck_assert_msg(found, "%s", command_words[command]);
    }
}
END_TEST

START_TEST(gets)
{
    check_parse("get a\r\n", "<get(a)> ");
    check_parse("get a\n", "<get(a)> ");
    check_parse("get a\r\nget b\r\nget c\r\n", "<get(a)> <get(b)> <get(c)> ");
    check_parse("gets a\r\n", "<gets(a)> ");
    check_parse("bget a\r\n", "<get(a)> ");
    check_parse("get a b c\r\n", "<get(a) get(b) get(c)> ");
    check_parse("gets a a  a \r\nget b\r\n", "<gets(a) gets(a) gets(a)> <get(b)> ");
    check_parse("  get   a   b  \n", "<get(a) get(b)> ");
    check_parse("get a noreply\r\n", "<get(a) get(noreply)> ");
    check_parse("get a\r\r\n", "<get(a\r)> ");
    check_parse("get a\rb c\n", "<get(a\rb) get(c)> ");
    check_parse("get a\tb\x01\x7f\xff\r\n", "<get(a\tb\x01\x7f\xff)> ");
    check_parse("gat 10 a\r\n", "<gat(a e10)> ");
    check_parse("gats -1 a  b\r\n", "<gats(a e-1) gats(b e-1)> ");
    check_parse("gat 0\r\n", "error[END] ");
    check_parse("gat x\r\ngat a b\r\n", BAD_EXPTIME BAD_EXPTIME);
    check_parse("get\r\ngets\r\nget \r\ngat\r\n", "error[ERROR] error[ERROR] error[ERROR] error[ERROR] ");
    check_parse("get " K250 "\r\nget b\r\n", "<get(" K250 ")> <get(b)> ");
    check_parse("get " K250 "k\r\nget b\r\n", BAD_FORMAT "<get(b)> ");
    check_parse("gets a b " K250 "k c\r\nget b\r\n", BAD_FORMAT "<get(b)> ");
    check_parse("gat 0 " K250 "k\r\ngat x " K250 "k\r\n", BAD_FORMAT BAD_EXPTIME);
}
END_TEST

START_TEST(stores)
{
    check_parse("set a 1 2 3\r\nxyz\r\nget a\r\n", "<set(a f1 e2 =3)> <get(a)> ");
    check_parse("set a 0 0 0\r\n\r\nget a\r\n", "<set(a =0)> <get(a)> ");
    check_parse("set a 0 0 5\nget a\r\nget a\n", "<set(a =5)> <get(a)> ");
    check_parse("  set  a 0  0 1  \r\nx\r\nadd a 0 0 1\r\nx\r\n", "<set(a =1)> <add(a =1)> ");
    check_parse("replace a 0 0 1\r\nx\r\nappend a 0 0 1\r\nx\r\nprepend a 0 0 1\r\nx\r\n",
                "<replace(a =1)> <append(a =1)> <prepend(a =1)> ");
    check_parse("cas a 1 2 3 4\r\nxyz\r\n", "<cas(a f1 e2 c4 =3)> ");
    check_parse("set a 0 0 1 noreply\r\nx\r\ncas a 0 0 1 9 noreply\r\nx\r\n", "<set(a =1)!> <cas(a c9 =1)!> ");
    check_parse("set a 0 0 1 foo\r\nx\r\nset a 0 0 1 NOREPLY\r\nx\r\n", "<set(a =1)> <set(a =1)> ");
    check_parse("set\r\nset a\r\nset a 0 0\r\nset a 0 0 1 noreply x\r\n", "error[ERROR] error[ERROR] error[ERROR] error[ERROR] ");
    check_parse("cas a 0 0 1\r\ncas a 0 0 1 2 3 4\r\n", "error[ERROR] error[ERROR] ");
    check_parse("set a x 0 1\r\nset a 0 x 1\r\nset a 0 0 x\r\ncas a 0 0 1 x\r\n", BAD_FORMAT BAD_FORMAT BAD_FORMAT BAD_FORMAT);
    check_parse("set a x 0 1 noreply\r\nset a 0 0 noreply\r\ncas a 0 0 1 noreply\r\n", "error[] error[] error[] ");
    check_parse("set " K250 "k 0 0 1\r\nset " K250 "k 0 0 1 noreply\r\n", BAD_FORMAT "error[] ");
    check_parse("set a 0 0 -1\r\nset a 0 0 2147483646\r\nset a 0 0 4294967295\r\n", BAD_FORMAT BAD_FORMAT BAD_FORMAT);
    check_parse("set a 0 0 2147483645\r\n", "<set(a =2147483645)> ");
    check_parse("set a 0 0 4294967297\r\nx\r\nget b\r\n", "<set(a =1)> <get(b)> ");
    check_parse("set a 4294967297 4294967298 0\r\n\r\n", "<set(a f1 e2 =0)> ");
    check_parse("set a -1 0 1\r\nset a 0 9223372036854775808 1\r\n", BAD_FORMAT BAD_FORMAT);
    check_parse("set a 4294967295 -5 1\t\r\nx\r\n", "<set(a f4294967295 e-5 =1)> ");
    check_parse("cas a 0 0 1 18446744073709551615\r\nx\r\n", "<cas(a c18446744073709551615 =1)> ");
}
END_TEST

START_TEST(other_commands_with_a_key)
{
    check_parse("delete a\r\ndelete a 0\r\ndelete a noreply\r\ndelete a 0 noreply\r\n",
                "<delete(a)> <delete(a)> <delete(a)!> <delete(a)!> ");
    check_parse("delete noreply\r\ndelete\r\ndelete a 0 noreply x\r\n", "<delete(noreply)> error[ERROR] error[ERROR] ");
    check_parse("delete a 5\r\ndelete a 0 0\r\ndelete a 00\r\n", BAD_DELETE BAD_DELETE BAD_DELETE);
    check_parse("delete a 5 noreply\r\ndelete a noreply noreply\r\n", "error[] error[] ");
    check_parse("delete " K250 "k\r\ndelete " K250 "k 0\r\ndelete " K250 "k noreply\r\n", BAD_FORMAT BAD_FORMAT "error[] ");
    check_parse("incr a 1\r\ndecr a 18446744073709551615\r\n", "<incr(a d1)> <decr(a d18446744073709551615)> ");
    check_parse("incr a 1 noreply\r\nincr a 1 foo\r\n", "<incr(a d1)!> <incr(a d1)> ");
    check_parse("incr a\r\nincr a 1 noreply x\r\n", "error[ERROR] error[ERROR] ");
    check_parse("incr a x\r\nincr a -1\r\nincr a noreply\r\n", BAD_DELTA BAD_DELTA "error[] ");
    check_parse("decr " K250 "k x\r\n", BAD_FORMAT);
    check_parse("touch a 5\r\ntouch a -1 noreply\r\n", "<touch(a e5)> <touch(a e-1)!> ");
    check_parse("touch a\r\ntouch a x\r\ntouch a noreply\r\n", "error[ERROR] " BAD_EXPTIME "error[] ");
}
END_TEST

START_TEST(commands_without_a_key)
{
    check_parse("flush_all\r\nflush_all 0\r\nflush_all -1\r\nflush_all 10\r\n",
                "<flush_all()> <flush_all()> <flush_all( e-1)> <flush_all( e10)> ");
    check_parse("flush_all noreply\r\nflush_all 10 noreply\r\nflush_all 1 2\r\n",
                "<flush_all()!> <flush_all( e10)!> <flush_all( e1)> ");
    check_parse("flush_all x\r\nflush_all x noreply\r\nflush_all 1 2 3\r\n", BAD_EXPTIME "error[] error[ERROR] ");
    check_parse("verbosity 1\r\nverbosity 1 noreply\r\nverbosity 1 2\r\n", "<verbosity()> <verbosity()!> <verbosity()> ");
    check_parse("verbosity\r\nverbosity x\r\nverbosity noreply\r\nverbosity 1 2 3\r\n",
                "error[ERROR] " BAD_FORMAT "error[] error[ERROR] ");
    check_parse("version\r\nversion a b c noreply\r\nquit\r\nquit x\r\n", "<version()> <version()> <quit()> <quit()> ");
    check_parse("stats\r\nstats items\r\nstats detail  on\r\nstats detail one\r\nstats detail\r\nstats items on\r\n",
                "<stats()> <stats(items)> <stats(detail on)> <stats(detail)> <stats(detail)> <stats(items)> ");
    check_parse("stats " K250 "k\r\n", "error[ERROR] ");
}
END_TEST

START_TEST(bad_lines)
{
    check_parse("\r\n\n \r\n", "error[ERROR] error[ERROR] error[ERROR] ");
    check_parse("x\r\nGET a\r\ngett a\r\n\rget a\r\nnoreply\r\n",
                "error[ERROR] error[ERROR] error[ERROR] error[ERROR] error[ERROR] ");
    check_parse("m\r\nmx a\r\nmgg a\r\n mget a\r\n", "error[ERROR] error[ERROR] error[ERROR] error[ERROR] ");
    check_parse("shutdown\r\n", "error[ERROR: shutdown not enabled] ");
    check_parse("GET / HTTP/1.1\r\nget a\r\n", "close[] ");
    check_parse("get / HTTP/1.1\r\n", "<get(/) get(HTTP/1.1)> ");
    check_parse("x HTTP/1.1\r\nset HTTP/1.1\r\nmx HTTP/1.1\r\nxx HTTP/1.1 a\r\n",
                "error[ERROR] error[ERROR] error[ERROR] error[ERROR] ");
    check_parse("xx 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 HTTP/ 24\r\n", "close[] ");
    check_parse("xx 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 HTTP/\r\n", "error[ERROR] ");
    check_parse("get", "");
    check_parse("", "");
#define CHECK_BYTES(input, want) check_parse_len(input, sizeof(input) - 1, want)
    CHECK_BYTES("get a\0b c\r\nget a\0\n\0get a\r\n", "<get(a)> <get(a)> error[ERROR] ");
    CHECK_BYTES("get a b\0c\r\nset a 0 0 1\0 noreply\r\nx\r\nget\0 a\r\n", "<get(a) get(b)> <set(a =1)> error[ERROR] ");
}
END_TEST

static char *long_line(const char *start, const char *word, size_t len)
{
    char *line = malloc(len + 1);
    ck_assert_ptr_nonnull(line);
    for (size_t i = 0, w = strlen(word), s = strlen(start); i < len; i++) {
        line[i] = i < s ? start[i] : word[(i - s) % w];
    }
    line[len] = '\0';
    return line;
}

START_TEST(long_lines_without_a_newline)
{
    static const struct {
        const char *start;
        const char *word;
        size_t len;
        const char *want;
    } cases[] = {
        {"", "x", 2048, ""},
        {"", "x", 2049, "close[] "},
        {"", " ", 2049, "close[] "},
        {"set ", "x", 2049, "close[] "},
        {"get ", "a ", 2049, ""},
        {"gets ", "a ", 100000, ""},
        {"get ", "x", 3000, ""},
        {"get\t", "a ", 2049, "close[] "},
        {"gat 0 ", "a ", 2049, "close[] "},
        {"   get ", "a ", 2049, ""},
        {"get ", "a ", CLASSIC_LINE_MAX, ""},
        {"get ", "a ", CLASSIC_LINE_MAX + 1, "close[CLIENT_ERROR line too long] "},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char *line = long_line(cases[i].start, cases[i].word, cases[i].len);
        size_t steps[] = {cases[i].len, 2048, 1000, 1};
        for (size_t s = 0; s < ARRAY_LEN(steps) - (cases[i].len > 5000 ? 1 : 0); s++) {
            char *got = parse_in_pieces(line, cases[i].len, steps[s], steps[s]);
            ck_assert_msg(strcmp(got, cases[i].want) == 0, "'%.20s…' (%zu) gave '%s'", line, cases[i].len, got);
            free(got);
        }
        free(line);
    }
    for (size_t spaces = 99; spaces < 103; spaces++) {
        char *line = long_line("", " ", 3000);
        memset(line + spaces, 'a', 2000);
        memcpy(line + spaces, "get ", 4);
        char *got = parse_in_pieces(line, 3000, 3000, 1);
        ck_assert_str_eq(got, spaces <= 100 ? "" : "close[] ");
        free(got);
        free(line);
    }
}
END_TEST

START_TEST(long_multi_get)
{
    struct text input = {0}, want = {0};
    text_fmt(&input, "get");
    for (int i = 0; i < 30000; i++) {
        text_fmt(&input, " key:%d", i);
        text_fmt(&want, "%sget(key:%d)%s ", i == 0 ? "<" : "", i, i == 29999 ? ">" : "");
    }
    text_fmt(&input, "\r\nget a\r\n");
    text_fmt(&want, "<get(a)> ");
    static const size_t steps[] = {1000000, 16384, 1460};
    for (size_t s = 0; s < ARRAY_LEN(steps); s++) {
        struct feed feed = {.said = {0}};
        classic_init(&feed.classic);
        size_t at = 0;
        for (size_t have = MIN(steps[s], input.len);; have = MIN(have + steps[s], input.len)) {
            struct request request;
            struct span error;
            size_t consumed;
            enum parse_result result;
            while ((result = classic_parse(&feed.classic, input.data + at, have - at, &consumed, &request, &error)) ==
                   PARSE_REQUEST) {
                describe(&feed.said, &request);
                at += consumed;
            }
            ck_assert_int_eq(result, PARSE_MORE);
            if (have == input.len) {
                break;
            }
        }
        ck_assert_uint_eq(at, input.len);
        ck_assert_uint_eq(feed.said.len, want.len);
        ck_assert_mem_eq(feed.said.data, want.data, want.len);
        free(feed.said.data);
    }
    free(input.data);
    free(want.data);
}
END_TEST

/* What the chain holds, as one string. */
static char *chain_text(const struct chain *chain, size_t *len)
{
    struct iovec iov[256];
    struct text text = {0};
    int n = chain_iov(chain, iov, 256);
    ck_assert_int_lt(n, 256);
    text_add(&text, "", 0);
    for (int i = 0; i < n; i++) {
        text_add(&text, iov[i].iov_base, iov[i].iov_len);
    }
    ck_assert_uint_eq(text.len, chain->bytes);
    *len = text.len;
    return text.data;
}

struct fixture {
    struct classic classic;
    struct chunk_pool pool;
    struct chain out;
};

static void fixture_init(struct fixture *f)
{
    classic_init(&f->classic);
    chunk_pool_init(&f->pool, 64U << 20);
    chain_init(&f->out, &f->pool);
}

static void fixture_check(struct fixture *f, const char *want)
{
    size_t len;
    char *got = chain_text(&f->out, &len);
    ck_assert_str_eq(got, want);
    ck_assert_uint_eq(len, strlen(want));
    free(got);
    chain_clear(&f->out);
    ck_assert_uint_eq(f->pool.used_bytes, 0);
    chunk_pool_deinit(&f->pool);
}

/* One key of a group: the first and the last are marked as in describe(). */
static struct request key_of(const char *marked, bool with_cas)
{
    struct request request = {.command = with_cas ? COMMAND_GETS : COMMAND_GET, .op = OP_GET, .with = with_cas ? META_WANT_CAS : 0};
    size_t len = strlen(marked);
    request.is_first = marked[0] == '<';
    request.is_last = marked[len - 1] == '>';
    request.key = span_of(marked + request.is_first, len - request.is_first - request.is_last);
    return request;
}

static struct reply value_of(const char *value, uint32_t flags, uint64_t cas)
{
    return (struct reply){.status = REPLY_VALUE, .flags = flags, .cas = cas, .value = span_str(value)};
}

static struct reply failure_of(const char *text)
{
    return (struct reply){.status = REPLY_ERROR, .text = span_str(text)};
}

static const struct reply miss = {.status = REPLY_MISS};

static void render(struct fixture *f, struct request request, struct reply reply)
{
    ck_assert_int_eq(classic_render(&f->classic, &request, &reply, &f->out), OK);
}

START_TEST(render_gets)
{
    struct fixture f;
    fixture_init(&f);
    render(&f, key_of("<a>", false), value_of("hello", 7, 9));
    render(&f, key_of("<a>", true), value_of("hello", 4294967295U, UINT64_MAX));
    render(&f, key_of("<a>", false), miss);
    render(&f, key_of("<a>", false), value_of("", 0, 0));
    render(&f, key_of("<a", false), value_of("1", 0, 0));
    render(&f, key_of("b", false), miss);
    render(&f, key_of("c>", false), value_of("3", 0, 0));
    render(&f, key_of("<a", false), miss);
    render(&f, key_of("b>", false), miss);
    fixture_check(&f, "VALUE a 7 5\r\nhello\r\nEND\r\n"
                      "VALUE a 4294967295 5 18446744073709551615\r\nhello\r\nEND\r\n"
                      "END\r\n"
                      "VALUE a 0 0\r\n\r\nEND\r\n"
                      "VALUE a 0 1\r\n1\r\nVALUE c 0 1\r\n3\r\nEND\r\n"
                      "END\r\n");
}
END_TEST

START_TEST(render_groups_with_failures)
{
    struct fixture f;
    fixture_init(&f);
    render(&f, key_of("<a>", false), failure_of("SERVER_ERROR one"));
    render(&f, key_of("<a", false), failure_of("SERVER_ERROR two"));
    render(&f, key_of("b", false), failure_of("SERVER_ERROR three"));
    render(&f, key_of("c>", false), failure_of("SERVER_ERROR four"));
    render(&f, key_of("<a", false), failure_of("SERVER_ERROR five"));
    render(&f, key_of("b", false), value_of("x", 0, 0));
    render(&f, key_of("c>", false), failure_of("SERVER_ERROR six"));
    render(&f, key_of("<a", false), failure_of("SERVER_ERROR seven"));
    render(&f, key_of("b>", false), miss);
    render(&f, key_of("<a", false), failure_of("SERVER_ERROR eight"));
    render(&f, key_of("b>", false), failure_of("SERVER_ERROR nine"));
    fixture_check(&f, "SERVER_ERROR one\r\n"
                      "SERVER_ERROR two\r\n"
                      "VALUE b 0 1\r\nx\r\nEND\r\n"
                      "END\r\n"
                      "SERVER_ERROR eight\r\n");
}
END_TEST

START_TEST(render_long_failure)
{
    struct fixture f;
    fixture_init(&f);
    struct classic *c = &f.classic;
    char *text = long_line("SERVER_ERROR ", "x", 1000);
    render(&f, key_of("<a>", false), failure_of(text));
    text[sizeof c->error] = '\r';
    text[sizeof c->error + 1] = '\n';
    text[sizeof c->error + 2] = '\0';
    fixture_check(&f, text);
    free(text);
}
END_TEST

START_TEST(render_lines)
{
    static const struct {
        enum op op;
        bool noreply;
        struct reply reply;
        const char *want;
    } cases[] = {
        {OP_SET, false, {.status = REPLY_STORED}, "STORED\r\n"},
        {OP_ADD, false, {.status = REPLY_NOT_STORED}, "NOT_STORED\r\n"},
        {OP_SET, false, {.status = REPLY_EXISTS}, "EXISTS\r\n"},
        {OP_SET, false, {.status = REPLY_NOT_FOUND}, "NOT_FOUND\r\n"},
        {OP_INCR, false, {.status = REPLY_MISS}, "NOT_FOUND\r\n"},
        {OP_DELETE, false, {.status = REPLY_DELETED}, "DELETED\r\n"},
        {OP_TOUCH, false, {.status = REPLY_TOUCHED}, "TOUCHED\r\n"},
        {OP_INCR, false, {.status = REPLY_NUMBER, .number = 0}, "0\r\n"},
        {OP_DECR, false, {.status = REPLY_NUMBER, .number = UINT64_MAX}, "18446744073709551615\r\n"},
        {OP_FLUSH_ALL, false, {.status = REPLY_OK}, "OK\r\n"},
        {OP_VERSION, false, {.status = REPLY_VERSION, .text = {"1.2.3", 5}}, "VERSION 1.2.3\r\n"},
        {OP_STATS, false, {.status = REPLY_STATS, .text = {"STAT a 1\r\nSTAT b 2\r\n", 20}}, "STAT a 1\r\nSTAT b 2\r\nEND\r\n"},
        {OP_STATS, false, {.status = REPLY_STATS}, "END\r\n"},
        {OP_STATS, false, {.status = REPLY_ERROR, .text = {"RESET", 5}}, "RESET\r\n"},
        {OP_SET, false, {.status = REPLY_ERROR, .text = {"SERVER_ERROR x", 14}}, "SERVER_ERROR x\r\n"},
        {OP_QUIT, false, {.status = REPLY_NONE}, ""},
        {OP_GET, false, {.status = REPLY_NONE}, ""},
        {OP_SET, true, {.status = REPLY_STORED}, ""},
        {OP_INCR, true, {.status = REPLY_NUMBER, .number = 5}, ""},
        {OP_SET, true, {.status = REPLY_ERROR, .text = {"SERVER_ERROR x", 14}}, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fixture f;
        fixture_init(&f);
        render(&f,
               (struct request){
                   .op = cases[i].op, .noreply = cases[i].noreply, .is_first = true, .is_last = true, .key = SPAN_LIT("k")},
               cases[i].reply);
        fixture_check(&f, cases[i].want);
    }
}
END_TEST

/* Values of every size around the limits: copied below CHAIN_REF_MIN, referenced from there on if they are in a chunk. */
START_TEST(render_sizes)
{
    static const size_t sizes[] = {0,    1,     9,      10, 99, 100, 1024, CHAIN_REF_MIN - 1, CHAIN_REF_MIN, CHAIN_REF_MIN + 1,
                                   8192, 40000, 1000000};
    for (size_t i = 0; i < ARRAY_LEN(sizes) * 2; i++) {
        struct fixture f;
        fixture_init(&f);
        size_t len = sizes[i / 2];
        struct chunk *chunk = chunk_get(&f.pool, len + 2);
        ck_assert_ptr_nonnull(chunk);
        memset(chunk->data, 'v', len);
        struct reply reply = {.status = REPLY_VALUE, .chunk = i % 2 == 0 ? chunk : NULL, .value = span_of(chunk->data, len)};
        struct text want = {0};
        char *value = long_line("", "v", len);
        for (int k = 0; k < 3; k++) {
            render(&f, key_of(k == 0 ? "<k" : k == 1 ? "k" : "k>", false), reply);
            text_fmt(&want, "VALUE k 0 %zu\r\n", len);
            text_add(&want, value, len);
            text_add(&want, "\r\n", 2);
        }
        text_add(&want, "END\r\n", 5);
        ck_assert_uint_eq(chunk->refs, reply.chunk != NULL && len >= CHAIN_REF_MIN ? 4 : 1);
        chunk_unref(&chunk);
        fixture_check(&f, want.data);
        free(want.data);
        free(value);
    }
}
END_TEST

START_TEST(render_without_memory)
{
    struct fixture f;
    fixture_init(&f);
    struct chunk *chunk = chunk_get(NULL, 10000);
    memset(chunk->data, 'v', 10000);
    f.pool.limit_bytes = 0;
    const struct reply replies[] = {
        value_of("x", 0, 0),
        {.status = REPLY_VALUE, .chunk = chunk, .value = {chunk->data, 10000}},
        {.status = REPLY_VALUE, .value = {chunk->data, 10000}},
        miss,
        {.status = REPLY_NUMBER},
        {.status = REPLY_STATS, .text = {"STAT a 1\r\n", 10}},
        {.status = REPLY_VERSION, .text = {"1", 1}},
        {.status = REPLY_STORED},
        failure_of("SERVER_ERROR x"),
    };
    for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
        struct request request = key_of("<k>", false);
        request.op = i < 4 ? OP_GET : OP_INCR;
        ck_assert_int_eq(classic_render(&f.classic, &request, &replies[i], &f.out), ERR_NOMEM);
    }
    chunk_unref(&chunk);
    fixture_check(&f, "");
}
END_TEST

/* What is written as a request comes back as it was; what is rendered as a reply says what was put in. */
START_TEST(round_trips)
{
    uint64_t seed = 42;
    for (int round = 0; round < 20000; round++) {
        seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
        uint64_t r = seed >> 20;
        struct fixture f;
        fixture_init(&f);
        char key[251];
        size_t key_len = 1 + r % 250;
        for (size_t i = 0; i < key_len; i++) {
            seed = seed * 6364136223846793005ULL + 1442695040888963407ULL;
            key[i] = (char)(seed >> 40);
            key[i] = key[i] == ' ' || key[i] == '\n' || key[i] == '\0' ? '_' : key[i];
        }
        struct reply reply = value_of("value", (uint32_t)(seed >> 13), seed >> (r % 64));
        struct request sent = {
            .command = COMMAND_GETS, .op = OP_GET, .with = META_WANT_CAS, .is_first = true, .is_last = true, .key = {key, key_len}};
        render(&f, sent, reply);
        size_t len;
        char *answer = chain_text(&f.out, &len);
        struct span words[8];
        const char *newline = memchr(answer + 6 + key_len, '\n', len);
        ck_assert_ptr_nonnull(newline);
        size_t n = token_split(span_of(answer + 6 + key_len, (size_t)(newline - answer) - 6 - key_len - 1), words, 8);
        uint64_t flags, value_len, cas;
        ck_assert(n == 3 && token_u64(words[0], &flags) && token_u64(words[1], &value_len) && token_u64(words[2], &cas));
        ck_assert_mem_eq(answer + 6, key, key_len);
        ck_assert(flags == reply.flags && value_len == 5 && cas == reply.cas);
        free(answer);
        chain_clear(&f.out);
        chunk_pool_deinit(&f.pool);

        char line[512];
        int line_len = snprintf(line, sizeof line, "cas %.*s %u %d %u %llu%s\r\n", (int)key_len, key, reply.flags,
                                (int)(int32_t)r, 17U, (unsigned long long)reply.cas, r & 1 ? " noreply" : "");
        struct request got;
        struct span error;
        size_t consumed;
        ck_assert_int_eq(classic_parse(&f.classic, line, (size_t)line_len, &consumed, &got, &error), PARSE_REQUEST);
        ck_assert_int_eq((int)consumed, line_len);
        ck_assert(span_eq(got.key, sent.key) && got.flags == reply.flags && got.exptime == (int32_t)r && got.value_len == 17);
        ck_assert(got.cas == reply.cas && got.noreply == (r & 1));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("classic");
    TCase *tc = tcase_create("parse");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, every_command_is_found);
    tcase_add_test(tc, gets);
    tcase_add_test(tc, stores);
    tcase_add_test(tc, other_commands_with_a_key);
    tcase_add_test(tc, commands_without_a_key);
    tcase_add_test(tc, bad_lines);
    tcase_add_test(tc, long_lines_without_a_newline);
    tcase_add_test(tc, long_multi_get);
    suite_add_tcase(suite, tc);
    tc = tcase_create("render");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, render_gets);
    tcase_add_test(tc, render_groups_with_failures);
    tcase_add_test(tc, render_long_failure);
    tcase_add_test(tc, render_lines);
    tcase_add_test(tc, render_sizes);
    tcase_add_test(tc, render_without_memory);
    tcase_add_test(tc, round_trips);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
