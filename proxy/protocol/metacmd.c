#include "proxy/protocol/metacmd.h"

#include "common/config.h"
#include "proxy/protocol/base64.h"
#include "proxy/protocol/classic.h"
#include "proxy/protocol/render.h"
#include "proxy/protocol/token.h"

#define WORDS_MAX 19      /* of a line, the command's included: beyond, memcached refuses it */
#define HEAD_MAX 576      /* "VA ", a length, a key in base64, an opaque, six numbers, " Z X W" */
#define HEAD_PLAIN_MAX 48 /* the same without any return flag */

static const struct span word_error = SPAN_LIT("ERROR");
static const struct span bad_format = SPAN_LIT("CLIENT_ERROR bad command line format");
static const struct span bad_token = SPAN_LIT("CLIENT_ERROR bad token in command line format");
static const struct span bad_flags = SPAN_LIT("CLIENT_ERROR invalid or duplicate flag");
static const struct span too_many_get = SPAN_LIT("CLIENT_ERROR options flags are too long");
static const struct span too_many = SPAN_LIT("CLIENT_ERROR options flags too long");
static const struct span long_opaque = SPAN_LIT("CLIENT_ERROR opaque token too long");

#define MG 1
#define MS 2
#define MD 4
#define MA 8

enum argument { FLAG_UNKNOWN, FLAG_PLAIN, FLAG_I32, FLAG_U64, FLAG_QUIET, FLAG_BASE64, FLAG_OPAQUE, FLAG_MODE };

/* Every flag is known to every command; what it means nothing to it ignores, but its argument must be good. */
static const struct {
    uint32_t with;
    uint8_t argument;
    uint8_t used_by;
    uint8_t returned_by;
} flags[128] = {
    ['v'] = {META_WANT_VALUE, FLAG_PLAIN, MG | MA, 0},
    ['f'] = {META_WANT_FLAGS, FLAG_PLAIN, MG, MG},
    ['c'] = {META_WANT_CAS, FLAG_PLAIN, MG | MS | MA, MG | MS | MA},
    ['t'] = {META_WANT_TTL, FLAG_PLAIN, MG | MA, MG | MA},
    ['h'] = {META_WANT_HIT, FLAG_PLAIN, MG, MG},
    ['l'] = {META_WANT_LAST, FLAG_PLAIN, MG, MG},
    ['s'] = {META_WANT_SIZE, FLAG_PLAIN, MG | MS, MG | MS},
    ['k'] = {0, FLAG_PLAIN, 0, MG | MS | MD | MA},
    ['O'] = {0, FLAG_OPAQUE, 0, MG | MS | MD | MA},
    ['u'] = {META_NO_BUMP, FLAG_PLAIN, MG, 0},
    ['q'] = {0, FLAG_QUIET, 0, 0},
    ['b'] = {0, FLAG_BASE64, 0, 0},
    ['I'] = {META_INVALIDATE, FLAG_PLAIN, MS | MD, 0},
    ['x'] = {META_DROP_VALUE, FLAG_PLAIN, MD, 0},
    ['C'] = {META_CAS, FLAG_U64, MS | MD | MA, 0},
    ['E'] = {META_VERSION, FLAG_U64, MG | MS | MD | MA, 0},
    ['F'] = {META_CLIENT_FLAGS, FLAG_U64, MS | MD, 0},
    ['T'] = {META_TTL, FLAG_I32, MG | MS | MD | MA, 0},
    ['N'] = {META_VIVIFY, FLAG_I32, MG | MS | MA, 0},
    ['R'] = {META_RECACHE, FLAG_I32, MG, 0},
    ['D'] = {META_DELTA, FLAG_U64, MA, 0},
    ['J'] = {META_INITIAL, FLAG_U64, MA, 0},
    ['M'] = {0, FLAG_MODE, 0, 0},
    ['P'] = {0, FLAG_PLAIN, 0, 0}, /* for proxies, like L */
    ['L'] = {0, FLAG_PLAIN, 0, 0},
};

static inline uint8_t bit_of(enum command command)
{
    return (uint8_t)(1U << (command - COMMAND_MG));
}

/* A line, and what is made of it. */
struct line {
    enum command command;
    const char *next; /* the words that have not been looked at */
    const char *end;
    struct span rest;
    uint64_t seen[2]; /* letters */
    struct request *out;
    char *key;
    struct span bad; /* the text of the last bad flag; empty: none */
    bool is_opaque_long;
    char mode;
    uint8_t last_rank;
    uint8_t ordered;
    size_t swallow;
};

