#include "proxy/strong/suspension.h"

#include <assert.h>
#include <inttypes.h>

#include "common/guard.h"

#define TRIES_MAX 4 /* writes at a voter in one round */

static void on_vote(struct vote_call *call, enum err err, uint64_t now_us);

void suspension_init(struct suspension *s, const struct suspension_context *context)
{
    *s = (struct suspension){
        .context = *context,
        .lease_us = 1000ULL * context->config->strong->lease_ms,
        .deadline_us = UINT64_MAX,
    };
    list_init(&s->waiters);
    assert(context->voters->count <= VOTERS_MAX);
    for (uint32_t i = 0; i < context->voters->count; i++) {
        vote_call_init(&s->at[i].call, context->voters->all[i], context->region, on_vote, s);
    }
}

static const char *region_name(const struct suspension *s)
{
    const struct config *config = s->context.config;
    return s->context.region == 0 ? config->region : config->bus->peers[s->context.region - 1].region;
}

/* --- waiters --- */

static void end(struct suspension *s, struct suspension_waiter *waiter, enum err err, uint64_t now_us)
{
    list_remove(&waiter->link);
    s->waiting--;
    waiter->on_done(waiter, err, now_us);
}

/* All that are there, or (`is_due`) whose deadline has passed. What ends may begin to wait again. */
static void end_all(struct suspension *s, bool is_due, enum err err, uint64_t now_us)
{
    struct list ending, *it, *next;
    list_init(&ending);
    s->deadline_us = UINT64_MAX;
    list_for_each(it, next, &s->waiters) {
        struct suspension_waiter *waiter = list_entry(it, struct suspension_waiter, link);
        if (!is_due || now_us >= waiter->deadline_us) {
            list_remove(it);
            list_push_back(&ending, it);
        } else {
            s->deadline_us = MIN(s->deadline_us, waiter->deadline_us);
        }
    }
    while ((it = list_first(&ending)) != NULL) {
        end(s, list_entry(it, struct suspension_waiter, link), err, now_us);
    }
}

enum err suspension_wait(struct suspension *s, struct suspension_waiter *waiter, uint64_t now_us)
{
    const struct voters *voters = s->context.voters;
    if (voters_usable(voters, now_us) < voters_majority(voters)) {
        return ERR_UNAVAILABLE;
    }
    if (s->waiting >= SUSPENSION_WAITERS_MAX) {
        return ERR_OVERLOAD;
    }
    list_push_back(&s->waiters, &waiter->link);
    s->waiting++;
    s->deadline_us = MIN(s->deadline_us, waiter->deadline_us);
    return OK;
}

void suspension_cancel(struct suspension *s, struct suspension_waiter *waiter)
{
    if (list_is_linked(&waiter->link)) {
        list_remove(&waiter->link);
        s->waiting--;
    }
}

void suspension_deinit(struct suspension *s, uint64_t now_us)
{
    for (uint32_t i = 0; i < s->context.voters->count; i++) {
        vote_call_cancel(&s->at[i].call);
    }
    end_all(s, false, ERR_STOPPING, now_us);
}

/* --- what is known --- */

bool suspension_is_proven(const struct suspension *s, uint64_t now_us)
{
    bool is_young = now_us < s->proven_us + s->lease_us || !guard_is_on(s->context.config, GUARD_STRONG_PROOF_AGE);
    return s->proven_us != 0 && now_us >= s->over_us && is_young;
}

/* Nothing that was proven of a lower number says anything of this one. */
static void set_number(struct suspension *s, uint64_t number)
{
    s->number = number;
    s->proven_us = s->over_us = 0;
    s->votes = 0;
    for (uint32_t i = 0; i < s->context.voters->count; i++) {
        s->at[i].has_voted = false;
        s->at[i].since_us = 0;
    }
}

void suspension_on_number(struct suspension *s, uint64_t number)
{
    if (number > s->number) {
        set_number(s, record_next_suspended(number));
        s->round++; /* answers under way are of the number before */
        s->is_round = false;
        s->due_us = 0;
    }
}

/* When the wait is over for the majority that is the first of those that have voted in this round. */
static uint64_t over_us(const struct suspension *s)
{
    uint64_t last_us = 0;
    for (uint32_t n = 0; n < voters_majority(s->context.voters); n++) { /* the next later one each time; few, and seldom */
        uint64_t best_us = UINT64_MAX;
        uint32_t before = 0;
        for (uint32_t i = 0; i < s->context.voters->count; i++) {
            const struct suspension_vote *at = &s->at[i];
            before += at->has_voted && at->since_us <= last_us;
            best_us = at->has_voted && at->since_us > last_us ? MIN(best_us, at->since_us) : best_us;
        }
        if (before >= voters_majority(s->context.voters)) {
            break;
        }
        last_us = best_us;
    }
    return last_us + s->lease_us + s->lease_us / 20;
}

