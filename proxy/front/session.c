#include "proxy/front/session.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "proxy/front/stats.h"
#include "proxy/net/stream.h"
#include "proxy/protocol/classic.h"

#define QUEUE_MAX 1024        /* requests of one client under way */
#define QUEUE_CROWDED 16      /* the same, while the worker has more than PENDING_HIGH in all */
#define PENDING_HIGH (1U << 18)
#define UNDER_WAY_BYTES (8UL << 20) /* of replies that one client has coming, judged by those it had: others wait behind them at the nodes */
#define REPLY_GUESS (256U << 10) /* until there has been one */
#define GROUP_FLUSH (256U << 10) /* bytes of a multi-get's reply that are worth a write before it is complete */
#define IDLE_LOOK_US 1000000
#define TOO_MANY "ERROR Too many open connections\r\n"

struct session {
    struct stream stream;
    struct front *front;
    struct list link;
    struct classic classic;
    struct list queue; /* operations in the order of their requests */
    uint32_t queued;
    struct operation *storing; /* its value has not come yet */
    size_t swallow;            /* bytes of a value that is not wanted */
    uint32_t reply_len; /* of a reply's value, typically */
    size_t kept_bytes;  /* of values in the queue whose turn has not come */
    uint64_t active_us;
    uint64_t counted_in; /* bytes already in the metrics */
    uint64_t counted_out;
    bool is_in_group; /* what has been rendered ends within a multi-get's reply */
    bool is_parsing;
    bool is_blocked;   /* an exclusive operation is under way */
    bool is_finishing; /* nothing more is parsed; close when all has been answered */
};

static void on_operation_done(struct operation *op);

/* --- replies --- */

static void count_bytes(struct session *s)
{
    struct metrics_shard *shard = s->front->shard;
    metrics_add(shard, METRIC_BYTES_READ, 0, s->stream.bytes_in - s->counted_in);
    metrics_add(shard, METRIC_BYTES_WRITTEN, 0, s->stream.bytes_out - s->counted_out);
    s->counted_in = s->stream.bytes_in;
    s->counted_out = s->stream.bytes_out;
}

static void count_client_error(struct session *s, enum err err)
{
    metrics_add(s->front->shard, METRIC_ERRORS, metric_index2(SOURCE_CLIENT, ERR_COUNT, err), 1);
}

static void finish_if_answered(struct session *s)
{
    if (s->is_finishing && s->queued == 0) {
        stream_finish(&s->stream);
    }
}

static void unlink_operation(struct session *s, struct operation *op)
{
    list_remove(&op->link);
    s->queued--;
    operation_put(op);
}

/* A client that lets pile up more than it may: what has been rendered, and what waits behind a reply that is not there yet. */
static bool is_owed_too_much(struct session *s)
{
    size_t owed = s->stream.out.bytes + s->kept_bytes;
    if (likely(owed <= s->front->config->max_client_buffer)) {
        return false;
    }
    log_warn(s->front->log, "front: a client does not take its replies: disconnected at %zu bytes", owed);
    count_client_error(s, ERR_OVERLOAD);
    stream_close(&s->stream, ERR_OVERLOAD);
    return true;
}

/* Keeps a reply until those before it are there. */
static void keep(struct session *s, struct operation *op)
{
    if (op->reply.status != REPLY_VALUE) {
        return;
    }
    if (!operation_hold(op)) {
        op->reply.status = REPLY_ERROR;
        op->reply.text = SPAN_LIT(CLASSIC_NO_MEMORY);
        return;
    }
    op->is_kept = true;
    s->kept_bytes += op->reply.value.len;
    is_owed_too_much(s);
}

