#include "proxy/protocol/meta.h"

#include "common/config.h"
#include "proxy/protocol/base64.h"
#include "proxy/protocol/token.h"

#define REPLY_LINE_MAX 2048  /* of a node; memcached's longest is an error text or a key with its flags, below 1024 */
#define REQUEST_LINE_MAX 640 /* "mg ", a key of 250 bytes, " ", a length, 13 flags of up to 22 bytes, "\r\n" */
#define CODE_LEN 2

/* Copies a key, and says whether all of its bytes are printable or beyond ASCII. */
static inline bool copy_key(char *at, struct span key)
{
    const char *p = key.data;
    const char *end = p + key.len;
    uint64_t marks = 0;
    for (; end - p >= 8; p += 8, at += 8) {
        uint64_t word;
        memcpy(&word, p, sizeof word);
        memcpy(at, &word, sizeof word);
        uint64_t del = word ^ 0x7f * TOKEN_EACH_BYTE; /* a byte is 0 where there is 0x7f */
        marks |= token_marks(word) | ((del - TOKEN_EACH_BYTE) & ~del & 0x80 * TOKEN_EACH_BYTE);
    }
    bool is_plain = marks == 0;
    for (; p < end; p++, at++) {
        *at = *p;
        is_plain = is_plain && (unsigned char)*p > ' ' && *p != 0x7f;
    }
    return is_plain;
}

/* Writes the key at `at`. One with control characters or spaces goes in base64 (*base64). What is too long for that but could
 * stand in a line is sent as it is: memcached takes control characters, and a classic client may use them. NULL: it can not be
 * sent. */
static char *put_odd_key(char *at, struct span key, bool *base64)
{
    *base64 = BASE64_LEN(key.len) <= KEY_MAX;
    if (*base64) {
        return base64_put(at, key);
    }
    for (size_t i = 0; i < key.len; i++) {
        if (key.data[i] == ' ' || key.data[i] == '\n' || key.data[i] == '\0') {
            return NULL;
        }
    }
    return token_put(at, key.data, key.len);
}

static inline char *put_flag(char *at, char flag)
{
    at[0] = ' ';
    at[1] = flag;
    return at + 2;
}

static inline char *put_flag_u64(char *at, char flag, uint64_t argument)
{
    return token_put_u64(put_flag(at, flag), argument);
}

static char *put_wants(char *at, uint32_t with)
{
    static const struct {
        uint32_t flag;
        char letter;
    } wants[] = {{META_WANT_VALUE, 'v'}, {META_WANT_FLAGS, 'f'}, {META_WANT_CAS, 'c'},  {META_WANT_TTL, 't'},
                 {META_WANT_HIT, 'h'},   {META_WANT_LAST, 'l'},  {META_WANT_SIZE, 's'}, {META_NO_BUMP, 'u'}};
    size_t count = with & (META_WANT_HIT | META_WANT_LAST | META_WANT_SIZE | META_NO_BUMP) ? ARRAY_LEN(wants) : 4;
    for (size_t i = 0; i < count; i++) {
        if (with & wants[i].flag) {
            at = put_flag(at, wants[i].letter);
        }
    }
    return at;
}

/* t T N R in the client's order. */
static char *put_ordered(char *at, const struct meta_request *request)
{
    uint32_t with = request->with;
    for (size_t i = 0; i < META_ORDER_MAX; i++) {
        char letter = request->ttl_order[i];
        if (letter == 't' && with & META_WANT_TTL) {
            at = put_flag(at, letter);
        } else if (letter == 'T' && with & META_TTL) {
            at = token_put_i64(put_flag(at, letter), request->ttl);
        } else if (letter == 'N' && with & META_VIVIFY) {
            at = token_put_i64(put_flag(at, letter), request->vivify_ttl);
        } else if (letter == 'R' && with & META_RECACHE) {
            at = token_put_i64(put_flag(at, letter), request->recache_ttl);
        }
    }
    return at;
}

/* Those of `with` that are not META_WANT_…, in the order of the enum. */
static char *put_options(char *at, uint32_t with, const struct meta_request *request)
{
    if (with & META_CAS) {
        at = put_flag_u64(at, 'C', request->cas);
    }
    if (with & META_VERSION) {
        at = put_flag_u64(at, 'E', request->version);
    }
    if (with & META_TTL) {
        at = token_put_i64(put_flag(at, 'T'), request->ttl);
    }
    if (with & META_VIVIFY) {
        at = token_put_i64(put_flag(at, 'N'), request->vivify_ttl);
    }
    if (with & META_RECACHE) {
        at = token_put_i64(put_flag(at, 'R'), request->recache_ttl);
    }
    if (with & META_CLIENT_FLAGS) {
        at = put_flag_u64(at, 'F', request->client_flags);
    }
    if (with & META_INVALIDATE) {
        at = put_flag(at, 'I');
    }
    if (with & META_DROP_VALUE) {
        at = put_flag(at, 'x');
    }
    if (with & META_MODE) {
        at = put_flag(at, 'M');
        *at++ = request->mode;
    }
    if (with & META_DELTA) {
        at = put_flag_u64(at, 'D', request->delta);
    }
    if (with & META_INITIAL) {
        at = put_flag_u64(at, 'J', request->initial);
    }
    return at;
}

