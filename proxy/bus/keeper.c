#include "proxy/bus/keeper.h"

#include <inttypes.h>

#define ANSWER_WAIT_US 5000000ULL
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 15000

void keeper_init(struct keeper *k, const struct config *config, struct transport *transport, struct log *log, uint64_t seed)
{
    *k = (struct keeper){
        .transport = transport,
        .log = log,
        .region = config->region,
        .config = config->bus,
        .state = KEEPER_DOWN,
        .due_us = UINT64_MAX,
    };
    jetstream_stream_name(config->region, k->stream);
    backoff_init(&k->backoff, RETRY_MIN_MS, RETRY_MAX_MS, seed);
}

static void retry_later(struct keeper *k, uint64_t now_us)
{
    k->state = KEEPER_WAITING;
    k->is_kept = false;
    k->due_us = now_us + backoff_next_us(&k->backoff);
}

/* `verb` is what is asked of the API; `body` NULL: an empty request. */
static void ask(struct keeper *k, enum keeper_state state, const char *verb, json_t *body, uint64_t now_us)
{
    char subject[SUBJECT_MAX];
    char reply[SUBJECT_MAX];
    k->request++;
    jetstream_api(NULL, verb, k->stream, NULL, subject);
    snprintf(reply, sizeof reply, "%s.k.%" PRIu64, k->transport->inbox, k->request);
    char *text = body != NULL ? json_dumps(body, JSON_COMPACT) : NULL;
    struct outgoing out = {.subject = subject, .reply = reply, .data = text != NULL ? span_str(text) : SPAN_LIT("")};
    enum err err = body != NULL && text == NULL ? ERR_NOMEM : k->transport->ops->send(k->transport, &out);
    free(text);
    if (err != OK) {
        snprintf(k->problem, sizeof k->problem, "%s", err_text(err));
        retry_later(k, now_us);
        return;
    }
    k->state = state;
    k->due_us = now_us + ANSWER_WAIT_US;
    if (k->ring != NULL) {
        ring_on_asked(k->ring, now_us);
    }
}

void keeper_on_up(struct keeper *k, uint64_t now_us)
{
    k->is_kept = false;
    backoff_reset(&k->backoff);
    ask(k, KEEPER_ASKED, "STREAM.INFO", NULL, now_us);
}

void keeper_on_down(struct keeper *k)
{
    k->state = KEEPER_DOWN;
    k->is_kept = false;
    k->due_us = UINT64_MAX;
    k->problem[0] = '\0';
}

void keeper_check(struct keeper *k, uint64_t now_us)
{
    if (k->state == KEEPER_KEPT) {
        k->is_kept = false;
        snprintf(k->problem, sizeof k->problem, "missing");
        ask(k, KEEPER_ASKED, "STREAM.INFO", NULL, now_us);
    }
}

static void kept(struct keeper *k, const char *how, uint64_t now_us)
{
    if (!k->is_kept) {
        log_info(k->log, "bus: stream %s of this region (%s) %s", k->stream, k->region, how);
    }
    k->state = KEEPER_KEPT;
    k->is_kept = true;
    k->due_us = now_us + KEEPER_CHECK_US;
    k->problem[0] = '\0';
    backoff_reset(&k->backoff);
}

static void create(struct keeper *k, uint64_t now_us)
{
    json_t *wanted = jetstream_stream_config(k->region, k->config);
    if (wanted == NULL) {
        snprintf(k->problem, sizeof k->problem, "%s", err_text(ERR_NOMEM));
        retry_later(k, now_us);
        return;
    }
    k->is_kept = false;
    snprintf(k->problem, sizeof k->problem, "missing");
    ask(k, KEEPER_CREATING, "STREAM.CREATE", wanted, now_us);
    json_decref(wanted);
}

static void refuse(struct keeper *k, const char *why, uint64_t now_us)
{
    snprintf(k->problem, sizeof k->problem, "drops invalidations, and can not be changed (%s): %s; change it, or let this account do so", why, k->drops);
    log_error(k->log, "bus: stream %s of this region (%s) %s", k->stream, k->region, k->problem);
    retry_later(k, now_us);
}

