/* What:    one worker thread: its loop, its view of the pool, its part of the cache, its listeners and sessions.
 * Owns:    all of these. Ring, namespaces, loader and bus are shared and borrowed.
 * Threads: worker_create/start/stop/destroy on the main thread; the rest is the worker's own. worker_apply() from the bus's thread.
 */
#ifndef PROXY_APP_WORKER_H
#define PROXY_APP_WORKER_H

#include <pthread.h>

#include "proxy/front/session.h"
#include "proxy/net/listener.h"

struct worker_context {
    const struct config *config;
    const struct namespaces *namespaces;
    const struct ketama *ring;
    struct rules *rules;
    struct log *log;
    struct metrics *metrics;
    struct tls *tls; /* or NULL */
    _Atomic uint32_t *connection_count;
    uint64_t started_ms;
    struct metrics_baseline *baseline;
    struct credentials *credentials; /* or NULL */
    struct front **fronts;           /* each worker puts its own in here when it is created */
};

struct strong;
struct strong_task;
struct worker;

/* `listen_fds`: one for each of config.listen, taken over. */
enum err worker_create(const struct worker_context *context, uint32_t index, uint32_t clock_id, const int *listen_fds, struct worker **out);

/* Starts the thread. Clients are accepted once every node has been tried, so that the first of them does not meet an empty pool, and once the
 * rules of the region are known, or rules_wait is over. */
enum err worker_start(struct worker *worker, struct loader *loader, struct writer *writer, struct bus *bus, struct strong *strong);

/* For what comes to it from other threads: its mailbox (any thread may post), and who may be given rules. */
struct cache *worker_cache(struct worker *worker);

/* Applies an invalidation of another region; any thread. */
void worker_apply(struct worker *worker, struct delivery *delivery);

/* Does in the pool what a sidecar asks for (cache/lock.h); any thread. */
void worker_serve(struct worker *worker, struct strong_task *task);

void worker_drain(struct worker *worker); /* no new clients; those that are there are answered and closed */
bool worker_is_drained(struct worker *worker);
void worker_stop(struct worker *worker); /* ends the thread */
/* After all threads have ended: delivers what they had sent each other; false when there was nothing. */
bool worker_settle(struct worker *worker);
/* After the loader and the bus have stopped: ends what is still under way. */
void worker_destroy(struct worker **worker);

#endif
