#include "proxy/strong/prepare.h"

#include <inttypes.h>
#include <stdarg.h>
#include <xxhash.h>

#include "common/guard.h"
#include "common/random.h"
#include "proxy/strong/serve.h"
#include "proxy/strong/share.h"

#define KEY_BUCKETS 4096U
#define TICK_US 5000ULL
#define AGAIN_MIN_US 5000ULL   /* a region that said that it can not is asked again */
#define AGAIN_MAX_US 100000ULL
#define PAUSE_MIN_US 2000ULL   /* another's lock: the next attempt */
#define PAUSE_MAX_US 100000ULL
#define SLOT_BITS 16
#define REGION_BITS 5

enum place { PLACE_ASKING, PLACE_LOCKED, PLACE_BUSY, PLACE_SUSPENDING, PLACE_OUT, PLACE_FAILED };

struct asked {
    enum place place;
    uint64_t due_us;   /* asked again */
    uint64_t again_us; /* … after so long */
    enum message_status said; /* the last that it said, if it was no */
    bool has_spoken;
    uint32_t times; /* that it was asked; then it may have a lock */
    bool is_last;   /* it was silent, and is there after all: asked once more, before it is suspended for good */
    uint64_t until_us;
    struct suspension_waiter waiter;
    struct prepare *prepare;
};

enum prepare_state { PREPARE_WAITING, PREPARE_ASKING, PREPARE_PAUSING, PREPARE_PREPARED };

struct prepare {
    struct strong_write write;
    struct preparer *preparer;
    enum prepare_state state;
    struct list in_active;
    struct list in_keys;
    uint32_t bucket;
    uint32_t slot;
    uint32_t generation;
    uint32_t attempts;
    uint64_t first_us;   /* since when it asks */
    uint64_t started_us; /* this attempt */
    uint64_t due_us;     /* pausing: the next one */
    struct asked asked[PREPARE_REGIONS_MAX];
};

static struct prepare *prepare_of(struct strong_write *write)
{
    return container_of(write, struct prepare, write);
}

struct strong_write *strong_write_create(enum strong_kind kind, struct span key)
{
    struct prepare *p = xcalloc(1, sizeof *p);
    p->write.kind = kind;
    p->write.key_len = (uint16_t)key.len;
    memcpy(p->write.key, key.data, key.len);
    list_init(&p->in_active);
    list_init(&p->in_keys);
    return &p->write;
}

void strong_write_destroy(struct strong_write *write)
{
    free(prepare_of(write));
}

/* --- the end --- */

static void deliver(struct mail *mail, void *owner)
{
    struct strong_write *write = container_of(mail, struct strong_write, mail);
    write->on_prepared(write);
}

static void answer(struct strong_write *write)
{
    write->mail.deliver = deliver;
    mailbox_post(write->reply_to, &write->mail);
}

void strong_write_refuse(struct strong_write *write, enum err err, const char *text)
{
    write->err = err;
    snprintf(write->text, sizeof write->text, "%s", text);
    answer(write);
}

static bool is_same_key(const struct prepare *a, const struct prepare *b)
{
    return a->write.key_len == b->write.key_len && memcmp(a->write.key, b->write.key, a->write.key_len) == 0;
}

/* The oldest of the same key that is not finished, or NULL. */
static struct prepare *first_of_key(struct prepare *p)
{
    struct list *it, *tmp;
    list_for_each(it, tmp, &p->preparer->keys[p->bucket])
    {
        struct prepare *other = list_entry(it, struct prepare, in_keys);
        if (is_same_key(other, p)) {
            return other;
        }
    }
    return NULL;
}

/* Begins at the next step, not here: a thousand that fail at once must not call each other. */
static void start(struct prepare *p, uint64_t now_us)
{
    p->state = PREPARE_PAUSING;
    p->first_us = p->due_us = p->preparer->due_us = now_us;
}

