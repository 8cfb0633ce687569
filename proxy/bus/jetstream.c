#include "proxy/bus/jetstream.h"

#include "proxy/bus/invalidation.h"

#define NS_PER_MS 1000000LL
#define NS_PER_S 1000000000LL
#define DUPLICATES_S 30 /* how long the server remembers a Nats-Msg-Id */
#define MAX_ACK_PENDING 20000
#define ACK_PREFIX "$JS.ACK."
#define NEVER "0001-01-01T00:00:00Z"

void jetstream_stream_name(const char *region, char out[static NAME_MAX_LEN])
{
    snprintf(out, NAME_MAX_LEN, "INVAL_%s", region);
}

void jetstream_consumer_name(const char *region, char out[static NAME_MAX_LEN])
{
    snprintf(out, NAME_MAX_LEN, "to_%s", region);
}

void jetstream_key_subject(const char *region, char out[static SUBJECT_MAX])
{
    snprintf(out, SUBJECT_MAX, "outrigger.inval.%s.key", region);
}

void jetstream_rule_subject(const char *region, char out[static SUBJECT_MAX])
{
    snprintf(out, SUBJECT_MAX, "outrigger.inval.%s.rule", region);
}

void jetstream_bucket_name(const char *bucket, const char *region, char out[static NAME_MAX_LEN])
{
    snprintf(out, NAME_MAX_LEN, "KV_%s_%s", bucket, region);
}

void jetstream_api(const char *domain, const char *verb, const char *stream, const char *consumer, char out[static SUBJECT_MAX])
{
    snprintf(out, SUBJECT_MAX, "$JS.%s%sAPI.%s.%s%s%s", domain != NULL ? domain : "", domain != NULL ? "." : "", verb, stream,
             consumer != NULL ? "." : "", consumer != NULL ? consumer : "");
}

json_t *jetstream_stream_config(const char *region, const struct config_bus *bus)
{
    char name[NAME_MAX_LEN];
    char subjects[SUBJECT_MAX];
    jetstream_stream_name(region, name);
    snprintf(subjects, sizeof subjects, "outrigger.inval.%s.>", region);
    /* discard old: a full stream drops what is oldest rather than refuse what is new, which would fail every writer of the
     * region. */
    return json_pack("{s:s, s:[s], s:s, s:s, s:s, s:i, s:i, s:I, s:I, s:I, s:I, s:i}", "name", name, "subjects", subjects, "retention",
                     "limits", "storage", "file", "discard", "old", "max_msgs", -1, "max_msgs_per_subject", -1, "max_age", (json_int_t)bus->stream_max_age_s * NS_PER_S,
                     "max_bytes", (json_int_t)bus->stream_max_bytes, "max_msg_size",
                     (json_int_t)(INVALIDATION_MESSAGE_MAX + MESSAGE_OVERHEAD), "duplicate_window",
                     (json_int_t)(DUPLICATES_S * NS_PER_S), "num_replicas", (int)bus->stream_replicas);
}

/* As every client library makes a bucket, so that their tools can show it. A full one refuses what is new rather than forget what is there. */
json_t *jetstream_bucket_config(const char *name, const struct config_bus *bus)
{
    char subjects[SUBJECT_MAX];
    snprintf(subjects, sizeof subjects, "$KV.%s.>", name + sizeof "KV_" - 1);
    return json_pack("{s:s, s:[s], s:s, s:s, s:s, s:i, s:i, s:i, s:b, s:b, s:b, s:i}", "name", name, "subjects", subjects, "retention",
                     "limits", "storage", "file", "discard", "new", "max_msgs_per_subject", 1, "max_msgs", -1, "max_bytes", -1,
                     "allow_rollup_hdrs", 1, "deny_delete", 1, "allow_direct", 1, "num_replicas", (int)bus->stream_replicas);
}

char *jetstream_watch_body(const char *stream, const char *name, const char *deliver, uint64_t heartbeat_us)
{
    json_t *body = json_pack("{s:s, s:{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:i, s:b}}", "stream_name", stream, "config", "name", name,
                             "deliver_subject", deliver, "deliver_policy", "all", "ack_policy", "none", "replay_policy",
                             "instant", "idle_heartbeat", (json_int_t)heartbeat_us * 1000, "inactive_threshold",
                             (json_int_t)(30 * NS_PER_S), "num_replicas", 1, "mem_storage", 1);
    char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return text;
}

json_t *jetstream_stream_merge(const json_t *existing, const json_t *wanted, bool *differs)
{
    json_t *merged = json_deep_copy(existing);
    const char *key;
    json_t *value;
    *differs = false;
    json_object_foreach((json_t *)(uintptr_t)wanted, key, value) {
        if (json_equal(json_object_get(merged, key), value)) {
            continue;
        }
        *differs = true;
        if (json_object_set(merged, key, value) != 0) {
            json_decref(merged);
            return NULL;
        }
    }
    return merged;
}

char *jetstream_consumer_body(const char *stream, const char *region, uint32_t ack_wait_ms, uint64_t start)
{
    char name[NAME_MAX_LEN];
    jetstream_consumer_name(region, name);
    json_t *body =
        json_pack("{s:s, s:{s:s, s:s, s:s, s:I, s:i, s:i, s:s}}", "stream_name", stream, "config", "durable_name", name,
                  "deliver_policy", "all", "ack_policy", "explicit", "ack_wait", (json_int_t)ack_wait_ms * NS_PER_MS,
                  "max_deliver", -1, "max_ack_pending", MAX_ACK_PENDING, "replay_policy", "instant");
    if (body != NULL && start > 1) {
        json_t *config = json_object_get(body, "config");
        json_object_set_new(config, "deliver_policy", json_string("by_start_sequence"));
        json_object_set_new(config, "opt_start_seq", json_integer((json_int_t)start));
    }
    char *text = body == NULL ? NULL : json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return text;
}

