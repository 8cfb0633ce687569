#include "proxy/bus/ring.h"

#include <inttypes.h>

#define SILENCE_US 1000000ULL
#define RETRY_MIN_MS 50
#define RETRY_MAX_MS 2000

struct kept {
    struct list link; /* in ring->kept or ring->lost */
    uint64_t seq;
    uint64_t acked_us;
    uint64_t number; /* lost: it was sent under; 0: it was not yet */
    uint64_t due_us;
    const char *subject;
    char msg_id[RING_ID_SIZE];
    size_t len;
    char *data;
};

void ring_init(struct ring *r, const struct config *config, struct transport *transport, struct log *log, struct metrics_shard *metrics,
               uint64_t seed)
{
    *r = (struct ring){
        .transport = transport,
        .log = log,
        .metrics = metrics,
        .region = config->region,
        .window_us = 1000ULL * config->bus->resend_window_ms,
    };
    list_init(&r->kept);
    list_init(&r->lost);
    jetstream_stream_name(config->region, r->stream);
    backoff_init(&r->backoff, RETRY_MIN_MS, RETRY_MAX_MS, seed);
}

static size_t size_of(const struct kept *k)
{
    return sizeof *k + k->len;
}

/* Forgets one. */
static void drop(struct ring *r, struct kept *k)
{
    list_remove(&k->link);
    r->count--;
    r->bytes -= size_of(k);
    free(k->data);
    free(k);
}

static void drop_lost(struct ring *r, struct kept *k)
{
    r->lost_count--;
    drop(r, k);
}

void ring_deinit(struct ring *r)
{
    while (!list_is_empty(&r->kept)) {
        drop(r, list_entry(r->kept.next, struct kept, link));
    }
    while (!list_is_empty(&r->lost)) {
        drop_lost(r, list_entry(r->lost.next, struct kept, link));
    }
}

/* Room for one more; what can go with the least harm goes first. */
static void make_room(struct ring *r, size_t size)
{
    uint64_t dropped = 0;
    while (r->count > 0 && (r->count >= RING_MESSAGES_MAX || r->bytes + size > RING_BYTES_MAX)) {
        if (!list_is_empty(&r->kept)) {
            drop(r, list_entry(r->kept.next, struct kept, link));
        } else {
            log_error(r->log, "bus: a message that stream %s has lost is given up: there are too many", r->stream);
            drop_lost(r, list_entry(r->lost.next, struct kept, link));
        }
        dropped++;
    }
    if (dropped > 0) {
        metrics_add(r->metrics, METRIC_BUS_RESEND_DROPPED, 0, dropped);
    }
}

void ring_add(struct ring *r, uint64_t seq, struct ring_message *message, uint64_t now_us)
{
    struct kept *k = r->window_us > 0 ? malloc(sizeof *k) : NULL;
    r->highest = MAX(r->highest, seq);
    if (k == NULL) {
        free(message->data);
        message->data = NULL;
        return;
    }
    *k = (struct kept){.seq = seq, .acked_us = now_us, .subject = message->subject, .len = message->len, .data = message->data};
    snprintf(k->msg_id, sizeof k->msg_id, "%s", message->msg_id);
    message->data = NULL;
    make_room(r, size_of(k));
    r->count++;
    r->bytes += size_of(k);
    list_push_back(&r->kept, &k->link);
}

/* --- what the stream says --- */

void ring_on_up(struct ring *r)
{
    r->is_up = true;
    r->has_stream = false; /* until it has been asked for */
    backoff_reset(&r->backoff);
}

void ring_on_down(struct ring *r)
{
    r->is_up = r->has_stream = false;
}

void ring_on_asked(struct ring *r, uint64_t now_us)
{
    r->asked_us = now_us;
    r->asked_highest = r->highest;
}

