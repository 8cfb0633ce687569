#include <stdarg.h>

#include "proxy/protocol/binary.h"
#include "proxy/protocol/codec.h"
#include "tests/unit/check_main.h"

#define PACKET_MAX 80000
#define OPAQUE 0xdeadbeef
#define UNKNOWN "error[ERROR] "
#define READ_MAX 16384 /* of memcached, in front of a value */
#define CLOSE_UNKNOWN "close[ERROR] "
#define CLOSE_INVALID "close[CLIENT_ERROR Invalid arguments] "
#define NOOP "noop() "

/* --- packets, written here in another way than the codec does --- */

struct packet {
    uint8_t magic;
    uint8_t opcode;
    uint16_t status;
    struct span extras;
    struct span key;
    struct span value;
    uint64_t cas;
    int body_more; /* what the head says of the body beyond the truth */
};

static void put_number(char **at, uint64_t number, int bytes)
{
    for (int i = bytes - 1; i >= 0; i--) {
        *(*at)++ = (char)(number >> (8 * i) & 0xff);
    }
}

static size_t write_packet(char *at, const struct packet *p)
{
    char *start = at;
    put_number(&at, p->magic, 1);
    put_number(&at, p->opcode, 1);
    put_number(&at, p->key.len, 2);
    put_number(&at, p->extras.len, 1);
    put_number(&at, 0, 1);
    put_number(&at, p->status, 2);
    put_number(&at, p->extras.len + p->key.len + p->value.len + (uint64_t)(int64_t)p->body_more, 4);
    put_number(&at, OPAQUE, 4);
    put_number(&at, p->cas, 8);
    const struct span parts[] = {p->extras, p->key, p->value};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        if (parts[i].len > 0) {
            memcpy(at, parts[i].data, parts[i].len);
        }
        at += parts[i].len;
    }
    return (size_t)(at - start);
}

/* --- requests --- */

struct said {
    char text[2048];
    size_t len;
};

static void __attribute__((format(printf, 2, 3))) say(struct said *said, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int len = vsnprintf(said->text + said->len, sizeof said->text - said->len, fmt, args);
    va_end(args);
    ck_assert_int_lt(len, (int)(sizeof said->text - said->len));
    said->len += (size_t)len;
}

static void describe(struct said *said, const struct request *r)
{
    static const char *const ops[] = {
        [OP_GET] = "get",         [OP_GAT] = "gat",         [OP_SET] = "set",           [OP_ADD] = "add",
        [OP_REPLACE] = "replace", [OP_APPEND] = "append",   [OP_PREPEND] = "prepend",   [OP_DELETE] = "delete",
        [OP_INCR] = "incr",       [OP_DECR] = "decr",       [OP_TOUCH] = "touch",       [OP_FLUSH_ALL] = "flush",
        [OP_VERSION] = "version", [OP_STATS] = "stats",     [OP_VERBOSITY] = "verbose", [OP_QUIT] = "quit",
        [OP_NOOP] = "noop",       [OP_SASL_LIST] = "mechs", [OP_AUTH] = "auth",
    };
    static const struct {
        uint32_t flag;
        char letter;
    } letters[] = {{META_WANT_VALUE, 'v'}, {META_WANT_FLAGS, 'f'}, {META_WANT_CAS, 'c'}, {META_CAS, 'C'},    {META_TTL, 'T'},
                   {META_VIVIFY, 'N'},     {META_CLIENT_FLAGS, 'F'}, {META_DELTA, 'D'},  {META_INITIAL, 'J'}};
    ck_assert(r->protocol == PROTOCOL_BINARY && r->is_first && r->is_last && !r->noreply && r->value_tail == 0);
    ck_assert_uint_lt(r->command, COMMAND_COUNT);
    say(said, "%s%s(", ops[r->op], r->is_quiet ? "Q" : "");
    for (size_t i = 0; i < r->key.len; i++) {
        unsigned char c = (unsigned char)r->key.data[i];
        say(said, c > ' ' && c < 0x7f ? "%c" : "\\%02x", c);
    }
    uint32_t left = r->with;
    for (size_t i = 0; i < ARRAY_LEN(letters); i++) {
        if (r->with & letters[i].flag) {
            say(said, "%s%c", left == r->with ? " " : "", letters[i].letter);
            left &= ~letters[i].flag;
        }
    }
    ck_assert_uint_eq(left, 0);
    const struct {
        const char *name;
        uint64_t number;
    } numbers[] = {{"flags", r->flags}, {"exptime", (uint64_t)r->exptime},     {"cas", r->cas},
                   {"delta", r->delta}, {"initial", r->initial}, {"vivify", r->with & META_VIVIFY ? (uint64_t)r->vivify_ttl : 0}};
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        if (numbers[i].number != 0) {
            say(said, " %s=%llu", numbers[i].name, (unsigned long long)numbers[i].number);
        }
    }
    if (r->has_value) {
        say(said, " value=%zu", r->value_len);
    }
    say(said, ") ");
}

