#include "proxy/bus/rulebook.h"

#include <inttypes.h>

#define ANSWER_WAIT_US 5000000ULL
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 5000
#define RESEND_US 1000000ULL /* a record without an answer is sent again */
#define HEARTBEAT_US 1000000ULL
#define SILENCE_US 3500000ULL /* without a word of the watch: it is made anew */
#define ERROR_MAX 160

void rulebook_init(struct rulebook *b, const struct config *config, struct transport *transport, struct log *log,
                   struct metrics_shard *metrics, struct bus_sink sink, uint64_t seed)
{
    *b = (struct rulebook){
        .transport = transport,
        .log = log,
        .metrics = metrics,
        .config = config,
        .sink = sink,
        .state = RULEBOOK_DOWN,
        .due_us = UINT64_MAX,
        .watch_id = seed >> 20,
    };
    jetstream_bucket_name("RULES", config->region, b->stream);
    b->finder = (struct finder){.stream = b->stream, .config = config->bus};
    backoff_init(&b->backoff, RETRY_MIN_MS, RETRY_MAX_MS, seed);
}

uint64_t rulebook_hash(struct span pattern)
{
    uint64_t hash = 14695981039346656037ULL; /* FNV-1a */
    for (size_t i = 0; i < pattern.len; i++) {
        hash = (hash ^ (unsigned char)pattern.data[i]) * 1099511628211ULL;
    }
    return hash;
}

/* --- records --- */

static void deliver_result(struct mail *mail, void *owner)
{
    struct record *record = container_of(mail, struct record, mail);
    record->on_done(record);
}

void record_finish(struct record *record, enum err err)
{
    record->err = err;
    record->mail.deliver = deliver_result;
    mailbox_post(record->reply_to, &record->mail);
}

static void count_error(struct rulebook *b, enum err err)
{
    metrics_add(b->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, err), 1);
}

/* Takes the record behind `before` (NULL: the first) off the list, and ends it. */
static void finish(struct rulebook *b, struct record *before, enum err err)
{
    struct record *record = before == NULL ? b->head : before->next;
    *(before == NULL ? &b->head : &before->next) = record->next;
    if (b->tail == record) {
        b->tail = before;
    }
    b->pending--;
    if (err != OK) {
        count_error(b, err);
    }
    record_finish(record, err);
}

static void finish_all(struct rulebook *b, enum err err)
{
    while (b->head != NULL) {
        finish(b, NULL, err);
    }
}

static enum err send_record(struct rulebook *b, struct record *record, uint64_t now_us)
{
    const struct invalidation *event = &record->event;
    char subject[SUBJECT_MAX];
    char reply[SUBJECT_MAX];
    snprintf(subject, sizeof subject, "$KV.%s.%016" PRIx64 ".%" PRIu64, b->stream + sizeof "KV_" - 1,
             rulebook_hash(span_of(event->key, event->key_len)), event->version);
    snprintf(reply, sizeof reply, "%s.q.%" PRIu64, b->transport->inbox, record->number);
    struct outgoing out = {.subject = subject, .reply = reply};
    char *text = NULL;
    if (record->is_removal) {
        out.kv_operation = "DEL";
        out.data = SPAN_LIT("");
    } else {
        size_t len = 0;
        enum err err = invalidation_encode(record->region, &event, 1, &text, &len);
        if (err != OK) {
            return err;
        }
        out.data = span_of(text, len);
        out.has_expected = true; /* that there is none: written again it would get behind what was written since */
    }
    enum err err = b->transport->ops->send(b->transport, &out);
    free(text);
    record->due_us = now_us + RESEND_US;
    return err;
}

void rulebook_submit(struct rulebook *b, struct record *record)
{
    enum err err = b->is_stopping                          ? ERR_STOPPING
                   : !invalidation_is_valid(&record->event) ? ERR_INVALID
                   : !b->is_up                              ? ERR_UNAVAILABLE
                   : b->pending >= RULEBOOK_PENDING_MAX     ? ERR_OVERLOAD
                                                            : OK;
    if (err == OK) {
        record->number = ++b->request;
        err = send_record(b, record, record->submitted_us);
    }
    if (err != OK) {
        count_error(b, err);
        record_finish(record, err);
        return;
    }
    record->next = NULL;
    *(b->head == NULL ? &b->head : &b->tail->next) = record;
    b->tail = record;
    b->pending++;
}