void ring_on_info(struct ring *r, const struct stream_info *info, uint64_t now_us)
{
    bool is_new = r->created[0] != '\0' && strcmp(r->created, info->created) != 0;
    bool went_back = !is_new && info->last_seq < r->asked_highest;
    snprintf(r->created, sizeof r->created, "%s", info->created);
    r->has_stream = true;
    if (!is_new && !went_back) {
        return;
    }
    r->broken_us = now_us;
    uint32_t count = 0;
    for (struct list *at = r->lost.next; at != &r->lost; at = at->next) {
        list_entry(at, struct kept, link)->number = 0; /* an answer from before says nothing about what there is now */
    }
    struct list *next;
    for (struct list *at = r->kept.next; at != &r->kept; at = next) {
        struct kept *k = list_entry(at, struct kept, link);
        next = at->next;
        if (is_new || (k->seq > info->last_seq && k->acked_us <= r->asked_us)) {
            list_remove(&k->link);
            k->number = 0;
            k->due_us = now_us;
            list_push_back(&r->lost, &k->link);
            count++;
        }
    }
    r->lost_count += count;
    log_warn(r->log, "bus: stream %s of this region (%s) %s: it has acknowledged up to message %" PRIu64 ", and has %" PRIu64
             "; the last %u messages are published again", r->stream, r->region, is_new ? "was made anew" : "has lost what it had acknowledged",
             r->asked_highest, info->last_seq, count);
    r->highest = info->last_seq; /* those acknowledged since count again when they are looked for the next time */
}

/* --- out again --- */

static void send(struct ring *r, struct kept *k, uint64_t now_us)
{
    char reply[SUBJECT_MAX];
    if (k->number == 0) { /* else the answer to an earlier attempt counts, too, however long it takes */
        k->number = ++r->number;
    }
    snprintf(reply, sizeof reply, "%s.g.%" PRIu64, r->transport->inbox, k->number);
    struct outgoing out = {.subject = k->subject, .reply = reply, .msg_id = k->msg_id, .data = span_of(k->data, k->len)};
    enum err err = r->transport->ops->send(r->transport, &out);
    k->due_us = now_us + (err == OK ? SILENCE_US : backoff_next_us(&r->backoff));
}

/* The oldest go first, a few at a time. */
static uint64_t send_due(struct ring *r, uint64_t now_us)
{
    uint64_t next_us = UINT64_MAX;
    uint32_t n = 0;
    for (struct list *at = r->lost.next; at != &r->lost && n < RING_WINDOW && r->has_stream; at = at->next, n++) {
        struct kept *k = list_entry(at, struct kept, link);
        if (k->due_us <= now_us) {
            send(r, k, now_us);
        }
        next_us = MIN(next_us, k->due_us);
    }
    return next_us;
}

static struct kept *find(struct ring *r, uint64_t number)
{
    uint32_t n = 0;
    for (struct list *at = r->lost.next; at != &r->lost && n < RING_WINDOW; at = at->next, n++) {
        struct kept *k = list_entry(at, struct kept, link);
        if (k->number == number) {
            return k;
        }
    }
    return NULL; /* late */
}

void ring_on_answer(struct ring *r, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    struct kept *k = number != 0 ? find(r, number) : NULL;
    if (k == NULL) {
        return;
    }
    struct answer answer;
    enum err err = jetstream_answer(message, &answer);
    if (err == OK && jetstream_was_stored(&answer, r->stream)) {
        k->seq = (uint64_t)json_integer_value(json_object_get(answer.root, "seq"));
        k->acked_us = now_us;
        r->highest = MAX(r->highest, k->seq);
        list_remove(&k->link);
        list_push_back(&r->kept, &k->link);
        metrics_add(r->metrics, METRIC_BUS_RESENT, 0, 1);
        backoff_reset(&r->backoff);
        if (--r->lost_count == 0) {
            log_info(r->log, "bus: stream %s has again what it had lost, as far as this sidecar knows it", r->stream);
        }
    } else {
        log_warn(r->log, "bus: stream %s has not taken again what it had lost: %s; trying again", r->stream,
                 err == OK ? "another stream has this subject" : answer.text);
        k->due_us = now_us + backoff_next_us(&r->backoff);
        if (message->status == STATUS_NO_RESPONDERS && r->on_no_stream != NULL) {
            r->on_no_stream(r->ctx);
        }
    }
    answer_clear(&answer);
}

uint64_t ring_step(struct ring *r, uint64_t now_us)
{
    uint64_t next_us = UINT64_MAX;
    while (!list_is_empty(&r->kept)) {
        struct kept *k = list_entry(r->kept.next, struct kept, link);
        if (k->acked_us + r->window_us > now_us) {
            next_us = k->acked_us + r->window_us;
            break;
        }
        drop(r, k);
    }
    metrics_set(r->metrics, METRIC_BUS_RESEND_KEPT, 0, r->count);
    metrics_set(r->metrics, METRIC_BUS_RESEND_LOST, 0, r->lost_count);
    uint64_t send_us = send_due(r, now_us);
    return MIN(next_us, send_us);
}
