#include "proxy/strong/share.h"

#include <inttypes.h>

#include "proxy/metric.h"

#define RETRY_MIN_MS 20
#define RETRY_MAX_MS 100
#define RETRIES 20 /* in a row, before it is tried every lease/3 only */
#define BEACON_RETRY_US 100000ULL

static const char no_holder[] = "nobody is heard of who holds the region's lease";
static const char no_rules[] = "the region's rules are not known yet";
static const char no_answer[] = "the holder of the region's lease does not answer";
static const char no_lease[] = "the holder of the region's lease has none to share";
static const char not_ready[] = "the region is coming back: it may serve locks only";
static const char other_digest[] = "the holder of the region's lease does not have the same rules as this sidecar";
static const char other_number[] = "the region's lease is another one";
static const char other_voters[] = "the holder of the region's lease has other voters (bus.peers, strong.witnesses)";
static const char refused[] = "the holder of the region's lease sees other nodes, has other voters or another time";
static const char clock_is_off[] = "this sidecar's clock differs by more than max_clock_skew from that of the holder of the region's lease";

void share_init(struct share *s, const struct share_context *context, struct share_time now)
{
    *s = (struct share){
        .context = *context,
        .lease_us = 1000ULL * context->config->strong->lease_ms,
        .skew_ms = context->config->max_clock_skew_ms,
        .problem = no_holder,
        .beacon_due_us = now.us,
        .ask_due_us = now.us,
    };
    list_init(&s->confirmations);
    backoff_init(&s->backoff, RETRY_MIN_MS, RETRY_MAX_MS, context->sidecar);
}

/* What bounds the time of others, by our own clock: theirs may tick a little slower. */
static uint64_t with_margin(uint64_t us)
{
    return us + us / 20;
}

/* --- what is sent --- */

static struct message message_of(const struct share *s, enum message_kind kind, struct share_time now)
{
    return (struct message){
        .kind = kind,
        .sidecar = s->context.sidecar,
        .voters = s->context.voters,
        .wall_ms = now.wall_ms,
        .ring = s->context.ring,
        .digest = s->digest,
    };
}

static enum err send(struct share *s, const struct message *message, const char *subject, const char *reply)
{
    char bytes[MESSAGE_MAX];
    size_t len = message_write(message, bytes);
    struct outgoing out = {.subject = subject, .reply = reply, .data = span_of(bytes, len)};
    return s->context.transport->ops->send(s->context.transport, &out);
}

static void beacon(struct share *s, struct share_time now)
{
    char subject[SUBJECT_MAX];
    struct message message = message_of(s, MESSAGE_BEACON, now);
    message.number = s->lease.number;
    message.mode = (uint8_t)s->lease.mode;
    message.inbox = span_str(s->context.transport->inbox);
    snprintf(subject, sizeof subject, "outrigger.strong.%s.beacon", s->context.config->region);
    bool is_sent = send(s, &message, subject, NULL) == OK;
    s->beacon_due_us = now.us + (is_sent ? s->lease_us / 3 : BEACON_RETRY_US);
}

/* --- the holder: confirmations --- */

static void finish(struct share *s, struct share_confirmation *confirmation, enum err err, const char *text)
{
    list_remove(&confirmation->link);
    s->confirmation_count--;
    confirmation->err = err;
    confirmation->text = text;
    confirmation->on_done(confirmation);
}

static void finish_all(struct share *s, enum err err, const char *text)
{
    while (!list_is_empty(&s->confirmations)) {
        finish(s, list_entry(s->confirmations.next, struct share_confirmation, link), err, text);
    }
}

static struct share_confirmation *first_confirmation(struct share *s)
{
    return list_is_empty(&s->confirmations) ? NULL : list_entry(s->confirmations.next, struct share_confirmation, link);
}

static uint64_t unknown_until_us(const struct share *s)
{
    return s->lease.taken_over_us + with_margin(s->lease_us);
}

static void forget_grants(struct share *s, uint64_t now_us)
{
    for (uint32_t i = 0; i < s->grant_count;) {
        if (s->grants[i].until_us <= now_us) {
            s->grants[i] = s->grants[--s->grant_count];
        } else {
            i++;
        }
    }
}

