#include "tests/unit/strong/sim.h"

#include <stdarg.h>

static struct config_peer peers_of_west[] = {{.region = (char *)"east"}, {.region = (char *)"south"}};
static struct config_peer peers_of_east[] = {{.region = (char *)"south"}, {.region = (char *)"west"}};
static struct config_peer peers_of_south[] = {{.region = (char *)"west"}, {.region = (char *)"east"}};
static struct config_peer witnesses[] = {{.region = (char *)"witness-1"}, {.region = (char *)"witness-2"}};
static struct config_bus buses[] = {{.peers = peers_of_west, .peer_count = 2}, {.peers = peers_of_east, .peer_count = 2}, {.peers = peers_of_south, .peer_count = 2}};
static struct config_strong strong = {.lease_ms = LEASE / MS, .lock_window_ms = WINDOW / MS, .witnesses = witnesses};
static struct config configs[] = {{.region = (char *)"west", .bus = &buses[0], .strong = &strong},
                                  {.region = (char *)"east", .bus = &buses[1], .strong = &strong},
                                  {.region = (char *)"south", .bus = &buses[2], .strong = &strong}};
static const char *const names[VOTERS] = {"CONTROL_west", "CONTROL_east", "CONTROL_south", "CONTROL_witness-1", "CONTROL_witness-2"};
static const uint32_t west_of[] = {0, 2, 1}; /* west, as each of the regions counts them */

static const struct config *config_of(uint32_t sidecar)
{
    return &configs[sidecar < HOLDERS ? 0 : sidecar - HOLDERS + 1];
}

uint64_t sim_random(struct sim *sim, uint64_t below)
{
    uint64_t x = sim->random;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    sim->random = x;
    return (x >> 11) % below;
}

void sim_trace(struct sim *sim, const char *format, ...)
{
    if (!sim->is_traced) {
        return;
    }
    va_list args;
    va_start(args, format);
    fprintf(stderr, "%9.3f ", (double)sim->now_us / 1e6);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
}

/* --- events --- */

static void insert(struct sim *sim, struct event *event)
{
    struct event **at = &sim->events;
    while (*at != NULL && ((*at)->at_us < event->at_us || ((*at)->at_us == event->at_us && (*at)->order < event->order))) {
        at = &(*at)->next;
    }
    event->next = *at;
    *at = event;
}

void sim_push(struct sim *sim, struct event *event, uint64_t in_us)
{
    struct event *copy = xmalloc(sizeof *copy);
    *copy = *event;
    copy->at_us = sim->now_us + in_us;
    copy->order = ++sim->order;
    insert(sim, copy);
}

void sim_elect(struct sim *sim, uint32_t sidecar, bool is_elected, uint64_t in_us)
{
    sim_push(sim, &(struct event){.kind = ELECT, .sidecar = sidecar, .flag = is_elected}, in_us);
}

static uint64_t delay(struct sim *sim)
{
    uint64_t dice = sim->is_quiet ? 0 : sim_random(sim, 100);
    return dice < 88 ? 1 * MS + sim_random(sim, 30 * MS) : dice < 97 ? sim_random(sim, 300 * MS) : sim_random(sim, 2 * S);
}

static bool is_lucky(struct sim *sim, uint64_t percent)
{
    return !sim->is_quiet && sim_random(sim, 100) < percent;
}

/* On its way, perhaps twice or never. */
static void transmit(struct sim *sim, struct event *event)
{
    if (!is_lucky(sim, 2)) {
        sim_push(sim, event, delay(sim));
    }
    if (is_lucky(sim, 2)) {
        sim_push(sim, event, delay(sim));
    }
}

/* --- sidecars --- */

