/* What:    percent-encoding: the path and query of a URI to bytes, and bytes to a path segment.
 * Owns:    nothing.
 * Threads: any; pure.
 * Fails:   ERR_INVALID for a '%' without two hexadecimal digits behind it.
 */
#ifndef COMMON_URI_H
#define COMMON_URI_H

#include "common/base.h"
#include "common/err.h"

/* Decodes into `out`, which has room for raw.len bytes and may be raw.data itself. Any byte may come out, zero included. In a query '+' is a space. */
enum err uri_decode(struct span raw, bool is_query, char *out, size_t *len);

/* The first parameter of this name, still encoded; false: there is none. "name" alone is an empty one. */
bool uri_parameter(struct span query, const char *name, struct span *raw);

/* Writes what may stand in a path or a query, at most 3 * bytes.len characters; returns how many. */
size_t uri_encode(struct span bytes, char *out);

#endif
