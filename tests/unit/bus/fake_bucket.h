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
    char subject[SUBJECT_MAX];
    uint64_t seq;
    char data[64];
};

struct bucket {
    const char *name; /* NULL: ROLES_west */
    uint32_t created; /* how often it was */
    bool is_there;
    uint32_t making; /* how many answers it still takes to be usable: what is asked of it before then would have ended the server */
    bool is_full; /* takes nothing any more */
    uint64_t seq;
    struct bucket_entry entries[BUCKET_ENTRIES];
};

static inline const char *bucket_name(const struct bucket *b)
{
    return b->name != NULL ? b->name : "ROLES_west";
}

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

static inline void bucket_write(struct bucket *b, const char *subject, const struct sent *s, char *out, size_t size)
{
    struct bucket_entry *entry = bucket_entry(b, subject);
    if (b->is_full) {
        snprintf(out, size, "{\"error\":{\"code\":500,\"err_code\":10077,\"description\":\"maximum bytes exceeded\"}}");
    } else if (s->expected >= 0 && (uint64_t)s->expected != entry->seq) {
        snprintf(out, size, "{\"error\":{\"code\":400,\"err_code\":10071,\"description\":\"wrong last sequence: %" PRIu64 "\"}}", entry->seq);
    } else {
        entry->seq = ++b->seq;
        snprintf(entry->data, sizeof entry->data, "%s", s->data);
        snprintf(out, size, "{\"stream\":\"KV_%s\",\"seq\":%" PRIu64 "}", bucket_name(b), entry->seq);
    }
}

/* It loses all it had. */
static inline void bucket_lose(struct bucket *b)
{
    *b = (struct bucket){.name = b->name, .created = b->created};
}

static inline void bucket_info(struct bucket *b, char *out, size_t size)
{
    char created[48] = "0001-01-01T00:00:00Z";
    if (b->making == 0) {
        snprintf(created, sizeof created, "2026-11-24T00:00:%02uZ", b->created);
    } else {
        b->making--;
    }
    snprintf(out, size, "{\"created\":\"%s\",\"config\":{},\"state\":{\"first_seq\":1,\"last_seq\":%" PRIu64 "}}", created, b->seq);
}

/* What the server says to that. */
static inline struct incoming bucket_answer(struct bucket *b, const struct sent *s, char *text, size_t size)
{
    const char *api = strstr(s->subject, "API."); /* perhaps with a domain in front */
    const char *verb = api != NULL && s->subject[1] == 'J' ? api + 4 : s->subject;
    bool is_entry = strncmp(verb, "$KV.", 4) == 0;
    size_t len = strlen(bucket_name(b));
    if (strncmp(verb, "STREAM.CREATE.KV_", 17) == 0) {
        ck_assert_str_eq(verb + 17, bucket_name(b));
        b->created += !b->is_there;
        b->is_there = true;
        bucket_info(b, text, size);
    } else if (!b->is_there && !is_entry) {
        snprintf(text, size, "{\"error\":{\"code\":404,\"err_code\":10059,\"description\":\"stream not found\"}}");
    } else if (!b->is_there) {
        return fake_status(STATUS_NO_RESPONDERS, "");
    } else if (strncmp(verb, "STREAM.INFO.KV_", 15) == 0) {
        ck_assert_str_eq(verb + 15, bucket_name(b));
        bucket_info(b, text, size);
    } else if (strncmp(verb, "STREAM.MSG.GET.", 15) == 0) {
        ck_assert_uint_eq(b->making, 0);
        bucket_look(b, s, text, size);
    } else if (b->making > 0) {
        return fake_status(STATUS_NO_RESPONDERS, "");
    } else {
        ck_assert(is_entry && strncmp(verb + 4, bucket_name(b), len) == 0 && verb[4 + len] == '.');
        bucket_write(b, verb, s, text, size);
    }
    return fake_answer(text);
}

#endif