/* Renders what is done at the head of the queue. */
static void render_ready(struct session *s)
{
    struct front *front = s->front;
    while (!list_is_empty(&s->queue)) {
        struct operation *op = list_entry(s->queue.next, struct operation, link);
        if (!op->is_done) {
            break;
        }
        if (unlikely(!s->is_in_group && !op->request.is_last && s->stream.out.count > 0)) {
            stream_dirty(&s->stream); /* what is complete does not wait for the group that begins behind it */
        }
        s->is_in_group = !op->request.is_last;
        size_t len = op->reply.status == REPLY_VALUE ? op->reply.value.len : 0;
        s->reply_len += (uint32_t)(len / 8) - s->reply_len / 8;
        s->kept_bytes -= op->is_kept ? len : 0;
        if (unlikely(classic_render(&s->classic, &op->request, &op->reply, &s->stream.out) != OK)) {
            stream_close(&s->stream, ERR_NOMEM);
            return;
        }
        if (likely(op->request.command < COMMAND_COUNT)) {
            metrics_observe(front->shard, METRIC_CLIENT_SECONDS, op->request.command, front->loop->now_us - op->started_us);
        }
        unlink_operation(s, op);
    }
    if (is_owed_too_much(s)) {
        return;
    }
    if (s->stream.out.count > 0 && (!s->is_in_group || s->stream.out.bytes >= GROUP_FLUSH)) {
        stream_dirty(&s->stream);
    }
    finish_if_answered(s);
}

static bool is_too_large(const struct session *s, const struct request *request)
{
    return request->has_value && request->value_len > s->front->config->max_value_size;
}

static void on_operation_done(struct operation *op)
{
    struct session *s = op->owner;
    if (unlikely(s == NULL)) { /* its client is gone */
        operation_put(op);
        return;
    }
    op->is_done = true;
    if (unlikely(is_too_large(s, &op->request))) { /* what was done was to drop the old value, see refuse_large() */
        op->reply.status = REPLY_ERROR;
        op->reply.text = SPAN_LIT(CLASSIC_TOO_LARGE);
    }
    if (unlikely(op->is_exclusive)) {
        s->is_blocked = false;
    }
    if (likely(s->queue.next == &op->link)) {
        render_ready(s);
    } else {
        keep(s, op);
    }
    if (unlikely(!s->stream.is_reading) && !s->is_parsing) {
        stream_continue(&s->stream);
        if (s->stream.in == NULL && !s->is_blocked && !s->is_finishing) {
            stream_resume(&s->stream);
        }
    }
}

/* --- requests --- */

static struct operation *enqueue(struct session *s, const struct request *request)
{
    struct operation *op = operation_get(s->front->cache, request);
    op->owner = s;
    op->on_done = on_operation_done;
    list_push_back(&s->queue, &op->link);
    s->queued++;
    return op;
}

/* A reply that needs no cache, in its place among the others. */
static void answer(struct session *s, struct operation *op, enum reply_status status, struct span text)
{
    metrics_add(s->front->shard, METRIC_REQUESTS, metric_index2(op->request.command, s->front->config->namespace_count, op->namespace->index),
                1);
    op->reply.text = text;
    operation_done(op, status);
}

static void answer_error(struct session *s, struct span text)
{
    count_client_error(s, ERR_INVALID);
    struct request none = {.command = COMMAND_COUNT, .op = OP_VERSION, .is_first = true, .is_last = true}; /* an op that is no group */
    struct operation *op = enqueue(s, &none);
    op->reply.text = text;
    operation_done(op, REPLY_ERROR);
}

static void answer_stats(struct session *s, struct operation *op)
{
    if (span_eq(op->request.key, SPAN_LIT("reset"))) {
        answer(s, op, REPLY_ERROR, SPAN_LIT("RESET")); /* accepted; counters only ever grow, as Prometheus wants them */
        return;
    }
    size_t len = 0;
    op->text = stats_text(s->front, op->request.key, &len);
    if (op->text == NULL) {
        answer(s, op, REPLY_ERROR, SPAN_LIT("ERROR"));
        return;
    }
    answer(s, op, REPLY_STATS, span_of(op->text, len));
}

