#include "proxy/bus/confirm.h"

#include <inttypes.h>

#define ANSWER_WAIT_US 2000000ULL
#define RETRY_US 50000ULL

void confirm_init(struct confirm *c, const struct confirm_context *context)
{
    *c = (struct confirm){
        .transport = context->transport,
        .config = context->config->bus,
        .ring = context->ring,
        .is_told = context->is_told,
        .ctx = context->ctx,
        .sidecar = context->sidecar,
    };
    list_init(&c->waiters);
    jetstream_stream_name(context->config->region, c->stream);
    c->peers = xcalloc(c->config->peer_count + 1, sizeof *c->peers);
    for (uint32_t i = 0; i < c->config->peer_count; i++) {
        jetstream_consumer_name(c->config->peers[i].region, c->peers[i].consumer);
        c->peers[i].missing = MISSING_NO_ANSWER;
    }
}

void confirm_deinit(struct confirm *c)
{
    free(c->peers);
    c->peers = NULL;
}

/* --- the end of a wait --- */

void confirmation_finish(struct confirmation *w, enum err err)
{
    w->err = err;
    w->on_done(w);
}

static bool is_told(const struct confirm *c, const struct confirmation *w)
{
    return w->position.spooled == 0 || c->is_told == NULL || c->is_told(c->ctx, w->position.spooled);
}

static void explain(const struct confirm *c, const struct confirmation *w, uint32_t i, enum err err)
{
    const struct confirm_peer *peer = &c->peers[i];
    struct confirmed *region = &w->regions[i];
    const char *text = "";
    region->backlog = 0;
    if (err == ERR_BUS) {
        region->missing = MISSING_UNKNOWN;
    } else if (!c->is_up) {
        region->missing = MISSING_BUS_AWAY;
    } else if (w->ready == 0) {
        region->missing = MISSING_SPOOLED;
    } else if (!w->is_checked) {
        region->missing = MISSING_NO_ANSWER;
        text = c->text;
    } else {
        region->missing = peer->missing;
        region->backlog = peer->backlog;
        text = peer->text;
    }
    snprintf(region->text, sizeof region->text, "%s", text);
}

static void finish(struct confirm *c, struct confirmation *w, enum err err)
{
    list_remove(&w->link);
    c->count--;
    for (uint32_t i = 0; i < c->config->peer_count; i++) {
        if (!w->regions[i].is_applied) {
            explain(c, w, i, err);
        }
    }
    confirmation_finish(w, err);
}

void confirm_stop(struct confirm *c)
{
    struct list *it, *tmp;
    c->is_stopping = true;
    list_for_each(it, tmp, &c->waiters)
    {
        finish(c, list_entry(it, struct confirmation, link), ERR_STOPPING);
    }
}

/* --- its beginning --- */

static void want_stream(struct confirm *c)
{
    c->wanted = c->request + 1;
}

/* The stream is looked at from now on, not before. */
static void begin_to_ask(struct confirm *c, struct confirmation *w)
{
    w->is_checked = false;
    w->ready = c->request + 1;
    want_stream(c);
}

void confirm_submit(struct confirm *c, struct confirmation *w)
{
    const struct position *position = &w->position;
    bool is_elsewhere = position->created[0] == '\0' && position->spooled != 0 && position->sidecar != c->sidecar;
    enum err err = c->is_stopping                   ? ERR_STOPPING
                   : c->count >= CONFIRM_WAITERS_MAX ? ERR_OVERLOAD
                   : is_elsewhere                    ? ERR_INVALID
                                                     : OK;
    w->ready = 0;
    w->is_checked = false;
    for (uint32_t i = 0; i < c->config->peer_count; i++) {
        w->regions[i] = (struct confirmed){.missing = MISSING_NO_ANSWER};
    }
    if (err != OK) {
        confirmation_finish(w, err);
        return;
    }
    list_push_back(&c->waiters, &w->link);
    c->count++;
}

/* --- questions --- */

static bool ask(struct confirm *c, const char *verb, const char *consumer)
{
    char subject[SUBJECT_MAX];
    char reply[SUBJECT_MAX];
    jetstream_api(NULL, verb, c->stream, consumer, subject);
    snprintf(reply, sizeof reply, "%s.%c.%" PRIu64, c->transport->inbox, CONFIRM_KIND, ++c->request);
    struct outgoing out = {.subject = subject, .reply = reply, .data = SPAN_LIT("")};
    return c->transport->ops->send(c->transport, &out) == OK;
}

static void ask_stream(struct confirm *c, uint64_t now_us)
{
    if (c->is_asking && now_us >= c->due_us) {
        snprintf(c->text, sizeof c->text, "JetStream does not answer to STREAM.INFO; perhaps this account may not ask for it");
        c->is_asking = false;
        want_stream(c);
    }
    if (c->is_asking || c->wanted <= c->asked || now_us < c->due_us) {
        return;
    }
    c->asked_highest = c->ring->highest;
    c->is_asking = ask(c, "STREAM.INFO", NULL);
    c->asked = c->is_asking ? c->request : c->asked;
    c->due_us = now_us + (c->is_asking ? ANSWER_WAIT_US : RETRY_US);
}

