#include "proxy/cache/cache.h"

#include <stdarg.h>

#include "common/guard.h"
#include "common/random.h"
#include "proxy/cache/aside.h"
#include "proxy/cache/change.h"
#include "proxy/cache/flush.h"
#include "proxy/cache/read.h"
#include "proxy/cache/touch.h"
#include "proxy/cache/writing.h"

/* While less than this is in use, replies that wait for their turn pin the chunk they came in; beyond, they are copied out of it. */
#define HOLD_BY_REFERENCE (256U << 20)
#define FREE_MAX 8192 /* operations kept for later; beyond, they go back to malloc */

void cache_init(struct cache *cache, const struct config *config, const struct namespaces *namespaces, struct loop *loop, struct log *log,
                struct metrics_shard *metrics, uint32_t clock_id)
{
    cache->config = config;
    cache->namespaces = namespaces;
    cache->loop = loop;
    cache->log = log;
    cache->metrics = metrics;
    cache->loader = NULL;
    cache->writer = NULL;
    cache->bus = NULL;
    cache->strong = NULL;
    cache->validity = NULL;
    list_init(&cache->settling);
    cache->rulebook = NULL;
    cache->rules = NULL;
    cache->random = (clock_mono_us() ^ (uint64_t)(uintptr_t)cache) | 1;
    cache->free = NULL;
    cache->free_count = 0;
    cache->asking = 0;
    cache->pending = 0;
    cache->remote_pending = 0;
    cache->is_stopping = false;
    version_clock_init(&cache->clock, clock_id, config->max_clock_skew_ms);
}

void cache_deinit(struct cache *cache)
{
    while (cache->free != NULL) {
        struct operation *op = cache->free;
        cache->free = op->next_free;
        free(op);
    }
}

uint64_t cache_version(struct cache *cache)
{
    return version_next(&cache->clock, guard_wall_ms(cache->config));
}

void cache_observe(struct cache *cache, uint64_t version)
{
    if (unlikely(!version_observe(&cache->clock, version, guard_wall_ms(cache->config)))) {
        log_warn(cache->log, "cache: met a version further ahead of this clock than max_clock_skew (%u ms): check the clocks (NTP)",
                 cache->config->max_clock_skew_ms);
        metrics_add(cache->metrics, METRIC_ERRORS, metric_index2(SOURCE_CLOCK, ERR_COUNT, ERR_INVALID), 1);
    }
}

void cache_observe_entry(struct cache *cache, const struct namespace *namespace, uint64_t version)
{
    if (unlikely(namespace_is_strong(namespace))) {
        version_observe(&cache->clock, version, guard_wall_ms(cache->config));
    } else {
        cache_observe(cache, version);
    }
}

uint64_t cache_random(struct cache *cache, uint64_t limit)
{
    return random_below(&cache->random, limit);
}

static void prefetch(const struct operation *op)
{
    for (uintptr_t line = 0; line < offsetof(struct operation, key_bytes) + 64; line += 64) {
        __builtin_prefetch((const void *)((uintptr_t)op + line), 1);
    }
}

struct operation *operation_get(struct cache *cache, const struct request *request)
{
    struct operation *op = cache->free;
    if (likely(op != NULL)) {
        cache->free = op->next_free;
        cache->free_count--;
        prefetch(cache->free); /* for the next one: with thousands under way it is not in the processor's cache */
    } else {
        op = xmalloc(sizeof *op);
    }
    op->cache = cache;
    if (likely(request->protocol == PROTOCOL_CLASSIC)) {
        memcpy(&op->request, request, REQUEST_CLASSIC_SIZE);
    } else {
        op->request = *request;
    }
    if (likely(request->key.len > 0)) {
        memcpy(op->key_bytes, request->key.data, MIN(request->key.len, (size_t)KEY_MAX));
    }
    op->request.key.data = op->key_bytes;
    op->reply.chunk = NULL;
    op->namespace = cache->namespaces->fallback;
    op->home = 0;
    op->started_us = cache->loop->now_us;
    list_init(&op->link);
    op->is_done = false;
    op->is_kept = false;
    op->is_asking = false;
    op->is_uncovered = false;
    op->is_exclusive = false;
    op->value = (struct span){NULL, 0};
    op->value_chunk = NULL;
    op->held = NULL;
    op->text = NULL;
    op->journey = NULL;
    cache->pending++;
    return op;
}

void operation_put(struct operation *op)
{
    struct cache *cache = op->cache;
    chunk_unref(&op->held);
    free(op->text);
    cache->pending--;
    if (cache->free_count >= FREE_MAX) {
        free(op);
        return;
    }
    op->next_free = cache->free;
    cache->free = op;
    cache->free_count++;
}

void operation_done(struct operation *op, enum reply_status status)
{
    op->reply.status = status;
    op->on_done(op);
}

