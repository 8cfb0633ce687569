#include "proxy/bus/spool_record.h"

#include <endian.h>
#include <xxhash.h>

#include "common/version.h"

static const char magic[8] = {'O', 'U', 'T', 'R', 'S', 'P', 'L', '1'};

#define CHECKED_FROM 8 /* the checksum itself is not */
#define KEY_AT 56
#define PATTERN_FLAG 0x80U
#define ID_MAX (UINT64_MAX >> 1)

static void put64(char *at, uint64_t value)
{
    uint64_t little = htole64(value);
    memcpy(at, &little, sizeof little);
}

static void put16(char *at, uint16_t value)
{
    uint16_t little = htole16(value);
    memcpy(at, &little, sizeof little);
}

static uint64_t get64(const char *at)
{
    uint64_t little;
    memcpy(&little, at, sizeof little);
    return le64toh(little);
}

static uint16_t get16(const char *at)
{
    uint16_t little;
    memcpy(&little, at, sizeof little);
    return le16toh(little);
}

void spool_header_write(uint64_t number, char out[static SPOOL_HEADER_LEN])
{
    memcpy(out, magic, sizeof magic);
    put64(out + 8, number);
    put64(out + 16, XXH64(out, 16, 0));
}

bool spool_header_check(uint64_t number, struct span segment)
{
    char wanted[SPOOL_HEADER_LEN];
    spool_header_write(number, wanted);
    return segment.len >= SPOOL_HEADER_LEN && memcmp(segment.data, wanted, SPOOL_HEADER_LEN) == 0;
}

void spool_record_mend(uint64_t number, char *bytes, size_t len)
{
    put64(bytes, XXH64(bytes + CHECKED_FROM, len - CHECKED_FROM, number));
}

size_t spool_record_len(const struct spool_record *r)
{
    return r->kind == SPOOL_CLEARED ? SPOOL_CLEARED_LEN : KEY_AT + r->key.len;
}

size_t spool_record_write(uint64_t number, const struct spool_record *r, char out[static SPOOL_RECORD_MAX])
{
    size_t len = spool_record_len(r);
    bool is_cleared = r->kind == SPOOL_CLEARED;
    put16(out + 8, (uint16_t)len);
    out[10] = (char)r->kind;
    out[11] = (char)(uint8_t)(r->debts | (r->is_pattern ? PATTERN_FLAG : 0));
    put16(out + 12, is_cleared ? 0 : (uint16_t)r->key.len);
    put16(out + 14, is_cleared ? 0 : r->count);
    put64(out + 16, r->id);
    if (!is_cleared) {
        put64(out + 24, r->version);
        put64(out + 32, r->timestamp_ms);
        put64(out + 40, r->sender);
        put64(out + 48, r->message);
        memcpy(out + KEY_AT, r->key.data, r->key.len);
    }
    spool_record_mend(number, out, len);
    return len;
}

static bool is_zero(struct span bytes)
{
    for (size_t i = 0; i < bytes.len; i++) {
        if (bytes.data[i] != '\0') {
            return false;
        }
    }
    return true;
}

/* What passes the checksum was written by us, or by somebody who knows how: it must still keep to the limits. */
static bool is_valid(const struct spool_record *r, size_t len)
{
    if (r->id == 0 || r->id > ID_MAX || (r->debts & ~DEBTS) != 0) {
        return false;
    }
    if (r->kind == SPOOL_CLEARED) {
        return len == SPOOL_CLEARED_LEN && r->debts != 0 && !r->is_pattern;
    }
    return ((r->kind == SPOOL_RESERVED && !r->is_pattern) || (r->kind == SPOOL_OWED && r->debts != 0)) && r->key.len >= 1 && r->key.len <= KEY_MAX &&
           len == KEY_AT + r->key.len && r->version >= 1 && r->version <= VERSION_MAX && r->timestamp_ms >= 1 &&
           r->timestamp_ms <= version_ms(VERSION_MAX);
}

enum spool_parse spool_record_parse(uint64_t number, struct span bytes, struct spool_record *r, size_t *used)
{
    *r = (struct spool_record){0};
    *used = 0;
    if (bytes.len == 0) {
        return SPOOL_END;
    }
    if (bytes.len < SPOOL_CLEARED_LEN || is_zero(span_of(bytes.data, SPOOL_CLEARED_LEN))) {
        return bytes.len < SPOOL_CLEARED_LEN || is_zero(bytes) ? SPOOL_TORN : SPOOL_BAD;
    }
    size_t len = get16(bytes.data + 8);
    if (len < SPOOL_CLEARED_LEN || len > SPOOL_RECORD_MAX) {
        return SPOOL_BAD;
    }
    if (len > bytes.len) {
        return SPOOL_TORN;
    }
    if (get64(bytes.data) != XXH64(bytes.data + CHECKED_FROM, len - CHECKED_FROM, number)) {
        return SPOOL_BAD;
    }
    r->kind = (enum spool_kind)(uint8_t)bytes.data[10];
    r->debts = (uint8_t)bytes.data[11] & (uint8_t)~PATTERN_FLAG;
    r->is_pattern = ((uint8_t)bytes.data[11] & PATTERN_FLAG) != 0;
    r->id = get64(bytes.data + 16);
    if (r->kind == SPOOL_CLEARED && !is_zero(span_of(bytes.data + 12, 4))) {
        return SPOOL_BAD; /* there is one way to write a record */
    }
    if (r->kind != SPOOL_CLEARED && len >= KEY_AT) {
        r->count = get16(bytes.data + 14);
        r->version = get64(bytes.data + 24);
        r->timestamp_ms = get64(bytes.data + 32);
        r->sender = get64(bytes.data + 40);
        r->message = get64(bytes.data + 48);
        r->key = span_of(bytes.data + KEY_AT, get16(bytes.data + 12));
    }
    if (!is_valid(r, len)) {
        return SPOOL_BAD;
    }
    *used = len;
    return SPOOL_RECORD;
}