/* They stand in the order of their serials and beginnings, so what holds one up holds up those behind it. */
static void confirm_what_is(struct share *s, uint64_t now_us)
{
    uint64_t oldest = UINT64_MAX;
    struct share_confirmation *first = first_confirmation(s);
    if (first == NULL || !s->lease.is_holder || now_us < unknown_until_us(s)) {
        return;
    }
    forget_grants(s, now_us);
    for (uint32_t i = 0; i < s->grant_count; i++) {
        oldest = MIN(oldest, s->grants[i].serial);
    }
    while (first != NULL && first->serial < oldest && s->lease.proven_us >= first->begun_us) {
        finish(s, first, OK, "");
        first = first_confirmation(s);
    }
}

static uint64_t step_confirmations(struct share *s, uint64_t now_us)
{
    uint64_t next_us = UINT64_MAX;
    confirm_what_is(s, now_us);
    for (struct list *link = s->confirmations.next; link != &s->confirmations;) {
        struct share_confirmation *confirmation = list_entry(link, struct share_confirmation, link);
        link = link->next;
        if (now_us >= confirmation->deadline_us) {
            finish(s, confirmation, ERR_TIMEOUT, "a sidecar of this region may still serve without the rule");
            link = s->confirmations.next; /* on_done may have changed the list */
            next_us = UINT64_MAX;
        } else {
            next_us = MIN(next_us, confirmation->deadline_us);
        }
    }
    if (list_is_empty(&s->confirmations)) {
        return UINT64_MAX;
    }
    for (uint32_t i = 0; i < s->grant_count; i++) {
        next_us = MIN(next_us, s->grants[i].until_us);
    }
    return now_us < unknown_until_us(s) ? MIN(next_us, unknown_until_us(s)) : next_us;
}

void share_confirm(struct share *s, struct share_confirmation *confirmation, struct share_time now)
{
    list_push_back(&s->confirmations, &confirmation->link);
    s->confirmation_count++;
    if (s->is_stopping) {
        finish(s, confirmation, ERR_STOPPING, err_text(ERR_STOPPING));
        return;
    }
    if (!s->lease.is_holder || s->lease.mode < STRONG_WAITING || confirmation->digest == 0) {
        finish(s, confirmation, ERR_UNAVAILABLE, "this sidecar does not hold the region's lease");
        return;
    }
    if (s->confirmation_count > SHARE_CONFIRMATIONS_MAX) {
        finish(s, confirmation, ERR_OVERLOAD, err_text(ERR_OVERLOAD));
        return;
    }
    share_on_digest(s, confirmation->digest, now);
    confirmation->serial = s->serial++;
    confirmation->begun_us = now.us;
    for (uint32_t i = 0; i < s->grant_count; i++) {
        if (s->grants[i].digest == confirmation->digest) { /* given for these very rules: as good as given anew */
            s->grants[i].serial = s->serial;
        }
    }
    s->beacon_due_us = now.us;
}

uint64_t share_renew_from_us(const struct share *s)
{
    if (list_is_empty(&s->confirmations)) {
        return 0;
    }
    const struct share_confirmation *last = list_entry(s->confirmations.prev, struct share_confirmation, link);
    return s->lease.proven_us >= last->begun_us ? 0 : last->begun_us;
}

/* --- the holder: grants --- */

/* A question takes its time, so that a clock may seem to be behind by as much. */
static bool has_other_time(const struct share *s, uint64_t wall_ms, struct share_time now)
{
    return wall_ms > now.wall_ms ? wall_ms - now.wall_ms > s->skew_ms : now.wall_ms - wall_ms > s->skew_ms + s->lease_us / 2000;
}