static void dispatch(struct session *s, struct operation *op)
{
    switch (op->request.op) {
    case OP_VERSION:
        answer(s, op, REPLY_VERSION, SPAN_LIT("1.6.38-outrigger-" OUTRIGGER_VERSION));
        return;
    case OP_VERBOSITY:
        answer(s, op, REPLY_OK, (struct span){NULL, 0});
        return;
    case OP_STATS:
        answer_stats(s, op);
        return;
    case OP_QUIT:
        s->is_finishing = true;
        answer(s, op, REPLY_NONE, (struct span){NULL, 0});
        return;
    case OP_FLUSH_ALL:
        metrics_add(s->front->shard, METRIC_REQUESTS,
                    metric_index2(op->request.command, s->front->config->namespace_count, op->namespace->index), 1);
        break;
    default:
        operation_locate(&op, 1);
        break;
    }
    cache_handle(op);
    /* Still at the end of the queue, so it is not done, and may be looked at. */
    if (s->queue.prev == &op->link && op->is_exclusive && !op->is_done) {
        s->is_blocked = true;
    }
}

/* Starts the GETs that have been collected. */
static void dispatch_batch(struct front *front)
{
    uint32_t count = front->batched;
    if (count == 0) {
        return;
    }
    struct operation *batch[KETAMA_MANY]; /* a copy: what is started here may lead to others being collected */
    memcpy(batch, front->batch, count * sizeof(struct operation *));
    front->batched = 0;
    operation_locate(batch, count);
    for (uint32_t i = 0; i < count; i++) {
        cache_handle(batch[i]);
    }
}

/* A GET waits for those behind it that have been received, too; anything else goes at once, after them. */
static void collect_or_dispatch(struct session *s, struct operation *op)
{
    struct front *front = s->front;
    if (op->request.op != OP_GET) {
        dispatch_batch(front);
        dispatch(s, op);
        return;
    }
    front->batch[front->batched++] = op;
    if (front->batched == KETAMA_MANY) {
        dispatch_batch(front);
    }
}

/* memcached drops the old value of a key whose new one is too large, so that nobody takes the old one for the new; the bytes are skipped. */
static void refuse_large(struct session *s, struct operation *op)
{
    count_client_error(s, ERR_TOO_LARGE);
    s->swallow = op->request.value_len + 2;
    if (op->request.op == OP_SET) {
        op->request.op = OP_DELETE;
        dispatch_batch(s->front);
        dispatch(s, op);
        return;
    }
    op->reply.text = SPAN_LIT(CLASSIC_TOO_LARGE);
    operation_done(op, REPLY_ERROR);
}

/* The value of s->storing, if all of it is there. */
static bool take_value(struct session *s)
{
    struct operation *op = s->storing;
    struct span input = stream_input(&s->stream);
    size_t wanted = op->request.value_len + 2;
    if (input.len < wanted) {
        s->stream.need = wanted;
        return false;
    }
    s->stream.need = 0;
    s->storing = NULL;
    if (memcmp(input.data + wanted - 2, CLASSIC_VALUE_END, 2) != 0) {
        stream_consume(&s->stream, wanted);
        count_client_error(s, ERR_INVALID);
        op->reply.text = SPAN_LIT(CLASSIC_BAD_CHUNK);
        operation_done(op, REPLY_ERROR);
        return true;
    }
    op->value = span_of(input.data, wanted);
    op->value_chunk = s->stream.in;
    dispatch_batch(s->front);
    dispatch(s, op);
    stream_consume(&s->stream, wanted);
    return true;
}

/* Parses one request; false when there is not a whole one. */
static bool take_request(struct session *s)
{
    struct span input = stream_input(&s->stream);
    struct request request;
    struct span error = {NULL, 0};
    size_t consumed = 0;
    enum classic_result result = classic_parse(&s->classic, input.data, input.len, &consumed, &request, &error);
    struct operation *op;
    switch (result) {
    case CLASSIC_REQUEST:
        op = enqueue(s, &request);
        stream_consume(&s->stream, consumed);
        if (likely(!request.has_value)) {
            collect_or_dispatch(s, op);
        } else if (is_too_large(s, &request)) {
            refuse_large(s, op);
        } else {
            s->storing = op;
        }
        return true;
    case CLASSIC_ERROR:
        stream_consume(&s->stream, consumed);
        if (error.len > 0) { /* none: noreply */
            answer_error(s, error);
        }
        return true;
    case CLASSIC_CLOSE:
        stream_consume(&s->stream, input.len);
        s->is_finishing = true;
        if (error.len > 0) {
            answer_error(s, error);
        }
        finish_if_answered(s);
        return false;
    case CLASSIC_MORE:
        break;
    }
    return false;
}