static enum err line_send(struct transport *transport, const struct outgoing *m)
{
    struct line *line = container_of(transport, struct line, transport);
    struct sim *sim = line->sim;
    if (!line->is_up || sim->now_us < line->cut_until_us) {
        return OK; /* sent does not mean received */
    }
    struct event event = {.kind = REQUEST, .sidecar = line->sidecar, .voter = line->voter, .epoch = line->epoch, .incarnation = sim->voters[line->place].incarnation,
                          .expected = m->has_expected ? (int64_t)m->expected_seq : -1, .number = strtoull(strrchr(m->reply, '.') + 1, NULL, 10)};
    snprintf(event.subject, sizeof event.subject, "%s", m->subject);
    snprintf(event.text, sizeof event.text, "%.*s", SPAN_FMT(m->data));
    transmit(sim, &event);
    return OK;
}

static const struct transport_ops line_ops = {.send = line_send};

static bool is_pool_whole(void *ctx)
{
    return ((struct sidecar *)ctx)->sim->is_pool_whole;
}

static void violate(struct sim *sim, const char *what, uint64_t a, uint64_t b)
{
    if (sim->violation[0] == '\0') {
        snprintf(sim->violation, sizeof sim->violation, "at %" PRIu64 ": %s (%" PRIu64 ", %" PRIu64 ")", sim->now_us, what, a, b);
        sim_trace(sim, "VIOLATION: %s", sim->violation);
    }
}

static void on_rule(void *ctx, struct holder *holder)
{
    struct sidecar *s = ctx;
    struct sim *sim = s->sim;
    if (sim->now_us < s->comeback_us + WINDOW + LEASE) {
        violate(sim, "a region came back without waiting", s->comeback_us, sim->now_us);
    }
    bool fails = is_lucky(sim, 10);
    ck_assert_uint_lt(holder->number, NUMBERS);
    if (!fails) {
        sim->rule_us[holder->number] = sim->now_us;
    }
    sim_trace(sim, "sidecar %u: rule for %" PRIu64, s->index, holder->number);
    if (sim_random(sim, 4) == 0) {
        holder_rule_done(holder, fails ? ERR_UNAVAILABLE : OK, sim->now_us);
    } else {
        sim_push(sim, &(struct event){.kind = RULE_DONE, .sidecar = s->index, .flag = fails}, delay(sim));
    }
}

static void on_change(void *ctx, struct holder *holder)
{
    struct sidecar *s = ctx;
    if (holder->mode == STRONG_WAITING && s->mode != STRONG_WAITING) {
        s->comeback_us = s->sim->now_us;
        s->sim->comebacks++;
    }
    if (holder->mode == STRONG_READY && s->mode != STRONG_READY) {
        s->sim->readies++;
        s->sim->takeovers += s->mode == STRONG_OUT;
    }
    if (s->mode != holder->mode) {
        sim_trace(s->sim, "sidecar %u: mode %d, number %" PRIu64, s->index, (int)holder->mode, holder->number);
    }
    s->mode = holder->mode;
    s->taken_over_us = MAX(s->taken_over_us, holder->taken_over_us);
    s->was_ready = (s->was_ready || holder->mode == STRONG_READY) && holder->valid_until_us != 0;
}

/* A write leaves the region out, and may land until then. */
static void leave_out(struct sim *sim, uint64_t number, uint64_t fence_us)
{
    sim->proofs += fence_us > sim->fence_us;
    sim->fence_us = MAX(sim->fence_us, fence_us);
    for (uint32_t i = 0; i < HOLDERS; i++) {
        const struct holder *holder = &sim->sidecars[i].holder;
        if (holder->number < number && holder->valid_until_us > sim->now_us) {
            violate(sim, "a region that is suspended has its lease", holder->number, number);
        }
    }
}

static void on_waited(struct suspension_waiter *waiter, enum err err, uint64_t now_us)
{
    struct sidecar *s = container_of(waiter, struct sidecar, waiter);
    s->waited = err;
    if (err == OK) {
        leave_out(s->sim, s->suspension.number, waiter->begun_us + WINDOW);
    }
}

static uint32_t place_of(const struct vote *vote)
{
    for (uint32_t i = 0; i < VOTERS; i++) {
        if (strcmp(vote->stream + 3, names[i]) == 0) {
            return i;
        }
    }
    ck_abort_msg("no such voter: %s", vote->stream);
}

