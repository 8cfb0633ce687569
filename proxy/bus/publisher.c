#include "proxy/bus/publisher.h"

#include <assert.h>
#include <inttypes.h>

#include "common/clock.h"

#define RETRY_MIN_MS 20
#define RETRY_MAX_MS 500
#define SILENCE_US 1000000ULL /* without an acknowledgement for so long, a message is sent again */

/* A key takes at most twice its length in JSON (quotes and backslashes; what would take more goes as base64), the rest of an
 * event less than 100 bytes: a full batch always fits. */
static_assert(PUBLISH_EVENTS_MAX * (2 * KEY_MAX + 100) + 200 <= INVALIDATION_MESSAGE_MAX, "a batch must fit into a message");
static_assert(PUBLISH_EVENTS_MAX <= INVALIDATION_EVENTS_MAX, "others must accept our batches");

void publisher_init(struct publisher *p, const struct config *config, struct transport *transport, struct log *log,
                    struct metrics_shard *metrics, uint64_t id)
{
    *p = (struct publisher){
        .transport = transport,
        .log = log,
        .metrics = metrics,
        .id = id,
        .timeout_us = 1000ULL * config->bus->publish_timeout_ms,
        .max_pending = config->bus->max_pending,
        .next_number = 1,
    };
    jetstream_key_subject(config->region, p->key_subject);
    jetstream_rule_subject(config->region, p->rule_subject);
    jetstream_stream_name(config->region, p->stream);
}

/* --- a publication's end --- */

static void deliver_result(struct mail *mail, void *owner)
{
    struct publication *publication = container_of(mail, struct publication, mail);
    publication->on_done(publication);
}

void publication_finish(struct publication *publication, enum err err)
{
    publication->err = err;
    publication->mail.deliver = deliver_result;
    mailbox_post(publication->reply_to, &publication->mail);
}

void publisher_message_id(uint64_t sender, uint64_t message, char out[static MSG_ID_SIZE])
{
    snprintf(out, MSG_ID_SIZE, "%016" PRIx64 "-%" PRIu64, sender, message);
}

static void count_failure(struct publisher *p, enum err err)
{
    metrics_add(p->metrics, METRIC_BUS_PUBLISH_FAILED, 0, 1);
    metrics_add(p->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, err), 1);
}

/* What was not published: to the spool, or back. */
static void give_up(struct publisher *p, struct publication *publication, enum err err)
{
    count_failure(p, err);
    if (p->spool != NULL && err != ERR_INVALID) {
        p->spool->take(p->spool->ctx, publication);
    } else {
        publication_finish(publication, err);
    }
}

/* `publication` is on no queue any more. */
static void finish(struct publisher *p, struct publication *publication, enum err err, uint64_t now_us)
{
    p->pending--;
    if (err != OK) {
        give_up(p, publication, err);
        return;
    }
    if (publication->reserved != NULL) {
        p->spool->clear(p->spool->ctx, publication);
    }
    metrics_add(p->metrics, METRIC_BUS_PUBLISHED, 0, 1);
    uint64_t since_us = publication->submitted_us;
    metrics_observe(p->metrics, METRIC_BUS_PUBLISH_SECONDS, 0, now_us > since_us ? now_us - since_us : 0);
    publication_finish(publication, OK);
}

static void finish_all(struct publisher *p, struct publication **head, enum err err, uint64_t now_us)
{
    struct publication *publication = *head;
    *head = NULL;
    while (publication != NULL) {
        struct publication *next = publication->next;
        finish(p, publication, err, now_us);
        publication = next;
    }
}

static void finish_batch(struct publisher *p, struct batch *b, enum err err, uint64_t now_us)
{
    finish_all(p, &b->head, err, now_us);
    free(b->data);
    *b = (struct batch){.due_us = UINT64_MAX};
}