static bool remember(struct share *s, uint64_t sidecar, uint64_t left_us, uint64_t now_us)
{
    struct share_grant *grant = NULL;
    for (uint32_t i = 0; i < s->grant_count && grant == NULL; i++) {
        grant = s->grants[i].sidecar == sidecar ? &s->grants[i] : NULL;
    }
    if (grant == NULL && s->grant_count == SHARE_GRANTS_MAX) {
        forget_grants(s, now_us);
    }
    if (grant == NULL && s->grant_count == SHARE_GRANTS_MAX) {
        return false;
    }
    if (grant == NULL) {
        grant = &s->grants[s->grant_count++];
        *grant = (struct share_grant){.sidecar = sidecar};
    }
    grant->until_us = MAX(grant->until_us, now_us + with_margin(left_us));
    grant->digest = s->digest;
    grant->serial = s->serial;
    return true;
}

static uint64_t left_us(const struct share *s, uint64_t now_us)
{
    return s->lease.is_holder && s->lease.mode >= STRONG_WAITING && s->lease.valid_until_us > now_us
               ? MIN(s->lease.valid_until_us - now_us, s->lease_us) : 0;
}

static enum message_status judge(struct share *s, const struct message *message, struct share_time now)
{
    if (left_us(s, now.us) == 0 || s->digest == 0) {
        return MESSAGE_NO_SHARE;
    }
    if (message->ring != s->context.ring || message->voters != s->context.voters || has_other_time(s, message->wall_ms, now)) {
        log_warn(s->context.log, "strong: sidecar %016" PRIx64 " gets no share of this region's lease: %s", message->sidecar,
                 message->ring != s->context.ring       ? "its nodes are not ours"
                 : message->voters != s->context.voters ? "its voters are not ours"
                                                        : "its clock differs from ours by more than max_clock_skew");
        return MESSAGE_REFUSED;
    }
    if (message->digest != s->digest) {
        return MESSAGE_STALE;
    }
    if (!remember(s, message->sidecar, left_us(s, now.us), now.us)) {
        log_warn(s->context.log, "strong: sidecar %016" PRIx64 " gets no share of this region's lease: %d others have one", message->sidecar,
                 SHARE_GRANTS_MAX);
        return MESSAGE_REFUSED;
    }
    return MESSAGE_OK;
}

void share_on_ask(struct share *s, const struct message *message, const char *reply, struct share_time now)
{
    if (message->kind != MESSAGE_ASK || message->sidecar == s->context.sidecar || !share_is_inbox(span_str(reply))) {
        return;
    }
    struct message answer = message_of(s, MESSAGE_ANSWER, now);
    answer.status = judge(s, message, now);
    answer.mode = (uint8_t)s->lease.mode;
    answer.number = s->lease.number;
    answer.left_us = answer.status == MESSAGE_OK ? left_us(s, now.us) : 0;
    send(s, &answer, reply, NULL); /* if it is lost, it is asked again */
    confirm_what_is(s, now.us);
}

/* --- everybody else --- */

static void lose(struct share *s)
{
    s->serve_until_us = s->lock_until_us = 0;
    s->number = 0;
    s->mode = STRONG_OUT;
}

/* What was asked is not waited for any more. */
static void ask_soon(struct share *s, uint64_t now_us)
{
    s->asking.number = 0;
    s->failures = 0;
    backoff_reset(&s->backoff);
    s->ask_due_us = MAX(now_us, s->asked_us + RETRY_MIN_MS * 1000ULL); /* whatever news there are */
}

static void ask_again(struct share *s, const char *why, uint64_t now_us)
{
    s->asking.number = 0;
    s->problem = why;
    s->failures++;
    s->ask_due_us = now_us + (s->failures <= RETRIES ? backoff_next_us(&s->backoff) : s->lease_us / 3);
}

static void ask_later(struct share *s, const char *why, uint64_t now_us)
{
    s->problem = why;
    s->ask_due_us = now_us + s->lease_us / 3;
}

static void ask(struct share *s, struct share_time now)
{
    char subject[SUBJECT_MAX];
    char reply[SUBJECT_MAX];
    struct message message = message_of(s, MESSAGE_ASK, now);
    message.number = s->holder_number;
    s->asking = (struct share_asking){.number = ++s->request, .digest = s->digest, .at = now};
    s->asked_us = now.us;
    snprintf(subject, sizeof subject, "%s.%c.0", s->holder, SHARE_ASK_KIND);
    snprintf(reply, sizeof reply, "%s.%c.%" PRIu64, s->context.transport->inbox, SHARE_ANSWER_KIND, s->request);
    if (send(s, &message, subject, reply) != OK) {
        ask_again(s, no_answer, now.us);
    }
}