void operation_locate(struct operation *const *ops, uint32_t count)
{
    struct span keys[KETAMA_MANY];
    uint32_t homes[KETAMA_MANY];
    if (count == 0) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = ops[i]->request.key;
    }
    ketama_pick_many(ops[0]->cache->pool.ring, keys, count, homes);
    for (uint32_t i = 0; i < count; i++) {
        ops[i]->home = homes[i];
    }
}

enum err cache_submit(struct cache *cache, uint32_t home, const struct meta_request *request, struct span value, struct chunk *chunk,
                      struct node_call *call)
{
    if (unlikely(cache->is_stopping)) {
        return ERR_STOPPING;
    }
    return node_submit(cache->pool.nodes[home], request, value, chunk, call);
}

static const char *home_name(const struct operation *op)
{
    return op->cache->config->pool.nodes[op->home].address.text;
}

void operation_fail(struct operation *op, const char *fmt, ...)
{
    static const char prefix[] = "SERVER_ERROR ";
    char *text = xmalloc(ERROR_TEXT_MAX);
    memcpy(text, prefix, sizeof prefix);
    va_list args;
    va_start(args, fmt);
    vsnprintf(text + sizeof prefix - 1, ERROR_TEXT_MAX - sizeof prefix + 1, fmt, args);
    va_end(args);
    for (char *p = text; *p != '\0'; p++) { /* what a database or node said must not end our line */
        if ((unsigned char)*p < ' ') {
            *p = ' ';
        }
    }
    free(op->text);
    op->text = text;
    op->reply.text = span_str(text);
    operation_done(op, REPLY_ERROR);
}

void operation_fail_node(struct operation *op, enum err err)
{
    if (unlikely(err == ERR_INVALID)) {
        operation_tell(op, REPLY_ERROR, SPAN_LIT("CLIENT_ERROR a key with spaces or line ends may have 186 bytes at most"));
        return;
    }
    operation_fail(op, "node %s: %s", home_name(op), err_text(err));
}

void operation_tell(struct operation *op, enum reply_status status, struct span text)
{
    free(op->text);
    op->text = xstrndup(text.data, text.len);
    op->reply.text = span_of(op->text, text.len);
    operation_done(op, status);
}

void operation_refused(struct operation *op, const struct meta_reply *reply)
{
    if (reply->status != META_REFUSED) {
        operation_fail(op, "node %s: unexpected reply", home_name(op));
        return;
    }
    static const struct {
        struct span text;
        enum reply_status status;
    } known[] = { /* which every protocol has its own words for */
        {SPAN_LIT("CLIENT_ERROR cannot increment or decrement non-numeric value"), REPLY_NON_NUMERIC},
        {SPAN_LIT("SERVER_ERROR object too large for cache"), REPLY_TOO_LARGE},
        {SPAN_LIT("SERVER_ERROR out of memory storing object"), REPLY_NO_MEMORY},
    };
    enum reply_status status = REPLY_ERROR;
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        status = span_eq(reply->text, known[i].text) ? known[i].status : status;
    }
    if (status != REPLY_NON_NUMERIC) {
        metrics_add(op->cache->metrics, METRIC_ERRORS, metric_index2(SOURCE_NODE, ERR_COUNT, ERR_REMOTE), 1);
    }
    operation_tell(op, status, reply->text);
}

bool operation_hold(struct operation *op)
{
    struct reply *reply = &op->reply;
    if (reply->status != REPLY_VALUE || op->held != NULL) {
        return true;
    }
    const struct chunk_pool *pool = &op->cache->loop->chunks;
    if (reply->chunk != NULL && (reply->value.len >= CHAIN_REF_MIN || pool->used_bytes < HOLD_BY_REFERENCE)) {
        op->held = chunk_ref(reply->chunk);
        return true;
    }
    struct chunk *copy = chunk_get(&op->cache->loop->chunks, reply->value.len);
    if (copy == NULL) {
        return false;
    }
    memcpy(copy->data, reply->value.data, reply->value.len);
    op->held = copy;
    reply->chunk = copy;
    reply->value.data = copy->data;
    return true;
}

void cache_handle(struct operation *op)
{
    struct cache *cache = op->cache;
    if (op->request.op == OP_FLUSH_ALL) {
        flush_start(op);
        return;
    }
    op->namespace = namespaces_find(cache->namespaces, op->request.key);
    metrics_add(cache->metrics, METRIC_REQUESTS, metric_index2(op->request.command, cache->config->namespace_count, op->namespace->index),
                1);
    if (op->namespace->config->read == READ_ASIDE || op->request.op == OP_DEBUG) {
        aside_start(op);
        return;
    }
    if (op->namespace->config->write == WRITE_THROUGH && op->request.op != OP_GET) {
        writing_start(op);
        return;
    }
    switch (op->request.op) {
    case OP_GET:
    case OP_GAT:
        read_start(op);
        break;
    case OP_TOUCH:
        touch_start(op);
        break;
    default:
        change_start(op);
        break;
    }
}
