#include "proxy/app/controller.h"

struct worker *controller_worker(struct worker **workers, uint32_t count, struct span key)
{
    uint32_t hash = 2166136261U; /* FNV-1a */
    for (size_t i = 0; i < key.len; i++) {
        hash = (hash ^ (unsigned char)key.data[i]) * 16777619U;
    }
    return workers[hash % count];
}

/* --- what the controller asks for, on its thread --- */

static void serve(void *ctx, struct strong_task *task)
{
    struct controller *controller = ctx;
    worker_serve(controller_worker(controller->workers, controller->worker_count, span_of(task->key, task->key_len)), task);
}

static void apply_rule(void *ctx, struct delivery *delivery)
{
    rules_apply(((struct controller *)ctx)->rules, delivery);
}

struct catching_up {
    struct rules_catch_up rules;
    struct strong_catch_up *strong;
};

static void on_caught_up(struct rules_catch_up *rules)
{
    struct catching_up *c = container_of(rules, struct catching_up, rules);
    c->strong->on_done(c->strong, c->rules.err);
    free(c);
}

static void catch_up(void *ctx, struct strong_catch_up *strong)
{
    struct controller *controller = ctx;
    struct catching_up *c = xcalloc(1, sizeof *c);
    c->strong = strong;
    c->rules.reply_to = strong->reply_to;
    c->rules.on_done = on_caught_up;
    rules_catch_up(controller->rules, &c->rules);
}

static uint64_t digest(void *ctx)
{
    return rules_digest(((struct controller *)ctx)->rules);
}

static bool is_pool_whole(void *ctx)
{
    const struct controller *controller = ctx;
    for (uint32_t i = 0; i < controller->config->pool.node_count; i++) {
        if (metrics_sum(controller->metrics, METRIC_NODE_UP, i) < (uint64_t)controller->config->threads * controller->config->pool.connections) {
            return false;
        }
    }
    return true;
}

/* --- what it is told --- */

static void on_digest(void *ctx)
{
    strong_on_digest(((struct controller *)ctx)->strong);
}

enum err controller_start(struct controller *controller, const struct ketama *ring)
{
    const struct config *config = controller->config;
    if (config->strong == NULL) {
        return OK;
    }
    struct strong_sink sink = {
        .ctx = controller,
        .serve = serve,
        .apply_rule = apply_rule,
        .catch_up = catch_up,
        .digest = digest,
        .is_pool_whole = is_pool_whole,
    };
    enum err err = strong_create(config, controller->log, controller->metrics, ketama_fingerprint(ring), sink, &controller->strong);
    if (err != OK) {
        log_error(controller->log, "can not start the consistency controller: %s", err_text(err));
        return err;
    }
    rules_set_strong(controller->rules, controller->strong);
    rules_set_on_digest(controller->rules, on_digest, controller);
    return OK;
}
