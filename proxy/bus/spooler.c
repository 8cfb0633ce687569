#include "proxy/bus/spooler.h"

#include <inttypes.h>
#include <pthread.h>

#include "common/clock.h"
#include "common/version.h"
#include "proxy/bus/owed.h"
#include "proxy/bus/publisher.h"

#define BUFFER_SOFT (1U << 20) /* from here on a turn's records are written before more are taken */
#define LOOK_US 1000000ULL     /* how often metrics are brought up to date, and a broken disk is tried again */
#define DELIVERIES_MAX 256
#define PASS_MIN_MS 50
#define PASS_MAX_MS 1000
#define NODES_MAX 1024
#define GROUP_LOOK 8192 /* entries that are looked at for the rest of a message that was sent before */
#define STATUS_MAX 512

struct spooler {
    struct spooler_context context;
    struct metrics_shard *metrics;
    struct mailbox mailbox;
    pthread_t thread;
    bool has_thread;
    _Atomic bool is_ending;
    _Atomic uint32_t taken; /* publications on their way to the disk */
    _Atomic uint64_t newest_owed; /* the highest id that was ever owed to the bus; this thread writes both */
    _Atomic uint64_t told_before; /* no lower one is owed any more */
    struct owed *owed;
    struct publisher_spool for_publisher;

    /* The thread's: */
    struct spool *spool;
    struct publication *head; /* wait for the commit */
    struct publication *tail;
    uint64_t settle_us; /* when reservations of a life before are taken for writes that were made; 0: there are none */
    uint64_t newest_old; /* the last id of the life before */
    uint64_t looked_us;
    uint64_t damages; /* counted in metrics */
    uint64_t failures;

    struct replay *replay;
    bool is_replay_out;
    struct spool_entry *replay_at; /* nothing before it is owed to the bus, but for what is out; NULL: nothing at all */

    struct spool_entry *pass_at; /* what the pass looks at next; NULL: it is over, but for what is out */
    uint32_t delivering;
    bool is_pass_failed;
    bool is_pass_useful; /* something was applied */
    uint64_t pass_us;    /* when the next one begins; UINT64_MAX: not before something is owed */
    uint64_t passed_us;  /* when the last one began */
    uint64_t failed_nodes[NODES_MAX / 64];
    struct backoff backoff;

    pthread_mutex_t status_lock;
    bool is_ready;
    char text[STATUS_MAX];
};

/* An entry that a worker applies. */
struct owed_delivery {
    struct delivery delivery;
    struct spool_entry *entry;
};

/* --- entries --- */

/* Whether a debt to this region holds back reads of a key; a rule is in force by itself. */
static bool is_key_owed(const struct publication *p)
{
    return p->kind == SPOOL_OWED && (p->debts & DEBT_NODE) && !p->event.is_pattern;
}

static void clear(struct spooler *s, struct spool_entry *e, uint8_t debts)
{
    if ((e->debts & debts & DEBT_NODE) && !e->is_pattern) {
        owed_remove(s->owed, span_of(e->key, e->key_len));
    }
    bool is_gone = e->kind == SPOOL_RESERVED || (e->debts & ~debts) == 0;
    s->replay_at = is_gone && s->replay_at == e ? spool_next(s->spool, e) : s->replay_at;
    s->pass_at = is_gone && s->pass_at == e ? spool_next(s->spool, e) : s->pass_at;
    spool_clear(s->spool, e, debts);
}

/* Something has become owed. */
static void is_owed(struct spooler *s, struct spool_entry *e)
{
    if (e->debts & DEBT_BUS) { /* before anybody is told that it is on the disk */
        s->replay_at = s->replay_at == NULL || e->id < s->replay_at->id ? e : s->replay_at;
        atomic_store(&s->told_before, MIN(e->id, atomic_load(&s->told_before)));
        atomic_store(&s->newest_owed, MAX(e->id, atomic_load(&s->newest_owed)));
    }
    if ((e->debts & DEBT_NODE) && s->pass_us == UINT64_MAX) {
        s->pass_us = MAX(clock_mono_us(), s->passed_us + 1000ULL * PASS_MIN_MS);
    }
}

static void promote(struct spooler *s, struct spool_entry *e, uint64_t version, uint8_t debts)
{
    spool_promote(s->spool, e, version, debts);
    is_owed(s, e);
}

static void event_of(const struct spool_entry *e, struct invalidation *out)
{
    memset(out, 0, sizeof *out);
    out->version = e->version;
    out->timestamp_ms = e->timestamp_ms;
    out->key_len = e->key_len;
    out->is_pattern = e->is_pattern;
    memcpy(out->key, e->key, e->key_len);
}

