#include "proxy/protocol/classic.h"

#include "common/config.h"
#include "proxy/protocol/metacmd.h"
#include "proxy/protocol/render.h"
#include "proxy/protocol/token.h"

#define TOKENS_MAX 8   /* no command of ours has more than 7 words; an eighth only tells that there are too many */
#define HTTP_TOKENS 23 /* how many words of a line memcached looks at */
#define NUMBERS_MAX 96 /* "VALUE ", " " flags " " length " " cas, "\r\n", and the tail */

static const struct span no_text;
static const struct span bad_format = SPAN_LIT("CLIENT_ERROR bad command line format");
static const struct span bad_exptime = SPAN_LIT("CLIENT_ERROR invalid exptime argument");
static const struct span bad_delta = SPAN_LIT("CLIENT_ERROR invalid numeric delta argument");
static const struct span bad_delete = SPAN_LIT("CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]");
static const struct span no_shutdown = SPAN_LIT("ERROR: shutdown not enabled");
static const struct span line_too_long = SPAN_LIT("CLIENT_ERROR line too long");
static const struct span word_error = SPAN_LIT("ERROR");
static const struct span word_end = SPAN_LIT("END");
static const struct span word_noreply = SPAN_LIT("noreply");

enum shape {
    SHAPE_KEYS,
    SHAPE_EXPTIME_KEYS,
    SHAPE_STORE,
    SHAPE_STORE_CAS,
    SHAPE_DELETE,
    SHAPE_ARITHMETIC,
    SHAPE_TOUCH,
    SHAPE_FLUSH_ALL,
    SHAPE_PLAIN,
    SHAPE_STATS,
    SHAPE_VERBOSITY,
    SHAPE_META,
    SHAPE_NONE,
};

static const struct {
    enum op op;
    enum shape shape;
    uint32_t with;
} commands[COMMAND_COUNT] = {
#define X(name, word, op, shape, with) [COMMAND_##name] = {op, SHAPE_##shape, with},
#include "proxy/protocol/commands.def"
#undef X
};

/* A line and what is made of it. */
struct parse {
    struct classic *classic;
    const char *data;
    const char *end; /* of what counts: before the newline, a '\r' in front of it, or a NUL */
    size_t line_len; /* with its newline */
    size_t count;
    struct span tokens[TOKENS_MAX];
    size_t *consumed;
    struct request *out;
    struct span *error;
};

void classic_init(struct classic *classic)
{
    memset(classic, 0, sizeof *classic);
}

static enum parse_result refuse(struct parse *parse, struct span text)
{
    *parse->error = text;
    return PARSE_ERROR;
}

/* Whether the last word is `noreply`. From then on memcached does not even answer errors. */
static bool has_noreply(const struct parse *parse)
{
    return token_is(parse->tokens[parse->count - 1], word_noreply);
}

static enum parse_result refuse_unless(struct parse *parse, bool noreply, struct span text)
{
    return refuse(parse, noreply ? no_text : text);
}

static inline void start_request(struct request *out, enum command command)
{
    memset(out, 0, REQUEST_CLASSIC_SIZE);
    out->command = command;
    out->op = commands[command].op;
    out->with = commands[command].with;
    out->is_first = true;
    out->is_last = true;
}

/* The next key of a line that has been checked. `data` is at the key. */
static enum parse_result next_key(struct classic *classic, const char *data, size_t *consumed, struct request *out)
{
    const char *end = data + classic->keys_left;
    const char *stop = token_end(data, end);
    const char *next = token_skip_spaces(stop, end);
    bool is_last = next == end;
    start_request(out, classic->command);
    out->is_first = classic->at_first;
    out->is_last = is_last;
    out->exptime = classic->exptime;
    out->key = span_of(data, (size_t)(stop - data));
    classic->at_first = false;
    classic->in_keys = !is_last;
    classic->keys_left = (size_t)(end - next);
    *consumed += (size_t)(next - data) + (is_last ? classic->line_tail : 0);
    return PARSE_REQUEST;
}

