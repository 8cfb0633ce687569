/* What:    /metrics as numbers: sums over series, and quantiles of histograms between two looks at them.
 * Owns:    nothing; the text is the caller's, and ends with a zero byte.
 * Threads: any; pure.
 */
#ifndef CTL_SAMPLES_H
#define CTL_SAMPLES_H

#include "common/base.h"

/* One series: outrigger_requests_total{command="get",namespace="default"} 17 */
struct sample {
    struct span name;
    struct span labels; /* what stands in the braces */
    double value;
};

/* The next sample behind *at, comments left out; false at the end. */
bool samples_next(const char **at, struct sample *out);

/* The value of a label, as it is written; false: it has none of that name. */
bool samples_label(const struct sample *sample, const char *label, struct span *out);

/* The sum of all series of a name with this label (NULL: whatever labels they have). */
double samples_total(const char *text, const char *name, const char *label, struct span value);

/* The upper bound, in seconds, of the bucket that the quantile of what was observed between two texts is in; negative when nothing was. */
double samples_quantile(const char *before, const char *after, const char *name, const char *label, struct span value, double quantile);

#endif
