#include "proxy/bus/durable.h"

#include <inttypes.h>

#define ANSWER_WAIT_US 5000000ULL
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 15000
#define START_WAIT_US 3000000ULL /* for the cursor; it needs this region's NATS, which the other region's events do not wait for */

void durable_init(struct durable *d, const struct config *config, struct transport *transport, struct log *log,
                  struct metrics_shard *metrics, uint32_t index, uint64_t seed)
{
    *d = (struct durable){
        .transport = transport,
        .log = log,
        .metrics = metrics,
        .own_region = config->region,
        .peer = &config->bus->peers[index],
        .ack_wait_ms = config->bus->ack_wait_ms,
        .due_us = UINT64_MAX,
    };
    jetstream_stream_name(d->peer->region, d->stream);
    jetstream_consumer_name(d->own_region, d->name);
    backoff_init(&d->backoff, RETRY_MIN_MS, RETRY_MAX_MS, seed + index);
}

static void count_error(struct durable *d, enum err err)
{
    metrics_add(d->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, err), 1);
}

static void retry_later(struct durable *d, uint64_t now_us)
{
    d->state = DURABLE_WAITING;
    d->due_us = now_us + backoff_next_us(&d->backoff);
}

static void ask(struct durable *d, enum durable_state state, const char *verb, const char *body, uint64_t now_us)
{
    char subject[SUBJECT_MAX];
    char reply[SUBJECT_MAX];
    jetstream_api(d->peer->domain, verb, d->stream, d->name, subject);
    snprintf(reply, sizeof reply, "%s.c.%" PRIu64, d->transport->inbox, ++d->request);
    struct outgoing out = {.subject = subject, .reply = reply, .data = span_str(body != NULL ? body : "")};
    enum err err = body != NULL ? d->transport->ops->send(d->transport, &out) : ERR_NOMEM;
    if (err != OK) {
        snprintf(d->problem, sizeof d->problem, "%s", err_text(err));
        retry_later(d, now_us);
        return;
    }
    d->state = state;
    d->due_us = now_us + ANSWER_WAIT_US;
}

static void look(struct durable *d, uint64_t now_us)
{
    ask(d, DURABLE_LOOKING, "CONSUMER.INFO", "", now_us);
}

void durable_on_up(struct durable *d, uint64_t now_us)
{
    d->problem[0] = '\0';
    d->start_seq = 0; /* it may be another stream than the last time */
    d->wants_start = false;
    d->wait_us = now_us + START_WAIT_US;
    backoff_reset(&d->backoff);
    look(d, now_us);
}

void durable_on_down(struct durable *d)
{
    d->state = DURABLE_DOWN;
    d->due_us = UINT64_MAX;
    d->no_stream = false;
    d->problem[0] = '\0';
}

void durable_look_again(struct durable *d, const char *problem, uint64_t now_us)
{
    if (d->state != DURABLE_READY) {
        return;
    }
    d->wait_us = now_us + START_WAIT_US;
    if (problem == NULL) {
        look(d, now_us);
        return;
    }
    snprintf(d->problem, sizeof d->problem, "%s", problem);
    retry_later(d, now_us);
}

static void create(struct durable *d, uint64_t now_us)
{
    char *body = jetstream_consumer_body(d->stream, d->own_region, d->ack_wait_ms, d->start_seq);
    d->wants_start = false;
    ask(d, DURABLE_CREATING, "CONSUMER.DURABLE.CREATE", body, now_us);
    free(body);
}

void durable_start_at(struct durable *d, uint64_t seq, uint64_t now_us)
{
    d->start_seq = seq;
    if (d->wants_start && d->state == DURABLE_WAITING) {
        create(d, now_us);
    }
}

void durable_remake(struct durable *d, uint64_t now_us)
{
    d->start_seq = 0;
    d->wants_start = false; /* the next look asks anew */
    d->wait_us = now_us + START_WAIT_US;
    if (d->state != DURABLE_DOWN) {
        log_warn(d->log, "bus: the consumer %s of region %s is ahead of what this region has applied: it is made anew", d->name,
                 d->peer->region);
        ask(d, DURABLE_DELETING, "CONSUMER.DELETE", "", now_us);
    }
}

static void ready(struct durable *d)
{
    d->state = DURABLE_READY;
    d->due_us = UINT64_MAX;
    d->no_stream = false;
    d->wants_start = false;
    d->problem[0] = '\0';
    backoff_reset(&d->backoff);
}

static void on_missing(struct durable *d, uint64_t now_us)
{
    d->no_stream = false;
    if (d->has_cursor && d->start_seq == 0 && now_us < d->wait_us) {
        snprintf(d->problem, sizeof d->problem, "where to begin is being found out");
        d->wants_start = true;
        d->state = DURABLE_WAITING;
        d->due_us = d->wait_us;
        return;
    }
    create(d, now_us);
}

static void refuse(struct durable *d, const char *why, uint64_t now_us)
{
    snprintf(d->problem, sizeof d->problem, "the consumer %s drops events, and can not be changed (%s): %s; delete it, or let this account change it",
             d->name, why, d->drops);
    count_error(d, ERR_BUS);
    log_error(d->log, "bus: the invalidations of region %s are not received: %s", d->peer->region, d->problem);
    retry_later(d, now_us);
}

