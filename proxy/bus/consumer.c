#include "proxy/bus/consumer.h"

#include <inttypes.h>

#include "common/clock.h"
#include "proxy/bus/spool_record.h"

#define PULL_RETRY_MIN_MS 100
#define PULL_RETRY_MAX_MS 5000

#define PULL_EXPIRES_US 5000000ULL
#define PULL_GRACE_US 1500000ULL /* on top of PULL_EXPIRES_US, until a request is over even without a word from the server */
#define PULL_PAUSE_US 100000ULL
#define HEARTBEAT_US 1250000ULL
#define SILENCE_US 5000000ULL /* without message or heartbeat: ask again */
#define SILENCES_MAX 2        /* in a row; then the consumer itself is looked at */
#define PULL_BYTES_MAX (4U << 20)

#define NAK_MIN_MS 250 /* doubling with every delivery */
#define NAK_MAX_MS 30000
#define ERROR_MAX 160

void consumer_init(struct consumer *c, const struct consumer_context *context, uint32_t index)
{
    const struct config_peer *peer = &context->config->bus->peers[index];
    *c = (struct consumer){
        .transport = context->transport,
        .log = context->log,
        .metrics = context->metrics,
        .mailbox = context->mailbox,
        .sink = context->sink,
        .spool = context->spool,
        .peer = peer,
        .index = index,
        .state = CONSUMER_DOWN,
        .due_us = UINT64_MAX,
        .batch = PULL_BATCH,
    };
    list_init(&c->messages);
    jetstream_key_subject(peer->region, c->key_subject);
    jetstream_rule_subject(peer->region, c->rule_subject);
    durable_init(&c->durable, context->config, context->transport, context->log, context->metrics, index, context->seed);
    c->durable.has_cursor = context->own != NULL;
    struct cursor_context cursor = {
        .config = context->config,
        .own = context->own,
        .peer_transport = context->transport,
        .log = context->log,
        .metrics = context->metrics,
        .mailbox = context->mailbox,
        .sink = context->sink,
        .durable = &c->durable,
        .seed = context->seed,
    };
    cursor_init(&c->cursor, &cursor, index);
    unsupported_init(&c->unsupported, context->transport, context->log, context->metrics, context->mailbox, context->sink, peer->region, index);
    backoff_init(&c->pull_backoff, PULL_RETRY_MIN_MS, PULL_RETRY_MAX_MS, context->seed + index);
}

void consumer_deinit(struct consumer *c)
{
    struct list *link;
    while ((link = list_pop_front(&c->messages)) != NULL) {
        free(list_entry(link, struct bus_message, link));
    }
    c->under_way = 0;
    unsupported_deinit(&c->unsupported);
}

static void count(struct consumer *c, enum metric metric, uint64_t n)
{
    metrics_add(c->metrics, metric, 1 + c->index, n);
}

static void count_error(struct consumer *c, enum err err)
{
    metrics_add(c->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, err), 1);
}

/* --- up and down --- */

/* What came so far is not acknowledged: by now it may be another stream, in which another message has that number, and would never be delivered
 * again. If it is the same, it delivers once more what was not acknowledged. */
static void forget_replies(struct consumer *c)
{
    struct list *it, *tmp;
    list_for_each(it, tmp, &c->messages)
    {
        list_entry(it, struct bus_message, link)->reply[0] = '\0';
    }
    unsupported_forget(&c->unsupported);
}

/* Until the durable consumer is ready (again). */
static void wait_for_durable(struct consumer *c)
{
    forget_replies(c);
    c->state = CONSUMER_WAITING;
    c->credit = 0;
}

void consumer_on_up(struct consumer *c, uint64_t now_us)
{
    backoff_reset(&c->pull_backoff);
    wait_for_durable(c);
    durable_on_up(&c->durable, now_us);
    cursor_on_peer_link(&c->cursor, true, now_us);
}

void consumer_on_down(struct consumer *c)
{
    c->state = CONSUMER_DOWN;
    c->credit = 0;
    durable_on_down(&c->durable);
    cursor_on_peer_link(&c->cursor, false, 0);
}

