#include "proxy/bus/cursor.h"

#include <assert.h>
#include <inttypes.h>

#include "common/clock.h"
#include "proxy/protocol/base64.h"

#define ANSWER_WAIT_US 5000000ULL
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 5000
#define ENTRY_MAX 512 /* bytes of a mark in the bucket, as base64 */
#define PEER_BITS 6

static_assert(CURSOR_PEERS == (1U << PEER_BITS) - 1, "there are up to 63 peers");

void cursor_init(struct cursor *c, const struct cursor_context *context, uint32_t index)
{
    *c = (struct cursor){
        .own = context->own,
        .peer_transport = context->peer_transport,
        .log = context->log,
        .metrics = context->metrics,
        .mailbox = context->mailbox,
        .sink = context->sink,
        .durable = context->durable,
        .config = context->config->bus,
        .peer = &context->config->bus->peers[index],
        .index = index,
        .due_us = UINT64_MAX,
    };
    jetstream_bucket_name("CURSOR", context->config->region, c->bucket);
    c->finder = (struct finder){.stream = c->bucket, .config = c->config};
    backoff_init(&c->backoff, RETRY_MIN_MS, RETRY_MAX_MS, context->seed + index);
}

static void rest(struct cursor *c, uint64_t until_us)
{
    c->state = CURSOR_RESTING;
    c->due_us = until_us;
}

static void retry_later(struct cursor *c, const char *problem, uint64_t now_us)
{
    if (strcmp(c->problem, problem) != 0) {
        log_warn(c->log, "bus: whether invalidations of region %s were lost can not be told: %s; trying again", c->peer->region, problem);
    }
    snprintf(c->problem, sizeof c->problem, "%s", problem);
    rest(c, now_us + backoff_next_us(&c->backoff));
}

/* --- questions --- */

static void sent(struct cursor *c, enum cursor_state state, enum err err, uint64_t now_us)
{
    if (err != OK) {
        retry_later(c, err_text(err), now_us);
        return;
    }
    c->state = state;
    c->due_us = now_us + ANSWER_WAIT_US;
}

static void ask_own(struct cursor *c, enum cursor_state state, const char *subject, const struct outgoing *what, uint64_t now_us)
{
    char reply[SUBJECT_MAX];
    struct outgoing out = *what;
    snprintf(reply, sizeof reply, "%s.o.%" PRIu64, c->own->inbox, ++c->request << PEER_BITS | c->index);
    out.subject = subject;
    out.reply = reply;
    sent(c, state, c->own->ops->send(c->own, &out), now_us);
}

static void ask_peer(struct cursor *c, enum cursor_state state, const char *verb, const char *consumer, const char *body, uint64_t now_us)
{
    char subject[SUBJECT_MAX];
    char reply[SUBJECT_MAX];
    jetstream_api(c->peer->domain, verb, c->durable->stream, consumer, subject);
    snprintf(reply, sizeof reply, "%s.i.%" PRIu64, c->peer_transport->inbox, ++c->request);
    struct outgoing out = {.subject = subject, .reply = reply, .data = span_str(body)};
    sent(c, state, c->peer_transport->ops->send(c->peer_transport, &out), now_us);
}

static void ask_message(struct cursor *c, enum cursor_state state, uint64_t seq, uint64_t now_us)
{
    char body[48];
    snprintf(body, sizeof body, "{\"seq\":%" PRIu64 "}", seq);
    ask_peer(c, state, "STREAM.MSG.GET", NULL, body, now_us);
}

static void entry_subject(const struct cursor *c, char out[static SUBJECT_MAX])
{
    snprintf(out, SUBJECT_MAX, "$KV.%s.%s", c->bucket + sizeof "KV_" - 1, c->peer->region);
}

static void find(struct cursor *c, uint64_t now_us)
{
    char subject[SUBJECT_MAX];
    char *body = finder_body(&c->finder);
    jetstream_api(NULL, finder_verb(&c->finder), c->bucket, NULL, subject);
    if (body != NULL) {
        ask_own(c, CURSOR_FINDING, subject, &(struct outgoing){.data = span_str(body)}, now_us);
    } else {
        retry_later(c, err_text(ERR_NOMEM), now_us);
    }
    free(body);
}