static inline void start_request(struct request *out, enum command command)
{
    memset(out, 0, REQUEST_META_SIZE);
    out->command = command;
    out->protocol = PROTOCOL_META;
    out->is_first = true;
    out->is_last = true;
}

static struct span next_word(struct line *line)
{
    const char *p = token_skip_spaces(line->next, line->end);
    line->next = token_end(p, line->end);
    return span_of(p, (size_t)(line->next - p));
}

static size_t count_words(const struct line *line)
{
    struct line copy = {.next = line->rest.data, .end = line->end};
    size_t count = 1;
    while (next_word(&copy).len > 0) {
        count++;
    }
    return count;
}

/* memcached counts the words before it looks at any but the key. */
static struct span count_or(struct line *line, struct span text)
{
    if (count_words(line) <= WORDS_MAX) {
        return text;
    }
    line->swallow = 0;
    return line->command == COMMAND_MG ? too_many_get : too_many;
}

/* --- flags --- */

static void note_bad(struct line *line, struct span text)
{
    line->bad = text;
}

static void take_i32(struct line *line, char letter, struct span argument)
{
    struct request *out = line->out;
    int64_t *field = letter == 'T' ? &out->exptime : letter == 'N' ? &out->vivify_ttl : &out->recache_ttl;
    if (!token_i32(argument, field)) {
        note_bad(line, bad_token);
    }
}

static void take_u64(struct line *line, char letter, struct span argument)
{
    struct request *out = line->out;
    uint64_t number;
    bool is_good = token_u64(argument, &number);
    switch (letter) {
    case 'C': out->cas = number; break;
    case 'E': out->version = number; break;
    case 'F': out->flags = (uint32_t)number; break;
    case 'D': out->delta = number; break;
    default: out->initial = number; break;
    }
    if (is_good) {
        return;
    }
    switch (letter) {
    case 'F': /* has no text of its own */
        if (line->bad.len == 0) {
            note_bad(line, bad_format);
        }
        break;
    case 'D': note_bad(line, SPAN_LIT("CLIENT_ERROR invalid numeric delta value")); break;
    case 'J': note_bad(line, SPAN_LIT("CLIENT_ERROR invalid numeric initial value")); break;
    default: note_bad(line, bad_token); break;
    }
}

static void take_opaque(struct line *line, struct span argument)
{
    struct echo *echo = &line->out->echo;
    if (argument.len >= OPAQUE_MAX) { /* memcached counts the letter, too */
        line->is_opaque_long = true;
        return;
    }
    echo->text_len = (uint8_t)argument.len;
    if (argument.len > 0) {
        memcpy(echo->text, argument.data, argument.len);
    }
}

static void take_base64(struct line *line)
{
    struct request *out = line->out;
    size_t len = base64_decode(out->key, line->key);
    if (len == 0) {
        note_bad(line, SPAN_LIT("CLIENT_ERROR error decoding key"));
        return;
    }
    out->key = span_of(line->key, len);
    out->echo.is_base64 = true;
}

/* T, N, R and t mean something else in another order: each sees what those before it did to the entry. */
static void note_order(struct line *line, char letter)
{
    static const char usual[] = META_ORDER_USUAL;
    const char *found = memchr(usual, letter, sizeof usual - 1);
    if (found == NULL) {
        return;
    }
    uint8_t rank = (uint8_t)(found - usual);
    if (rank < line->last_rank) {
        line->out->with |= META_ORDERED;
    }
    line->last_rank = rank;
    line->out->ttl_order[line->ordered++] = letter;
}

/* False: the line is refused at once, with line->bad. */
static bool take_flag(struct line *line, struct span flag)
{
    unsigned char letter = (unsigned char)flag.data[0];
    if (letter >= 127 || (line->seen[letter >> 6] >> (letter & 63) & 1)) {
        note_bad(line, SPAN_LIT("CLIENT_ERROR duplicate flag"));
        return false;
    }
    line->seen[letter >> 6] |= 1ULL << (letter & 63);
    struct request *out = line->out;
    struct span argument = span_of(flag.data + 1, flag.len - 1);
    switch (flags[letter].argument) {
    case FLAG_PLAIN: break;
    case FLAG_I32: take_i32(line, (char)letter, argument); break;
    case FLAG_U64: take_u64(line, (char)letter, argument); break;
    case FLAG_QUIET: out->is_quiet = true; break;
    case FLAG_BASE64: take_base64(line); break;
    case FLAG_OPAQUE: take_opaque(line, argument); break;
    case FLAG_MODE:
        if (argument.len != 1) {
            note_bad(line, SPAN_LIT("CLIENT_ERROR incorrect length for M token"));
        } else {
            line->mode = argument.data[0];
        }
        break;
    default: note_bad(line, SPAN_LIT("CLIENT_ERROR invalid flag")); return false;
    }
    uint8_t bit = bit_of(line->command);
    if (flags[letter].used_by & bit) {
        out->with |= flags[letter].with;
        note_order(line, (char)letter);
    }
    if (flags[letter].returned_by & bit) {
        out->echo.letters[out->echo.letter_count++] = (char)letter;
    }
    return true;
}

