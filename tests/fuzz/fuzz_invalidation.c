/* What:    any bytes as a message of the bus. What is accepted must keep to its limits and survive a round trip unchanged; what the short
 *          way reads or writes must be what jansson makes of it. */
#include "proxy/bus/invalidation_plain.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void check_same(const struct invalidation *a, const struct invalidation *b, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        check(a[i].version == b[i].version && a[i].timestamp_ms == b[i].timestamp_ms && a[i].is_pattern == b[i].is_pattern);
        check(span_eq(span_of(a[i].key, a[i].key_len), span_of(b[i].key, b[i].key_len)));
    }
}

static void compare_written(const struct invalidation *const *events, uint32_t count)
{
    char *plain = NULL;
    size_t plain_len = 0;
    if (!invalidation_plain_encode("east", events, count, &plain, &plain_len)) {
        return;
    }
    char *json = NULL;
    size_t json_len = 0;
    check(invalidation_encode_json("east", events, count, &json, &json_len) == OK);
    check(span_eq(span_of(plain, plain_len), span_of(json, json_len)));
    free(json);
    free(plain);
}

static void compare_read(struct span message)
{
    struct invalidation *plain = NULL;
    struct invalidation *json = NULL;
    uint32_t plain_count = 0;
    uint32_t json_count = 0;
    char error[128] = "";
    if (!invalidation_plain_decode("east", message, &plain, &plain_count)) {
        check(plain == NULL && plain_count == 0);
        return;
    }
    check(invalidation_decode_json("east", message, &json, &json_count, error, sizeof error) == OK);
    check(plain_count == json_count);
    check_same(plain, json, json_count);
    free(json);
    free(plain);
}

static void round_trip(const struct invalidation *events, uint32_t count)
{
    const struct invalidation *pointers[INVALIDATION_EVENTS_MAX];
    for (uint32_t i = 0; i < count; i++) {
        check(invalidation_is_valid(&events[i]));
        pointers[i] = &events[i];
    }
    compare_written(pointers, count);
    char *text = NULL;
    size_t len = 0;
    enum err err = invalidation_encode("east", pointers, count, &text, &len);
    if (err == ERR_TOO_LARGE) { /* possible for many long keys that were not UTF-8 escaped the way we do */
        return;
    }
    check(err == OK);
    struct invalidation *again = NULL;
    uint32_t again_count = 0;
    char error[128] = "";
    check(invalidation_decode("east", span_of(text, len), &again, &again_count, error, sizeof error) == OK);
    check(again_count == count);
    check_same(again, events, count);
    free(again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct invalidation *events = NULL;
    uint32_t count = 0;
    char error[128] = "";
    enum err err = invalidation_decode("east", span_of((const char *)data, size), &events, &count, error, sizeof error);
    check((err == OK) == (events != NULL) && (err == OK) == (count > 0) && (err == OK) == (error[0] == '\0'));
    check(err == OK || err == ERR_INVALID || err == ERR_UNSUPPORTED);
    if (err == OK) {
        check(count <= INVALIDATION_EVENTS_MAX);
        round_trip(events, count);
    }
    free(events);
    compare_read(span_of((const char *)data, size));
    return 0;
}