/* get and gat: all keys are checked before the first one is handed out, as the error is the answer to the whole line. */
static enum parse_result parse_keys(struct parse *parse, enum command command, bool with_exptime)
{
    struct classic *classic = parse->classic;
    int64_t exptime = 0;
    if (parse->count < 2) {
        return refuse(parse, word_error);
    }
    if (with_exptime && !token_i32(parse->tokens[1], &exptime)) {
        return refuse(parse, bad_exptime);
    }
    const char *first = with_exptime ? parse->tokens[1].data + parse->tokens[1].len : parse->tokens[1].data;
    first = token_skip_spaces(first, parse->end);
    if (first == parse->end) {
        return refuse(parse, word_end); /* gat with an exptime and no key: nothing is found */
    }
    for (const char *p = first; p < parse->end;) {
        const char *stop = token_end(p, parse->end);
        if (stop - p > KEY_MAX) {
            return refuse(parse, bad_format);
        }
        p = token_skip_spaces(stop, parse->end);
    }
    classic->at_first = true;
    classic->command = command;
    classic->exptime = exptime;
    classic->keys_left = (size_t)(parse->end - first);
    classic->line_tail = (size_t)(parse->data + parse->line_len - parse->end);
    *parse->consumed = (size_t)(first - parse->data);
    return next_key(classic, first, parse->consumed, parse->out);
}

/* set KEY FLAGS EXPTIME LENGTH [noreply], cas KEY FLAGS EXPTIME LENGTH UNIQUE [noreply] */
static enum parse_result parse_store(struct parse *parse, bool has_unique)
{
    const struct span *tokens = parse->tokens;
    size_t least = has_unique ? 6 : 5;
    if (parse->count != least && parse->count != least + 1) {
        return refuse(parse, word_error);
    }
    struct request *out = parse->out;
    out->noreply = has_noreply(parse);
    uint64_t flags;
    int64_t length;
    if (tokens[1].len > KEY_MAX || !token_u64(tokens[2], &flags) || !token_i32(tokens[3], &out->exptime) ||
        !token_i32(tokens[4], &length) || (has_unique && !token_u64(tokens[5], &out->cas)) || length < 0 ||
        length > INT32_MAX - 2) {
        return refuse_unless(parse, out->noreply, bad_format);
    }
    out->key = tokens[1];
    out->flags = (uint32_t)flags;
    out->has_value = true;
    out->value_tail = sizeof CLASSIC_VALUE_END - 1;
    out->value_len = (size_t)length;
    return PARSE_REQUEST;
}

/* delete KEY [0] [noreply]: the 0 is what is left of a time that memcached once had. */
static enum parse_result parse_delete(struct parse *parse)
{
    if (parse->count < 2 || parse->count > 4) {
        return refuse(parse, word_error);
    }
    struct request *out = parse->out;
    if (parse->count > 2) {
        bool has_zero = token_is(parse->tokens[2], SPAN_LIT("0"));
        out->noreply = has_noreply(parse);
        if (!(parse->count == 3 ? has_zero || out->noreply : has_zero && out->noreply)) {
            return refuse_unless(parse, out->noreply, bad_delete);
        }
    }
    if (parse->tokens[1].len > KEY_MAX) {
        return refuse_unless(parse, out->noreply, bad_format);
    }
    out->key = parse->tokens[1];
    return PARSE_REQUEST;
}

/* incr KEY DELTA [noreply], touch KEY EXPTIME [noreply] */
static enum parse_result parse_key_number(struct parse *parse, bool is_touch)
{
    if (parse->count != 3 && parse->count != 4) {
        return refuse(parse, word_error);
    }
    struct request *out = parse->out;
    out->noreply = has_noreply(parse);
    if (parse->tokens[1].len > KEY_MAX) {
        return refuse_unless(parse, out->noreply, bad_format);
    }
    out->key = parse->tokens[1];
    if (is_touch ? !token_i32(parse->tokens[2], &out->exptime) : !token_u64(parse->tokens[2], &out->delta)) {
        return refuse_unless(parse, out->noreply, is_touch ? bad_exptime : bad_delta);
    }
    return PARSE_REQUEST;
}

