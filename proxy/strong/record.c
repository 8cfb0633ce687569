#include "proxy/strong/record.h"

#include <assert.h>
#include <inttypes.h>

#define FORMAT 1
#define FIELDS 5

size_t record_write(const struct lease_record *record, char out[static RECORD_MAX])
{
    assert(record->number <= RECORD_NUMBER_MAX);
    return (size_t)snprintf(out, RECORD_MAX, "%d %" PRIu64 " %d %016" PRIx64 " %016" PRIx64, FORMAT, record->number, record->is_ready ? 1 : 0, record->ring,
                            record->holder);
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
}

/* The digits up to a space or the end: *text moves behind that. */
static bool take(struct span *text, unsigned base, uint64_t *out)
{
    uint64_t value = 0;
    size_t n = 0;
    for (; n < text->len && text->data[n] != ' '; n++) {
        unsigned d = (unsigned)digit(text->data[n]);
        if (d >= base || value > (UINT64_MAX - d) / base) {
            return false;
        }
        value = value * base + d;
    }
    size_t used = MIN(n + 1, text->len);
    *out = value;
    *text = span_of(text->data + used, text->len - used);
    return n > 0;
}

enum err record_read(struct span text, struct lease_record *out)
{
    uint64_t values[FIELDS];
    static const unsigned bases[FIELDS] = {10, 10, 10, 16, 16};
    if (text.len >= RECORD_MAX) {
        return ERR_PROTOCOL;
    }
    struct span whole = text;
    for (int i = 0; i < FIELDS; i++) {
        if (!take(&text, bases[i], &values[i])) {
            return ERR_PROTOCOL;
        }
        if (i == 0 && values[0] != FORMAT) {
            return ERR_UNSUPPORTED;
        }
    }
    struct lease_record record = {.number = values[1], .is_ready = values[2] == 1, .ring = values[3], .holder = values[4]};
    char again[RECORD_MAX];
    if (values[2] > 1 || record.number == 0 || record.number > RECORD_NUMBER_MAX || !span_eq(whole, span_of(again, record_write(&record, again)))) {
        return ERR_PROTOCOL; /* exactly as we write it, or it was somebody else */
    }
    *out = record;
    return OK;
}