void sim_start(struct sim *sim, uint32_t index)
{
    struct sidecar *s = &sim->sidecars[index];
    const struct config *config = config_of(index);
    if (s->sim != NULL) { /* it was killed */
        holder_deinit(&s->holder);
        suspension_deinit(&s->suspension, sim->now_us);
    }
    uint32_t epochs[VOTERS];
    for (uint32_t i = 0; i < sim->voter_count; i++) {
        epochs[i] = s->lines[i].epoch;
    }
    *s = (struct sidecar){.sim = sim, .index = index, .due_us = sim->now_us, .voters.count = sim->voter_count, .waiter.on_done = on_waited};
    list_init(&s->waiter.link);
    for (uint32_t i = 0; i < sim->voter_count; i++) {
        struct line *line = &s->lines[i];
        *line = (struct line){.transport = {.ops = &line_ops, .inbox = "_INBOX.sim"}, .sim = sim, .sidecar = index, .voter = i, .epoch = epochs[i] + 1};
        struct vote_context context = {config, &line->transport, sim->log, i, 'v', sim_random(sim, 1U << 30) + 1};
        vote_init(&s->votes[i], &context);
        line->place = place_of(&s->votes[i]);
        s->voters.all[i] = &s->votes[i];
        sim_push(sim, &(struct event){.kind = RECONNECT, .sidecar = index, .voter = i, .epoch = line->epoch}, delay(sim));
    }
    struct holder_context holder = {config, sim->log, &s->voters, 0x1234, sim_random(sim, 1U << 30) + 1, s, is_pool_whole, on_rule, on_change};
    holder_init(&s->holder, &holder);
    struct suspension_context suspension = {config, sim->log, &s->voters, west_of[config - configs]};
    suspension_init(&s->suspension, &suspension);
}

/* --- the network --- */

void sim_break_line(struct sim *sim, struct line *line)
{
    if (line->is_up) {
        line->is_up = false;
        line->epoch++;
        if (sim_random(sim, 4) != 0) { /* else the next thing that is heard is that it is up */
            sim_push(sim, &(struct event){.kind = DOWN, .sidecar = line->sidecar, .voter = line->voter, .epoch = line->epoch}, sim_random(sim, 300 * MS));
        }
        sim_push(sim, &(struct event){.kind = RECONNECT, .sidecar = line->sidecar, .voter = line->voter, .epoch = line->epoch}, sim_random(sim, S));
    }
}

static uint64_t number_at(const struct voter *voter)
{
    struct lease_record record = {.number = 0};
    const struct bucket_entry *entry = &voter->bucket.entries[0];
    return entry->seq > 0 && record_read(span_str(entry->data), &record) == OK ? record.number : 0;
}

bool sim_may_lose(struct sim *sim, uint32_t place)
{
    uint32_t behind = 0;
    for (uint32_t i = 0; i < sim->voter_count; i++) {
        behind += i != place && sim->voters[i].is_behind;
    }
    return behind < (sim->voter_count - 1) / 2;
}

static void look_who_is_behind(struct sim *sim)
{
    uint64_t highest = 0;
    for (uint32_t i = 0; i < sim->voter_count; i++) {
        highest = MAX(highest, number_at(&sim->voters[i]));
    }
    for (uint32_t i = 0; i < sim->voter_count; i++) {
        struct voter *voter = &sim->voters[i];
        voter->is_behind = voter->is_behind && number_at(voter) < highest;
    }
}

void sim_break_voter(struct sim *sim, uint32_t place, uint64_t for_us, bool loses)
{
    struct voter *voter = &sim->voters[place];
    sim_trace(sim, "voter %u is away%s", place, loses ? ", and loses its data" : "");
    voter->is_up = false;
    voter->up_us = sim->now_us + for_us;
    voter->incarnation++;
    sim->losses += loses;
    if (loses) {
        voter->is_behind = true;
        bucket_lose(&voter->bucket);
    }
    for (uint32_t i = 0; i < SIDECARS * VOTERS; i++) {
        struct line *line = &sim->sidecars[i / VOTERS].lines[i % VOTERS];
        if (line->sim != NULL && line->place == place) {
            sim_break_line(sim, line);
        }
    }
}

