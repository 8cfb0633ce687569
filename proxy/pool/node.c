#include "proxy/pool/node.h"

#include "common/clock.h"
#include "common/random.h"
#include "proxy/net/stream.h"
#include "proxy/pool/slots.h"

#define TICK_US 20000
#define NODE_VERSION_SIZE 48
#define GREETING "version\r\n"
#define VERSIONS_SINCE 10628 /* memcached 1.6.28 takes the CAS from us */
#define OUTPUT_MAX (64U << 20) /* bytes not yet written to one node, besides one value of the largest size; beyond: ERR_OVERLOAD */

enum connection_state { DOWN, RESOLVING, CONNECTING, GREETING_SENT, UP };

struct connection {
    struct stream stream; /* open in CONNECTING, GREETING_SENT and UP */
    struct node *node;
    enum connection_state state;
    bool is_buried; /* the stream may be used again */
    bool was_tried;
    struct resolution resolution;
    struct timer timer; /* DOWN: the next try; CONNECTING and GREETING_SENT: give up; UP: the tick */
    struct slots slots;
    uint64_t heard_us; /* when the last byte came, when the FIFO became non-empty, or when a full socket was last seen to take more */
    uint64_t taken;    /* bytes that the socket had taken at the last tick */
    bool is_ticking;   /* UP: the timer runs; it stops by itself when there is nothing under way */
    uint32_t retry_ms;
    size_t swallow; /* bytes of a value that is larger than we take */
    bool has_versions;
    struct node_call *stats_call; /* what STAT lines are for; of the last node_submit_stats() */
};

struct node {
    struct node_context context;
    const struct config_node *config;
    uint32_t index;
    bool is_stopping;
    uint64_t random; /* for jitter */
    char version[NODE_VERSION_SIZE];
    uint32_t up_count;
    uint64_t up_since_us; /* when the newest connection was made; 0: never */
    uint32_t connection_count;
    struct connection connections[];
};

static const struct stream_ops connection_ops;
static void connection_start(struct connection *c);

const char *node_name(const struct node *node)
{
    return node->config->address.text;
}

bool node_is_up(const struct node *node)
{
    return node->up_count == node->connection_count;
}

bool node_is_young(const struct node *node, uint64_t age_us)
{
    return node->up_since_us == 0 || node->context.loop->now_us - node->up_since_us < age_us;
}

void node_rejuvenate(struct node *node)
{
    node->up_since_us = node->context.loop->now_us;
}

bool node_has_versions(const struct node *node)
{
    return node->connections[0].has_versions;
}

const char *node_version(const struct node *node)
{
    return node->version;
}

bool node_was_tried(const struct node *node)
{
    for (uint32_t i = 0; i < node->connection_count; i++) {
        if (!node->connections[i].was_tried) {
            return false;
        }
    }
    return true;
}

static void count_error(struct node *node, enum err err)
{
    metrics_add(node->context.metrics, METRIC_NODE_ERRORS, metric_index2(node->index, ERR_COUNT, err), 1);
    metrics_add(node->context.metrics, METRIC_ERRORS, metric_index2(SOURCE_NODE, ERR_COUNT, err), 1);
}

/* --- the life of a connection --- */

/* What is under way ends; on_reply may submit again, which then fails at once because the state is DOWN. */
static void fail_all(struct connection *c, enum err err)
{
    while (c->slots.count > 0) {
        struct slot slot = slots_pop(&c->slots);
        if (slot.call != NULL) {
            count_error(c->node, err);
            slot.call->on_reply(slot.call, err, NULL, NULL);
        }
    }
}

static void schedule_retry(struct connection *c)
{
    if (c->node->is_stopping) {
        return;
    }
    const struct config_pool *pool = &c->node->context.config->pool;
    uint32_t ms = MAX(c->retry_ms, pool->retry_min_ms);
    c->retry_ms = MIN(ms * 2, pool->retry_max_ms);
    timer_start(&c->timer, 1000ULL * MAX(random_jitter(&c->node->random, ms), 1U));
}

static void go_down(struct connection *c, enum err err)
{
    struct node *node = c->node;
    bool was_up = c->state == UP;
    c->state = DOWN;
    c->was_tried = true;
    if (was_up) {
        node->up_count--;
        metrics_set(node->context.metrics, METRIC_NODE_UP, node->index, node->up_count);
    }
    if (!node->is_stopping) {
        log_warn(node->context.log, "pool: node %s: %s: %s; its keys are answered with errors, or from their source, until it is back",
                 node_name(node), was_up ? "connection lost" : "can not connect", err_text(err));
    }
    schedule_retry(c);
    fail_all(c, node->is_stopping ? ERR_STOPPING : err);
}

