/* What:    `outriggerctl top`: what /metrics says, as rates, drawn again every few seconds.
 * Owns:    the terminal's mode while it runs.
 * Threads: the main thread.
 */
#ifndef CTL_TOP_H
#define CTL_TOP_H

#include "ctl/commands.h"

enum exit_status top_run(const struct arguments *arguments);

/* One screen: what happened between two looks at the metrics, `seconds` apart. */
void top_draw(FILE *out, const char *before, const char *after, double seconds, const char *address);

#endif
