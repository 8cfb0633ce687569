/* Arbitrary bytes in arbitrary cuts: never a crash, the same requests and answers whatever the cuts are, consumed <= len.
 * Input: two bytes that choose the cuts, then what a client sends.
 * Only a line that is too long without a newline may end otherwise, as memcached hangs up by how much of it has come so far. */
#include "proxy/protocol/classic.h"
#include "proxy/protocol/token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct run {
    struct classic classic;
    struct chunk_pool pool;
    struct chain out;
    struct chunk *value;
    uint64_t hash; /* of all that was said */
    size_t skip;
    bool closed;
    bool too_long;
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

/* Some reply, chosen by what was said so far. */
static void answer(struct run *run, const struct request *request)
{
    uint64_t r = run->hash >> 17;
    struct reply reply = {
        .status = (enum reply_status)(r % (REPLY_NONE + 1)),
        .flags = (uint32_t)(r >> 8),
        .cas = r >> (r & 63),
        .number = r >> (r & 31),
        .ttl = (int64_t)(r >> (r & 63)) - 1,
        .last_access_s = (int64_t)(r & 0xffff),
        .size = r >> (r & 47),
        .was_hit = r & 8,
        .won = r & 16,
        .wait = r & 32,
        .stale = r & 64,
        .text = SPAN_LIT("SERVER_ERROR x"),
    };
    if (request->op == OP_GET || request->op == OP_GAT) {
        static const enum reply_status usual[] = {REPLY_VALUE, REPLY_MISS, REPLY_ERROR, REPLY_VALUE};
        static const size_t sizes[] = {0, 5, 1000, CHAIN_REF_MIN - 1, CHAIN_REF_MIN, 10000};
        reply.status = usual[r & 3];
        reply.chunk = r & 4 ? run->value : NULL;
        reply.value = span_of(run->value->data, sizes[(r >> 3) % ARRAY_LEN(sizes)]);
    }
    check(classic_render(&run->classic, request, &reply, &run->out) == OK);
    if (run->out.bytes > 100000) {
        struct iovec iov[1];
        check(chain_iov(&run->out, iov, 1) == 1);
        mix_number(run, run->out.bytes);
        chain_clear(&run->out);
    }
}

static void check_key(const struct request *request)
{
    struct span key = request->key;
    check(key.len <= 250);
    if (request->protocol == PROTOCOL_META && request->echo.is_base64) {
        check(key.len > 0 && key.len <= METACMD_KEY_MAX);
        return;
    }
    check(key.len == 0 || memchr(key.data, ' ', key.len) == NULL);
    check(key.len == 0 || memchr(key.data, '\n', key.len) == NULL);
    check(key.len == 0 || memchr(key.data, '\0', key.len) == NULL);
}

/* What only the meta commands have: all of it must be set. */
static void take_meta(struct run *run, const struct request *request)
{
    const struct echo *echo = &request->echo;
    check(!request->noreply && request->is_first && request->is_last);
    check((request->key.len > 0) == (request->command != COMMAND_MN));
    check(request->has_value == (request->command == COMMAND_MS));
    check(echo->letter_count <= ECHO_LETTERS_MAX && echo->text_len < OPAQUE_MAX);
    mix_number(run, request->version);
    mix_number(run, request->initial);
    mix_number(run, (uint64_t)request->vivify_ttl);
    mix_number(run, (uint64_t)request->recache_ttl);
    mix(run, request->ttl_order, META_ORDER_MAX);
    mix_number(run, (uint64_t)request->is_quiet << 1 | echo->is_base64);
    mix(run, echo->letters, echo->letter_count);
    mix(run, echo->text, echo->text_len);
}

static void take(struct run *run, const struct request *request)
{
    check(request->command < COMMAND_COUNT);
    check_key(request);
    check(request->has_value || request->value_len == 0);
    check(request->value_len <= INT32_MAX - 2);
    mix_number(run, request->command);
    mix_number(run, request->op);
    mix_number(run, (uint64_t)request->with << 4 | request->noreply << 1 | request->is_first << 2 | request->is_last << 3);
    mix_number(run, request->flags);
    mix_number(run, (uint64_t)request->exptime);
    mix_number(run, request->cas);
    mix_number(run, request->delta);
    mix_number(run, request->value_len);
    if (request->protocol == PROTOCOL_META) {
        take_meta(run, request);
    }
    mix(run, request->key.data, request->key.len);
    run->skip = request->has_value ? request->value_len + 2 : 0;
    answer(run, request);
}

static size_t parse_some(struct run *run, const uint8_t *data, size_t len)
{
    size_t at = 0;
    while (!run->closed) {
        size_t n = MIN(run->skip, len - at);
        run->skip -= n;
        at += n;
        size_t left = len - at;
        char *copy = malloc(left + (left == 0)); /* the sanitizer knows where it ends */
        check(copy != NULL);
        memcpy(copy, data + at, left);
        struct request request;
        struct span error;
        size_t consumed = SIZE_MAX;
        enum parse_result result = classic_parse(&run->classic, copy, left, &consumed, &request, &error);
        check(consumed <= left && (consumed > 0 || result == PARSE_MORE || result == PARSE_CLOSE));
        at += consumed;
        if (result == PARSE_REQUEST) {
            take(run, &request);
        } else if (result != PARSE_MORE) {
            mix_number(run, result);
            mix(run, error.data, error.len);
            run->closed = result == PARSE_CLOSE;
            run->skip = run->classic.swallow;
            run->classic.swallow = 0;
            run->too_long = run->closed && consumed == 0;
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
    classic_init(&run->classic);
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
        have = MIN(size, have + 1 + (random >> 33) % (1 + (seed & 31)));
    }
    struct iovec iov[64];
    for (int n; (n = chain_iov(&run->out, iov, 64)) > 0;) {
        for (int i = 0; i < n; i++) {
            mix(run, iov[i].iov_base, iov[i].iov_len);
            chain_consume(&run->out, iov[i].iov_len);
        }
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
    check(whole.too_long || cut.too_long || (whole.hash == cut.hash && whole.closed == cut.closed));
    return 0;
}
