/* What:    touch in a through namespace: the entry is stored again with the new TTL, guarded by its CAS, because a plain touch would also
 *          shorten or lengthen the life of a tombstone or a lease. A key that is not cached is NOT_FOUND; nothing is loaded for it.
 */
#ifndef PROXY_CACHE_TOUCH_H
#define PROXY_CACHE_TOUCH_H

#include "proxy/cache/cache.h"

void touch_start(struct operation *op);

#endif