/* --- publications --- */

static void finish(struct spooler *s, struct publication *p, enum err err)
{
    if (err != OK) {
        p->reserved = NULL;
        metrics_add(s->metrics, METRIC_ERRORS, metric_index2(SOURCE_BUS, ERR_COUNT, err), 1);
        if (is_key_owed(p)) {
            owed_remove(s->owed, span_of(p->event.key, p->event.key_len));
        }
    }
    atomic_fetch_sub(&s->taken, 1);
    publication_finish(p, err);
}

/* What was added is on the disk, or it is not: then it is nowhere. */
static void commit(struct spooler *s)
{
    enum err err = spool_commit(s->spool);
    while (s->head != NULL) {
        struct publication *p = s->head;
        s->head = p->next;
        if (err == OK) {
            metrics_add(s->metrics, METRIC_SPOOL_APPENDED, 0, 1);
        }
        if (err == OK && p->kind == SPOOL_OWED) {
            is_owed(s, p->reserved);
            p->reserved = NULL;
        }
        finish(s, p, err);
    }
    s->tail = NULL;
}

static void add(struct spooler *s, struct publication *p)
{
    const struct invalidation *event = &p->event;
    struct spool_record record = {
        .kind = (enum spool_kind)p->kind,
        .debts = p->debts,
        .version = event->version,
        .timestamp_ms = event->timestamp_ms,
        .sender = p->sender,
        .message = p->message,
        .count = p->count,
        .is_pattern = event->is_pattern,
        .key = span_of(event->key, event->key_len),
    };
    struct spool_entry *entry;
    enum err err = spool_add(s->spool, &record, &entry);
    if (err != OK) {
        finish(s, p, err);
        return;
    }
    p->reserved = entry;
    p->next = NULL;
    if (s->head == NULL) {
        s->head = p;
    } else {
        s->tail->next = p;
    }
    s->tail = p;
    if (spool_buffered(s->spool) >= BUFFER_SOFT) {
        commit(s);
    }
}

static void on_taken(struct mail *mail, void *owner)
{
    struct spooler *s = owner;
    struct publication *p = container_of(mail, struct publication, mail);
    if (p->reserved == NULL) {
        add(s, p);
    } else { /* it is on the disk, and would be published at the next start: nothing more is needed to answer */
        promote(s, p->reserved, p->event.version, p->debts);
        p->reserved = NULL;
        finish(s, p, OK);
    }
}

void spooler_take(struct spooler *s, struct publication *p)
{
    bool is_too_much = atomic_fetch_add(&s->taken, 1) >= s->context.config->bus->max_pending && p->reserved == NULL;
    if (is_key_owed(p)) { /* before the client has its answer */
        owed_add(s->owed, span_of(p->event.key, p->event.key_len));
    }
    if (is_too_much) {
        atomic_fetch_sub(&s->taken, 1);
        if (is_key_owed(p)) {
            owed_remove(s->owed, span_of(p->event.key, p->event.key_len));
        }
        publication_finish(p, ERR_OVERLOAD);
        return;
    }
    p->mail.deliver = on_taken;
    mailbox_post(&s->mailbox, &p->mail);
}

struct clearing {
    struct mail mail;
    struct spool_entry *entry;
};

static void on_clearing(struct mail *mail, void *owner)
{
    struct clearing *clearing = container_of(mail, struct clearing, mail);
    clear(owner, clearing->entry, DEBTS);
    free(clearing);
}

void spooler_clear(struct spooler *s, struct publication *p)
{
    struct clearing *clearing = xmalloc(sizeof *clearing);
    *clearing = (struct clearing){.mail.deliver = on_clearing, .entry = p->reserved};
    p->reserved = NULL;
    mailbox_post(&s->mailbox, &clearing->mail);
}

static void on_unpublished(void *ctx, struct publication *p)
{
    spooler_take(ctx, p);
}

static void on_published(void *ctx, struct publication *p)
{
    spooler_clear(ctx, p);
}

const struct publisher_spool *spooler_for_publisher(const struct spooler *s)
{
    return &s->for_publisher;
}

bool spooler_owes(struct spooler *s, struct span key)
{
    return owed_has(s->owed, key);
}

uint64_t spooler_mark(struct spooler *s)
{
    return atomic_load(&s->newest_owed);
}

bool spooler_is_told(struct spooler *s, uint64_t mark)
{
    return mark < atomic_load(&s->told_before);
}

