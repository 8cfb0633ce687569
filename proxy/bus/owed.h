/* What:    the keys whose invalidation their own home node has not got yet: until it has, no worker may serve what that node says of them.
 * Owns:    copies of the keys, each with how often it is in.
 * Threads: any; a mutex, which is not taken while the set is empty.
 * Fails:   never; what puts keys in is bounded (the spool, and clients' requests under way).
 */
#ifndef PROXY_BUS_OWED_H
#define PROXY_BUS_OWED_H

#include "common/base.h"

struct owed;

struct owed *owed_create(void);
void owed_destroy(struct owed **owed);

void owed_add(struct owed *owed, struct span key);
void owed_remove(struct owed *owed, struct span key); /* once for every owed_add() */

bool owed_has(struct owed *owed, struct span key);

#endif