void rulebook_on_recorded(struct rulebook *b, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    struct record *before = NULL;
    struct record *record = b->head;
    while (record != NULL && record->number != number) {
        before = record;
        record = record->next;
    }
    if (record == NULL) {
        return; /* late */
    }
    struct answer answer;
    enum err err = jetstream_answer(message, &answer);
    const char *stream = err == OK ? json_string_value(json_object_get(answer.root, "stream")) : NULL;
    if (err == OK && (stream == NULL || strcmp(stream, b->stream) != 0)) {
        log_error(b->log, "bus: another stream than %s has the subjects of its bucket", b->stream);
        err = ERR_BUS;
    } else if (err != OK && answer.err_code == JETSTREAM_WRONG_LAST_SEQUENCE && !record->is_removal) { /* it is there, or was, and has been removed */
        err = OK;
    }
    if (err == OK || err == ERR_BUS) {
        if (err == ERR_BUS) {
            log_error(b->log, "bus: %s refused a rule: %s (%d)", b->stream, answer.text, answer.err_code);
        }
        finish(b, before, err);
    } /* else it is sent again when it is due */
    answer_clear(&answer);
}

static uint64_t step_records(struct rulebook *b, uint64_t now_us)
{
    uint64_t timeout_us = 1000ULL * b->config->bus->publish_timeout_ms;
    while (b->head != NULL && b->head->submitted_us + timeout_us <= now_us) {
        finish(b, NULL, ERR_TIMEOUT);
    }
    uint64_t next_us = b->head != NULL ? b->head->submitted_us + timeout_us : UINT64_MAX;
    for (struct record *record = b->head; record != NULL && b->is_up; record = record->next) {
        if (record->due_us <= now_us) {
            send_record(b, record, now_us);
        }
        next_us = MIN(next_us, record->due_us);
    }
    return next_us;
}

/* --- the bucket and its watch --- */

static void lose(struct rulebook *b)
{
    if (b->is_known) {
        log_warn(b->log, "bus: the rules of this region (bucket %s) are not watched any more", b->stream + sizeof "KV_" - 1);
    }
    b->is_known = false;
    if (b->sink.on_rules != NULL) {
        b->sink.on_rules(b->sink.ctx, RULES_LOST);
    }
}

static void retry_later(struct rulebook *b, uint64_t now_us)
{
    b->state = RULEBOOK_WAITING;
    b->due_us = now_us + backoff_next_us(&b->backoff);
    lose(b);
}

static void ask(struct rulebook *b, enum rulebook_state state, const char *verb, const char *consumer, const char *body, uint64_t now_us)
{
    char subject[SUBJECT_MAX];
    char reply[SUBJECT_MAX];
    b->asked = ++b->request;
    jetstream_api(NULL, verb, b->stream, consumer, subject);
    snprintf(reply, sizeof reply, "%s.b.%" PRIu64, b->transport->inbox, b->asked);
    struct outgoing out = {.subject = subject, .reply = reply, .data = span_str(body != NULL ? body : "")};
    if (body == NULL || b->transport->ops->send(b->transport, &out) != OK) {
        retry_later(b, now_us);
        return;
    }
    b->state = state;
    b->due_us = now_us + ANSWER_WAIT_US;
}

static void find(struct rulebook *b, uint64_t now_us)
{
    char *body = finder_body(&b->finder);
    ask(b, RULEBOOK_FINDING, finder_verb(&b->finder), NULL, body, now_us);
    free(body);
}

/* The server keeps a consumer for a while after a connection, and the next connection's subject is the same: left alone, it would go on, and its
 * heartbeats, which do not say whose they are, would tell of messages that the new one has not had. Whether it is there still does not matter. */
