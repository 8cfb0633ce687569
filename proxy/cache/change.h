/* What:    writes in a namespace whose values come from the database (read: through, write: aside). There the application writes MySQL and then
 *          says that the key has changed: with `delete`, or with a `set` or `cas`, whose value is not needed, since the next reader loads it.
 *          Storing the client's value would break the one rule: nobody knows when it was true. Commands that compute with the cached
 *          value (add, replace, append, prepend, incr, decr) have no meaning there and are refused.
 *          In a strong namespace it is answered once no region serves what was true before (proxy/strong), whatever on_set says; nothing is published.
 */
#ifndef PROXY_CACHE_CHANGE_H
#define PROXY_CACHE_CHANGE_H

#include "proxy/cache/cache.h"

void change_start(struct operation *op);

#endif
