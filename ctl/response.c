#include "ctl/response.h"

#include <strings.h>

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* "HTTP/1.1 200 OK\r\n" */
static bool parse_status(struct span line, unsigned *status)
{
    const char *p = line.data;
    if (line.len < sizeof "HTTP/1.x 200" - 1 || memcmp(p, "HTTP/1.", 7) != 0 || !is_digit(p[7]) || p[8] != ' ') {
        return false;
    }
    if (!is_digit(p[9]) || !is_digit(p[10]) || !is_digit(p[11]) || (line.len > 12 && p[12] != ' ' && p[12] != '\r')) {
        return false;
    }
    *status = (unsigned)(p[9] - '0') * 100 + (unsigned)(p[10] - '0') * 10 + (unsigned)(p[11] - '0');
    return *status >= 100;
}

/* The next line of `rest`, without its end. */
static bool next_line(struct span *rest, struct span *line)
{
    const char *end = rest->len > 0 ? memchr(rest->data, '\n', rest->len) : NULL;
    if (end == NULL) {
        return false;
    }
    size_t len = (size_t)(end - rest->data);
    *line = span_of(rest->data, len > 0 && rest->data[len - 1] == '\r' ? len - 1 : len);
    *rest = span_of(end + 1, rest->len - len - 1);
    return true;
}

bool response_header(const struct response *response, const char *name, struct span *out)
{
    size_t name_len = strlen(name);
    struct span rest = response->headers;
    struct span line;
    while (next_line(&rest, &line)) {
        if (line.len <= name_len || line.data[name_len] != ':' || strncasecmp(line.data, name, name_len) != 0) {
            continue;
        }
        const char *from = line.data + name_len + 1;
        const char *to = line.data + line.len;
        while (from < to && (*from == ' ' || *from == '\t')) {
            from++;
        }
        while (to > from && (to[-1] == ' ' || to[-1] == '\t')) {
            to--;
        }
        *out = span_of(from, (size_t)(to - from));
        return true;
    }
    return false;
}

/* True, and *len UINT64_MAX, when there is no Content-Length. */
static bool parse_length(const struct response *response, uint64_t *len)
{
    struct span text;
    *len = UINT64_MAX;
    if (!response_header(response, "Content-Length", &text)) {
        return true;
    }
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++) {
        if (!is_digit(text.data[i]) || value > RESPONSE_BODY_MAX) {
            return false;
        }
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *len = value;
    return text.len > 0 && value <= RESPONSE_BODY_MAX;
}

enum response_state response_parse(struct span data, bool is_end, struct response *out)
{
    struct span rest = data;
    struct span line;
    struct span encoding;
    enum response_state unfinished = is_end ? RESPONSE_BAD : RESPONSE_MORE;
    *out = (struct response){.status = 0};
    if (!next_line(&rest, &line)) {
        return data.len > RESPONSE_HEAD_MAX ? RESPONSE_BAD : unfinished;
    }
    if (!parse_status(line, &out->status)) {
        return RESPONSE_BAD;
    }
    const char *headers = rest.data;
    do {
        if (!next_line(&rest, &line)) {
            return data.len > RESPONSE_HEAD_MAX ? RESPONSE_BAD : unfinished;
        }
    } while (line.len > 0);
    out->headers = span_of(headers, (size_t)(line.data - headers));
    uint64_t len;
    if (out->headers.len > RESPONSE_HEAD_MAX || response_header(out, "Transfer-Encoding", &encoding) || !parse_length(out, &len)) {
        return RESPONSE_BAD;
    }
    if (len == UINT64_MAX) {
        out->body = rest;
        return rest.len > RESPONSE_BODY_MAX ? RESPONSE_BAD : is_end ? RESPONSE_WHOLE : RESPONSE_MORE;
    }
    if (rest.len < len) {
        return unfinished;
    }
    out->body = span_of(rest.data, len);
    return RESPONSE_WHOLE;
}