struct feed {
    struct codec codec;
    struct said said;
    size_t skip;
    bool closed;
};

/* As a session does with data[0..len); returns how much was taken. */
static size_t feed_some(struct feed *feed, const char *data, size_t len)
{
    size_t at = 0;
    while (!feed->closed) {
        size_t n = MIN(feed->skip, len - at);
        feed->skip -= n;
        at += n;
        char *copy = malloc(len - at + (len == at)); /* the sanitizer knows where it ends */
        ck_assert_ptr_nonnull(copy);
        memcpy(copy, data + at, len - at);
        size_t consumed = 99;
        struct request request;
        struct span error = SPAN_LIT("unset");
        enum parse_result result = codec_parse(&feed->codec, copy, len - at, &consumed, &request, &error);
        if (result == PARSE_REQUEST) {
            ck_assert_uint_eq(request.echo.opaque, htobe32(OPAQUE));
            describe(&feed->said, &request);
            feed->skip = request.has_value ? request.value_len : 0;
        } else if (result != PARSE_MORE) {
            ck_assert(request.op == OP_NONE && request.protocol == PROTOCOL_BINARY && request.key.len == 0 && !request.is_quiet);
            feed->closed = result == PARSE_CLOSE;
            say(&feed->said, "%s[%.*s] ", feed->closed ? "close" : "error", SPAN_FMT(error));
            feed->skip = codec_swallow(&feed->codec);
            ck_assert_uint_eq(codec_swallow(&feed->codec), 0);
        }
        free(copy);
        if (result == PARSE_MORE) {
            ck_assert_uint_eq(consumed, 0);
            break;
        }
        ck_assert_uint_le(consumed, len - at);
        at += consumed;
    }
    return at;
}

static void check_pieces(const char *data, size_t len, size_t first, size_t step, const char *want)
{
    struct feed feed = {.skip = 0};
    codec_init(&feed.codec);
    size_t at = 0;
    for (size_t have = MIN(first, len);; have = MIN(have + step, len)) {
        at += feed_some(&feed, data + at, have - at);
        if (have == len || feed.closed) {
            break;
        }
    }
    ck_assert_msg(strcmp(feed.said.text, want) == 0, "opcode %02x cut at %zu\n  gave %s\n  not  %s", data[1], first, feed.said.text, want);
}

/* Whole, cut at every byte, and byte by byte. */
static void check_parse(const char *data, size_t len, const char *want)
{
    check_pieces(data, len, len, 1, want);
    check_pieces(data, len, 0, 1, want);
    for (size_t cut = 1; cut < len; cut++) {
        check_pieces(data, len, cut, len, want);
    }
}

#define EXTRAS(s) .extras = SPAN_LIT(s)
#define KEY(s) .key = SPAN_LIT(s)
#define VALUE(s) .value = SPAN_LIT(s)
#define STORE_EXTRAS EXTRAS("\x01\x02\x03\x04\x00\x00\x00\x64")
#define COUNT_EXTRAS(exptime) EXTRAS("\x00\x00\x00\x00\x00\x00\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff" exptime)