static void reconnect(struct sim *sim, struct line *line, struct event *event)
{
    struct voter *voter = &sim->voters[line->place];
    voter->is_up = voter->is_up || sim->now_us >= voter->up_us;
    if (!voter->is_up || sim->now_us < line->cut_until_us) {
        sim_push(sim, event, 50 * MS + sim_random(sim, 200 * MS));
        return;
    }
    line->is_up = true;
    sim_push(sim, &(struct event){.kind = UP, .sidecar = line->sidecar, .voter = line->voter, .epoch = line->epoch}, sim_random(sim, 20 * MS));
}

static void serve(struct sim *sim, struct line *line, const struct event *event)
{
    struct voter *voter = &sim->voters[line->place];
    if (!voter->is_up || voter->incarnation != event->incarnation || sim->now_us < line->cut_until_us) {
        return;
    }
    struct sent sent = {.expected = event->expected, .data = (char *)(uintptr_t)event->text};
    snprintf(sent.subject, sizeof sent.subject, "%s", event->subject);
    struct event answer = {.kind = ANSWER, .sidecar = event->sidecar, .voter = event->voter, .epoch = event->epoch, .number = event->number};
    answer.status = bucket_answer(&voter->bucket, &sent, answer.text, sizeof answer.text).status;
    if (event->expected >= 0) {
        look_who_is_behind(sim);
        sim_trace(sim, "voter %u: sidecar %u writes \"%s\" over %" PRId64 ": %s", line->place, event->sidecar, event->text, event->expected, answer.text);
    }
    transmit(sim, &answer);
}

static void hear(struct sim *sim, struct sidecar *s, struct line *line, const struct event *event)
{
    struct vote *vote = &s->votes[event->voter];
    bool is_current = event->epoch == line->epoch;
    if (event->kind == UP && is_current) {
        vote_on_up(vote, sim->now_us);
    } else if (event->kind == DOWN) {
        if (is_current && !line->is_up) {
            vote_on_down(vote, sim->now_us);
        }
    } else if (event->kind == ANSWER && is_current && line->is_up && sim->now_us >= line->cut_until_us) {
        struct incoming message = event->status != 0 ? fake_status(event->status, "") : fake_answer(event->text);
        vote_on_answer(vote, event->number, &message, sim->now_us);
    } else if (event->kind == RULE_DONE && s->holder.is_rule_asked) {
        holder_rule_done(&s->holder, event->flag ? ERR_UNAVAILABLE : OK, sim->now_us);
    } else if (event->kind == ELECT) {
        sim_trace(sim, "sidecar %u is %selected", s->index, event->flag ? "" : "not ");
        holder_set_elected(&s->holder, event->flag, sim->now_us);
    }
}

/* --- promises --- */

static void check_sidecar(struct sim *sim, struct sidecar *s)
{
    struct holder *h = &s->holder;
    if (sim->now_us >= s->paused_until_us && suspension_is_proven(&s->suspension, sim->now_us)) {
        leave_out(sim, s->suspension.number, sim->now_us + WINDOW);
    }
    if (!s->was_ready || sim->now_us >= h->valid_until_us) {
        return;
    }
    /* What it may have stored since its rule, a write may have changed that left it out. */
    if (sim->rule_us[h->number] < sim->fence_us) {
        violate(sim, "a write that left the region out may land after it began to fill", sim->fence_us, sim->rule_us[h->number]);
    }
    if (h->mode != STRONG_READY || h->taken_over_us == 0 || sim->now_us < h->taken_over_us + LEASE) {
        return;
    }
    for (uint32_t i = 0; i < HOLDERS; i++) { /* who was before it has nothing any more; who came after it, came after its last proof */
        const struct sidecar *other = &sim->sidecars[i];
        if (other != s && other->holder.valid_until_us > sim->now_us && other->taken_over_us < h->renewed_us) {
            violate(sim, "who was relieved has a lease that its successor does not know of", other->holder.valid_until_us, h->taken_over_us);
        }
    }
}

