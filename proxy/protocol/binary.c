#include "proxy/protocol/binary.h"

#include <endian.h>

#include "common/config.h"

#define HEAD_LEN 24U
#define FLAGS_LEN 4U
#define NUMBER_LEN 8U
#define READ_MAX 16384U /* what memcached has room for in front of a value; it hangs up on more, without a word */
#define NO_CREATION UINT32_MAX /* an exptime of arithmetic */

static const struct span no_text;
static const struct span unknown_command = SPAN_LIT("ERROR");
static const struct span invalid_arguments = SPAN_LIT("CLIENT_ERROR Invalid arguments");

enum shape {
    SHAPE_UNKNOWN,
    SHAPE_KEY,
    SHAPE_TOUCH,
    SHAPE_STORE,
    SHAPE_CONCAT,
    SHAPE_DELETE,
    SHAPE_ARITHMETIC,
    SHAPE_FLUSH,
    SHAPE_PLAIN,
    SHAPE_STAT,
    SHAPE_VERBOSITY,
};

static const struct opcode_entry {
    uint8_t shape;
    uint8_t op;
    uint8_t command;
    bool is_quiet;
    uint32_t with;
} opcodes[OPCODE_COUNT] = {
#define X(name, code, command, op, shape, is_quiet, with) [code] = {SHAPE_##shape, op, COMMAND_##command, is_quiet, with},
#include "proxy/protocol/opcodes.def"
#undef X
};

/* --- requests --- */

struct head {
    uint8_t opcode;
    uint8_t extras_len;
    uint16_t key_len;
    uint32_t body_len;
    uint32_t opaque; /* as it came */
    uint64_t cas;
    const char *extras;
};

void binary_init(struct binary *binary)
{
    binary->swallow = 0;
}

static inline uint16_t load_u16(const char *p)
{
    uint16_t value;
    memcpy(&value, p, sizeof value);
    return be16toh(value);
}

static inline uint32_t load_u32(const char *p)
{
    uint32_t value;
    memcpy(&value, p, sizeof value);
    return be32toh(value);
}

static inline uint64_t load_u64(const char *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return be64toh(value);
}

static inline void read_head(const char *data, struct head *head)
{
    head->opcode = (uint8_t)data[1];
    head->key_len = load_u16(data + 2);
    head->extras_len = (uint8_t)data[4];
    head->body_len = load_u32(data + 8);
    memcpy(&head->opaque, data + 12, sizeof head->opaque);
    head->cas = load_u64(data + 16);
    head->extras = data + HEAD_LEN;
}

static inline void start_request(struct request *out, const struct head *head, const struct opcode_entry *entry)
{
    memset(out, 0, sizeof *out);
    out->protocol = PROTOCOL_BINARY;
    out->command = (enum command)entry->command;
    out->op = (enum op)entry->op;
    out->with = entry->with;
    out->is_quiet = entry->is_quiet;
    out->is_first = true;
    out->is_last = true;
    out->key = span_of(head->extras + head->extras_len, head->key_len);
    out->echo.opcode = head->opcode;
    out->echo.opaque = head->opaque;
}

/* What is bad has no key, and no command that it could be counted as. Errors are never left out. */
static enum parse_result refuse(const struct head *head, struct request *out, struct span *error, struct span text, enum parse_result result)
{
    static const struct opcode_entry none = {.op = OP_NONE};
    start_request(out, head, &none);
    out->command = COMMAND_COUNT;
    out->key = no_text;
    *error = text;
    return result;
}

/* An expiry that clients mean as it is: memcached's meta commands, which the node is spoken to in, take 32 bits and a sign. Beyond, in 2038, lies
 * what the binary protocol takes to be a time before 2106. */
static int64_t load_exptime(const char *p)
{
    return MIN(load_u32(p), (uint32_t)INT32_MAX);
}

static void set_value(const struct head *head, struct request *out)
{
    out->has_value = true;
    out->value_len = (size_t)head->body_len - head->extras_len - head->key_len;
}

