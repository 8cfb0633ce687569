/* What:    a region's holder and the rules: takes a rule that another sidecar wants confirmed, puts it in force and answers when no sidecar of the region
 *          serves what it hides; and puts the rules in force with which a region comes back.
 * Owns:    the deliveries it makes, until delivery_done(), and the requests until they are answered.
 * Threads: strong's.
 * Fails:   a request that can not be confirmed is answered with MESSAGE_NO_SHARE: who asks asks again. A comeback ends with the first error.
 */
#ifndef PROXY_STRONG_RULING_H
#define PROXY_STRONG_RULING_H

#include "common/list.h"
#include "proxy/strong/serve.h"

#define RULING_MAX 1024U
#define RULING_KIND 'u'

struct ruler {
    struct server *server; /* answers in its name, from its mailbox and sink */
    struct share *share;
    struct list rulings; /* under way */
    uint32_t count;
    uint32_t comeback_left; /* rules of a comeback that are not in force yet */
    enum err comeback_err;
    void (*on_comeback)(void *ctx, enum err err);
    void *ctx;
};

void ruler_init(struct ruler *ruler);
/* A RULE to "<inbox>.u.…". */
void ruler_on_request(struct ruler *ruler, const struct incoming *incoming);
/* Everything of every strong namespace that is stored by now: ends with on_comeback. */
void ruler_come_back(struct ruler *ruler);
/* After share_stop(): nothing is left. */
void ruler_deinit(struct ruler *ruler);

#endif
