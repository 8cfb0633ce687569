#include "proxy/bus/election.h"

#include <inttypes.h>

#include "proxy/protocol/base64.h"

#define ANSWER_WAIT_US 2000000ULL
#define RETRY_MIN_MS 250
#define RETRY_MAX_MS 5000

void election_init(struct election *e, const struct election_context *context, uint64_t now_us)
{
    *e = (struct election){
        .transport = context->transport,
        .log = context->log,
        .config = context->config,
        .role = context->role,
        .lease_us = context->lease_us,
        .slot_count = MIN(context->slot_count, (uint32_t)ELECTION_SLOTS_MAX),
        .kind = context->kind,
        .state = ELECTION_DOWN,
        .due_us = UINT64_MAX,
        .heard_us = now_us,
        .own = ELECTION_NO_SLOT,
    };
    snprintf(e->id, sizeof e->id, "%016" PRIx64, context->seed);
    base64_put(e->id64, span_str(e->id));
    jetstream_bucket_name("ROLES", context->config->region, e->stream);
    e->finder = (struct finder){.stream = e->stream, .config = context->config->bus};
    backoff_init(&e->backoff, RETRY_MIN_MS, RETRY_MAX_MS, context->seed);
}

static const char *bucket(const struct election *e)
{
    return e->stream + sizeof "KV_" - 1;
}

static void subject_of(const struct election *e, uint32_t slot, char out[static SUBJECT_MAX])
{
    snprintf(out, SUBJECT_MAX, "$KV.%s.%s.%" PRIu32, bucket(e), e->role, slot);
}

/* --- asking --- */

static enum err ask(struct election *e, struct outgoing *out)
{
    char reply[SUBJECT_MAX];
    snprintf(reply, sizeof reply, "%s.%c.%" PRIu64, e->transport->inbox, e->kind, ++e->request);
    out->reply = reply;
    return e->transport->ops->send(e->transport, out);
}

static void retry_later(struct election *e, uint64_t now_us)
{
    e->state = ELECTION_WAITING;
    e->due_us = now_us + backoff_next_us(&e->backoff);
    e->writing = 0;
}

static void find(struct election *e, uint64_t now_us)
{
    char subject[SUBJECT_MAX];
    char *body = finder_body(&e->finder);
    jetstream_api(NULL, finder_verb(&e->finder), e->stream, NULL, subject);
    enum err err = body == NULL ? ERR_NOMEM : ask(e, &(struct outgoing){.subject = subject, .data = span_str(body)});
    free(body);
    if (err != OK) {
        retry_later(e, now_us);
        return;
    }
    e->state = ELECTION_FINDING;
    e->finding = e->request;
    e->due_us = now_us + ANSWER_WAIT_US;
}

static void look(struct election *e, uint32_t i, uint64_t now_us)
{
    char subject[SUBJECT_MAX];
    char entry[SUBJECT_MAX];
    char body[SUBJECT_MAX + 32];
    struct election_slot *slot = &e->slots[i];
    if (slot->looking != 0) { /* the last one had no answer: what happened meanwhile is not known */
        slot->seen_us = now_us;
    }
    jetstream_api(NULL, "STREAM.MSG.GET", e->stream, NULL, subject);
    subject_of(e, i, entry);
    snprintf(body, sizeof body, "{\"last_by_subj\":\"%s\"}", entry);
    slot->looking = ask(e, &(struct outgoing){.subject = subject, .data = span_str(body)}) == OK ? e->request : 0;
}

/* Over what the slot's entry was when we last heard of it. */
static void write_entry(struct election *e, uint32_t i, uint64_t now_us)
{
    char subject[SUBJECT_MAX];
    subject_of(e, i, subject);
    struct outgoing out = {.subject = subject, .has_expected = true, .expected_seq = e->slots[i].seq, .data = span_str(e->id)};
    if (e->is_resigning) {
        out.kv_operation = "DEL";
        out.data = SPAN_LIT("");
    }
    bool is_sent = ask(e, &out) == OK;
    e->writing = is_sent ? e->request : 0;
    e->is_unanswered = is_sent;
    e->is_giving_back = e->is_resigning;
    e->writing_slot = i;
    e->written_us = now_us;
}

static bool is_to_be_had(const struct election *e, const struct election_slot *slot, uint64_t now_us)
{
    return slot->is_known && (!slot->is_held || now_us >= slot->seen_us + e->lease_us);
}

