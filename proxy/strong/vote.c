#include "proxy/strong/vote.h"

#include <assert.h>
#include <inttypes.h>

#include "common/guard.h"
#include "proxy/protocol/base64.h"

#define ANSWER_WAIT_US 2000000ULL /* about the bucket; calls have a third of the lease */
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 2000

uint32_t voters_count(const struct config *config)
{
    return 1 + config->bus->peer_count + config->strong->witness_count;
}

static const struct config_peer *peer_of(const struct config *config, uint32_t voter)
{
    uint32_t peers = config->bus->peer_count;
    assert(voter > 0 && voter < voters_count(config));
    return voter <= peers ? &config->bus->peers[voter - 1] : &config->strong->witnesses[voter - 1 - peers];
}

void vote_init(struct vote *v, const struct vote_context *context)
{
    const struct config *config = context->config;
    const struct config_peer *peer = context->voter > 0 ? peer_of(config, context->voter) : NULL;
    *v = (struct vote){
        .config = config,
        .transport = context->transport,
        .log = context->log,
        .name = peer != NULL ? peer->region : config->region,
        .domain = peer != NULL ? peer->domain : NULL,
        .kind = context->kind,
        .lease_us = 1000ULL * config->strong->lease_ms,
        .state = VOTE_DOWN,
        .due_us = UINT64_MAX,
    };
    list_init(&v->calls);
    jetstream_bucket_name("CONTROL", v->name, v->stream);
    backoff_init(&v->backoff, RETRY_MIN_MS, RETRY_MAX_MS, context->seed);
}

uint32_t voters_usable(const struct voters *voters, uint64_t now_us)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < voters->count; i++) {
        count += vote_is_usable(voters->all[i], now_us);
    }
    return count;
}

/* --- asking --- */

static enum err ask(struct vote *v, struct outgoing *out)
{
    char reply[SUBJECT_MAX];
    snprintf(reply, sizeof reply, "%s.%c.%" PRIu64, v->transport->inbox, v->kind, ++v->request);
    out->reply = reply;
    return v->transport->ops->send(v->transport, out);
}

static const char *bucket(const struct vote *v)
{
    return v->stream + sizeof "KV_" - 1;
}

static const char *region_name(const struct vote_call *call)
{
    const struct config *config = call->vote->config;
    return call->region == 0 ? config->region : config->bus->peers[call->region - 1].region;
}

/* As the bucket names it, whatever way leads there. */
static void entry_of(const struct vote_call *call, char out[static SUBJECT_MAX])
{
    snprintf(out, SUBJECT_MAX, "$KV.%s.%s", bucket(call->vote), region_name(call));
}

static void retry_later(struct vote *v, const char *problem, uint64_t now_us)
{
    if (!v->was_refused) {
        log_warn(v->log, "strong: the voter %s (bucket %s) can not be used: %s; trying again", v->name, bucket(v), problem);
    }
    v->was_refused = true;
    snprintf(v->problem, sizeof v->problem, "%s", problem);
    v->state = VOTE_WAITING;
    v->due_us = now_us + backoff_next_us(&v->backoff);
}

static void ask_bucket(struct vote *v, enum vote_state state, const char *verb, const char *body, uint64_t now_us)
{
    char subject[SUBJECT_MAX];
    jetstream_api(v->domain, verb, v->stream, NULL, subject);
    v->state = state;
    v->due_us = now_us + ANSWER_WAIT_US;
    enum err err = body == NULL ? ERR_NOMEM : ask(v, &(struct outgoing){.subject = subject, .data = span_str(body)});
    v->asked = v->request;
    if (err != OK) {
        retry_later(v, err_text(err), now_us);
    }
}

static void ask_info(struct vote *v, uint64_t now_us)
{
    ask_bucket(v, VOTE_ASKING, "STREAM.INFO", "", now_us);
}

static void create(struct vote *v, uint64_t now_us)
{
    json_t *config = jetstream_bucket_config(v->stream, v->config->bus);
    char *body = config != NULL ? json_dumps(config, JSON_COMPACT) : NULL;
    ask_bucket(v, VOTE_CREATING, "STREAM.CREATE", body, now_us);
    free(body);
    json_decref(config);
}