/* What was heard of a consumer before the wait does not count: it may be of a stream that has gone back since. */
static bool is_there(const struct confirm_peer *peer, const struct confirmation *w)
{
    return peer->question > w->ready && peer->floor >= w->position.seq;
}

/* Whether somebody waits for this region; *suffices: and it has done what one of them waits for, if STREAM.INFO bears that out. */
static bool is_missing(const struct confirm *c, uint32_t i, bool *suffices)
{
    bool is_any = false;
    *suffices = false;
    for (const struct list *it = c->waiters.next; it != &c->waiters; it = it->next) {
        const struct confirmation *w = list_entry(it, const struct confirmation, link);
        if (w->is_checked && !w->regions[i].is_applied) {
            is_any = true;
            *suffices = *suffices || is_there(&c->peers[i], w);
        }
    }
    return is_any;
}

/* As long as they have waited, so long they can wait again, divided by 16. */
static uint64_t pause_us(const struct confirm *c, uint64_t now_us)
{
    uint64_t shortest_us = CONFIRM_PAUSE_MAX_US;
    for (const struct list *it = c->waiters.next; it != &c->waiters; it = it->next) {
        const struct confirmation *w = list_entry(it, const struct confirmation, link);
        uint64_t begun_us = w->is_checked ? w->looked_us : w->since_us;
        uint64_t waited_us = now_us > begun_us ? now_us - begun_us : 0;
        shortest_us = MIN(shortest_us, MAX(waited_us / 16, CONFIRM_PAUSE_MIN_US));
    }
    return shortest_us;
}

static void look(struct confirm *c, uint64_t now_us)
{
    for (uint32_t i = 0; i < c->config->peer_count; i++) {
        struct confirm_peer *peer = &c->peers[i];
        bool suffices;
        if (peer->asked != 0 && now_us >= peer->due_us) {
            peer->asked = 0;
            peer->missing = MISSING_NO_ANSWER;
            snprintf(peer->text, sizeof peer->text, "JetStream does not answer to CONSUMER.INFO; perhaps this account may not ask for it");
        }
        if (peer->asked == 0 && is_missing(c, i, &suffices) && !suffices) {
            peer->asked = ask(c, "CONSUMER.INFO", peer->consumer) ? c->request : 0;
            peer->due_us = now_us + ANSWER_WAIT_US;
        }
    }
    c->look_us = now_us + pause_us(c, now_us);
}

/* --- answers --- */

static void forget_floors(struct confirm *c)
{
    for (uint32_t i = 0; i < c->config->peer_count; i++) {
        c->peers[i].asked = c->peers[i].question = c->peers[i].floor = 0;
    }
}

static bool is_all_applied(const struct confirm *c, const struct confirmation *w)
{
    for (uint32_t i = 0; i < c->config->peer_count; i++) {
        if (!w->regions[i].is_applied) {
            return false;
        }
    }
    return true;
}

/* Whether what was published since the wait began may be gone. */
static bool has_lost(const struct confirm *c, const struct confirmation *w, const struct stream_info *info)
{
    if (w->position.created[0] != '\0') {
        return strcmp(w->position.created, info->created) != 0 || info->last_seq < w->position.seq;
    }
    bool is_new = c->ring->created[0] != '\0' && strcmp(c->ring->created, info->created) != 0;
    return is_new || info->last_seq < c->asked_highest || c->ring->broken_us >= w->since_us;
}

static void settle(struct confirm *c, struct confirmation *w, const struct stream_info *info, uint64_t now_us)
{
    if (w->ready == 0 || w->ready > c->asked) {
        return; /* it was asked for too early */
    }
    if (has_lost(c, w, info)) {
        finish(c, w, ERR_BUS);
        return;
    }
    if (!w->is_checked) {
        bool is_known = w->position.created[0] != '\0';
        w->position.seq = is_known ? w->position.seq : info->last_seq;
        snprintf(w->position.created, sizeof w->position.created, "%s", info->created);
        w->is_checked = true;
        w->looked_us = now_us;
        c->look_us = now_us;
    }
    for (uint32_t i = 0; i < c->config->peer_count; i++) {
        const struct confirm_peer *peer = &c->peers[i];
        struct confirmed *region = &w->regions[i];
        if (!region->is_applied && is_there(peer, w) && peer->answered < c->asked) {
            region->is_applied = true;
            region->after_us = peer->answered_us > w->since_us ? peer->answered_us - w->since_us : 0;
            region->missing = MISSING_NOTHING;
        }
    }
    if (is_all_applied(c, w)) {
        finish(c, w, OK);
    }
}