static void set_cas(const struct head *head, struct request *out)
{
    if (head->cas != 0) {
        out->with |= META_CAS;
        out->cas = head->cas;
    }
}

/* set, add, replace: extras are flags and exptime. With a CAS the last two are a set, too. */
static bool take_store(const struct head *head, struct request *out)
{
    if (head->extras_len != 8 || head->key_len == 0) {
        return false;
    }
    out->flags = load_u32(head->extras);
    out->exptime = load_exptime(head->extras + 4);
    set_value(head, out);
    set_cas(head, out);
    if (out->with & META_CAS) {
        out->op = OP_SET;
    }
    return true;
}

/* append, prepend, and SASL's, whose key is the mechanism */
static bool take_concat(const struct head *head, struct request *out)
{
    if (head->extras_len != 0 || head->key_len == 0) {
        return false;
    }
    set_value(head, out);
    if (out->op != OP_AUTH) {
        set_cas(head, out);
    }
    return true;
}

static bool take_delete(const struct head *head, struct request *out)
{
    set_cas(head, out);
    return head->extras_len == 0 && head->key_len > 0 && head->body_len == head->key_len;
}

/* Extras are the delta, what a missing number is created with, and when that expires. */
static bool take_arithmetic(const struct head *head, struct request *out)
{
    if (head->extras_len != 20 || head->key_len == 0 || head->body_len != 20U + head->key_len) {
        return false;
    }
    out->delta = load_u64(head->extras);
    out->initial = load_u64(head->extras + 8);
    out->vivify_ttl = load_exptime(head->extras + 16);
    if (load_u32(head->extras + 16) != NO_CREATION) {
        out->with |= META_VIVIFY | META_INITIAL;
    }
    set_cas(head, out);
    return true;
}

static bool take_flush(const struct head *head, struct request *out)
{
    if (head->key_len != 0 || head->body_len != head->extras_len || (head->extras_len != 0 && head->extras_len != 4)) {
        return false;
    }
    out->exptime = head->extras_len == 4 ? load_exptime(head->extras) : 0;
    return true;
}

/* touch, gat. A body that goes on behind the key is not looked at: it is taken for the next packet, as memcached does. */
static bool take_touch(const struct head *head, struct request *out)
{
    if (head->extras_len != 4 || head->key_len == 0) {
        return false;
    }
    out->exptime = load_exptime(head->extras);
    return true;
}

/* memcached does not know `verbosity`; we do, if only in the shape that clients send. */
static bool is_known(enum shape shape, const struct head *head)
{
    return shape == SHAPE_VERBOSITY ? head->extras_len == 4 && head->body_len == 4 : shape != SHAPE_UNKNOWN;
}

/* Whether the packet is what its opcode asks for; completes the request. */
static bool take_packet(enum shape shape, const struct head *head, struct request *out)
{
    switch (shape) {
    case SHAPE_KEY: return head->extras_len == 0 && head->key_len > 0 && head->body_len == head->key_len;
    case SHAPE_TOUCH: return take_touch(head, out);
    case SHAPE_STORE: return take_store(head, out);
    case SHAPE_CONCAT: return take_concat(head, out);
    case SHAPE_DELETE: return take_delete(head, out);
    case SHAPE_ARITHMETIC: return take_arithmetic(head, out);
    case SHAPE_FLUSH: return take_flush(head, out);
    case SHAPE_PLAIN: return head->body_len == 0;
    case SHAPE_STAT: return head->extras_len == 0; /* as with touch, the body may go on */
    case SHAPE_VERBOSITY: return true;
    case SHAPE_UNKNOWN: break;
    }
    return false;
}

