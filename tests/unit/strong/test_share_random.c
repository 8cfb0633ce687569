/* What: shares, confirmations and take-overs at random: letters late, lost and doubled, sidecars that pause, watches that lag. Whatever happens, once a
 *       rule is confirmed nobody serves without it; and each guard is needed: without it that is broken. */
#include "tests/unit/check_main.h"
#include "tests/unit/strong/fake_region.h"

#define TICK (10 * MS)
#define RUN (60 * S)
#define SEEDS 20
#define RULES 60
#define NOBODY UINT32_MAX

enum guard {
    GUARD_NONE,
    GUARD_BEFORE_THE_QUESTION, /* time is counted from before the question was sent */
    GUARD_DIGEST,              /* shares are given for the holder's digest */
    GUARD_GRANTS,              /* what was given is remembered */
    GUARD_UNKNOWN,             /* what others gave has run out */
    GUARD_RENEWAL,             /* the lease is renewed after the rule was recorded */
    GUARD_CATCH_UP,            /* a new holder has the rules that are recorded */
    GUARDS,
};

/* A compare-and-set on the region's record, at a majority at once: it is there at a moment between `begun` and when it is heard of. */
struct round {
    bool is_used;
    bool is_take_over;
    bool is_lost;
    bool is_there;
    bool is_done;
    uint64_t begun;
    uint64_t there_at;
    uint64_t heard_at;
};

struct owner {
    struct round round;
    uint64_t rounded_at;
    uint64_t until_pause; /* or its end */
    bool is_holder;
    uint64_t valid_until;
    uint64_t proven;
    uint64_t taken_over;
    uint64_t ready_at;
    uint64_t caught_up; /* rules that will be in force by then */
    uint64_t heard_at[RULES];
};

struct rule {
    struct share_confirmation confirmation;
    bool is_confirmed;
};

static struct owner owners[SIDECARS];
static struct rule rules[RULES];
static uint32_t rule_count, confirmed_count, taken_count;
static uint64_t served; /* ticks of sidecars that are not the holder */
static uint32_t name;   /* in the record */
static uint64_t seed;
static enum guard missing;
static bool is_broken;

static uint64_t next_random(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545F4914F6CDD1DULL >> 16;
}

static bool one_in(uint32_t n)
{
    return next_random() % n == 0;
}

static uint64_t up_to(uint64_t us)
{
    return next_random() % (us + 1);
}

static uint64_t delay(void)
{
    return one_in(50) ? up_to(4 * S) : one_in(10) ? up_to(400 * MS) : up_to(5 * MS);
}

static uint64_t delay_of_letter(struct region *r)
{
    return one_in(20) ? UINT64_MAX : delay();
}

static void tamper(struct region *r, struct sidecar *to, struct letter *letter)
{
    struct message m;
    if (message_read(span_of(letter->data, letter->len), &m) != OK || m.kind == MESSAGE_BEACON) {
        return;
    }
    if (missing == GUARD_BEFORE_THE_QUESTION && m.kind == MESSAGE_ANSWER) {
        to->share.asking.at.us = time_of(to).us;
    }
    if (missing == GUARD_DIGEST) {
        m.digest = m.kind == MESSAGE_ASK ? to->share.digest : to->share.asking.digest;
        letter->len = message_write(&m, letter->data);
    }
}

static void on_confirmed(struct share_confirmation *c)
{
    struct rule *rule = container_of(c, struct rule, confirmation);
    rule->is_confirmed = c->err == OK;
    confirmed_count += c->err == OK;
}

static void put_in_force(struct sidecar *s, uint64_t set)
{
    if ((s->rules | set) != s->rules) {
        set_rules(s->index, s->rules | set);
    }
}

/* Somebody who thinks that he holds the lease is told a rule: it is recorded, in force there, and to be confirmed. */
static void make_rule(uint32_t i)
{
    struct sidecar *s = &region.sidecars[i];
    uint32_t n = rule_count++;
    for (uint32_t k = 0; k < SIDECARS; k++) {
        owners[k].heard_at[n] = region.now + (one_in(4) ? up_to(10 * S) : up_to(100 * MS));
    }
    put_in_force(s, 1ULL << n);
    rules[n].confirmation = (struct share_confirmation){.digest = s->share.digest, .deadline_us = time_of(s).us + 3 * LEASE, .on_done = on_confirmed};
    share_confirm(&s->share, &rules[n].confirmation, time_of(s));
    if (missing == GUARD_RENEWAL) {
        rules[n].confirmation.begun_us = 0;
    }
    if (missing == GUARD_GRANTS) {
        s->share.grant_count = 0;
    }
}

static void begin_round(uint32_t i, bool is_take_over)
{
    struct owner *o = &owners[i];
    o->rounded_at = region.now;
    o->round = (struct round){.is_used = true, .is_take_over = is_take_over, .begun = region.now, .there_at = region.now + delay()};
    o->round.heard_at = o->round.there_at + delay();
    o->round.is_lost = one_in(20);
}

static void arrive(uint32_t i)
{
    struct round *r = &owners[i].round;
    if (r->is_used && !r->is_there && region.now >= r->there_at) {
        r->is_there = true;
        r->is_done = r->is_take_over || name == i;
        name = r->is_take_over ? i : name;
    }
}

