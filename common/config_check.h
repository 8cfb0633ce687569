/* What:    the rules that no single option can break: what must go together, differ, or be shorter than something else.
 * Owns:    nothing.
 * Threads: one at a time.
 * Fails:   never; problems are added to those of `read`.
 */
#ifndef COMMON_CONFIG_CHECK_H
#define COMMON_CONFIG_CHECK_H

#include "common/config.h"
#include "common/config_read.h"

/* The configuration has its defaults; what was given wrongly or is missing may be NULL, and is not complained of again. */
void config_check(const struct config *config, const struct config_read *read);

#endif
