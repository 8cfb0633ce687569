/* What:    `outriggerctl stats`: what /metrics says, a line for each series, without the buckets of histograms.
 * Owns:    nothing.
 * Threads: the main thread.
 */
#ifndef CTL_STATS_H
#define CTL_STATS_H

#include "ctl/commands.h"

enum exit_status stats_run(const struct arguments *arguments);

#endif