/* Other settings that it can not be given: used as it is, unless they drop events. */
static void on_unchangeable(struct durable *d, const char *why, uint64_t now_us)
{
    if (d->drops[0] != '\0') {
        refuse(d, why, now_us);
        return;
    }
    log_warn(d->log, "bus: the consumer %s of region %s has other settings than configured, and can not be changed: %s; it is used as it is",
             d->name, d->peer->region, why);
    ready(d);
}

static void compare(struct durable *d, const json_t *info, uint64_t now_us)
{
    const json_t *existing = json_object_get(info, "config");
    char *body = jetstream_consumer_body(d->stream, d->own_region, d->ack_wait_ms, 0);
    json_t *wanted = body != NULL ? json_loads(body, 0, NULL) : NULL;
    free(body);
    body = wanted != NULL && json_is_object(existing) ? settings_consumer_update(existing, wanted) : NULL;
    json_decref(wanted);
    d->drops[0] = '\0';
    bool drops = settings_consumer_drops(existing, d->drops);
    if (body != NULL) {
        ask(d, DURABLE_UPDATING, "CONSUMER.DURABLE.CREATE", body, now_us);
    } else if (drops) {
        refuse(d, "by an update", now_us);
    } else {
        ready(d);
    }
    free(body);
}

static void on_refusal(struct durable *d, const struct answer *answer, uint64_t now_us)
{
    bool was_missing = d->no_stream;
    d->no_stream = answer->err_code == JETSTREAM_STREAM_NOT_FOUND;
    if (d->no_stream) {
        d->start_seq = 0; /* of a stream that is no more */
    }
    snprintf(d->problem, sizeof d->problem, "%s", answer->text);
    retry_later(d, now_us);
    if (!d->no_stream) {
        count_error(d, ERR_BUS);
        log_warn(d->log, "bus: the invalidations of region %s can not be received: %s (%d); trying again", d->peer->region,
                 answer->text, answer->err_code != 0 ? answer->err_code : answer->code);
    } else if (!was_missing) {
        log_info(d->log, "bus: region %s has no stream %s yet: waiting for a sidecar of that region to create it",
                 d->peer->region, d->stream);
    }
}

/* What the server says that it has made of it. */
static void on_made(struct durable *d, const json_t *info, uint64_t now_us)
{
    d->drops[0] = '\0';
    if (settings_consumer_drops(json_object_get(info, "config"), d->drops)) {
        refuse(d, "the server left it as it was", now_us);
    } else {
        ready(d);
    }
}

void durable_on_answer(struct durable *d, uint64_t request, const struct incoming *message, uint64_t now_us)
{
    if (request != d->request || d->state == DURABLE_DOWN || d->state == DURABLE_WAITING || d->state == DURABLE_READY) {
        return;
    }
    struct answer answer;
    enum err err = jetstream_answer(message, &answer);
    if (d->state == DURABLE_DELETING) {
        look(d, now_us);
    } else if (err == OK && d->state == DURABLE_LOOKING) {
        compare(d, answer.root, now_us);
    } else if (err == OK) {
        on_made(d, answer.root, now_us);
    } else if (d->state == DURABLE_LOOKING && answer.err_code == JETSTREAM_CONSUMER_NOT_FOUND) {
        on_missing(d, now_us);
    } else if (jetstream_is_for_later(&answer)) {
        d->no_stream = false;
        snprintf(d->problem, sizeof d->problem, "%s", answer.text);
        retry_later(d, now_us);
    } else if (d->state == DURABLE_UPDATING && answer.err_code != 0) {
        on_unchangeable(d, answer.text, now_us);
    } else {
        on_refusal(d, &answer, now_us);
    }
    answer_clear(&answer);
}

/* What an account may not ask is not answered either. */
static void on_silence(struct durable *d, uint64_t now_us)
{
    static const char *const verbs[] = {[DURABLE_LOOKING] = "CONSUMER.INFO", [DURABLE_CREATING] = "CONSUMER.DURABLE.CREATE",
                                        [DURABLE_DELETING] = "CONSUMER.DELETE"};
    if (d->state == DURABLE_UPDATING) {
        on_unchangeable(d, "CONSUMER.DURABLE.CREATE is not answered; perhaps this account may not ask for it", now_us);
        return;
    }
    snprintf(d->problem, sizeof d->problem, "JetStream does not answer to %s; perhaps this account may not ask for it", verbs[d->state]);
    log_warn(d->log, "bus: region %s: %s; trying again", d->peer->region, d->problem);
    retry_later(d, now_us);
}

uint64_t durable_step(struct durable *d, uint64_t now_us)
{
    if (now_us < d->due_us) {
        return d->due_us;
    }
    if (d->state == DURABLE_WAITING && d->wants_start) {
        create(d, now_us); /* without the cursor: all there is comes again */
    } else if (d->state == DURABLE_WAITING) {
        look(d, now_us);
    } else {
        on_silence(d, now_us);
    }
    return d->due_us;
}

const char *durable_problem(const struct durable *d)
{
    if (d->state == DURABLE_READY || d->no_stream) {
        return NULL;
    }
    return d->problem[0] != '\0' ? d->problem : "its stream is being looked for";
}
