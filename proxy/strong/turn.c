#include "proxy/strong/parts.h"

#include "common/guard.h"

/* Strong's thread. It never waits for anything but its mailbox: whatever blocks is done by the links' threads. */

#define LOOK_US 200000ULL /* how often the pool, the rules and the election are looked at */
#define CATCH_UP_AGAIN_US 200000ULL
#define RESIGN_US 500000ULL /* how long an end waits for the answer to having given the role of holder back */

static bool is_region(const struct strong_voter *v)
{
    return v->index < v->strong->region_count;
}

static struct share_time share_now(const struct strong *strong, uint64_t now_us)
{
    return (struct share_time){now_us, guard_wall_ms(strong->config)};
}

/* --- connections --- */

static void tell_preparer(const struct strong_voter *v, uint64_t down_us)
{
    if (is_region(v)) {
        v->strong->preparer.regions[v->index].down_us = down_us;
    }
}

static void count_connected(struct strong *strong, uint64_t now_us)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < strong->voter_count; i++) {
        count += strong->voters[i].is_up;
    }
    uint64_t *since_us = &strong->preparer.majority_us;
    *since_us = count < voters_majority(&strong->votes) ? 0 : *since_us != 0 ? *since_us : now_us;
}

static void on_up(void *ctx)
{
    struct strong_voter *v = ctx;
    struct strong *strong = v->strong;
    uint64_t now_us = clock_mono_us();
    if (atomic_load(&strong->is_ending)) {
        return;
    }
    log_info(strong->log, "strong: connected%s to the NATS of %s (%s)", v->was_up ? " again" : "", v->name, v->url);
    v->is_up = v->was_up = true;
    tell_preparer(v, 0);
    count_connected(strong, now_us);
    v->reason[0] = '\0';
    vote_on_up(&v->vote, now_us);
    if (v->index == 0) {
        election_on_up(&strong->election, now_us);
        share_on_up(&strong->share, share_now(strong, now_us));
    }
}

static void on_down(void *ctx, const char *reason)
{
    struct strong_voter *v = ctx;
    struct strong *strong = v->strong;
    if (v->index == 0 && atomic_load(&strong->is_ending)) {
        election_on_down(&strong->election); /* nobody is left to take our word */
        return;
    }
    if (v->is_up || strcmp(v->reason, reason) != 0) {
        log_warn(strong->log, "strong: no connection to the NATS of %s (%s): %s; trying again", v->name, v->url, reason);
    }
    snprintf(v->reason, sizeof v->reason, "%s", reason);
    if (v->is_up) {
        tell_preparer(v, clock_mono_us());
    }
    v->is_up = false;
    count_connected(strong, clock_mono_us());
    vote_on_down(&v->vote, clock_mono_us());
    if (v->index == 0) {
        election_on_down(&strong->election);
    }
}

/* --- messages --- */

/* The holder of a region tells that it lives, and where it takes rules. */
static void on_beacon(struct strong_voter *v, const struct incoming *incoming, uint64_t now_us)
{
    struct strong *strong = v->strong;
    struct message message;
    if (incoming->status != STATUS_NONE || message_read(incoming->data, &message) != OK || message.kind != MESSAGE_BEACON ||
        message.mode > STRONG_READY || message.number >= RECORD_NUMBER_MAX || !share_is_inbox(message.inbox)) {
        metrics_add(strong->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_PROTOCOL), 1);
        return;
    }
    if (message.voters != strong->print && v->index != 0) {
        return; /* its own sidecars say so (share.c), and its locks are refused */
    }
    v->beacon_us = now_us;
    v->number = message.number;
    v->mode = message.mode;
    snprintf(strong->preparer.regions[v->index].holder, SUBJECT_MAX, "%.*s.%c.0", (int)message.inbox.len, message.inbox.data, RULING_KIND);
    if (message.mode >= STRONG_WAITING) { /* it has its lease: it wants to be asked */
        suspension_on_number(&v->suspension, message.number);
        preparer_on_beacon(&strong->preparer, v->index, now_us);
    }
    if (v->index == 0) {
        share_on_beacon(&strong->share, &message, share_now(strong, now_us));
    }
}