/* --- commands --- */

static bool set_op(struct line *line)
{
    struct request *out = line->out;
    switch (line->command) {
    case COMMAND_MG: out->op = out->with & META_TTL ? OP_GAT : OP_GET; return true;
    case COMMAND_MD: out->op = OP_DELETE; return true;
    case COMMAND_MS:
        switch (line->mode) {
        case 0:
        case 'S': out->op = OP_SET; return true;
        case 'E': out->op = OP_ADD; return true;
        case 'A': out->op = OP_APPEND; return true;
        case 'P': out->op = OP_PREPEND; return true;
        case 'R': out->op = OP_REPLACE; return true;
        default: return false;
        }
    default:
        switch (line->mode) {
        case 0:
        case 'I':
        case '+': out->op = OP_INCR; return true;
        case 'D':
        case '-': out->op = OP_DECR; return true;
        default: return false;
        }
    }
}

/* Empty: all is well. */
static struct span parse_flags(struct line *line)
{
    bool has_own_texts = line->command == COMMAND_MG || line->command == COMMAND_MS;
    bool goes_on = true;
    while (goes_on) {
        struct span flag = next_word(line);
        if (flag.len == 0) {
            break;
        }
        goes_on = take_flag(line, flag);
    }
    if (line->bad.len > 0) {
        return has_own_texts ? line->bad : bad_flags;
    }
    if (!set_op(line)) {
        return line->command == COMMAND_MS ? SPAN_LIT("CLIENT_ERROR invalid mode for ms M token")
                                           : SPAN_LIT("CLIENT_ERROR invalid mode for ma M token");
    }
    return line->is_opaque_long ? long_opaque : (struct span){NULL, 0};
}

/* The length of ms's value. */
static bool parse_length(struct line *line)
{
    int64_t length;
    struct request *out = line->out;
    if (!token_i32(next_word(line), &length) || length < 0 || length > INT32_MAX - 2) {
        return false;
    }
    out->has_value = true;
    out->value_tail = sizeof CLASSIC_VALUE_END - 1;
    out->value_len = (size_t)length;
    line->swallow = out->value_len + out->value_tail;
    return true;
}

/* me KEY [b]: what else there is is not looked at. */
static struct span parse_debug(struct line *line)
{
    struct request *out = line->out;
    out->op = OP_DEBUG;
    if (token_is(next_word(line), SPAN_LIT("b"))) {
        take_base64(line);
    }
    return line->bad.len > 0 ? bad_format : (struct span){NULL, 0};
}

/* Empty: all is well. */
static struct span parse_words(struct line *line)
{
    struct request *out = line->out;
    if (line->command == COMMAND_MN) {
        out->op = OP_NOOP;
        return (struct span){NULL, 0};
    }
    out->key = next_word(line);
    if (out->key.len == 0) {
        return line->command == COMMAND_ME ? bad_format : word_error;
    }
    if (out->key.len > KEY_MAX) {
        return bad_format;
    }
    if (line->command == COMMAND_ME) {
        return parse_debug(line);
    }
    if (line->command == COMMAND_MS && !parse_length(line)) {
        return count_or(line, bad_format);
    }
    out->delta = 1;
    struct span bad = parse_flags(line);
    bool may_be_many = line->end - line->rest.data > 2 * (WORDS_MAX - 3);
    return bad.len > 0 || may_be_many ? count_or(line, bad) : bad;
}

enum parse_result metacmd_parse(enum command command, struct span rest, char *key, struct request *out, struct span *error, size_t *swallow)
{
    struct line line;
    memset(&line, 0, sizeof line);
    line.command = command;
    line.next = rest.data;
    line.end = rest.data + rest.len;
    line.rest = rest;
    line.out = out;
    line.key = key;
    start_request(out, command);
    *error = parse_words(&line);
    if (likely(error->len == 0)) {
        return PARSE_REQUEST;
    }
    *swallow = line.swallow;
    out->protocol = PROTOCOL_CLASSIC; /* in which errors look the same */
    return PARSE_ERROR;
}

