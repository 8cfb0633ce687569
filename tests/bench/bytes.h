/* What:    a growable buffer that is filled at its end and emptied from its front.
 * Owns:    its memory, until bytes_free(). All zero is empty.
 * Threads: belongs to one thread.
 * Fails:   aborts when out of memory.
 */
#ifndef BENCH_BYTES_H
#define BENCH_BYTES_H

#include <stddef.h>
#include <string.h>

struct bytes {
    char *data;
    size_t at; /* what lies before is done with */
    size_t len;
    size_t capacity;
};

void bytes_grow(struct bytes *b, size_t capacity);
void bytes_free(struct bytes *b);

static inline void bytes_reserve(struct bytes *b, size_t capacity)
{
    if (capacity > b->capacity)
        bytes_grow(b, capacity);
}

static inline void bytes_append(struct bytes *b, const char *data, size_t len)
{
    if (len == 0) /* memcpy takes no null pointer, not even then */
        return;
    bytes_reserve(b, b->len + len);
    memcpy(b->data + b->len, data, len);
    b->len += len;
}

#endif