static void drop_watch(struct rulebook *b)
{
    char subject[SUBJECT_MAX];
    if (b->watch[0] != '\0' && b->is_up) {
        jetstream_api(NULL, "CONSUMER.DELETE", b->stream, b->watch, subject);
        b->transport->ops->send(b->transport, &(struct outgoing){.subject = subject, .data = SPAN_LIT("")});
    }
    b->watch[0] = '\0';
}

static void start_watch(struct rulebook *b, uint64_t now_us)
{
    drop_watch(b);
    b->watch_id++;
    snprintf(b->watch, sizeof b->watch, "watch_%016" PRIx64, b->watch_id);
    b->seen = 0;
    b->target = UINT64_MAX;
    b->heard_us = now_us;
    b->is_known = false;
    b->sink.on_rules(b->sink.ctx, RULES_LISTING);
    char *body = jetstream_watch_body(b->stream, b->watch, b->transport->watch, HEARTBEAT_US);
    ask(b, RULEBOOK_ASKING, "CONSUMER.CREATE", b->watch, body, now_us);
    free(body);
}

static void look_for_end_of_list(struct rulebook *b)
{
    if (!b->is_known && b->state == RULEBOOK_WATCHING && b->seen >= b->target) {
        b->is_known = true;
        backoff_reset(&b->backoff);
        log_info(b->log, "bus: the rules of this region are known and watched (bucket %s)", b->stream + sizeof "KV_" - 1);
        b->sink.on_rules(b->sink.ctx, RULES_KNOWN);
    }
}

static void on_watching(struct rulebook *b, const json_t *info, uint64_t now_us)
{
    json_int_t delivered = json_integer_value(json_object_get(json_object_get(info, "delivered"), "consumer_seq"));
    json_int_t pending = json_integer_value(json_object_get(info, "num_pending"));
    b->target = (uint64_t)MAX(delivered, 0) + (uint64_t)MAX(pending, 0);
    b->state = RULEBOOK_WATCHING;
    b->due_us = UINT64_MAX;
    b->heard_us = now_us;
    look_for_end_of_list(b);
}

static void on_refused(struct rulebook *b, enum err err, const struct answer *answer, uint64_t now_us)
{
    if (jetstream_is_for_later(answer)) {
        retry_later(b, now_us);
        return;
    }
    count_error(b, err == OK ? ERR_PROTOCOL : err);
    log_warn(b->log, "bus: the rules of this region (bucket %s) can not be watched: %s (%d); trying again", b->stream + sizeof "KV_" - 1, answer->text,
             answer->err_code != 0 ? answer->err_code : answer->code);
    retry_later(b, now_us);
}

static void on_found(struct rulebook *b, enum err err, const struct answer *answer, uint64_t now_us)
{
    switch (finder_on_answer(&b->finder, err, answer)) {
    case FINDER_THERE: start_watch(b, now_us); break;
    case FINDER_AGAIN: find(b, now_us); break;
    case FINDER_LATER: retry_later(b, now_us); break;
    case FINDER_REFUSED: on_refused(b, err, answer, now_us); break;
    }
}

void rulebook_on_answer(struct rulebook *b, uint64_t request, const struct incoming *message, uint64_t now_us)
{
    if (request != b->asked || (b->state != RULEBOOK_FINDING && b->state != RULEBOOK_ASKING)) {
        return;
    }
    struct answer answer;
    enum err err = jetstream_answer(message, &answer);
    if (b->state == RULEBOOK_FINDING) {
        on_found(b, err, &answer, now_us);
    } else if (err == OK) {
        on_watching(b, answer.root, now_us);
    } else {
        on_refused(b, err, &answer, now_us);
    }
    answer_clear(&answer);
}

static void on_status(struct rulebook *b, const struct incoming *message, uint64_t now_us)
{
    if (b->state != RULEBOOK_WATCHING) {
        return;
    }
    b->heard_us = now_us;
    if (message->status == STATUS_HEARTBEAT && message->last_consumer > b->seen) { /* something was lost on the way */
        retry_later(b, now_us);
    }
}

