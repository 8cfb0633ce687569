#include "proxy/protocol/base64.h"

#define NO_DIGIT 64

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

char *base64_put(char *at, struct span bytes)
{
    const unsigned char *p = (const unsigned char *)bytes.data;
    size_t left = bytes.len;
    for (; left >= 3; left -= 3, p += 3) {
        uint32_t bits = (uint32_t)p[0] << 16 | (uint32_t)p[1] << 8 | p[2];
        *at++ = digits[bits >> 18];
        *at++ = digits[bits >> 12 & 63];
        *at++ = digits[bits >> 6 & 63];
        *at++ = digits[bits & 63];
    }
    if (left > 0) {
        uint32_t bits = (uint32_t)p[0] << 16 | (left == 2 ? (uint32_t)p[1] << 8 : 0);
        *at++ = digits[bits >> 18];
        *at++ = digits[bits >> 12 & 63];
        *at++ = left == 2 ? digits[bits >> 6 & 63] : '=';
        *at++ = '=';
    }
    return at;
}

static uint32_t digit_value(char c)
{
    if (c >= 'A' && c <= 'Z') {
        return (uint32_t)(c - 'A');
    }
    if (c >= 'a' && c <= 'z') {
        return (uint32_t)(c - 'a') + 26;
    }
    if (c >= '0' && c <= '9') {
        return (uint32_t)(c - '0') + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : c == '=' ? 0 : NO_DIGIT;
}

size_t base64_decode(struct span text, char *out)
{
    size_t count = 0;
    for (size_t i = 0; i < text.len; i++) {
        count += digit_value(text.data[i]) != NO_DIGIT;
    }
    if (count % 4 != 0) {
        return 0;
    }
    char *at = out;
    uint32_t bits = 0;
    count = 0;
    size_t padding = 0;
    for (size_t i = 0; i < text.len && padding == 0; i++) {
        uint32_t value = digit_value(text.data[i]);
        if (value == NO_DIGIT) {
            continue;
        }
        bits = bits << 6 | value;
        if (++count % 4 != 0) {
            continue;
        }
        *at++ = (char)(bits >> 16);
        *at++ = (char)(bits >> 8);
        *at++ = (char)bits;
        bits = 0;
        for (size_t j = 0, seen = 0; seen < 4; j++) { /* of these four digits */
            seen += digit_value(text.data[i - j]) != NO_DIGIT;
            padding += text.data[i - j] == '=';
        }
    }
    return padding > 2 ? 0 : (size_t)(at - out) - padding;
}
