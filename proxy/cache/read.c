#include "proxy/cache/read.h"

#include "common/guard.h"
#include "proxy/cache/fill.h"
#include "proxy/cache/freshness.h"
#include "proxy/cache/hide.h"
#include "proxy/cache/loading.h"
#include "proxy/cache/lock.h"
#include "proxy/cache/owe.h"
#include "proxy/cache/refresh.h"

/* What a client of the meta protocol may be told of a hit besides; its N, R, E and the like are ours here. */
#define META_TOLD (META_WANT_TTL | META_WANT_HIT | META_WANT_LAST | META_WANT_SIZE | META_NO_BUMP)
#define HIDES_MAX 8 /* entries older than a rule that turn up again and again */
#define BACKOFF_MIN_US 1000
#define BACKOFF_MAX_US 50000

/* What a read needs once it is not a plain hit. */
struct read {
    struct load load;
    struct operation *op;
    struct timer timer;
    uint64_t give_up_us; /* the end of lease_wait */
    uint64_t backoff_us;
    uint64_t lease;      /* the CAS of the lease that we hold; 0: none */
    int64_t ttl;         /* of the entry that is stored, as memcached takes it, while the lease is ours */
    bool is_tombstone;   /* the lease is on a tombstone */
    uint64_t needed;     /* no row older than this is good enough */
    uint32_t hides;      /* entries that had to be taken out of the way */
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

/* --- hits --- */

/* What is left of a TTL as memcached takes it, as `t` tells it; -1: for ever. */
static int64_t told_ttl(int64_t ttl)
{
    if (ttl > RELATIVE_TTL_MAX) {
        return MAX(ttl - (int64_t)(clock_wall_ms() / 1000), 0);
    }
    return ttl == 0 ? -1 : MAX(ttl, 0);
}

/* gat: the entry that was just read gets the TTL that the client named, if nothing has happened to it. */
static void retouch(struct operation *op, const struct meta_reply *reply, struct chunk *chunk)
{
    if (fill_ends_early(op->cache, reply->cas, op->request.exptime)) {
        lease_give_back(op->cache, op->namespace, op->request.key, op->home, reply->cas, true);
        return;
    }
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
        op->reply.origin = ORIGIN_NEGATIVE;
        finish(op, REPLY_MISS);
        return;
    }
    metrics_add(metrics, METRIC_HITS, op->namespace->index, 1);
    if (unlikely(op->request.op == OP_GAT && !reply->won && !reply->stale)) { /* else a fill with a TTL of its own is on its way */
        retouch(op, reply, chunk);
    }
    operation_describe(op, reply);
    if (unlikely(op->request.op == OP_GAT)) {
        op->reply.ttl = told_ttl(op->request.exptime);
    }
    op->reply.chunk = chunk;
    op->reply.value = reply->value;
    finish(op, REPLY_VALUE);
}

/* --- loading --- */

static void prepare(struct read *r, uint64_t lease)
{
    struct operation *op = r->op;
    struct loading loading = {op->cache, op->namespace, op->request.key, op->home, lease, r->needed, r->primary_only};
    loading_prepare(&loading, &r->load, on_loaded);
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
    prepare(r, lease);
    loading_submit(op->cache, &r->load);
}

/* Stores what was loaded, if the lease is ours. */
static void fill(struct read *r)
{
    struct operation *op = r->op;
    if (r->lease == 0) {
        return;
    }
    struct fill_target target = {op->cache, op->namespace, op->request.key, op->home, r->lease, r->needed, r->is_tombstone};
    r->ttl = fill_loaded(&target, &r->load, op->request.op == OP_GAT ? op->request.exptime : FILL_TTL_OWN);
}

