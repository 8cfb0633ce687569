#include "common/buffer.h"

#define CHAIN_FIRST_CHUNK 2048
#define FREE_BYTES_MAX (16U << 20) /* beyond this, chunks go back to malloc */

void chunk_pool_init(struct chunk_pool *pool, size_t limit_bytes)
{
    *pool = (struct chunk_pool){.limit_bytes = limit_bytes};
}

void chunk_pool_deinit(struct chunk_pool *pool)
{
    for (size_t i = 0; i < CHUNK_CLASSES; i++) {
        while (pool->free[i] != NULL) {
            struct chunk *c = pool->free[i];
            pool->free[i] = c->next;
            free(c);
        }
    }
    pool->free_bytes = 0;
}

static uint32_t class_of(size_t total)
{
    if (total > (1UL << CHUNK_CLASS_MAX)) {
        return CHUNK_CLASSES;
    }
    uint32_t bits = total <= (1UL << CHUNK_CLASS_MIN) ? CHUNK_CLASS_MIN : 64 - (uint32_t)__builtin_clzl(total - 1);
    return bits - CHUNK_CLASS_MIN;
}

struct chunk *chunk_get(struct chunk_pool *pool, size_t size)
{
    size_t total = size + sizeof(struct chunk);
    if (total < size) {
        return NULL;
    }
    uint32_t class = class_of(total);
    if (class < CHUNK_CLASSES) {
        total = 1UL << (class + CHUNK_CLASS_MIN);
    }
    if (pool != NULL && total > pool->limit_bytes - MIN(pool->used_bytes, pool->limit_bytes)) {
        return NULL;
    }
    struct chunk *c;
    if (pool != NULL && class < CHUNK_CLASSES && pool->free[class] != NULL) {
        c = pool->free[class];
        pool->free[class] = c->next;
        pool->free_bytes -= total;
    } else {
        c = malloc(total);
        if (c == NULL) {
            return NULL;
        }
        c->pool = pool;
        c->class = class;
        c->cap = total - sizeof(struct chunk);
    }
    if (pool != NULL) {
        pool->used_bytes += total;
    }
    c->refs = 1;
    c->next = NULL;
    return c;
}

void chunk_free(struct chunk *c)
{
    struct chunk_pool *pool = c->pool;
    size_t total = c->cap + sizeof(struct chunk);
    if (pool != NULL) {
        pool->used_bytes -= total;
        if (c->class < CHUNK_CLASSES && pool->free_bytes + total <= FREE_BYTES_MAX) {
            c->next = pool->free[c->class];
            pool->free[c->class] = c;
            pool->free_bytes += total;
            return;
        }
    }
    free(c);
}

void chain_init(struct chain *chain, struct chunk_pool *pool)
{
    chain->segments = chain->inlined;
    chain->cap = CHAIN_INLINE;
    chain->head = 0;
    chain->count = 0;
    chain->bytes = 0;
    chain->pool = pool;
    chain->tail = NULL;
    chain->tail_used = 0;
}

static struct segment *segment_at(const struct chain *chain, uint32_t i)
{
    uint32_t at = chain->head + i;
    return &chain->segments[at >= chain->cap ? at - chain->cap : at];
}

static void release_storage(struct chain *chain)
{
    chunk_unref(&chain->tail);
    chain->tail_used = 0;
    chain->head = 0;
    if (chain->segments != chain->inlined) {
        free(chain->segments);
        chain->segments = chain->inlined;
        chain->cap = CHAIN_INLINE;
    }
}

void chain_clear(struct chain *chain)
{
    for (uint32_t i = 0; i < chain->count; i++) {
        chunk_unref(&segment_at(chain, i)->chunk);
    }
    chain->count = 0;
    chain->bytes = 0;
    release_storage(chain);
}