enum err meta_write(struct chain *out, const struct meta_request *request)
{
    static const char words[][4] = {[META_GET] = "mg ", [META_SET] = "ms ", [META_DELETE] = "md ", [META_ARITHMETIC] = "ma ",
                                    [META_DEBUG] = "me "};
    struct span key = request->key;
    if (unlikely(key.len == 0 || key.len > KEY_MAX)) {
        return ERR_INVALID;
    }
    char *start = chain_reserve(out, REQUEST_LINE_MAX);
    if (unlikely(start == NULL)) {
        return ERR_NOMEM;
    }
    bool base64 = false;
    char *at = token_put(start, words[request->command], 3);
    if (likely(copy_key(at, key))) {
        at += key.len;
    } else {
        at = put_odd_key(at, key, &base64);
        if (at == NULL) {
            return ERR_INVALID;
        }
    }
    if (request->command == META_SET) {
        *at++ = ' ';
        at = token_put_u64(at, request->value_len);
    }
    if (unlikely(base64)) {
        at = put_flag(at, 'b');
    }
    if (likely(request->with == (META_WANT_VALUE | META_WANT_FLAGS))) {
        at = token_put_lit(at, " v f\r\n");
    } else if (request->with == (META_WANT_VALUE | META_WANT_FLAGS | META_WANT_CAS)) {
        at = token_put_lit(at, " v f c\r\n");
    } else {
        uint32_t with = request->with;
        if (unlikely(with & META_ORDERED)) {
            at = put_ordered(at, request);
            with &= ~(uint32_t)(META_WANT_TTL | META_TTL | META_VIVIFY | META_RECACHE);
        }
        at = token_put_lit(put_options(put_wants(at, with), with, request), "\r\n");
    }
    return chain_commit(out, (size_t)(at - start));
}

/* The return flags; those that are of no use here are skipped. False: a number that is none. */
static bool parse_flags(const char *p, const char *end, struct meta_reply *out)
{
    uint64_t number;
    for (p = token_skip_spaces(p, end); p < end; p = token_skip_spaces(p, end)) {
        const char *stop = token_end(p, end);
        struct span argument = span_of(p + 1, (size_t)(stop - p - 1));
        switch (*p) {
        case 'f':
            if (!token_digits(argument, &number) || number > UINT32_MAX) {
                return false;
            }
            out->client_flags = (uint32_t)number;
            break;
        case 'c':
            if (!token_digits(argument, &out->cas)) {
                return false;
            }
            break;
        case 't':
            if (token_is(argument, SPAN_LIT("-1"))) {
                out->ttl = -1;
            } else if (token_digits(argument, &number) && number <= INT64_MAX) {
                out->ttl = (int64_t)number;
            } else {
                return false;
            }
            break;
        case 'h':
            out->was_hit = token_is(argument, SPAN_LIT("1"));
            break;
        case 'l':
            if (!token_digits(argument, &number) || number > INT64_MAX) {
                return false;
            }
            out->last_access_s = (int64_t)number;
            break;
        case 's':
            if (!token_digits(argument, &out->size)) {
                return false;
            }
            break;
        case 'W': out->won = true; break;
        case 'Z': out->wait = true; break;
        case 'X': out->stale = true; break;
        default: break;
        }
        p = stop;
    }
    return true;
}

/* The whole of a line that is no VA. */
static enum meta_result parse_status(struct span line, struct meta_reply *out)
{
    static const struct {
        char code[CODE_LEN];
        enum meta_status status;
    } codes[] = {
        {{'H', 'D'}, META_HD}, {{'E', 'N'}, META_EN}, {{'N', 'F'}, META_NF}, {{'N', 'S'}, META_NS},
        {{'E', 'X'}, META_EX}, {{'M', 'N'}, META_MN}, {{'O', 'K'}, META_OK},
    };
    static const struct span version = SPAN_LIT("VERSION ");
    static const struct span stat = SPAN_LIT("STAT ");
    if (span_has_prefix(line, stat)) {
        out->status = META_STAT;
        out->text = span_of(line.data + stat.len, line.len - stat.len);
        return META_REPLY;
    }
    if (span_eq(line, SPAN_LIT("END"))) {
        out->status = META_END;
        return META_REPLY;
    }
    if (span_has_prefix(line, SPAN_LIT("ME "))) { /* no flags follow */
        out->status = META_DEBUG_IS;
        out->text = line;
        return META_REPLY;
    }
    if (line.len == CODE_LEN || (line.len > CODE_LEN && line.data[CODE_LEN] == ' ')) {
        for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
            if (memcmp(line.data, codes[i].code, CODE_LEN) == 0) {
                out->status = codes[i].status;
                return parse_flags(line.data + CODE_LEN, line.data + line.len, out) ? META_REPLY : META_BAD;
            }
        }
        return META_BAD;
    }
    if (span_has_prefix(line, version)) {
        out->status = META_VERSION_IS;
        out->text = span_of(line.data + version.len, line.len - version.len);
        return META_REPLY;
    }
    if (span_has_prefix(line, SPAN_LIT("ERROR")) || span_has_prefix(line, SPAN_LIT("CLIENT_ERROR")) ||
        span_has_prefix(line, SPAN_LIT("SERVER_ERROR"))) {
        out->status = META_REFUSED;
        out->text = line;
        return META_REPLY;
    }
    return META_BAD;
}

