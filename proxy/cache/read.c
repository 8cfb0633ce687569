#include "proxy/cache/read.h"

#include "common/clock.h"
#include "proxy/cache/fill.h"
#include "proxy/cache/freshness.h"

#define BACKOFF_MIN_US 1000
#define BACKOFF_MAX_US 50000
#define RELATIVE_TTL_MAX (30 * 24 * 3600) /* beyond, memcached takes seconds since 1970 */

/* What a read needs once it is not a plain hit. */
struct read {
    struct load load;
    struct operation *op;
    struct timer timer;
    uint64_t give_up_us; /* the end of lease_wait */
    uint64_t backoff_us;
    uint64_t lease;      /* the CAS of the lease that we hold; 0: none */
    bool is_tombstone;   /* the lease is on a tombstone */
    uint64_t needed;     /* no row older than this is good enough */
    bool primary_only;   /* the node could not tell whether the key was invalidated */
    bool is_joined;      /* the load is another reader's */
    bool is_waiting;     /* counted as one that waits */
};

static void ask(struct operation *op);
static void on_loaded(struct load *load);
static void on_backoff(struct timer *timer);

/* --- the journey's state --- */

static struct read *read_of(struct operation *op)
{
    if (op->journey == NULL) {
        struct read *r = xmalloc(sizeof *r);
        memset(r, 0, sizeof *r);
        r->op = op;
        r->backoff_us = BACKOFF_MIN_US;
        r->give_up_us = op->started_us + 1000ULL * op->namespace->config->lease_wait_ms;
        timer_init(&r->timer, op->cache->loop, on_backoff);
        op->journey = r;
        metrics_add(op->cache->metrics, METRIC_MISSES, op->namespace->index, 1);
    }
    return op->journey;
}

static void finish(struct operation *op, enum reply_status status)
{
    free(op->journey);
    op->journey = NULL;
    operation_done(op, status);
}

static uint64_t random_below(struct cache *cache, uint64_t limit)
{
    uint64_t x = cache->random | 1;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    cache->random = x;
    return (x * 2685821657736338717ULL >> 20) % limit;
}

/* --- hits --- */

static int64_t memcached_ttl(int64_t seconds)
{
    return seconds <= RELATIVE_TTL_MAX ? seconds : (int64_t)(clock_wall_ms() / 1000) + seconds;
}

/* gat: the entry that was just read gets the TTL that the client named, if nothing has happened to it. */
static void retouch(struct operation *op, const struct meta_reply *reply, struct chunk *chunk)
{
    fill_start(&(struct fill){
        .cache = op->cache,
        .namespace = op->namespace,
        .key = op->request.key,
        .home = op->home,
        .guard = reply->cas,
        .version = reply->cas,
        .flags = reply->client_flags,
        .ttl = op->request.exptime,
        .value = reply->value,
        .chunk = chunk,
    });
}

static void on_hit(struct operation *op, const struct meta_reply *reply, struct chunk *chunk)
{
    struct metrics_shard *metrics = op->cache->metrics;
    if (unlikely(is_negative(reply))) {
        metrics_add(metrics, METRIC_NEGATIVE_HITS, op->namespace->index, 1);
        finish(op, REPLY_MISS);
        return;
    }
    metrics_add(metrics, METRIC_HITS, op->namespace->index, 1);
    if (unlikely(op->request.op == OP_GAT)) {
        retouch(op, reply, chunk);
    }
    op->reply.flags = reply->client_flags;
    op->reply.cas = reply->cas;
    op->reply.chunk = chunk;
    op->reply.value = reply->value;
    finish(op, REPLY_VALUE);
}

/* --- loading --- */

