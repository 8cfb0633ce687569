/* What:    which namespace a key belongs to: the longest matching prefix.
 * Owns:    struct namespaces owns its table; the configuration is borrowed.
 * Threads: immutable once made; any thread.
 */
#ifndef PROXY_CACHE_NAMESPACE_H
#define PROXY_CACHE_NAMESPACE_H

#include "common/config.h"

struct namespace {
    const struct config_namespace *config;
    struct span prefix;
    uint32_t index;  /* in config.namespaces; the metrics' index */
    int32_t parent;  /* in the table: the longest other prefix that this one begins with, or -1 */
};

struct namespaces {
    struct namespace *sorted; /* by prefix, bytewise */
    uint32_t count;
    const struct namespace *fallback; /* the default namespace "" */
};

static inline bool namespace_is_strong(const struct namespace *namespace)
{
    return namespace->config->consistency == CONSISTENCY_STRONG;
}

void namespaces_init(struct namespaces *namespaces, const struct config *config);
void namespaces_deinit(struct namespaces *namespaces);

const struct namespace *namespaces_search(const struct namespaces *namespaces, struct span key);

/* O(log namespaces + nesting of prefixes); free when there is only the default namespace. */
static inline const struct namespace *namespaces_find(const struct namespaces *namespaces, struct span key)
{
    return namespaces->count == 1 ? namespaces->fallback : namespaces_search(namespaces, key);
}

#endif