static const struct {
    struct packet packet;
    const char *want;
} requests[] = {
    {{.opcode = OPCODE_GET, KEY("k")}, "get(k vfc) "},
    {{.opcode = OPCODE_GETQ, KEY("k")}, "getQ(k vfc) "},
    {{.opcode = OPCODE_GETK, KEY("k")}, "get(k vfc) "},
    {{.opcode = OPCODE_GETKQ, KEY("k"), .cas = 5}, "getQ(k vfc) "},
    {{.opcode = OPCODE_GET, KEY("a b\r\n\0\xff")}, "get(a\\20b\\0d\\0a\\00\\ff vfc) "},
    {{.opcode = OPCODE_SET, STORE_EXTRAS, KEY("k"), VALUE("hello")}, "set(k cTF flags=16909060 exptime=100 value=5) "},
    {{.opcode = OPCODE_SETQ, STORE_EXTRAS, KEY("k"), VALUE("\r\n")}, "setQ(k cTF flags=16909060 exptime=100 value=2) "},
    {{.opcode = OPCODE_SET, STORE_EXTRAS, KEY("k"), .cas = 77}, "set(k cCTF flags=16909060 exptime=100 cas=77 value=0) "},
    {{.opcode = OPCODE_SET, EXTRAS("\0\0\0\0\xff\xff\xff\xff"), KEY("k")}, "set(k cTF exptime=2147483647 value=0) "},
    {{.opcode = OPCODE_ADD, STORE_EXTRAS, KEY("k"), VALUE("x")}, "add(k cTF flags=16909060 exptime=100 value=1) "},
    {{.opcode = OPCODE_ADDQ, STORE_EXTRAS, KEY("k"), .cas = 1}, "setQ(k cCTF flags=16909060 exptime=100 cas=1 value=0) "},
    {{.opcode = OPCODE_REPLACE, STORE_EXTRAS, KEY("k"), .cas = UINT64_MAX},
     "set(k cCTF flags=16909060 exptime=100 cas=18446744073709551615 value=0) "},
    {{.opcode = OPCODE_REPLACEQ, STORE_EXTRAS, KEY("k")}, "replaceQ(k cTF flags=16909060 exptime=100 value=0) "},
    {{.opcode = OPCODE_APPEND, KEY("k"), VALUE("xyz")}, "append(k c value=3) "},
    {{.opcode = OPCODE_APPENDQ, KEY("k"), .cas = 3}, "appendQ(k cC cas=3 value=0) "},
    {{.opcode = OPCODE_PREPEND, KEY("k"), VALUE("xyz"), .cas = 4}, "prepend(k cC cas=4 value=3) "},
    {{.opcode = OPCODE_PREPENDQ, KEY("k"), VALUE("xyz")}, "prependQ(k c value=3) "},
    {{.opcode = OPCODE_DELETE, KEY("k")}, "delete(k) "},
    {{.opcode = OPCODE_DELETEQ, KEY("k"), .cas = 9}, "deleteQ(k C cas=9) "},
    {{.opcode = OPCODE_INCREMENT, COUNT_EXTRAS("\0\0\0\x0a"), KEY("k")},
     "incr(k vcNDJ delta=256 initial=18446744073709551615 vivify=10) "},
    {{.opcode = OPCODE_INCREMENTQ, COUNT_EXTRAS("\0\0\0\0"), KEY("k"), .cas = 2},
     "incrQ(k vcCNDJ cas=2 delta=256 initial=18446744073709551615) "},
    {{.opcode = OPCODE_DECREMENT, COUNT_EXTRAS("\xff\xff\xff\xff"), KEY("k")}, "decr(k vcD delta=256 initial=18446744073709551615) "},
    {{.opcode = OPCODE_DECREMENTQ, COUNT_EXTRAS("\xff\xff\xff\xfe"), KEY("k")},
     "decrQ(k vcNDJ delta=256 initial=18446744073709551615 vivify=2147483647) "},
    {{.opcode = OPCODE_TOUCH, EXTRAS("\0\0\1\0"), KEY("k")}, "touch(k fcT exptime=256) "},
    {{.opcode = OPCODE_GAT, EXTRAS("\0\0\1\0"), KEY("k")}, "gat(k vfcT exptime=256) "},
    {{.opcode = OPCODE_GATQ, EXTRAS("\0\0\1\0"), KEY("k")}, "gatQ(k vfcT exptime=256) "},
    {{.opcode = OPCODE_GATK, EXTRAS("\0\0\1\0"), KEY("k")}, "gat(k vfcT exptime=256) "},
    {{.opcode = OPCODE_GATKQ, EXTRAS("\0\0\0\0"), KEY("k")}, "gatQ(k vfcT) "},
    {{.opcode = OPCODE_NOOP}, "noop() "},
    {{.opcode = OPCODE_VERSION, .cas = 3}, "version() "},
    {{.opcode = OPCODE_QUIT}, "quit() "},
    {{.opcode = OPCODE_QUITQ}, "quitQ() "},
    {{.opcode = OPCODE_FLUSH}, "flush() "},
    {{.opcode = OPCODE_FLUSHQ}, "flushQ() "},
    {{.opcode = OPCODE_FLUSH, EXTRAS("\0\0\0\x05")}, "flush( exptime=5) "},
    {{.opcode = OPCODE_STAT}, "stats() "},
    {{.opcode = OPCODE_STAT, KEY("settings")}, "stats(settings) "},
    {{.opcode = OPCODE_VERBOSITY, EXTRAS("\0\0\0\1")}, "verbose() "},
    {{.opcode = OPCODE_SASL_LIST}, "mechs() "},
    {{.opcode = OPCODE_SASL_AUTH, KEY("PLAIN"), VALUE("\0user\0password"), .cas = 1}, "auth(PLAIN value=14) "},
    {{.opcode = OPCODE_SASL_STEP, KEY("PLAIN")}, "auth(PLAIN value=0) "},
    /* a body that goes on: what is left is the next packet, or the rest of the body's own length is no one's */
    {{.opcode = OPCODE_TOUCH, EXTRAS("\0\0\1\0"), KEY("k"), .body_more = 24}, "touch(k fcT exptime=256) "},
    {{.opcode = OPCODE_STAT, KEY("k"), .body_more = 24}, "stats(k) "},
};