static void load(struct cursor *c, uint64_t now_us)
{
    if (!c->is_found) {
        finder_restart(&c->finder);
        find(c, now_us);
        return;
    }
    char subject[SUBJECT_MAX];
    char entry[SUBJECT_MAX];
    char body[SUBJECT_MAX + 32];
    entry_subject(c, entry);
    snprintf(body, sizeof body, "{\"last_by_subj\":\"%s\"}", entry);
    jetstream_api(NULL, "STREAM.MSG.GET", c->bucket, NULL, subject);
    ask_own(c, CURSOR_LOADING, subject, &(struct outgoing){.data = span_str(body)}, now_us);
}

static void ask_consumer(struct cursor *c, uint64_t now_us)
{
    ask_peer(c, CURSOR_ASKING_CONSUMER, "CONSUMER.INFO", c->durable->name, "", now_us);
}

static void save(struct cursor *c, uint64_t now_us)
{
    char subject[SUBJECT_MAX];
    char text[256];
    entry_subject(c, subject);
    snprintf(text, sizeof text, "{\"created\":\"%s\",\"seq\":%" PRIu64 ",\"time\":\"%s\"}", c->next.created, c->next.seq, c->next.time);
    ask_own(c, CURSOR_SAVING, subject, &(struct outgoing){.data = span_str(text), .has_expected = true, .expected_seq = c->revision}, now_us);
}

/* --- links --- */

static void start(struct cursor *c, uint64_t now_us)
{
    c->is_verified = c->is_checked = c->no_stream = false;
    c->problem[0] = c->drops[0] = '\0';
    backoff_reset(&c->backoff);
    if (c->own != NULL && c->is_own_up && c->is_peer_up) {
        load(c, now_us);
    } else {
        c->state = CURSOR_DOWN;
        c->due_us = UINT64_MAX;
    }
}

void cursor_on_own_link(struct cursor *c, bool is_up, uint64_t now_us)
{
    c->is_own_up = is_up;
    c->is_found = false;
    start(c, now_us);
}

void cursor_on_peer_link(struct cursor *c, bool is_up, uint64_t now_us)
{
    c->is_peer_up = is_up;
    start(c, now_us);
}

void cursor_check(struct cursor *c, uint64_t now_us)
{
    if (c->state == CURSOR_RESTING) {
        load(c, now_us);
    }
}

/* --- what the answers mean --- */

/* All is well. */
static void checked(struct cursor *c, uint64_t now_us)
{
    c->is_checked = true;
    c->problem[0] = '\0';
    backoff_reset(&c->backoff);
    rest(c, now_us + CURSOR_CHECK_US);
    durable_start_at(c->durable, c->mark.seq + 1, now_us);
}

/* A time as JetStream writes it; what is none is not put into a message of ours. */
static void copy_time(char out[static CREATED_SIZE], const char *text)
{
    out[0] = '\0';
    if (text != NULL && strlen(text) < CREATED_SIZE && text[strspn(text, "0123456789-:.TZ+")] == '\0') {
        snprintf(out, CREATED_SIZE, "%s", text);
    }
}

/* *mark stays without a time of creation if it is none of ours. */
static void parse_mark(const char *data, struct mark *mark)
{
    char text[ENTRY_MAX];
    size_t len = data != NULL ? strlen(data) : 0;
    json_t *root = len > 0 && len <= ENTRY_MAX ? json_loadb(text, base64_decode(span_of(data, len), text), JSON_REJECT_DUPLICATES, NULL) : NULL;
    json_int_t seq = json_integer_value(json_object_get(root, "seq"));
    if (json_is_integer(json_object_get(root, "seq")) && seq >= 0) {
        copy_time(mark->created, json_string_value(json_object_get(root, "created")));
        copy_time(mark->time, json_string_value(json_object_get(root, "time")));
        mark->seq = (uint64_t)seq;
    }
    json_decref(root);
}

