/* What:    ?wait=regions of the admin API: what was asked for is answered once every other region has applied it, or when the time is up. And GET /applied,
 *          which waits for what was published before.
 * Owns:    struct wait is the ask's that it belongs to; its regions are lent to the bus from wait_start() until on_done.
 * Threads: the admin server's, but for wait_start(), which is called wherever the change has been made; on_done on the bus's thread or within wait_start().
 * Fails:   wait_create() answers the request itself. What a wait has come to is a part of the answer.
 */
#ifndef PROXY_ADMIN_WAIT_H
#define PROXY_ADMIN_WAIT_H

#include <jansson.h>

#include "proxy/admin/routes.h"
#include "proxy/bus/confirmation.h"

#define WAIT_DEFAULT_MS 10000U
#define WAIT_MAX_MS 300000U
#define WAIT_DUMP (JSON_COMPACT | JSON_REAL_PRECISION(9)) /* milliseconds, to the microsecond */

enum wait_state {
    WAIT_NOT_BEGUN,
    WAIT_NOBODY, /* there are no other regions */
    WAIT_BEGUN,
};

struct wait {
    struct confirmation confirmation;
    struct bus *bus; /* or NULL */
    const struct config *config;
    uint32_t timeout_ms;
    enum wait_state state;
    void (*on_done)(void *ctx);
    void *ctx;
    struct confirmed regions[];
};

/* What the query asks for; *out NULL if it asks for no wait. False: it can not be had, and the response says why. */
bool wait_create(const struct routes *routes, const struct http_request *request, struct http_response *response, struct wait **out);
void wait_destroy(struct wait **wait); /* or NULL */

/* The time runs from here. `is_stopping` is alive as long as the wait. */
void wait_arm(struct wait *wait, const _Atomic bool *is_stopping);
/* What is waited for has been done. False: there is nobody to wait for. */
bool wait_start(struct wait *wait, void (*on_done)(void *ctx), void *ctx);

/* Adds to `root` which regions have and which have not; if not all: the error, and the response's status unless it has a worse one. `wait` NULL: nothing. */
void wait_write(const struct wait *wait, json_t *root, struct http_response *response);

void wait_applied(const struct routes *routes, const struct http_request *request, struct http_response *response);
void wait_finish(const struct wait *wait, struct http_response *response);

#endif