static void start_pulling(struct consumer *c, uint64_t now_us)
{
    log_info(c->log, "bus: receiving the invalidations of region %s (stream %s, consumer %s)", c->peer->region, c->durable.stream,
             c->durable.name);
    forget_replies(c); /* of what came late from before */
    c->state = CONSUMER_PULLING;
    c->due_us = now_us;
    c->first_request = c->request + 1;
    c->batch = PULL_BATCH;
    c->credit = 0;
    c->since_pull = 0;
    c->silences = 0;
    c->heard_us = now_us;
}

/* Follows the durable consumer. */
static void follow(struct consumer *c, uint64_t now_us)
{
    bool is_ready = c->durable.state == DURABLE_READY;
    if (c->state == CONSUMER_WAITING && is_ready) {
        start_pulling(c, now_us);
    } else if (c->state == CONSUMER_PULLING && !is_ready) {
        wait_for_durable(c);
    }
    if (c->durable.wants_start) {
        cursor_check(&c->cursor, now_us);
    }
}

void consumer_on_answer(struct consumer *c, uint64_t request, const struct incoming *message, uint64_t now_us)
{
    durable_on_answer(&c->durable, request, message, now_us);
    follow(c, now_us);
}

/* --- pulling --- */

static enum err pull(struct consumer *c, uint64_t now_us)
{
    char body[160];
    if (c->since_pull >= c->batch) { /* served in full before it expired: a backlog */
        c->batch = MIN(c->batch * 2, PULL_BATCH_MAX);
    }
    snprintf(body, sizeof body, "{\"batch\":%u,\"max_bytes\":%u,\"expires\":%llu,\"idle_heartbeat\":%llu}", c->batch,
             PULL_BYTES_MAX, PULL_EXPIRES_US * 1000, HEARTBEAT_US * 1000);
    char subject[SUBJECT_MAX];
    char reply[SUBJECT_MAX];
    jetstream_api(c->peer->domain, "CONSUMER.MSG.NEXT", c->durable.stream, c->durable.name, subject);
    snprintf(reply, sizeof reply, "%s.r.%" PRIu64, c->transport->inbox, ++c->request);
    struct outgoing out = {.subject = subject, .reply = reply, .data = span_str(body)};
    enum err err = c->transport->ops->send(c->transport, &out);
    if (err != OK) {
        c->due_us = now_us + backoff_next_us(&c->pull_backoff);
        return err;
    }
    if (c->credit == 0) {
        c->heard_us = now_us;
    }
    c->credit += c->batch;
    c->since_pull = 0;
    c->pulled_us = now_us;
    return OK;
}

/* No word for so long: the requests were lost, or their answers. */
static void on_silence(struct consumer *c, uint64_t now_us)
{
    c->credit = 0;
    c->first_request = c->request + 1;
    if (++c->silences < SILENCES_MAX) {
        log_info(c->log, "bus: no heartbeat from stream %s of region %s: asking again", c->durable.stream, c->peer->region);
        return;
    }
    log_warn(c->log, "bus: no heartbeat from stream %s of region %s for the %uth time: looking for the consumer", c->durable.stream,
             c->peer->region, c->silences);
    durable_look_again(&c->durable, NULL, now_us);
    wait_for_durable(c);
}

/* Returns when to look again. */
static uint64_t step_pulling(struct consumer *c, uint64_t now_us)
{
    if (c->credit > 0 && now_us >= c->heard_us + SILENCE_US) {
        on_silence(c, now_us);
        if (c->state != CONSUMER_PULLING) {
            return now_us;
        }
    }
    if (c->credit > 0 && now_us >= c->pulled_us + PULL_EXPIRES_US + PULL_GRACE_US) {
        c->credit = 0; /* every request is over by now, whatever was lost */
        c->first_request = c->request + 1;
    }
    bool is_full = c->under_way >= DELIVERIES_SOFT;
    while (now_us >= c->due_us && !is_full && c->credit <= c->batch) {
        if (pull(c, now_us) != OK) {
            break;
        }
    }
    uint64_t next_us = UINT64_MAX;
    if (c->credit > 0) {
        next_us = MIN(c->heard_us + SILENCE_US, c->pulled_us + PULL_EXPIRES_US + PULL_GRACE_US);
    }
    if (c->due_us > now_us && c->credit <= c->batch && !is_full) {
        next_us = MIN(next_us, c->due_us);
    }
    return next_us;
}

