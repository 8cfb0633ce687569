/* What:    commands in an aside namespace on keys that a rule covers: an entry older than the rule is to be as if it were not there, whatever the
 *          command. Reads find that out by what they read (aside.c); here is the way of those that would change such an entry, or be refused
 *          because of it.
 * Threads: its worker's.
 * Fails:   the node's errors, and ERR_CONFLICT when the entry changed again and again.
 *
 *   LOOK: me K (it disturbs neither the entry's lease nor its place among those used)
 *     │ an entry that is older than the rule: hide.c deletes it, guarded by its CAS; if that has changed, LOOK again
 *   the command itself, aside_submit()
 */
#ifndef PROXY_CACHE_COVERED_H
#define PROXY_CACHE_COVERED_H

#include "proxy/cache/cache.h"

/* False: no rule covers the key, or the command needs no look. */
bool covered_start(struct operation *op);

/* After incr and decr: where the number has outgrown its entry, memcached gives the new one a CAS of its own, which no rule would let be served.
 * Gives it its version again. */
void covered_freshen(const struct operation *op);

#endif
