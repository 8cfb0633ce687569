/* What:    a load that nobody waits for: of an entry that is about to expire (refresh_ahead), or of one that has been invalidated and is served
 *          stale meanwhile (stale_while_revalidate). Its reader won the lease on it, and has been answered with what there was.
 * Owns:    itself, from refresh_start() until the row has been stored or given up.
 * Threads: its worker's.
 * Fails:   silently but counted: the entry then expires, and the next reader loads it.
 */
#ifndef PROXY_CACHE_REFRESH_H
#define PROXY_CACHE_REFRESH_H

#include "proxy/cache/fill.h"

/* The target's key is copied. */
void refresh_start(const struct fill_target *target);

#endif
