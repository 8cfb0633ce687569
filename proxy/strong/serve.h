/* What:    what other sidecars ask of this region's pool: locks, their end, tombstones; done by this sidecar's workers while it has a share in the
 *          region's lease, which is looked at before and after.
 * Owns:    the tasks from server_on_request() until they are answered.
 * Threads: strong's.
 * Fails:   by its answers; too many tasks under way, or bytes that are no message, are counted and not answered: who asked asks again.
 */
#ifndef PROXY_STRONG_SERVE_H
#define PROXY_STRONG_SERVE_H

#include "proxy/bus/transport.h"
#include "proxy/strong/message.h"
#include "proxy/strong/share.h"
#include "proxy/strong/strong.h"

#define SERVE_TASKS_MAX 16384U
#define SERVE_ENDED 8192U /* locks whose end is remembered */
#define SERVE_KIND 's'

struct server {
    const struct config *config;
    struct log *log;
    struct metrics_shard *metrics;
    struct mailbox *mailbox;     /* strong's */
    struct transport *transport; /* of the own region's NATS */
    const struct strong_sink *sink;
    uint64_t sidecar;
    uint64_t voters;
    const struct share *share;
    uint32_t count;
    uint64_t ended[SERVE_ENDED]; /* by hash of its version, a lock that was given up: one that comes late, or again, is not put */
    uint64_t told_us; /* when something that is wrong was last said */
};

/* Answers with nothing but a status. */
void server_answer(struct server *server, const char *reply, enum message_status status);

void server_on_request(struct server *server, const struct incoming *incoming, uint64_t now_us);

#endif
