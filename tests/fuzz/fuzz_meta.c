/* Input: what a node says. Every beginning of it must give META_MORE up to the one result that stands, without a look behind the
 * end. The same bytes make a request: what meta_write() makes of it must be one line of memcached's, with the key in it. */
#include "proxy/protocol/meta.h"
#include "proxy/protocol/token.h"

#define MAX_VALUE 100000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool good)
{
    if (!good) {
        abort();
    }
}

static enum meta_result parse(const uint8_t *data, size_t len, struct meta_reply *out, size_t *consumed, size_t *need)
{
    char *copy = malloc(len + (len == 0)); /* the sanitizer knows where it ends */
    check(copy != NULL);
    memcpy(copy, data, len);
    enum meta_result result = meta_parse(copy, len, MAX_VALUE, out, consumed, need);
    if (result == META_REPLY) {
        check(*consumed > 0 && *consumed <= len);
        check(out->value.len == out->value_len && out->value_len <= MAX_VALUE);
        if (out->status == META_VA) {
            check(out->value.data >= copy && out->value.data + out->value.len + 2 == copy + *consumed);
        }
        for (size_t i = 0; i < out->text.len; i++) {
            check(out->text.data[i] != '\n');
        }
    } else if (result == META_MORE) {
        check(*need == 0 || (*need > len && *need <= MAX_VALUE + 2048 + 2));
    }
    free(copy);
    return result;
}

static void parse_everything(const uint8_t *data, size_t size)
{
    size_t consumed, need;
    struct meta_reply whole;
    for (size_t at = 0; at < size; at += consumed) {
        enum meta_result last = META_MORE;
        size_t step = size - at > 4000 ? 97 : 1;
        size_t last_need = 0;
        for (size_t len = 0; len < size - at && last == META_MORE; len += step) {
            struct meta_reply reply;
            last = parse(data + at, len, &reply, &consumed, &need);
            check(last != META_MORE || last_need == 0 || need == last_need);
            last_need = need;
        }
        size_t end = consumed;
        enum meta_result result = parse(data + at, size - at, &whole, &consumed, &need);
        check(last == META_MORE || (last == result && (result != META_REPLY || consumed == end)));
        if (result != META_REPLY) {
            break;
        }
    }
}

static void write_request(const uint8_t *data, size_t size)
{
    uint64_t numbers[4];
    if (size < sizeof numbers) {
        return;
    }
    memcpy(numbers, data, sizeof numbers);
    struct meta_request request = {
        .command = (enum meta_command)(numbers[0] & 3),
        .with = (uint32_t)(numbers[0] >> 2) & ((META_DELTA << 1) - 1),
        .key = span_of((const char *)data + sizeof numbers, size - sizeof numbers),
        .cas = numbers[1],
        .version = numbers[2],
        .ttl = (int64_t)numbers[3],
        .vivify_ttl = (uint32_t)numbers[1],
        .client_flags = (uint32_t)numbers[2],
        .mode = 'S',
        .delta = numbers[3],
        .value_len = numbers[0] >> 16,
    };
    struct chain out;
    chain_init(&out, NULL);
    enum err err = meta_write(&out, &request);
    check((err == OK) == (out.bytes > 0));
    struct iovec iov[1];
    if (chain_iov(&out, iov, 1) == 1) {
        struct span line = span_of(iov[0].iov_base, iov[0].iov_len);
        check(line.len == out.bytes && line.len <= 2048);
        check(memchr(line.data, '\n', line.len) == line.data + line.len - 1 && line.data[line.len - 2] == '\r');
        check(memchr(line.data, '\0', line.len) == NULL);
        struct span tokens[24];
        size_t n = token_split(span_of(line.data, line.len - 2), tokens, 24);
        check(n >= 2 && n < 20 && tokens[0].len == 2 && tokens[1].len <= 250);
        bool is_base64 = !span_eq(tokens[1], request.key);
        size_t flags = request.command == META_SET ? 3 : 2;
        check(is_base64 == (n > flags && span_eq(tokens[flags], SPAN_LIT("b"))));
        check(!is_base64 || tokens[1].len == (request.key.len + 2) / 3 * 4);
    }
    chain_clear(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    parse_everything(data, size);
    write_request(data, size);
    return 0;
}
