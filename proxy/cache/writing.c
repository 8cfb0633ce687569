#include "proxy/cache/writing.h"

#include "common/guard.h"
#include "proxy/cache/fill.h"
#include "proxy/cache/freshness.h"
#include "proxy/cache/hide.h"
#include "proxy/cache/invalidate.h"
#include "proxy/cache/publish.h"
#include "proxy/cache/read.h"
#include "proxy/cache/settle.h"
#include "proxy/cache/touch.h"
#include "proxy/cache/writing_parts.h"

static const struct {
    bool is_write;
    enum write_op op;
} translations[OP_NONE + 1] = {
    [OP_SET] = {true, WRITE_SET},         [OP_ADD] = {true, WRITE_ADD},       [OP_REPLACE] = {true, WRITE_REPLACE},
    [OP_APPEND] = {true, WRITE_APPEND},   [OP_PREPEND] = {true, WRITE_PREPEND}, [OP_DELETE] = {true, WRITE_DELETE},
    [OP_INCR] = {true, WRITE_INCR},       [OP_DECR] = {true, WRITE_DECR},     [OP_TOUCH] = {true, WRITE_TOUCH},
    [OP_GAT] = {true, WRITE_TOUCH},
};

/* --- the end --- */

void writing_drop(struct writing *w)
{
    struct operation *op = w->op;
    if (w->is_reserved) { /* nothing was written */
        bus_cancel(op->cache->bus, &w->publication);
    }
    chunk_unref(&w->value);
    chunk_unref(&w->current);
    if (w->write.row.found) {
        chunk_unref(&w->write.row.value);
    }
    free(w);
    op->journey = NULL;
}

static void give_back(struct writing *w)
{
    struct operation *op = w->op;
    if (w->has_lease) {
        lease_give_back(op->cache, op->namespace, op->request.key, op->home, w->seen, w->is_tombstone);
        w->has_lease = false;
    }
}

void writing_finish(struct writing *w, enum reply_status status)
{
    struct operation *op = w->op;
    writing_drop(w);
    operation_done(op, status);
}

static void fail_node(struct writing *w, enum err err)
{
    struct operation *op = w->op;
    writing_drop(w);
    operation_fail_node(op, err);
}

/* --- the database has it --- */

static enum reply_status status_of(const struct operation *op)
{
    switch (op->request.op) {
    case OP_DELETE: return REPLY_DELETED;
    case OP_INCR:
    case OP_DECR: return REPLY_NUMBER;
    case OP_TOUCH: return REPLY_TOUCHED;
    default: return REPLY_STORED;
    }
}

void writing_fail_in_doubt(struct writing *w)
{
    struct operation *op = w->op;
    char text[WRITE_ERROR_MAX];
    snprintf(text, sizeof text, "%s", w->write.error);
    writing_drop(w);
    operation_fail(op, "database: %s; nobody knows whether it was written: read the key to see", text);
}

static void on_published(void *ctx, enum err err)
{
    struct writing *w = ctx;
    struct operation *op = w->op;
    if (w->is_in_doubt) {
        writing_fail_in_doubt(w);
    } else if (w->node_err != OK) {
        enum err node_err = w->node_err;
        writing_drop(w);
        operation_fail(op, "written, but node %s could not be told yet (%s)", op->cache->config->pool.nodes[op->home].address.text,
                       err_text(node_err));
    } else if (err != OK) {
        writing_drop(w);
        publish_fail(op, err);
    } else if (op->request.op == OP_GAT) { /* its row has the new expiry: now it is a read like any other */
        writing_drop(w);
        read_start(op);
    } else {
        writing_finish(w, w->status);
    }
}

static void on_committed(struct publication *publication)
{
    on_published(container_of(publication, struct writing, publication), publication->err);
}

/* The key's own region has dropped or replaced what was true before. */
static void publish(struct writing *w)
{
    struct operation *op = w->op;
    uint64_t version = cache_version(op->cache);
    if (!w->is_reserved) {
        publish_key(op->cache, op->request.key, version, on_published, w);
        return;
    }
    w->is_reserved = false;
    w->publication.on_done = on_committed;
    w->publication.event.version = version;
    w->publication.event.timestamp_ms = clock_wall_ms();
    bus_commit(op->cache->bus, &w->publication);
}

