/* What:    what operators invalidate: keys, as a client's `delete` does, and patterns, as rules; a job is all of one request. And the routes for it.
 * Owns:    a job owns its items; rules and workers are borrowed.
 * Threads: job_create() and job_start() on the admin server's thread; on_done on whichever thread finished the last item; after it the admin
 *          server's again.
 * Fails:   job_create() with what is wrong with the request, before anything is done: nothing of it then takes effect. Each item then says for
 *          itself what became of it.
 */
#ifndef PROXY_ADMIN_INVALIDATE_H
#define PROXY_ADMIN_INVALIDATE_H

#include "proxy/admin/routes.h"
#include "proxy/cache/errand.h"
#include "proxy/cache/rules.h"

#define JOB_ITEMS_MAX 20000

struct invalidator {
    struct rules *rules; /* NULL: nothing can be invalidated */
    void (*submit_key)(void *ctx, struct errand *errand); /* to the key's worker */
    void *ctx;
};

struct job;
struct wait;

void invalidate_pattern(const struct routes *routes, const struct http_request *request, struct http_response *response);
void invalidate_many(const struct routes *routes, const struct http_request *request, struct http_response *response);
void invalidate_rules(const struct routes *routes, const struct http_request *request, struct http_response *response);

/* A pattern alone. */
enum err job_create(const struct invalidator *invalidator, struct span pattern, struct job **out, char *why, size_t why_size);
/* {"keys":[…],"patterns":[…]} */
enum err job_create_json(const struct invalidator *invalidator, struct span body, struct job **out, char *why, size_t why_size);
/* on_done may be called before this returns. */
void job_start(struct job *job, void (*on_done)(void *ctx), void *ctx);
/* Once done: whether nothing of it was; and: writes what became of each item, and of the wait for the other regions if there was one, and sets the status. */
bool job_has_failed(const struct job *job);
void job_write(const struct job *job, const struct wait *wait, struct http_response *response);
void job_destroy(struct job **job); /* one that has not been started, or is done; or NULL */

#endif