void share_on_beacon(struct share *s, const struct message *message, struct share_time now)
{
    struct span inbox = message->inbox;
    if (message->kind != MESSAGE_BEACON || s->lease.is_holder || message->sidecar == s->context.sidecar || !share_is_inbox(inbox)) {
        return;
    }
    if (message->voters != s->context.voters) {
        s->problem = other_voters;
        return;
    }
    if (s->lock_until_us > now.us && message->number < s->number) {
        return; /* one that has been replaced, and does not know it yet */
    }
    if (message->number > s->number) { /* the region was suspended; it would run out anyway */
        lose(s);
    }
    bool is_news = !span_eq(inbox, span_str(s->holder)) || message->number != s->holder_number || message->digest != s->holder_digest ||
                   message->mode != s->holder_mode;
    memcpy(s->holder, inbox.data, inbox.len);
    s->holder[inbox.len] = '\0';
    s->holder_number = message->number;
    s->holder_digest = message->digest;
    s->holder_mode = message->mode;
    if (is_news) {
        ask_soon(s, now.us);
    }
}

/* When the holder has looked at its clock we did not know; it was between these two. */
static bool is_clock_off(const struct share *s, uint64_t wall_ms, uint64_t asked_ms, uint64_t heard_ms)
{
    return (wall_ms > heard_ms && wall_ms - heard_ms > s->skew_ms) || (wall_ms < asked_ms && asked_ms - wall_ms > s->skew_ms);
}

static void stop_serving(struct share *s, const char *why, uint64_t now_us)
{
    if (s->problem != why) {
        log_warn(s->context.log, "strong: reads of strong namespaces go to the database: %s", why);
    }
    lose(s);
    ask_later(s, why, now_us);
}

static void on_granted(struct share *s, const struct message *m, const struct share_asking *asked, uint64_t now_us)
{
    uint64_t until_us = asked->at.us + MIN(m->left_us, s->lease_us);
    bool is_ready = m->mode == STRONG_READY;
    if (m->digest != asked->digest || asked->digest != s->digest) {
        ask_again(s, other_digest, now_us);
        return;
    }
    if (m->number != s->holder_number || (!is_ready && m->mode != STRONG_WAITING)) {
        s->holder_number = m->number;
        ask_again(s, other_number, now_us);
        return;
    }
    if (until_us <= now_us) {
        ask_again(s, no_answer, now_us);
        return;
    }
    if (m->number != s->number) {
        lose(s);
    }
    s->number = m->number;
    s->mode = (enum strong_mode)m->mode;
    s->lock_until_us = MAX(s->lock_until_us, until_us);
    if (is_ready) {
        s->serve_until_us = MAX(s->serve_until_us, until_us);
    }
    s->failures = 0;
    backoff_reset(&s->backoff);
    s->problem = is_ready ? "" : not_ready;
    s->ask_due_us = asked->at.us + s->lease_us / 3;
}

void share_on_answer(struct share *s, uint64_t number, const struct incoming *message, struct share_time now)
{
    struct share_asking asked = s->asking;
    struct message m;
    if (s->lease.is_holder || number == 0 || number != asked.number) {
        return; /* late */
    }
    s->asking.number = 0;
    if (message->status == STATUS_NO_RESPONDERS) {
        s->holder[0] = '\0';
        s->problem = no_holder; /* its beacon, or another's, will tell */
        return;
    }
    if (message->status != STATUS_NONE || message_read(message->data, &m) != OK || m.kind != MESSAGE_ANSWER) {
        ask_again(s, no_answer, now.us);
        return;
    }
    if (is_clock_off(s, m.wall_ms, asked.at.wall_ms, now.wall_ms)) {
        metrics_add(s->context.metrics, METRIC_ERRORS, metric_index2(SOURCE_CLOCK, ERR_COUNT, ERR_INVALID), 1);
        stop_serving(s, clock_is_off, now.us);
        return;
    }
    bool is_alike = m.ring == s->context.ring && m.voters == s->context.voters;
    switch (m.status) {
    case MESSAGE_NO_SHARE: ask_again(s, no_lease, now.us); break;
    case MESSAGE_STALE: ask_again(s, other_digest, now.us); break;
    case MESSAGE_OK:
        if (is_alike) {
            on_granted(s, &m, &asked, now.us);
            break;
        }
        /* fallthrough */
    default: stop_serving(s, refused, now.us); break;
    }
}

