/* What:    the one value that the load generator stores and the scripted node answers with, so that a hit can be checked.
 * Owns:    nothing.
 * Threads: any.
 */
#ifndef BENCH_VALUE_H
#define BENCH_VALUE_H

#include <stddef.h>

static inline void value_fill(char *out, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (char)('a' + i % 26);
}

#endif
