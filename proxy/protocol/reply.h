/* What:    one reply, before it is rendered in the client's protocol: the cache's output, the codecs' input.
 * Owns:    nothing: `chunk` is the chunk that the value's bytes are in (NULL: none), referenced by whoever fills in the reply.
 * Threads: any.
 */
#ifndef PROXY_PROTOCOL_REPLY_H
#define PROXY_PROTOCOL_REPLY_H

#include "common/base.h"

enum reply_status {
    REPLY_VALUE, /* get: value, flags, cas */
    REPLY_MISS,  /* get */
    REPLY_STORED,
    REPLY_NOT_STORED,
    REPLY_EXISTS,
    REPLY_NOT_FOUND,
    REPLY_DELETED,
    REPLY_TOUCHED,
    REPLY_NUMBER, /* incr, decr: number */
    REPLY_OK,
    REPLY_VERSION, /* text: the version */
    REPLY_STATS,   /* text: whole "STAT name value\r\n" lines, the END not included */
    REPLY_ERROR,   /* text: what stands in the line, e.g. "SERVER_ERROR node 10.0.0.1:11211: timed out" */
    REPLY_NONE,    /* nothing is to be sent */
};

struct reply {
    enum reply_status status;
    uint32_t flags;
    uint64_t cas;
    uint64_t number;
    struct chunk *chunk;
    struct span value;
    struct span text;
};

#endif