/* --- to the other regions --- */

static void on_replayed(struct mail *mail, void *owner)
{
    struct spooler *s = owner;
    struct replay *r = container_of(mail, struct replay, mail);
    for (uint32_t i = 0; i < r->count; i++) {
        r->entries[i]->is_lent[0] = false;
        clear(s, r->entries[i], DEBT_BUS);
    }
    metrics_add(s->metrics, METRIC_SPOOL_REPLAYED, 0, r->count);
    s->is_replay_out = false;
}

void spooler_replayed(struct spooler *s, struct replay *replay)
{
    replay->mail.deliver = on_replayed;
    mailbox_post(&s->mailbox, &replay->mail);
}

/* The oldest message: one that was sent before goes in the same shape, if all of it is still here; the rest fills messages as it comes. */
static void gather(struct spooler *s, struct replay *r)
{
    const struct spool_entry *first = s->replay_at;
    uint32_t looked = 0;
    r->count = 0;
    for (struct spool_entry *e = s->replay_at; e != NULL && r->count < PUBLISH_EVENTS_MAX && looked < GROUP_LOOK; looked++) {
        bool is_ours = e->kind == SPOOL_OWED && (e->debts & DEBT_BUS) && !e->is_lent[0] && e->sender == first->sender &&
                       e->is_pattern == first->is_pattern && (e->sender == 0 || e->message == first->message);
        if (is_ours) {
            e->is_lent[0] = true;
            r->entries[r->count] = e;
            event_of(e, &r->events[r->count++]);
            if (e->sender != 0 && r->count == first->count) {
                break;
            }
        }
        e = spool_next(s->spool, e);
    }
    bool is_whole = first->sender != 0 && r->count == first->count;
    r->sender = is_whole ? first->sender : 0;
    r->message = is_whole ? first->message : 0;
}

static void start_replay(struct spooler *s)
{
    if (s->is_replay_out) {
        return;
    }
    while (s->replay_at != NULL && (s->replay_at->kind != SPOOL_OWED || !(s->replay_at->debts & DEBT_BUS))) {
        s->replay_at = spool_next(s->spool, s->replay_at);
    }
    atomic_store(&s->told_before, s->replay_at != NULL ? s->replay_at->id : UINT64_MAX);
    if (s->replay_at != NULL) {
        gather(s, s->replay);
        s->is_replay_out = true;
        s->context.replay(s->context.ctx, s->replay);
    }
}

/* --- to this region's own nodes --- */

static bool has_failed(const struct spooler *s, uint16_t home)
{
    return home < NODES_MAX && (s->failed_nodes[home / 64] >> (home % 64) & 1);
}

static void on_applied(struct mail *mail, void *owner)
{
    struct spooler *s = owner;
    struct owed_delivery *d = container_of(mail, struct owed_delivery, delivery.mail);
    struct spool_entry *e = d->entry;
    s->delivering--;
    e->is_lent[1] = false;
    e->home = d->delivery.home;
    if (d->delivery.err == OK) {
        s->is_pass_useful = true;
        metrics_add(s->metrics, METRIC_SPOOL_APPLIED, 0, 1);
        clear(s, e, DEBT_NODE);
    } else {
        s->is_pass_failed = true;
        if (e->home < NODES_MAX) {
            s->failed_nodes[e->home / 64] |= 1ULL << (e->home % 64);
        }
    }
    free(d);
}

static void deliver(struct spooler *s, struct spool_entry *e)
{
    struct owed_delivery *d = xcalloc(1, sizeof *d);
    d->delivery.peer = PEER_NONE;
    d->delivery.home = HOME_UNKNOWN;
    d->delivery.reply_to = &s->mailbox;
    d->delivery.on_done = on_applied;
    d->entry = e;
    event_of(e, &d->delivery.event);
    e->is_lent[1] = true;
    s->delivering++;
    s->context.sink.apply(s->context.sink.ctx, &d->delivery);
}

