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
    REPLY_TOUCHED, /* flags */
    REPLY_NUMBER,  /* incr, decr: number */
    REPLY_OK,
    REPLY_VERSION, /* text: the version */
    REPLY_STATS,   /* text: whole "STAT name value\r\n" lines, the END not included */
    REPLY_NOOP,    /* mn, noop */
    REPLY_DEBUG,   /* me: text is the node's whole line, without "\r\n" */
    REPLY_AUTH,    /* text: SASL's list of mechanisms, or what a successful authentication is answered */
    REPLY_AUTH_FAILED,
    REPLY_UNAUTHENTICATED,
    REPLY_UNKNOWN,     /* there is no such command */
    REPLY_TOO_LARGE,   /* the value is larger than may be stored */
    REPLY_BAD_CHUNK,   /* the value does not end where it should */
    REPLY_NO_MEMORY,
    REPLY_NON_NUMERIC, /* incr, decr */
    REPLY_ERROR, /* text: what stands in the line, e.g. "SERVER_ERROR node 10.0.0.1:11211: timed out" */
    REPLY_NONE,  /* nothing is to be sent */
    REPLY_STATUS_COUNT
};

/* Where the answer to a read came from, and what a peek has found. */
enum reply_origin {
    ORIGIN_MISS, /* neither the cache nor the source has it, or there is no source */
    ORIGIN_HIT,
    ORIGIN_LOADED,
    ORIGIN_STALE,     /* an invalidated value, while it is loaded anew */
    ORIGIN_NEGATIVE,  /* the cache remembers that there is none */
    ORIGIN_TOMBSTONE, /* peek: invalidated, and without a value */
    ORIGIN_LEASE,     /* peek: somebody is loading it */
    ORIGIN_LOCK,      /* peek: somebody is writing it */
    ORIGIN_COUNT
};

struct reply {
    enum reply_status status;
    uint32_t flags;
    uint64_t cas; /* where the request wanted it */
    uint64_t number;
    struct chunk *chunk;
    struct span value;
    struct span text;
    /* Only to requests of PROTOCOL_META: what they wanted of it. */
    int64_t ttl; /* seconds; -1: none */
    int64_t last_access_s;
    uint64_t size; /* of the value */
    bool was_hit;
    bool won;   /* W */
    bool wait;  /* Z */
    bool stale; /* X */
    uint8_t origin; /* enum reply_origin; the asker sets it to ORIGIN_MISS before */
};

#endif