/* A new last segment; takes over the reference. */
static enum err push_segment(struct chain *chain, struct chunk *chunk, char *data, size_t len)
{
    if (chain->count == chain->cap) {
        uint32_t cap = chain->cap * 4;
        struct segment *grown = malloc(cap * sizeof *grown);
        if (grown == NULL) {
            return ERR_NOMEM;
        }
        for (uint32_t i = 0; i < chain->count; i++) {
            grown[i] = *segment_at(chain, i);
        }
        if (chain->segments != chain->inlined) {
            free(chain->segments);
        }
        chain->segments = grown;
        chain->cap = cap;
        chain->head = 0;
    }
    chain->count++;
    *segment_at(chain, chain->count - 1) = (struct segment){chunk, data, len};
    chain->bytes += len;
    return OK;
}

char *chain_reserve_slow(struct chain *chain, size_t len)
{
    /* The first bytes of an otherwise empty chain are often all there is; hundreds of one-reply chains in a turn should stay in the
     * processor's cache. */
    size_t size = chain->bytes == 0 ? CHAIN_FIRST_CHUNK : CHAIN_CHUNK;
    struct chunk *c = chunk_get(chain->pool, MAX(size - sizeof(struct chunk), len));
    if (c == NULL) {
        return NULL;
    }
    chunk_unref(&chain->tail);
    chain->tail = c;
    chain->tail_used = 0;
    return c->data;
}

enum err chain_commit_slow(struct chain *chain, size_t len)
{
    if (len == 0) {
        return OK;
    }
    enum err err = push_segment(chain, chain->tail, chain->tail->data + chain->tail_used, len);
    if (err == OK) {
        chunk_ref(chain->tail);
        chain->tail_used += len;
    }
    return err;
}

enum err chain_append(struct chain *chain, const char *data, size_t len)
{
    while (len > 0) {
        size_t room = chain->tail == NULL ? 0 : chain->tail->cap - chain->tail_used;
        if (room == 0) {
            if (chain_reserve_slow(chain, MIN(len, (size_t)CHAIN_RESERVE_MAX)) == NULL) {
                return ERR_NOMEM;
            }
            room = chain->tail->cap;
        }
        size_t n = MIN(room, len);
        memcpy(chain->tail->data + chain->tail_used, data, n);
        enum err err = chain_commit(chain, n);
        if (err != OK) {
            return err;
        }
        data += n;
        len -= n;
    }
    return OK;
}

enum err chain_append_ref(struct chain *chain, struct chunk *chunk, const char *data, size_t len)
{
    if (len == 0) {
        return OK;
    }
    enum err err = push_segment(chain, chunk, (char *)(uintptr_t)data, len);
    if (err == OK) {
        chunk_ref(chunk);
    }
    return err;
}

int chain_iov(const struct chain *chain, struct iovec *iov, int max)
{
    int n = 0;
    for (uint32_t i = 0; i < chain->count && n < max; i++, n++) {
        const struct segment *s = segment_at(chain, i);
        iov[n] = (struct iovec){.iov_base = s->data, .iov_len = s->len};
    }
    return n;
}

void chain_consume(struct chain *chain, size_t len)
{
    chain->bytes -= len;
    while (len > 0) {
        struct segment *s = segment_at(chain, 0);
        if (len < s->len) {
            s->data += len;
            s->len -= len;
            return;
        }
        len -= s->len;
        chunk_unref(&s->chunk);
        chain->head = chain->head + 1 == chain->cap ? 0 : chain->head + 1;
        chain->count--;
    }
    if (chain->count == 0) {
        release_storage(chain);
    }
}

enum err chain_compact(struct chain *chain)
{
    for (uint32_t i = 0; i < chain->count; i++) {
        struct segment *s = segment_at(chain, i);
        if (s->len * 4 >= s->chunk->cap || s->chunk->class == 0) { /* a chunk of the smallest class can not be bettered */
            continue;
        }
        struct chunk *c = chunk_get(chain->pool, s->len);
        if (c == NULL) {
            return ERR_NOMEM;
        }
        memcpy(c->data, s->data, s->len);
        chunk_unref(&s->chunk);
        s->chunk = c;
        s->data = c->data;
    }
    if (chain->tail != NULL && chain->tail->refs == 1) {
        chunk_unref(&chain->tail);
        chain->tail_used = 0;
    }
    return OK;
}