uint64_t consumer_step(struct consumer *c, uint64_t now_us)
{
    durable_step(&c->durable, now_us);
    cursor_step(&c->cursor, now_us);
    follow(c, now_us);
    uint64_t unsupported_us = unsupported_step(&c->unsupported, now_us);
    uint64_t pulling_us = c->state == CONSUMER_PULLING ? step_pulling(c, now_us) : UINT64_MAX;
    pulling_us = MIN(pulling_us, unsupported_us);
    return MIN(pulling_us, MIN(c->durable.due_us, c->cursor.due_us)); /* each may have moved the other */
}

/* A pull request is over; what it did not deliver is no credit any more. */
static void give_back(struct consumer *c, const struct incoming *message)
{
    uint32_t n = message->has_pending ? message->pending_messages : c->batch;
    c->credit -= MIN(n, c->credit);
}

/* The usual end of a request. One that ends at once, with nothing in it, is not asked for again at once. */
static void on_request_over(struct consumer *c, uint64_t now_us)
{
    if (c->since_pull == 0 && now_us < c->pulled_us + PULL_PAUSE_US) {
        c->due_us = MAX(c->due_us, now_us + PULL_PAUSE_US);
    }
}

static void on_conflict(struct consumer *c, const struct incoming *message, uint64_t now_us)
{
    const char *what = message->description;
    give_back(c, message);
    if (strstr(what, "MaxBytes") != NULL || strstr(what, "Batch Completed") != NULL) {
        on_request_over(c, now_us);
        return;
    }
    if (strstr(what, "Consumer Deleted") != NULL) {
        log_warn(c->log, "bus: the consumer %s of region %s was deleted: creating it again", c->durable.name, c->peer->region);
        durable_look_again(&c->durable, "it was deleted", now_us);
        wait_for_durable(c);
        return;
    }
    struct answer shown; /* for a printable description */
    jetstream_answer(message, &shown);
    log_warn(c->log, "bus: region %s: a pull request was refused: %s", c->peer->region, shown.text);
    c->due_us = now_us + backoff_next_us(&c->pull_backoff);
}

static void hear(struct consumer *c, uint64_t now_us)
{
    c->heard_us = now_us;
    c->silences = 0;
    atomic_store_explicit(&c->told_heard_us, now_us, memory_order_relaxed);
}

void consumer_on_status(struct consumer *c, uint64_t request, const struct incoming *message, uint64_t now_us)
{
    if (c->state != CONSUMER_PULLING || request < c->first_request || request > c->request) {
        return; /* late */
    }
    hear(c, now_us);
    switch (message->status) {
    case STATUS_HEARTBEAT:
        break;
    case STATUS_NO_MESSAGES:
    case STATUS_EXPIRED:
        give_back(c, message);
        c->batch = PULL_BATCH;
        backoff_reset(&c->pull_backoff);
        on_request_over(c, now_us);
        break;
    case STATUS_CONFLICT:
        on_conflict(c, message, now_us);
        break;
    case STATUS_NO_RESPONDERS: /* neither stream nor consumer, or no JetStream */
        log_warn(c->log, "bus: region %s: stream %s or consumer %s is gone, or JetStream is not running; trying again", c->peer->region,
                 c->durable.stream, c->durable.name);
        durable_look_again(&c->durable, "its stream or consumer is gone, or JetStream is not running", now_us);
        wait_for_durable(c);
        break;
    default:
        give_back(c, message);
        count_error(c, ERR_PROTOCOL);
        log_error(c->log, "bus: region %s: a pull request was answered with status %d", c->peer->region, message->status);
        c->due_us = now_us + backoff_next_us(&c->pull_backoff);
    }
}