static void on_stream_close(struct stream *stream, enum err err)
{
    go_down(container_of(stream, struct connection, stream), err);
}

static void on_stream_bury(struct stream *stream)
{
    container_of(stream, struct connection, stream)->is_buried = true;
}

static void on_resolved(struct resolution *resolution, enum err err)
{
    struct connection *c = container_of(resolution, struct connection, resolution);
    if (err == OK) {
        c->state = CONNECTING;
        c->is_buried = false;
        err = stream_connect(&c->stream, c->node->context.loop, &connection_ops, (struct sockaddr *)&resolution->address,
                             resolution->address_len);
        if (err != OK) {
            c->is_buried = true;
        }
    }
    if (err != OK) {
        timer_stop(&c->timer);
        go_down(c, err);
    }
}

static void connection_start(struct connection *c)
{
    if (!c->is_buried) {
        timer_start(&c->timer, 1000);
        return;
    }
    c->state = RESOLVING;
    timer_start(&c->timer, 1000ULL * c->node->context.config->pool.connect_timeout_ms);
    resolver_ask(c->node->context.resolver, &c->node->config->address, &c->resolution);
}

static void on_connected(struct stream *stream)
{
    struct connection *c = container_of(stream, struct connection, stream);
    c->state = GREETING_SENT;
    c->swallow = 0;
    if (chain_append(&stream->out, GREETING, sizeof GREETING - 1) != OK) {
        stream_close(stream, ERR_NOMEM);
        return;
    }
    stream_dirty(stream);
}

/* "1.6.38…" to 10638; 0 when it does not look like a version. */
static uint32_t version_number(struct span text)
{
    uint32_t parts[3] = {0, 0, 0};
    size_t part = 0;
    for (size_t i = 0; i < text.len; i++) {
        char ch = text.data[i];
        if (ch >= '0' && ch <= '9' && parts[part] < 99) {
            parts[part] = parts[part] * 10 + (uint32_t)(ch - '0');
        } else if (ch == '.' && part < 2) {
            part++;
        } else {
            break;
        }
    }
    return part < 2 ? 0 : parts[0] * 10000 + MIN(parts[1], 99U) * 100 + MIN(parts[2], 99U);
}

static void on_greeted(struct connection *c, const struct meta_reply *reply)
{
    struct node *node = c->node;
    enum versions_mode mode = node->context.config->pool.versions;
    if (reply->status != META_VERSION_IS) { /* "ERROR Too many open connections", say */
        log_warn(node->context.log, "pool: node %s: asked for its version it said \"%.*s\"", node_name(node), SPAN_FMT(reply->text));
        stream_close(&c->stream, ERR_REMOTE);
        return;
    }
    bool is_new = version_number(reply->text) >= VERSIONS_SINCE;
    if (mode == VERSIONS_ON && !is_new) {
        log_error(node->context.log,
                  "pool: node %s: is \"%.*s\", but versions need memcached >= 1.6.28 (set pool.versions: off, without read: through)",
                  node_name(node), SPAN_FMT(reply->text));
        stream_close(&c->stream, ERR_UNSUPPORTED);
        return;
    }
    snprintf(node->version, sizeof node->version, "%.*s", SPAN_FMT(reply->text));
    c->has_versions = is_new && mode != VERSIONS_OFF;
    c->state = UP;
    c->node->up_since_us = c->node->context.loop->now_us;
    c->was_tried = true;
    node->up_count++;
    metrics_set(node->context.metrics, METRIC_NODE_UP, node->index, node->up_count);
    metrics_add(node->context.metrics, METRIC_NODE_CONNECTS, node->index, 1);
    log_info(node->context.log, "pool: node %s: connected (memcached %.*s%s)", node_name(node), SPAN_FMT(reply->text),
             c->has_versions ? "" : ", without versions");
    timer_stop(&c->timer);
    c->is_ticking = false;
}

/* --- replies and deadlines --- */

/* A value that somebody else stored in the pool and that is larger than ours may be: its reader gets an error, everybody else nothing. */
static void refuse_large(struct connection *c, size_t consumed, size_t value_len)
{
    stream_consume(&c->stream, consumed);
    c->stream.need = 0;
    c->swallow = value_len + 2;
    struct slot slot = slots_pop(&c->slots);
    count_error(c->node, ERR_TOO_LARGE);
    if (slot.call != NULL) {
        slot.call->on_reply(slot.call, ERR_TOO_LARGE, NULL, NULL);
    }
}

/* Only whoever has asked for statistics gets them, or has given up waiting for them. */
static bool is_for_stats(const struct connection *c)
{
    if (c->state != UP || c->slots.count == 0 || c->stats_call == NULL) {
        return false;
    }
    const struct node_call *call = slots_at(&c->slots, 0)->call;
    return call == NULL || call == c->stats_call;
}

