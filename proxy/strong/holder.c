#include "proxy/strong/holder.h"

#include <assert.h>
#include <inttypes.h>

#include "common/guard.h"

#define TRIES_MAX 4 /* writes at a voter in one round */
#define PAUSE_MAX_US 60000000ULL

static void on_vote(struct vote_call *call, enum err err, uint64_t now_us);

void holder_init(struct holder *h, const struct holder_context *context)
{
    const struct config_strong *strong = context->config->strong;
    uint64_t lease_us = 1000ULL * strong->lease_ms;
    uint64_t wait_us = 1000ULL * strong->lock_window_ms + lease_us;
    *h = (struct holder){.context = *context, .lease_us = lease_us, .wait_us = wait_us + wait_us / 20, .due_us = UINT64_MAX};
    assert(context->voters->count <= VOTERS_MAX && context->name != 0);
    for (uint32_t i = 0; i < context->voters->count; i++) {
        vote_call_init(&h->at[i].call, context->voters->all[i], 0, on_vote, h);
    }
}

void holder_deinit(struct holder *h)
{
    h->phase = HOLDER_IDLE;
    for (uint32_t i = 0; i < h->context.voters->count; i++) {
        vote_call_cancel(&h->at[i].call);
    }
}

static void changed(struct holder *h)
{
    h->context.on_change(h->context.ctx, h);
}

/* We hold nothing, for all we know. */
static void let_go(struct holder *h)
{
    h->mode = STRONG_OUT;
    h->valid_until_us = 0;
    h->taken_over_us = 0;
    h->is_ready = h->is_waiting_for_pool = false;
    for (uint32_t i = 0; i < h->context.voters->count; i++) {
        h->at[i].has_ours = false;
    }
}

/* --- rounds --- */

/* The model's create-after-lapse: what a voter has lost is not put back by whoever may have been suspended there. */
static bool may_create(const struct holder *h, uint64_t now_us)
{
    return h->mode == STRONG_TAKING || now_us < h->valid_until_us || !guard_is_on(h->context.config, GUARD_STRONG_CREATE);
}

static void go_on(struct holder *h, struct holder_vote *at, uint64_t now_us)
{
    if (at->has_voted || at->tries >= TRIES_MAX || vote_call_is_under_way(&at->call)) {
        return;
    }
    at->round = h->round;
    at->tries++;
    if (h->phase == HOLDER_LOOKING) {
        vote_look(&at->call, now_us);
        return;
    }
    if (vote_call_knows(&at->call) && at->call.record.number == 0 && !may_create(h, now_us)) {
        h->is_missing = true;
        return;
    }
    if (at->call.record.number > h->number) {
        at->call.is_known = false; /* never over a higher number: it is looked at first */
    }
    struct lease_record record = {.number = h->number, .is_ready = h->is_ready, .ring = h->context.ring, .holder = h->context.name};
    vote_write(&at->call, &record, now_us); /* what is not sent is no vote in this round */
}

static void begin_round(struct holder *h, enum holder_phase phase, uint64_t now_us)
{
    h->phase = phase;
    h->round++;
    h->round_us = now_us;
    h->due_us = now_us + h->lease_us / 3;
    h->votes = 0;
    h->is_majority = h->is_missing = false;
    for (uint32_t i = 0; i < h->context.voters->count; i++) {
        h->at[i].has_voted = false;
        h->at[i].tries = 0;
    }
    for (uint32_t i = 0; i < h->context.voters->count; i++) {
        go_on(h, &h->at[i], now_us);
    }
}

/* From the beginning, after a third of the lease: two that fight each other must not do it at full speed. */
static void look_later(struct holder *h, uint64_t now_us)
{
    let_go(h);
    h->phase = HOLDER_PAUSED;
    h->due_us = now_us + h->lease_us / 3;
    changed(h);
}

/* Suspended again before it has served: writers can not ask this region for locks, though it can ask the voters. Each time it comes back they wait for it
 * once more, so that must become rare. */
static void come_back_later(struct holder *h, uint64_t newer, uint64_t now_us)
{
    uint64_t pause_us = MIN(2 * h->lease_us << MIN(h->setbacks, 8U), PAUSE_MAX_US);
    h->setbacks++;
    look_later(h, now_us);
    h->number = newer;
    h->due_us = now_us + pause_us;
    log_warn(h->context.log, "strong: this region was suspended (%" PRIu64 ") before it was back: it goes for its lease again in %" PRIu64 " ms; can the others reach its NATS?",
             newer, pause_us / 1000);
}

