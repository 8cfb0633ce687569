/* What:    what a client may do before it has authenticated, in either protocol, and whether it has: memcached's ASCII authentication and SASL PLAIN.
 * Owns:    nothing; a struct auth is a client's state, part of its session.
 * Threads: one at a time; no I/O but a line in the log.
 * Fails:   bad input is an ordinary result, as with the codecs.
 *
 *   text:    anything but "set KEY FLAGS EXPTIME LEN" is answered CLIENT_ERROR unauthenticated; its value is "user password"
 *   binary:  sasl_list_mechs, sasl_auth, sasl_step and version are answered; anything else with status 0x20, and the connection is closed
 *
 * The value is the credentials, AUTH_VALUE_MAX bytes at most. After AUTH_FAILURES_MAX failures the connection is to be closed.
 */
#ifndef PROXY_FRONT_AUTH_H
#define PROXY_FRONT_AUTH_H

#include "common/credentials.h"
#include "common/log.h"
#include "proxy/metric.h"
#include "proxy/protocol/codec.h"

#define AUTH_VALUE_MAX 1024
#define AUTH_FAILURES_MAX 8

struct auth {
    bool is_needed; /* not authenticated, and nobody may do without */
    uint8_t failures;
};

/* Takes the place of codec_parse() while `is_needed`. A request that is returned may still be none that is allowed: see auth_allows(). */
enum parse_result auth_parse(struct codec *codec, const char *data, size_t len, size_t *consumed, struct request *out, struct span *error);

static inline bool auth_allows(const struct auth *auth, const struct request *request)
{
    return likely(!auth->is_needed) || request->op == OP_SASL_LIST || request->op == OP_AUTH || request->op == OP_VERSION;
}

/* The answer to an OP_AUTH. `value`: with the value_tail behind it; without data: it was larger than AUTH_VALUE_MAX. */
struct auth_answer {
    enum auth_result result;
    enum reply_status status;
    struct span text; /* a constant */
};
struct auth_answer auth_check(struct auth *auth, struct credentials *credentials, const struct request *request, struct span value);

static inline bool auth_is_exhausted(const struct auth *auth)
{
    return auth->failures >= AUTH_FAILURES_MAX;
}

#endif