/* Lets go of its place; the next write of the same key may begin. */
static void leave(struct prepare *p, uint64_t now_us)
{
    struct preparer *preparer = p->preparer;
    preparer->slots[p->slot] = NULL;
    preparer->free_slots[--preparer->count] = p->slot;
    list_remove(&p->in_active);
    list_remove(&p->in_keys);
    struct prepare *next = first_of_key(p);
    if (next != NULL && next->state == PREPARE_WAITING) {
        start(next, now_us);
    }
}

/* --- what is sent --- */

static const enum message_kind kinds[] = {
    [STRONG_LOCK] = MESSAGE_LOCK, [STRONG_INVALIDATE] = MESSAGE_INVALIDATE, [STRONG_RULE] = MESSAGE_RULE};

static const char *subject_for(const struct prepare *p, uint32_t i, enum message_kind kind)
{
    const struct prepare_region *region = &p->preparer->regions[i];
    if (kind == MESSAGE_RULE) {
        return region->holder;
    }
    if (p->asked[i].times > 1) { /* more than one may have locked it, or do it yet */
        return region->everybody;
    }
    return region->server[0] != '\0' ? region->server : region->group;
}

/* `reply`: the number of the subject that is answered to; 0: no answer is wanted. */
static void send_message(struct preparer *preparer, uint32_t i, const char *subject, enum message_kind kind, uint64_t version, struct span key, uint64_t reply)
{
    struct transport *transport = preparer->regions[i].transport;
    char text[SUBJECT_MAX];
    char bytes[MESSAGE_MAX];
    struct message message = {
        .kind = kind,
        .sidecar = preparer->sidecar,
        .voters = preparer->voters,
        .wall_ms = guard_wall_ms(preparer->config),
        .version = version,
        .body = key,
    };
    snprintf(text, sizeof text, "%s.%c.%" PRIu64, transport->inbox, PREPARE_KIND, reply);
    transport->ops->send(transport, &(struct outgoing){
        .subject = subject,
        .reply = reply != 0 ? text : NULL,
        .data = span_of(bytes, message_write(&message, bytes)),
    });
}

/* Nobody acknowledges the end of a lock: the last ones are kept, in case who was told stands still. */
static void remember_commit(struct prepare_region *region, const struct prepare *p)
{
    struct prepare_commit *commit = &region->recent[region->next_recent++ % PREPARE_RECENT];
    commit->version = p->write.version;
    commit->key_len = p->write.key_len;
    memcpy(commit->key, p->write.key, p->write.key_len);
}

/* The sidecar that was asked last is silent, or can not: others are asked from now on, and end the locks that it may not have ended. */
static void forget_server(struct preparer *preparer, uint32_t i)
{
    struct prepare_region *region = &preparer->regions[i];
    if (region->server[0] == '\0') {
        return;
    }
    region->server[0] = '\0';
    for (uint32_t n = 0; n < PREPARE_RECENT; n++) {
        struct prepare_commit *commit = &region->recent[n];
        if (commit->version != 0) {
            send_message(preparer, i, region->everybody, MESSAGE_COMMIT, commit->version, span_of(commit->key, commit->key_len), 0);
            commit->version = 0;
        }
    }
}

static void send_to(struct prepare *p, uint32_t i, enum message_kind kind)
{
    struct preparer *preparer = p->preparer;
    struct prepare_region *region = &preparer->regions[i];
    const char *subject = subject_for(p, i, kind);
    uint64_t number = ((uint64_t)p->generation << SLOT_BITS | p->slot) << REGION_BITS | i;
    if (subject[0] == '\0') {
        return; /* nobody to ask yet */
    }
    if (kind == MESSAGE_COMMIT && subject == region->server) {
        remember_commit(region, p);
    }
    send_message(preparer, i, subject, kind, p->write.version, span_of(p->write.key, p->write.key_len), kind == MESSAGE_COMMIT ? 0 : number);
}

static void ask(struct prepare *p, uint32_t i, uint64_t now_us)
{
    struct asked *a = &p->asked[i];
    a->place = PLACE_ASKING;
    if (a->times++ == 1) {
        forget_server(p->preparer, i);
    }
    a->due_us = now_us + p->preparer->timeout_us / 4;
    send_to(p, i, kinds[p->write.kind]);
}

