/* What:    the words of JetStream's API: names, subjects, request bodies, answers.
 * Owns:    nothing; bodies are the caller's to free().
 * Threads: any; pure.
 * Fails:   an answer that is not understood is ERR_PROTOCOL; one that reports an error is ERR_UNAVAILABLE if it may pass, else
 *          ERR_BUS.
 */
#ifndef PROXY_BUS_JETSTREAM_H
#define PROXY_BUS_JETSTREAM_H

#include <jansson.h>

#include "common/config.h"
#include "proxy/bus/transport.h"

#define NAME_MAX_LEN 80 /* of a stream or consumer; regions have up to 63 characters */
#define ANSWER_MAX (256U << 10)
#define MESSAGE_OVERHEAD 4096 /* headers, on top of INVALIDATION_MESSAGE_MAX */

/* err_code values that are told apart. */
enum jetstream_error {
    JETSTREAM_CONSUMER_NOT_FOUND = 10014,
    JETSTREAM_NO_MESSAGE = 10037,
    JETSTREAM_STREAM_NAME_EXISTS = 10058,
    JETSTREAM_STREAM_NOT_FOUND = 10059,
    JETSTREAM_WRONG_LAST_SEQUENCE = 10071,
    JETSTREAM_IN_THE_MAKING = -1, /* not the server's: a stream that it reports without a time of creation can not be used yet, and some questions would end the server */
    JETSTREAM_NO_LEADER = -2,     /* nor this: any replica answers then, with what it knows itself, which may be older than what was acknowledged */
};

struct answer {
    int code;     /* 0, or as in HTTP */
    int err_code; /* 0, or JetStream's own */
    char text[160];
    json_t *root;
};

void jetstream_stream_name(const char *region, char out[static NAME_MAX_LEN]);   /* INVAL_<region> */
void jetstream_consumer_name(const char *region, char out[static NAME_MAX_LEN]); /* to_<region>: the region that consumes */
void jetstream_key_subject(const char *region, char out[static SUBJECT_MAX]);    /* outrigger.inval.<region>.key */
void jetstream_rule_subject(const char *region, char out[static SUBJECT_MAX]);   /* outrigger.inval.<region>.rule */
/* KV_<bucket>_<region>: the stream of one of the region's buckets, RULES, ROLES or CURSOR. */
void jetstream_bucket_name(const char *bucket, const char *region, char out[static NAME_MAX_LEN]);

/* $JS.API.<verb>.<stream>[.<consumer>], or $JS.<domain>.API.… */
void jetstream_api(const char *domain, const char *verb, const char *stream, const char *consumer, char out[static SUBJECT_MAX]);

/* What a stream of `region` must be like. NULL without memory. */
json_t *jetstream_stream_config(const char *region, const struct config_bus *bus);

/* The config to update a stream with: what it has, with ours put in its place; *differs says whether that changes anything. */
json_t *jetstream_stream_merge(const json_t *existing, const json_t *wanted, bool *differs);

/* Request body: the durable consumer of `region` on a peer's stream, from message `start` on (0, 1: from the first there is). NULL without memory. */
char *jetstream_consumer_body(const char *stream, const char *region, uint32_t ack_wait_ms, uint64_t start);

/* Parses an answer (or a status in its place). The caller lets go of it with answer_clear(), whatever the result. */
enum err jetstream_answer(const struct incoming *message, struct answer *out);
void answer_clear(struct answer *answer);
/* Whether it says nothing yet, and nothing is wrong: the same is asked again in a while. */
bool jetstream_is_for_later(const struct answer *answer);
/* Whether a publication's answer says that `stream` has it. */
bool jetstream_was_stored(const struct answer *answer, const char *stream);

/* What STREAM.INFO, STREAM.CREATE and STREAM.UPDATE say of a stream. */
#define CREATED_SIZE 48
struct stream_info {
    char created[CREATED_SIZE]; /* when; another time is another stream */
    uint64_t first_seq;
    uint64_t last_seq;
};
bool jetstream_stream_info(const json_t *info, struct stream_info *out);

/* What the stream KV_<name> of a bucket of this region must be like. NULL without memory. */
json_t *jetstream_bucket_config(const char *stream, const struct config_bus *bus);
/* Request body: a consumer that pushes all there is (a bucket keeps the newest of each subject) to `deliver`, and then whatever is new. */
char *jetstream_watch_body(const char *stream, const char *name, const char *deliver, uint64_t heartbeat_us);

/* What the subject that acknowledgements go to says of a message that was delivered. */
struct delivered {
    char consumer[NAME_MAX_LEN];
    uint64_t stream_seq;
    uint64_t consumer_seq;
    uint64_t pending;
};
bool jetstream_delivered(const char *reply, struct delivered *out);

/* How often a message has been delivered, from the subject its acknowledgement goes to; 0 if that is no such subject. */
uint32_t jetstream_deliveries(const char *reply);

#endif
