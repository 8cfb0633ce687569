/* What:    commands in aside namespaces: each becomes one meta command to the key's home node, and its reply the client's. Values are never
 *          touched. A change that the other regions must hear of (a delete; a write, with on_set: invalidate) is then published.
 */
#ifndef PROXY_CACHE_ASIDE_H
#define PROXY_CACHE_ASIDE_H

#include "proxy/cache/cache.h"

void aside_start(struct operation *op);

/* The command itself, whatever rules there are. */
void aside_submit(struct operation *op);

/* The node did not do it, or not what had to be done before it. A delete is kept until the node does, where it can be. */
void aside_fail(struct operation *op, enum err err);

#endif