static void on_invalidated(void *ctx, enum err err, enum invalidate_result result)
{
    struct writing *w = ctx;
    if (err != OK && !w->is_in_doubt) {
        w->node_err = err;
        settle_owed(w->op->cache, w->op->namespace, w->op->request.key);
    }
    publish(w);
}

static void invalidate(struct writing *w)
{
    struct operation *op = w->op;
    invalidate_start(op->cache, op->namespace, op->request.key, cache_version(op->cache), 0, on_invalidated, w);
}

static void on_stored(void *ctx, enum fill_result result)
{
    struct writing *w = ctx;
    if (result == FILL_STORED || !guard_is_on(w->op->cache->config, GUARD_POST_WRITE_TOMBSTONE)) {
        publish(w);
        return;
    }
    invalidate(w); /* somebody was faster, or the node did not say: nobody knows what the key has now */
}

/* The row as an entry, or false: there is none for it, or it would be gone while a replica may still show the row before it. */
static bool make_entry(const struct writing *w, struct fill *fill)
{
    const struct operation *op = w->op;
    const struct row *row = &w->write.row;
    int64_t least_ttl = fill_least_ttl(op->cache, cache_version(op->cache)); /* the row before this write is false since now, at the latest */
    bool ends_early = false;
    if (op->request.op == OP_DELETE || op->request.op == OP_TOUCH || op->request.op == OP_GAT) {
        return false;
    }
    *fill = (struct fill){
        .cache = op->cache,
        .namespace = op->namespace,
        .key = op->request.key,
        .home = op->home,
        .guard = w->seen,
        .version = w->write.version,
    };
    if (row->found) {
        fill->value = span_of(row->value->data, row->value_len);
        fill->chunk = row->value;
        fill->flags = row->flags;
        bool is_named = op->request.exptime != 0 && w->value != NULL && row->expires_in_s < 0; /* an expiry that the row has no place for */
        int64_t ttl = is_named ? op->request.exptime : fill_ttl(op->cache, op->namespace, row->expires_in_s);
        fill->ttl = fill_ttl_at_least(ttl, least_ttl);
        ends_early = (row->expires_in_s >= 0 && row->expires_in_s < least_ttl) || (is_named && (ttl < 0 || fill->ttl != ttl));
        memcpy(row->value->data + row->value_len, "\r\n", 2);
    } else if (w->value != NULL && op->request.exptime >= 0) {
        fill->value = span_of(w->value->data, op->request.value_len);
        fill->chunk = w->value;
        fill->flags = op->request.flags;
        ends_early = fill_ttl_at_least(op->request.exptime, least_ttl) != op->request.exptime;
        fill->ttl = fill_ttl_at_least(op->request.exptime > 0 ? op->request.exptime : fill_ttl(op->cache, op->namespace, -1), least_ttl);
    } else {
        return false;
    }
    bool is_fresh = freshness_may_fill(fill->version, cache_rule(op->cache, op->request.key)); /* no pattern has hidden it meanwhile */
    return is_fresh && !ends_early && !(fill->value.len == 0 && fill->flags == NEGATIVE_FLAGS);
}

static void on_applied(struct writing *w)
{
    struct operation *op = w->op;
    struct fill fill;
    op->reply.cas = w->write.version;
    op->reply.number = w->write.number;
    op->reply.flags = w->write.row.found ? w->write.row.flags : op->request.flags;
    if (!make_entry(w, &fill)) {
        invalidate(w);
        return;
    }
    op->reply.size = fill.value.len;
    fill.on_done = on_stored;
    fill.ctx = w;
    fill_start(&fill);
}

/* --- the writer's answer --- */

enum reply_status writing_refusal(enum write_outcome outcome)
{
    switch (outcome) {
    case WRITE_NOT_STORED: return REPLY_NOT_STORED;
    case WRITE_EXISTS: return REPLY_EXISTS;
    case WRITE_NOT_FOUND: return REPLY_NOT_FOUND;
    case WRITE_NON_NUMERIC: return REPLY_NON_NUMERIC;
    case WRITE_TOO_LARGE: return REPLY_TOO_LARGE;
    default: return REPLY_ERROR;
    }
}

