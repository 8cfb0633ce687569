/* What:    any bytes as a message of the bus. What is accepted must keep to its limits and survive a round trip unchanged. */
#include "proxy/bus/invalidation.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) {
        abort();
    }
}

static void round_trip(const struct invalidation *events, uint32_t count)
{
    const struct invalidation *pointers[INVALIDATION_EVENTS_MAX];
    for (uint32_t i = 0; i < count; i++) {
        check(invalidation_is_valid(&events[i]));
        pointers[i] = &events[i];
    }
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
    for (uint32_t i = 0; i < count; i++) {
        check(again[i].version == events[i].version && again[i].timestamp_ms == events[i].timestamp_ms);
        check(span_eq(span_of(again[i].key, again[i].key_len), span_of(events[i].key, events[i].key_len)));
    }
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
    return 0;
}
