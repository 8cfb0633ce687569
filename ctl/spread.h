/* What:    waits with the admin API until every region has applied an invalidation, and says which have not.
 * Owns:    nothing but what it returns.
 * Threads: the main thread.
 * Fails:   EXIT_FAILED when one has not in time, EXIT_UNREACHABLE when the sidecar does not answer; stderr says why.
 */
#ifndef CTL_SPREAD_H
#define CTL_SPREAD_H

#include <jansson.h>

#include "ctl/commands.h"

#define SPREAD_DEFAULT_MS 30000U
#define SPREAD_ANSWER_MS 300000U /* a sidecar waits no longer */
#define SPREAD_TARGET_MAX 256

/* How long --wait waits. */
unsigned spread_timeout_ms(const struct arguments *arguments);

/* "/invalidate?wait=regions&timeout=250ms": how long the first answer may take, so that what is missing can be shown meanwhile. */
void spread_target(const struct arguments *arguments, const char *path, unsigned left_ms, char out[SPREAD_TARGET_MAX]);

/* Goes on where the answer `json` to such a question ended, until all regions have it or the time is up since `begun_us`; puts what became of them into
 * `json`, in place of what it had. NULL: everything that has been published by now is waited for, and *json is made. EXIT_DONE says only that
 * all questions were answered. */
enum exit_status spread_wait(const struct arguments *arguments, uint64_t begun_us, json_t **json);

/* A line for each region; what of the wait was not to be had goes to stderr. EXIT_DONE: all have it. */
enum exit_status spread_print(const json_t *json, bool has_times);
/* The same as JSON; nothing on stderr. */
enum exit_status spread_dump(const json_t *json);
bool spread_is_whole(const json_t *json);

#endif
