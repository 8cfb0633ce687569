#include "proxy/front/auth.h"

#include <strings.h>

#include "proxy/protocol/token.h"

#define LINE_TOKENS 8   /* "set", key, flags, exptime, length; what follows does not matter */
#define LENGTH_TOKEN 4
#define BINARY_MAGIC 0x80

static const struct span unauthenticated = SPAN_LIT("CLIENT_ERROR unauthenticated");
static const struct span bad_end = SPAN_LIT("CLIENT_ERROR bad command line termination");
static const struct span bad_format = SPAN_LIT("CLIENT_ERROR bad authentication token format");

/* One line of a client of the text protocol. */
static enum parse_result parse_text(const char *data, size_t len, size_t *consumed, struct request *out, struct span *error)
{
    const char *newline = memchr(data, '\n', len);
    *out = (struct request){.command = COMMAND_COUNT, .op = OP_NONE, .protocol = PROTOCOL_CLASSIC, .is_first = true, .is_last = true};
    *consumed = 0;
    *error = (struct span){NULL, 0};
    if (newline == NULL) {
        return len > CLASSIC_LINE_WAIT ? PARSE_CLOSE : PARSE_MORE;
    }
    struct span tokens[LINE_TOKENS];
    uint64_t value_len = 0;
    size_t line_len = (size_t)(newline - data);
    *consumed = line_len + 1;
    line_len -= line_len > 0 && data[line_len - 1] == '\r' ? 1 : 0;
    size_t count = token_split(span_of(data, line_len), tokens, LINE_TOKENS);
    if (count <= LENGTH_TOKEN || !token_is(tokens[0], SPAN_LIT("set")) || !token_u64(tokens[LENGTH_TOKEN], &value_len) ||
        value_len > UINT32_MAX) {
        *error = unauthenticated;
        return PARSE_ERROR;
    }
    out->command = COMMAND_SASL;
    out->op = OP_AUTH;
    out->has_value = true;
    out->value_len = (size_t)value_len;
    out->value_tail = sizeof CLASSIC_VALUE_END - 1;
    return PARSE_REQUEST;
}

enum parse_result auth_parse(struct codec *codec, const char *data, size_t len, size_t *consumed, struct request *out, struct span *error)
{
    if (len == 0) {
        *consumed = 0;
        return PARSE_MORE;
    }
    if (codec->is_binary || (!codec->is_decided && (unsigned char)data[0] == BINARY_MAGIC)) {
        enum parse_result result = codec_parse(codec, data, len, consumed, out, error);
        if (result == PARSE_ERROR || (result == PARSE_CLOSE && error->len > 0)) { /* not even what is wrong with a request is told: it is one that is not allowed */
            out->command = COMMAND_SASL;
            return PARSE_REQUEST;
        }
        return result;
    }
    codec->is_decided = true;
    return parse_text(data, len, consumed, out, error);
}

static struct auth_answer verdict(bool is_right, struct span text, enum reply_status granted)
{
    if (is_right) {
        return (struct auth_answer){AUTH_GRANTED, granted, text};
    }
    return (struct auth_answer){AUTH_DENIED, REPLY_AUTH_FAILED, {NULL, 0}};
}

/* "user password" */
static struct auth_answer check_text(struct credentials *credentials, const struct request *request, struct span value)
{
    if (memcmp(value.data + request->value_len, CLASSIC_VALUE_END, request->value_tail) != 0) {
        return (struct auth_answer){AUTH_MALFORMED, REPLY_ERROR, bad_end};
    }
    struct span tokens[4];
    if (token_split(span_of(value.data, request->value_len), tokens, ARRAY_LEN(tokens)) < 2) {
        return (struct auth_answer){AUTH_MALFORMED, REPLY_ERROR, bad_format};
    }
    return verdict(credentials_match(credentials, tokens[0], tokens[1]), (struct span){NULL, 0}, REPLY_STORED);
}

/* SASL PLAIN (RFC 4616): [authzid] NUL user NUL password. Nobody may act as somebody else. */
static struct auth_answer check_plain(struct credentials *credentials, const struct request *request, struct span value)
{
    static const struct span plain = SPAN_LIT("PLAIN");
    const char *end = value.data + request->value_len;
    const char *first = memchr(value.data, '\0', request->value_len);
    const char *second = first == NULL ? NULL : memchr(first + 1, '\0', (size_t)(end - first - 1));
    if (request->key.len != plain.len || strncasecmp(request->key.data, plain.data, plain.len) != 0 || second == NULL) {
        return (struct auth_answer){AUTH_MALFORMED, REPLY_AUTH_FAILED, {NULL, 0}};
    }
    struct span actor = span_of(value.data, (size_t)(first - value.data));
    struct span user = span_of(first + 1, (size_t)(second - first - 1));
    bool is_right = credentials_match(credentials, user, span_of(second + 1, (size_t)(end - second - 1)));
    return verdict(is_right && (actor.len == 0 || span_eq(actor, user)), SPAN_LIT("Authenticated"), REPLY_AUTH);
}

struct auth_answer auth_check(struct auth *auth, struct credentials *credentials, const struct request *request, struct span value)
{
    struct auth_answer answer;
    if (value.data == NULL) {
        answer = (struct auth_answer){AUTH_MALFORMED, REPLY_AUTH_FAILED, {NULL, 0}};
    } else if (request->protocol == PROTOCOL_BINARY) {
        answer = check_plain(credentials, request, value);
    } else {
        answer = check_text(credentials, request, value);
    }
    auth->is_needed = answer.result != AUTH_GRANTED; /* one who was authenticated, tries again and fails is not any more, as with memcached */
    auth->failures = (uint8_t)(auth->is_needed ? auth->failures + 1 : 0);
    return answer;
}
