/* What:    one client connection: parses what comes, hands each request to the cache, and renders the replies in the order of the requests.
 * Owns:    itself, from session_accept() until its stream is buried; its operations until they are done.
 * Threads: its worker's.
 *
 *   stream ──on_data──▶ codec_parse ──▶ operation on the queue ──▶ cache_handle
 *   on_done ──▶ the head of the queue is done: codec_render into the stream's output, and the next, …
 *
 * Bounds: QUEUE_MAX requests under way and STREAM_HIGH bytes of output; beyond, nothing more is parsed or read until the client has
 * taken what there is. A client that lets max_client_buffer pile up is disconnected.
 */
#ifndef PROXY_FRONT_SESSION_H
#define PROXY_FRONT_SESSION_H

#include <stdatomic.h>

#include "common/credentials.h"
#include "proxy/cache/cache.h"

/* What all sessions of a worker share. */
struct front {
    const struct config *config;
    struct cache *cache;
    struct loop *loop;
    struct log *log;
    struct metrics *metrics; /* the sums, for stats */
    struct metrics_shard *shard;
    struct metrics_baseline *baseline; /* of the last `stats reset`; shared */
    struct credentials *credentials;   /* NULL: nobody needs to authenticate; shared */
    struct front *const *fronts;       /* of all workers, for `stats conns` */
    uint32_t front_count;
    struct list sessions;
    uint64_t session_count;
    _Atomic uint32_t *connection_count; /* of all workers, for max_connections */
    uint64_t started_ms;                /* wall clock, for stats */
    bool is_draining;
    struct operation *batch[KETAMA_MANY]; /* GETs just parsed, whose home nodes are looked for together; empty between callbacks */
    uint32_t batched;
    struct tls *tls; /* or NULL: no listener speaks it */
    struct timer idle_timer; /* looks for idle clients, when there is an idle_timeout */
};

void front_init(struct front *front);
/* Sessions without anything under way are closed, the others as soon as they have been answered. */
void front_drain(struct front *front);
void front_deinit(struct front *front); /* closes what is left */

/* What there is to say of a client. */
struct session_info {
    int fd;
    const char *state; /* in memcached's words */
    const char *protocol;
    uint64_t idle_us; /* since it last sent anything */
};

/* Calls each() for every client of this worker. */
void front_list(const struct front *front, void (*each)(void *ctx, const struct session_info *info), void *ctx);

/* Takes an accepted socket over. */
void session_accept(void *front, int fd, const struct config_listen *listen);

#endif
