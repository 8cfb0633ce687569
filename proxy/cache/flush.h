/* What:    flush_all: passed on to every node of the regional pool; answered OK when all have done it.
 */
#ifndef PROXY_CACHE_FLUSH_H
#define PROXY_CACHE_FLUSH_H

#include "proxy/cache/cache.h"

void flush_start(struct operation *op);

#endif
