/* What:    what the admin server answers: the table of routes and their handlers, neutral of the HTTP library.
 * Owns:    nothing; probes and metrics are the caller's.
 * Threads: the admin server's one thread.
 * Fails:   as HTTP does: an error response says what was wrong, {"error": {"code": …, "message": …}}.
 *
 * A new endpoint is a row in the table of routes.c and a function.
 */
#ifndef PROXY_ADMIN_ROUTES_H
#define PROXY_ADMIN_ROUTES_H

#include "common/base.h"
#include "common/metrics.h"

/* Tells whether a component can do its work. `text` gets one line, or several, for people ("node 10.0.0.1:11211: not connected"), or
 * stays empty. Called on the admin server's thread: it must not block. */
struct admin_probe {
    const char *name; /* "pool" */
    bool (*is_ready)(void *ctx, char *text, size_t size);
    void *ctx;
};

struct routes {
    const struct admin_probe *probes;
    uint32_t probe_count;
    struct metrics *metrics;
    double started_s; /* of the process, since 1970; for process_start_time_seconds */
    struct rules *rules; /* or NULL */
};

struct http_request {
    const char *method; /* any verb */
    const char *path;   /* decoded, without the query */
};

struct http_response {
    unsigned status;
    const char *content_type; /* a constant */
    char allow[64];           /* the Allow header of a 405, else empty */
    FILE *body;               /* where handlers write; the caller's */
};

void routes_init(struct routes *routes, const struct admin_probe *probes, uint32_t probe_count, struct metrics *metrics);

/* Answers a request. HEAD is GET; leaving the body out is the transport's business. */
void routes_dispatch(const struct routes *routes, const struct http_request *request, struct http_response *response);

/* `code` and `message` are constants without quotes, backslashes or control characters. */
void http_response_error(struct http_response *response, unsigned status, const char *code, const char *message);

#endif