/* flush_all [DELAY] [noreply] */
static enum parse_result parse_flush_all(struct parse *parse)
{
    if (parse->count > 3) {
        return refuse(parse, word_error);
    }
    struct request *out = parse->out;
    out->noreply = has_noreply(parse);
    if (parse->count != (out->noreply ? 2 : 1) && !token_i32(parse->tokens[1], &out->exptime)) {
        return refuse_unless(parse, out->noreply, bad_exptime);
    }
    return PARSE_REQUEST;
}

/* verbosity LEVEL [noreply]: there is nothing to do but to say OK, as the log's level is the operator's. */
static enum parse_result parse_verbosity(struct parse *parse)
{
    if (parse->count != 2 && parse->count != 3) {
        return refuse(parse, word_error);
    }
    uint64_t level;
    parse->out->noreply = has_noreply(parse);
    if (!token_u64(parse->tokens[1], &level)) {
        return refuse_unless(parse, parse->out->noreply, bad_format);
    }
    return PARSE_REQUEST;
}

/* As the binary protocol has it, in one piece. */
static struct span stats_detail(struct span what)
{
    static const struct span known[] = {SPAN_LIT("detail on"), SPAN_LIT("detail off"), SPAN_LIT("detail dump")};
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (token_is(what, span_of(known[i].data + 7, known[i].len - 7))) {
            return known[i];
        }
    }
    return SPAN_LIT("detail");
}

/* stats [WHAT …] */
static enum parse_result parse_stats(struct parse *parse)
{
    if (parse->count > 1) {
        if (parse->tokens[1].len > KEY_MAX) {
            return refuse(parse, word_error);
        }
        parse->out->key = parse->tokens[1];
        if (token_is(parse->tokens[1], SPAN_LIT("detail")) && parse->count > 2) { /* the only one whose argument counts */
            parse->out->key = stats_detail(parse->tokens[2]);
        }
    }
    return PARSE_REQUEST;
}

#define LOOK(len, letter) ((len) << 8 | (unsigned)(letter))

/* The classic command of that name, or COMMAND_COUNT. Length and a letter or two leave one candidate. */
static enum command command_find(struct span word)
{
    if (word.len < 3 || word.len > 9) {
        return COMMAND_COUNT;
    }
    const char *w = word.data;
    enum command found = COMMAND_COUNT;
    switch (LOOK(word.len, (unsigned char)w[0])) {
    case LOOK(3, 'g'): found = w[1] == 'e' ? COMMAND_GET : COMMAND_GAT; break;
    case LOOK(3, 's'): found = COMMAND_SET; break;
    case LOOK(3, 'a'): found = COMMAND_ADD; break;
    case LOOK(3, 'c'): found = COMMAND_CAS; break;
    case LOOK(4, 'g'): found = w[1] == 'e' ? COMMAND_GETS : COMMAND_GATS; break;
    case LOOK(4, 'i'): found = COMMAND_INCR; break;
    case LOOK(4, 'd'): found = COMMAND_DECR; break;
    case LOOK(4, 'q'): found = COMMAND_QUIT; break;
    case LOOK(4, 'b'):
        return memcmp(w, "bget", 4) == 0 ? COMMAND_GET : COMMAND_COUNT; /* an old name that memcached still takes */
    case LOOK(5, 't'): found = COMMAND_TOUCH; break;
    case LOOK(5, 's'): found = COMMAND_STATS; break;
    case LOOK(6, 'd'): found = COMMAND_DELETE; break;
    case LOOK(6, 'a'): found = COMMAND_APPEND; break;
    case LOOK(7, 'r'): found = COMMAND_REPLACE; break;
    case LOOK(7, 'p'): found = COMMAND_PREPEND; break;
    case LOOK(7, 'v'): found = COMMAND_VERSION; break;
    case LOOK(9, 'f'): found = COMMAND_FLUSH_ALL; break;
    case LOOK(9, 'v'): found = COMMAND_VERBOSITY; break;
    default: return COMMAND_COUNT;
    }
    return memcmp(w, command_words[found], word.len) == 0 ? found : COMMAND_COUNT;
}

