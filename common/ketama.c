/* OpenSSL would have us use EVP instead of MD5(). Measured with OpenSSL 3.0 on a 2-core VM, ns for keys of 20, 64 and 250 bytes:
 *
 *   MD5()                                         100   188   434
 *   EVP, digest fetched and context made before   129   215   460    (a context of its own for every thread)
 *   EVP_Digest(…, EVP_md5(), NULL)                330   424   670
 *   RFC 1321 written down plainly in C            100   195   454
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "common/ketama.h"

#include <assert.h>
#include <openssl/md5.h>

#include "common/md5_lanes.h"

#define POINTS_PER_NODE 160 /* MEMCACHED_POINTS_PER_SERVER_KETAMA */
#define POINTS_PER_DIGEST 4
#define DEFAULT_PORT 11211
#define NODES_MAX 65536
#define START_BITS 10
#define STARTS (1U << START_BITS)
#define LANES_FROM 4 /* so many keys are hashed faster together than one by one */
#define LABEL_MAX 1100 /* as libmemcached: host (1025), port, index */

/*   0                                                                2^32
 *   ├────●───────●──●───────────●────────────●─────────●───────●──────┤
 *        B       A  C      ▲    B            A         B       C
 *                          key ─▶ B: the first point that is not before it, or else the very first
 */
struct point {
    uint32_t value;
    uint32_t node;
};

struct ketama {
    uint32_t nodes;
    uint32_t count;
    uint64_t fingerprint;
    uint32_t start[STARTS + 1]; /* the first point of each of the STARTS equal parts of the circle: what is left to search is short */
    struct point points[]; /* by value, then node */
};

static uint32_t little_endian(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* How many digests a node gets. In floats, in this order, for libmemcached does it so, and where it rounds down, so must we. */
static uint32_t digests_of(uint32_t weight, uint64_t total_weight, uint32_t nodes)
{
    float share = (float)weight / (float)total_weight;
    return (uint32_t)(share * POINTS_PER_NODE / POINTS_PER_DIGEST * (float)nodes + 0.0000000001F);
}

static enum err add_points(struct ketama *ring, const struct ketama_node *node, uint32_t index, uint32_t digests)
{
    for (uint32_t i = 0; i < digests; i++) {
        char label[LABEL_MAX];
        unsigned char digest[MD5_DIGEST_LENGTH];
        int len;
        if (node->port == DEFAULT_PORT) {
            len = snprintf(label, sizeof label, "%s-%u", node->host, i);
        } else {
            len = snprintf(label, sizeof label, "%s:%u-%u", node->host, node->port, i);
        }
        if (len < 0 || (size_t)len >= sizeof label) {
            return ERR_INVALID;
        }
        MD5((const unsigned char *)label, (size_t)len, digest);
        for (uint32_t k = 0; k < POINTS_PER_DIGEST; k++) {
            ring->points[ring->count++] = (struct point){little_endian(digest + 4 * (size_t)k), index};
        }
    }
    return OK;
}

static int compare(const void *a, const void *b)
{
    const struct point *x = a;
    const struct point *y = b;
    if (x->value != y->value) {
        return x->value < y->value ? -1 : 1;
    }
    return (x->node > y->node) - (x->node < y->node);
}

/* FNV-1a over the points, so that nodes in another order make another ring. */
static uint64_t fingerprint_of(const struct ketama *ring)
{
    uint64_t hash = 0xcbf29ce484222325;
    for (uint32_t i = 0; i < ring->count; i++) {
        uint64_t both = (uint64_t)ring->points[i].node << 32 | ring->points[i].value;
        for (unsigned shift = 0; shift < 64; shift += 8) {
            hash = (hash ^ (both >> shift & 0xff)) * 0x100000001b3;
        }
    }
    return hash;
}

static void index_points(struct ketama *ring)
{
    uint32_t at = 0;
    for (uint32_t part = 0; part < STARTS; part++) {
        while (at < ring->count && ring->points[at].value < part << (32 - START_BITS)) {
            at++;
        }
        ring->start[part] = at;
    }
    ring->start[STARTS] = ring->count;
}

enum err ketama_create(const struct ketama_node *nodes, uint32_t count, struct ketama **out)
{
    uint64_t total_weight = 0;
    size_t digests = 0;
    *out = NULL;
    if (count == 0 || count > NODES_MAX) {
        return ERR_INVALID;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (nodes[i].weight == 0) {
            return ERR_INVALID;
        }
        total_weight += nodes[i].weight;
    }
    for (uint32_t i = 0; i < count; i++) {
        digests += digests_of(nodes[i].weight, total_weight, count);
    }
    struct ketama *ring = malloc(sizeof *ring + digests * POINTS_PER_DIGEST * sizeof(struct point));
    if (ring == NULL) {
        return ERR_NOMEM;
    }
    ring->nodes = count;
    ring->count = 0;
    enum err err = OK;
    for (uint32_t i = 0; i < count && err == OK; i++) {
        err = add_points(ring, &nodes[i], i, digests_of(nodes[i].weight, total_weight, count));
    }
    if (err != OK) {
        free(ring);
        return err;
    }
    qsort(ring->points, ring->count, sizeof ring->points[0], compare);
    index_points(ring);
    ring->fingerprint = fingerprint_of(ring);
    *out = ring;
    return OK;
}

void ketama_destroy(struct ketama **ring)
{
    free(*ring);
    *ring = NULL;
}

/* The first point at or behind the hash, around the ring. */
static const struct point *point_at(const struct ketama *ring, uint32_t hash)
{
    uint32_t part = hash >> (32 - START_BITS);
    uint32_t low = ring->start[part];
    uint32_t high = ring->start[part + 1];
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (ring->points[middle].value < hash) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return &ring->points[low == ring->count ? 0 : low];
}

static uint32_t node_at(const struct ketama *ring, uint32_t hash)
{
    return point_at(ring, hash)->node;
}

uint32_t ketama_pick(const struct ketama *ring, struct span key)
{
    if (ring->nodes == 1) {
        return 0;
    }
    unsigned char digest[MD5_DIGEST_LENGTH];
    MD5((const unsigned char *)key.data, key.len, digest);
    return node_at(ring, little_endian(digest));
}

void ketama_pick_many(const struct ketama *ring, const struct span *keys, uint32_t count, uint32_t *nodes)
{
    static_assert(KETAMA_MANY == MD5_LANES, "as many keys as there are lanes");
    if (ring->nodes == 1 || count < LANES_FROM) {
        for (uint32_t i = 0; i < count; i++) {
            nodes[i] = ketama_pick(ring, keys[i]);
        }
        return;
    }
    uint32_t hashes[KETAMA_MANY];
    md5_lanes(keys, count, hashes);
    for (uint32_t i = 0; i < count; i++) {
        nodes[i] = node_at(ring, hashes[i]);
    }
}

void ketama_explain(const struct ketama *ring, struct span key, uint32_t *hash, uint32_t *point)
{
    unsigned char digest[MD5_DIGEST_LENGTH];
    MD5((const unsigned char *)key.data, key.len, digest);
    *hash = little_endian(digest);
    *point = point_at(ring, *hash)->value;
}

uint64_t ketama_fingerprint(const struct ketama *ring)
{
    return ring->fingerprint;
}