static bool may_go_on(const struct session *s)
{
    uint32_t limit = likely(s->front->cache->pending < PENDING_HIGH) ? QUEUE_MAX : QUEUE_CROWDED;
    uint64_t under_way_max = MIN(UNDER_WAY_BYTES, s->front->config->max_client_buffer / 2);
    bool has_room = s->storing != NULL || s->queued == 0 || (uint64_t)s->queued * s->reply_len < under_way_max;
    return s->stream.is_open && !s->is_blocked && !s->is_finishing && s->queued < limit && has_room && s->stream.out.bytes < STREAM_HIGH;
}

/* Parses and starts what is there, as far as the client may go; true when the rest is not a whole request. */
static bool take_all(struct session *s)
{
    struct stream *stream = &s->stream;
    while (stream->in_end > stream->in_start && may_go_on(s)) {
        if (unlikely(s->swallow > 0)) {
            size_t n = MIN(s->swallow, stream->in_end - stream->in_start);
            stream_consume(stream, n);
            s->swallow -= n;
        } else if (!(s->storing != NULL ? take_value(s) : take_request(s))) {
            dispatch_batch(s->front);
            return true;
        }
    }
    dispatch_batch(s->front);
    return false;
}

static void on_data(struct stream *stream)
{
    struct session *s = container_of(stream, struct session, stream);
    s->active_us = s->front->loop->now_us;
    s->is_parsing = true;
    bool is_hungry;
    do { /* again, if what was started is done already (its node is away), and made room for more */
        is_hungry = take_all(s);
    } while (!is_hungry && stream->is_open && stream->in_end > stream->in_start && may_go_on(s));
    s->is_parsing = false;
    if (!stream->is_open) {
        return;
    }
    if (s->is_finishing) {
        stream_consume(stream, stream->in_end - stream->in_start);
    }
    count_bytes(s);
    if (may_go_on(s) || (is_hungry && !s->is_finishing && !s->is_blocked)) {
        stream_resume(stream);
    } else {
        stream_pause(stream);
    }
}

static void on_drain(struct stream *stream)
{
    struct session *s = container_of(stream, struct session, stream);
    if (!s->is_finishing && !s->is_blocked) {
        stream_continue(stream);
        if (stream->in == NULL) {
            stream_resume(stream);
        }
    }
}

/* --- life --- */

static void on_eof(struct stream *stream)
{
    struct session *s = container_of(stream, struct session, stream);
    s->is_finishing = true; /* what was asked before is still answered */
    if (s->storing != NULL) {
        unlink_operation(s, s->storing);
        s->storing = NULL;
    }
    finish_if_answered(s);
}

static void on_close(struct stream *stream, enum err err)
{
    struct session *s = container_of(stream, struct session, stream);
    struct front *front = s->front;
    count_bytes(s);
    while (!list_is_empty(&s->queue)) {
        struct operation *op = list_entry(s->queue.next, struct operation, link);
        list_remove(&op->link);
        op->owner = NULL;
        if (op->is_done || op == s->storing) {
            operation_put(op);
        }
    }
    s->queued = 0;
    s->storing = NULL;
    list_remove(&s->link);
    front->session_count--;
    metrics_set(front->shard, METRIC_CONNECTIONS, 0, front->session_count);
    atomic_fetch_sub_explicit(front->connection_count, 1, memory_order_relaxed);
    if (err != ERR_CLOSED && err != ERR_IO) { /* a client that went away is nobody's error */
        count_client_error(s, err);
    }
}

static void on_bury(struct stream *stream)
{
    free(container_of(stream, struct session, stream));
}

