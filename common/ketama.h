/* What:    the hash ring: which node a key belongs to. Point for point the ring of libmemcached's weighted ketama
 *          (MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED), so that a fleet can be moved over without a cold cache.
 * Owns:    struct ketama owns its points; nodes are known by index only.
 * Threads: immutable once made; any thread.
 * Fails:   ERR_INVALID for no nodes or no weight.
 * Source:  libmemcached 1.1, update_continuum() and dispatch_host(); Richard Jones, "libketama", 2007.
 */
#ifndef COMMON_KETAMA_H
#define COMMON_KETAMA_H

#include "common/base.h"
#include "common/err.h"

struct ketama;

struct ketama_node {
    const char *host; /* as the application's client library would be given it; a unix socket's path for unix sockets */
    uint16_t port;    /* 0 for a unix socket */
    uint32_t weight;  /* at least 1 */
};

enum err ketama_create(const struct ketama_node *nodes, uint32_t count, struct ketama **out);
void ketama_destroy(struct ketama **ring);

/* The index of the node that the key belongs to. O(log points); with one node the key is not even hashed. */
uint32_t ketama_pick(const struct ketama *ring, struct span key);

/* The same for several keys, each in a fifth of the time when there are KETAMA_MANY of them; 1 ≤ count ≤ KETAMA_MANY. */
#define KETAMA_MANY 16
void ketama_pick_many(const struct ketama *ring, const struct span *keys, uint32_t count, uint32_t *nodes);

/* Where on the circle the key is, and the point it belongs to: for people. */
void ketama_explain(const struct ketama *ring, struct span key, uint32_t *hash, uint32_t *point);

/* A fingerprint of the ring's points: equal rings, equal fingerprints. */
uint64_t ketama_fingerprint(const struct ketama *ring);

#endif
