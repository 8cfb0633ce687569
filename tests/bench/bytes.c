#include "tests/bench/bytes.h"

#include <stdlib.h>

void bytes_grow(struct bytes *b, size_t capacity)
{
    if (capacity < 2 * b->capacity)
        capacity = 2 * b->capacity;
    char *data = realloc(b->data, capacity);
    if (data == NULL)
        abort();
    b->data = data;
    b->capacity = capacity;
}

void bytes_free(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){0};
}