enum parse_result binary_parse(struct binary *binary, const char *data, size_t len, size_t *consumed, struct request *out, struct span *error)
{
    *consumed = 0;
    if (unlikely(len < HEAD_LEN)) {
        return PARSE_MORE;
    }
    struct head head;
    read_head(data, &head);
    if (unlikely((uint8_t)data[0] != BINARY_REQUEST)) {
        return refuse(&head, out, error, no_text, PARSE_CLOSE);
    }
    size_t total = HEAD_LEN + head.extras_len + head.key_len;
    if (unlikely(total > READ_MAX)) {
        return refuse(&head, out, error, no_text, PARSE_CLOSE);
    }
    if (unlikely(len < total)) {
        return PARSE_MORE; /* even of what is going to be refused */
    }
    *consumed = total;
    if (unlikely((uint32_t)head.key_len + head.extras_len > head.body_len)) {
        return refuse(&head, out, error, unknown_command, PARSE_CLOSE);
    }
    if (unlikely(head.key_len > KEY_MAX)) {
        return refuse(&head, out, error, invalid_arguments, PARSE_CLOSE);
    }
    const struct opcode_entry *entry = &opcodes[head.opcode];
    if (unlikely(!is_known((enum shape)entry->shape, &head))) {
        /* The whole body is skipped behind extras and key, which have been taken already: so does memcached, and who sends such a packet
         * expects its answer. */
        binary->swallow = head.body_len;
        return refuse(&head, out, error, unknown_command, PARSE_ERROR);
    }
    start_request(out, &head, entry);
    if (unlikely(!take_packet((enum shape)entry->shape, &head, out))) {
        return refuse(&head, out, error, invalid_arguments, PARSE_CLOSE);
    }
    return PARSE_REQUEST;
}

/* --- replies --- */

static inline char *put(char *at, const void *bytes, size_t len)
{
    memcpy(at, bytes, len);
    return at + len;
}

static inline char *put_u32(char *at, uint32_t value)
{
    value = htobe32(value);
    return put(at, &value, sizeof value);
}

static inline char *put_u64(char *at, uint64_t value)
{
    value = htobe64(value);
    return put(at, &value, sizeof value);
}

struct lengths {
    uint8_t extras;
    uint8_t key;
    size_t body; /* with extras and key */
};

static inline char *put_head(char *at, const struct request *request, enum binary_status status, struct lengths len, uint64_t cas)
{
    uint16_t key_len = htobe16(len.key);
    uint16_t code = htobe16((uint16_t)status);
    *at++ = (char)BINARY_REPLY;
    *at++ = (char)request->echo.opcode;
    at = put(at, &key_len, sizeof key_len);
    *at++ = (char)len.extras;
    *at++ = 0;
    at = put(at, &code, sizeof code);
    at = put_u32(at, (uint32_t)len.body);
    at = put(at, &request->echo.opaque, sizeof request->echo.opaque);
    return put_u64(at, cas);
}

/* A packet of a head and a body in one or two parts. */
static enum err render_packet(const struct request *request, enum binary_status status, struct span key, struct span rest, uint64_t cas,
                              struct chain *out)
{
    char head[HEAD_LEN];
    put_head(head, request, status, (struct lengths){.key = (uint8_t)key.len, .body = key.len + rest.len}, cas);
    enum err err = chain_append(out, head, sizeof head);
    if (err == OK && key.len > 0) {
        err = chain_append(out, key.data, key.len);
    }
    return err != OK || rest.len == 0 ? err : chain_append(out, rest.data, rest.len);
}

static enum err render_text(const struct request *request, enum binary_status status, struct span text, struct chain *out)
{
    return render_packet(request, status, no_text, text, 0, out);
}

static bool returns_key(const struct request *request)
{
    switch (request->echo.opcode) {
    case OPCODE_GETK:
    case OPCODE_GETKQ:
    case OPCODE_GATK:
    case OPCODE_GATKQ: return true;
    default: return false;
    }
}