static void hear(uint32_t i)
{
    struct owner *o = &owners[i];
    struct round r = o->round;
    if (!r.is_used || !r.is_there || r.is_lost || region.now < r.heard_at) {
        return;
    }
    o->round.is_used = false;
    if (!r.is_done) {
        o->is_holder = false;
        o->valid_until = 0;
        return;
    }
    o->valid_until = MAX(o->valid_until, r.begun + LEASE);
    o->proven = MAX(o->proven, r.begun);
    if (r.is_take_over) {
        taken_count++;
        o->is_holder = true;
        o->taken_over = region.now;
        o->ready_at = region.now + up_to(300 * MS);
        o->caught_up = missing == GUARD_CATCH_UP ? 0 : (1ULL << rule_count) - 1;
    }
}

static void tell_share(uint32_t i)
{
    struct owner *o = &owners[i];
    struct sidecar *s = &region.sidecars[i];
    bool is_ready = region.now >= o->ready_at;
    if (o->is_holder && is_ready) {
        put_in_force(s, o->caught_up);
    }
    struct share_lease lease = {.is_holder = o->is_holder,
                                .mode = is_ready ? STRONG_READY : STRONG_WAITING,
                                .valid_until_us = o->valid_until != 0 ? o->valid_until + s->mono_offset_us : 0,
                                .proven_us = o->proven + s->mono_offset_us,
                                .number = 4,
                                .taken_over_us = missing == GUARD_UNKNOWN ? 0 : o->taken_over + s->mono_offset_us};
    share_set_holder(&s->share, &lease, time_of(s));
}

static void act(uint32_t i)
{
    struct owner *o = &owners[i];
    struct sidecar *s = &region.sidecars[i];
    hear(i);
    for (uint32_t n = 0; n < rule_count; n++) {
        if (region.now >= o->heard_at[n]) {
            put_in_force(s, 1ULL << n);
        }
    }
    tell_share(i);
    uint64_t wanted = share_renew_from_us(&s->share);
    bool is_round_wanted = wanted != 0 && o->rounded_at + s->mono_offset_us < wanted;
    if (o->is_holder && (is_round_wanted || region.now >= o->rounded_at + LEASE / 3)) {
        begin_round(i, false);
    } else if (!o->is_holder && !o->round.is_used && one_in(3000)) {
        begin_round(i, true);
    }
    if (o->is_holder && s->share.mode == STRONG_READY && rule_count < RULES && one_in(60)) {
        make_rule(i);
    }
}

static void check(void)
{
    for (uint32_t i = 0; i < SIDECARS; i++) {
        const struct sidecar *s = &region.sidecars[i];
        served += is_serving(s) && !owners[i].is_holder;
        for (uint32_t n = 0; n < rule_count && is_serving(s); n++) {
            is_broken = is_broken || (rules[n].is_confirmed && !(s->rules & 1ULL << n));
        }
    }
}

static void run(uint32_t n)
{
    memset(owners, 0, sizeof owners);
    memset(rules, 0, sizeof rules);
    rule_count = 0;
    name = NOBODY;
    seed = 0x9E3779B97F4A7C15ULL * (n + 1);
    is_broken = false;
    region_begin();
    region.delay_us = delay_of_letter;
    region.on_letter = tamper;
    for (uint32_t i = 0; i < SIDECARS; i++) {
        set_rules(i, 0);
        region.sidecars[i].wall_offset_ms = (int64_t)up_to(SKEW_MS) - SKEW_MS / 2;
    }
    begin_round(0, true);
    for (uint64_t end = region.now + RUN; region.now < end && !is_broken; region.now += TICK) {
        region.is_twice = one_in(10);
        for (uint32_t i = 0; i < SIDECARS; i++) {
            struct sidecar *s = &region.sidecars[i];
            arrive(i);
            if (region.now >= owners[i].until_pause) {
                s->is_paused = one_in(500);
                owners[i].until_pause = region.now + (s->is_paused ? up_to(5 * S) : 0);
            }
            if (!s->is_paused) {
                act(i);
            }
        }
        region_step();
        region_deliver();
        check();
    }
    region_end();
}

START_TEST(nobody_serves_without_what_is_confirmed)
{
    confirmed_count = taken_count = 0;
    served = 0;
    for (uint32_t n = 0; n < SEEDS; n++) {
        run(n);
        ck_assert_msg(!is_broken, "seed %u", n);
    }
    ck_assert_uint_gt(confirmed_count, 10 * SEEDS); /* it is not that nothing happened */
    ck_assert_uint_gt(taken_count, 2 * SEEDS);
    ck_assert_uint_gt(served, SEEDS * (RUN / TICK) / 2);
}
END_TEST

START_TEST(every_guard_is_needed)
{
    uint32_t n = 0;
    missing = (enum guard)_i;
    do {
        run(n++);
    } while (!is_broken && n < 4 * SEEDS);
    missing = GUARD_NONE;
    ck_assert_msg(is_broken, "without guard %d nothing is broken in %u runs", _i, n);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("strong/share (random)");
    TCase *tc = tcase_create("random");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, nobody_serves_without_what_is_confirmed);
    tcase_add_loop_test(tc, every_guard_is_needed, GUARD_NONE + 1, GUARDS);
    suite_add_tcase(suite, tc);
    return check_main(suite);
}