static void on_ask(struct strong *strong, const struct incoming *incoming, uint64_t now_us)
{
    struct message message;
    if (incoming->status != STATUS_NONE || message_read(incoming->data, &message) != OK || message.kind != MESSAGE_ASK) {
        metrics_add(strong->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, ERR_PROTOCOL), 1);
        return;
    }
    share_on_ask(&strong->share, &message, incoming->reply, share_now(strong, now_us));
}

static void on_own_message(struct strong *strong, char kind, uint64_t number, const struct incoming *message, uint64_t now_us)
{
    switch (kind) {
    case ELECTION_KIND: election_on_answer(&strong->election, number, message, now_us); break;
    case SHARE_ASK_KIND: on_ask(strong, message, now_us); break;
    case SHARE_ANSWER_KIND: share_on_answer(&strong->share, number, message, share_now(strong, now_us)); break;
    case RULING_KIND: ruler_on_request(&strong->ruler, message); break;
    case SERVE_KIND: server_on_request(&strong->server, message, now_us); break;
    default: break;
    }
}

static void on_message(void *ctx, const struct incoming *message)
{
    struct strong_voter *v = ctx;
    struct strong *strong = v->strong;
    uint64_t now_us = clock_mono_us();
    uint64_t number = 0;
    char kind = '\0';
    bool is_answer = transport_parse_inbox(link_transport(v->link), message->subject, &kind, &number);
    if (atomic_load(&strong->is_ending) && !(is_answer && kind == ELECTION_KIND)) {
        return; /* all have been stopped but the election, which has the last word */
    }
    if (is_answer && kind == VOTE_KIND) {
        vote_on_answer(&v->vote, number, message, now_us);
    } else if (is_answer && kind == PREPARE_KIND && is_region(v)) {
        preparer_on_answer(&strong->preparer, number, message, now_us);
    } else if (is_answer && v->index == 0) {
        on_own_message(strong, kind, number, message, now_us);
    } else if (is_region(v) && strcmp(message->subject, v->beacons) == 0) {
        on_beacon(v, message, now_us);
    } else if (v->index == 0 && (strcmp(message->subject, v->locks) == 0 || strcmp(message->subject, v->all_locks) == 0)) {
        server_on_request(&strong->server, message, now_us);
    }
}

const struct transport_handler strong_handler = {.on_up = on_up, .on_down = on_down, .on_message = on_message};

/* --- turns --- */

static void on_caught_up(struct strong_catch_up *catch_up, enum err err)
{
    struct strong *strong = catch_up->strong;
    strong->is_catching_up = false;
    if (err == OK) {
        strong->caught_up_us = strong->catching_up_us;
    } else {
        strong->catch_up_due_us = clock_mono_us() + CATCH_UP_AGAIN_US;
    }
}

/* A new holder may lack a rule that the one before has confirmed. */
static void catch_up(struct strong *strong)
{
    uint64_t taken_over_us = strong->holder.taken_over_us;
    if (taken_over_us == 0 || taken_over_us == strong->caught_up_us || strong->is_catching_up ||
        clock_mono_us() < strong->catch_up_due_us) {
        return;
    }
    strong->is_catching_up = true;
    strong->catching_up_us = taken_over_us;
    strong->catch_up = (struct strong_catch_up){.reply_to = &strong->mailbox, .on_done = on_caught_up, .strong = strong};
    strong->sink.catch_up(strong->sink.ctx, &strong->catch_up);
}

/* Elected, and for certain: while the region's own NATS does not answer nobody can ask the region for a lock, and it must not go for a lease. */
static bool is_holder(const struct strong *strong, uint64_t now_us)
{
    return election_is_won(&strong->election) && now_us < strong->election.until_us;
}

static void tell_share(struct strong *strong, uint64_t now_us)
{
    const struct holder *holder = &strong->holder;
    struct share_lease lease = {
        .is_holder = holder->mode >= STRONG_WAITING && holder->taken_over_us != 0,
        .mode = holder->mode,
        .valid_until_us = holder->valid_until_us,
        .proven_us = holder->renewed_us,
        .number = holder->number,
        .taken_over_us = holder->taken_over_us,
    };
    if (lease.mode == STRONG_READY && strong->caught_up_us != holder->taken_over_us) {
        lease.mode = STRONG_WAITING; /* the rules that the holder before has confirmed may not be in force here yet */
    }
    share_set_holder(&strong->share, &lease, share_now(strong, now_us));
}

