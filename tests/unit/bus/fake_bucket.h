/* What:    a bucket as JetStream keeps it, for machines on scripted transports: entries by compare-and-set, and the answers to what was sent.
 * Owns:    nothing to be freed.
 */
#ifndef TESTS_UNIT_BUS_FAKE_BUCKET_H
#define TESTS_UNIT_BUS_FAKE_BUCKET_H

#include <inttypes.h>

#include "proxy/protocol/base64.h"
#include "tests/unit/bus/fake_transport.h"

#define BUCKET_ENTRIES 16

struct bucket_entry {
    char subject[64];
    uint64_t seq;
    char data[64];
};

struct bucket {
    bool is_there;
    bool is_full; /* takes nothing any more */
    uint64_t seq;
    struct bucket_entry entries[BUCKET_ENTRIES];
};

static inline struct bucket_entry *bucket_entry(struct bucket *b, const char *subject)
{
    for (uint32_t i = 0;; i++) {
        ck_assert_uint_lt(i, BUCKET_ENTRIES);
        if (b->entries[i].subject[0] == '\0') {
            snprintf(b->entries[i].subject, sizeof b->entries[i].subject, "%s", subject);
        }
        if (strcmp(b->entries[i].subject, subject) == 0) {
            return &b->entries[i];
        }
    }
}

static inline void bucket_look(struct bucket *b, const struct sent *s, char *out, size_t size)
{
    char subject[64];
    ck_assert_int_eq(sscanf(s->data, "{\"last_by_subj\":\"%63[^\"]\"}", subject), 1);
    const struct bucket_entry *entry = bucket_entry(b, subject);
    if (entry->seq == 0) {
        snprintf(out, size, "{\"error\":{\"code\":404,\"err_code\":10037,\"description\":\"no message found\"}}");
        return;
    }
    char data[96];
    *base64_put(data, span_str(entry->data)) = '\0';
    snprintf(out, size, "{\"message\":{\"subject\":\"%s\",\"seq\":%" PRIu64 "%s%s%s}}", subject, entry->seq,
             data[0] != '\0' ? ",\"data\":\"" : "", data, data[0] != '\0' ? "\"" : "");
}

static inline void bucket_write(struct bucket *b, const struct sent *s, char *out, size_t size)
{
    struct bucket_entry *entry = bucket_entry(b, s->subject);
    if (b->is_full) {
        snprintf(out, size, "{\"error\":{\"code\":500,\"err_code\":10077,\"description\":\"maximum bytes exceeded\"}}");
    } else if (s->expected >= 0 && (uint64_t)s->expected != entry->seq) {
        snprintf(out, size, "{\"error\":{\"code\":400,\"err_code\":10071,\"description\":\"wrong last sequence: %" PRIu64 "\"}}", entry->seq);
    } else {
        entry->seq = ++b->seq;
        snprintf(entry->data, sizeof entry->data, "%s", s->data);
        snprintf(out, size, "{\"stream\":\"KV_ROLES_west\",\"seq\":%" PRIu64 "}", entry->seq);
    }
}

/* What the server says to that. */
static inline struct incoming bucket_answer(struct bucket *b, const struct sent *s, char *text, size_t size)
{
    if (strncmp(s->subject, "$JS.API.STREAM.CREATE.KV_ROLES_west", 35) == 0) {
        b->is_there = true;
        snprintf(text, size, "{\"config\":{}}");
    } else if (!b->is_there && s->subject[1] == 'J') {
        snprintf(text, size, "{\"error\":{\"code\":404,\"err_code\":10059,\"description\":\"stream not found\"}}");
    } else if (!b->is_there) {
        return fake_status(STATUS_NO_RESPONDERS, "");
    } else if (strncmp(s->subject, "$JS.API.STREAM.MSG.GET.", 23) == 0) {
        bucket_look(b, s, text, size);
    } else {
        ck_assert_int_eq(strncmp(s->subject, "$KV.ROLES_west.", 15), 0);
        bucket_write(b, s, text, size);
    }
    return fake_answer(text);
}

#endif