/* Also where a second one said that it is busy: the first may be slow, and lock it yet. */
static void give_up_locks(struct prepare *p)
{
    for (uint32_t i = 0; i < p->preparer->region_count && p->write.kind == STRONG_LOCK; i++) {
        if (p->asked[i].times > (p->asked[i].place == PLACE_BUSY ? 1 : 0)) {
            send_to(p, i, MESSAGE_COMMIT);
        }
    }
}

/* --- an attempt --- */

/* How long a region may take. For a rule its holder waits until the shares of sidecars that do not answer have run out. */
static uint64_t patience_us(const struct prepare *p)
{
    const struct preparer *preparer = p->preparer;
    return preparer->timeout_us + (p->write.kind == STRONG_RULE ? 1000ULL * preparer->config->strong->lease_ms * 5 / 4 : 0);
}

static void end(struct prepare *p, enum err err, uint64_t now_us)
{
    struct preparer *preparer = p->preparer;
    p->write.err = err;
    list_remove(&p->in_active);
    if (err != OK) {
        give_up_locks(p);
        leave(p, now_us);
    } else if (p->write.kind != STRONG_LOCK) {
        leave(p, now_us);
    }
    if (err == OK) {
        metrics_observe(preparer->metrics, METRIC_STRONG_PREPARE_SECONDS, 0, now_us - p->first_us);
    }
    metrics_add(preparer->metrics, METRIC_STRONG_WRITES, err, 1);
    p->state = PREPARE_PREPARED;
    p->write.fence_us = p->started_us + 1000ULL * (preparer->config->strong->lock_window_ms - STRONG_SKEWS * preparer->config->max_clock_skew_ms);
    answer(&p->write);
}

