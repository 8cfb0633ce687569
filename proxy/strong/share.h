/* What:    a sidecar's share in its region's lease: the holder's, and second-hand the shares of all others, who ask the holder for what is left.
 * Owns:    nothing beyond the caller's struct; confirmations are lent to it from share_confirm() until on_done.
 * Threads: strong's thread.
 * Fails:   never for good: without answers a share runs out, and share_problem() says why there is none. A confirmation ends with ERR_UNAVAILABLE
 *          (this sidecar is not, or no longer, the holder), ERR_TIMEOUT, ERR_OVERLOAD or ERR_STOPPING.
 *
 *   holder ── BEACON (inbox, number, mode, digest) ──▶ everybody     every lease/3, and at once when one of them is new
 *   other ── ASK (ring, voters, digest, clock) ──▶ holder's inbox    every lease/3; at once on news; soon again when refused or not answered
 *   holder ── ANSWER (left, mode, number, digest) ──▶ other          it remembers until when it has given what to whom
 *
 * Time is counted from before the question was sent, so a share never outlasts the lease it is a part of.
 *
 * A share is given only for the holder's own digest, and serves only while the digest is still that. Strictly, it would be safe to go on: a
 * rule more hides more, and a rule less is one that hides nothing any more (the sweep has retired it). But a digest does not say which of the two has
 * happened, and asking anew takes one round trip. What must not be is the other way: that a share is given for a digest without a rule that
 * has been confirmed, as its time is all that the confirmation knows of it. Locks do not depend on rules: lock_until_us stays.
 *
 * So a rule that is recorded in the region and in force at the holder is confirmed once
 *   - every share that may still be alive was given for a digest with it: anew, or the same digest; or has run out;
 *   - shares that another holder gave before us have run out, too: they are not known, but none outlasts its lease, which ends one lease after we
 *     took over (taken_over_us);
 *   - the lease was renewed by a round that began after share_confirm(): who takes over does so after that, and has the rule, because
 *     A NEW HOLDER STAYS STRONG_WAITING UNTIL rules_catch_up() (proxy/cache/rules.h), called after it has taken over, is done.
 * Without the last a holder that has been replaced, and does not know it yet, would confirm a rule that its successor serves without.
 */
#ifndef PROXY_STRONG_SHARE_H
#define PROXY_STRONG_SHARE_H

#include "common/list.h"
#include "common/metrics.h"
#include "proxy/bus/backoff.h"
#include "proxy/bus/transport.h"
#include "proxy/strong/message.h"
#include "proxy/strong/strong.h"

#define SHARE_GRANTS_MAX 1024
#define SHARE_CONFIRMATIONS_MAX 1024

/* Of the subjects "<inbox>.<kind>.<number>": questions to the holder ("<its inbox>.h.0"), and their answers. */
#define SHARE_ASK_KIND 'h'
#define SHARE_ANSWER_KIND 'a'

/* Taken after a message has come, and before anything is sent because of it: an older one would give away more of the lease than there is. */
struct share_time {
    uint64_t us;      /* clock_mono_us() */
    uint64_t wall_ms; /* guard_wall_ms() */
};

/* What the owner knows of the lease. All but is_holder counts only with it. */
struct share_lease {
    bool is_holder;
    enum strong_mode mode;
    uint64_t valid_until_us; /* counted from before the renewal was sent; 0: not valid */
    uint64_t proven_us;      /* when the last round began that renewed it at a majority */
    uint64_t number;
    uint64_t taken_over_us; /* when a majority first had our name in the record, after it had been another's, or not known whose; as that was heard, not as it was asked for */
};

struct share_confirmation {
    uint64_t digest;      /* of the strong rules in force in this process by now, with that rule */
    uint64_t deadline_us;
    void (*on_done)(struct share_confirmation *confirmation); /* from within share_…(): it may be freed, and new ones begun */
    void *ctx;
    enum err err; /* the result */
    const char *text; /* … in words, a constant; "" for OK */

    struct list link; /* the share's from here on */
    uint64_t serial;
    uint64_t begun_us;
};

struct share_grant {
    uint64_t sidecar;
    uint64_t until_us;
    uint64_t digest;
    uint64_t serial;
};

struct share_context {
    const struct config *config;
    struct transport *transport; /* to the own region's NATS */
    struct log *log;
    struct metrics_shard *metrics;
    uint64_t sidecar; /* names this process, at random: not one that it had before a restart */
    uint64_t voters;
    uint64_t ring;
};

/* A question under way. */
struct share_asking {
    uint64_t number; /* 0: there is none */
    uint64_t digest;
    struct share_time at; /* before it was sent */
};

struct share {
    struct share_context context;
    uint64_t lease_us;
    uint64_t skew_ms;
    uint64_t digest; /* 0: not known, never given or asked for */
    struct share_lease lease;

    /* The outputs. */
    uint64_t serve_until_us; /* strong hits may be served (STRONG_READY); 0: not */
    uint64_t lock_until_us;  /* locks may be served (STRONG_WAITING, too) */
    uint64_t number;         /* of the lease that those are of; 0: of none */
    enum strong_mode mode;   /* likewise */
    const char *problem;

    /* As the holder. */
    uint64_t beacon_due_us;
    uint64_t serial; /* counts grants */
    bool is_stopping;
    uint32_t grant_count;
    struct list confirmations;
    uint32_t confirmation_count;
    struct share_grant grants[SHARE_GRANTS_MAX];

    /* As another. */
    char holder[MESSAGE_INBOX_MAX]; /* its inbox; "": not known */
    uint64_t holder_number;         /* as it said last, likewise the next two */
    uint64_t holder_digest;
    uint8_t holder_mode;
    struct share_asking asking;
    uint64_t request;
    uint64_t ask_due_us;
    uint64_t asked_us;
    uint32_t failures; /* in a row */
    struct backoff backoff;
};

void share_init(struct share *share, const struct share_context *context, struct share_time now);
/* Confirmations under way end with ERR_STOPPING, and no more are taken. */
void share_stop(struct share *share);

/* Whenever something of it has changed; what follows from that is done by the next share_step(), as with all that follows. */
void share_set_holder(struct share *share, const struct share_lease *lease, struct share_time now);
/* sink.digest() has changed, or may have. */
void share_on_digest(struct share *share, uint64_t digest, struct share_time now);
/* The connection is there again: what was sent may be lost. */
void share_on_up(struct share *share, struct share_time now);

/* A BEACON of the region. */
void share_on_beacon(struct share *share, const struct message *message, struct share_time now);
/* An ASK; `reply`: where to, as it came. */
void share_on_ask(struct share *share, const struct message *message, const char *reply, struct share_time now);
/* What came to "<inbox>.a.<number>". */
void share_on_answer(struct share *share, uint64_t number, const struct incoming *message, struct share_time now);

/* As the holder, when the rule is in force in this process. on_done may be called before this returns. */
void share_confirm(struct share *share, struct share_confirmation *confirmation, struct share_time now);

/* A confirmation waits for a round of renewals that begins at or after this; 0: none does. Such a round is best begun at once. */
uint64_t share_renew_from_us(const struct share *share);

/* Does what is due; returns when to call again. */
uint64_t share_step(struct share *share, struct share_time now);

/* Why there is no share that serves, in words; "" if there is one. */
const char *share_problem(const struct share *share, uint64_t now_us);

/* Whether this is the inbox of a sidecar, or a subject within one: nothing else is ever sent to because a message said so. */
bool share_is_inbox(struct span subject);

#endif