/* Returns when to call again. */
static uint64_t step_nodes(struct spooler *s, uint64_t now_us)
{
    struct spool_counts counts;
    if (s->pass_at == NULL && s->delivering == 0 && s->pass_us <= now_us) {
        memset(s->failed_nodes, 0, sizeof s->failed_nodes);
        s->is_pass_failed = s->is_pass_useful = false;
        s->pass_us = UINT64_MAX;
        s->passed_us = now_us;
        s->pass_at = spool_first(s->spool);
    }
    for (; s->pass_at != NULL && s->delivering < DELIVERIES_MAX; s->pass_at = spool_next(s->spool, s->pass_at)) {
        struct spool_entry *e = s->pass_at;
        if (e->kind == SPOOL_OWED && (e->debts & DEBT_NODE) && !e->is_lent[1] && !has_failed(s, e->home)) {
            deliver(s, e);
        }
    }
    spool_count(s->spool, &counts);
    if (s->pass_at == NULL && s->delivering == 0 && s->pass_us == UINT64_MAX && counts.owed_to_nodes > 0) {
        if (s->is_pass_useful) {
            backoff_reset(&s->backoff);
        }
        s->pass_us = now_us + backoff_next_us(&s->backoff);
    }
    return s->pass_at == NULL && s->delivering == 0 ? s->pass_us : UINT64_MAX;
}

/* --- the thread --- */

/* By now the database has made these writes, or never will. Their invalidations have to be newer than either. */
static void settle_old(struct spooler *s)
{
    uint64_t version = (clock_wall_ms() + s->context.config->max_clock_skew_ms) << VERSION_MS_SHIFT;
    uint64_t count = 0;
    s->settle_us = 0;
    for (struct spool_entry *e = spool_first(s->spool); e != NULL && e->id <= s->newest_old; e = spool_next(s->spool, e)) {
        if (e->kind == SPOOL_RESERVED) {
            promote(s, e, MIN(version, VERSION_MAX), DEBTS);
            count++;
        }
    }
    log_info(s->context.log, "spool: %" PRIu64 " writes were under way when the sidecar last ended: their keys are invalidated everywhere", count);
}

static const struct spool_entry *oldest(struct spooler *s)
{
    struct spool_entry *e = spool_first(s->spool);
    while (e != NULL && e->kind != SPOOL_OWED) {
        e = spool_next(s->spool, e);
    }
    return e;
}

static void write_status(struct spooler *s, const struct spool_counts *c, uint64_t age_s)
{
    char text[STATUS_MAX] = "";
    const char *problem = spool_problem(s->spool);
    size_t used = 0;
    if (problem != NULL) {
        used += (size_t)snprintf(text, sizeof text, "%s: %s\n", s->context.config->bus->spool->directory, problem);
    }
    used = MIN(used, sizeof text - 1);
    if (c->owed_to_bus + c->owed_to_nodes > 0) {
        used += (size_t)snprintf(text + used, sizeof text - used,
                                 "waiting for this region's NATS: %" PRIu64 "; for a node of its pool: %" PRIu64 "; the oldest for %" PRIu64 " s\n",
                                 c->owed_to_bus, c->owed_to_nodes, age_s);
    }
    used = MIN(used, sizeof text - 1);
    if (c->damages > 0) {
        snprintf(text + used, sizeof text - used, "%" PRIu64 " damaged records at the start: invalidations were lost, see the log\n", c->damages);
    }
    pthread_mutex_lock(&s->status_lock);
    s->is_ready = problem == NULL;
    memcpy(s->text, text, sizeof s->text);
    pthread_mutex_unlock(&s->status_lock);
}

static void look(struct spooler *s)
{
    struct spool_counts c;
    spool_count(s->spool, &c);
    const struct spool_entry *e = c.owed_to_bus + c.owed_to_nodes > 0 ? oldest(s) : NULL;
    uint64_t now_ms = clock_wall_ms();
    uint64_t age_s = e != NULL && e->timestamp_ms < now_ms ? (now_ms - e->timestamp_ms) / 1000 : 0;
    metrics_set(s->metrics, METRIC_SPOOL_RECORDS, 0, c.entries);
    metrics_set(s->metrics, METRIC_SPOOL_BYTES, 0, c.bytes);
    metrics_set(s->metrics, METRIC_SPOOL_OLDEST, 0, age_s);
    metrics_add(s->metrics, METRIC_SPOOL_ERRORS, 0, c.damages - s->damages + c.failures - s->failures);
    s->damages = c.damages;
    s->failures = c.failures;
    write_status(s, &c, age_s);
}

/* All that can be done now; returns when to call again. */
static uint64_t step(struct spooler *s)
{
    uint64_t now_us = clock_mono_us();
    commit(s);
    if (s->settle_us != 0 && s->settle_us <= now_us) {
        settle_old(s);
    }
    uint64_t next_us = step_nodes(s, now_us);
    start_replay(s);
    if (spool_problem(s->spool) != NULL && now_us >= s->looked_us + LOOK_US) {
        s->looked_us = now_us;
        spool_probe(s->spool);
    }
    commit(s);
    look(s);
    next_us = s->settle_us != 0 ? MIN(next_us, s->settle_us) : next_us;
    return spool_first(s->spool) != NULL || spool_problem(s->spool) != NULL ? MIN(next_us, now_us + LOOK_US) : next_us;
}