static enum err render_value(const struct request *request, const struct reply *reply, struct chain *out)
{
    struct span value = reply->value;
    size_t key_len = returns_key(request) ? request->key.len : 0;
    bool is_small = value.len < CHAIN_REF_MIN;
    char *start = chain_reserve(out, HEAD_LEN + FLAGS_LEN + KEY_MAX + (is_small ? value.len : 0));
    if (unlikely(start == NULL)) {
        return ERR_NOMEM;
    }
    struct lengths len = {.extras = FLAGS_LEN, .key = (uint8_t)key_len, .body = FLAGS_LEN + key_len + value.len};
    char *at = put_u32(put_head(start, request, BINARY_SUCCESS, len, reply->cas), reply->flags);
    if (key_len > 0) {
        at = put(at, request->key.data, key_len);
    }
    if (likely(is_small)) {
        if (value.len > 0) {
            at = put(at, value.data, value.len);
        }
        return chain_commit(out, (size_t)(at - start));
    }
    enum err err = chain_commit(out, (size_t)(at - start));
    return err != OK ? err : chain_append_value(out, reply->chunk, value.data, value.len);
}

static enum err render_touched(const struct request *request, const struct reply *reply, struct chain *out)
{
    char packet[HEAD_LEN + FLAGS_LEN];
    struct lengths len = {.extras = FLAGS_LEN, .body = FLAGS_LEN};
    put_u32(put_head(packet, request, BINARY_SUCCESS, len, reply->cas), reply->flags);
    return chain_append(out, packet, sizeof packet);
}

static enum err render_number(const struct request *request, const struct reply *reply, struct chain *out)
{
    char packet[HEAD_LEN + NUMBER_LEN];
    put_u64(put_head(packet, request, BINARY_SUCCESS, (struct lengths){.body = NUMBER_LEN}, reply->cas), reply->number);
    return chain_append(out, packet, sizeof packet);
}

/* "STAT name value\r\n" lines: a packet for each, and an empty one behind them. */
static enum err render_stats(const struct request *request, struct span lines, struct chain *out)
{
    static const struct span word = SPAN_LIT("STAT ");
    const char *end = lines.data + lines.len;
    for (const char *p = lines.data; p < end;) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        const char *stop = newline == NULL ? end : newline > p && newline[-1] == '\r' ? newline - 1 : newline;
        struct span line = span_of(p, (size_t)(stop - p));
        p = newline == NULL ? end : newline + 1;
        if (!span_has_prefix(line, word)) {
            continue;
        }
        const char *name = line.data + word.len;
        const char *space = memchr(name, ' ', (size_t)(stop - name));
        size_t name_len = MIN((size_t)((space != NULL ? space : stop) - name), (size_t)KEY_MAX);
        struct span value = space != NULL ? span_of(space + 1, (size_t)(stop - space - 1)) : no_text;
        enum err err = name_len == 0 ? OK : render_packet(request, BINARY_SUCCESS, span_of(name, name_len), value, 0, out);
        if (err != OK) {
            return err;
        }
    }
    return render_text(request, BINARY_SUCCESS, no_text, out);
}