START_TEST(parse_requests)
{
    char data[4096];
    for (size_t i = 0; i < ARRAY_LEN(requests); i++) {
        struct packet packet = requests[i].packet;
        packet.magic = BINARY_REQUEST;
        size_t len = write_packet(data, &packet);
        len += write_packet(data + len, &(struct packet){.magic = BINARY_REQUEST, .opcode = OPCODE_NOOP});
        char want[512];
        snprintf(want, sizeof want, "%s" NOOP, requests[i].want);
        check_parse(data, len, want);
    }
}
END_TEST

static const struct {
    struct packet packet;
    const char *want;
} refused[] = {
    /* not what the opcode asks for: an answer, and the end */
    {{.opcode = OPCODE_GET}, CLOSE_INVALID},
    {{.opcode = OPCODE_GET, EXTRAS("\0\0\0\0"), KEY("k")}, CLOSE_INVALID},
    {{.opcode = OPCODE_GETKQ, KEY("k"), VALUE("v")}, CLOSE_INVALID},
    {{.opcode = OPCODE_SET, KEY("k"), VALUE("v")}, CLOSE_INVALID},
    {{.opcode = OPCODE_SETQ, STORE_EXTRAS, VALUE("v")}, CLOSE_INVALID},
    {{.opcode = OPCODE_ADD, EXTRAS("123456789"), KEY("k")}, CLOSE_INVALID},
    {{.opcode = OPCODE_APPEND, VALUE("v")}, CLOSE_INVALID},
    {{.opcode = OPCODE_PREPENDQ, STORE_EXTRAS, KEY("k"), VALUE("v")}, CLOSE_INVALID},
    {{.opcode = OPCODE_DELETE}, CLOSE_INVALID},
    {{.opcode = OPCODE_DELETE, KEY("k"), VALUE("v")}, CLOSE_INVALID},
    {{.opcode = OPCODE_DELETE, EXTRAS("x"), KEY("k")}, CLOSE_INVALID},
    {{.opcode = OPCODE_INCREMENT, KEY("k")}, CLOSE_INVALID},
    {{.opcode = OPCODE_DECREMENTQ, COUNT_EXTRAS("\0\0\0\0")}, CLOSE_INVALID},
    {{.opcode = OPCODE_DECREMENT, COUNT_EXTRAS("\0\0\0\0"), KEY("k"), VALUE("v")}, CLOSE_INVALID},
    {{.opcode = OPCODE_TOUCH, KEY("k")}, CLOSE_INVALID},
    {{.opcode = OPCODE_GAT, EXTRAS("\0\0\0\0")}, CLOSE_INVALID},
    {{.opcode = OPCODE_GATKQ, EXTRAS("\0\0\0\0\0"), KEY("k")}, CLOSE_INVALID},
    {{.opcode = OPCODE_NOOP, KEY("k")}, CLOSE_INVALID},
    {{.opcode = OPCODE_VERSION, VALUE("v")}, CLOSE_INVALID},
    {{.opcode = OPCODE_QUITQ, EXTRAS("x")}, CLOSE_INVALID},
    {{.opcode = OPCODE_FLUSH, KEY("k")}, CLOSE_INVALID},
    {{.opcode = OPCODE_FLUSH, EXTRAS("\0\0\0")}, CLOSE_INVALID},
    {{.opcode = OPCODE_FLUSHQ, EXTRAS("\0\0\0\1"), VALUE("v")}, CLOSE_INVALID},
    {{.opcode = OPCODE_STAT, EXTRAS("x")}, CLOSE_INVALID},
    {{.opcode = OPCODE_SASL_LIST, KEY("k")}, CLOSE_INVALID},
    {{.opcode = OPCODE_SASL_AUTH, VALUE("v")}, CLOSE_INVALID},
    {{.opcode = OPCODE_SASL_STEP, EXTRAS("x"), KEY("k")}, CLOSE_INVALID},
    /* lengths that contradict each other, of whatever opcode */
    {{.opcode = OPCODE_GET, KEY("key"), .body_more = -1}, CLOSE_UNKNOWN},
    {{.opcode = OPCODE_SET, STORE_EXTRAS, KEY("key"), .body_more = -4}, CLOSE_UNKNOWN},
    {{.opcode = 0x99, KEY("key"), .body_more = -1}, CLOSE_UNKNOWN},
    /* unknown: the body is skipped */
    {{.opcode = 0x1f}, UNKNOWN NOOP},
    {{.opcode = 0xff, VALUE("whatever")}, UNKNOWN NOOP},
    {{.opcode = OPCODE_VERBOSITY}, UNKNOWN NOOP},
    {{.opcode = OPCODE_VERBOSITY, VALUE("1234")}, UNKNOWN NOOP},
    {{.opcode = 0x30, VALUE("0123456789"), .cas = 4}, UNKNOWN NOOP},
    {{.opcode = 0x1b + 0x40, KEY("1234567890"), VALUE("01234")}, UNKNOWN},                  /* 10 bytes of the noop are skipped, too */
    {{.opcode = 0x31, EXTRAS("1234567890123456789012"), KEY("xx")}, UNKNOWN}, /* all 24 */
};

