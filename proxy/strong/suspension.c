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
        .over_us = UINT64_MAX,
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
    waiter->begun_us = now_us;
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

static bool is_within_lease(const struct suspension *s, uint64_t at_us)
{
    return s->proven_us != 0 && (at_us < s->proven_us + s->lease_us || !guard_is_on(s->context.config, GUARD_STRONG_PROOF_AGE));
}

bool suspension_is_proven(const struct suspension *s, uint64_t now_us)
{
    return s->newer <= s->number && now_us >= s->over_us && is_within_lease(s, now_us);
}

/* Nothing that was proven of a lower number says anything of this one. */
static void set_number(struct suspension *s, uint64_t number)
{
    s->number = number;
    s->proven_us = 0;
    s->over_us = UINT64_MAX;
    for (uint32_t i = 0; i < s->context.voters->count; i++) {
        s->at[i].since_us = s->at[i].seen_us = 0;
    }
}

void suspension_on_number(struct suspension *s, uint64_t number)
{
    s->newer = MAX(s->newer, number);
}

/* The first moment at which a majority had the number all at once, as each of them has shown since then; UINT64_MAX: none is known. */
static uint64_t confirmed_us(const struct suspension *s)
{
    uint64_t first_us = UINT64_MAX;
    for (uint32_t i = 0; i < s->context.voters->count; i++) {
        uint64_t at_us = s->at[i].since_us;
        uint32_t count = 0;
        for (uint32_t k = 0; k < s->context.voters->count; k++) {
            const struct suspension_vote *at = &s->at[k];
            count += at->since_us != 0 && at->since_us <= at_us && at->seen_us >= at_us;
        }
        if (at_us != 0 && count >= voters_majority(s->context.voters)) {
            first_us = MIN(first_us, at_us);
        }
    }
    return first_us;
}

/* What was there, in answer to a question of this round. */
static void see(struct suspension *s, struct suspension_vote *at, bool has_it, uint64_t now_us)
{
    if (!has_it) {
        at->since_us = at->seen_us = 0;
    } else if (at->since_us == 0 || at->generation != at->call.generation) {
        at->since_us = now_us;
        at->seen_us = 0;
        at->generation = at->call.generation;
    } else {
        at->seen_us = s->round_us;
    }
    uint64_t from_us = confirmed_us(s);
    s->over_us = from_us == UINT64_MAX ? UINT64_MAX : from_us + s->lease_us + s->lease_us / 20;
    if (!guard_is_on(s->context.config, GUARD_STRONG_LEASE_WAIT)) {
        s->over_us = 0;
    }
}

/* --- rounds --- */

static void go_on(struct suspension *s, struct suspension_vote *at, uint64_t now_us)
{
    if (!s->is_round || at->has_answered || at->tries >= TRIES_MAX || vote_call_is_under_way(&at->call)) {
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
        s->at[i].has_answered = false;
        s->at[i].tries = 0;
    }
    for (uint32_t i = 0; i < s->context.voters->count; i++) {
        go_on(s, &s->at[i], now_us);
    }
}

static void on_written(struct suspension *s, struct suspension_vote *at, uint64_t now_us)
{
    at->has_answered = true;
    see(s, at, true, now_us);
    if (++s->votes != voters_majority(s->context.voters)) {
        return;
    }
    if (s->proven_us == 0) {
        log_warn(s->context.log, "strong: region %s is suspended (%" PRIu64 ")", region_name(s), s->number);
        s->proven_round = s->round;
    }
    s->proven_us = s->round_us;
}

/* What was found at a voter, without our having written it there. */
static void on_found(struct suspension *s, struct suspension_vote *at, uint64_t now_us)
{
    uint64_t found = at->call.record.number;
    s->newer = MAX(s->newer, found);
    if (s->number == 0 || (found > s->number && s->proven_us == 0)) {
        set_number(s, record_next_suspended(s->newer));
        begin_round(s, now_us);
    } else if (found > s->number) { /* it comes back; who waits already need not mind */
        at->has_answered = true;
        see(s, at, true, now_us);
    } else {
        if (found < s->number) {
            see(s, at, false, now_us);
        }
        go_on(s, at, now_us);
    }
}

static void on_vote(struct vote_call *call, enum err err, uint64_t now_us)
{
    struct suspension *s = call->ctx;
    struct suspension_vote *at = container_of(call, struct suspension_vote, call);
    if (!s->is_round) {
        return;
    }
    if (at->round != s->round) { /* an answer to an earlier round is none to this one */
        go_on(s, at, now_us);
    } else if (err == OK && call->is_write) {
        on_written(s, at, now_us);
    } else if (err == OK || err == ERR_CONFLICT) {
        on_found(s, at, now_us);
    }
}

/* Ends those whose wait is over: it is for who began to wait within a lease of the proof. They are in order of that. */
static void end_proven(struct suspension *s, uint64_t now_us)
{
    struct list *link, ending;
    list_init(&ending);
    while (now_us >= s->over_us && (link = list_first(&s->waiters)) != NULL && is_within_lease(s, list_entry(link, struct suspension_waiter, link)->begun_us)) {
        list_remove(link);
        list_push_back(&ending, link);
    }
    while ((link = list_first(&ending)) != NULL) {
        end(s, list_entry(link, struct suspension_waiter, link), OK, now_us);
    }
}

/* The region is back, and the proof we have is of no use to who waits: it goes to a higher number. */
static void start_over(struct suspension *s)
{
    struct list *first = list_first(&s->waiters);
    bool is_of_use = first != NULL && is_within_lease(s, list_entry(first, struct suspension_waiter, link)->begun_us);
    bool is_confirmed = s->over_us != UINT64_MAX || s->round <= s->proven_round;
    if (s->newer > s->number && !(is_of_use && is_confirmed)) {
        log_info(s->context.log, "strong: region %s was back (%" PRIu64 "), and is suspended anew", region_name(s), s->newer);
        set_number(s, record_next_suspended(s->newer));
    }
}

uint64_t suspension_step(struct suspension *s, uint64_t now_us)
{
    const struct voters *voters = s->context.voters;
    if (now_us >= s->deadline_us) {
        end_all(s, true, ERR_TIMEOUT, now_us);
    }
    end_proven(s, now_us);
    if (s->waiting > 0 && voters_usable(voters, now_us) < voters_majority(voters)) {
        end_all(s, false, ERR_UNAVAILABLE, now_us);
    }
    s->is_round = s->is_round && now_us < s->due_us;
    if (s->waiting == 0) {
        return UINT64_MAX;
    }
    if (!s->is_round) {
        start_over(s);
        begin_round(s, now_us);
    }
    uint64_t next_us = MIN(s->due_us, s->deadline_us);
    return s->over_us > now_us ? MIN(next_us, s->over_us) : next_us;
}