void writing_end_refused(struct writing *w)
{
    struct operation *op = w->op;
    enum reply_status status = writing_refusal(w->write.outcome);
    give_back(w);
    op->reply.cas = 0;
    op->reply.size = op->request.value_len;
    if (status != REPLY_ERROR) {
        writing_finish(w, op->request.op == OP_GAT ? REPLY_MISS : status);
        return;
    }
    char text[WRITE_ERROR_MAX];
    snprintf(text, sizeof text, "%s", w->write.error);
    bool is_refused = w->write.outcome == WRITE_REFUSED;
    enum err err = w->write.err;
    writing_drop(w);
    if (is_refused) {
        operation_fail(op, "namespace %s: %s", op->namespace->config->name, text);
    } else {
        operation_fail(op, "database: %s%s%s", err_text(err), text[0] != '\0' ? ": " : "", text);
    }
}

/* The entry is not what the row is: no reader shall have it any more. */
static bool is_disproved(const struct writing *w)
{
    return w->write.has_expected && (w->write.outcome == WRITE_EXISTS || w->write.outcome == WRITE_NOT_FOUND);
}

bool writing_is_deleted_row(const struct writing *w)
{
    return w->op->request.op == OP_DELETE && w->write.outcome == WRITE_NOT_FOUND && !(w->op->request.with & META_CAS);
}

static void on_written(struct write *write)
{
    struct writing *w = container_of(write, struct writing, write);
    struct operation *op = w->op;
    if (w->strong != NULL) {
        writing_strong_written(w);
    } else if (write->outcome == WRITE_APPLIED) {
        on_applied(w);
    } else if (write->outcome == WRITE_IN_DOUBT) {
        w->is_in_doubt = true;
        settle_start(op->cache, op->namespace, op->request.key, write->deadline_us);
        invalidate(w);
    } else if (is_disproved(w)) {
        w->status = writing_refusal(write->outcome);
        invalidate(w);
    } else if (writing_is_deleted_row(w)) {
        give_back(w);
        invalidate(w);
    } else {
        writing_end_refused(w);
    }
}

void writing_submit(struct writing *w)
{
    struct operation *op = w->op;
    struct cache *cache = op->cache;
    const struct request *request = &op->request;
    struct write *write = &w->write;
    write->reply_to = &cache->loop->mailbox;
    write->on_done = on_written;
    write->namespace = op->namespace->index;
    write->op = translations[request->op].op;
    write->key_len = (uint16_t)request->key.len;
    memcpy(write->key, request->key.data, request->key.len);
    write->value = w->value != NULL ? span_of(w->value->data, request->value_len) : (struct span){NULL, 0};
    write->flags = request->flags;
    write->exptime = request->exptime;
    write->delta = request->with & META_DELTA ? request->delta : 1;
    if (request->protocol != PROTOCOL_CLASSIC && (request->with & META_VIVIFY) && (request->op == OP_INCR || request->op == OP_DECR)) {
        write->has_initial = true;
        write->initial = request->with & META_INITIAL ? request->initial : 0;
        write->exptime = request->vivify_ttl;
    }
    if (w->current != NULL) {
        write->has_expected = true;
    }
    /* Taken after the key was looked at and before the database is asked: a lower bound of when the row is true. */
    write->version = cache_version(cache);
    write->deadline_us = cache->loop->now_us + 1000ULL * cache->config->database->timeout_ms;
    if (w->strong != NULL) {
        write->deadline_us = MIN(write->deadline_us, w->strong->fence_us);
    }
    if (cache->is_stopping) {
        write_end(write, WRITE_FAILED, ERR_STOPPING, "%s", "");
        on_written(write);
    } else if (writer_submit(cache->writer, write) != OK) {
        on_written(write);
    }
}

static void on_reserved(struct publication *publication)
{
    struct writing *w = container_of(publication, struct writing, publication);
    struct operation *op = w->op;
    if (publication->err == OK) {
        w->is_reserved = true;
        writing_submit(w);
        return;
    }
    enum err err = publication->err;
    give_back(w);
    writing_drop(w);
    operation_fail(op, "not written: what the other regions would have to be told can not be kept: %s", err_text(err));
}

/* With a spool, the invalidation is on the disk before the database is asked: a sidecar that dies in between tells of it when it is back. */
static void reserve(struct writing *w)
{
    struct operation *op = w->op;
    struct cache *cache = op->cache;
    if (cache->bus == NULL || !bus_has_intent(cache->bus)) {
        writing_submit(w);
        return;
    }
    w->publication = (struct publication){
        .reply_to = &cache->loop->mailbox,
        .on_done = on_reserved,
        .event = {.version = cache_version(cache), .timestamp_ms = clock_wall_ms(), .key_len = (uint16_t)op->request.key.len},
    };
    memcpy(w->publication.event.key, op->request.key.data, op->request.key.len);
    bus_reserve(cache->bus, &w->publication);
}

