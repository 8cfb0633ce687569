/* What:    the meta protocol as spoken to nodes: requests to bytes, bytes to replies.
 * Owns:    nothing; a reply's spans point into the input.
 * Threads: any; pure, no I/O.
 * Fails:   writing with ERR_NOMEM, or ERR_INVALID for a key that can not be sent; a node's bytes that are no reply are META_BAD.
 * Source:  memcached 1.6.38 doc/protocol.txt, "Meta Commands".
 */
#ifndef PROXY_PROTOCOL_META_H
#define PROXY_PROTOCOL_META_H

#include "common/buffer.h"

enum meta_command { META_GET, META_SET, META_DELETE, META_ARITHMETIC };

/* Which flags a request carries; those with an argument take it from the field of struct meta_request that is named. */
enum meta_flag {
    META_WANT_VALUE = 1 << 0,  /* v */
    META_WANT_FLAGS = 1 << 1,  /* f */
    META_WANT_CAS = 1 << 2,    /* c */
    META_WANT_TTL = 1 << 3,    /* t */
    META_CAS = 1 << 4,         /* C cas */
    META_VERSION = 1 << 5,     /* E version */
    META_TTL = 1 << 6,         /* T ttl */
    META_VIVIFY = 1 << 7,      /* N vivify_ttl */
    META_CLIENT_FLAGS = 1 << 8, /* F client_flags */
    META_INVALIDATE = 1 << 9,  /* I */
    META_DROP_VALUE = 1 << 10, /* x */
    META_MODE = 1 << 11,       /* M mode */
    META_DELTA = 1 << 12,      /* D delta */
};

struct meta_request {
    enum meta_command command;
    uint32_t with; /* enum meta_flag */
    struct span key;
    uint64_t cas;
    uint64_t version;
    int64_t ttl;
    uint32_t vivify_ttl;
    uint32_t client_flags;
    char mode;
    uint64_t delta;
    size_t value_len; /* META_SET: so many bytes and "\r\n" are to be appended by the caller */
};

enum err meta_write(struct chain *out, const struct meta_request *request);

enum meta_status {
    META_VA,      /* a value */
    META_HD,      /* done */
    META_EN,      /* miss */
    META_NF,      /* not found */
    META_NS,      /* not stored */
    META_EX,      /* CAS mismatch */
    META_MN,      /* no-op */
    META_OK,      /* classic OK */
    META_VERSION_IS, /* classic VERSION: text is the version */
    META_REFUSED, /* ERROR, CLIENT_ERROR …, SERVER_ERROR …: text is the whole line */
};

enum meta_result {
    META_REPLY,
    META_MORE,
    META_TOO_LARGE, /* a value of more than max_value: its line is consumed, value_len + 2 bytes follow and are to be skipped */
    META_BAD,
};

#define META_VALUE_ABSURD (1UL << 30) /* memcached's own limit; what claims to be longer is META_BAD */

struct meta_reply {
    enum meta_status status;
    bool won;   /* W */
    bool wait;  /* Z */
    bool stale; /* X */
    uint32_t client_flags;
    uint64_t cas;
    int64_t ttl;       /* -1: none */
    size_t value_len;  /* META_VA */
    struct span value; /* META_VA, once it is whole: value_len bytes, with "\r\n" behind them */
    struct span text;
};

/* Parses one reply from data[0..len). META_MORE: *need is how many bytes the reply has in all, as far as that is known, else 0. */
enum meta_result meta_parse(const char *data, size_t len, size_t max_value, struct meta_reply *out, size_t *consumed, size_t *need);

#endif