/* "VA " is there and its line ends at `line_len`; the value follows. */
static enum meta_result parse_value(const char *data, size_t len, size_t line_len, struct meta_reply *out, size_t *consumed,
                                    size_t *need)
{
    size_t total = line_len + out->value_len + 2;
    if (len < total) {
        *need = total;
        return META_MORE;
    }
    const char *value = data + line_len;
    if (unlikely(value[out->value_len] != '\r' || value[out->value_len + 1] != '\n')) {
        return META_BAD;
    }
    out->status = META_VA;
    out->value = span_of(value, out->value_len);
    *consumed = total;
    return META_REPLY;
}

/* " c" CAS "\r\n" at p; NULL if it is not, else its end. */
static inline const char *parse_plain_cas(const char *p, const char *end, uint64_t *cas)
{
    if (end - p < 5 || p[0] != ' ' || p[1] != 'c') {
        return NULL;
    }
    p += 2;
    const char *limit = p + MIN((size_t)(end - p), 19U); /* so many digits fit */
    uint64_t number = 0;
    for (; p < limit && (unsigned char)(*p - '0') <= 9; p++) {
        number = number * 10 + (unsigned char)(*p - '0');
    }
    *cas = number;
    return end - p >= 2 && p[-1] != 'c' && p[0] == '\r' && p[1] == '\n' ? p + 2 : NULL;
}

/* "VA LENGTH f0\r\n" or "VA LENGTH f0 cCAS\r\n", with no second look at any byte. Otherwise 0, else the line's length. */
static inline size_t parse_plain_value_line(const char *data, size_t len, uint64_t *value_len, uint64_t *cas)
{
    const char *p = data + 3;
    const char *end = data + len;
    const char *limit = data + MIN(len, 3 + 18U);
    if (len < 4 || memcmp(data, "VA ", 3) != 0) {
        return 0;
    }
    uint64_t number = 0;
    for (; p < limit && (unsigned char)(*p - '0') <= 9; p++) {
        number = number * 10 + (unsigned char)(*p - '0');
    }
    if (p == data + 3 || end - p < 5 || memcmp(p, " f0", 3) != 0) {
        return 0;
    }
    *value_len = number;
    p += 3;
    if (likely(p[0] == '\r' && p[1] == '\n')) {
        return (size_t)(p + 2 - data);
    }
    p = parse_plain_cas(p, end, cas);
    return p == NULL ? 0 : (size_t)(p - data);
}

static enum meta_result refuse_value(size_t value_len, size_t line_len, size_t *consumed)
{
    if (value_len > META_VALUE_ABSURD) {
        return META_BAD;
    }
    *consumed = line_len;
    return META_TOO_LARGE;
}

static enum meta_result parse_line(const char *data, size_t len, size_t max_value, struct meta_reply *out, size_t *consumed,
                                   size_t *need)
{
    const char *newline = memchr(data, '\n', MIN(len, (size_t)REPLY_LINE_MAX));
    if (newline == NULL) {
        return len < REPLY_LINE_MAX ? META_MORE : META_BAD;
    }
    if (newline == data || newline[-1] != '\r') {
        return META_BAD;
    }
    size_t line_len = (size_t)(newline - data) + 1;
    struct span line = span_of(data, line_len - 2);
    if (!span_has_prefix(line, SPAN_LIT("VA "))) {
        *consumed = line_len;
        return parse_status(line, out);
    }
    const char *end = data + line.len;
    const char *length = data + 3;
    const char *stop = token_end(length, end);
    uint64_t value_len;
    if (!token_digits(span_of(length, (size_t)(stop - length)), &value_len) || !parse_flags(stop, end, out)) {
        return META_BAD;
    }
    out->value_len = value_len;
    if (value_len > max_value) {
        return refuse_value(value_len, line_len, consumed);
    }
    return parse_value(data, len, line_len, out, consumed, need);
}

enum meta_result meta_parse(const char *data, size_t len, size_t max_value, struct meta_reply *out, size_t *consumed,
                            size_t *need)
{
    *consumed = 0;
    *need = 0;
    *out = (struct meta_reply){.ttl = -1};
    uint64_t value_len;
    uint64_t cas = 0;
    size_t line_len = parse_plain_value_line(data, len, &value_len, &cas);
    if (likely(line_len > 0)) {
        out->value_len = value_len;
        out->cas = cas;
        if (unlikely(value_len > max_value)) {
            return refuse_value(value_len, line_len, consumed);
        }
        return parse_value(data, len, line_len, out, consumed, need);
    }
    return len == 0 ? META_MORE : parse_line(data, len, max_value, out, consumed, need);
}