enum command metacmd_find(struct span word)
{
    if (word.len != 2 || word.data[0] != 'm') {
        return COMMAND_COUNT;
    }
    switch (word.data[1]) {
    case 'g': return COMMAND_MG;
    case 's': return COMMAND_MS;
    case 'd': return COMMAND_MD;
    case 'a': return COMMAND_MA;
    case 'n': return COMMAND_MN;
    case 'e': return COMMAND_ME;
    default: return COMMAND_COUNT;
    }
}

/* A flag of the straight way; where it ends, or NULL: not one of these. */
static inline const char *take_plain_flag(struct line *line, const char *p, const char *end)
{
    unsigned char letter = (unsigned char)*p;
    const char *stop = p + 1;
    if (letter >= 127 || (flags[letter].argument != FLAG_PLAIN && letter != 'O' && letter != 'q')) {
        return NULL;
    }
    if (letter == 'O') {
        stop = token_break(p, end);
        if (stop - p > OPAQUE_MAX) {
            return NULL;
        }
    } else if (stop < end && *stop != ' ' && *stop != '\r') {
        return NULL;
    }
    return take_flag(line, span_of(p, (size_t)(stop - p))) ? stop : NULL;
}

bool metacmd_parse_get(const char *data, size_t len, size_t *consumed, struct request *out)
{
    const char *key = data + 3;
    const char *end = data + len;
    if (len < 6 || memcmp(data, "mg ", 3) != 0) {
        return false;
    }
    const char *p = token_break(key, end);
    size_t key_len = (size_t)(p - key);
    if (key_len == 0 || key_len > KEY_MAX) {
        return false;
    }
    struct line line;
    line.command = COMMAND_MG;
    line.key = NULL; /* b is none of the plain flags */
    line.seen[0] = line.seen[1] = 0;
    line.out = out;
    line.last_rank = line.ordered = 0;
    start_request(out, COMMAND_MG);
    while (end - p >= 3 && *p == ' ') { /* no letter stands there twice, so there are not too many */
        p = take_plain_flag(&line, p + 1, end);
        if (p == NULL) {
            return false;
        }
    }
    if (end - p < 2 || p[0] != '\r' || p[1] != '\n') {
        return false;
    }
    out->key = span_of(key, key_len);
    out->op = OP_GET;
    *consumed = (size_t)(p + 2 - data);
    return true;
}

/* --- replies --- */

static char *put_flag_u64(char *at, char letter, uint64_t number)
{
    at[0] = ' ';
    at[1] = letter;
    return token_put_u64(at + 2, number);
}

static char *put_key(char *at, const struct request *request)
{
    at = token_put_lit(at, " k");
    if (!request->echo.is_base64) {
        return token_put(at, request->key.data, request->key.len);
    }
    at = base64_put(at, request->key);
    return token_put_lit(at, " b");
}

static char *put_ttl(char *at, int64_t ttl)
{
    return ttl < 0 ? token_put_lit(at, " t-1") : put_flag_u64(at, 't', (uint64_t)ttl);
}

/* The return flags in the order in which they were asked for; where there is no entry to tell of, only the key and the opaque. */
static char *put_returned(char *at, const struct request *request, const struct reply *reply, bool has_entry)
{
    const struct echo *echo = &request->echo;
    for (size_t i = 0; i < echo->letter_count; i++) {
        char letter = echo->letters[i];
        if (letter == 'k') {
            at = put_key(at, request);
            continue;
        }
        if (letter == 'O') {
            at = token_put(token_put_lit(at, " O"), echo->text, echo->text_len);
            continue;
        }
        if (!has_entry) {
            continue;
        }
        switch (letter) {
        case 'f': at = put_flag_u64(at, 'f', reply->flags); break;
        case 'c': at = put_flag_u64(at, 'c', reply->cas); break;
        case 't': at = put_ttl(at, reply->ttl); break;
        case 'h': at = put_flag_u64(at, 'h', reply->was_hit); break;
        case 'l': at = put_flag_u64(at, 'l', (uint64_t)reply->last_access_s); break;
        default: at = put_flag_u64(at, 's', reply->size); break;
        }
    }
    return at;
}

static char *put_state(char *at, const struct reply *reply)
{
    if (reply->wait) {
        at = token_put_lit(at, " Z");
    }
    if (reply->stale) {
        at = token_put_lit(at, " X");
    }
    return reply->won ? token_put_lit(at, " W") : at;
}