static void *spooler_main(void *arg)
{
    struct spooler *s = arg;
    pthread_setname_np(pthread_self(), "spool");
    while (!atomic_load(&s->is_ending)) {
        uint64_t next_us = step(s);
        mailbox_wait(&s->mailbox, s, next_us);
    }
    mailbox_drain(&s->mailbox, s);
    commit(s);
    return NULL;
}

/* --- from start to end --- */

static void tell_found(struct spooler *s)
{
    struct spool_counts c;
    const struct config *config = s->context.config;
    spool_count(s->spool, &c);
    if (c.entries > 0) {
        log_info(s->context.log,
                 "spool: %s: %" PRIu64 " invalidations are to be published, %" PRIu64 " to be applied to this region's pool; %" PRIu64 " writes were under way",
                 config->bus->spool->directory, c.owed_to_bus, c.owed_to_nodes, c.reserved);
    }
    for (struct spool_entry *e = spool_first(s->spool); e != NULL; e = spool_next(s->spool, e)) {
        if (e->kind == SPOOL_RESERVED || ((e->debts & DEBT_NODE) && !e->is_pattern)) {
            owed_add(s->owed, span_of(e->key, e->key_len));
        }
        s->newest_old = e->id;
        is_owed(s, e);
    }
    if (c.reserved > 0) { /* a statement that was under way may yet be made, as long as it may take */
        s->settle_us = clock_mono_us() + 1000ULL * (config->database != NULL ? config->database->timeout_ms : 0) + 1;
    }
    look(s);
}

enum err spooler_create(const struct spooler_context *context, struct spooler **out)
{
    char error[600];
    const struct config_spool *config = context->config->bus->spool;
    *out = NULL;
    struct spooler *s = xcalloc(1, sizeof *s);
    s->context = *context;
    s->pass_us = UINT64_MAX;
    s->told_before = UINT64_MAX;
    s->owed = owed_create();
    s->for_publisher = (struct publisher_spool){on_unpublished, on_published, s};
    pthread_mutex_init(&s->status_lock, NULL);
    backoff_init(&s->backoff, PASS_MIN_MS, PASS_MAX_MS, clock_mono_us());
    struct spool_options options = {config->directory, config->max_bytes, config->segment_bytes};
    enum err err = mailbox_init(&s->mailbox);
    if (err == OK) {
        err = spool_open(&options, context->log, &s->spool, error, sizeof error);
        if (err != OK) {
            log_error(context->log, "spool: %s", error);
            err = ERR_SPOOL;
        }
    }
    if (err != OK) {
        spooler_destroy(&s);
        return err;
    }
    s->metrics = metrics_shard_create(context->metrics);
    s->replay = xcalloc(1, sizeof *s->replay);
    tell_found(s);
    *out = s;
    return OK;
}

enum err spooler_start(struct spooler *s)
{
    s->has_thread = pthread_create(&s->thread, NULL, spooler_main, s) == 0;
    return s->has_thread ? OK : ERR_NOMEM;
}

void spooler_stop(struct spooler *s)
{
    atomic_store(&s->is_ending, true);
    mailbox_wake(&s->mailbox);
    if (s->has_thread) {
        pthread_join(s->thread, NULL);
        s->has_thread = false;
    }
}

void spooler_destroy(struct spooler **out)
{
    struct spooler *s = *out;
    *out = NULL;
    if (s == NULL) {
        return;
    }
    spooler_stop(s);
    if (s->spool != NULL) {
        mailbox_drain(&s->mailbox, s); /* deliveries that were done after the end */
        commit(s);
    }
    for (enum metric gauge = METRIC_SPOOL_RECORDS; s->metrics != NULL && gauge <= METRIC_SPOOL_OLDEST; gauge++) {
        metrics_set(s->metrics, gauge, 0, 0);
    }
    spool_close(&s->spool);
    mailbox_deinit(&s->mailbox);
    pthread_mutex_destroy(&s->status_lock);
    owed_destroy(&s->owed);
    free(s->replay);
    free(s);
}

bool spooler_status(struct spooler *s, char *text, size_t size)
{
    pthread_mutex_lock(&s->status_lock);
    bool is_ready = s->is_ready;
    snprintf(text, size, "%s", s->text);
    pthread_mutex_unlock(&s->status_lock);
    return is_ready;
}
