#include "common/uri.h"

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    char small = (char)(c | 0x20);
    return small >= 'a' && small <= 'f' ? small - 'a' + 10 : -1;
}

enum err uri_decode(struct span raw, bool is_query, char *out, size_t *len)
{
    size_t n = 0;
    for (size_t i = 0; i < raw.len; i++) {
        char c = raw.data[i];
        if (c == '%') {
            int high = i + 2 < raw.len ? hex_digit(raw.data[i + 1]) : -1;
            int low = i + 2 < raw.len ? hex_digit(raw.data[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return ERR_INVALID;
            }
            c = (char)(high << 4 | low);
            i += 2;
        } else if (c == '+' && is_query) {
            c = ' ';
        }
        out[n++] = c;
    }
    *len = n;
    return OK;
}

bool uri_parameter(struct span query, const char *name, struct span *raw)
{
    size_t name_len = strlen(name);
    const char *end = query.data + query.len;
    for (const char *at = query.data; at < end;) {
        const char *next = memchr(at, '&', (size_t)(end - at));
        struct span pair = span_of(at, (size_t)((next != NULL ? next : end) - at));
        at += pair.len + 1;
        if (!span_has_prefix(pair, span_of(name, name_len)) || (pair.len > name_len && pair.data[name_len] != '=')) {
            continue;
        }
        size_t skip = MIN(name_len + 1, pair.len);
        *raw = span_of(pair.data + skip, pair.len - skip);
        return true;
    }
    return false;
}

size_t uri_encode(struct span bytes, char *out)
{
    static const char digits[] = "0123456789ABCDEF";
    size_t n = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        unsigned char c = (unsigned char)bytes.data[i];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' || c == '.' || c == '~';
        if (is_plain) {
            out[n++] = (char)c;
        } else {
            out[n++] = '%';
            out[n++] = digits[c >> 4];
            out[n++] = digits[c & 15];
        }
    }
    return n;
}
