#include "proxy/strong/message.h"

#include <assert.h>

#define FORMAT 1
#define NUMBERS 9

static char *put_u64(char *p, uint64_t value)
{
    for (int shift = 56; shift >= 0; shift -= 8) {
        *p++ = (char)(value >> shift);
    }
    return p;
}

static uint64_t get_u64(const char *p)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) {
        value = value << 8 | (unsigned char)p[i];
    }
    return value;
}

size_t message_write(const struct message *m, char out[static MESSAGE_MAX])
{
    const uint64_t numbers[NUMBERS] = {m->sidecar, m->voters, m->wall_ms, m->ring, m->number, m->digest, m->version, m->left_us, 0};
    assert(m->inbox.len < MESSAGE_INBOX_MAX && m->body.len <= MESSAGE_BODY_MAX);
    char *p = out;
    *p++ = 'S';
    *p++ = FORMAT;
    *p++ = (char)m->kind;
    *p++ = (char)m->status;
    *p++ = (char)m->mode;
    *p++ = 0;
    *p++ = (char)(m->body.len >> 8);
    *p++ = (char)m->body.len;
    for (int i = 0; i < NUMBERS; i++) {
        p = put_u64(p, numbers[i]);
    }
    if (m->inbox.len > 0) {
        memcpy(p, m->inbox.data, m->inbox.len);
        p += m->inbox.len;
    }
    *p++ = '\0';
    if (m->body.len > 0) {
        memcpy(p, m->body.data, m->body.len);
        p += m->body.len;
    }
    return (size_t)(p - out);
}

enum err message_read(struct span bytes, struct message *out)
{
    const char *p = bytes.data;
    if (bytes.len < MESSAGE_HEAD + 1 || p[0] != 'S') {
        return ERR_PROTOCOL;
    }
    if (p[1] != FORMAT) {
        return ERR_UNSUPPORTED;
    }
    uint8_t kind = (uint8_t)p[2], status = (uint8_t)p[3];
    size_t body_len = (size_t)(unsigned char)p[6] << 8 | (unsigned char)p[7];
    const char *inbox = p + MESSAGE_HEAD;
    size_t rest = bytes.len - MESSAGE_HEAD;
    const char *inbox_end = memchr(inbox, '\0', MIN(rest, (size_t)MESSAGE_INBOX_MAX));
    if (kind == 0 || kind >= MESSAGE_KINDS || status >= MESSAGE_STATUSES || p[5] != 0 || body_len > MESSAGE_BODY_MAX || inbox_end == NULL ||
        rest != (size_t)(inbox_end - inbox) + 1 + body_len || get_u64(p + MESSAGE_HEAD - 8) != 0) {
        return ERR_PROTOCOL;
    }
    *out = (struct message){
        .kind = (enum message_kind)kind,
        .status = (enum message_status)status,
        .mode = (uint8_t)p[4],
        .sidecar = get_u64(p + 8),
        .voters = get_u64(p + 16),
        .wall_ms = get_u64(p + 24),
        .ring = get_u64(p + 32),
        .number = get_u64(p + 40),
        .digest = get_u64(p + 48),
        .version = get_u64(p + 56),
        .left_us = get_u64(p + 64),
        .inbox = span_of(inbox, (size_t)(inbox_end - inbox)),
        .body = span_of(inbox_end + 1, body_len),
    };
    return OK;
}