/* "$KV.RULES_<region>.<hash>.<version>" */
static bool parse_subject(const struct rulebook *b, const char *subject, struct rule_event *out)
{
    char prefix[SUBJECT_MAX];
    int len = snprintf(prefix, sizeof prefix, "$KV.%s.", b->stream + sizeof "KV_" - 1);
    if (strncmp(subject, prefix, (size_t)len) != 0) {
        return false;
    }
    char *end;
    out->hash = strtoull(subject + len, &end, 16);
    if (*end != '.') {
        return false;
    }
    out->event.version = strtoull(end + 1, &end, 10);
    return *end == '\0' && out->event.version != 0;
}

static void tell(struct rulebook *b, const struct incoming *message)
{
    struct rule_event rule = {0};
    char why[ERROR_MAX] = "its key makes no sense";
    if (!parse_subject(b, message->subject, &rule)) {
        goto bad;
    }
    rule.is_removed = message->data.len == 0;
    uint64_t version = rule.event.version;
    if (!rule.is_removed && (invalidation_decode_rule(message->data, &rule.event, rule.region, why, sizeof why) != OK)) {
        goto bad;
    }
    if (rule.event.version == version) {
        b->sink.on_rule(b->sink.ctx, &rule);
        return;
    }
    snprintf(why, sizeof why, "its key and its version differ");
bad:
    count_error(b, ERR_INVALID);
    log_error(b->log, "bus: an entry of bucket %s is not heeded: %s", b->stream + sizeof "KV_" - 1, why);
}

void rulebook_on_message(struct rulebook *b, const struct incoming *message, uint64_t now_us)
{
    struct delivered delivered;
    if (message->status != STATUS_NONE) {
        on_status(b, message, now_us);
        return;
    }
    bool is_ours = jetstream_delivered(message->reply, &delivered) && strcmp(delivered.consumer, b->watch) == 0;
    if (!is_ours || (b->state != RULEBOOK_ASKING && b->state != RULEBOOK_WATCHING)) {
        return;
    }
    b->heard_us = now_us;
    if (delivered.consumer_seq != b->seen + 1) {
        retry_later(b, now_us);
        return;
    }
    b->seen++;
    tell(b, message);
    look_for_end_of_list(b);
}

void rulebook_on_up(struct rulebook *b, uint64_t now_us)
{
    b->is_up = true;
    backoff_reset(&b->backoff);
    for (struct record *record = b->head; record != NULL; record = record->next) {
        record->due_us = now_us;
    }
    if (b->sink.on_rules != NULL) { /* somebody wants to know */
        finder_restart(&b->finder);
        find(b, now_us);
    }
}

void rulebook_on_down(struct rulebook *b)
{
    b->is_up = false;
    b->state = RULEBOOK_DOWN;
    b->due_us = UINT64_MAX;
    lose(b);
}

static uint64_t step_watch(struct rulebook *b, uint64_t now_us)
{
    if (b->state == RULEBOOK_WATCHING) {
        if (now_us < b->heard_us + SILENCE_US) {
            return b->heard_us + SILENCE_US;
        }
        log_warn(b->log, "bus: no heartbeat from bucket %s: watching it anew", b->stream + sizeof "KV_" - 1);
        retry_later(b, now_us);
    } else if (b->due_us <= now_us && b->state == RULEBOOK_WAITING) {
        finder_restart(&b->finder);
        find(b, now_us);
    } else if (b->due_us <= now_us && b->state != RULEBOOK_DOWN) {
        log_warn(b->log, "bus: bucket %s: JetStream does not answer; trying again", b->stream + sizeof "KV_" - 1);
        retry_later(b, now_us);
    }
    return b->due_us;
}

uint64_t rulebook_step(struct rulebook *b, uint64_t now_us)
{
    uint64_t records_us = step_records(b, now_us);
    uint64_t watch_us = step_watch(b, now_us);
    return MIN(records_us, watch_us);
}

void rulebook_stop(struct rulebook *b)
{
    b->is_stopping = true;
    finish_all(b, ERR_STOPPING);
}