static void update_status(struct strong *strong, uint64_t now_us)
{
    pthread_mutex_lock(&strong->status_lock);
    for (uint32_t i = 0; i < strong->voter_count; i++) {
        struct strong_voter *v = &strong->voters[i];
        struct strong_status *status = &strong->status[i];
        const char *problem = vote_problem(&v->vote, now_us);
        status->is_connected = v->is_up;
        status->is_vote = problem == NULL;
        snprintf(status->problem, sizeof status->problem, "%s", !v->is_up ? "not connected" : problem != NULL ? problem : "");
        if (is_region(v)) {
            status->is_heard = v->beacon_us != 0 && now_us < v->beacon_us + 1000ULL * strong->config->strong->lease_ms;
            status->is_suspended = suspension_is_in_force(&v->suspension);
            status->mode = status->is_heard ? (enum strong_mode)v->mode : STRONG_OUT;
            status->number = v->number;
        }
    }
    snprintf(strong->problem, sizeof strong->problem, "%s", share_problem(&strong->share, now_us));
    pthread_mutex_unlock(&strong->status_lock);
    for (uint32_t i = 0; i < strong->region_count; i++) {
        metrics_set(strong->metrics, METRIC_STRONG_LEASE, i, strong->status[i].mode == STRONG_READY);
        metrics_set(strong->metrics, METRIC_STRONG_SUSPENDED, i, strong->status[i].is_suspended);
    }
    metrics_set(strong->metrics, METRIC_STRONG_SERVES, 0, now_us < strong->share.serve_until_us);
    metrics_set(strong->metrics, METRIC_STRONG_VOTES, 0, voters_usable(&strong->votes, now_us));
    metrics_set(strong->metrics, METRIC_STRONG_IS_HOLDER, 0, is_holder(strong, now_us));
}

static uint64_t step(struct strong *strong)
{
    uint64_t now_us = clock_mono_us();
    if (atomic_exchange(&strong->has_news, false)) {
        share_on_digest(&strong->share, strong->sink.digest(strong->sink.ctx), share_now(strong, now_us));
    }
    uint64_t next_us = election_step(&strong->election, now_us);
    holder_set_elected(&strong->holder, is_holder(strong, now_us), now_us);
    if (share_renew_from_us(&strong->share) != 0) {
        holder_renew(&strong->holder, share_renew_from_us(&strong->share), now_us);
    }
    next_us = earlier(next_us, holder_step(&strong->holder, now_us));
    catch_up(strong);
    for (uint32_t i = 0; i < strong->region_count; i++) {
        next_us = earlier(next_us, suspension_step(&strong->voters[i].suspension, now_us));
    }
    next_us = earlier(next_us, preparer_step(&strong->preparer, now_us));
    for (uint32_t i = 0; i < strong->voter_count; i++) {
        next_us = earlier(next_us, vote_step(&strong->voters[i].vote, now_us));
    }
    tell_share(strong, now_us);
    next_us = earlier(next_us, share_step(&strong->share, share_now(strong, now_us)));
    atomic_store_explicit(&strong->validity.serve_until_us, strong->share.serve_until_us, memory_order_release);
    update_status(strong, now_us);
    return next_us;
}

static void resign(struct strong *strong)
{
    uint64_t until_us = clock_mono_us() + RESIGN_US;
    election_resign(&strong->election, clock_mono_us());
    while (election_is_resigning(&strong->election) && clock_mono_us() < until_us) {
        mailbox_wait(&strong->mailbox, strong, until_us);
    }
    link_stop(strong->voters[0].link);
}

void *strong_main(void *arg)
{
    struct strong *strong = arg;
    pthread_setname_np(pthread_self(), "strong");
    while (!atomic_load(&strong->is_ending)) {
        uint64_t next_us = step(strong);
        mailbox_wait(&strong->mailbox, strong, MIN(next_us, clock_mono_us() + LOOK_US));
    }
    atomic_store(&strong->validity.serve_until_us, 0);
    mailbox_drain(&strong->mailbox, strong);
    preparer_stop(&strong->preparer);
    share_stop(&strong->share);
    for (uint32_t i = 1; i < strong->voter_count; i++) {
        link_stop(strong->voters[i].link);
    }
    resign(strong);
    return NULL;
}
