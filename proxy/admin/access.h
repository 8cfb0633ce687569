/* What:    who may ask the admin server for what: the bearer token.
 * Owns:    nothing.
 * Threads: any; pure.
 */
#ifndef PROXY_ADMIN_ACCESS_H
#define PROXY_ADMIN_ACCESS_H

#include "common/base.h"

/* `authorization` is the header's value or NULL. Without a token everybody may. How long it takes tells nothing but lengths. */
bool access_is_granted(const char *authorization, const char *token);

/* What needs no token: /healthz and /readyz, for an orchestrator's probes. */
bool access_is_open(const char *uri);

#endif
