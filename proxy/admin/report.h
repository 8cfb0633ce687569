/* What:    /route and /regions: where a key is at home, and how this region and its peers are doing. Nobody is asked for it: what is known is told.
 * Owns:    nothing.
 * Threads: the admin server's.
 */
#ifndef PROXY_ADMIN_REPORT_H
#define PROXY_ADMIN_REPORT_H

#include "proxy/admin/routes.h"

void report_route(const struct routes *routes, const struct http_request *request, struct http_response *response);
void report_regions(const struct routes *routes, const struct http_request *request, struct http_response *response);

#endif
