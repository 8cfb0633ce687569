/* What:    all voters of one sidecar in west, each with a scripted bucket, for the holder's and the suspension's tests. Time is the test's.
 * Owns:    nothing to be freed after voters_end().
 */
#ifndef TESTS_UNIT_STRONG_VOTERS_H
#define TESTS_UNIT_STRONG_VOTERS_H

#include <unistd.h>

#include "proxy/strong/vote.h"
#include "tests/unit/bus/fake_bucket.h"
#include "tests/unit/check_main.h"

#define LEASE (3 * S)
#define WINDOW (10 * S)
#define VOTERS 3

struct world {
    uint64_t now_us;
    struct log *log;
    struct config_strong strong;
    struct bucket buckets[VOTERS];
    struct fake *fakes[VOTERS];
    struct vote votes[VOTERS];
    struct voters voters;
    bool is_mute[VOTERS]; /* nothing gets there */
};

static inline void world_begin(struct world *w)
{
    *w = (struct world){.now_us = 1000 * S, .log = log_create(STDERR_FILENO, LOG_ERROR), .voters.count = VOTERS,
                        .strong = {.lease_ms = LEASE / MS, .lock_window_ms = WINDOW / MS}};
    fake_config.strong = &w->strong;
    for (uint32_t i = 0; i < VOTERS; i++) {
        w->fakes[i] = fake_create();
        struct vote_context context = {&fake_config, &w->fakes[i]->transport, w->log, i, 'v', 5 + i};
        vote_init(&w->votes[i], &context);
        w->buckets[i].name = w->votes[i].stream + 3;
        w->voters.all[i] = &w->votes[i];
    }
}

static inline void world_end(struct world *w)
{
    for (uint32_t i = 0; i < VOTERS; i++) {
        fake_destroy(w->fakes[i]);
    }
    log_destroy(&w->log);
}

/* Everything that was sent is answered, until nothing more is. */
static inline void world_talk(struct world *w)
{
    for (bool was_any = true; was_any;) {
        was_any = false;
        for (uint32_t i = 0; i < VOTERS; i++) {
            struct fake *fake = w->fakes[i];
            while (fake->count > 0) {
                struct sent sent = fake->sent[--fake->count];
                char text[512];
                was_any = true;
                if (!w->is_mute[i]) {
                    struct incoming message = bucket_answer(&w->buckets[i], &sent, text, sizeof text);
                    vote_on_answer(&w->votes[i], fake_number(&sent), &message, w->now_us);
                }
                free(sent.data);
            }
        }
    }
}

static inline void world_up(struct world *w)
{
    for (uint32_t i = 0; i < VOTERS; i++) {
        vote_on_up(&w->votes[i], w->now_us);
    }
    world_talk(w);
    w->now_us += LEASE;
    ck_assert_uint_eq(voters_usable(&w->voters, w->now_us), VOTERS);
}

static inline struct bucket_entry *world_entry(struct world *w, uint32_t voter, const char *region)
{
    char subject[64];
    snprintf(subject, sizeof subject, "$KV.%s.%s", w->buckets[voter].name, region);
    return bucket_entry(&w->buckets[voter], subject);
}

static inline struct lease_record world_record(struct world *w, uint32_t voter, const char *region)
{
    struct lease_record record = {.number = 0};
    const struct bucket_entry *entry = world_entry(w, voter, region);
    ck_assert(entry->seq == 0 || record_read(span_str(entry->data), &record) == OK);
    return record;
}

/* By another's hand. */
static inline void world_write(struct world *w, uint32_t voter, const char *region, struct lease_record record)
{
    struct bucket_entry *entry = world_entry(w, voter, region);
    record_write(&record, entry->data);
    entry->seq = ++w->buckets[voter].seq;
}

static inline uint64_t world_step(struct world *w)
{
    uint64_t next_us = UINT64_MAX;
    for (uint32_t i = 0; i < VOTERS; i++) {
        uint64_t due_us = vote_step(&w->votes[i], w->now_us);
        next_us = MIN(next_us, due_us);
    }
    return next_us;
}

#endif