/* --- calls --- */

void vote_call_init(struct vote_call *call, struct vote *vote, uint32_t region, void (*on_done)(struct vote_call *call, enum err err, uint64_t now_us), void *ctx)
{
    assert(region <= vote->config->bus->peer_count);
    *call = (struct vote_call){.vote = vote, .region = region, .on_done = on_done, .ctx = ctx, .generation = vote->generation};
    list_init(&call->link);
}

bool vote_call_is_under_way(const struct vote_call *call)
{
    return list_is_linked(&call->link);
}

bool vote_call_knows(const struct vote_call *call)
{
    return call->is_known && call->generation == call->vote->generation;
}

void vote_call_cancel(struct vote_call *call)
{
    list_remove(&call->link);
    call->is_known = false;
}

static void end(struct vote_call *call, enum err err, uint64_t now_us)
{
    list_remove(&call->link);
    call->is_known = err == OK || err == ERR_CONFLICT;
    call->on_done(call, err, now_us);
}

static void end_all(struct vote *v, uint64_t now_us)
{
    struct list *link;
    while ((link = list_first(&v->calls)) != NULL) { /* what ends finds a voter that takes nothing new */
        end(list_entry(link, struct vote_call, link), ERR_UNAVAILABLE, now_us);
    }
}

/* The bucket is gone, or is not what it was: it is looked for anew. */
static void lose(struct vote *v, bool has_gone_back, uint64_t now_us)
{
    v->has_gone_back = v->has_gone_back || has_gone_back;
    ask_info(v, now_us);
    end_all(v, now_us);
}

static enum err send_look(struct vote_call *call, uint64_t now_us)
{
    struct vote *v = call->vote;
    char subject[SUBJECT_MAX];
    char entry[SUBJECT_MAX];
    char body[SUBJECT_MAX + 32];
    entry_of(call, entry);
    snprintf(body, sizeof body, "{\"last_by_subj\":\"%s\"}", entry);
    jetstream_api(v->domain, "STREAM.MSG.GET", v->stream, NULL, subject);
    enum err err = ask(v, &(struct outgoing){.subject = subject, .data = span_str(body)});
    call->number = v->request;
    call->due_us = now_us + v->lease_us / 3;
    return err;
}

static enum err send_write(struct vote_call *call, uint64_t now_us)
{
    struct vote *v = call->vote;
    char subject[SUBJECT_MAX];
    char text[RECORD_MAX];
    size_t len = record_write(&call->wanted, text);
    if (v->domain == NULL) {
        entry_of(call, subject);
    } else { /* $KV does not pass between domains by itself; the server that has it maps this to the entry */
        jetstream_api(v->domain, "$KV", bucket(v), region_name(call), subject);
    }
    enum err err = ask(v, &(struct outgoing){.subject = subject, .has_expected = true, .expected_seq = call->seq, .data = span_of(text, len)});
    call->number = v->request;
    call->due_us = now_us + v->lease_us / 3;
    return err;
}

static enum err start(struct vote_call *call, bool is_write, uint64_t now_us)
{
    struct vote *v = call->vote;
    assert(!vote_call_is_under_way(call));
    if (!vote_is_usable(v, now_us)) {
        return ERR_UNAVAILABLE;
    }
    if (call->generation != v->generation) { /* of what may be no more */
        call->generation = v->generation;
        call->is_known = false;
        call->seq = 0;
    }
    call->is_write = is_write && call->is_known;
    call->was_refused = is_write && !call->is_known; /* with nothing to go over it is refused from here */
    enum err err = call->is_write ? send_write(call, now_us) : send_look(call, now_us);
    if (err == OK) {
        list_push_back(&v->calls, &call->link);
    }
    return err;
}

enum err vote_look(struct vote_call *call, uint64_t now_us)
{
    return start(call, false, now_us);
}

enum err vote_write(struct vote_call *call, const struct lease_record *record, uint64_t now_us)
{
    call->wanted = *record;
    return start(call, true, now_us);
}

