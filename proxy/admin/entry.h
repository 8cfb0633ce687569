/* What:    /cache/{key}: reads, peeks and changes of one entry, as a memcached client of its namespace would make them.
 * Owns:    nothing.
 * Threads: the admin server's.
 */
#ifndef PROXY_ADMIN_ENTRY_H
#define PROXY_ADMIN_ENTRY_H

#include <jansson.h>

#include "proxy/admin/routes.h"

void entry_get(const struct routes *routes, const struct http_request *request, struct http_response *response);
void entry_set(const struct routes *routes, const struct http_request *request, struct http_response *response);
void entry_delete(const struct routes *routes, const struct http_request *request, struct http_response *response);

/* The response to what a worker answered. */
void entry_finish(const struct admin_view *view, const struct ask *ask, struct http_response *response);

/* Bytes as JSON: a string under `name` where they are UTF-8, else base64 under `name64`. */
void entry_set_bytes(json_t *object, const char *name, const char *name64, struct span bytes);

#define TIMESTAMP_SIZE 32
/* "2026-11-24T08:30:00.123Z". */
const char *entry_timestamp(uint64_t wall_ms, char out[TIMESTAMP_SIZE]);

#endif