START_TEST(parse_refused)
{
    char data[4096];
    for (size_t i = 0; i < ARRAY_LEN(refused); i++) {
        struct packet packet = refused[i].packet;
        packet.magic = BINARY_REQUEST;
        size_t len = write_packet(data, &packet);
        len += write_packet(data + len, &(struct packet){.magic = BINARY_REQUEST, .opcode = OPCODE_NOOP});
        check_parse(data, len, refused[i].want);
    }
}
END_TEST

START_TEST(parse_long_keys)
{
    static const struct {
        size_t len;
        const char *want;
    } keys[] = {{250, "stats("}, {251, CLOSE_INVALID}, {READ_MAX - 24, CLOSE_INVALID}};
    char *data = malloc(PACKET_MAX);
    char *key = malloc(65535);
    ck_assert(data != NULL && key != NULL);
    memset(key, 'k', 65535);
    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        for (unsigned opcode = 0; opcode < OPCODE_COUNT; opcode++) { /* an unknown one, too, is refused for its key first */
            if (keys[i].len == 250 && opcode != OPCODE_STAT) {
                continue;
            }
            struct packet packet = {.magic = BINARY_REQUEST, .opcode = (uint8_t)opcode, .key = {key, keys[i].len}};
            size_t len = write_packet(data, &packet);
            struct feed feed = {.skip = 0};
            codec_init(&feed.codec);
            ck_assert_uint_eq(feed_some(&feed, data, len - 1), 0); /* even what will be refused is waited for */
            ck_assert_uint_eq(feed.said.len, 0);
            feed_some(&feed, data, len);
            ck_assert_msg(strncmp(feed.said.text, keys[i].want, strlen(keys[i].want)) == 0, "%s", feed.said.text);
        }
    }
    free(key);
    free(data);
}
END_TEST

/* What memcached has no room for is not even waited for, nor answered. */
START_TEST(parse_far_too_long_keys)
{
    static const uint32_t lens[] = {READ_MAX - 23, 65535};
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        char head[24] = {(char)BINARY_REQUEST, OPCODE_GET, (char)(lens[i] >> 8), (char)lens[i], [10] = (char)(lens[i] >> 8), [11] = (char)lens[i]};
        check_parse(head, sizeof head, "close[] ");
    }
}
END_TEST

START_TEST(parse_the_largest_body)
{
    char data[64];
    struct packet packet = {.magic = BINARY_REQUEST, .opcode = OPCODE_SET, STORE_EXTRAS, KEY("k"), .body_more = -10};
    size_t len = write_packet(data, &packet); /* 2^32 - 1 */
    struct feed feed = {.skip = 0};
    codec_init(&feed.codec);
    ck_assert_uint_eq(feed_some(&feed, data, len), len);
    ck_assert_str_eq(feed.said.text, "set(k cTF flags=16909060 exptime=100 value=4294967286) ");
}
END_TEST

START_TEST(parse_wrong_magic)
{
    char data[256];
    size_t len = write_packet(data, &(struct packet){.magic = BINARY_REQUEST, .opcode = OPCODE_GET, KEY("k")});
    size_t next = write_packet(data + len, &(struct packet){.magic = BINARY_REPLY, .opcode = OPCODE_GET, KEY("k")});
    check_parse(data, len + next, "get(k vfc) close[] ");
    memcpy(data + len, "get k\r\n                 ", 24); /* text is nothing else, once it is binary */
    check_parse(data, len + 24, "get(k vfc) close[] ");
}
END_TEST

START_TEST(text_is_text)
{
    struct codec codec;
    codec_init(&codec);
    struct request request;
    struct span error;
    size_t consumed;
    ck_assert_int_eq(codec_parse(&codec, "", 0, &consumed, &request, &error), PARSE_MORE);
    ck_assert_int_eq(codec_parse(&codec, "get k\r\n", 7, &consumed, &request, &error), PARSE_REQUEST);
    ck_assert_int_eq(request.protocol, PROTOCOL_CLASSIC);
    char data[64];
    size_t len = write_packet(data, &(struct packet){.magic = BINARY_REQUEST, .opcode = OPCODE_GET, KEY("\r\n")});
    ck_assert_int_eq(codec_parse(&codec, data, len, &consumed, &request, &error), PARSE_ERROR); /* a line that is no command */
    ck_assert_int_eq(request.protocol, PROTOCOL_CLASSIC);
}
END_TEST