/* --- answers --- */

static bool is_gone(const struct answer *answer)
{
    return answer->err_code == JETSTREAM_STREAM_NOT_FOUND || answer->code == STATUS_NO_RESPONDERS;
}

/* What STREAM.MSG.GET found. */
static enum err take_message(const struct answer *answer, uint64_t *seq, struct lease_record *record)
{
    const json_t *message = json_object_get(answer->root, "message");
    const char *data = json_string_value(json_object_get(message, "data"));
    json_int_t number = json_integer_value(json_object_get(message, "seq"));
    char text[BASE64_LEN(RECORD_MAX)];
    size_t len = data != NULL ? strlen(data) : 0;
    if (number <= 0 || len == 0 || len > sizeof text) {
        return ERR_PROTOCOL; /* an entry that was deleted is none that we know anything of */
    }
    *seq = (uint64_t)number;
    return record_read(span_of(text, base64_decode(span_of(data, len), text)), record);
}

static void on_looked(struct vote_call *call, enum err err, const struct answer *answer, uint64_t now_us)
{
    uint64_t seq = 0;
    struct lease_record found = {.number = 0};
    if (err == OK) {
        err = take_message(answer, &seq, &found);
    } else if (answer->err_code == JETSTREAM_NO_MESSAGE) {
        err = OK;
    } else if (is_gone(answer)) {
        lose(call->vote, false, now_us);
        return;
    }
    if (err != OK) {
        log_warn(call->vote->log, "strong: the record of region %s at the voter %s can not be read: %s", region_name(call), call->vote->name,
                 answer->text[0] != '\0' ? answer->text : "it is none of ours");
        end(call, err, now_us);
    } else if (seq < call->seq) {
        lose(call->vote, true, now_us);
    } else {
        call->seq = seq;
        call->record = found;
        end(call, call->was_refused ? ERR_CONFLICT : OK, now_us);
    }
}

static void on_written(struct vote_call *call, enum err err, const struct answer *answer, uint64_t now_us)
{
    struct vote *v = call->vote;
    json_int_t number = json_integer_value(json_object_get(answer->root, "seq"));
    if (err == OK && jetstream_was_stored(answer, v->stream) && number > 0) {
        uint64_t seq = (uint64_t)number;
        if (seq <= call->seq || seq <= v->info_seq) { /* it has fewer messages than it had */
            lose(v, true, now_us);
            return;
        }
        call->seq = seq;
        call->record = call->wanted;
        end(call, OK, now_us);
    } else if (answer->err_code == JETSTREAM_WRONG_LAST_SEQUENCE) { /* somebody was faster, or a write of ours got there after all */
        call->is_write = false;
        call->was_refused = true;
        err = send_look(call, now_us);
        if (err != OK) {
            end(call, err, now_us);
        }
    } else if (is_gone(answer)) {
        lose(v, false, now_us);
    } else {
        log_warn(v->log, "strong: the voter %s does not take the record of region %s: %s (%d)", v->name, region_name(call), answer->text,
                 answer->err_code != 0 ? answer->err_code : answer->code);
        end(call, ERR_BUS, now_us);
    }
}

static void on_info(struct vote *v, const struct stream_info *info, uint64_t now_us)
{
    bool is_new = strcmp(v->created, info->created) != 0;
    bool has_gone_back = !is_new && (v->has_gone_back || info->last_seq < v->info_seq);
    if (is_new) {
        log_info(v->log, "strong: the voter %s %s; it is no vote for one lease", v->name,
                 v->created[0] == '\0' ? "is seen for the first time" : "has lost what it knew");
    } else if (has_gone_back) {
        log_error(v->log, "strong: the voter %s has gone back, and forgotten what it had acknowledged: its NATS must sync (sync_interval: always), or have replicas",
                  v->name);
    }
    memcpy(v->created, info->created, sizeof v->created);
    v->info_seq = info->last_seq;
    v->has_gone_back = v->was_refused = false;
    v->state = VOTE_THERE;
    v->due_us = UINT64_MAX;
    backoff_reset(&v->backoff);
    if (is_new || has_gone_back) {
        v->generation++;
        v->blank_until_us = now_us + (guard_is_on(v->config, GUARD_STRONG_BLANK_VOTE) ? v->lease_us : 0);
    }
}

