#include "proxy/pool/churn.h"

#include "proxy/protocol/token.h"

struct look {
    struct node_call call;
    struct churn *churn;
    struct node *node;
    bool is_busy;
    bool is_first;    /* nothing to compare with yet */
    bool at_items;    /* the second question */
    uint64_t flushes; /* as of the last look */
    uint64_t evictions;
    bool has_evicted; /* since then */
    bool is_young;    /* something that was evicted was */
};

struct churn {
    struct loop *loop;
    struct log *log;
    struct timer timer;
    uint32_t age_s;
    uint32_t count;
    struct look looks[];
};

static void ask(struct look *look, struct span line);

/* "NAME VALUE" */
static bool take(struct span text, struct span name, uint64_t *value)
{
    return text.len > name.len + 1 && span_has_prefix(text, name) && text.data[name.len] == ' ' &&
           token_digits(span_of(text.data + name.len + 1, text.len - name.len - 1), value);
}

static void rejuvenate(struct look *look, const char *why)
{
    if (!node_is_young(look->node, 1000000ULL * look->churn->age_s / 2)) {
        log_warn(look->churn->log, "pool: node %s: %s: its keys are loaded from the primary for a while", node_name(look->node), why);
    }
    node_rejuvenate(look->node);
}

static void on_general(struct look *look, struct span text)
{
    uint64_t value;
    if (take(text, SPAN_LIT("cmd_flush"), &value)) {
        if (!look->is_first && value != look->flushes) {
            rejuvenate(look, "it was flushed");
        }
        look->flushes = value;
    } else if (take(text, SPAN_LIT("evictions"), &value)) {
        look->has_evicted = !look->is_first && value != look->evictions;
        look->evictions = value;
    }
}

/* "items:CLASS:evicted_time SECONDS": how long before its eviction the last one had been used. */
static void on_item(struct look *look, struct span text)
{
    static const struct span name = SPAN_LIT(":evicted_time ");
    const char *at = memmem(text.data, text.len, name.data, name.len);
    uint64_t seconds;
    if (at == NULL) {
        return;
    }
    const char *number = at + name.len;
    if (token_digits(span_of(number, (size_t)(text.data + text.len - number)), &seconds) && seconds > 0 && seconds < look->churn->age_s) {
        look->is_young = true;
    }
}

static void on_end(struct look *look)
{
    look->is_busy = false;
    if (look->at_items) {
        if (look->is_young) {
            rejuvenate(look, "it evicts entries that are younger than tombstone_ttl");
        }
    } else {
        look->is_first = false;
        if (look->has_evicted) {
            look->at_items = true;
            ask(look, SPAN_LIT("stats items\r\n"));
        }
    }
}

static void on_reply(struct node_call *call, enum err err, const struct meta_reply *reply, struct chunk *chunk)
{
    struct look *look = container_of(call, struct look, call);
    if (err != OK || (reply->status != META_STAT && reply->status != META_END)) {
        look->is_busy = false;
        look->is_first = true; /* when it is back it may be another one */
    } else if (reply->status == META_END) {
        on_end(look);
    } else if (look->at_items) {
        on_item(look, reply->text);
    } else {
        on_general(look, reply->text);
    }
}

static void ask(struct look *look, struct span line)
{
    look->is_busy = true;
    look->call.on_reply = on_reply;
    if (node_submit_stats(look->node, line, &look->call) != OK) {
        look->is_busy = false;
        look->is_first = true;
    }
}

static void on_timer(struct timer *timer)
{
    struct churn *churn = container_of(timer, struct churn, timer);
    for (uint32_t i = 0; i < churn->count; i++) {
        struct look *look = &churn->looks[i];
        if (!look->is_busy) {
            look->at_items = false;
            look->has_evicted = false;
            look->is_young = false;
            ask(look, SPAN_LIT("stats\r\n"));
        }
    }
    timer_start(timer, 1000ULL * CHURN_LOOK_MS);
}

struct churn *churn_create(struct pool *pool, struct loop *loop, struct log *log, uint32_t age_s)
{
    struct churn *churn = xcalloc(1, sizeof *churn + pool->count * sizeof churn->looks[0]);
    churn->loop = loop;
    churn->log = log;
    churn->age_s = age_s;
    churn->count = pool->count;
    for (uint32_t i = 0; i < pool->count; i++) {
        churn->looks[i] = (struct look){.churn = churn, .node = pool->nodes[i], .is_first = true};
    }
    timer_init(&churn->timer, loop, on_timer);
    timer_start(&churn->timer, 1000ULL * CHURN_LOOK_MS);
    return churn;
}

void churn_destroy(struct churn **churn)
{
    if (*churn != NULL) {
        timer_stop(&(*churn)->timer);
        free(*churn);
        *churn = NULL;
    }
}