/* --- rounds --- */

static void go_on(struct suspension *s, struct suspension_vote *at, uint64_t now_us)
{
    if (!s->is_round || at->has_voted || at->tries >= TRIES_MAX || vote_call_is_under_way(&at->call)) {
        return;
    }
    at->round = s->round;
    if (s->number == 0) {
        vote_look(&at->call, now_us);
        return;
    }
    if (at->call.record.number > s->number) {
        at->call.is_known = false; /* never over a higher number: it is looked at first, and then we go above it */
    }
    at->tries++;
    vote_write(&at->call, &(struct lease_record){.number = s->number}, now_us); /* what is not sent is no vote in this round */
}

static void begin_round(struct suspension *s, uint64_t now_us)
{
    s->is_round = true;
    s->round++;
    s->round_us = now_us;
    s->due_us = now_us + s->lease_us / 3;
    s->votes = 0;
    for (uint32_t i = 0; i < s->context.voters->count; i++) {
        s->at[i].has_voted = false;
        s->at[i].tries = 0;
    }
    for (uint32_t i = 0; i < s->context.voters->count; i++) {
        go_on(s, &s->at[i], now_us);
    }
}

static void on_suspended(struct suspension *s, struct suspension_vote *at, uint64_t now_us)
{
    if (at->since_us == 0 || at->generation != at->call.generation) {
        at->since_us = now_us;
        at->generation = at->call.generation;
    }
    at->has_voted = true;
    s->votes++;
    if (s->votes < voters_majority(s->context.voters)) {
        return;
    }
    if (s->proven_us == 0) {
        log_warn(s->context.log, "strong: region %s is suspended (%" PRIu64 ")", region_name(s), s->number);
    }
    s->proven_us = s->round_us;
    s->over_us = guard_is_on(s->context.config, GUARD_STRONG_LEASE_WAIT) ? over_us(s) : 0;
}

/* What was found at a voter, without our having written it there. */
static void on_found(struct suspension *s, struct suspension_vote *at, uint64_t now_us)
{
    uint64_t found = at->call.record.number;
    if (found > s->number || s->number == 0) {
        if (s->proven_us != 0) {
            log_info(s->context.log, "strong: region %s was back (%" PRIu64 "), and is suspended anew", region_name(s), found);
        }
        set_number(s, record_next_suspended(found));
        begin_round(s, now_us);
        return;
    }
    if (found < s->number) {
        at->since_us = 0; /* whatever was there before */
    }
    go_on(s, at, now_us);
}

static void on_vote(struct vote_call *call, enum err err, uint64_t now_us)
{
    struct suspension *s = call->ctx;
    struct suspension_vote *at = container_of(call, struct suspension_vote, call);
    if (!s->is_round) {
        return;
    }
    bool is_written = err == OK && call->is_write;
    if ((err == OK || err == ERR_CONFLICT) && !is_written) {
        on_found(s, at, now_us);
    } else if (at->round != s->round) { /* an answer to an earlier round is none to this one */
        go_on(s, at, now_us);
    } else if (is_written) {
        on_suspended(s, at, now_us);
    }
}

uint64_t suspension_step(struct suspension *s, uint64_t now_us)
{
    const struct voters *voters = s->context.voters;
    if (now_us >= s->due_us) {
        s->is_round = false;
    }
    if (now_us >= s->deadline_us) {
        end_all(s, true, ERR_TIMEOUT, now_us);
    }
    if (s->waiting > 0 && suspension_is_proven(s, now_us)) {
        end_all(s, false, OK, now_us);
    } else if (s->waiting > 0 && voters_usable(voters, now_us) < voters_majority(voters)) {
        end_all(s, false, ERR_UNAVAILABLE, now_us);
    }
    if (s->waiting == 0) {
        return UINT64_MAX;
    }
    if (!s->is_round && !suspension_is_proven(s, now_us)) {
        begin_round(s, now_us);
    }
    uint64_t next_us = MIN(s->due_us, s->deadline_us);
    return s->proven_us != 0 && s->over_us > now_us ? MIN(next_us, s->over_us) : next_us;
}
