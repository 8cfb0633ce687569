#include "proxy/protocol/token.h"

size_t token_split(struct span line, struct span *out, size_t max)
{
    const char *end = line.data + line.len;
    const char *p = token_skip_spaces(line.data, end);
    size_t n = 0;
    while (n < max && p < end) {
        const char *stop = token_end(p, end);
        out[n++] = span_of(p, (size_t)(stop - p));
        p = token_skip_spaces(stop, end);
    }
    return n;
}

static bool is_white(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* What strtoull() sees: white space, a sign, digits (at least one, and they fit), and behind them the token's end or white space.
 */
static bool number_scan(struct span token, bool *negative, uint64_t *out)
{
    const char *p = token.data;
    const char *end = p + token.len;
    while (p < end && is_white(*p)) {
        p++;
    }
    *negative = false;
    if (p < end && (*p == '-' || *p == '+')) {
        *negative = *p == '-';
        p++;
    }
    const char *digits = p;
    uint64_t value = 0;
    while (p < end && *p >= '0' && *p <= '9') {
        if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value)) {
            return false;
        }
        p++;
    }
    *out = value;
    return p > digits && (p == end || is_white(*p));
}

/* Eight digits at once: neighbours are joined to numbers below 100, those to numbers below 10000, and those to the result. */
static inline bool eight_digits(const char *p, uint64_t *out)
{
    uint64_t word = token_load(p);
    uint64_t digits = word - '0' * TOKEN_EACH_BYTE;
    if (((digits | (word + (0x7f - '9') * TOKEN_EACH_BYTE)) & 0x80 * TOKEN_EACH_BYTE) != 0) {
        return false;
    }
    digits = digits * 10 + (digits >> 8);
    uint64_t odd = (digits & 0x000000ff000000ffULL) * (100ULL + (1000000ULL << 32));
    uint64_t even = (digits >> 16 & 0x000000ff000000ffULL) * (1ULL + (10000ULL << 32));
    *out = (odd + even) >> 32;
    return true;
}

/* Up to 19 digits and nothing else, which is nearly every number there is, and fits. */
static inline bool number_is_plain(struct span token, uint64_t *out)
{
    const char *p = token.data;
    size_t left = token.len;
    if (left == 0 || left > 19) {
        return false;
    }
    uint64_t value = 0;
    for (uint64_t eight; left >= 8; left -= 8, p += 8) {
        if (!eight_digits(p, &eight)) {
            return false;
        }
        value = value * 100000000 + eight;
    }
    for (; left > 0; left--, p++) {
        unsigned digit = (unsigned char)*p - (unsigned)'0';
        if (digit > 9) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

bool token_u64(struct span token, uint64_t *out)
{
    if (likely(number_is_plain(token, out))) {
        return true;
    }
    bool negative;
    uint64_t value;
    if (!number_scan(token, &negative, &value)) {
        return false;
    }
    if (negative) {
        value = 0 - value;
        if (value > INT64_MAX) {
            return false;
        }
    }
    *out = value;
    return true;
}

bool token_i64(struct span token, int64_t *out)
{
    uint64_t value;
    if (likely(number_is_plain(token, &value))) {
        *out = (int64_t)value;
        return value <= INT64_MAX;
    }
    bool negative;
    if (!number_scan(token, &negative, &value) || value > (uint64_t)INT64_MAX + (negative ? 1 : 0)) {
        return false;
    }
    *out = (int64_t)(negative ? 0 - value : value);
    return true;
}

bool token_i32(struct span token, int64_t *out)
{
    int64_t value;
    bool good = token_i64(token, &value);
    *out = good ? (int32_t)(uint32_t)(uint64_t)value : 0;
    return good;
}

bool token_digits(struct span token, uint64_t *out)
{
    if (likely(number_is_plain(token, out))) {
        return true;
    }
    if (token.len > TOKEN_U64_MAX) {
        return false;
    }
    for (size_t i = 0; i < token.len; i++) {
        if (token.data[i] < '0' || token.data[i] > '9') {
            return false;
        }
    }
    bool negative;
    return number_scan(token, &negative, out);
}

static const char pairs[] = "00010203040506070809101112131415161718192021222324252627282930313233343536373839"
                            "40414243444546474849505152535455565758596061626364656667686970717273747576777879"
                            "8081828384858687888990919293949596979899";

static unsigned digit_count(uint64_t value)
{
    static const uint64_t powers[] = {
        0ULL,
        10ULL,
        100ULL,
        1000ULL,
        10000ULL,
        100000ULL,
        1000000ULL,
        10000000ULL,
        100000000ULL,
        1000000000ULL,
        10000000000ULL,
        100000000000ULL,
        1000000000000ULL,
        10000000000000ULL,
        100000000000000ULL,
        1000000000000000ULL,
        10000000000000000ULL,
        100000000000000000ULL,
        1000000000000000000ULL,
        10000000000000000000ULL,
    };
    unsigned bits = 64 - (unsigned)__builtin_clzll(value | 1);
    unsigned digits = bits * 1233 >> 12; /* bits * log10(2): 0..19, right or one too small */
    return digits + (value >= powers[digits] ? 1 : 0);
}

char *token_put_long_u64(char *at, uint64_t value)
{
    char *end = at + digit_count(value);
    char *p = end;
    while (value >= 100) {
        unsigned pair = (unsigned)(value % 100) * 2;
        value /= 100;
        p -= 2;
        memcpy(p, pairs + pair, 2);
    }
    if (value >= 10) {
        memcpy(p - 2, pairs + value * 2, 2);
    } else {
        p[-1] = (char)('0' + value);
    }
    return end;
}
