#include "proxy/net/resolve.h"

#include <event2/dns.h>
#include <netdb.h>
#include <sys/un.h>

void resolver_init(struct resolver *r, struct loop *loop)
{
    *r = (struct resolver){.loop = loop};
}

void resolver_deinit(struct resolver *r)
{
    if (r->dns != NULL) {
        evdns_base_free(r->dns, 0);
        r->dns = NULL;
    }
}

static void take(struct resolution *res, const struct sockaddr *address, size_t len)
{
    memcpy(&res->address, address, len);
    res->address_len = (socklen_t)len;
}

static void on_answer(int result, struct evutil_addrinfo *ai, void *arg)
{
    struct resolution *res = arg;
    if (result == EVUTIL_EAI_CANCEL) {
        return; /* the resolution may be gone */
    }
    res->request = NULL;
    enum err err = ERR_UNAVAILABLE;
    if (result == 0 && ai != NULL && ai->ai_addrlen <= sizeof res->address) {
        take(res, ai->ai_addr, ai->ai_addrlen);
        err = OK;
    }
    if (ai != NULL) {
        evutil_freeaddrinfo(ai);
    }
    res->on_done(res, err);
}

static void ask_dns(struct resolver *r, const struct address *address, const char *port, struct resolution *res)
{
    if (r->dns == NULL) {
        r->dns = evdns_base_new(r->loop->base, EVDNS_BASE_INITIALIZE_NAMESERVERS | EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    }
    if (r->dns == NULL) {
        res->on_done(res, ERR_UNAVAILABLE);
        return;
    }
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_protocol = IPPROTO_TCP};
    struct evdns_getaddrinfo_request *request = evdns_getaddrinfo(r->dns, address->host, port, &hints, on_answer, res);
    if (request != NULL) { /* NULL: on_answer has been called already */
        res->request = request;
    }
}

void resolver_ask(struct resolver *r, const struct address *address, struct resolution *res)
{
    res->request = NULL;
    if (address->path != NULL) {
        struct sockaddr_un sun = {.sun_family = AF_UNIX};
        if (strlen(address->path) >= sizeof sun.sun_path) {
            res->on_done(res, ERR_UNAVAILABLE);
            return;
        }
        strcpy(sun.sun_path, address->path);
        take(res, (struct sockaddr *)&sun, sizeof sun);
        res->on_done(res, OK);
        return;
    }
    char port[8];
    snprintf(port, sizeof port, "%u", address->port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *ai = NULL;
    if (getaddrinfo(address->host, port, &hints, &ai) != 0) {
        ask_dns(r, address, port, res);
        return;
    }
    take(res, ai->ai_addr, ai->ai_addrlen);
    freeaddrinfo(ai);
    res->on_done(res, OK);
}

void resolver_cancel(struct resolution *res)
{
    if (res->request != NULL) {
        evdns_getaddrinfo_cancel(res->request);
        res->request = NULL;
    }
}