/* --- messages --- */

/* Tells the stream what became of a message, unless that was given up (""). What does not arrive only means that the message comes again. */
static void settle(struct consumer *c, const char *reply, const char *verdict)
{
    if (c->state == CONSUMER_DOWN || reply[0] == '\0') {
        return;
    }
    struct outgoing out = {.subject = reply, .data = span_str(verdict)};
    enum err err = c->transport->ops->send(c->transport, &out);
    if (err != OK && err != ERR_UNAVAILABLE) { /* the latter: while stopping */
        log_warn(c->log, "bus: region %s: an acknowledgement could not be sent; the message will come again", c->peer->region);
    }
}

static void settle_later(struct consumer *c, const char *reply, uint64_t delay_ms)
{
    char verdict[64];
    snprintf(verdict, sizeof verdict, "-NAK {\"delay\": %" PRIu64 "}", delay_ms * 1000000);
    settle(c, reply, verdict);
}

/* The longer an event can not be applied, the less often it is tried. */
static void settle_failed(struct consumer *c, const char *reply)
{
    uint32_t deliveries = MAX(jetstream_deliveries(reply), 1U);
    uint64_t delay_ms = (uint64_t)NAK_MIN_MS << MIN(deliveries - 1, 16U);
    settle_later(c, reply, MIN(delay_ms, (uint64_t)NAK_MAX_MS));
}

static void on_malformed(struct consumer *c, const char *reply, const char *why)
{
    count(c, METRIC_BUS_MALFORMED, 1);
    count_error(c, ERR_INVALID);
    log_error(c->log, "bus: a message of region %s was dropped (%s): %s", c->peer->region, reply, why);
    settle(c, reply, "+TERM");
}

static void on_delivery_done(struct mail *mail, void *owner)
{
    consumer_on_done(container_of(mail, struct delivery, mail), clock_wall_ms());
}

static void deliver(struct consumer *c, const char *reply, const struct invalidation *events, uint32_t n)
{
    struct bus_message *message = malloc(sizeof *message + n * sizeof message->deliveries[0]);
    if (message == NULL) {
        count_error(c, ERR_NOMEM);
        settle_failed(c, reply);
        return;
    }
    message->consumer = c;
    message->remaining = message->count = n;
    message->err = OK;
    snprintf(message->reply, sizeof message->reply, "%s", reply);
    list_push_back(&c->messages, &message->link);
    c->under_way += n;
    count(c, METRIC_BUS_RECEIVED, n);
    for (uint32_t i = 0; i < n; i++) {
        message->deliveries[i] = (struct delivery){
            .event = events[i],
            .peer = c->index,
            .reply_to = c->mailbox,
            .on_done = on_delivery_done,
            .message = message,
        };
    }
    for (uint32_t i = 0; i < n; i++) { /* done at the earliest when the mailbox is drained, so the message stays */
        c->sink.apply(c->sink.ctx, &message->deliveries[i]);
    }
}