static void on_bucket_answer(struct vote *v, enum err err, const struct answer *answer, uint64_t now_us)
{
    struct stream_info info;
    if (v->state == VOTE_CREATING && (err == OK || answer->err_code == JETSTREAM_STREAM_NAME_EXISTS)) { /* with other settings: it is used as it is */
        ask_info(v, now_us);
    } else if (v->state == VOTE_ASKING && err == OK && jetstream_stream_info(answer->root, &info)) {
        on_info(v, &info, now_us);
    } else if (v->state == VOTE_ASKING && answer->err_code == JETSTREAM_STREAM_NOT_FOUND) {
        create(v, now_us);
    } else {
        retry_later(v, answer->text[0] != '\0' ? answer->text : "an answer that is not understood", now_us);
    }
}

void vote_on_answer(struct vote *v, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    struct vote_call *call = NULL;
    struct list *it, *next;
    list_for_each(it, next, &v->calls) {
        struct vote_call *other = list_entry(it, struct vote_call, link);
        call = other->number == number ? other : call;
    }
    bool is_bucket = (v->state == VOTE_ASKING || v->state == VOTE_CREATING) && number == v->asked;
    if (call == NULL && !is_bucket) {
        return; /* late */
    }
    struct answer answer;
    enum err err = jetstream_answer(message, &answer);
    if (is_bucket) {
        on_bucket_answer(v, err, &answer, now_us);
    } else if (call->is_write) {
        on_written(call, err, &answer, now_us);
    } else {
        on_looked(call, err, &answer, now_us);
    }
    answer_clear(&answer);
}

/* --- the rest --- */

void vote_on_up(struct vote *v, uint64_t now_us)
{
    v->problem[0] = '\0';
    backoff_reset(&v->backoff);
    ask_info(v, now_us);
    end_all(v, now_us);
}

void vote_on_down(struct vote *v, uint64_t now_us)
{
    v->state = VOTE_DOWN;
    v->due_us = UINT64_MAX;
    end_all(v, now_us);
}

/* When the first call is due; ends those that are. */
static uint64_t step_calls(struct vote *v, uint64_t now_us)
{
    for (;;) {
        struct vote_call *first = NULL;
        struct list *it, *next;
        list_for_each(it, next, &v->calls) {
            struct vote_call *call = list_entry(it, struct vote_call, link);
            first = first == NULL || call->due_us < first->due_us ? call : first;
        }
        if (first == NULL || now_us < first->due_us) {
            return first != NULL ? first->due_us : UINT64_MAX;
        }
        end(first, ERR_TIMEOUT, now_us); /* may begin others, which are due later than now */
    }
}

uint64_t vote_step(struct vote *v, uint64_t now_us)
{
    if (now_us >= v->due_us && v->state == VOTE_WAITING) {
        ask_info(v, now_us);
    } else if (now_us >= v->due_us) {
        retry_later(v, "JetStream does not answer", now_us);
    }
    uint64_t calls_us = step_calls(v, now_us);
    uint64_t next_us = MIN(calls_us, v->due_us);
    return v->state == VOTE_THERE && now_us < v->blank_until_us ? MIN(next_us, v->blank_until_us) : next_us;
}

bool vote_is_usable(const struct vote *v, uint64_t now_us)
{
    return v->state == VOTE_THERE && now_us >= v->blank_until_us;
}

const char *vote_problem(const struct vote *v, uint64_t now_us)
{
    if (vote_is_usable(v, now_us)) {
        return NULL;
    }
    switch (v->state) {
    case VOTE_DOWN: return "not connected";
    case VOTE_THERE: return "it may have lost what it knew, and is no vote for one lease";
    default: return v->problem[0] != '\0' ? v->problem : "its bucket is being looked for";
    }
}
