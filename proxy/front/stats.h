/* What:    the answers to stats, in memcached's form, from this sidecar's own metrics.
 * Threads: any; the sums are as of now.
 */
#ifndef PROXY_FRONT_STATS_H
#define PROXY_FRONT_STATS_H

#include "proxy/front/session.h"

/* "STAT name value\r\n" lines, malloc'ed. `argument`: what stood behind stats; NULL is returned for one that is not known. */
char *stats_text(struct front *front, struct span argument, size_t *len);

#endif
