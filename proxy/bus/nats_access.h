/* What:    how a link gets into a NATS: its servers, TLS, and who it says it is; and what to tell an operator when it is not let in.
 * Owns:    nothing; strings are copied by the library, which reads the credentials file again for every connection.
 * Threads: the link's.
 * Fails:   ERR_CONFIG: a file can not be used; `why` says which. Files are read when a connection is opened, not at the start: they may come
 *          later, and change.
 */
#ifndef PROXY_BUS_NATS_ACCESS_H
#define PROXY_BUS_NATS_ACCESS_H

#include "common/config.h"

struct __natsOptions; /* the library's */

#define ACCESS_TEXT_MAX 400

struct access {
    const char *urls;                     /* one, or several with commas between them */
    const struct config_access *own;      /* of this region's bus, or a peer's */
    const struct config_access *fallback; /* for what `own` does not say, or NULL */
    const char *section;                  /* of the configuration, for messages: "bus", "bus.peers[1]" */
};

/* To this region's own NATS (`peer` NULL), or to a peer's or witness's, where what it does not say is as for the own one. `section` is borrowed. */
struct access access_of(const struct config_bus *bus, const struct config_peer *peer, const char *section);

enum err access_set(const struct access *access, struct __natsOptions *options, char why[static ACCESS_TEXT_MAX]);

/* Why a connection failed, in words that help: `status` is the library's, `error` what it or the server said ("" if nothing). */
void access_explain(const struct access *access, int status, const char *error, char out[static ACCESS_TEXT_MAX]);

/* The URLs without users and passwords. */
void access_display(const char *urls, char *out, size_t size);

#endif
