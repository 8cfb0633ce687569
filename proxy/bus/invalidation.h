/* What:    the invalidation event of design §4, {key, version, region, timestamp}, and its JSON form on the bus.
 * Owns:    the struct holds its key inline; decoding never keeps a pointer into the message.
 * Threads: any; pure.
 * Fails:   ERR_INVALID for what is not an event (the text says why), ERR_UNSUPPORTED for a format newer than this one.
 *
 * A message:  {"format":1,"region":"east","events":[{"key":"package:bash","version":"3761…","timestamp":1795464000123}, …]}
 * An invalidation of many keys has "pattern" (common/glob.h) in the place of "key", and messages of their own (subject ….rule).
 * A key or pattern that is not UTF-8 is "key64" or "pattern64", its base64. A version is a string of digits, since many readers of JSON round at 2^53.
 */
#ifndef PROXY_BUS_INVALIDATION_H
#define PROXY_BUS_INVALIDATION_H

#include "common/config.h"

#define INVALIDATION_FORMAT 1
#define INVALIDATION_EVENTS_MAX 1024    /* in one message */
#define INVALIDATION_MESSAGE_MAX (512U << 10) /* bytes */
#define REGION_MAX 64

struct invalidation {
    uint64_t version;      /* upper bound of when the entry became false */
    uint64_t timestamp_ms; /* wall clock at the origin, for the lag */
    uint16_t key_len;
    bool is_pattern; /* the key is a pattern, and the event a rule */
    char key[KEY_MAX];
};

/* Whether every field is in its range; invalidation_encode() refuses one that is not. */
bool invalidation_is_valid(const struct invalidation *event);

/* Encodes `count` events of one region into *out (malloc'ed, *out_len bytes without a terminating zero). */
enum err invalidation_encode(const char *region, const struct invalidation *const *events, uint32_t count, char **out, size_t *out_len);

/* Decodes one message: *events is malloc'ed with *count elements. The region must be `region`. On failure `error` says what was wrong. */
enum err invalidation_decode(const char *region, struct span message, struct invalidation **events, uint32_t *count, char *error,
                             size_t error_size);

/* The general way of both, for any message: the two above use it for what invalidation_plain.h does not know. */
enum err invalidation_encode_json(const char *region, const struct invalidation *const *events, uint32_t count, char **out, size_t *out_len);
enum err invalidation_decode_json(const char *region, struct span message, struct invalidation **events, uint32_t *count, char *error,
                                  size_t error_size);

/* One rule by itself, of whatever region, as the region's record of rules has it: a message of one event. */
enum err invalidation_decode_rule(struct span message, struct invalidation *event, char region[static REGION_MAX], char *error,
                                  size_t error_size);

#endif