static void fail(struct prepare *p, enum err err, uint64_t now_us, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static void fail(struct prepare *p, enum err err, uint64_t now_us, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(p->write.text, sizeof p->write.text, fmt, args);
    va_end(args);
    end(p, err, now_us);
}

static void pause(struct prepare *p, uint64_t now_us)
{
    struct preparer *preparer = p->preparer;
    uint64_t limit_us = MIN(PAUSE_MIN_US << MIN(p->attempts, 10U), PAUSE_MAX_US);
    give_up_locks(p);
    p->state = PREPARE_PAUSING;
    p->due_us = now_us + PAUSE_MIN_US / 2 + random_below(&preparer->random, limit_us);
    preparer->due_us = MIN(preparer->due_us, p->due_us);
}

/* Whether it has had its time. Where it is we who were cut off, the others are back one after the other, and have it from the first majority on. */
static bool is_silent(const struct prepare *p, uint32_t i, uint64_t now_us)
{
    uint64_t back_us = MIN(p->preparer->majority_us, p->started_us + patience_us(p));
    return now_us >= p->asked[i].until_us && (p->preparer->majority_us == 0 || now_us >= back_us + patience_us(p));
}

/* What the last answer of a region that failed was, for people. */
static const char *why(const struct asked *a)
{
    if (!a->has_spoken) {
        return "does not answer";
    }
    switch (a->said) {
    case MESSAGE_NO_SHARE: return "has no lease";
    case MESSAGE_NODE: return "can not reach the key's node";
    case MESSAGE_REFUSED: return "refuses: its voters are not ours, or the clocks differ";
    case MESSAGE_NOT_STRONG: return "refuses: the key's namespace is not strong there";
    default: return "does not answer";
    }
}

/* After every change: is it decided? */
static void evaluate(struct prepare *p, uint64_t now_us)
{
    struct preparer *preparer = p->preparer;
    uint32_t busy = PREPARE_REGIONS_MAX, failed = PREPARE_REGIONS_MAX;
    if (p->state != PREPARE_ASKING) {
        return;
    }
    for (uint32_t i = 0; i < preparer->region_count; i++) {
        switch (p->asked[i].place) {
        case PLACE_ASKING:
        case PLACE_SUSPENDING: return;
        case PLACE_BUSY: busy = i; break;
        case PLACE_FAILED: failed = i; break;
        default: break;
        }
    }
    if (preparer->is_stopping) {
        fail(p, ERR_STOPPING, now_us, "%s", "this sidecar is shutting down");
    } else if (failed < PREPARE_REGIONS_MAX) {
        const struct asked *a = &p->asked[failed];
        bool is_refused = a->has_spoken && (a->said == MESSAGE_REFUSED || a->said == MESSAGE_NOT_STRONG);
        fail(p, is_refused ? ERR_REMOTE : ERR_UNAVAILABLE, now_us, "region %s %s%s", preparer->regions[failed].name, why(a),
             is_refused ? "" : ", and can not be left out: no majority of the voters");
    } else if (busy == PREPARE_REGIONS_MAX) {
        end(p, OK, now_us);
    } else if (now_us < p->first_us + preparer->timeout_us) {
        pause(p, now_us);
    } else {
        fail(p, ERR_CONFLICT, now_us, "another write of this key is under way (it has a lock in region %s)", preparer->regions[busy].name);
    }
}

static void on_suspended(struct suspension_waiter *waiter, enum err err, uint64_t now_us)
{
    struct asked *a = container_of(waiter, struct asked, waiter);
    struct prepare *p = a->prepare;
    a->place = err == OK ? PLACE_OUT : PLACE_FAILED;
    evaluate(p, now_us);
}

/* Where it was suspended when we last looked, that takes one round trip; else a lease. */
static void suspend(struct prepare *p, uint32_t i, uint64_t now_us)
{
    struct preparer *preparer = p->preparer;
    struct asked *a = &p->asked[i];
    a->place = PLACE_SUSPENDING;
    a->waiter = (struct suspension_waiter){
        .on_done = on_suspended,
        .deadline_us = now_us + preparer->timeout_us + 1000ULL * preparer->config->strong->lease_ms * 21 / 20,
    };
    enum err err = suspension_wait(preparer->regions[i].suspension, &a->waiter, now_us);
    if (err != OK) {
        on_suspended(&a->waiter, err, now_us);
    }
}

/* The version is all that tells a lock from another's, so it must be nobody else's: that of a version clock would do only where no two clocks have the same id. */
static uint64_t lock_version(struct preparer *preparer)
{
    uint64_t more_ms = random_below(&preparer->random, MIN(preparer->config->max_clock_skew_ms / 2, 63U) + 1);
    uint64_t until_ms = guard_wall_ms(preparer->config) + preparer->config->strong->lock_window_ms + more_ms;
    return until_ms << VERSION_MS_SHIFT | random_below(&preparer->random, 1ULL << VERSION_MS_SHIFT);
}

static void attempt(struct prepare *p, uint64_t now_us)
{
    struct preparer *preparer = p->preparer;
    p->state = PREPARE_WAITING; /* while the places are being set */
    p->attempts++;
    p->started_us = now_us;
    p->generation = ++preparer->generation;
    if (p->write.kind != STRONG_RULE) {
        p->write.version = lock_version(preparer);
    }
    for (uint32_t i = 0; i < preparer->region_count; i++) {
        uint64_t down_us = preparer->regions[i].down_us; /* what was silent before need not be waited for again */
        p->asked[i] = (struct asked){
            .place = PLACE_ASKING, .prepare = p, .again_us = AGAIN_MIN_US, .until_us = (down_us != 0 ? down_us : now_us) + patience_us(p)};
    }
    for (uint32_t i = 0; i < preparer->region_count; i++) {
        struct suspension *suspension = preparer->regions[i].suspension;
        if (suspension_is_proven(suspension, now_us)) {
            p->asked[i].place = PLACE_OUT;
        } else if (suspension_is_in_force(suspension) || is_silent(p, i, now_us)) {
            suspend(p, i, now_us);
        } else {
            ask(p, i, now_us);
        }
    }
    p->state = PREPARE_ASKING;
    preparer->due_us = MIN(preparer->due_us, now_us + TICK_US);
    evaluate(p, now_us);
}

/* --- in and out --- */

void preparer_submit(struct preparer *preparer, struct strong_write *write, uint64_t now_us)
{
    struct prepare *p = prepare_of(write);
    if (preparer->is_stopping) {
        strong_write_refuse(write, ERR_STOPPING, "this sidecar is shutting down");
        return;
    }
    if (preparer->count == PREPARE_WRITES_MAX) {
        strong_write_refuse(write, ERR_OVERLOAD, "too many strong writes under way");
        return;
    }
    p->preparer = preparer;
    p->state = PREPARE_WAITING;
    p->slot = preparer->free_slots[preparer->count++];
    preparer->slots[p->slot] = p;
    p->bucket = (uint32_t)(XXH64(write->key, write->key_len, 0) % KEY_BUCKETS);
    bool must_wait = write->kind == STRONG_LOCK && first_of_key(p) != NULL;
    if (write->kind == STRONG_LOCK) {
        list_push_back(&preparer->keys[p->bucket], &p->in_keys);
    }
    list_push_back(&preparer->active, &p->in_active);
    p->due_us = now_us + 1000ULL * preparer->config->strong->lock_window_ms;
    preparer->due_us = MIN(preparer->due_us, now_us + TICK_US);
    if (!must_wait) {
        start(p, now_us);
    }
}

void preparer_finish(struct preparer *preparer, struct strong_write *write, uint64_t now_us)
{
    struct prepare *p = prepare_of(write);
    if (write->err == OK && write->kind == STRONG_LOCK) {
        if (write->is_settled) {
            give_up_locks(p);
        }
        leave(p, now_us);
    }
    free(p);
}

/* Who has answered is asked the next time. */
static void remember(struct prepare *p, uint32_t i, const struct message *message)
{
    if (p->write.kind != STRONG_RULE && (message->status == MESSAGE_OK || message->status == MESSAGE_BUSY) && share_is_inbox(message->inbox)) {
        snprintf(p->preparer->regions[i].server, SUBJECT_MAX, "%.*s.%c.0", (int)message->inbox.len, message->inbox.data, SERVE_KIND);
    }
}

static void on_said(struct prepare *p, uint32_t i, enum message_status status, uint64_t now_us)
{
    struct preparer *preparer = p->preparer;
    struct asked *a = &p->asked[i];
    switch (status) {
    case MESSAGE_OK:
        a->place = PLACE_LOCKED;
        metrics_observe(preparer->metrics, METRIC_STRONG_LOCK_SECONDS, preparer->regions[i].metric, now_us - p->started_us);
        break;
    case MESSAGE_BUSY:
        a->place = PLACE_BUSY;
        metrics_add(preparer->metrics, METRIC_STRONG_CONFLICTS, preparer->regions[i].metric, 1);
        break;
    case MESSAGE_REFUSED:
    case MESSAGE_NOT_STRONG:
        a->has_spoken = true;
        a->said = status;
        a->place = PLACE_FAILED;
        break;
    default:
        a->has_spoken = true;
        a->said = status;
        a->due_us = now_us + a->again_us;
        a->again_us = MIN(a->again_us * 2, AGAIN_MAX_US);
        return;
    }
    evaluate(p, now_us);
}

void preparer_on_beacon(struct preparer *preparer, uint32_t region, uint64_t now_us)
{
    struct list *it, *tmp;
    list_for_each(it, tmp, &preparer->active)
    {
        struct prepare *p = list_entry(it, struct prepare, in_active);
        struct asked *a = &p->asked[region];
        bool was_silent = p->state == PREPARE_ASKING && a->place == PLACE_SUSPENDING && !a->has_spoken && a->times > 0 && !a->is_last;
        if (was_silent && preparer->regions[region].suspension->proven_us == 0) {
            suspension_cancel(preparer->regions[region].suspension, &a->waiter);
            a->is_last = true;
            a->until_us = now_us + patience_us(p);
            ask(p, region, now_us);
        }
    }
}

void preparer_on_answer(struct preparer *preparer, uint64_t number, const struct incoming *incoming, uint64_t now_us)
{
    uint32_t region = (uint32_t)(number & ((1U << REGION_BITS) - 1));
    uint32_t slot = (uint32_t)(number >> REGION_BITS) & ((1U << SLOT_BITS) - 1);
    struct prepare *p = slot < PREPARE_WRITES_MAX ? preparer->slots[slot] : NULL;
    struct message message;
    if (p == NULL || p->generation != number >> (SLOT_BITS + REGION_BITS) || p->state != PREPARE_ASKING || region >= preparer->region_count ||
        p->asked[region].place != PLACE_ASKING) {
        return; /* late, or again */
    }
    if (incoming->status != STATUS_NONE) {
        on_said(p, region, MESSAGE_NO_SHARE, now_us); /* nobody listens there */
    } else if (message_read(incoming->data, &message) == OK && message.kind == MESSAGE_ANSWER) {
        remember(p, region, &message);
        on_said(p, region, message.status, now_us);
    }
}

static void tick(struct prepare *p, uint64_t now_us)
{
    struct preparer *preparer = p->preparer;
    if (p->state == PREPARE_PAUSING && now_us >= p->due_us) {
        attempt(p, now_us);
        return;
    }
    if (p->state == PREPARE_WAITING && now_us >= p->due_us) {
        fail(p, ERR_TIMEOUT, now_us, "%s", "too many writes of this key, one behind the other");
        return;
    }
    if (p->state != PREPARE_ASKING) {
        return;
    }
    p->state = PREPARE_WAITING; /* nothing is decided before all have been looked at: who is answered may let go of it at once */
    for (uint32_t i = 0; i < preparer->region_count; i++) {
        struct asked *a = &p->asked[i];
        if (a->place == PLACE_ASKING && is_silent(p, i, now_us)) {
            suspend(p, i, now_us);
        } else if (a->place == PLACE_ASKING && now_us >= a->due_us) {
            ask(p, i, now_us);
        }
    }
    p->state = PREPARE_ASKING;
    evaluate(p, now_us);
}

uint64_t preparer_step(struct preparer *preparer, uint64_t now_us)
{
    if (now_us < preparer->due_us) {
        return preparer->due_us;
    }
    struct list *it = preparer->active.next;
    while (it != &preparer->active) {
        struct prepare *p = list_entry(it, struct prepare, in_active);
        it = it->next;
        tick(p, now_us);
    }
    preparer->due_us = list_is_empty(&preparer->active) ? UINT64_MAX : now_us + TICK_US;
    return preparer->due_us;
}

void preparer_init(struct preparer *preparer, const struct config *config, struct metrics_shard *metrics, uint64_t sidecar, uint64_t voters)
{
    *preparer = (struct preparer){
        .config = config,
        .metrics = metrics,
        .sidecar = sidecar,
        .voters = voters,
        .random = sidecar,
        .timeout_us = 1000ULL * config->strong->prepare_timeout_ms,
        .due_us = UINT64_MAX,
        .slots = xcalloc(PREPARE_WRITES_MAX, sizeof(struct prepare *)),
        .free_slots = xcalloc(PREPARE_WRITES_MAX, sizeof(uint32_t)),
        .keys = xcalloc(KEY_BUCKETS, sizeof(struct list)),
    };
    list_init(&preparer->active);
    for (uint32_t i = 0; i < PREPARE_WRITES_MAX; i++) {
        preparer->free_slots[i] = i;
    }
    for (uint32_t i = 0; i < KEY_BUCKETS; i++) {
        list_init(&preparer->keys[i]);
    }
}

void preparer_stop(struct preparer *preparer)
{
    preparer->is_stopping = true;
    for (uint32_t i = 0; i < PREPARE_WRITES_MAX; i++) {
        struct prepare *p = preparer->slots[i];
        if (p == NULL || p->state == PREPARE_PREPARED) {
            continue;
        }
        for (uint32_t r = 0; r < preparer->region_count; r++) {
            if (p->asked[r].place == PLACE_SUSPENDING) {
                suspension_cancel(preparer->regions[r].suspension, &p->asked[r].waiter);
            }
        }
        fail(p, ERR_STOPPING, 0, "%s", "this sidecar is shutting down");
    }
}

void preparer_deinit(struct preparer *preparer)
{
    free(preparer->slots);
    free(preparer->free_slots);
    free(preparer->keys);
}
