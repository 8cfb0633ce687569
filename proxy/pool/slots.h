/* What:    the requests under way on one connection, oldest first: a ring of slots that grows up to its limit.
 * Owns:    the ring; not the calls.
 * Threads: one at a time.
 * Fails:   never; slots_have_room() is to be asked before slots_push().
 */
#ifndef PROXY_POOL_SLOTS_H
#define PROXY_POOL_SLOTS_H

#include "common/base.h"
#include "common/err.h"

struct node_call;

struct slot {
    struct node_call *call; /* NULL: timed out; its reply belongs to nobody */
    uint64_t sent_us;
};

struct slots {
    struct slot *ring;
    uint32_t cap; /* a power of two */
    uint32_t head;
    uint32_t count;
    uint32_t limit;
    uint32_t expired; /* so many of the oldest have timed out */
};

static inline void slots_init(struct slots *s, uint32_t limit)
{
    *s = (struct slots){.cap = 64, .limit = limit};
    s->ring = xmalloc(s->cap * sizeof *s->ring);
}

static inline void slots_deinit(struct slots *s)
{
    free(s->ring);
    s->ring = NULL;
}

static inline struct slot *slots_at(const struct slots *s, uint32_t i)
{
    return &s->ring[(s->head + i) & (s->cap - 1)];
}

static inline bool slots_have_room(const struct slots *s)
{
    return s->count < s->limit;
}

static inline void slots_push(struct slots *s, struct node_call *call, uint64_t now_us)
{
    if (unlikely(s->count == s->cap)) {
        struct slot *grown = xmalloc(2 * (size_t)s->cap * sizeof *grown);
        for (uint32_t i = 0; i < s->count; i++) {
            grown[i] = *slots_at(s, i);
        }
        free(s->ring);
        s->ring = grown;
        s->cap *= 2;
        s->head = 0;
    }
    s->count++;
    *slots_at(s, s->count - 1) = (struct slot){call, now_us};
}

/* Fetches what the next reply but `ahead` will need while this one is being handled: with many requests under way it is not in the
 * processor's cache. */
static inline void slots_prefetch(const struct slots *s, uint32_t ahead)
{
    if (ahead < s->count) {
        uintptr_t call = (uintptr_t)slots_at(s, ahead)->call; /* a number, since it may be none, or smaller than what is fetched */
        __builtin_prefetch((const void *)call);
        __builtin_prefetch((const void *)(call + 64));
        __builtin_prefetch((const void *)(call + 128));
        __builtin_prefetch((const void *)(call + 256));
    }
}

static inline struct slot slots_pop(struct slots *s)
{
    struct slot slot = *slots_at(s, 0);
    s->head = (s->head + 1) & (s->cap - 1);
    s->count--;
    if (s->expired > 0) {
        s->expired--;
    }
    return slot;
}

#endif
