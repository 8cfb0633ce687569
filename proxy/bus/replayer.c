#include "proxy/bus/replayer.h"

#include <inttypes.h>
#include <xxhash.h>

#define SILENCE_US 1000000ULL
#define RETRY_MIN_MS 20
#define RETRY_MAX_MS 2000

void replayer_init(struct replayer *r, const struct config *config, struct transport *transport, struct log *log, uint64_t seed)
{
    *r = (struct replayer){.transport = transport, .log = log, .region = config->region, .due_us = UINT64_MAX};
    jetstream_key_subject(config->region, r->key_subject);
    jetstream_rule_subject(config->region, r->rule_subject);
    jetstream_stream_name(config->region, r->stream);
    backoff_init(&r->backoff, RETRY_MIN_MS, RETRY_MAX_MS, seed);
}

static void drop(struct replayer *r)
{
    free(r->data);
    r->data = NULL;
    r->replay = NULL;
    r->due_us = UINT64_MAX;
}

void replayer_deinit(struct replayer *r)
{
    drop(r);
}

static void finish(struct replayer *r)
{
    struct replay *replay = r->replay;
    drop(r);
    backoff_reset(&r->backoff);
    r->on_done(r->ctx, replay);
}

/* The same events have the same Nats-Msg-Id, whoever sends them and how often: the stream keeps them once. */
static void name_message(struct replayer *r)
{
    if (r->replay->sender != 0) {
        publisher_message_id(r->replay->sender, r->replay->message, r->msg_id);
        return;
    }
    XXH128_hash_t hash = XXH3_128bits(r->data, r->len);
    snprintf(r->msg_id, sizeof r->msg_id, "spool-%016" PRIx64 "%016" PRIx64, hash.high64, hash.low64);
}

static const char *subject_of(const struct replayer *r)
{
    return r->replay->events[0].is_pattern ? r->rule_subject : r->key_subject;
}

void replayer_take(struct replayer *r, struct replay *replay, uint64_t now_us)
{
    const struct invalidation *events[PUBLISH_EVENTS_MAX];
    for (uint32_t i = 0; i < replay->count; i++) {
        events[i] = &replay->events[i];
    }
    r->replay = replay;
    r->number++;
    enum err err = invalidation_encode(r->region, events, replay->count, &r->data, &r->len);
    if (err != OK) { /* never seen: the spool takes valid events only, and a full message of these fits */
        log_error(r->log, "bus: %u invalidations of the spool can not be encoded: %s; they are lost", replay->count, err_text(err));
        finish(r);
        return;
    }
    name_message(r);
    r->due_us = MAX(now_us, r->sent_us + REPLAY_PAUSE_US);
}

void replayer_on_up(struct replayer *r, uint64_t now_us)
{
    r->is_up = true;
    backoff_reset(&r->backoff);
    r->due_us = r->replay != NULL ? now_us : UINT64_MAX;
}

void replayer_on_down(struct replayer *r)
{
    r->is_up = false;
}

uint64_t replayer_step(struct replayer *r, uint64_t now_us)
{
    if (!r->is_up || r->replay == NULL) {
        return UINT64_MAX;
    }
    if (r->due_us <= now_us) {
        char reply[SUBJECT_MAX];
        snprintf(reply, sizeof reply, "%s.r.%" PRIu64, r->transport->inbox, r->number);
        struct outgoing out = {.subject = subject_of(r), .reply = reply, .msg_id = r->msg_id, .data = span_of(r->data, r->len)};
        enum err err = r->transport->ops->send(r->transport, &out);
        r->sent_us = now_us;
        r->due_us = now_us + (err == OK ? SILENCE_US : backoff_next_us(&r->backoff));
    }
    return r->due_us;
}

void replayer_on_answer(struct replayer *r, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    if (r->replay == NULL || number != r->number) {
        return; /* late */
    }
    struct answer answer;
    enum err err = jetstream_answer(message, &answer);
    if (err == OK && jetstream_was_stored(&answer, r->stream)) {
        if (r->ring != NULL) { /* it may yet be lost */
            struct ring_message kept = {.subject = subject_of(r), .msg_id = r->msg_id, .data = r->data, .len = r->len};
            ring_add(r->ring, (uint64_t)json_integer_value(json_object_get(answer.root, "seq")), &kept, now_us);
            r->data = NULL;
        }
        finish(r);
    } else {
        log_warn(r->log, "bus: stream %s has not taken invalidations of the spool: %s; trying again", r->stream,
                 err == OK ? "another stream has this subject" : answer.text);
        r->due_us = now_us + backoff_next_us(&r->backoff);
        if (message->status == STATUS_NO_RESPONDERS && r->on_no_stream != NULL) {
            r->on_no_stream(r->ctx);
        }
    }
    answer_clear(&answer);
}