/* Begins with another slot than its neighbours do; or with the one that may be its own without its having heard: beside it, it must not have another. */
static void take_one(struct election *e, uint64_t now_us)
{
    uint64_t first = e->is_unanswered ? e->writing_slot : e->backoff.random;
    if (e->is_unanswered && !e->slots[e->writing_slot].is_known) {
        return; /* it is being looked at */
    }
    for (uint32_t n = 0; n < e->slot_count && e->own == ELECTION_NO_SLOT && e->writing == 0 && !e->is_resigning; n++) {
        uint32_t i = (uint32_t)((first + n) % e->slot_count);
        if (is_to_be_had(e, &e->slots[i], now_us)) {
            write_entry(e, i, now_us);
        }
    }
}

/* --- answers --- */

static void lose(struct election *e)
{
    e->own = ELECTION_NO_SLOT;
    e->until_us = 0;
}

static void take_part(struct election *e, uint64_t now_us)
{
    e->state = ELECTION_TAKING_PART;
    e->due_us = now_us;
}

/* It works: there is somebody with the role, or will be within the lease. */
static void on_working(struct election *e, uint64_t now_us)
{
    e->heard_us = now_us;
    e->was_refused = false;
    backoff_reset(&e->backoff);
}

static void on_refused(struct election *e, const struct answer *answer, uint64_t now_us)
{
    if (!e->was_refused) {
        log_warn(e->log, "bus: bucket %s can not be used: %s (%d); trying again", bucket(e), answer->text,
                 answer->err_code != 0 ? answer->err_code : answer->code);
    }
    e->was_refused = true;
    retry_later(e, now_us);
}

static void on_found(struct election *e, enum finder_result result, const struct answer *answer, uint64_t now_us)
{
    switch (result) {
    case FINDER_THERE: take_part(e, now_us); break;
    case FINDER_AGAIN: find(e, now_us); break;
    case FINDER_LATER: retry_later(e, now_us); break;
    case FINDER_REFUSED: on_refused(e, answer, now_us); break;
    }
}

static void on_written(struct election *e, enum err err, const struct answer *answer, uint64_t now_us)
{
    uint32_t i = e->writing_slot;
    struct election_slot *slot = &e->slots[i];
    e->writing = 0;
    e->is_unanswered = false;
    if (err == OK && jetstream_was_stored(answer, e->stream)) {
        slot->seq = (uint64_t)json_integer_value(json_object_get(answer->root, "seq"));
        slot->is_known = true;
        slot->is_held = !e->is_giving_back;
        slot->seen_us = now_us;
        slot->looking = 0; /* the server may answer with what was there before, although that was asked first: other hands of it store */
        on_working(e, now_us);
        e->own = e->is_giving_back ? ELECTION_NO_SLOT : i;
        e->until_us = e->is_giving_back ? 0 : e->written_us + e->lease_us;
        e->due_us = e->written_us + e->lease_us / 3;
        if (e->is_resigning && !e->is_giving_back) { /* it was being taken when the end came */
            write_entry(e, i, now_us);
        }
    } else if (answer->err_code == JETSTREAM_WRONG_LAST_SEQUENCE) { /* somebody was faster, or our own last write got there after all */
        look(e, i, now_us);
    } else {
        on_refused(e, answer, now_us); /* a server that lost its disk has no bucket any more */
    }
}

static void on_looked(struct election *e, struct election_slot *slot, const struct answer *answer, uint64_t now_us)
{
    const json_t *message = json_object_get(answer->root, "message");
    const char *data = json_string_value(json_object_get(message, "data"));
    uint64_t seq = (uint64_t)json_integer_value(json_object_get(message, "seq"));
    uint32_t i = (uint32_t)(slot - e->slots);
    bool is_ours = data != NULL && strcmp(data, e->id64) == 0;
    bool has_changed = !slot->is_known || seq != slot->seq;
    slot->is_alive = slot->is_alive || (has_changed && slot->is_known && !is_ours);
    slot->seen_us = has_changed ? now_us : slot->seen_us;
    slot->is_known = true;
    slot->seq = seq;
    slot->is_held = data != NULL && data[0] != '\0';
    if (has_changed && slot->is_held) {
        on_working(e, now_us);
    }
    if (i == e->own && slot->is_held && !is_ours) {
        log_info(e->log, "bus: another sidecar has taken over %s.%u (bucket %s)", e->role, i, bucket(e));
        lose(e);
    } else if (i == e->own || (is_ours && e->own == ELECTION_NO_SLOT)) { /* nobody's any more, or ours without our having heard: written anew */
        e->own = i;
        if (e->writing == 0) {
            write_entry(e, i, now_us);
        }
    }
    take_one(e, now_us);
}

static bool is_gone(const struct answer *answer)
{
    return answer->err_code == JETSTREAM_STREAM_NOT_FOUND || answer->code == STATUS_NO_RESPONDERS;
}