/* --- before --- */

/* The client's `cas`: the entry must be there, and have the CAS that is named. What it is the row must be, too. */
static bool take_current(struct writing *w, const struct meta_reply *reply)
{
    struct operation *op = w->op;
    bool has_value = !w->has_lease && entry_is_there(op->cache, op->request.key, reply) && !is_negative(reply);
    if (!has_value || reply->cas != op->request.cas) {
        give_back(w);
        writing_finish(w, has_value ? REPLY_EXISTS : REPLY_NOT_FOUND);
        return false;
    }
    w->current = chunk_get(&op->cache->loop->chunks, reply->value_len);
    if (w->current == NULL) {
        writing_finish(w, REPLY_NO_MEMORY);
        return false;
    }
    memcpy(w->current->data, reply->value.data, reply->value_len);
    w->write.expected = span_of(w->current->data, reply->value_len);
    w->write.expected_flags = reply->client_flags;
    return true;
}

static void on_looked(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct operation *op = container_of(call, struct operation, call);
    struct writing *w = op->journey;
    bool is_cas = op->request.with & META_CAS;
    if (err != OK) {
        fail_node(w, err);
        return;
    }
    if (is_cas && reply->status == META_EN) {
        writing_finish(w, REPLY_NOT_FOUND);
        return;
    }
    if (reply->status != META_HD && reply->status != META_VA) {
        writing_drop(w);
        operation_refused(op, reply);
        return;
    }
    cache_observe_entry(op->cache, op->namespace, reply->cas);
    w->seen = reply->cas;
    w->has_lease = reply->won;
    w->is_tombstone = reply->stale;
    if (is_cas && !take_current(w, reply)) {
        return;
    }
    if (namespace_is_strong(op->namespace)) {
        writing_strong_prepare(w);
    } else {
        reserve(w);
    }
}

static void look(struct operation *op)
{
    struct cache *cache = op->cache;
    struct meta_request meta = {.command = META_GET, .with = META_WANT_CAS, .key = op->request.key};
    if (op->request.with & META_CAS) {
        meta.with |= META_WANT_VALUE | META_WANT_FLAGS;
    } else {
        meta.with |= META_VIVIFY | META_VERSION;
        meta.vivify_ttl = op->namespace->config->lease_ttl_s;
        meta.version = cache_version(cache);
    }
    op->call.on_reply = on_looked;
    enum err err = cache_submit(cache, op->home, &meta, (struct span){NULL, 0}, NULL, &op->call);
    if (err != OK) {
        fail_node(op->journey, err);
    }
}

/* The value is the client's input, which will be gone: a copy of its own, as long as the write takes. */
static bool keep_value(struct writing *w)
{
    struct operation *op = w->op;
    size_t len = op->request.value_len;
    w->value = chunk_get(&op->cache->loop->chunks, len + 2);
    if (w->value == NULL) {
        return false;
    }
    if (len > 0) {
        memcpy(w->value->data, op->value.data, len);
    }
    memcpy(w->value->data + len, "\r\n", 2);
    return true;
}

void writing_start(struct operation *op)
{
    struct cache *cache = op->cache;
    if (op->request.op == OP_DELETE && op->request.has_value) { /* a set whose value was too large: that is no reason to delete the row */
        operation_done(op, REPLY_TOO_LARGE);
        return;
    }
    bool is_touch = op->request.op == OP_TOUCH || op->request.op == OP_GAT;
    if (is_touch && !writer_can_touch(cache->writer, op->namespace->index)) {
        op->request.op == OP_TOUCH ? touch_start(op) : read_start(op);
        return;
    }
    op->is_exclusive = true;
    struct writing *w = xcalloc(1, sizeof *w);
    w->op = op;
    w->status = status_of(op);
    op->journey = w;
    if (op->value.data != NULL && !keep_value(w)) {
        writing_finish(w, REPLY_NO_MEMORY);
        return;
    }
    if (namespace_is_strong(op->namespace) && !(op->request.with & META_CAS)) { /* nothing depends on what the key has */
        writing_strong_prepare(w);
        return;
    }
    look(op);
}
