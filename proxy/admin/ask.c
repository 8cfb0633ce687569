#include "proxy/admin/ask.h"

#include "proxy/admin/invalidate.h"
#include "proxy/admin/wait.h"
#include "proxy/cache/peek.h"

enum err asks_init(struct asks *asks, struct cache *const *caches, uint32_t cache_count, uint32_t max)
{
    *asks = (struct asks){.caches = caches, .cache_count = cache_count, .max = max};
    return mailbox_init(&asks->mailbox);
}

void asks_deinit(struct asks *asks)
{
    mailbox_drain(&asks->mailbox, asks);
    mailbox_deinit(&asks->mailbox);
}

struct ask *ask_create(enum ask_kind kind, struct span key)
{
    struct ask *ask = xcalloc(1, sizeof *ask);
    ask->kind = kind;
    ask->key_len = MIN(key.len, (size_t)KEY_MAX);
    if (ask->key_len > 0) {
        memcpy(ask->key, key.data, ask->key_len);
    }
    return ask;
}

struct ask *ask_create_job(struct job *job)
{
    struct ask *ask = ask_create(ASK_INVALIDATE, span_of(NULL, 0));
    ask->job = job;
    return ask;
}

void ask_destroy(struct ask **ask)
{
    if (*ask != NULL) {
        job_destroy(&(*ask)->job);
        wait_destroy(&(*ask)->wait);
        free((*ask)->value);
        free((*ask)->data);
        free(*ask);
        *ask = NULL;
    }
}

void ask_abandon(struct ask *ask)
{
    ask->owner = NULL;
}

/* On the admin thread. */
static void on_answer(struct mail *mail, void *owner)
{
    struct ask *ask = container_of(mail, struct ask, mail);
    ask->asks->under_way--;
    ask->asks->jobs -= ask_has_end(ask);
    ask->asks->waits -= ask->wait != NULL;
    if (ask->owner == NULL) {
        ask_destroy(&ask);
        return;
    }
    ask->on_done(ask);
}

static void answer(struct ask *ask)
{
    ask->mail.deliver = on_answer;
    mailbox_post(&ask->asks->mailbox, &ask->mail);
}

static void on_waited(void *ctx)
{
    answer(ctx);
}

/* Here, at least, it is done. */
static void answer_or_wait(struct ask *ask)
{
    if (ask->wait == NULL || !wait_start(ask->wait, on_waited, ask)) {
        answer(ask);
    }
}

static void refuse(struct ask *ask, struct span text)
{
    ask->reply = (struct reply){.status = REPLY_ERROR, .text = text};
    answer(ask);
}

/* Moves what the reply points to into memory that may leave this thread. */
static bool keep(struct ask *ask, struct reply *reply)
{
    struct span *span = reply->status == REPLY_VALUE ? &reply->value : &reply->text;
    bool has_text = reply->status == REPLY_VALUE || reply->status == REPLY_ERROR;
    if (!has_text) {
        reply->value = reply->text = span_of(NULL, 0);
        return true;
    }
    ask->data = malloc(span->len + 1);
    if (ask->data == NULL) {
        return false;
    }
    if (span->len > 0) {
        memcpy(ask->data, span->data, span->len);
    }
    *span = span_of(ask->data, span->len);
    return true;
}

static void on_operation_done(struct operation *op)
{
    struct ask *ask = op->owner;
    ask->reply = op->reply;
    ask->reply.chunk = NULL;
    if (!keep(ask, &ask->reply)) {
        ask->reply.status = REPLY_NO_MEMORY;
    }
    ask->namespace = op->namespace;
    ask->home = op->home;
    operation_put(op);
    if (ask->reply.status == REPLY_ERROR) {
        answer(ask);
    } else {
        answer_or_wait(ask);
    }
}

static const struct {
    enum command command;
    enum op op;
    uint32_t with;
} questions[] = {
    [ASK_GET] = {COMMAND_MG, OP_GET, META_WANT_VALUE | META_WANT_FLAGS | META_WANT_CAS | META_WANT_TTL},
    [ASK_PEEK] = {COMMAND_MG, OP_GET, 0},
    [ASK_SET] = {COMMAND_MS, OP_SET, META_TTL | META_CLIENT_FLAGS | META_WANT_CAS},
    [ASK_DELETE] = {COMMAND_MD, OP_DELETE, 0},
};

/* On the worker's thread. */
static void on_question(struct mail *mail, void *owner)
{
    struct ask *ask = container_of(mail, struct ask, mail);
    struct cache *cache = ask->cache;
    if (cache->is_stopping) {
        refuse(ask, SPAN_LIT("SERVER_ERROR the sidecar is stopping"));
        return;
    }
    struct request request = {
        .command = questions[ask->kind].command,
        .op = questions[ask->kind].op,
        .with = questions[ask->kind].with,
        .protocol = PROTOCOL_META,
        .is_first = true,
        .is_last = true,
        .has_value = ask->kind == ASK_SET,
        .flags = ask->flags,
        .exptime = ask->exptime,
        .value_len = ask->value_len,
        .key = span_of(ask->key, ask->key_len),
    };
    struct operation *op = operation_get(cache, &request);
    op->owner = ask;
    op->on_done = on_operation_done;
    op->reply = (struct reply){.status = REPLY_NONE, .origin = ORIGIN_MISS};
    if (ask->kind == ASK_SET) {
        op->value = span_of(ask->value, ask->value_len);
    }
    operation_locate(&op, 1);
    if (ask->kind == ASK_PEEK) {
        peek_start(op);
    } else {
        cache_handle(op);
    }
}

/* On any thread. */
static void on_job_done(void *ctx)
{
    struct ask *ask = ctx;
    if (job_has_failed(ask->job)) {
        answer(ask);
    } else {
        answer_or_wait(ask);
    }
}

bool ask_has_end(const struct ask *ask)
{
    return ask->kind == ASK_INVALIDATE || ask->wait != NULL;
}

enum err ask_start(struct asks *asks, struct ask *ask)
{
    if (asks->under_way >= asks->max || asks->cache_count == 0 || (ask->wait != NULL && asks->waits >= MAX(asks->max / 2, 1U))) {
        return ERR_OVERLOAD;
    }
    asks->under_way++;
    ask->asks = asks;
    asks->jobs += ask_has_end(ask);
    if (ask->wait != NULL) {
        asks->waits++;
        wait_arm(ask->wait, &asks->is_stopping);
    }
    if (ask->kind == ASK_INVALIDATE) {
        job_start(ask->job, on_job_done, ask);
        return OK;
    }
    if (ask->kind == ASK_APPLIED) {
        answer_or_wait(ask);
        return OK;
    }
    ask->cache = asks->caches[asks->next++ % asks->cache_count];
    ask->mail.deliver = on_question;
    mailbox_post(&ask->cache->loop->mailbox, &ask->mail);
    return OK;
}
