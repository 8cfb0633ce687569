/* Arbitrary packets in arbitrary cuts: never a crash, the same requests and answers whatever the cuts are, consumed <= len.
 * Input: two bytes that choose the cuts, then what a client sends. Values that are announced and do not come are cut short. */
#include "common/config.h"
#include "proxy/protocol/binary.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct binary binary;
    struct chunk_pool pool;
    struct chain out;
    struct chunk *value;
    uint64_t hash; /* of all that was said */
    size_t skip;
    bool closed;
};

static void check(bool good)
{
    if (!good) {
        abort();
    }
}

static void mix(struct run *run, const void *bytes, size_t len)
{
    const unsigned char *p = bytes;
    for (size_t i = 0; i < len; i++) {
        run->hash = (run->hash ^ p[i]) * 1099511628211ULL;
    }
}

static void mix_number(struct run *run, uint64_t number)
{
    mix(run, &number, sizeof number);
}

static void mix_output(struct run *run)
{
    struct iovec iov[64];
    for (int n; (n = chain_iov(&run->out, iov, 64)) > 0;) {
        for (int i = 0; i < n; i++) {
            mix(run, iov[i].iov_base, iov[i].iov_len);
            chain_consume(&run->out, iov[i].iov_len);
        }
    }
}

/* A reply's packets: whole ones, to this request. */
static void check_packets(const struct run *run, const struct request *request, bool one)
{
    struct chunk *flat = chunk_get(NULL, run->out.bytes + 1);
    check(flat != NULL);
    struct iovec iov[64];
    int n = chain_iov(&run->out, iov, 64);
    size_t len = 0;
    for (int i = 0; i < n; i++) {
        memcpy(flat->data + len, iov[i].iov_base, iov[i].iov_len);
        len += iov[i].iov_len;
    }
    check(len == run->out.bytes);
    size_t at = 0;
    while (at < len) {
        const uint8_t *p = (const uint8_t *)flat->data + at;
        check(len - at >= 24 && p[0] == BINARY_REPLY && p[1] == request->echo.opcode && memcmp(p + 12, &request->echo.opaque, 4) == 0);
        size_t body = (size_t)p[8] << 24 | (size_t)p[9] << 16 | (size_t)p[10] << 8 | p[11];
        check(body >= (size_t)(p[2] << 8 | p[3]) + p[4] && len - at >= 24 + body);
        at += 24 + body;
        check(!one || at == len);
    }
    chunk_unref(&flat);
}

/* Some reply, chosen by what was said so far. */
static void answer(struct run *run, const struct request *request)
{
    static const struct span texts[] = {SPAN_LIT("SERVER_ERROR x"), SPAN_LIT("CLIENT_ERROR x"), SPAN_LIT("ERROR"),
                                        SPAN_LIT("STAT a b\r\nSTAT \r\n\r\nSTAT c\r\nx\r\nSTAT d e f")};
    static const size_t sizes[] = {0, 5, 1000, CHAIN_REF_MIN - 1, CHAIN_REF_MIN, 10000};
    uint64_t r = run->hash >> 17;
    struct reply reply = {
        .status = (enum reply_status)(r % REPLY_STATUS_COUNT),
        .flags = (uint32_t)(r >> 8),
        .cas = r >> (r & 63),
        .number = r >> (r & 31),
        .text = texts[(r >> 5) & 3],
        .chunk = r & 4 ? run->value : NULL,
        .value = span_of(run->value->data, sizes[(r >> 3) % ARRAY_LEN(sizes)]),
    };
    check(binary_render(request, &reply, &run->out) == OK);
    check_packets(run, request, reply.status != REPLY_STATS);
    mix_output(run);
}

static void take(struct run *run, const struct request *request)
{
    check(request->command < COMMAND_COUNT && request->op < OP_NONE && request->key.len <= KEY_MAX && request->protocol == PROTOCOL_BINARY);
    check(request->is_first && request->is_last && !request->noreply && request->value_tail == 0);
    check(request->has_value || request->value_len == 0);
    mix_number(run, request->command);
    mix_number(run, request->op);
    mix_number(run, (uint64_t)request->with << 4 | request->is_quiet);
    mix_number(run, request->flags);
    mix_number(run, (uint64_t)request->exptime);
    mix_number(run, request->cas);
    mix_number(run, request->delta);
    mix_number(run, request->initial);
    mix_number(run, (uint64_t)request->vivify_ttl);
    mix_number(run, request->value_len);
    mix(run, request->key.data, request->key.len);
    run->skip = request->has_value ? request->value_len % 64 : 0;
    answer(run, request);
}

static size_t parse_some(struct run *run, const uint8_t *data, size_t len)
{
    size_t at = 0;
    while (!run->closed) {
        size_t n = MIN(run->skip, len - at);
        run->skip -= n;
        at += n;
        if (run->skip > 0) {
            break;
        }
        size_t left = len - at;
        char *copy = malloc(left + (left == 0)); /* the sanitizer knows where it ends */
        check(copy != NULL);
        memcpy(copy, data + at, left);
        struct request request;
        struct span error = {NULL, 0};
        size_t consumed = SIZE_MAX;
        enum parse_result result = binary_parse(&run->binary, copy, left, &consumed, &request, &error);
        check(consumed <= left && (consumed > 0 || result == PARSE_MORE || result == PARSE_CLOSE));
        at += consumed;
        if (result == PARSE_REQUEST) {
            take(run, &request);
        } else if (result != PARSE_MORE) {
            check(request.op == OP_NONE && request.key.len == 0);
            mix_number(run, result);
            mix(run, error.data, error.len);
            answer(run, &request);
            run->closed = result == PARSE_CLOSE;
            run->skip = run->binary.swallow % 64;
            run->binary.swallow = 0;
        }
        free(copy);
        if (result == PARSE_MORE) {
            break;
        }
    }
    return at;
}

/* seed 0: all at once. */
static void run_once(struct run *run, const uint8_t *data, size_t size, uint64_t seed)
{
    *run = (struct run){.hash = 14695981039346656037ULL};
    binary_init(&run->binary);
    chunk_pool_init(&run->pool, 64U << 20);
    chain_init(&run->out, &run->pool);
    run->value = chunk_get(&run->pool, 10000);
    check(run->value != NULL);
    memset(run->value->data, 'v', 10000);
    size_t at = 0;
    size_t have = seed == 0 ? size : 0;
    uint64_t random = seed;
    for (;;) {
        at += parse_some(run, data + at, have - at);
        if (run->closed || have == size) {
            break;
        }
        random = random * 6364136223846793005ULL + 1442695040888963407ULL;
        have = MIN(size, have + 1 + (random >> 33) % (1 + (seed & 63)));
    }
    chain_clear(&run->out);
    chunk_unref(&run->value);
    check(run->pool.used_bytes == 0);
    chunk_pool_deinit(&run->pool);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    struct run whole, cut;
    uint64_t seed = 1 + (uint64_t)(data[0] | data[1] << 8);
    run_once(&whole, data + 2, size - 2, 0);
    run_once(&cut, data + 2, size - 2, seed);
    check(whole.hash == cut.hash && whole.closed == cut.closed);
    return 0;
}