void election_on_answer(struct election *e, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    struct election_slot *slot = NULL;
    for (uint32_t i = 0; i < e->slot_count && number != 0; i++) {
        slot = e->slots[i].looking == number ? &e->slots[i] : slot;
    }
    bool is_found = e->state == ELECTION_FINDING && number == e->finding;
    bool is_written = e->writing != 0 && number == e->writing;
    if (!is_found && !is_written && slot == NULL) {
        return; /* late */
    }
    struct answer answer;
    enum err err = jetstream_answer(message, &answer);
    if (is_found) {
        on_found(e, finder_on_answer(&e->finder, err, &answer), &answer, now_us);
    } else if (is_written) {
        on_written(e, err, &answer, now_us);
    } else {
        slot->looking = 0;
        if (err == OK || answer.err_code == JETSTREAM_NO_MESSAGE) {
            on_looked(e, slot, &answer, now_us);
        } else if (is_gone(&answer) && e->state == ELECTION_TAKING_PART) {
            on_refused(e, &answer, now_us);
        }
    }
    answer_clear(&answer);
}

/* --- the rest --- */

void election_on_up(struct election *e, uint64_t now_us)
{
    for (uint32_t i = 0; i < e->slot_count; i++) {
        struct election_slot *slot = &e->slots[i];
        slot->looking = 0;
        slot->is_alive = false;
        slot->is_known = i == e->own; /* we know what we wrote */
    }
    e->writing = 0;
    backoff_reset(&e->backoff);
    finder_restart(&e->finder);
    find(e, now_us);
}

void election_on_down(struct election *e)
{
    e->state = ELECTION_DOWN;
    e->due_us = UINT64_MAX;
    e->writing = 0;
}

static uint64_t step_part(struct election *e, uint64_t now_us)
{
    uint64_t next_us = UINT64_MAX;
    if (now_us >= e->due_us && !e->is_resigning) {
        e->due_us = now_us + e->lease_us / 3;
        e->writing = 0; /* if it is under way still: its answer does not come any more */
        if (e->own != ELECTION_NO_SLOT) {
            write_entry(e, e->own, now_us);
        }
        for (uint32_t i = 0; i < e->slot_count && e->own == ELECTION_NO_SLOT; i++) {
            look(e, i, now_us);
        }
    }
    take_one(e, now_us);
    for (uint32_t i = 0; i < e->slot_count && e->own == ELECTION_NO_SLOT && e->writing == 0; i++) {
        if (e->slots[i].is_known && e->slots[i].is_held) {
            next_us = MIN(next_us, e->slots[i].seen_us + e->lease_us);
        }
    }
    return MIN(next_us, e->due_us);
}

uint64_t election_step(struct election *e, uint64_t now_us)
{
    if (e->state == ELECTION_TAKING_PART) {
        return step_part(e, now_us);
    }
    if (now_us >= e->due_us && e->state == ELECTION_WAITING) {
        finder_restart(&e->finder);
        find(e, now_us);
    } else if (now_us >= e->due_us && e->state == ELECTION_FINDING) {
        on_refused(e, &(struct answer){.text = "JetStream does not answer"}, now_us);
    }
    return e->due_us;
}

bool election_resign(struct election *e, uint64_t now_us)
{
    e->is_resigning = true;
    if (e->own == ELECTION_NO_SLOT || e->state == ELECTION_DOWN) { /* while the bucket is being looked for, what we wrote last is still known */
        return election_is_resigning(e);
    }
    write_entry(e, e->own, now_us); /* if a renewal is under way, this one is refused, and done again */
    return e->writing != 0;
}

bool election_is_resigning(const struct election *e)
{
    bool is_looking = e->own != ELECTION_NO_SLOT && e->slots[e->own].looking != 0; /* that write was refused, and will be done again */
    return e->is_resigning && (e->writing != 0 || is_looking) && e->state != ELECTION_DOWN;
}

bool election_is_won(const struct election *e)
{
    return e->own != ELECTION_NO_SLOT;
}

bool election_is_lost(const struct election *e, bool for_certain)
{
    bool is_lost = e->own == ELECTION_NO_SLOT && e->state == ELECTION_TAKING_PART;
    for (uint32_t i = 0; i < e->slot_count; i++) {
        const struct election_slot *slot = &e->slots[i];
        is_lost = is_lost && slot->is_known && slot->is_held && (slot->is_alive || !for_certain);
    }
    return is_lost;
}

bool election_is_silent(const struct election *e, uint64_t for_us, uint64_t now_us)
{
    return now_us >= e->heard_us + for_us;
}
