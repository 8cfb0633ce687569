#include "proxy/bus/settings.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base.h"
#include "proxy/bus/invalidation.h"

static bool is_text(const json_t *config, const char *key, const char *text)
{
    const char *value = json_string_value(json_object_get(config, key));
    return value == NULL || strcmp(value, text) == 0;
}

static bool says(char text[static SETTINGS_TEXT], const char *key, const json_t *config, const char *why)
{
    const json_t *value = json_object_get(config, key);
    char *shown = value != NULL ? json_dumps(value, JSON_ENCODE_ANY | JSON_ENSURE_ASCII | JSON_COMPACT) : NULL;
    snprintf(text, SETTINGS_TEXT, "%s is %.40s: %s", key, shown != NULL ? shown : "not set", why);
    free(shown);
    return true;
}

/* A limit of less than `least`; 0 and -1 are none. */
static bool is_less(const json_t *config, const char *key, json_int_t least)
{
    json_int_t value = json_integer_value(json_object_get(config, key));
    return value > 0 && value < least;
}

bool settings_stream_drops(const json_t *s, const struct config_bus *bus, char text[static SETTINGS_TEXT])
{
    if (!is_text(s, "retention", "limits")) {
        return says(text, "retention", s, "it must be \"limits\", or an event is gone once the first region has it");
    }
    if (is_less(s, "max_msgs_per_subject", INT64_MAX)) {
        return says(text, "max_msgs_per_subject", s, "newer events push out older ones that nobody has read");
    }
    if (bus == NULL) {
        return false;
    }
    if (!is_text(s, "discard", "old")) {
        return says(text, "discard", s, "it must be \"old\", or a full stream takes nothing any more");
    }
    if (json_is_true(json_object_get(s, "no_ack"))) {
        return says(text, "no_ack", s, "nothing published is acknowledged");
    }
    if (json_is_true(json_object_get(s, "sealed"))) {
        return says(text, "sealed", s, "it takes nothing any more");
    }
    if (is_less(s, "max_msgs", STREAM_MSGS_MIN)) {
        return says(text, "max_msgs", s, "it must not be limited, or be 100000 at least");
    }
    if (is_less(s, "max_age", (json_int_t)bus->stream_max_age_s * 1000000000LL)) {
        return says(text, "max_age", s, "it is less than stream_max_age");
    }
    if (is_less(s, "max_bytes", (json_int_t)bus->stream_max_bytes)) {
        return says(text, "max_bytes", s, "it is less than stream_max_bytes");
    }
    if (is_less(s, "max_msg_size", (json_int_t)INVALIDATION_MESSAGE_MAX)) {
        return says(text, "max_msg_size", s, "large messages are refused");
    }
    return false;
}

/* What narrows a consumer down to a part of the stream, and can be taken away. */
static const char *const narrowing[] = {"filter_subject", "filter_subjects", "headers_only"};

static bool is_narrowed(const json_t *config, const char *key)
{
    const json_t *value = json_object_get(config, key);
    return json_is_true(value) || json_array_size(value) > 0 || json_string_length(value) > 0;
}

bool settings_consumer_drops(const json_t *c, char text[static SETTINGS_TEXT])
{
    if (!is_text(c, "ack_policy", "explicit")) {
        return says(text, "ack_policy", c, "it must be \"explicit\", or what could not be applied does not come again");
    }
    if (json_string_length(json_object_get(c, "deliver_subject")) > 0) {
        return says(text, "deliver_subject", c, "events are pushed to it, and can not be pulled");
    }
    if (is_less(c, "max_deliver", INT64_MAX)) {
        return says(text, "max_deliver", c, "it must be -1, or what can not be applied for a while is given up");
    }
    if (!is_text(c, "deliver_policy", "all") && !is_text(c, "deliver_policy", "by_start_sequence")) {
        return says(text, "deliver_policy", c, "it must be \"all\" or \"by_start_sequence\", or events of before are left out");
    }
    for (size_t i = 0; i < ARRAY_LEN(narrowing); i++) {
        if (is_narrowed(c, narrowing[i])) {
            return says(text, narrowing[i], c, "events are left out");
        }
    }
    return false;
}

char *settings_consumer_update(const json_t *existing, const json_t *wanted)
{
    json_t *merged = json_deep_copy(existing);
    bool differs = false;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)json_object_get(wanted, "config"), key, value) {
        bool is_start = strcmp(key, "deliver_policy") == 0 || strcmp(key, "opt_start_seq") == 0;
        if (!is_start && !json_equal(json_object_get(merged, key), value)) {
            differs = true;
            json_object_set(merged, key, value);
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(narrowing); i++) {
        if (is_narrowed(merged, narrowing[i])) {
            differs = true;
            json_object_del(merged, narrowing[i]);
        }
    }
    char *text = NULL;
    json_t *body = json_pack("{s:O, s:O}", "stream_name", json_object_get(wanted, "stream_name"), "config", merged);
    if (differs && body != NULL) {
        text = json_dumps(body, JSON_COMPACT);
    }
    json_decref(body);
    json_decref(merged);
    return text;
}