/* One line of several: the slot stays. */
static void take_stat(struct connection *c, const struct meta_reply *reply, size_t consumed)
{
    struct node_call *call = slots_at(&c->slots, 0)->call;
    stream_consume(&c->stream, consumed);
    if (call != NULL) {
        call->on_reply(call, OK, reply, c->stream.in);
    }
}

static void on_stream_data(struct stream *stream)
{
    struct connection *c = container_of(stream, struct connection, stream);
    struct node *node = c->node;
    struct metrics_shard *metrics = node->context.metrics;
    uint64_t now_us = stream->loop->now_us;
    size_t max_value = node->context.config->max_value_size + 4096; /* other clients of the pool may store a little more */
    c->heard_us = now_us;
    while (stream->is_open && stream->in_end > stream->in_start) {
        if (unlikely(c->swallow > 0)) {
            size_t n = MIN(c->swallow, stream->in_end - stream->in_start);
            stream_consume(stream, n);
            c->swallow -= n;
            continue;
        }
        struct meta_reply reply;
        size_t consumed = 0;
        struct span input = stream_input(stream);
        enum meta_result result = meta_parse(input.data, input.len, max_value, &reply, &consumed, &stream->need);
        if (result == META_MORE) {
            return;
        }
        if (unlikely(result == META_TOO_LARGE && c->slots.count > 0)) {
            refuse_large(c, consumed, reply.value_len);
            continue;
        }
        if (result != META_REPLY || (c->state == UP && c->slots.count == 0)) {
            log_error(node->context.log, "pool: node %s: what it sent is no reply to anything we asked", node_name(node));
            stream_close(stream, ERR_PROTOCOL);
            return;
        }
        if (unlikely(reply.status == META_STAT || reply.status == META_END)) {
            if (!is_for_stats(c)) {
                log_error(node->context.log, "pool: node %s: what it sent is no reply to anything we asked", node_name(node));
                stream_close(stream, ERR_PROTOCOL);
                return;
            }
            if (reply.status == META_STAT) {
                take_stat(c, &reply, consumed);
                continue;
            }
        }
        stream_consume(stream, consumed);
        stream->need = 0;
        if (unlikely(c->state == GREETING_SENT)) {
            on_greeted(c, &reply);
            continue;
        }
        struct slot slot = slots_pop(&c->slots);
        c->retry_ms = 0; /* it does more than greet */
        slots_prefetch(&c->slots, 2);
        metrics_observe(metrics, METRIC_NODE_SECONDS, node->index, now_us - slot.sent_us);
        if (likely(slot.call != NULL)) {
            slot.call->on_reply(slot.call, OK, &reply, stream->in);
        }
    }
}

static void expire(struct connection *c, uint64_t now_us)
{
    uint64_t timeout_us = 1000ULL * c->node->context.config->pool.timeout_ms;
    while (c->slots.expired < c->slots.count) {
        struct slot *slot = slots_at(&c->slots, c->slots.expired);
        if (now_us - slot->sent_us < timeout_us) {
            return;
        }
        struct node_call *call = slot->call;
        slot->call = NULL;
        c->slots.expired++;
        if (call != NULL) {
            count_error(c->node, ERR_TIMEOUT);
            call->on_reply(call, ERR_TIMEOUT, NULL, NULL);
        }
    }
}

static void on_timer(struct timer *timer)
{
    struct connection *c = container_of(timer, struct connection, timer);
    uint64_t now_us = timer->loop->now_us;
    switch (c->state) {
    case DOWN:
        connection_start(c);
        return;
    case RESOLVING:
        resolver_cancel(&c->resolution);
        go_down(c, ERR_TIMEOUT);
        return;
    case CONNECTING:
    case GREETING_SENT:
        stream_close(&c->stream, ERR_TIMEOUT);
        return;
    case UP:
        break;
    }
    c->is_ticking = c->slots.count > 0;
    if (!c->is_ticking) {
        return;
    }
    timer_start(&c->timer, TICK_US);
    if (c->stream.is_stuck && c->stream.bytes_out != c->taken) {
        c->heard_us = now_us; /* a large value is on its way, and moves */
    }
    c->taken = c->stream.bytes_out;
    expire(c, now_us);
    if (c->state == UP && c->slots.expired > 0 && now_us - c->heard_us >= 1000ULL * c->node->context.config->pool.timeout_ms) {
        stream_close(&c->stream, ERR_TIMEOUT); /* silent for a whole timeout: nothing will come any more */
    }
}

static const struct stream_ops connection_ops = {
    .on_connect = on_connected,
    .on_data = on_stream_data,
    .on_close = on_stream_close,
    .on_bury = on_stream_bury,
};