void consumer_on_message(struct consumer *c, const struct incoming *message, uint64_t now_us)
{
    hear(c, now_us);
    struct delivered delivered;
    if (jetstream_delivered(message->reply, &delivered)) {
        atomic_store_explicit(&c->told_backlog, delivered.pending, memory_order_relaxed);
    }
    c->credit -= MIN(c->credit, 1U);
    c->since_pull++;
    if (jetstream_deliveries(message->reply) == 0 || strlen(message->reply) >= SUBJECT_MAX) {
        count(c, METRIC_BUS_MALFORMED, 1);
        count_error(c, ERR_PROTOCOL);
        log_error(c->log, "bus: a message on region %s's connection that is not from its stream", c->peer->region);
        return;
    }
    if (c->under_way >= DELIVERIES_HARD) {
        count_error(c, ERR_OVERLOAD);
        log_warn(c->log, "bus: too many invalidations of region %s are being applied; what comes is left for later",
                 c->peer->region);
        return;
    }
    if (strcmp(message->subject, c->key_subject) != 0 && strcmp(message->subject, c->rule_subject) != 0) {
        unsupported_take(&c->unsupported, message->reply, "an unknown kind of event", now_us);
        return;
    }
    struct invalidation *events = NULL;
    uint32_t n = 0;
    char why[ERROR_MAX] = "";
    enum err err = invalidation_decode(c->peer->region, message->data, &events, &n, why, sizeof why);
    switch (err) {
    case OK:
        backoff_reset(&c->pull_backoff);
        deliver(c, message->reply, events, n);
        break;
    case ERR_UNSUPPORTED:
        unsupported_take(&c->unsupported, message->reply, why, now_us);
        break;
    case ERR_NOMEM:
        count_error(c, err);
        settle_failed(c, message->reply);
        break;
    default:
        on_malformed(c, message->reply, why);
    }
    free(events);
}

/* All its events are applied, or somebody's who will: or it is delivered again. */
static void end_message(struct bus_message *message)
{
    struct consumer *c = message->consumer;
    if (message->err == OK) {
        settle(c, message->reply, "+ACK");
    } else {
        log_warn(c->log, "bus: an invalidation of region %s could not be applied: %s; it will be delivered again",
                 c->peer->region, err_text(message->err));
        settle_failed(c, message->reply);
    }
    list_remove(&message->link);
    free(message);
}

/* An event on its way into the spool. */
struct owing {
    struct publication publication;
    struct bus_message *message;
};

static void on_owed(struct publication *publication)
{
    struct owing *owing = container_of(publication, struct owing, publication);
    struct bus_message *message = owing->message;
    message->err = publication->err != OK ? publication->err : message->err;
    free(owing);
    if (--message->remaining == 0) {
        end_message(message);
    }
}

/* The spool takes over what could not be applied, and tries on. */
static void owe(struct consumer *c, struct bus_message *message)
{
    message->err = OK;
    for (uint32_t i = 0; i < message->count; i++) {
        message->remaining += message->deliveries[i].err != OK;
    }
    for (uint32_t i = 0; i < message->count; i++) {
        if (message->deliveries[i].err != OK) {
            struct owing *owing = xcalloc(1, sizeof *owing);
            owing->message = message;
            owing->publication.reply_to = c->mailbox;
            owing->publication.on_done = on_owed;
            owing->publication.event = message->deliveries[i].event;
            owing->publication.kind = SPOOL_OWED;
            owing->publication.debts = DEBT_NODE;
            c->spool->take(c->spool->ctx, &owing->publication); /* answers by the mailbox, so the message stays */
        }
    }
}

void consumer_on_done(struct delivery *delivery, uint64_t wall_ms)
{
    struct bus_message *message = delivery->message;
    struct consumer *c = message->consumer;
    c->under_way--;
    if (delivery->err == OK) {
        uint64_t then_ms = delivery->event.timestamp_ms;
        count(c, METRIC_BUS_APPLIED, 1);
        atomic_store_explicit(&c->told_lag_ms, wall_ms > then_ms ? wall_ms - then_ms : 0, memory_order_relaxed);
        metrics_observe(c->metrics, METRIC_BUS_LAG_SECONDS, 1 + c->index, wall_ms > then_ms ? 1000 * (wall_ms - then_ms) : 0);
    } else {
        count(c, METRIC_BUS_FAILED, 1);
        message->err = message->err == OK ? delivery->err : message->err;
    }
    if (--message->remaining > 0) {
        return;
    }
    bool is_owed = message->err != OK && message->err != ERR_STOPPING && c->spool != NULL && jetstream_deliveries(message->reply) >= OWE_AFTER;
    if (is_owed) {
        owe(c, message);
    } else {
        end_message(message);
    }
}

const char *consumer_problem(const struct consumer *c)
{
    return durable_problem(&c->durable);
}