/* Those at the front whose time is up; returns when the next one's is. */
static uint64_t finish_late(struct publisher *p, struct publication **head, uint64_t now_us)
{
    while (*head != NULL) {
        struct publication *publication = *head;
        if (publication->submitted_us + p->timeout_us > now_us) {
            return publication->submitted_us + p->timeout_us;
        }
        *head = publication->next;
        finish(p, publication, ERR_TIMEOUT, now_us);
    }
    return UINT64_MAX;
}

/* --- in --- */

void publisher_submit(struct publisher *p, struct publication *publication)
{
    enum err err = p->is_stopping                                ? ERR_STOPPING
                   : !invalidation_is_valid(&publication->event) ? ERR_INVALID
                   : !p->is_up                                   ? ERR_UNAVAILABLE
                   : p->pending >= p->max_pending                ? ERR_OVERLOAD
                                                                 : OK;
    if (err != OK) {
        give_up(p, publication, err);
        return;
    }
    publication->sender = 0;
    publication->next = NULL;
    if (p->head == NULL) {
        p->head = publication;
    } else {
        p->tail->next = publication;
    }
    p->tail = publication;
    p->pending++;
}

void publisher_stop(struct publisher *p)
{
    uint64_t now_us = clock_mono_us();
    p->is_stopping = true;
    for (size_t i = 0; i < PUBLISH_WINDOW; i++) {
        finish_batch(p, &p->batches[i], ERR_STOPPING, now_us);
    }
    finish_all(p, &p->head, ERR_STOPPING, now_us);
}

/* --- out --- */

/* Silence is not refusal: the message may have arrived, which its Nats-Msg-Id takes care of. */
static void send_batch(struct publisher *p, struct batch *b, uint64_t now_us)
{
    char reply[SUBJECT_MAX];
    char msg_id[MSG_ID_SIZE];
    snprintf(reply, sizeof reply, "%s.p.%" PRIu64, p->transport->inbox, b->number);
    publisher_message_id(p->id, b->number, msg_id);
    struct outgoing out = {.subject = b->is_rules ? p->rule_subject : p->key_subject, .reply = reply, .msg_id = msg_id, .data = span_of(b->data, b->len)};
    enum err err = p->transport->ops->send(p->transport, &out);
    b->due_us = now_us + (err == OK ? SILENCE_US : backoff_next_us(&b->backoff));
}

/* Moves up to PUBLISH_EVENTS_MAX publications from the queue into one message: of keys or of rules, which have subjects of their own. */
static void start_batch(struct publisher *p, struct batch *b, uint64_t number, uint64_t now_us)
{
    const struct invalidation *events[PUBLISH_EVENTS_MAX];
    uint32_t count = 0;
    *b = (struct batch){.number = number, .head = p->head, .is_rules = p->head->event.is_pattern};
    while (p->head != NULL && count < PUBLISH_EVENTS_MAX && p->head->event.is_pattern == b->is_rules) {
        events[count++] = &p->head->event;
        b->tail = p->head;
        p->head = p->head->next;
    }
    b->tail->next = NULL;
    for (struct publication *publication = b->head; publication != NULL; publication = publication->next) {
        publication->sender = p->id;
        publication->message = number;
        publication->count = (uint16_t)count;
    }
    backoff_init(&b->backoff, RETRY_MIN_MS, RETRY_MAX_MS, p->id ^ number);
    const char *region = p->stream + sizeof "INVAL_" - 1;
    enum err err = invalidation_encode(region, events, count, &b->data, &b->len);
    if (err != OK) {
        log_error(p->log, "bus: %u invalidations can not be encoded: %s", count, err_text(err));
        finish_batch(p, b, err, now_us);
        return;
    }
    send_batch(p, b, now_us);
}

static void start_batches(struct publisher *p, uint64_t now_us)
{
    for (size_t i = 0; i < PUBLISH_WINDOW && p->head != NULL; i++) {
        struct batch *b = &p->batches[p->next_number % PUBLISH_WINDOW];
        if (b->number == 0) {
            start_batch(p, b, p->next_number, now_us);
        }
        p->next_number++;
    }
}

