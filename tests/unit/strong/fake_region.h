/* What:    the sidecars of one region and what is between their shares: every message can be late, lost, or come twice. Time is the test's.
 * Owns:    the letters under way.
 */
#ifndef TESTS_UNIT_STRONG_FAKE_REGION_H
#define TESTS_UNIT_STRONG_FAKE_REGION_H

#include <check.h>
#include <unistd.h>

#include "proxy/metric.h"
#include "proxy/strong/share.h"

#define MS 1000ULL
#define S 1000000ULL
#define LEASE (3 * S)
#define SKEW_MS 500
#define SIDECARS 5
#define LETTERS 1024
#define WALL_MS 1700000000000ULL

struct letter {
    bool is_used;
    uint64_t due_us;
    uint32_t from;
    char subject[SUBJECT_MAX];
    char reply[SUBJECT_MAX];
    char data[MESSAGE_MAX];
    size_t len;
};

struct region;

struct sidecar {
    struct transport transport;
    struct region *region;
    uint32_t index;
    char inbox[32];
    struct share share;
    struct share_lease lease;
    int64_t wall_offset_ms;
    uint64_t mono_offset_us; /* its monotonic clock begins somewhere else */
    bool is_paused; /* does nothing, hears nothing; what was sent to it waits */
    bool is_cut;    /* what it sends and what is sent to it is lost */
    uint64_t rules; /* in force, a set */
    uint32_t asked;
    uint32_t beacons;
};

struct region {
    uint64_t now;
    struct config config;
    struct config_strong strong;
    struct log *log;
    struct metric_registry *registry;
    struct metrics_shard *metrics;
    struct sidecar sidecars[SIDECARS];
    struct letter letters[LETTERS];
    uint64_t (*delay_us)(struct region *region); /* UINT64_MAX: lost */
    bool is_twice;                               /* everything comes twice */
    void (*on_letter)(struct region *region, struct sidecar *to, struct letter *letter); /* tampers with what comes, or NULL */
};

static struct region region;

static inline uint64_t digest_of(uint64_t rules)
{
    return (rules + 1) * 0x9E3779B97F4A7C15ULL;
}

static inline struct share_time time_of(const struct sidecar *s)
{
    return (struct share_time){region.now + s->mono_offset_us, WALL_MS + region.now / 1000 + (uint64_t)s->wall_offset_ms};
}

static void post_letter(const struct sidecar *from, const struct outgoing *m)
{
    uint64_t delay_us = region.delay_us != NULL ? region.delay_us(&region) : 0;
    uint32_t i = 0;
    if (from->is_cut || delay_us == UINT64_MAX) {
        return;
    }
    while (i < LETTERS && region.letters[i].is_used) {
        i++;
    }
    ck_assert_uint_lt(i, LETTERS);
    ck_assert_uint_le(m->data.len, MESSAGE_MAX);
    struct letter *l = &region.letters[i];
    *l = (struct letter){.is_used = true, .due_us = region.now + delay_us, .from = from->index, .len = m->data.len};
    snprintf(l->subject, sizeof l->subject, "%s", m->subject);
    snprintf(l->reply, sizeof l->reply, "%s", m->reply != NULL ? m->reply : "");
    memcpy(l->data, m->data.data, m->data.len);
}

static enum err region_send(struct transport *transport, const struct outgoing *m)
{
    struct sidecar *s = container_of(transport, struct sidecar, transport);
    s->beacons += strstr(m->subject, ".beacon") != NULL;
    s->asked += strstr(m->subject, ".h.") != NULL;
    post_letter(s, m);
    if (region.is_twice) {
        post_letter(s, m);
    }
    return OK;
}

static const struct transport_ops region_ops = {.send = region_send};

static inline struct share_context context_of(struct sidecar *s)
{
    return (struct share_context){.config = &region.config, .transport = &s->transport, .log = region.log, .metrics = region.metrics,
                                  .sidecar = 100 + s->index, .voters = 7, .ring = 8};
}