static void prepare_load(struct read *r, uint64_t lease)
{
    struct operation *op = r->op;
    struct cache *cache = op->cache;
    uint64_t now_us = cache->loop->now_us;
    r->load = (struct load){
        .reply_to = &cache->loop->mailbox,
        .on_done = on_loaded,
        .namespace = op->namespace->index,
        .lease = lease,
        /* Taken after the lease was seen and before the database is asked: what makes the rule work. */
        .version = cache_version(cache),
        .min_version = r->needed,
        .primary_only = r->primary_only || node_is_young(cache->pool.nodes[op->home], 1000000ULL * op->namespace->config->tombstone_ttl_s),
        .deadline_us = now_us + 1000ULL * cache->config->database->timeout_ms,
        .key_len = (uint16_t)op->request.key.len,
    };
    memcpy(r->load.key, op->request.key.data, op->request.key.len);
}

static void give_back(struct read *r)
{
    if (r->lease != 0) {
        lease_give_back(r->op->cache, r->op->namespace, r->op->request.key, r->op->home, r->lease, r->is_tombstone);
        r->lease = 0;
    }
}

static void load(struct operation *op, uint64_t lease)
{
    struct read *r = read_of(op);
    r->lease = lease;
    r->is_joined = false;
    prepare_load(r, lease);
    enum err err = op->cache->is_stopping ? ERR_STOPPING : loader_submit(op->cache->loader, &op->cache->intake, &r->load);
    if (err != OK) {
        r->load.err = err;
        on_loaded(&r->load);
    }
}

static int64_t entry_ttl(struct operation *op, const struct load *loaded)
{
    const struct config_namespace *config = op->namespace->config;
    if (op->request.op == OP_GAT) {
        return op->request.exptime;
    }
    int64_t ttl = config->ttl_s;
    if (config->ttl_jitter_s > 0 && ttl > 0) {
        ttl -= (int64_t)random_below(op->cache, MIN((int64_t)config->ttl_jitter_s, ttl - 1) + 1);
    }
    if (loaded->expires_in_s >= 0 && (ttl == 0 || loaded->expires_in_s < ttl)) {
        ttl = MAX(loaded->expires_in_s, 1);
    }
    return memcached_ttl(ttl);
}

/* Stores what was loaded, if the lease is ours and the rule allows; a lease that is not used is given back. */
static void fill(struct read *r)
{
    struct operation *op = r->op;
    const struct load *loaded = &r->load;
    uint32_t negative_ttl = op->namespace->config->negative_ttl_s;
    if (r->lease == 0) {
        return;
    }
    if (!freshness_may_fill(loaded->version, r->needed)) {
        metrics_add(op->cache->metrics, METRIC_FILLS_REFUSED, op->namespace->index, 1);
        give_back(r);
        return;
    }
    bool looks_negative = loaded->found && loaded->value_len == 0 && loaded->flags == NEGATIVE_FLAGS;
    if (looks_negative || (!loaded->found && negative_ttl == 0)) {
        give_back(r);
        return;
    }
    struct fill fill = {
        .cache = op->cache,
        .namespace = op->namespace,
        .key = op->request.key,
        .home = op->home,
        .guard = r->lease,
        .version = loaded->version,
        .gives_back = true,
    };
    if (loaded->found) {
        fill.flags = loaded->flags;
        fill.ttl = entry_ttl(op, loaded);
        fill.chunk = loaded->value;
        fill.value = span_of(loaded->value->data, loaded->value_len);
        memcpy(loaded->value->data + loaded->value_len, "\r\n", 2);
    } else {
        fill.flags = NEGATIVE_FLAGS;
        fill.ttl = memcached_ttl(negative_ttl);
        fill.value = span_of("\r\n", 0);
    }
    fill_start(&fill);
}