static void on_loaded(struct cursor *c, enum err err, const struct answer *answer, uint64_t now_us)
{
    if (err != OK && answer->err_code == JETSTREAM_STREAM_NOT_FOUND) {
        c->is_found = false;
        load(c, now_us);
        return;
    }
    if (err != OK && answer->err_code != JETSTREAM_NO_MESSAGE) {
        retry_later(c, answer->text, now_us);
        return;
    }
    c->mark = (struct mark){.seq = 0};
    c->revision = 0;
    const json_t *message = json_object_get(answer->root, "message");
    if (err == OK) {
        parse_mark(json_string_value(json_object_get(message, "data")), &c->mark);
        c->revision = (uint64_t)json_integer_value(json_object_get(message, "seq"));
    }
    ask_consumer(c, now_us);
}

static void on_found(struct cursor *c, enum err err, const struct answer *answer, uint64_t now_us)
{
    switch (finder_on_answer(&c->finder, err, answer)) {
    case FINDER_THERE:
        c->is_found = true;
        load(c, now_us);
        break;
    case FINDER_AGAIN: find(c, now_us); break;
    case FINDER_LATER: rest(c, now_us + backoff_next_us(&c->backoff)); break;
    case FINDER_REFUSED: retry_later(c, answer->text, now_us); break;
    }
}

static void on_no_stream(struct cursor *c, uint64_t now_us)
{
    c->no_stream = true;
    rest(c, now_us + CURSOR_CHECK_US);
}

static void on_consumer(struct cursor *c, enum err err, const struct answer *answer, uint64_t now_us)
{
    if (err != OK && answer->err_code == JETSTREAM_STREAM_NOT_FOUND) {
        on_no_stream(c, now_us);
        return;
    }
    if (err != OK && answer->err_code != JETSTREAM_CONSUMER_NOT_FOUND) {
        retry_later(c, answer->text, now_us);
        return;
    }
    const json_t *config = json_object_get(answer->root, "config");
    json_int_t floor = json_integer_value(json_object_get(json_object_get(answer->root, "ack_floor"), "stream_seq"));
    json_int_t first = json_integer_value(json_object_get(config, "opt_start_seq"));
    c->has_consumer = err == OK;
    c->floor = (uint64_t)MAX(floor, 0);
    c->start = (uint64_t)MAX(first, 0);
    ask_peer(c, CURSOR_ASKING_STREAM, "STREAM.INFO", NULL, "", now_us);
}

static void deliver_applied(struct mail *mail, void *owner);

static void apply_rule(struct cursor *c, const char *why, uint64_t now_us)
{
    if (!c->is_gap) {
        c->is_gap = true;
        metrics_add(c->metrics, METRIC_BUS_GAPS, 1 + c->index, 1);
        log_warn(c->log,
                 "bus: invalidations of region %s may be lost: %s (applied up to message %" PRIu64 ", its stream has %" PRIu64 " to %" PRIu64
                 "): all that this region has cached is invalidated",
                 c->peer->region, why, c->mark.seq, c->stream.first_seq, c->stream.last_seq);
    }
    if (c->is_applying) { /* that of before the connection was lost */
        retry_later(c, "the rule for an earlier gap is not in force yet", now_us);
        return;
    }
    /* The rule is newer than all that the stream has by now. */
    c->next = (struct mark){.seq = MAX(c->stream.first_seq, 1ULL) - 1};
    if (c->has_consumer && c->floor <= c->stream.last_seq) {
        c->next.seq = MAX(c->next.seq, c->floor);
    }
    copy_time(c->next.created, c->stream.created);
    c->rule = (struct delivery){
        .event = {.version = 0, .timestamp_ms = clock_wall_ms(), .key_len = 1, .is_pattern = true, .key = "*"},
        .peer = c->index,
        .reply_to = c->mailbox,
        .on_done = deliver_applied,
    };
    c->is_applying = true;
    c->state = CURSOR_APPLYING;
    c->due_us = UINT64_MAX;
    c->sink.apply(c->sink.ctx, &c->rule);
}

/* The consumer would leave out what takes the numbers of messages that are no more. */
static bool is_ahead(const struct cursor *c)
{
    return c->has_consumer && c->floor > c->stream.last_seq;
}

