/* What:    outriggerctl bench-lag: how long invalidations take until every region has applied them.
 * Owns:    nothing.
 * Threads: the main thread.
 * Fails:   ends with the first invalidation that a region has not applied in time, and says which; what was measured until then is printed.
 */
#ifndef CTL_LAG_H
#define CTL_LAG_H

#include "ctl/commands.h"

#define LAG_PREFIX "outrigger-bench-lag:" /* of its keys: nobody's */
#define LAG_COUNT 100U
#define LAG_COUNT_MAX 100000U
#define LAG_INTERVAL_MS 20U

enum exit_status lag_run(const struct arguments *arguments);

/* The value that a part `share` of `count` sorted ones do not exceed; 0 if there are none. */
double lag_quantile(const double *sorted, uint32_t count, double share);

#endif