static void on_stream(struct confirm *c, enum err err, const struct answer *answer, uint64_t now_us)
{
    struct stream_info info;
    struct list *it, *tmp;
    c->is_asking = false;
    c->due_us = now_us;
    if (err != OK || !jetstream_stream_info(answer->root, &info)) {
        snprintf(c->text, sizeof c->text, "%s", err != OK ? answer->text : "an answer that is not understood");
        c->due_us = now_us + RETRY_US;
        want_stream(c);
        return;
    }
    for (uint32_t i = 0; i < c->config->peer_count; i++) {
        struct confirm_peer *peer = &c->peers[i];
        if (peer->question != 0 && peer->answered < c->asked && peer->floor > info.last_seq) { /* it has had what the stream has no more: numbers are given out twice */
            peer->question = 0;
            peer->missing = MISSING_UNKNOWN;
        }
    }
    list_for_each(it, tmp, &c->waiters)
    {
        settle(c, list_entry(it, struct confirmation, link), &info, now_us);
    }
}

static uint64_t number_in(const json_t *object, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(object, name));
    return value > 0 ? (uint64_t)value : 0;
}

static void on_consumer(struct confirm *c, uint32_t i, enum err err, const struct answer *answer, uint64_t now_us)
{
    struct confirm_peer *peer = &c->peers[i];
    bool suffices;
    uint64_t question = peer->asked;
    peer->asked = peer->question = 0;
    peer->floor = peer->backlog = 0;
    peer->text[0] = '\0';
    if (err != OK) {
        bool is_absent = answer->err_code == JETSTREAM_CONSUMER_NOT_FOUND;
        peer->missing = is_absent ? MISSING_NO_CONSUMER : MISSING_NO_ANSWER;
        snprintf(peer->text, sizeof peer->text, "%s", is_absent ? "" : answer->text);
        return;
    }
    peer->floor = number_in(json_object_get(answer->root, "ack_floor"), "stream_seq");
    peer->backlog = number_in(answer->root, "num_pending") + number_in(answer->root, "num_ack_pending");
    peer->missing = number_in(answer->root, "num_waiting") > 0 ? MISSING_BACKLOG : MISSING_NOT_CONNECTED;
    peer->question = question;
    peer->answered = c->request;
    peer->answered_us = now_us;
    if (is_missing(c, i, &suffices) && suffices) {
        want_stream(c);
    }
}

void confirm_on_answer(struct confirm *c, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    struct answer answer;
    bool is_stream = c->is_asking && number == c->asked;
    uint32_t i = 0;
    while (i < c->config->peer_count && (c->peers[i].asked == 0 || c->peers[i].asked != number)) {
        i++;
    }
    if (!is_stream && i == c->config->peer_count) {
        return; /* late */
    }
    enum err err = jetstream_answer(message, &answer);
    if (is_stream) {
        on_stream(c, err, &answer, now_us);
    } else {
        on_consumer(c, i, err, &answer, now_us);
    }
    answer_clear(&answer);
}

/* --- the rest --- */

/* It may be another server's stream than the one that was there. */
void confirm_on_up(struct confirm *c)
{
    c->is_up = true;
    c->is_asking = false;
    c->due_us = 0;
    c->text[0] = '\0';
    forget_floors(c);
    for (struct list *it = c->waiters.next; it != &c->waiters; it = it->next) {
        struct confirmation *w = list_entry(it, struct confirmation, link);
        if (w->ready != 0) {
            begin_to_ask(c, w);
        }
    }
}

void confirm_on_down(struct confirm *c)
{
    c->is_up = c->is_asking = false;
    forget_floors(c);
}

uint64_t confirm_step(struct confirm *c, uint64_t now_us)
{
    struct list *it, *tmp;
    uint64_t until_us = UINT64_MAX;
    bool is_looking = false;
    list_for_each(it, tmp, &c->waiters)
    {
        struct confirmation *w = list_entry(it, struct confirmation, link);
        if (w->is_stopping != NULL && atomic_load(w->is_stopping)) {
            finish(c, w, ERR_STOPPING);
            continue;
        }
        if (w->ready == 0 && is_told(c, w)) {
            begin_to_ask(c, w);
        }
        if (w->until_us <= now_us) {
            finish(c, w, ERR_TIMEOUT);
            continue;
        }
        is_looking = is_looking || w->is_checked;
        until_us = MIN(until_us, w->until_us);
    }
    if (c->count == 0) {
        return UINT64_MAX;
    }
    if (c->is_up) {
        ask_stream(c, now_us);
    }
    if (c->is_up && is_looking && now_us >= c->look_us) {
        look(c, now_us);
    }
    uint64_t next_us = is_looking && c->is_up ? MAX(c->look_us, now_us) : now_us + pause_us(c, now_us);
    return MIN(next_us, until_us);
}
