/* What:    the admin HTTP server: libmicrohttpd on a thread of its own, in front of the routes. The only user of microhttpd.h.
 * Owns:    struct admin owns its listening socket, thread and copy of the probes' table; metrics and what the probes look at are
 *          borrowed until admin_destroy() returns.
 * Threads: admin_create and admin_destroy from the main thread; probes and metrics are read on the server's thread.
 * Fails:   ERR_IO when it can not listen: the log says where and why. Clients get an HTTP status, or are disconnected.
 *
 * An invalidation takes as long as the bus takes: its connection is put aside meanwhile, and others are served.
 *
 * Bounded: connections, header bytes, body bytes, and the seconds a connection may be silent.
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
    struct invalidator invalidator;
    unsigned max_connections; /* 0: 64; one more waits until another ends */
    unsigned timeout_s;       /* of a silent connection; 0: 10 */
};

struct admin;

enum err admin_create(const struct admin_options *options, struct log *log, struct admin **out);
void admin_destroy(struct admin **admin); /* waits for invalidations under way, and ends open connections; afterwards no probe is called any more */

#endif
