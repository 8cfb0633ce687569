/* What:    the admin HTTP server: libmicrohttpd on a thread of its own, in front of the routes. The only user of microhttpd.h.
 * Owns:    struct admin owns its listening socket, thread, mailbox and copy of the probes' table; metrics, the view, the workers' caches and what
 *          the probes look at are borrowed until admin_destroy() returns.
 * Threads: admin_create, admin_stop and admin_destroy from the main thread; everything else happens on the server's thread, which waits for its sockets
 *          and its mailbox. A request that others must be asked for is suspended meanwhile.
 * Fails:   ERR_IO when it can not listen: the log says where and why. Clients get an HTTP status, or are disconnected.
 *
 * Bounded: connections, header bytes, body bytes (of one, and of all together), requests that others are asked for (429), the seconds a connection
 * may be silent, and those that a request may take to arrive, to be done, and to be answered.
 *
 *   headers ─▶ on_request: token ─▶ body ─▶ routes_dispatch ─▶ response
 *                                              └─ ask: suspended ⇢ worker, rules, bus ⇢ mailbox ─▶ on_ask_done: resumed ─▶ routes_finish ─▶ response
 */
#ifndef PROXY_ADMIN_HTTP_H
#define PROXY_ADMIN_HTTP_H

#include "common/config.h"
#include "common/err.h"
#include "common/log.h"
#include "common/metrics.h"
#include "proxy/admin/invalidate.h"
#include "proxy/admin/routes.h"

struct admin_options {
    const struct address *address; /* host and port, or a unix socket */
    unsigned unix_mode;            /* of the unix socket */
    const struct admin_probe *probes;
    uint32_t probe_count;
    struct metrics *metrics;
    struct invalidator invalidator; /* copied */
    unsigned max_connections; /* 0: 64; one more waits until another ends */
    unsigned timeout_s;       /* of a silent connection; 0: 10 */
    unsigned request_s;       /* for a request to arrive, and for its answer to be taken; 0: 60 */
    const char *token;        /* that requests must show, or NULL */
    const struct admin_view *view; /* or NULL: nothing can be asked but health and metrics; copied */
    struct cache *const *caches;   /* the workers' */
    uint32_t cache_count;
    unsigned max_asks;        /* under way at the workers; 0: 32 */
    unsigned ask_ms;          /* for a worker to answer; 0: 15 s */
};

struct admin;

enum err admin_create(const struct admin_options *options, struct log *log, struct admin **out);
/* In two steps, because workers answer by mail: stop waits for invalidations under way, while workers, rules and bus still run, ends waits for regions, connections
 * and thread, and no probe is called any more; destroy frees it once no worker runs any more. */
void admin_stop(struct admin *admin); /* or NULL */
void admin_destroy(struct admin **admin); /* stops it, if need be */

#endif
