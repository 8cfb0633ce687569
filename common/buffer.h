/* What:    memory for bytes on their way: reference-counted chunks, the pool they come from, and chains of them for output.
 * Owns:    a chunk belongs to whoever holds a reference; a chain owns a reference to every chunk it names.
 * Threads: a pool, its chunks and chains belong to one thread. A chunk made with pool NULL may be handed to another thread, whole.
 * Fails:   chunk_get returns NULL, and chain functions ERR_NOMEM, when the pool's limit is reached or memory is short.
 *
 * Small things are copied into the chain's last chunk; large ones are referenced where they are:
 *
 *   chain:  [VALUE k 0 5..END..VALUE big 0 65536][the value, in the chunk it was received in][END VALUE …      ]
 *            chunk A, copied bytes                 chunk B, referenced                        chunk A or C, copied bytes
 */
#ifndef COMMON_BUFFER_H
#define COMMON_BUFFER_H

#include <sys/uio.h>

#include "common/base.h"
#include "common/err.h"

#define CHUNK_CLASS_MIN 8  /* 256 bytes, header included */
#define CHUNK_CLASS_MAX 17 /* 128 KiB; larger ones come straight from malloc and go back to it */
#define CHUNK_CLASSES (CHUNK_CLASS_MAX - CHUNK_CLASS_MIN + 1)

struct chunk_pool;

struct chunk {
    struct chunk_pool *pool;
    struct chunk *next; /* on the pool's free list */
    uint32_t refs;
    uint32_t class; /* index of the free list, or CHUNK_CLASSES: none */
    size_t cap;
    char data[];
};

struct chunk_pool {
    struct chunk *free[CHUNK_CLASSES];
    size_t free_bytes;  /* kept on the free lists */
    size_t used_bytes;  /* handed out */
    size_t limit_bytes; /* for used_bytes */
};

void chunk_pool_init(struct chunk_pool *pool, size_t limit_bytes);
void chunk_pool_deinit(struct chunk_pool *pool); /* every chunk must be back */

/* A chunk for at least `size` bytes (cap says how many), with one reference. */
struct chunk *chunk_get(struct chunk_pool *pool, size_t size);
void chunk_free(struct chunk *chunk); /* internal: at zero references */

static inline struct chunk *chunk_ref(struct chunk *chunk)
{
    chunk->refs++;
    return chunk;
}

static inline void chunk_unref(struct chunk **chunk)
{
    struct chunk *c = *chunk;
    *chunk = NULL;
    if (c != NULL && --c->refs == 0) {
        chunk_free(c);
    }
}

/* From this size on bytes are referenced rather than copied: many small pieces cost the kernel more than a copy costs us (measured: at 1 KiB
 * referencing took 20 % more CPU in all). */
#define CHAIN_REF_MIN 4096
#define CHAIN_CHUNK 32768 /* what a chain takes for copied bytes once it holds more than a little, header included */

struct segment {
    struct chunk *chunk;
    char *data;
    size_t len;
};

#define CHAIN_INLINE 3

struct chain {
    struct segment inlined[CHAIN_INLINE];
    struct segment *segments; /* ring of `cap` */
    uint32_t cap;
    uint32_t head;
    uint32_t count;
    size_t bytes;
    struct chunk_pool *pool;
    struct chunk *tail; /* where copied bytes go; the chain holds a reference of its own */
    size_t tail_used;
};

void chain_init(struct chain *chain, struct chunk_pool *pool);
void chain_clear(struct chain *chain); /* lets go of everything; the chain may be used again */

/* Room for `len` ≤ CHAIN_RESERVE_MAX contiguous bytes at the end, to be written and then taken with chain_commit(); NULL without memory. */
#define CHAIN_RESERVE_MAX 8192
char *chain_reserve_slow(struct chain *chain, size_t len);
enum err chain_commit_slow(struct chain *chain, size_t len);

static inline char *chain_reserve(struct chain *chain, size_t len)
{
    struct chunk *tail = chain->tail;
    if (likely(tail != NULL && tail->cap - chain->tail_used >= len)) {
        return tail->data + chain->tail_used;
    }
    return chain_reserve_slow(chain, len);
}

static inline enum err chain_commit(struct chain *chain, size_t len)
{
    if (likely(chain->count > 0)) {
        uint32_t last = chain->head + chain->count - 1;
        struct segment *s = &chain->segments[last >= chain->cap ? last - chain->cap : last];
        if (likely(s->data + s->len == chain->tail->data + chain->tail_used)) {
            s->len += len;
            chain->tail_used += len;
            chain->bytes += len;
            return OK;
        }
    }
    return chain_commit_slow(chain, len);
}

enum err chain_append(struct chain *chain, const char *data, size_t len);                          /* copies */
enum err chain_append_ref(struct chain *chain, struct chunk *chunk, const char *data, size_t len); /* takes a reference of its own */

/* Copies or references, by size. `chunk` may be NULL: copy. */
static inline enum err chain_append_value(struct chain *chain, struct chunk *chunk, const char *data, size_t len)
{
    if (chunk != NULL && len >= CHAIN_REF_MIN) {
        return chain_append_ref(chain, chunk, data, len);
    }
    return chain_append(chain, data, len);
}

/* Up to `max` pieces from the front, for writev; returns how many. */
int chain_iov(const struct chain *chain, struct iovec *iov, int max);
void chain_consume(struct chain *chain, size_t len); /* what has been written */

/* Copies small pieces out of large shared chunks, so that what a slow peer has not read yet does not pin more than it needs. */
enum err chain_compact(struct chain *chain);

#endif