/* mg's hit */
static enum err render_hit(const struct request *request, const struct reply *reply, struct chain *out)
{
    bool wants_value = request->with & META_WANT_VALUE;
    size_t room = wants_value && render_copies(reply) ? reply->value.len : 0;
    char *start = chain_reserve(out, (request->echo.letter_count == 0 ? HEAD_PLAIN_MAX : HEAD_MAX) + RENDER_TAIL_MAX + room);
    if (unlikely(start == NULL)) {
        return ERR_NOMEM;
    }
    char *at = wants_value ? token_put_u64(token_put_lit(start, "VA "), reply->value.len) : token_put_lit(start, "HD");
    if (request->echo.letter_count > 0) {
        at = put_returned(at, request, reply, true);
    }
    if (unlikely(reply->wait || reply->stale || reply->won)) {
        at = put_state(at, reply);
    }
    at = token_put_lit(at, "\r\n");
    static const char tail[RENDER_TAIL_MAX] = "\r\n";
    return wants_value ? render_value(out, reply, start, at, tail, 2) : chain_commit(out, (size_t)(at - start));
}

/* A line of a code and return flags. */
static enum err render_code(const struct request *request, const struct reply *reply, const char *code, bool has_entry, struct chain *out)
{
    char *start = chain_reserve(out, HEAD_MAX);
    if (unlikely(start == NULL)) {
        return ERR_NOMEM;
    }
    char *at = put_returned(token_put(start, code, 2), request, reply, has_entry);
    return chain_commit(out, (size_t)(token_put_lit(at, "\r\n") - start));
}

/* ma */
static enum err render_number(const struct request *request, const struct reply *reply, struct chain *out)
{
    if (!(request->with & META_WANT_VALUE)) {
        return render_code(request, reply, "HD", true, out);
    }
    char *start = chain_reserve(out, HEAD_MAX);
    if (unlikely(start == NULL)) {
        return ERR_NOMEM;
    }
    char digits[TOKEN_U64_MAX];
    size_t len = (size_t)(token_put_u64(digits, reply->number) - digits);
    char *at = token_put_u64(token_put_lit(start, "VA "), len);
    at = token_put_lit(put_returned(at, request, reply, true), "\r\n");
    at = token_put_lit(token_put(at, digits, len), "\r\n");
    return chain_commit(out, (size_t)(at - start));
}

/* me: the node's line, with the key as the client wrote it. */
static enum err render_debug(const struct request *request, const struct reply *reply, struct chain *out)
{
    static const struct span mark = SPAN_LIT(" exp=");
    struct span text = reply->text;
    size_t tail = text.len;
    while (tail > 0 && !span_has_prefix(span_of(text.data + tail, text.len - tail), mark)) {
        tail--;
    }
    if (tail == 0) {
        return render_line(out, text);
    }
    char *start = chain_reserve(out, HEAD_MAX);
    if (unlikely(start == NULL)) {
        return ERR_NOMEM;
    }
    char *at = token_put_lit(start, "ME ");
    at = request->echo.is_base64 ? base64_put(at, request->key) : token_put(at, request->key.data, request->key.len);
    enum err err = chain_commit(out, (size_t)(at - start));
    return err != OK ? err : render_line(out, span_of(text.data + tail, text.len - tail));
}

enum err metacmd_render(const struct request *request, const struct reply *reply, struct chain *out)
{
    bool is_quiet = request->is_quiet;
    bool is_ms = request->command == COMMAND_MS;
    switch (reply->status) {
    case REPLY_VALUE: return render_hit(request, reply, out);
    case REPLY_MISS: return is_quiet ? OK : render_code(request, reply, "EN", false, out);
    case REPLY_STORED:
    case REPLY_DELETED:
    case REPLY_TOUCHED:
    case REPLY_OK: return is_quiet ? OK : render_code(request, reply, "HD", is_ms, out);
    case REPLY_NOT_STORED: return render_code(request, reply, "NS", is_ms, out);
    case REPLY_EXISTS: return render_code(request, reply, "EX", is_ms, out);
    case REPLY_NOT_FOUND: return render_code(request, reply, "NF", is_ms, out);
    case REPLY_NUMBER: return is_quiet ? OK : render_number(request, reply, out);
    case REPLY_NOOP: return render_line(out, SPAN_LIT("MN"));
    case REPLY_DEBUG: return render_debug(request, reply, out);
    case REPLY_NONE: return OK;
    default: break;
    }
    struct span text = classic_error_text(reply);
    return text.len > 0 ? render_line(out, text) : OK;
}