static void on_applied(struct cursor *c, uint64_t now_us)
{
    c->is_applying = false;
    if (c->state != CURSOR_APPLYING) {
        return; /* a link was down meanwhile; the next look sees the gap again */
    }
    if (c->rule.err != OK) {
        char problem[sizeof c->problem];
        snprintf(problem, sizeof problem, "invalidations were lost, and the rule * could not be applied: %s", err_text(c->rule.err));
        retry_later(c, problem, now_us);
        return;
    }
    if (is_ahead(c)) {
        durable_remake(c->durable, now_us);
    }
    save(c, now_us);
}

static void deliver_applied(struct mail *mail, void *owner)
{
    on_applied(container_of(container_of(mail, struct delivery, mail), struct cursor, rule), clock_mono_us());
}

/* NULL: the stream has everything behind the mark. */
static const char *find_gap(const struct cursor *c)
{
    if (c->mark.created[0] == '\0') {
        return "this region does not know what it has applied";
    }
    if (strcmp(c->mark.created, c->stream.created) != 0) {
        return "the stream was made anew";
    }
    if (c->stream.last_seq < c->mark.seq) {
        return "the stream went back";
    }
    if (c->stream.first_seq > c->mark.seq + 1) {
        return "the stream has dropped messages that this region has not had";
    }
    return NULL;
}

/* The stream has all that is behind the mark: it moves. */
static void advance(struct cursor *c, uint64_t now_us)
{
    if (is_ahead(c) || (c->has_consumer && c->start > c->mark.seq + 1)) {
        durable_remake(c->durable, now_us);
        checked(c, now_us);
        return;
    }
    uint64_t floor = c->has_consumer ? MIN(c->floor, c->stream.last_seq) : 0;
    if (floor <= c->mark.seq) {
        checked(c, now_us);
        return;
    }
    c->next = c->mark;
    c->next.seq = floor;
    c->next.time[0] = '\0';
    ask_message(c, CURSOR_DATING, floor, now_us);
}

static void on_stream(struct cursor *c, enum err err, const struct answer *answer, uint64_t now_us)
{
    if (err != OK && answer->err_code == JETSTREAM_STREAM_NOT_FOUND) {
        on_no_stream(c, now_us);
        return;
    }
    if (err != OK || !jetstream_stream_info(answer->root, &c->stream)) {
        retry_later(c, err != OK ? answer->text : "an answer that is not understood", now_us);
        return;
    }
    c->no_stream = false;
    if (settings_stream_drops(json_object_get(answer->root, "config"), NULL, c->drops)) {
        log_error(c->log, "bus: the stream of region %s loses invalidations: %s", c->peer->region, c->drops);
    } else {
        c->drops[0] = '\0';
    }
    const char *gap = find_gap(c);
    bool has_it = c->stream.first_seq <= c->mark.seq && c->mark.seq > 0;
    if (gap != NULL) {
        apply_rule(c, gap, now_us);
    } else if (!c->is_verified && has_it && c->mark.time[0] != '\0') {
        ask_message(c, CURSOR_ASKING_MESSAGE, c->mark.seq, now_us);
    } else {
        advance(c, now_us);
    }
}

/* When a message was stored; "" if the stream does not say, which is no proof of anything. False: nobody has answered. */
static bool message_time(struct cursor *c, enum err err, const struct answer *answer, char out[static CREATED_SIZE], uint64_t now_us)
{
    if (err != OK && answer->err_code == 0 && err != ERR_PROTOCOL) {
        retry_later(c, answer->text, now_us);
        return false;
    }
    copy_time(out, json_string_value(json_object_get(json_object_get(answer->root, "message"), "time")));
    return true;
}

static void on_message(struct cursor *c, enum err err, const struct answer *answer, uint64_t now_us)
{
    char time[CREATED_SIZE];
    if (!message_time(c, err, answer, time, now_us)) {
        return;
    }
    if (time[0] != '\0' && strcmp(time, c->mark.time) != 0) {
        c->floor = UINT64_MAX; /* the consumer's numbers are of messages that are no more */
        apply_rule(c, "the stream went back, and was filled with others", now_us);
        return;
    }
    c->is_verified = true;
    advance(c, now_us);
}