/* What a server says ends up in our log: printable ASCII only. */
static void copy_text(char *out, size_t size, const char *text)
{
    size_t n = 0;
    for (; text != NULL && text[n] != '\0' && n + 1 < size; n++) {
        out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    }
    out[n] = '\0';
}

static enum err refused(struct answer *out, int code, int err_code, const char *text)
{
    out->code = code;
    out->err_code = err_code;
    copy_text(out->text, sizeof out->text, text != NULL && text[0] != '\0' ? text : "no reason given");
    return code == STATUS_NO_RESPONDERS ? ERR_UNAVAILABLE : ERR_BUS;
}

/* A server by itself says nothing of a cluster; one of a cluster names itself where there are no replicas. */
static bool has_no_leader(const json_t *info)
{
    const json_t *cluster = json_object_get(info, "cluster");
    const char *leader = json_string_value(json_object_get(cluster, "leader"));
    return json_is_object(cluster) && (leader == NULL || leader[0] == '\0');
}

enum err jetstream_answer(const struct incoming *message, struct answer *out)
{
    memset(out, 0, sizeof *out);
    if (message->status == STATUS_NO_RESPONDERS) {
        return refused(out, message->status, 0, "nobody answers: no such stream, or JetStream is not running");
    }
    if (message->status != STATUS_NONE) {
        return refused(out, message->status, 0, message->description);
    }
    if (message->data.len <= ANSWER_MAX) {
        out->root = json_loadb(message->data.data, message->data.len, JSON_REJECT_DUPLICATES, NULL);
    }
    if (!json_is_object(out->root)) {
        copy_text(out->text, sizeof out->text, "an answer that is not understood");
        return ERR_PROTOCOL;
    }
    const json_t *error = json_object_get(out->root, "error");
    if (error != NULL) {
        return refused(out, (int)json_integer_value(json_object_get(error, "code")),
                       (int)json_integer_value(json_object_get(error, "err_code")),
                       json_string_value(json_object_get(error, "description")));
    }
    const char *created = json_string_value(json_object_get(out->root, "created"));
    if (created != NULL && strcmp(created, NEVER) == 0) {
        return refused(out, 0, JETSTREAM_IN_THE_MAKING, "it is just being made");
    }
    if (has_no_leader(out->root)) {
        bool is_consumer = json_object_get(out->root, "stream_name") != NULL;
        return refused(out, 0, JETSTREAM_NO_LEADER, is_consumer ? "its consumer has no leader" : "its stream has no leader");
    }
    return OK;
}

bool jetstream_is_for_later(const struct answer *answer)
{
    return answer->err_code == JETSTREAM_IN_THE_MAKING || answer->err_code == JETSTREAM_NO_LEADER;
}

void answer_clear(struct answer *answer)
{
    json_decref(answer->root);
    answer->root = NULL;
}

bool jetstream_was_stored(const struct answer *answer, const char *stream)
{
    const char *by = json_string_value(json_object_get(answer->root, "stream"));
    return by != NULL && strcmp(by, stream) == 0 && json_is_integer(json_object_get(answer->root, "seq"));
}

bool jetstream_stream_info(const json_t *info, struct stream_info *out)
{
    const json_t *state = json_object_get(info, "state");
    const char *created = json_string_value(json_object_get(info, "created"));
    json_int_t first = json_integer_value(json_object_get(state, "first_seq"));
    json_int_t last = json_integer_value(json_object_get(state, "last_seq"));
    if (created == NULL || created[0] == '\0' || strlen(created) >= sizeof out->created || !json_is_object(state) || first < 0 || last < 0) {
        return false;
    }
    snprintf(out->created, sizeof out->created, "%s", created);
    out->first_seq = (uint64_t)first;
    out->last_seq = (uint64_t)last;
    return true;
}

/* $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>, or with <domain>.<account hash>. in front of <stream>
 * (and perhaps more at the end). *tokens begins with <stream>; false if that is no such subject. */
static bool split_reply(const char *reply, const char *tokens[static 7])
{
    const char *all[16];
    size_t count = 0;
    if (strncmp(reply, ACK_PREFIX, sizeof ACK_PREFIX - 1) != 0) {
        return false;
    }
    for (const char *at = reply; at != NULL && count < ARRAY_LEN(all); count++) {
        all[count] = at;
        const char *dot = strchr(at, '.');
        at = dot == NULL ? NULL : dot + 1;
    }
    if (count < 9) {
        return false;
    }
    memcpy(tokens, count < 11 ? &all[2] : &all[4], 7 * sizeof tokens[0]);
    return true;
}

uint32_t jetstream_deliveries(const char *reply)
{
    const char *tokens[7];
    if (!split_reply(reply, tokens)) {
        return 0;
    }
    unsigned long n = strtoul(tokens[2], NULL, 10);
    return (uint32_t)MIN(MAX(n, 1UL), 1000000UL);
}

bool jetstream_delivered(const char *reply, struct delivered *out)
{
    const char *tokens[7];
    if (!split_reply(reply, tokens)) {
        return false;
    }
    size_t len = MIN(strcspn(tokens[1], "."), sizeof out->consumer - 1);
    memcpy(out->consumer, tokens[1], len);
    out->consumer[len] = '\0';
    out->stream_seq = strtoull(tokens[3], NULL, 10);
    out->consumer_seq = strtoull(tokens[4], NULL, 10);
    out->pending = strtoull(tokens[6], NULL, 10);
    return true;
}