/* --- submitting --- */

/* Large values that wait to be written lock out others of their kind first: small requests may wait behind twice as much. */
static bool is_full(const struct connection *c, size_t value_len)
{
    size_t limit = OUTPUT_MAX + c->node->context.config->max_value_size;
    return c->stream.out.bytes > (value_len < CHAIN_REF_MIN ? 2 * limit : limit);
}

static enum err check(const struct connection *c, size_t value_len)
{
    if (unlikely(c->state != UP)) {
        return ERR_UNAVAILABLE;
    }
    if (unlikely(!slots_have_room(&c->slots) || (c->stream.out.bytes > OUTPUT_MAX && is_full(c, value_len)))) {
        return ERR_OVERLOAD;
    }
    return OK;
}

/* One key always uses the same connection, so that what a client sends about it stays in order. */
static struct connection *pick(struct node *node, struct span key)
{
    if (likely(node->connection_count == 1)) {
        return &node->connections[0];
    }
    uint32_t hash = 2166136261U; /* FNV-1a */
    for (size_t i = 0; i < key.len; i++) {
        hash = (hash ^ (unsigned char)key.data[i]) * 16777619U;
    }
    return &node->connections[hash % node->connection_count];
}

static void pushed(struct connection *c, struct node_call *call)
{
    struct node *node = c->node;
    uint64_t now_us = c->stream.loop->now_us;
    if (c->slots.count == 0) {
        c->heard_us = now_us;
        if (unlikely(!c->is_ticking)) {
            c->is_ticking = true;
            timer_start(&c->timer, TICK_US);
        }
    }
    slots_push(&c->slots, call, now_us);
    metrics_add(node->context.metrics, METRIC_NODE_REQUESTS, node->index, 1);
    stream_dirty(&c->stream);
}

enum err node_submit(struct node *node, const struct meta_request *request, struct span value, struct chunk *chunk, struct node_call *call)
{
    struct connection *c = pick(node, request->key);
    enum err err = check(c, value.len);
    if (unlikely(err != OK)) {
        count_error(node, err);
        return err;
    }
    err = meta_write(&c->stream.out, request); /* all or nothing */
    if (err == OK && request->command == META_SET) {
        err = chain_append_value(&c->stream.out, chunk, value.data, value.len);
        if (err == OK && unlikely(value.len == request->value_len)) {
            err = chain_append(&c->stream.out, "\r\n", 2);
        }
        if (err != OK) {
            stream_close(&c->stream, err); /* half a request has been queued: the connection can not go on */
        }
    }
    if (unlikely(err != OK)) {
        count_error(node, err);
        return err;
    }
    pushed(c, call);
    return OK;
}

enum err node_submit_line(struct node *node, struct span line, struct node_call *call)
{
    struct connection *c = &node->connections[0];
    enum err err = check(c, 0);
    if (err == OK) {
        err = chain_append(&c->stream.out, line.data, line.len);
    }
    if (err != OK) {
        count_error(node, err);
        return err;
    }
    pushed(c, call);
    return OK;
}

enum err node_submit_stats(struct node *node, struct span line, struct node_call *call)
{
    enum err err = node_submit_line(node, line, call);
    if (err == OK) {
        node->connections[0].stats_call = call;
    }
    return err;
}

struct node *node_create(const struct node_context *context, uint32_t index)
{
    uint32_t count = context->config->pool.connections;
    struct node *node = xcalloc(1, sizeof *node + count * sizeof node->connections[0]);
    node->context = *context;
    node->config = &context->config->pool.nodes[index];
    node->index = index;
    node->random = clock_mono_us() * 2654435761U + (uintptr_t)node + 1;
    node->connection_count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct connection *c = &node->connections[i];
        c->node = node;
        c->is_buried = true;
        c->resolution.on_done = on_resolved;
        slots_init(&c->slots, context->config->pool.max_pending);
        timer_init(&c->timer, context->loop, on_timer);
        connection_start(c);
    }
    return node;
}

void node_destroy(struct node **node)
{
    struct node *n = *node;
    if (n == NULL) {
        return;
    }
    n->is_stopping = true;
    for (uint32_t i = 0; i < n->connection_count; i++) {
        struct connection *c = &n->connections[i];
        resolver_cancel(&c->resolution);
        if (!c->is_buried) {
            stream_close(&c->stream, ERR_STOPPING);
        }
    }
    stream_bury_dead(n->context.loop);
    for (uint32_t i = 0; i < n->connection_count; i++) {
        timer_stop(&n->connections[i].timer);
        slots_deinit(&n->connections[i].slots);
    }
    free(n);
    *node = NULL;
}