static void on_dated(struct cursor *c, enum err err, const struct answer *answer, uint64_t now_us)
{
    if (message_time(c, err, answer, c->next.time, now_us)) {
        save(c, now_us);
    }
}

static void on_saved(struct cursor *c, enum err err, const struct answer *answer, uint64_t now_us)
{
    if (err == OK && jetstream_was_stored(answer, c->bucket)) {
        if (c->is_gap) {
            log_info(c->log, "bus: region %s: the gap is covered; going on with message %" PRIu64, c->peer->region, c->next.seq + 1);
        }
        c->is_gap = false;
        c->mark = c->next;
        c->revision = (uint64_t)json_integer_value(json_object_get(answer->root, "seq"));
        checked(c, now_us);
    } else if (answer->err_code == JETSTREAM_WRONG_LAST_SEQUENCE) { /* another sidecar was faster, or the bucket has lost it */
        rest(c, now_us + backoff_next_us(&c->backoff));
    } else {
        retry_later(c, err != OK ? answer->text : "another stream has the subjects of its bucket", now_us);
    }
}

static void on_answer(struct cursor *c, uint64_t request, const struct incoming *message, uint64_t now_us)
{
    if (request != c->request) {
        return;
    }
    struct answer answer;
    enum err err = jetstream_answer(message, &answer);
    switch (c->state) {
    case CURSOR_FINDING: on_found(c, err, &answer, now_us); break;
    case CURSOR_LOADING: on_loaded(c, err, &answer, now_us); break;
    case CURSOR_ASKING_CONSUMER: on_consumer(c, err, &answer, now_us); break;
    case CURSOR_ASKING_STREAM: on_stream(c, err, &answer, now_us); break;
    case CURSOR_ASKING_MESSAGE: on_message(c, err, &answer, now_us); break;
    case CURSOR_DATING: on_dated(c, err, &answer, now_us); break;
    case CURSOR_SAVING: on_saved(c, err, &answer, now_us); break;
    case CURSOR_DOWN:
    case CURSOR_APPLYING:
    case CURSOR_RESTING: break; /* late */
    }
    answer_clear(&answer);
}

void cursor_on_own_answer(struct cursor *c, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    on_answer(c, number >> PEER_BITS, message, now_us);
}

void cursor_on_peer_answer(struct cursor *c, uint64_t request, const struct incoming *message, uint64_t now_us)
{
    on_answer(c, request, message, now_us);
}

/* What an account may not ask is not answered either. */
static const char *silent(const struct cursor *c)
{
    switch (c->state) {
    case CURSOR_LOADING: return "this region's NATS does not answer to STREAM.MSG.GET of its cursors";
    case CURSOR_FINDING:
        return c->finder.is_creating ? "this region's NATS does not answer to STREAM.CREATE of its cursors"
                                     : "this region's NATS does not answer to STREAM.INFO of its cursors";
    case CURSOR_SAVING: return "this region's NATS does not take its cursor";
    case CURSOR_ASKING_CONSUMER: return "its NATS does not answer to CONSUMER.INFO";
    case CURSOR_ASKING_STREAM: return "its NATS does not answer to STREAM.INFO";
    default: return "its NATS does not answer to STREAM.MSG.GET";
    }
}

uint64_t cursor_step(struct cursor *c, uint64_t now_us)
{
    if (now_us < c->due_us) {
        return c->due_us;
    }
    if (c->state == CURSOR_RESTING) {
        load(c, now_us);
    } else {
        retry_later(c, silent(c), now_us);
    }
    return c->due_us;
}

const char *cursor_problem(const struct cursor *c)
{
    if (c->drops[0] != '\0') {
        return c->drops;
    }
    if (c->own == NULL || c->no_stream || !c->is_own_up || !c->is_peer_up || (c->is_checked && c->problem[0] == '\0')) {
        return NULL;
    }
    return c->problem[0] != '\0' ? c->problem : "whether invalidations were lost is being found out";
}
