#include "proxy/cache/sweep.h"

#include <inttypes.h>
#include <pthread.h>

#include "common/guard.h"
#include "proxy/cache/sweep_node.h"

#define PAUSE_MIN_US 1000000ULL /* between two passes; longer after a long one */
#define PAUSE_MAX_US 300000000ULL
#define PAUSE_FACTOR 10
#define AGE_MIN_MS 2000 /* of a rule that is retired */
#define PASSES_MIN 2

struct sweep {
    const struct config *config;
    struct log *log;
    struct metrics_shard *metrics;
    struct rules *rules;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t stopped;
    _Atomic bool is_stopping;
    uint64_t age_ms; /* of a rule that may be retired */
};

/* What a pass has found of the rules it looked for, which are sorted by version. */
struct findings {
    struct rule_state *states;
    uint32_t count;
};

static int compare_versions(const void *a, const void *b)
{
    uint64_t x = ((const struct rule_state *)a)->version;
    uint64_t y = ((const struct rule_state *)b)->version;
    return (x > y) - (x < y);
}

static void on_found(void *ctx, uint64_t rule_version, uint64_t cas)
{
    struct findings *findings = ctx;
    struct rule_state wanted = {.version = rule_version};
    struct rule_state *state = bsearch(&wanted, findings->states, findings->count, sizeof wanted, compare_versions);
    for (; state != NULL && state > findings->states && state[-1].version == rule_version; state--) {
    }
    for (; state != NULL && state < findings->states + findings->count && state->version == rule_version; state++) {
        state->is_dirty = state->is_dirty || cas >= SWEEP_VERSIONED || state->passes + 1 < PASSES_MIN;
    }
}

/* Every node, or nothing counts. */
static enum err pass_over_all(struct sweep *s, const struct glob_index *index, struct findings *findings)
{
    const struct config_pool *pool = &s->config->pool;
    struct sweep_pass pass = {.index = index, .is_stopping = &s->is_stopping, .on_found = on_found, .ctx = findings};
    enum err result = OK;
    for (uint32_t i = 0; i < pool->node_count && result != ERR_STOPPING; i++) {
        enum err err = sweep_node(&pass, &pool->nodes[i].address, pool->connect_timeout_ms);
        if (err != OK && err != ERR_STOPPING) {
            log_info(s->log, "sweep: node %s: %s; the rules stay in force", pool->nodes[i].address.text, err_text(err));
        }
        result = err != OK ? err : result;
    }
    metrics_add(s->metrics, METRIC_SWEPT, 0, pass.deleted);
    return result;
}

static void sweep_once(struct sweep *s)
{
    struct findings findings;
    struct glob_index *index = rules_list(s->rules, &findings.states, &findings.count);
    uint64_t began_ms = guard_wall_ms(s->config);
    uint64_t began_us = clock_mono_us();
    if (index == NULL) {
        free(findings.states);
        return;
    }
    qsort(findings.states, findings.count, sizeof *findings.states, compare_versions);
    enum err err = pass_over_all(s, index, &findings);
    glob_index_destroy(&index);
    if (err == OK) {
        metrics_observe(s->metrics, METRIC_SWEEP_SECONDS, 0, clock_mono_us() - began_us);
        for (uint32_t i = 0; i < findings.count; i++) {
            struct rule_state *state = &findings.states[i];
            bool is_old = began_ms >= version_ms(state->version) + s->age_ms;
            state->is_retired = is_old && !state->is_dirty && state->passes + 1 >= PASSES_MIN;
        }
        rules_swept(s->rules, findings.states, findings.count);
    }
    free(findings.states);
}

static void pause_us(struct sweep *s, uint64_t us)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)(us / 1000000);
    until.tv_nsec += (long)(us % 1000000) * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec++;
        until.tv_nsec -= 1000000000;
    }
    pthread_mutex_lock(&s->lock);
    while (!atomic_load(&s->is_stopping) && pthread_cond_timedwait(&s->stopped, &s->lock, &until) == 0) {
    }
    pthread_mutex_unlock(&s->lock);
}

static void *sweep_main(void *arg)
{
    struct sweep *s = arg;
    pthread_setname_np(pthread_self(), "sweep");
    while (!atomic_load(&s->is_stopping)) {
        uint64_t began_us = clock_mono_us();
        if (rules_are_to_be_swept(s->rules)) {
            sweep_once(s);
        }
        uint64_t us = (clock_mono_us() - began_us) * PAUSE_FACTOR;
        pause_us(s, MIN(MAX(us, PAUSE_MIN_US), PAUSE_MAX_US));
    }
    return NULL;
}

enum err sweep_create(const struct config *config, struct log *log, struct metrics *metrics, struct rules *rules, struct sweep **out)
{
    struct sweep *s = xcalloc(1, sizeof *s);
    s->config = config;
    s->log = log;
    s->metrics = metrics_shard_create(metrics);
    s->rules = rules;
    s->age_ms = AGE_MIN_MS;
    for (uint32_t i = 0; i < config->namespace_count; i++) {
        const struct config_namespace *ns = &config->namespaces[i];
        s->age_ms = ns->read == READ_THROUGH ? MAX(s->age_ms, 1000ULL * MAX(ns->tombstone_ttl_s, ns->lease_ttl_s)) : s->age_ms;
    }
    s->age_ms += config->max_clock_skew_ms; /* the version has it once */
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->stopped, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = s;
    if (pthread_create(&s->thread, NULL, sweep_main, s) != 0) {
        free(s);
        *out = NULL;
        return ERR_NOMEM;
    }
    return OK;
}

void sweep_stop(struct sweep **sweep)
{
    struct sweep *s = *sweep;
    *sweep = NULL;
    if (s == NULL) {
        return;
    }
    pthread_mutex_lock(&s->lock);
    atomic_store(&s->is_stopping, true);
    pthread_cond_signal(&s->stopped);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->stopped);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