static void on_handshake(struct stream *stream, enum handshake_result result, const char *why)
{
    struct front *front = container_of(stream, struct session, stream)->front;
    char peer[STREAM_PEER_SIZE];
    metrics_add(front->shard, METRIC_TLS_HANDSHAKES, result, 1);
    if (result != HANDSHAKE_FULL && result != HANDSHAKE_RESUMED && result != HANDSHAKE_CLOSED) {
        log_warn(front->log, "front: no TLS with %s: %s", stream_peer(stream, peer), why);
    }
}

static const struct stream_ops session_ops = {
    .on_handshake = on_handshake,
    .on_data = on_data,
    .on_drain = on_drain,
    .on_eof = on_eof,
    .on_close = on_close,
    .on_bury = on_bury,
};

/* One more than there may be: told so if it can be told in plain text. */
static void refuse(struct front *front, int fd, const struct config_listen *listen)
{
    metrics_add(front->shard, METRIC_CONNECTIONS_REFUSED, 0, 1);
    if (!listen->tls) {
        ssize_t ignored = send(fd, TOO_MANY, sizeof TOO_MANY - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        (void)ignored;
    }
    close(fd);
}

void session_accept(void *ctx, int fd, const struct config_listen *listen)
{
    struct front *front = ctx;
    uint32_t others = atomic_fetch_add_explicit(front->connection_count, 1, memory_order_relaxed);
    struct tls_session *secure = NULL;
    if (others >= front->config->max_connections || (listen->tls && (secure = tls_accept(front->tls, fd)) == NULL)) {
        atomic_fetch_sub_explicit(front->connection_count, 1, memory_order_relaxed);
        refuse(front, fd, listen);
        return;
    }
    struct session *s = xcalloc(1, sizeof *s);
    s->front = front;
    s->reply_len = (uint32_t)MAX(REPLY_GUESS, front->config->max_value_size);
    s->active_us = front->loop->now_us;
    list_init(&s->queue);
    classic_init(&s->classic);
    list_push_back(&front->sessions, &s->link);
    front->session_count++;
    metrics_set(front->shard, METRIC_CONNECTIONS, 0, front->session_count);
    metrics_add(front->shard, METRIC_CONNECTIONS_TOTAL, 0, 1);
    if (secure != NULL) {
        stream_open_tls(&s->stream, front->loop, &session_ops, fd, secure, front->config->tls->handshake_timeout_ms);
    } else {
        stream_open(&s->stream, front->loop, &session_ops, fd);
    }
}

static void on_idle_look(struct timer *timer)
{
    struct front *front = container_of(timer, struct front, idle_timer);
    uint64_t limit_us = 1000ULL * front->config->idle_timeout_ms;
    struct list *it, *tmp;
    list_for_each(it, tmp, &front->sessions)
    {
        struct session *s = list_entry(it, struct session, link);
        bool owes_nothing = s->queued == (s->storing != NULL ? 1 : 0); /* half a value has come, and nothing since */
        if (owes_nothing && front->loop->now_us - s->active_us > limit_us) {
            stream_close(&s->stream, ERR_TIMEOUT);
        }
    }
    timer_start(timer, IDLE_LOOK_US);
}

void front_init(struct front *front)
{
    list_init(&front->sessions);
    front->session_count = 0;
    front->is_draining = false;
    timer_init(&front->idle_timer, front->loop, on_idle_look);
    if (front->config->idle_timeout_ms > 0) {
        timer_start(&front->idle_timer, IDLE_LOOK_US);
    }
}

void front_drain(struct front *front)
{
    front->is_draining = true;
    struct list *it, *tmp;
    list_for_each(it, tmp, &front->sessions)
    {
        struct session *s = list_entry(it, struct session, link);
        if (!s->is_finishing) {
            on_eof(&s->stream);
        }
    }
}

void front_deinit(struct front *front)
{
    timer_stop(&front->idle_timer);
    while (!list_is_empty(&front->sessions)) {
        stream_close(&list_entry(front->sessions.next, struct session, link)->stream, ERR_CLOSED);
    }
    stream_bury_dead(front->loop);
}