/* `newer` is the highest number there is, as far as is known. */
static void come_back(struct holder *h, uint64_t newer, const char *why, uint64_t now_us)
{
    h->number = MAX(newer, h->number);
    if (!h->context.is_pool_whole(h->context.ctx)) {
        look_later(h, now_us);
        h->is_waiting_for_pool = true;
        return;
    }
    let_go(h);
    h->number = record_next_held(h->number);
    h->mode = STRONG_TAKING;
    log_warn(h->context.log, "strong: this region goes for its lease anew (%" PRIu64 "): %s", h->number, why);
    begin_round(h, HOLDER_ROUNDS, now_us);
    changed(h);
}

static void on_majority(struct holder *h, uint64_t now_us)
{
    uint64_t from_us = guard_is_on(h->context.config, GUARD_STRONG_FROM_SENDING) ? h->round_us : now_us;
    h->is_majority = true;
    h->valid_until_us = MAX(h->valid_until_us, from_us + h->lease_us);
    h->renewed_us = h->round_us;
    if (h->taken_over_us == 0) {
        h->taken_over_us = now_us;
    }
    if (h->mode == STRONG_TAKING) {
        h->mode = STRONG_WAITING;
        h->ready_from_us = now_us + (guard_is_on(h->context.config, GUARD_STRONG_COMEBACK_WAIT) ? h->wait_us : 0);
        h->rule_due_us = 0;
        h->rule_err = OK;
    } else if (h->is_ready && h->mode != STRONG_READY) {
        h->mode = STRONG_READY;
        h->setbacks = 0;
        log_info(h->context.log, "strong: this sidecar holds the lease of this region (%" PRIu64 ")", h->number);
    }
    changed(h);
}

static void on_renewed(struct holder *h, struct holder_vote *at, uint64_t now_us)
{
    at->has_voted = true;
    h->votes++;
    if (h->votes >= voters_majority(h->context.voters) && !h->is_majority) {
        on_majority(h, now_us);
    }
}

/* --- what is found --- */

/* A majority has been looked at. That proves nothing, but says what to try. */
static void choose(struct holder *h, uint64_t now_us)
{
    struct lease_record best = {.number = 0};
    for (uint32_t i = 0; i < h->context.voters->count; i++) {
        const struct lease_record *record = &h->at[i].call.record;
        if (h->at[i].has_voted && (record->number > best.number || (record->number == best.number && record->is_ready))) {
            best = *record;
        }
    }
    const char *why = best.number == 0                   ? "it has never had one"
                      : !record_is_held(&best)           ? "it was suspended"
                      : !best.is_ready                   ? "who went for it last has not come to serve"
                      : best.ring != h->context.ring     ? "its last holder had another pool"
                      : best.number < h->number          ? "the record was lost"
                                                         : NULL;
    if (why != NULL) {
        come_back(h, best.number, why, now_us);
        return;
    }
    let_go(h);
    h->number = best.number;
    h->is_ready = true;
    begin_round(h, HOLDER_ROUNDS, now_us);
    changed(h);
}

static void on_looked(struct holder *h, struct holder_vote *at, uint64_t now_us)
{
    at->has_voted = true;
    h->votes++;
    if (h->votes >= voters_majority(h->context.voters)) {
        choose(h, now_us);
    }
}

/* What was found at a voter, without our having written it there in this round. */
static void on_found(struct holder *h, struct holder_vote *at, uint64_t now_us)
{
    const struct lease_record *found = &at->call.record;
    bool is_ours = found->holder == h->context.name;
    if (found->number > h->number && (h->mode == STRONG_TAKING || h->mode == STRONG_WAITING)) {
        come_back_later(h, found->number, now_us);
    } else if (found->number > h->number) {
        come_back(h, found->number, "it was suspended", now_us);
    } else if (found->number < h->number || is_ours) {
        at->has_ours = at->has_ours && is_ours && found->number == h->number;
        go_on(h, at, now_us);
    } else if (at->has_ours) { /* it was ours, and is another's now */
        log_info(h->context.log, "strong: another sidecar has taken over the lease of this region (%" PRIu64 ")", h->number);
        look_later(h, now_us);
    } else if (!h->is_ready) { /* two have gone for the same number: neither may count on what the other has waited */
        come_back(h, h->number, "another sidecar went for the same", now_us);
    } else {
        /* Perhaps that of our predecessor, at a voter that lags behind; perhaps of a successor who has a majority without us noticing: going over it is a take-over. */
        h->taken_over_us = 0;
        go_on(h, at, now_us);
        changed(h);
    }
}

