#include "proxy/cache/namespace.h"

static int compare_spans(struct span a, struct span b)
{
    int order = memcmp(a.data, b.data, MIN(a.len, b.len));
    return order != 0 ? order : (a.len > b.len) - (a.len < b.len);
}

static int compare_namespaces(const void *a, const void *b)
{
    return compare_spans(((const struct namespace *)a)->prefix, ((const struct namespace *)b)->prefix);
}

void namespaces_init(struct namespaces *n, const struct config *config)
{
    n->count = config->namespace_count;
    n->sorted = xcalloc(n->count, sizeof *n->sorted);
    for (uint32_t i = 0; i < n->count; i++) {
        n->sorted[i] = (struct namespace){
            .config = &config->namespaces[i],
            .prefix = span_str(config->namespaces[i].prefix),
            .index = i,
        };
    }
    qsort(n->sorted, n->count, sizeof *n->sorted, compare_namespaces);
    /* A prefix sorts behind every prefix of it, so the parent is on the chain of the one before. */
    for (uint32_t i = 0; i < n->count; i++) {
        int32_t parent = (int32_t)i - 1;
        while (parent >= 0 && !span_has_prefix(n->sorted[i].prefix, n->sorted[parent].prefix)) {
            parent = n->sorted[parent].parent;
        }
        n->sorted[i].parent = parent;
    }
    n->fallback = &n->sorted[0]; /* "" sorts first */
}

void namespaces_deinit(struct namespaces *n)
{
    free(n->sorted);
    n->sorted = NULL;
}

const struct namespace *namespaces_search(const struct namespaces *n, struct span key)
{
    uint32_t low = 0; /* the last entry that does not sort behind the key is in [low, high) */
    uint32_t high = n->count;
    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (compare_spans(n->sorted[middle].prefix, key) <= 0) {
            low = middle;
        } else {
            high = middle;
        }
    }
    int32_t i = (int32_t)low;
    while (!span_has_prefix(key, n->sorted[i].prefix)) {
        i = n->sorted[i].parent; /* ends at "", which everything begins with */
    }
    return &n->sorted[i];
}