/* A browser's request is hung up on, lest a web page talk to a cache: what memcached takes for one. */
static bool is_http(const struct parse *parse)
{
    static const char known_letters[] = "gsacidt";
    struct span first = parse->tokens[0];
    if (memchr(known_letters, first.data[0], sizeof known_letters - 1) != NULL || (first.data[0] == 'm' && first.len == 2)) {
        return false;
    }
    struct span tokens[HTTP_TOKENS];
    size_t count = token_split(span_of(parse->data, (size_t)(parse->end - parse->data)), tokens, HTTP_TOKENS);
    return span_has_prefix(tokens[count - 1], SPAN_LIT("HTTP/"));
}

static enum parse_result parse_unknown(struct parse *parse)
{
    if (parse->count == 0 || parse->tokens[0].len < 2) {
        return refuse(parse, word_error);
    }
    if (token_is(parse->tokens[0], SPAN_LIT("shutdown"))) {
        return refuse(parse, no_shutdown);
    }
    if (is_http(parse)) {
        *parse->error = no_text;
        return PARSE_CLOSE;
    }
    return refuse(parse, word_error);
}

/* A line that begins with an m: true if it is a meta command's, which has its own way with words. */
static bool parse_meta(struct parse *parse, const char *p, enum parse_result *result)
{
    const char *stop = token_end(p, parse->end);
    enum command command = metacmd_find(span_of(p, (size_t)(stop - p)));
    if (command == COMMAND_COUNT) {
        return false;
    }
    struct classic *classic = parse->classic;
    *result = metacmd_parse(command, span_of(stop, (size_t)(parse->end - stop)), classic->key, parse->out, parse->error, &classic->swallow);
    return true;
}

static enum parse_result parse_command(struct parse *parse)
{
    const char *first = token_skip_spaces(parse->data, parse->end);
    enum parse_result result;
    if (first < parse->end && *first == 'm' && parse_meta(parse, first, &result)) {
        return result;
    }
    parse->count = token_split(span_of(parse->data, (size_t)(parse->end - parse->data)), parse->tokens, TOKENS_MAX);
    enum command command = parse->count == 0 ? COMMAND_COUNT : command_find(parse->tokens[0]);
    if (command == COMMAND_COUNT) {
        return parse_unknown(parse);
    }
    start_request(parse->out, command);
    switch (commands[command].shape) {
    case SHAPE_KEYS: return parse_keys(parse, command, false);
    case SHAPE_EXPTIME_KEYS: return parse_keys(parse, command, true);
    case SHAPE_STORE: return parse_store(parse, false);
    case SHAPE_STORE_CAS: return parse_store(parse, true);
    case SHAPE_DELETE: return parse_delete(parse);
    case SHAPE_ARITHMETIC: return parse_key_number(parse, false);
    case SHAPE_TOUCH: return parse_key_number(parse, true);
    case SHAPE_FLUSH_ALL: return parse_flush_all(parse);
    case SHAPE_STATS: return parse_stats(parse);
    case SHAPE_VERBOSITY: return parse_verbosity(parse);
    case SHAPE_PLAIN: break;
    case SHAPE_META:
    case SHAPE_NONE: return parse_unknown(parse);
    }
    return PARSE_REQUEST;
}

/* There is no newline yet. Only a multi-get may be long. */
static enum parse_result wait_for_newline(struct classic *classic, const char *data, size_t len, struct span *error)
{
    classic->scanned = len;
    if (len <= CLASSIC_LINE_WAIT) {
        return PARSE_MORE;
    }
    const char *p = token_skip_spaces(data, data + CLASSIC_LINE_WAIT);
    struct span line = span_of(p, len - (size_t)(p - data));
    *error = no_text;
    if (p - data > 100 || (!span_has_prefix(line, SPAN_LIT("get ")) && !span_has_prefix(line, SPAN_LIT("gets ")))) {
        return PARSE_CLOSE;
    }
    if (len > CLASSIC_LINE_MAX) {
        *error = line_too_long;
        return PARSE_CLOSE;
    }
    return PARSE_MORE;
}

