/* What:    judges the settings of streams and consumers that somebody else has made: which of them would drop events.
 * Owns:    nothing; texts are the caller's.
 * Threads: any; pure.
 * Fails:   what can not be read is not judged: JetStream says itself what it refuses.
 */
#ifndef PROXY_BUS_SETTINGS_H
#define PROXY_BUS_SETTINGS_H

#include <jansson.h>

#include "common/config.h"

#define SETTINGS_TEXT 160

/* Fewer messages than this are no memory of a region: a busy one publishes so many in a few seconds. */
#define STREAM_MSGS_MIN 100000

/* Whether a stream with these settings loses events before other regions have them; `text` says by what. `bus`: what is configured for it, or NULL
 * for a peer's, of which nothing but what loses events out of the middle is judged: the rest shows as a gap. */
bool settings_stream_drops(const json_t *existing, const struct config_bus *bus, char text[static SETTINGS_TEXT]);

/* The same of the durable consumer of this region. */
bool settings_consumer_drops(const json_t *existing, char text[static SETTINGS_TEXT]);

/* The request that gives such a consumer the settings of `wanted` (a request body of jetstream_consumer_body(), parsed), and leaves where it began and
 * what else an operator has set. NULL: there is nothing to change, or no memory. The caller's to free(). */
char *settings_consumer_update(const json_t *existing, const json_t *wanted);

#endif
