/* What:    words in a line of text: where they end, what number they are by memcached's rules, and numbers to text.
 * Owns:    nothing; tokens point into the line.
 * Threads: any; pure.
 * Fails:   a token that memcached would not take for a number gives false.
 */
#ifndef PROXY_PROTOCOL_TOKEN_H
#define PROXY_PROTOCOL_TOKEN_H

#include <endian.h>

#include "common/base.h"

#define TOKEN_U64_MAX 20 /* digits of the largest number */

#define TOKEN_EACH_BYTE 0x0101010101010101ULL

/* Eight bytes, the first one lowest. */
static inline uint64_t token_load(const char *p)
{
    uint64_t word;
    memcpy(&word, p, sizeof word);
    return le64toh(word);
}

/* Marks (0x80) the bytes <= ' ' of a word. What lies above the lowest mark may be marked wrongly. */
static inline uint64_t token_marks(uint64_t word)
{
    return (word - (' ' + 1) * TOKEN_EACH_BYTE) & ~word & 0x80 * TOKEN_EACH_BYTE;
}

/* The first byte <= ' ' of [p, end): a space, a NUL, the end of a line, another control character; or end. */
static inline const char *token_break(const char *p, const char *end)
{
    while (end - p >= 8) {
        uint64_t marks = token_marks(token_load(p));
        if (marks != 0) {
            return p + (__builtin_ctzll(marks) >> 3);
        }
        p += 8;
    }
    while (p < end && (unsigned char)*p > ' ') {
        p++;
    }
    return p;
}

/* The first space of [p, end), or end: tokens may hold control characters, as memcached's may. */
static inline const char *token_end(const char *p, const char *end)
{
    for (;;) {
        p = token_break(p, end);
        if (likely(p == end || *p == ' ')) {
            return p;
        }
        p++;
    }
}

static inline const char *token_skip_spaces(const char *p, const char *end)
{
    while (p < end && *p == ' ') {
        p++;
    }
    return p;
}

static inline bool token_is(struct span token, struct span word)
{
    return token.len == word.len && memcmp(token.data, word.data, word.len) == 0;
}

/* Splits a line at runs of spaces into `out`; returns how many tokens there are, at most `max`. */
size_t token_split(struct span line, struct span *out, size_t max);

/* Numbers by the rules of memcached's safe_strtoull() and safe_strtoll(): white space (but no space) and a sign may come first,
 * white space and then anything may follow; what does not fit 64 bits is refused. token_u64() takes "-N" too where 2^64 - N is
 * less than 2^63. */
bool token_u64(struct span token, uint64_t *out);
bool token_i64(struct span token, int64_t *out);

/* A 32-bit number as memcached takes it: it must fit 64 bits, and then loses the upper half. */
bool token_i32(struct span token, int64_t *out);

/* Plain decimal digits, as a program writes them: 1 to 20 of them and nothing else. */
bool token_digits(struct span token, uint64_t *out);

char *token_put_long_u64(char *at, uint64_t value); /* internal: 10 and more */

/* Writes the decimal digits, and returns where they end. Up to TOKEN_U64_MAX bytes. */
static inline char *token_put_u64(char *at, uint64_t value)
{
    if (value < 10) {
        *at = (char)('0' + value);
        return at + 1;
    }
    return token_put_long_u64(at, value);
}

static inline char *token_put_i64(char *at, int64_t value)
{
    if (value < 0) {
        *at++ = '-';
        return token_put_u64(at, 0 - (uint64_t)value);
    }
    return token_put_u64(at, (uint64_t)value);
}

static inline char *token_put(char *at, const char *bytes, size_t len)
{
    memcpy(at, bytes, len);
    return at + len;
}

#define token_put_lit(at, s) token_put((at), (s), sizeof(s) - 1)

#endif
