/* What:    host names to socket addresses, without blocking a worker: numbers at once, names through libevent's resolver.
 * Owns:    struct resolver owns the loop's DNS client, made when the first name is asked for.
 * Threads: its loop's.
 * Fails:   on_done with ERR_UNAVAILABLE.
 */
#ifndef PROXY_NET_RESOLVE_H
#define PROXY_NET_RESOLVE_H

#include <sys/socket.h>

#include "common/config.h"
#include "proxy/net/loop.h"

struct evdns_base;

struct resolver {
    struct loop *loop;
    struct evdns_base *dns;
};

struct resolution {
    void (*on_done)(struct resolution *resolution, enum err err);
    struct sockaddr_storage address;
    socklen_t address_len;
    struct evdns_getaddrinfo_request *request; /* under way, or NULL */
};

void resolver_init(struct resolver *resolver, struct loop *loop);
void resolver_deinit(struct resolver *resolver);

/* on_done may be called before this returns. */
void resolver_ask(struct resolver *resolver, const struct address *address, struct resolution *resolution);
void resolver_cancel(struct resolution *resolution); /* on_done will not be called any more */

#endif