static void step(struct sim *sim, struct sidecar *s)
{
    for (uint32_t turns = 0; s->due_us <= sim->now_us; turns++) {
        ck_assert_uint_lt(turns, 100);
        s->due_us = MIN(holder_step(&s->holder, sim->now_us), UINT64_MAX);
        uint64_t due_us = suspension_step(&s->suspension, sim->now_us);
        s->due_us = MIN(s->due_us, due_us);
        for (uint32_t i = 0; i < sim->voter_count; i++) {
            due_us = vote_step(&s->votes[i], sim->now_us);
            s->due_us = MIN(s->due_us, due_us);
        }
    }
}

/* Who is to do something first without being told. */
static struct sidecar *first_due(struct sim *sim, uint64_t *at_us)
{
    struct sidecar *first = NULL;
    for (uint32_t i = 0; i < SIDECARS; i++) {
        struct sidecar *s = &sim->sidecars[i];
        uint64_t due_us = MAX(MAX(s->due_us, s->paused_until_us), sim->now_us);
        if (s->due_us != UINT64_MAX && (first == NULL || due_us < *at_us)) {
            first = s;
            *at_us = due_us;
        }
    }
    return first;
}

bool sim_turn(struct sim *sim, uint64_t until_us)
{
    uint64_t at_us = UINT64_MAX;
    struct sidecar *s = first_due(sim, &at_us);
    struct event *event = sim->events;
    if (event != NULL && event->at_us <= at_us) {
        at_us = event->at_us;
        s = &sim->sidecars[event->sidecar];
    } else {
        event = NULL;
    }
    if (at_us > until_us) {
        sim->now_us = until_us;
        return false;
    }
    sim->now_us = MAX(at_us, sim->now_us);
    if (event != NULL) {
        struct line *line = &s->lines[event->voter];
        sim->events = event->next;
        if (event->kind == RECONNECT) {
            if (event->epoch == line->epoch) {
                reconnect(sim, line, event);
            }
        } else if (event->kind == REQUEST) {
            serve(sim, line, event);
        } else if (sim->now_us < s->paused_until_us) {
            event->at_us = s->paused_until_us;
            insert(sim, event);
            return true;
        } else {
            hear(sim, s, line, event);
            s->due_us = sim->now_us;
        }
        free(event);
    }
    if (sim->now_us >= s->paused_until_us) {
        step(sim, s);
    }
    for (uint32_t i = 0; i < SIDECARS; i++) {
        check_sidecar(sim, &sim->sidecars[i]);
    }
    return true;
}

struct sim *sim_create(uint64_t seed, uint32_t voters, uint32_t broken_guard)
{
    struct sim *sim = xcalloc(1, sizeof *sim);
    sim->seed = seed;
    sim->random = (seed + 1) * 0x9e3779b97f4a7c15ULL;
    sim->now_us = 1000 * S;
    sim->voter_count = voters;
    sim->is_pool_whole = true;
    sim->log = log_create(STDERR_FILENO, LOG_ERROR);
    strong.witness_count = voters - 3;
    for (uint32_t i = 0; i < ARRAY_LEN(configs); i++) {
        configs[i].broken_guard = broken_guard;
    }
    for (uint32_t i = 0; i < voters; i++) {
        sim->voters[i] = (struct voter){.bucket = {.name = names[i]}, .is_up = true};
    }
    for (uint32_t i = 0; i < SIDECARS; i++) {
        sim_start(sim, i);
    }
    return sim;
}

void sim_destroy(struct sim *sim)
{
    while (sim->events != NULL) {
        struct event *event = sim->events;
        sim->events = event->next;
        free(event);
    }
    for (uint32_t i = 0; i < SIDECARS; i++) {
        holder_deinit(&sim->sidecars[i].holder);
        suspension_deinit(&sim->sidecars[i].suspension, sim->now_us);
    }
    log_destroy(&sim->log);
    free(sim);
}