/* --- replies --- */

/* The request that a packet is parsed into. */
static struct request request_of(uint8_t opcode)
{
    static char data[64]; /* its key must stay */
    struct packet packet = {.magic = BINARY_REQUEST, .opcode = opcode};
    switch (opcode) {
    case OPCODE_SET:
    case OPCODE_SETQ:
    case OPCODE_ADD:
    case OPCODE_ADDQ:
    case OPCODE_REPLACE:
    case OPCODE_REPLACEQ: packet.extras = SPAN_LIT("12345678"); break;
    case OPCODE_INCREMENT:
    case OPCODE_INCREMENTQ:
    case OPCODE_DECREMENT:
    case OPCODE_DECREMENTQ: packet.extras = SPAN_LIT("12345678901234567890"); break;
    case OPCODE_TOUCH:
    case OPCODE_GAT:
    case OPCODE_GATQ:
    case OPCODE_GATK:
    case OPCODE_GATKQ: packet.extras = SPAN_LIT("1234"); break;
    default: break;
    }
    if (opcode != OPCODE_NOOP && opcode != OPCODE_VERSION && opcode != OPCODE_QUIT && opcode != OPCODE_QUITQ && opcode != OPCODE_FLUSH &&
        opcode != OPCODE_FLUSHQ && opcode != OPCODE_SASL_LIST) {
        packet.key = SPAN_LIT("k\n");
    }
    size_t len = write_packet(data, &packet);
    struct binary binary;
    struct request request;
    struct span error;
    size_t consumed;
    binary_init(&binary);
    ck_assert_int_eq(binary_parse(&binary, data, len, &consumed, &request, &error), PARSE_REQUEST);
    return request;
}

static void check_bytes(struct chain *out, const char *want, size_t len)
{
    struct iovec iov[16];
    int pieces = chain_iov(out, iov, 16);
    size_t at = 0;
    for (int i = 0; i < pieces; i++) {
        ck_assert_uint_le(at + iov[i].iov_len, len);
        ck_assert_mem_eq(iov[i].iov_base, want + at, iov[i].iov_len);
        at += iov[i].iov_len;
    }
    ck_assert_uint_eq(at, len);
}

static void check_render(uint8_t opcode, const struct reply *reply, const struct packet *packets, size_t count)
{
    struct chunk_pool pool;
    struct chain out;
    chunk_pool_init(&pool, 1 << 20);
    chain_init(&out, &pool);
    char *want = malloc(PACKET_MAX);
    ck_assert_ptr_nonnull(want);
    size_t len = 0;
    for (size_t i = 0; i < count; i++) {
        struct packet packet = packets[i];
        packet.magic = BINARY_REPLY;
        packet.opcode = opcode;
        len += write_packet(want + len, &packet);
    }
    struct request request = request_of(opcode);
    ck_assert_int_eq(binary_render(&request, reply, &out), OK);
    check_bytes(&out, want, len);
    free(want);
    chain_clear(&out);
    chunk_pool_deinit(&pool);
}

#define TEXT(s) {.status = REPLY_ERROR, .text = SPAN_LIT(s)}
#define FAILURE(code, s) {.status = (code), VALUE(s)}
#define NOTHING {.magic = 1}