static void compare(struct keeper *k, const json_t *info, uint64_t now_us)
{
    json_t *wanted = jetstream_stream_config(k->region, k->config);
    const json_t *existing = json_object_get(info, "config");
    bool differs = true;
    k->drops[0] = '\0';
    bool drops = settings_stream_drops(existing, k->config, k->drops);
    json_t *merged = wanted != NULL && json_is_object(existing) ? jetstream_stream_merge(existing, wanted, &differs) : NULL;
    json_decref(wanted);
    if (merged == NULL) {
        snprintf(k->problem, sizeof k->problem, "its settings can not be read");
        retry_later(k, now_us);
    } else if (differs) {
        ask(k, KEEPER_UPDATING, "STREAM.UPDATE", merged, now_us);
    } else if (drops) {
        refuse(k, "by an update", now_us);
    } else {
        kept(k, "is there", now_us);
    }
    json_decref(merged);
}

/* The stream is there with other settings, which can not be changed. Unless they drop events it works nevertheless: whether a publication
 * reaches it shows in the acknowledgement. */
static void on_unchangeable(struct keeper *k, const char *why, uint64_t now_us)
{
    if (k->drops[0] != '\0') {
        refuse(k, why, now_us);
        return;
    }
    if (!k->is_kept) {
        log_error(k->log, "bus: stream %s of this region (%s) has other settings than configured, and they can not be changed: %s", k->stream,
                  k->region, why);
    }
    kept(k, "is used as it is", now_us);
}

static void on_refusal(struct keeper *k, const struct answer *answer, uint64_t now_us)
{
    if (k->state == KEEPER_ASKED && answer->err_code == JETSTREAM_STREAM_NOT_FOUND) {
        create(k, now_us);
        return;
    }
    if (k->state == KEEPER_CREATING && answer->err_code == JETSTREAM_STREAM_NAME_EXISTS) {
        retry_later(k, now_us); /* another sidecar was faster: look at what it has made */
        return;
    }
    if (jetstream_is_for_later(answer)) {
        snprintf(k->problem, sizeof k->problem, "%s", answer->text);
        retry_later(k, now_us);
        return;
    }
    if (k->state == KEEPER_UPDATING && answer->code != STATUS_NO_RESPONDERS && answer->err_code != 0) {
        on_unchangeable(k, answer->text, now_us);
        return;
    }
    snprintf(k->problem, sizeof k->problem, "%s", answer->text);
    retry_later(k, now_us);
    log_warn(k->log, "bus: stream %s of this region (%s) is not ready: %s (%d); invalidations can not be published; trying again",
             k->stream, k->region, answer->text, answer->err_code != 0 ? answer->err_code : answer->code);
}

void keeper_on_answer(struct keeper *k, uint64_t request, const struct incoming *message, uint64_t now_us)
{
    bool waits = k->state == KEEPER_ASKED || k->state == KEEPER_CREATING || k->state == KEEPER_UPDATING;
    if (request != k->request || !waits) {
        return;
    }
    struct answer answer;
    struct stream_info info;
    enum err err = jetstream_answer(message, &answer);
    if (err == OK && k->ring != NULL && jetstream_stream_info(answer.root, &info)) {
        ring_on_info(k->ring, &info, now_us);
    }
    if (err != OK) {
        on_refusal(k, &answer, now_us);
    } else if (k->state == KEEPER_ASKED) {
        compare(k, answer.root, now_us);
    } else if (k->state == KEEPER_UPDATING && settings_stream_drops(json_object_get(answer.root, "config"), k->config, k->drops)) {
        refuse(k, "the server left it as it was", now_us);
    } else {
        kept(k, k->state == KEEPER_CREATING ? "was created" : "was given the configured settings", now_us);
    }
    answer_clear(&answer);
}

/* What an account may not ask is not answered either. */
static void on_silence(struct keeper *k, uint64_t now_us)
{
    if (k->state == KEEPER_UPDATING) {
        on_unchangeable(k, "STREAM.UPDATE is not answered; perhaps this account may not ask for it", now_us);
        return;
    }
    snprintf(k->problem, sizeof k->problem, "is not known: JetStream does not answer to %s; perhaps this account may not ask for it",
             k->state == KEEPER_ASKED ? "STREAM.INFO" : "STREAM.CREATE");
    log_warn(k->log, "bus: stream %s of this region (%s) %s; trying again", k->stream, k->region, k->problem);
    retry_later(k, now_us);
}

uint64_t keeper_step(struct keeper *k, uint64_t now_us)
{
    if (k->due_us > now_us) {
        return k->due_us;
    }
    if (k->state == KEEPER_WAITING || k->state == KEEPER_KEPT) {
        ask(k, KEEPER_ASKED, "STREAM.INFO", NULL, now_us);
    } else {
        on_silence(k, now_us);
    }
    return k->due_us;
}

const char *keeper_problem(const struct keeper *k)
{
    if (k->is_kept) {
        return NULL;
    }
    return k->problem[0] != '\0' ? k->problem : "being checked";
}