uint64_t publisher_step(struct publisher *p, uint64_t now_us)
{
    uint64_t next_us = finish_late(p, &p->head, now_us);
    for (size_t i = 0; i < PUBLISH_WINDOW; i++) {
        struct batch *b = &p->batches[i];
        if (b->number == 0) {
            continue;
        }
        bool is_late = b->head->submitted_us + p->timeout_us <= now_us;
        uint64_t late_us = p->spool != NULL ? b->head->submitted_us + p->timeout_us : finish_late(p, &b->head, now_us);
        if (b->head == NULL || (is_late && p->spool != NULL)) {
            finish_batch(p, b, ERR_TIMEOUT, now_us);
        } else {
            if (p->is_up && b->due_us <= now_us) {
                send_batch(p, b, now_us);
            }
            next_us = MIN(next_us, p->is_up ? MIN(late_us, b->due_us) : late_us);
        }
    }
    if (p->is_up && p->head != NULL) {
        start_batches(p, now_us);
        for (size_t i = 0; i < PUBLISH_WINDOW; i++) {
            const struct batch *b = &p->batches[i];
            next_us = b->number != 0 ? MIN(next_us, MIN(b->due_us, b->head->submitted_us + p->timeout_us)) : next_us;
        }
    }
    return next_us;
}

/* --- what comes back --- */

void publisher_on_up(struct publisher *p, uint64_t now_us)
{
    p->is_up = true;
    for (size_t i = 0; i < PUBLISH_WINDOW; i++) {
        if (p->batches[i].number != 0) { /* whether it arrived is not known */
            p->batches[i].due_us = now_us;
        }
    }
}

/* What has never been sent fails at once; what has been sent has until its timeout for the connection to come back. */
void publisher_on_down(struct publisher *p)
{
    p->is_up = false;
    finish_all(p, &p->head, ERR_UNAVAILABLE, 0);
}

static bool was_stored(struct publisher *p, const struct answer *answer)
{
    if (jetstream_was_stored(answer, p->stream)) {
        return true;
    }
    log_error(p->log,
              "bus: %s was not stored by stream %s: another stream has this subject, and the other regions do not read it",
              p->key_subject, p->stream);
    return false;
}

/* It may yet be lost. */
static void keep(struct publisher *p, struct batch *b, const struct answer *answer, uint64_t now_us)
{
    char msg_id[MSG_ID_SIZE];
    if (p->ring == NULL) {
        return;
    }
    publisher_message_id(p->id, b->number, msg_id);
    struct ring_message message = {
        .subject = b->is_rules ? p->rule_subject : p->key_subject, .msg_id = msg_id, .data = b->data, .len = b->len};
    ring_add(p->ring, (uint64_t)json_integer_value(json_object_get(answer->root, "seq")), &message, now_us);
    b->data = NULL;
}

void publisher_on_answer(struct publisher *p, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    struct batch *b = &p->batches[number % PUBLISH_WINDOW];
    if (number == 0 || b->number != number) {
        return; /* late: it was answered, or given up */
    }
    struct answer answer;
    enum err err = jetstream_answer(message, &answer);
    switch (err) {
    case OK:
        err = was_stored(p, &answer) ? OK : ERR_BUS;
        if (err == OK) {
            keep(p, b, &answer, now_us);
        }
        finish_batch(p, b, err, now_us);
        break;
    case ERR_BUS:
        log_error(p->log, "bus: stream %s refused an invalidation: %s (%d)", p->stream, answer.text, answer.err_code);
        finish_batch(p, b, ERR_BUS, now_us);
        break;
    default: /* ERR_UNAVAILABLE, ERR_PROTOCOL */
        log_warn(p->log, "bus: stream %s: %s; publishing again", p->stream, answer.text);
        b->due_us = now_us + backoff_next_us(&b->backoff);
        if (message->status == STATUS_NO_RESPONDERS && p->on_no_stream != NULL) {
            p->on_no_stream(p->ctx);
        }
    }
    answer_clear(&answer);
}