static inline void region_begin(void)
{
    memset(&region, 0, sizeof region);
    region.now = 1000 * S;
    region.strong = (struct config_strong){.lease_ms = LEASE / 1000, .lock_window_ms = 10000, .prepare_timeout_ms = 1000};
    region.config = (struct config){.region = (char *)"west", .strong = &region.strong, .max_clock_skew_ms = SKEW_MS};
    region.log = log_create(STDERR_FILENO, LOG_ERROR);
    region.registry = metric_registry_create(&region.config, NULL, 0);
    region.metrics = metrics_shard_create(metric_registry_metrics(region.registry));
    for (uint32_t i = 0; i < SIDECARS; i++) {
        struct sidecar *s = &region.sidecars[i];
        s->region = &region;
        s->index = i;
        s->mono_offset_us = i * 77 * S;
        snprintf(s->inbox, sizeof s->inbox, "_INBOX.outrigger-%u", i);
        s->transport = (struct transport){.ops = &region_ops, .inbox = s->inbox};
        struct share_context context = context_of(s);
        share_init(&s->share, &context, time_of(s));
    }
}

static inline void region_end(void)
{
    for (uint32_t i = 0; i < SIDECARS; i++) {
        share_stop(&region.sidecars[i].share);
    }
    metric_registry_destroy(&region.registry);
    log_destroy(&region.log);
}

static inline bool is_for(const struct sidecar *s, const struct letter *l)
{
    size_t len = strlen(s->inbox);
    return strstr(l->subject, ".beacon") != NULL ? l->from != s->index : strncmp(l->subject, s->inbox, len) == 0 && l->subject[len] == '.';
}

/* As the owner of a share hands it over. */
static inline void hand_over(struct sidecar *s, struct letter *l)
{
    struct message m;
    struct span data = span_of(l->data, l->len);
    char kind = l->subject[strlen(s->inbox) + 1];
    if (region.on_letter != NULL) {
        region.on_letter(&region, s, l);
    }
    if (strstr(l->subject, ".beacon") == NULL && kind == SHARE_ANSWER_KIND) {
        struct incoming incoming = {.subject = l->subject, .reply = l->reply, .description = "", .data = data};
        share_on_answer(&s->share, strtoull(strrchr(l->subject, '.') + 1, NULL, 10), &incoming, time_of(s));
        return;
    }
    ck_assert_int_eq(message_read(data, &m), OK);
    if (m.kind == MESSAGE_BEACON) {
        share_on_beacon(&s->share, &m, time_of(s));
    } else {
        ck_assert_int_eq(kind, SHARE_ASK_KIND);
        share_on_ask(&s->share, &m, l->reply, time_of(s));
    }
}

/* Hands over what is due; true if that was anything. */
static inline bool region_deliver(void)
{
    bool was_any = false;
    for (uint32_t i = 0; i < LETTERS; i++) {
        struct letter *l = &region.letters[i];
        bool is_kept = false;
        if (!l->is_used || l->due_us > region.now) {
            continue;
        }
        for (uint32_t k = 0; k < SIDECARS; k++) {
            struct sidecar *s = &region.sidecars[k];
            if (!is_for(s, l) || s->is_cut) {
                continue;
            }
            if (s->is_paused) {
                is_kept = strstr(l->subject, ".beacon") == NULL;
                continue;
            }
            struct letter copy = *l;
            hand_over(s, &copy);
            was_any = true;
        }
        l->is_used = is_kept;
    }
    return was_any;
}

static inline void region_step(void)
{
    for (uint32_t i = 0; i < SIDECARS; i++) {
        struct sidecar *s = &region.sidecars[i];
        if (!s->is_paused) {
            ck_assert_uint_gt(share_step(&s->share, time_of(s)), s->mono_offset_us);
        }
    }
}

/* Everybody has said what there is to say at this moment. */
static inline void region_talk(void)
{
    do {
        region_step();
    } while (region_deliver());
}

static inline void region_run(uint64_t us)
{
    for (uint64_t until = region.now + us; region.now < until; region.now += 10 * MS) {
        region_talk();
    }
    region_talk();
}

static inline void set_rules(uint32_t i, uint64_t rules)
{
    struct sidecar *s = &region.sidecars[i];
    s->rules = rules;
    share_on_digest(&s->share, digest_of(rules), time_of(s));
}

/* The time of a sidecar in the test's. */
static inline uint64_t as_now(const struct sidecar *s, uint64_t us)
{
    return us > s->mono_offset_us ? us - s->mono_offset_us : 0;
}

static inline bool is_serving(const struct sidecar *s)
{
    return as_now(s, s->share.serve_until_us) > region.now;
}

static inline bool is_locking(const struct sidecar *s)
{
    return as_now(s, s->share.lock_until_us) > region.now;
}

#endif