static enum parse_result parse_line(struct classic *classic, const char *data, size_t len, size_t *consumed,
                                      struct request *out, struct span *error)
{
    out->protocol = PROTOCOL_CLASSIC;
    size_t scanned = MIN(classic->scanned, len);
    const char *newline = memchr(data + scanned, '\n', len - scanned);
    if (newline == NULL) {
        return wait_for_newline(classic, data, len, error);
    }
    classic->scanned = 0;
    size_t line_len = (size_t)(newline - data) + 1;
    *consumed = line_len;
    if (unlikely(line_len > CLASSIC_LINE_MAX)) {
        *error = line_too_long;
        return PARSE_CLOSE;
    }
    const char *end = newline - (line_len > 2 && newline[-1] == '\r' ? 1 : 0);
    const char *nul = memchr(data, '\0', (size_t)(end - data));
    struct parse parse;
    parse.classic = classic;
    parse.data = data;
    parse.end = nul != NULL ? nul : end;
    parse.line_len = line_len;
    parse.consumed = consumed;
    parse.out = out;
    parse.error = error;
    return parse_command(&parse);
}

/* The straight way of what nearly every line is: "get KEY\r\n". */
static inline bool parse_one_get(const char *data, size_t len, size_t *consumed, struct request *out)
{
    const char *key = data + 4;
    const char *end = data + len;
    if (len < 6 || memcmp(data, "get ", 4) != 0) {
        return false;
    }
    const char *stop = token_break(key, end);
    size_t key_len = (size_t)(stop - key);
    if (end - stop < 2 || stop[0] != '\r' || stop[1] != '\n' || key_len == 0 || key_len > KEY_MAX) {
        return false;
    }
    *consumed = (size_t)(stop + 2 - data);
    start_request(out, COMMAND_GET);
    out->key = span_of(key, key_len);
    return true;
}

enum parse_result classic_parse(struct classic *classic, const char *data, size_t len, size_t *consumed, struct request *out,
                                  struct span *error)
{
    *consumed = 0;
    if (classic->in_keys) {
        if (unlikely(len < classic->keys_left + classic->line_tail)) {
            return PARSE_MORE;
        }
        return next_key(classic, data, consumed, out);
    }
    if (likely(parse_one_get(data, len, consumed, out))) {
        classic->scanned = 0;
        return PARSE_REQUEST;
    }
    if (len == 0) {
        return PARSE_MORE;
    }
    if (*data == 'm' && likely(metacmd_parse_get(data, len, consumed, out))) {
        classic->scanned = 0;
        return PARSE_REQUEST;
    }
    enum parse_result result = parse_line(classic, data, len, consumed, out, error);
    if (unlikely((result == PARSE_ERROR || result == PARSE_CLOSE) && out->protocol == PROTOCOL_CLASSIC)) {
        *out = (struct request){.command = COMMAND_COUNT, .op = OP_NONE, .is_first = true, .is_last = true};
    }
    return result;
}

struct span classic_error_text(const struct reply *reply)
{
    static const struct span texts[REPLY_STATUS_COUNT] = {
        [REPLY_AUTH_FAILED] = SPAN_LIT("CLIENT_ERROR authentication failure"),
        [REPLY_UNAUTHENTICATED] = SPAN_LIT("CLIENT_ERROR unauthenticated"),
        [REPLY_UNKNOWN] = SPAN_LIT("ERROR"),
        [REPLY_TOO_LARGE] = SPAN_LIT("SERVER_ERROR object too large for cache"),
        [REPLY_BAD_CHUNK] = SPAN_LIT("CLIENT_ERROR bad data chunk"),
        [REPLY_NO_MEMORY] = SPAN_LIT("SERVER_ERROR out of memory storing object"),
        [REPLY_NON_NUMERIC] = SPAN_LIT("CLIENT_ERROR cannot increment or decrement non-numeric value"),
    };
    return reply->status == REPLY_ERROR ? reply->text : texts[reply->status];
}