static uint64_t step_asking(struct share *s, struct share_time now)
{
    uint64_t silence_us = s->lease_us / 6;
    if (s->asking.number != 0 && now.us >= s->asking.at.us + silence_us) {
        ask_again(s, no_answer, now.us);
    }
    bool may_ask = s->holder[0] != '\0' && s->digest != 0;
    if (may_ask && s->asking.number == 0 && now.us >= s->ask_due_us) {
        ask(s, now);
    }
    return s->asking.number != 0 ? s->asking.at.us + silence_us : may_ask ? s->ask_due_us : UINT64_MAX;
}

/* --- both --- */

static void use_own_lease(struct share *s)
{
    const struct share_lease *lease = &s->lease;
    s->serve_until_us = lease->mode == STRONG_READY && s->digest != 0 ? lease->valid_until_us : 0;
    s->lock_until_us = lease->mode >= STRONG_WAITING ? lease->valid_until_us : 0;
    s->number = lease->number;
    s->mode = lease->mode;
}

void share_set_holder(struct share *s, const struct share_lease *lease, struct share_time now)
{
    struct share_lease old = s->lease;
    s->lease = *lease;
    if (!lease->is_holder && !old.is_holder) {
        return;
    }
    if (!lease->is_holder) {
        lose(s);
        s->problem = no_holder;
        finish_all(s, ERR_UNAVAILABLE, "this sidecar does not hold the region's lease any more");
        return;
    }
    if (!old.is_holder) {
        s->asking.number = 0;
        s->holder[0] = '\0';
    }
    if (!old.is_holder || old.number != lease->number || old.mode != lease->mode) {
        s->beacon_due_us = now.us;
    }
    use_own_lease(s);
}

void share_on_digest(struct share *s, uint64_t digest, struct share_time now)
{
    if (s->digest == digest) {
        return;
    }
    s->digest = digest;
    if (s->lease.is_holder) {
        s->beacon_due_us = now.us;
        use_own_lease(s);
    } else {
        s->serve_until_us = 0;
        ask_soon(s, now.us);
    }
}

void share_on_up(struct share *s, struct share_time now)
{
    s->beacon_due_us = now.us;
    ask_soon(s, now.us);
}

uint64_t share_step(struct share *s, struct share_time now)
{
    if (!s->lease.is_holder) {
        return step_asking(s, now);
    }
    uint64_t next_us = step_confirmations(s, now.us);
    if (now.us >= s->beacon_due_us) {
        beacon(s, now);
    }
    return MIN(next_us, s->beacon_due_us);
}

void share_stop(struct share *s)
{
    s->is_stopping = true;
    finish_all(s, ERR_STOPPING, err_text(ERR_STOPPING));
}

const char *share_problem(const struct share *s, uint64_t now_us)
{
    if (s->serve_until_us > now_us) {
        return "";
    }
    if (s->digest == 0) {
        return no_rules;
    }
    if (s->lease.is_holder) {
        return s->lease.mode == STRONG_WAITING ? not_ready : no_lease;
    }
    return s->holder[0] == '\0' && s->problem != other_voters ? no_holder : s->problem[0] != '\0' ? s->problem : no_answer;
}

bool share_is_inbox(struct span subject)
{
    static const char begin[] = "_INBOX.";
    if (!span_has_prefix(subject, SPAN_LIT(begin)) || subject.len >= MESSAGE_INBOX_MAX) {
        return false;
    }
    char before = '.';
    for (size_t i = sizeof begin - 1; i < subject.len; i++) {
        char c = subject.data[i];
        bool is_token = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        if (!is_token && (c != '.' || before == '.')) {
            return false;
        }
        before = c;
    }
    return before != '.';
}
