/* What:    /config: the configuration in force as JSON, option by option as config.def has them. Secrets are not shown, nor what a URL has before '@'.
 * Owns:    nothing.
 * Threads: the admin server's.
 */
#ifndef PROXY_ADMIN_SETTINGS_H
#define PROXY_ADMIN_SETTINGS_H

#include "proxy/admin/routes.h"

void settings_get(const struct routes *routes, const struct http_request *request, struct http_response *response);

#endif