/* An error that comes as a line of the text protocols: the first word says which status it is and is no use behind it. */
static enum err render_error_line(const struct request *request, struct span line, struct chain *out)
{
    static const struct {
        struct span prefix;
        size_t word_len;
        enum binary_status status;
    } kinds[] = {
        {SPAN_LIT("SERVER_ERROR out of memory"), 13, BINARY_NO_MEMORY},
        {SPAN_LIT("SERVER_ERROR Out of memory"), 13, BINARY_NO_MEMORY},
        {SPAN_LIT("SERVER_ERROR "), 13, BINARY_TEMPORARY_FAILURE},
        {SPAN_LIT("CLIENT_ERROR "), 13, BINARY_INVALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (span_has_prefix(line, kinds[i].prefix)) {
            return render_text(request, kinds[i].status, span_of(line.data + kinds[i].word_len, line.len - kinds[i].word_len), out);
        }
    }
    if (request->op == OP_STATS) { /* of an argument: that it is not known, or that it is stats reset's */
        bool is_reset = span_eq(line, SPAN_LIT("RESET"));
        return render_text(request, is_reset ? BINARY_SUCCESS : BINARY_NOT_FOUND, is_reset ? no_text : SPAN_LIT("Not found"), out);
    }
    return render_text(request, BINARY_UNKNOWN_COMMAND, SPAN_LIT("Unknown command"), out);
}

static enum err render_error(const struct request *request, enum reply_status status, struct chain *out)
{
    static const struct {
        enum binary_status status;
        struct span text;
    } errors[REPLY_STATUS_COUNT] = {
        [REPLY_MISS] = {BINARY_NOT_FOUND, SPAN_LIT("Not found")},
        [REPLY_NOT_FOUND] = {BINARY_NOT_FOUND, SPAN_LIT("Not found")},
        [REPLY_EXISTS] = {BINARY_EXISTS, SPAN_LIT("Data exists for key.")},
        [REPLY_NOT_STORED] = {BINARY_NOT_STORED, SPAN_LIT("Not stored.")},
        [REPLY_AUTH_FAILED] = {BINARY_AUTH_ERROR, SPAN_LIT("Auth failure.")},
        [REPLY_UNAUTHENTICATED] = {BINARY_AUTH_ERROR, SPAN_LIT("Auth failure.")},
        [REPLY_UNKNOWN] = {BINARY_UNKNOWN_COMMAND, SPAN_LIT("Unknown command")},
        [REPLY_TOO_LARGE] = {BINARY_TOO_LARGE, SPAN_LIT("Too large.")},
        [REPLY_NO_MEMORY] = {BINARY_NO_MEMORY, SPAN_LIT("Out of memory allocating item")},
        [REPLY_NON_NUMERIC] = {BINARY_NON_NUMERIC, SPAN_LIT("Non-numeric server-side value for incr or decr")},
    };
    if (status == REPLY_NOT_STORED && request->op == OP_ADD) {
        status = REPLY_EXISTS;
    } else if (status == REPLY_NOT_STORED && request->op == OP_REPLACE) {
        status = REPLY_NOT_FOUND;
    }
    if (errors[status].text.len == 0) { /* nothing that a binary request is answered with */
        return render_text(request, BINARY_INVALID, SPAN_LIT("Invalid arguments"), out);
    }
    return render_text(request, errors[status].status, errors[status].text, out);
}

/* Whether a quiet request leaves this answer out. */
static bool is_usual(const struct request *request, enum reply_status status)
{
    if (request->op == OP_GET || request->op == OP_GAT) {
        return status == REPLY_MISS;
    }
    return status == REPLY_STORED || status == REPLY_DELETED || status == REPLY_NUMBER || status == REPLY_OK;
}

enum err binary_render(const struct request *request, const struct reply *reply, struct chain *out)
{
    if (likely(reply->status == REPLY_VALUE)) {
        return render_value(request, reply, out);
    }
    if (reply->status == REPLY_NONE || (request->is_quiet && is_usual(request, reply->status))) {
        return OK;
    }
    switch (reply->status) {
    case REPLY_MISS:
        return returns_key(request) ? render_packet(request, BINARY_NOT_FOUND, request->key, no_text, 0, out)
                                    : render_error(request, reply->status, out);
    case REPLY_STORED: return render_packet(request, BINARY_SUCCESS, no_text, no_text, reply->cas, out);
    case REPLY_TOUCHED: return render_touched(request, reply, out);
    case REPLY_NUMBER: return render_number(request, reply, out);
    case REPLY_DELETED:
    case REPLY_OK:
    case REPLY_NOOP: return render_text(request, BINARY_SUCCESS, no_text, out);
    case REPLY_VERSION:
    case REPLY_AUTH: return render_text(request, BINARY_SUCCESS, reply->text, out);
    case REPLY_STATS: return render_stats(request, reply->text, out);
    case REPLY_ERROR: return render_error_line(request, reply->text, out);
    default: return render_error(request, reply->status, out);
    }
}