/* "VALUE " KEY " " FLAGS " " LENGTH [" " CAS] "\r\n" */
static char *put_value_head(char *at, const struct request *request, const struct reply *reply)
{
    at = token_put_lit(at, "VALUE ");
    at = token_put(at, request->key.data, request->key.len);
    *at++ = ' ';
    at = token_put_u64(at, reply->flags);
    *at++ = ' ';
    at = token_put_u64(at, reply->value.len);
    if (request->with & META_WANT_CAS) {
        *at++ = ' ';
        at = token_put_u64(at, reply->cas);
    }
    return token_put_lit(at, "\r\n");
}

static enum err render_found(const struct request *request, const struct reply *reply, struct chain *out)
{
    char *start = chain_reserve(out, NUMBERS_MAX + request->key.len + (render_copies(reply) ? reply->value.len : 0));
    if (start == NULL) {
        return ERR_NOMEM;
    }
    char *at = put_value_head(start, request, reply);
    static const char tail[RENDER_TAIL_MAX] = "\r\nEND\r\n";
    return render_value(out, reply, start, at, tail, request->is_last ? 7 : 2);
}

/* One key of get or gat. */
static enum err render_key(struct classic *classic, const struct request *request, const struct reply *reply, struct chain *out)
{
    if (request->is_first) {
        classic->answered = 0;
        classic->failed = 0;
    }
    if (likely(reply->status == REPLY_VALUE)) {
        classic->answered++;
        return render_found(request, reply, out);
    }
    struct span error = classic_error_text(reply);
    if (error.len == 0) {
        classic->answered++;
    } else if (classic->failed++ == 0) {
        classic->error_len = MIN(error.len, sizeof classic->error);
        memcpy(classic->error, error.data, classic->error_len);
    }
    if (!request->is_last) {
        return OK;
    }
    return render_line(out, classic->answered > 0 ? word_end : span_of(classic->error, classic->error_len));
}

static enum err render_number(struct chain *out, uint64_t number)
{
    char *start = chain_reserve(out, TOKEN_U64_MAX + 2);
    if (start == NULL) {
        return ERR_NOMEM;
    }
    char *at = token_put_lit(token_put_u64(start, number), "\r\n");
    return chain_commit(out, (size_t)(at - start));
}

enum err classic_render(struct classic *classic, const struct request *request, const struct reply *reply, struct chain *out)
{
    static const struct span lines[] = {
        [REPLY_MISS] = SPAN_LIT("NOT_FOUND\r\n"),        [REPLY_STORED] = SPAN_LIT("STORED\r\n"),
        [REPLY_NOT_STORED] = SPAN_LIT("NOT_STORED\r\n"), [REPLY_EXISTS] = SPAN_LIT("EXISTS\r\n"),
        [REPLY_NOT_FOUND] = SPAN_LIT("NOT_FOUND\r\n"),   [REPLY_DELETED] = SPAN_LIT("DELETED\r\n"),
        [REPLY_TOUCHED] = SPAN_LIT("TOUCHED\r\n"),       [REPLY_OK] = SPAN_LIT("OK\r\n"),
    };
    if (unlikely(request->protocol == PROTOCOL_META)) {
        return metacmd_render(request, reply, out);
    }
    if (request->noreply || reply->status == REPLY_NONE) {
        return OK;
    }
    if (request->op == OP_GET || request->op == OP_GAT) {
        return render_key(classic, request, reply, out);
    }
    enum err err = OK;
    switch (reply->status) {
    case REPLY_NUMBER: return render_number(out, reply->number);
    case REPLY_VERSION: err = chain_append(out, "VERSION ", 8); return err != OK ? err : render_line(out, reply->text);
    case REPLY_STATS:
        err = chain_append(out, reply->text.data, reply->text.len);
        return err != OK ? err : render_line(out, word_end);
    case REPLY_VALUE: /* only get and gat are answered so */
    case REPLY_NONE: return OK;
    default: break;
    }
    if (reply->status < ARRAY_LEN(lines) && lines[reply->status].len > 0) {
        return chain_append(out, lines[reply->status].data, lines[reply->status].len);
    }
    return render_line(out, classic_error_text(reply));
}
