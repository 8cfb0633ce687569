/* What:    what the admin server answers: the table of routes and their handlers, neutral of the HTTP library.
 * Owns:    nothing; probes, metrics and what there is to look at are the caller's.
 * Threads: the admin server's one thread.
 * Fails:   as HTTP does: an error response says what was wrong, {"error": {"code": …, "message": …}}.
 *
 * A new endpoint is a row in the table of routes.c and a function. What must ask a worker, or invalidates, sets response->ask; routes_finish() then
 * answers with what came of it.
 */
#ifndef PROXY_ADMIN_ROUTES_H
#define PROXY_ADMIN_ROUTES_H

#include "common/base.h"
#include "common/ketama.h"
#include "common/metrics.h"
#include "proxy/admin/ask.h"
#include "proxy/strong/strong.h"

/* Tells whether a component can do its work. `text` gets one line, or several, for people ("node 10.0.0.1:11211: not connected"), or
 * stays empty. Called on the admin server's thread: it must not block. */
struct admin_probe {
    const char *name; /* "pool" */
    bool (*is_ready)(void *ctx, char *text, size_t size);
    void *ctx;
};

/* What there is to look at; immutable, but for the bus, which may be asked from any thread. */
struct admin_view {
    const struct config *config;
    const struct namespaces *namespaces;
    const struct ketama *ring;
    struct bus *bus; /* or NULL */
    struct strong *strong; /* or NULL */
};

struct invalidator;

struct routes {
    const struct admin_probe *probes;
    uint32_t probe_count;
    struct metrics *metrics;
    double started_s; /* of the process, since 1970; for process_start_time_seconds */
    const struct admin_view *view; /* or NULL: what needs it answers 503 */
    const struct invalidator *invalidator; /* the same */
};

struct http_request {
    const char *method; /* any verb */
    const char *path;   /* decoded, without the query; with a zero byte behind it, and perhaps others in it */
    size_t path_len;
    struct span rest;   /* of the path, decoded, behind what a route that ends with {…} begins with: any bytes */
    struct span query;  /* as it came */
    struct span body;
    const char *content_type; /* or NULL */
    bool wants_json;    /* the Accept header says so */
    bool is_trusted;    /* it has shown the token, or there is none */
};

#define HTTP_HEADERS_MAX 2048

struct http_response {
    unsigned status;
    const char *content_type; /* a constant */
    char allow[64];           /* the Allow header of a 405, else empty */
    char headers[HTTP_HEADERS_MAX]; /* further ones: "Name: value\n" each */
    FILE *body;               /* where handlers write; the caller's */
    struct ask *ask;          /* or NULL: others must be asked first, and the body is put aside */
};

void routes_init(struct routes *routes, const struct admin_probe *probes, uint32_t probe_count, struct metrics *metrics);

/* Answers a request. HEAD is GET; leaving the body out is the transport's business. */
void routes_dispatch(const struct routes *routes, struct http_request *request, struct http_response *response);

/* Answers with what came of response->ask. */
void routes_finish(const struct routes *routes, const struct ask *ask, struct http_response *response);

void http_response_init(struct http_response *response, FILE *body); /* a 200 of text */

/* What routes tell clients when they can not be answered: `code` is a constant, the message any text. */
void http_response_error(struct http_response *response, unsigned status, const char *code, const char *message);

/* One more header; left out when there is no room, or when the value could not stand in one. */
void http_response_header(struct http_response *response, const char *name, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Values of the query. The number keeps what it has when the parameter is not there; false: it is not a number of 0 to max. */
bool http_query_flag(const struct http_request *request, const char *name); /* there, and neither empty, "0" nor "false" */
bool http_query_number(const struct http_request *request, const char *name, uint64_t max, uint64_t *out);

#endif
