/* What:    asks a sidecar's admin API one thing, over TCP or a unix socket, and waits for the answer.
 * Owns:    struct answer owns its bytes; the rest is the caller's.
 * Threads: any; blocks until the answer, or the deadline.
 * Fails:   ERR_UNAVAILABLE (nobody there), ERR_TIMEOUT, ERR_PROTOCOL (no HTTP), ERR_TOO_LARGE; `why` says more.
 */
#ifndef CTL_CLIENT_H
#define CTL_CLIENT_H

#include "common/config.h"
#include "common/err.h"
#include "ctl/response.h"

struct server {
    struct address address;
    char *token; /* or NULL */
    unsigned timeout_ms;
};

struct question {
    const char *method;
    const char *target; /* path and query, encoded */
    struct span body;   /* data NULL: none */
    bool wants_json;
};

struct answer {
    char *data;
    size_t len;
    struct response response;
};

#define WHY_SIZE 256
enum err client_ask(const struct server *server, const struct question *question, struct answer *out, char why[WHY_SIZE]);
void answer_free(struct answer *answer);

#endif