static const struct {
    uint8_t opcode;
    struct reply reply;
    struct packet want; /* NOTHING: nothing is sent */
} replies[] = {
    {OPCODE_GET, {.status = REPLY_VALUE, .flags = 0x01020304, .cas = 5, .value = SPAN_LIT("v")}, {EXTRAS("\1\2\3\4"), VALUE("v"), .cas = 5}},
    {OPCODE_GETQ, {.status = REPLY_VALUE, .value = SPAN_LIT("")}, {EXTRAS("\0\0\0\0")}},
    {OPCODE_GETK, {.status = REPLY_VALUE, .cas = UINT64_MAX, .value = SPAN_LIT("v")}, {EXTRAS("\0\0\0\0"), KEY("k\n"), VALUE("v"), .cas = UINT64_MAX}},
    {OPCODE_GETKQ, {.status = REPLY_VALUE, .value = SPAN_LIT("v")}, {EXTRAS("\0\0\0\0"), KEY("k\n"), VALUE("v")}},
    {OPCODE_GAT, {.status = REPLY_VALUE, .value = SPAN_LIT("v")}, {EXTRAS("\0\0\0\0"), VALUE("v")}},
    {OPCODE_GATQ, {.status = REPLY_VALUE, .value = SPAN_LIT("v")}, {EXTRAS("\0\0\0\0"), VALUE("v")}},
    {OPCODE_GATK, {.status = REPLY_VALUE, .value = SPAN_LIT("v")}, {EXTRAS("\0\0\0\0"), KEY("k\n"), VALUE("v")}},
    {OPCODE_GATKQ, {.status = REPLY_VALUE, .value = SPAN_LIT("v")}, {EXTRAS("\0\0\0\0"), KEY("k\n"), VALUE("v")}},
    {OPCODE_GET, {.status = REPLY_MISS}, FAILURE(1, "Not found")},
    {OPCODE_GETQ, {.status = REPLY_MISS}, NOTHING},
    {OPCODE_GETK, {.status = REPLY_MISS}, {.status = 1, KEY("k\n")}},
    {OPCODE_GETKQ, {.status = REPLY_MISS}, NOTHING},
    {OPCODE_GAT, {.status = REPLY_MISS}, FAILURE(1, "Not found")},
    {OPCODE_GATQ, {.status = REPLY_MISS}, NOTHING},
    {OPCODE_GATK, {.status = REPLY_MISS}, {.status = 1, KEY("k\n")}},
    {OPCODE_GATKQ, {.status = REPLY_MISS}, NOTHING},
    {OPCODE_GETQ, TEXT("SERVER_ERROR node x: timed out"), FAILURE(0x86, "node x: timed out")},
    {OPCODE_GETKQ, TEXT("CLIENT_ERROR a key"), FAILURE(4, "a key")},
    {OPCODE_SET, {.status = REPLY_STORED, .cas = 7}, {.cas = 7}},
    {OPCODE_SETQ, {.status = REPLY_STORED, .cas = 7}, NOTHING},
    {OPCODE_SETQ, {.status = REPLY_EXISTS, .cas = 7}, FAILURE(2, "Data exists for key.")},
    {OPCODE_SET, {.status = REPLY_NOT_FOUND}, FAILURE(1, "Not found")},
    {OPCODE_SETQ, {.status = REPLY_TOO_LARGE}, FAILURE(3, "Too large.")},
    {OPCODE_SET, {.status = REPLY_NO_MEMORY}, FAILURE(0x82, "Out of memory allocating item")},
    {OPCODE_SET, TEXT("SERVER_ERROR out of memory storing object"), FAILURE(0x82, "out of memory storing object")},
    {OPCODE_ADD, {.status = REPLY_NOT_STORED}, FAILURE(2, "Data exists for key.")},
    {OPCODE_ADDQ, {.status = REPLY_NOT_STORED}, FAILURE(2, "Data exists for key.")},
    {OPCODE_ADDQ, {.status = REPLY_STORED}, NOTHING},
    {OPCODE_REPLACE, {.status = REPLY_NOT_STORED}, FAILURE(1, "Not found")},
    {OPCODE_REPLACEQ, {.status = REPLY_NOT_STORED}, FAILURE(1, "Not found")},
    {OPCODE_APPEND, {.status = REPLY_NOT_STORED}, FAILURE(5, "Not stored.")},
    {OPCODE_APPENDQ, {.status = REPLY_STORED}, NOTHING},
    {OPCODE_PREPENDQ, {.status = REPLY_NOT_STORED}, FAILURE(5, "Not stored.")},
    {OPCODE_DELETE, {.status = REPLY_DELETED, .cas = 8}, {.status = 0}},
    {OPCODE_DELETEQ, {.status = REPLY_DELETED}, NOTHING},
    {OPCODE_DELETEQ, {.status = REPLY_NOT_FOUND}, FAILURE(1, "Not found")},
    {OPCODE_INCREMENT, {.status = REPLY_NUMBER, .number = 0x0102030405060708, .cas = 3}, {VALUE("\1\2\3\4\5\6\7\10"), .cas = 3}},
    {OPCODE_INCREMENTQ, {.status = REPLY_NUMBER}, NOTHING},
    {OPCODE_DECREMENTQ, {.status = REPLY_NON_NUMERIC}, FAILURE(6, "Non-numeric server-side value for incr or decr")},
    {OPCODE_DECREMENT, {.status = REPLY_NOT_FOUND}, FAILURE(1, "Not found")},
    {OPCODE_TOUCH, {.status = REPLY_TOUCHED, .flags = 255, .cas = 6}, {EXTRAS("\0\0\0\377"), .cas = 6}},
    {OPCODE_TOUCH, {.status = REPLY_NOT_FOUND}, FAILURE(1, "Not found")},
    {OPCODE_FLUSH, {.status = REPLY_OK}, {.status = 0}},
    {OPCODE_FLUSHQ, {.status = REPLY_OK}, NOTHING},
    {OPCODE_QUIT, {.status = REPLY_OK}, {.status = 0}},
    {OPCODE_QUITQ, {.status = REPLY_OK}, NOTHING},
    {OPCODE_NOOP, {.status = REPLY_NOOP}, {.status = 0}},
    {OPCODE_VERSION, {.status = REPLY_VERSION, .text = SPAN_LIT("1.6")}, {VALUE("1.6")}},
    {OPCODE_STAT, {.status = REPLY_STATS}, {.status = 0}},
    {OPCODE_STAT, TEXT("RESET"), {.status = 0}},
    {OPCODE_STAT, TEXT("ERROR"), FAILURE(1, "Not found")},
    {OPCODE_SASL_LIST, {.status = REPLY_AUTH, .text = SPAN_LIT("PLAIN")}, {VALUE("PLAIN")}},
    {OPCODE_SASL_LIST, {.status = REPLY_UNKNOWN}, FAILURE(0x81, "Unknown command")},
    {OPCODE_SASL_AUTH, {.status = REPLY_AUTH_FAILED}, FAILURE(0x20, "Auth failure.")},
    {OPCODE_GETQ, {.status = REPLY_UNAUTHENTICATED}, FAILURE(0x20, "Auth failure.")},
    {OPCODE_GET, TEXT("ERROR"), FAILURE(0x81, "Unknown command")},
    {OPCODE_GET, {.status = REPLY_NONE}, NOTHING},
};

