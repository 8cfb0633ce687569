#include "proxy/bus/owed.h"

#include <pthread.h>
#include <stdatomic.h>
#include <xxhash.h>

#define BUCKETS_MIN 1024

struct owed_key {
    struct owed_key *next;
    uint64_t hash;
    uint32_t times;
    uint32_t len;
    char key[];
};

struct owed {
    pthread_mutex_t lock;
    _Atomic uint32_t count;
    struct owed_key **buckets;
    size_t bucket_count; /* a power of two */
};

struct owed *owed_create(void)
{
    struct owed *o = xcalloc(1, sizeof *o);
    pthread_mutex_init(&o->lock, NULL);
    o->bucket_count = BUCKETS_MIN;
    o->buckets = xcalloc(o->bucket_count, sizeof(struct owed_key *));
    return o;
}

void owed_destroy(struct owed **out)
{
    struct owed *o = *out;
    *out = NULL;
    if (o == NULL) {
        return;
    }
    for (size_t i = 0; i < o->bucket_count; i++) {
        while (o->buckets[i] != NULL) {
            struct owed_key *k = o->buckets[i];
            o->buckets[i] = k->next;
            free(k);
        }
    }
    free(o->buckets);
    pthread_mutex_destroy(&o->lock);
    free(o);
}

static struct owed_key **find(const struct owed *o, struct span key, uint64_t hash)
{
    struct owed_key **at = &o->buckets[hash & (o->bucket_count - 1)];
    while (*at != NULL && ((*at)->hash != hash || !span_eq(span_of((*at)->key, (*at)->len), key))) {
        at = &(*at)->next;
    }
    return at;
}

static void grow(struct owed *o)
{
    size_t count = 2 * o->bucket_count;
    struct owed_key **buckets = calloc(count, sizeof(struct owed_key *));
    if (buckets == NULL) {
        return; /* it works with long chains, too */
    }
    for (size_t i = 0; i < o->bucket_count; i++) {
        while (o->buckets[i] != NULL) {
            struct owed_key *k = o->buckets[i];
            o->buckets[i] = k->next;
            k->next = buckets[k->hash & (count - 1)];
            buckets[k->hash & (count - 1)] = k;
        }
    }
    free(o->buckets);
    o->buckets = buckets;
    o->bucket_count = count;
}

void owed_add(struct owed *o, struct span key)
{
    uint64_t hash = XXH64(key.data, key.len, 0);
    pthread_mutex_lock(&o->lock);
    struct owed_key **at = find(o, key, hash);
    if (*at == NULL) {
        struct owed_key *k = xmalloc(sizeof *k + key.len);
        *k = (struct owed_key){.hash = hash, .len = (uint32_t)key.len};
        memcpy(k->key, key.data, key.len);
        *at = k;
        if (atomic_fetch_add(&o->count, 1) + 1 > o->bucket_count) {
            grow(o);
        }
        k->times = 1;
    } else {
        (*at)->times++;
    }
    pthread_mutex_unlock(&o->lock);
}

void owed_remove(struct owed *o, struct span key)
{
    uint64_t hash = XXH64(key.data, key.len, 0);
    pthread_mutex_lock(&o->lock);
    struct owed_key **at = find(o, key, hash);
    if (*at != NULL && --(*at)->times == 0) {
        struct owed_key *k = *at;
        *at = k->next;
        free(k);
        atomic_fetch_sub(&o->count, 1);
    }
    pthread_mutex_unlock(&o->lock);
}

bool owed_has(struct owed *o, struct span key)
{
    if (atomic_load_explicit(&o->count, memory_order_acquire) == 0) {
        return false;
    }
    uint64_t hash = XXH64(key.data, key.len, 0);
    pthread_mutex_lock(&o->lock);
    bool has = *find(o, key, hash) != NULL;
    pthread_mutex_unlock(&o->lock);
    return has;
}