static void on_loaded(struct load *loaded)
{
    struct read *r = container_of(loaded, struct read, load);
    struct operation *op = r->op;
    if (!r->is_joined) {
        loading_count(op->cache, loaded);
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
    if (unlikely(op->request.protocol == PROTOCOL_META)) {
        struct reply *reply = &op->reply;
        reply->ttl = r->lease != 0 ? told_ttl(r->ttl) : 0; /* 0: it was not stored */
        reply->size = loaded->value_len;
        reply->last_access_s = 0;
        reply->was_hit = reply->won = reply->wait = reply->stale = false;
        reply->origin = ORIGIN_LOADED;
    }
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
    cache_observe_entry(cache, op->namespace, reply->cas);
    /* What was there before, be it stale or about to expire, has a version that nothing older may replace. Only a stub of our own demands nothing. */
    r->is_tombstone = reply->stale || reply->cas != op->asked;
    r->needed = MAX(freshness_needed(reply->cas, r->is_tombstone), cache_rule(cache, op->request.key));
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
    cache_observe_entry(cache, op->namespace, reply->cas);
    r->needed = MAX(freshness_needed(reply->cas, reply->stale), cache_rule(cache, op->request.key));
    /* Same lease: nothing has been invalidated between its load and this read, so its result is as good as one of our own. */
    prepare(r, reply->cas);
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
    uint64_t delay_us = r->backoff_us / 2 + cache_random(cache, r->backoff_us);
    r->backoff_us = MIN(r->backoff_us * 2, (uint64_t)BACKOFF_MAX_US);
    timer_start(&r->timer, MIN(delay_us, r->give_up_us - now_us));
}

static void on_backoff(struct timer *timer)
{
    struct read *r = container_of(timer, struct read, timer);
    ask(r->op);
}

/* An invalidated entry may still be served for stale_while_revalidate; when it was invalidated its version says. */
static bool may_serve_stale(const struct operation *op, const struct meta_reply *reply)
{
    uint32_t limit_ms = 1000 * op->namespace->config->stale_while_revalidate_s;
    return limit_ms > 0 && reply->value_len > 0 && guard_wall_ms(op->cache->config) <= version_ms(reply->cas) + limit_ms;
}

/* Answers with a value that somebody has won the lease on; if that was us, it is loaded anew behind the answer. A stub has no value. */
static bool serve_meanwhile(struct operation *op, const struct meta_reply *reply, struct chunk *chunk)
{
    if (reply->stale ? !may_serve_stale(op, reply) : reply->value_len == 0 && !is_negative(reply)) {
        return false;
    }
    metrics_add(op->cache->metrics, METRIC_STALE_HITS, op->namespace->index, reply->stale);
    if (reply->won) {
        cache_observe_entry(op->cache, op->namespace, reply->cas);
        refresh_start(&(struct fill_target){op->cache, op->namespace, op->request.key, op->home, reply->cas, reply->cas, true});
    }
    on_hit(op, reply, chunk);
    return true;
}

/* The cache can not help; the source can. */
static void load_without_node(struct operation *op)
{
    read_of(op)->primary_only = true;
    load(op, 0);
}

/* A strong namespace, and what its node has answered, or would, is not to be relied on. */
static bool has_no_share(const struct operation *op)
{
    if (likely(!namespace_is_strong(op->namespace)) || lock_may_serve(op->cache, op->home)) {
        return false;
    }
    metrics_add(op->cache->metrics, METRIC_STRONG_NO_SHARE, op->namespace->index, 1);
    return true;
}

/* The same for what it has answered; or the key is locked, and its row is about to change: then its lease is nobody's. The primary answers both, and
 * nothing is stored. */
static bool bypass(struct operation *op, const struct meta_reply *reply)
{
    if (reply->stale && lock_is_live(op->cache, op->namespace, reply->cas)) {
        metrics_add(op->cache->metrics, METRIC_STRONG_LOCKED, op->namespace->index, 1);
    } else if (!has_no_share(op)) {
        return false;
    } else if (reply->won) {
        lease_give_back(op->cache, op->namespace, op->request.key, op->home, reply->cas, reply->stale || reply->cas != op->asked);
    }
    load_without_node(op);
    return true;
}

/* The node has answered, or will not. */
static inline void asked(struct operation *op)
{
    op->cache->asking -= op->is_asking;
    op->is_asking = false;
}

static void on_hidden(void *ctx, enum err err, bool is_gone)
{
    struct operation *op = ctx;
    if (err != OK) {
        load_without_node(op);
    } else {
        ask(op);
    }
}

/* Whatever is older than a rule that covers the key, a value or a lease under which a load may have begun before the rule, is turned into a
 * tombstone first; then it is read as after an invalidation. A lease that was just won by us is none of these: nobody has loaded for it. */
static bool take_out_of_the_way(struct operation *op, const struct meta_reply *reply)
{
    uint64_t rule = cache_rule(op->cache, op->request.key);
    if (!freshness_is_hidden(reply->cas, rule) || (reply->won && reply->value_len == 0)) {
        return false;
    }
    struct read *r = read_of(op);
    metrics_add(op->cache->metrics, METRIC_RULE_HITS, op->namespace->index, 1);
    if (r->hides++ == HIDES_MAX) {
        load_without_node(op);
        return true;
    }
    struct hide hide = {op->cache, op->namespace, op->request.key, op->home, reply->cas, rule, reply->stale};
    hide_start(&hide, on_hidden, op);
    return true;
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct operation *op = container_of(call, struct operation, call);
    asked(op);
    if (unlikely(err != OK || reply->status != META_VA)) {
        load_without_node(op);
    } else if (unlikely(namespace_is_strong(op->namespace)) && bypass(op, reply)) {
        return;
    } else if (unlikely(op->cache->rules != NULL) && take_out_of_the_way(op, reply)) {
        return;
    } else if (likely(!reply->won && !reply->wait && !reply->stale)) {
        on_hit(op, reply, chunk);
    } else if (serve_meanwhile(op, reply, chunk)) {
        return;
    } else if (reply->won) {
        on_won(op, reply);
    } else {
        on_wait(op, reply);
    }
}

static void ask(struct operation *op)
{
    struct meta_request meta;
    if (unlikely(is_owed(op->cache, op->request.key) || has_no_share(op))) {
        asked(op);
        load_without_node(op);
        return;
    }
    meta.command = META_GET;
    meta.with = META_WANT_VALUE | META_WANT_FLAGS | META_WANT_CAS | META_VIVIFY | META_VERSION | (op->request.with & META_TOLD);
    meta.key = op->request.key;
    meta.vivify_ttl = op->namespace->config->lease_ttl_s;
    if (op->namespace->config->refresh_ahead_s > 0) {
        meta.with |= META_RECACHE;
        meta.recache_ttl = op->namespace->config->refresh_ahead_s;
    }
    meta.version = op->asked = cache_version(op->cache);
    op->call.on_reply = on_reply;
    enum err err = cache_submit(op->cache, op->home, &meta, (struct span){NULL, 0}, NULL, &op->call);
    if (unlikely(err != OK)) {
        asked(op);
        load_without_node(op);
    }
}

void read_start(struct operation *op)
{
    const struct request *request = &op->request;
    if (!request->is_first || !request->is_last || (request->protocol != PROTOCOL_CLASSIC && request->is_quiet)) {
        op->is_asking = true;
        op->cache->asking++;
    }
    ask(op);
}