START_TEST(render_replies)
{
    for (size_t i = 0; i < ARRAY_LEN(replies); i++) {
        check_render(replies[i].opcode, &replies[i].reply, &replies[i].want, replies[i].want.magic == 0);
    }
}
END_TEST

START_TEST(render_stats)
{
    struct reply reply = {.status = REPLY_STATS, .text = SPAN_LIT("STAT pid 12\r\nSTAT name two words\r\nSTAT bare\r\n")};
    struct packet want[] = {{KEY("pid"), VALUE("12")}, {KEY("name"), VALUE("two words")}, {KEY("bare")}, {.status = 0}};
    check_render(OPCODE_STAT, &reply, want, ARRAY_LEN(want));
}
END_TEST

/* Copied or referenced, it is the same; and a large one with no chunk is copied. */
START_TEST(render_values_of_any_size)
{
    static const size_t sizes[] = {0, 1, 1000, CHAIN_REF_MIN - 1, CHAIN_REF_MIN, 60000};
    struct chunk_pool pool;
    chunk_pool_init(&pool, 1 << 20);
    struct chunk *chunk = chunk_get(&pool, 60000);
    ck_assert_ptr_nonnull(chunk);
    memset(chunk->data, 'x', 60000);
    for (size_t i = 0; i < 2 * ARRAY_LEN(sizes); i++) {
        struct span value = span_of(chunk->data, sizes[i / 2]);
        struct reply reply = {.status = REPLY_VALUE, .chunk = i % 2 == 0 ? chunk : NULL, .value = value};
        check_render(OPCODE_GETK, &reply, &(struct packet){EXTRAS("\0\0\0\0"), KEY("k\n"), .value = value}, 1);
    }
    chunk_unref(&chunk);
    chunk_pool_deinit(&pool);
}
END_TEST

START_TEST(render_without_memory)
{
    static const enum reply_status statuses[] = {REPLY_VALUE, REPLY_MISS, REPLY_STORED, REPLY_NUMBER, REPLY_TOUCHED, REPLY_STATS};
    struct chunk_pool pool;
    struct chain out;
    chunk_pool_init(&pool, 0);
    chain_init(&out, &pool);
    struct request request = request_of(OPCODE_GET);
    for (size_t i = 0; i < ARRAY_LEN(statuses); i++) {
        struct reply reply = {statuses[i], .value = SPAN_LIT("v"), .text = SPAN_LIT("STAT a b\r\n")};
        ck_assert_int_eq(binary_render(&request, &reply, &out), ERR_NOMEM);
    }
    chain_clear(&out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("protocol/binary");
    TCase *tcase = tcase_create("binary");
    tcase_add_test(tcase, parse_requests);
    tcase_add_test(tcase, parse_refused);
    tcase_add_test(tcase, parse_long_keys);
    tcase_add_test(tcase, parse_far_too_long_keys);
    tcase_add_test(tcase, parse_the_largest_body);
    tcase_add_test(tcase, parse_wrong_magic);
    tcase_add_test(tcase, text_is_text);
    tcase_add_test(tcase, render_replies);
    tcase_add_test(tcase, render_stats);
    tcase_add_test(tcase, render_values_of_any_size);
    tcase_add_test(tcase, render_without_memory);
    suite_add_tcase(suite, tcase);
    return check_main(suite);
}