static void on_loaded(struct load *loaded)
{
    struct read *r = container_of(loaded, struct read, load);
    struct operation *op = r->op;
    if (!r->is_joined) {
        enum load_result result = loaded->err != OK ? LOAD_FAILED : loaded->found ? LOAD_FOUND : LOAD_ABSENT;
        metrics_add(op->cache->metrics, METRIC_LOADS, metric_index2(op->namespace->index, LOAD_RESULTS, result), 1);
    }
    if (loaded->err != OK) {
        give_back(r);
        enum err err = loaded->err;
        char text[LOAD_ERROR_MAX];
        snprintf(text, sizeof text, "%s", loaded->error);
        free(r);
        op->journey = NULL;
        operation_fail(op, "database: %s%s%s", err_text(err), text[0] != '\0' ? ": " : "", text);
        return;
    }
    fill(r);
    if (!loaded->found) {
        finish(op, REPLY_MISS);
        return;
    }
    op->held = loaded->value; /* the operation's from now on */
    op->reply.flags = loaded->flags;
    op->reply.cas = loaded->version;
    op->reply.chunk = loaded->value;
    op->reply.value = span_of(loaded->value->data, loaded->value_len);
    finish(op, REPLY_VALUE);
}

/* --- leases --- */

static void on_won(struct operation *op, const struct meta_reply *reply)
{
    struct read *r = read_of(op);
    struct cache *cache = op->cache;
    metrics_add(cache->metrics, METRIC_LEASE_WINS, op->namespace->index, 1);
    cache_observe(cache, reply->cas);
    r->is_tombstone = reply->stale;
    r->needed = freshness_needed(reply->cas, reply->stale);
    load(op, reply->cas);
}

static void on_wait(struct operation *op, const struct meta_reply *reply)
{
    struct read *r = read_of(op);
    struct cache *cache = op->cache;
    uint64_t now_us = cache->loop->now_us;
    if (!r->is_waiting) {
        r->is_waiting = true;
        metrics_add(cache->metrics, METRIC_LEASE_WAITS, op->namespace->index, 1);
    }
    cache_observe(cache, reply->cas);
    r->needed = freshness_needed(reply->cas, reply->stale);
    /* Same lease: nothing has been invalidated between its load and this read, so its result is as good as one of our own. */
    prepare_load(r, reply->cas);
    r->is_joined = true;
    if (loader_join(cache->loader, &r->load)) {
        return;
    }
    r->is_joined = false;
    if (now_us >= r->give_up_us) {
        metrics_add(cache->metrics, METRIC_LEASE_TIMEOUTS, op->namespace->index, 1);
        load(op, 0);
        return;
    }
    uint64_t delay_us = r->backoff_us / 2 + random_below(cache, r->backoff_us);
    r->backoff_us = MIN(r->backoff_us * 2, (uint64_t)BACKOFF_MAX_US);
    timer_start(&r->timer, MIN(delay_us, r->give_up_us - now_us));
}

static void on_backoff(struct timer *timer)
{
    struct read *r = container_of(timer, struct read, timer);
    ask(r->op);
}

/* The cache can not help; the source can. */
static void load_without_node(struct operation *op)
{
    read_of(op)->primary_only = true;
    load(op, 0);
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct operation *op = container_of(call, struct operation, call);
    if (unlikely(err != OK || reply->status != META_VA)) {
        load_without_node(op);
    } else if (unlikely(reply->won)) {
        on_won(op, reply);
    } else if (unlikely(reply->wait || reply->stale)) {
        on_wait(op, reply);
    } else {
        on_hit(op, reply, chunk);
    }
}

static void ask(struct operation *op)
{
    struct meta_request meta;
    meta.command = META_GET;
    meta.with = META_WANT_VALUE | META_WANT_FLAGS | META_WANT_CAS | META_VIVIFY | META_VERSION;
    meta.key = op->request.key;
    meta.vivify_ttl = op->namespace->config->lease_ttl_s;
    meta.version = cache_version(op->cache);
    op->call.on_reply = on_reply;
    enum err err = cache_submit(op->cache, op->home, &meta, (struct span){NULL, 0}, NULL, &op->call);
    if (unlikely(err != OK)) {
        load_without_node(op);
    }
}

void read_start(struct operation *op)
{
    ask(op);
}