static void on_vote(struct vote_call *call, enum err err, uint64_t now_us)
{
    struct holder *h = call->ctx;
    struct holder_vote *at = container_of(call, struct holder_vote, call);
    bool is_current = at->round == h->round;
    bool is_written = err == OK && call->is_write;
    if (h->phase == HOLDER_IDLE || h->phase == HOLDER_PAUSED) {
        return;
    }
    at->has_ours = at->has_ours || (is_written && call->record.number == h->number);
    if (!is_current && (h->phase == HOLDER_LOOKING || is_written)) { /* an answer to an earlier round is none to this one */
        go_on(h, at, now_us);
    } else if (h->phase == HOLDER_LOOKING) {
        if (err == OK) {
            on_looked(h, at, now_us);
        }
    } else if (is_written) {
        on_renewed(h, at, now_us);
    } else if (err == OK || err == ERR_CONFLICT) {
        on_found(h, at, now_us);
    } else if (!is_current) {
        go_on(h, at, now_us);
    }
}

/* --- the rest --- */

void holder_set_elected(struct holder *h, bool is_elected, uint64_t now_us)
{
    if (is_elected == (h->phase != HOLDER_IDLE)) {
        return;
    }
    if (is_elected) {
        let_go(h);
        begin_round(h, HOLDER_LOOKING, now_us);
    } else {
        h->phase = HOLDER_IDLE;
        h->mode = STRONG_OUT; /* what has been given stays valid until it has run out */
    }
    changed(h);
}

void holder_rule_done(struct holder *h, enum err err, uint64_t now_us)
{
    h->is_rule_asked = false;
    if (h->mode != STRONG_WAITING || h->rule_number != h->number) {
        return; /* of an earlier comeback */
    }
    h->rule_err = err;
    if (err == OK) {
        h->is_ready = true;
        begin_round(h, HOLDER_ROUNDS, now_us);
    } else {
        log_warn(h->context.log, "strong: this region can not serve yet: its rule can not be applied: %s; trying again", err_text(err));
        h->rule_due_us = now_us + h->lease_us / 3;
    }
    changed(h);
}

static void next_round(struct holder *h, uint64_t now_us)
{
    if (h->phase == HOLDER_ROUNDS && !h->is_majority && h->is_missing && !may_create(h, now_us)) {
        come_back(h, h->number, "its record was lost", now_us);
    } else {
        begin_round(h, h->phase == HOLDER_PAUSED ? HOLDER_LOOKING : h->phase, now_us);
    }
}

uint64_t holder_step(struct holder *h, uint64_t now_us)
{
    if (h->phase == HOLDER_IDLE) {
        return UINT64_MAX;
    }
    uint64_t rule_us = MAX(h->ready_from_us, h->rule_due_us);
    if (h->mode == STRONG_WAITING && !h->is_ready && !h->is_rule_asked && now_us >= rule_us) {
        h->is_rule_asked = true;
        h->rule_number = h->number;
        h->context.on_rule(h->context.ctx, h);
    }
    if (now_us >= h->due_us) {
        next_round(h, now_us);
    }
    bool is_rule_next = h->mode == STRONG_WAITING && !h->is_ready && !h->is_rule_asked;
    return is_rule_next ? MIN(h->due_us, MAX(h->ready_from_us, h->rule_due_us)) : h->due_us;
}

void holder_renew(struct holder *h, uint64_t from_us, uint64_t now_us)
{
    if (h->phase == HOLDER_ROUNDS && h->is_majority && h->round_us < from_us) { /* the round under way comes to its end first */
        h->due_us = MIN(h->due_us, now_us);
    }
}

bool holder_is_ready(const struct holder *h, uint64_t now_us)
{
    return h->mode == STRONG_READY && now_us < h->valid_until_us;
}

const char *holder_problem(struct holder *h, uint64_t now_us)
{
    const struct voters *voters = h->context.voters;
    uint32_t usable = voters_usable(voters, now_us);
    if (h->phase == HOLDER_IDLE || holder_is_ready(h, now_us)) {
        return NULL;
    }
    if (usable < voters_majority(voters)) {
        snprintf(h->problem, sizeof h->problem, "%u of %u voters can be used, and %u are needed", usable, voters->count, voters_majority(voters));
    } else if (h->is_waiting_for_pool) {
        snprintf(h->problem, sizeof h->problem, "a node of the pool is away, and the lease can not be taken without it");
    } else if (h->mode == STRONG_WAITING && h->rule_err != OK) {
        snprintf(h->problem, sizeof h->problem, "its rule can not be applied: %s", err_text(h->rule_err));
    } else if (h->mode == STRONG_WAITING && now_us < h->ready_from_us) {
        snprintf(h->problem, sizeof h->problem, "it was away, and serves in %" PRIu64 " s", (h->ready_from_us - now_us) / 1000000 + 1);
    } else if (h->mode == STRONG_WAITING) {
        snprintf(h->problem, sizeof h->problem, "it was away, and its rule is being applied");
    } else {
        snprintf(h->problem, sizeof h->problem, "a majority of the voters has not answered yet");
    }
    return h->problem;
}
