/* What:    who may ask the admin server for what: the bearer token, and how much a request may bring along.
 * Owns:    nothing.
 * Threads: any; pure.
 */
#ifndef PROXY_ADMIN_ACCESS_H
#define PROXY_ADMIN_ACCESS_H

#include "common/base.h"

/* `authorization` is the header's value or NULL. Without a token everybody may. How long it takes tells nothing but lengths. */
bool access_is_granted(const char *authorization, const char *token);

/* How large a request's body may be. `uri` as it came; value_max is that of a cache's value. */
size_t access_body_max(const char *uri, size_t value_max);

/* What is known of a request once its headers are there. */
struct access {
    bool is_trusted;
    const char *uri;
    uint64_t body_len; /* as announced */
    uint64_t body_max;
    uint64_t bodies_left; /* of what all bodies together may have */
};

struct access_refusal {
    unsigned status;
    const char *code;
    const char *message;
};

/* NULL: it may go on. /healthz and /readyz need no token, for an orchestrator's probes. */
const struct access_refusal *access_judge(const struct access *access);

#endif
