/* What:    the meta protocol as spoken to nodes: requests to bytes, bytes to replies.
 * Owns:    nothing; a reply's spans point into the input.
 * Threads: any; pure, no I/O.
 * Fails:   writing with ERR_NOMEM, or ERR_INVALID for a key that can not be sent; a node's bytes that are no reply are META_BAD.
 * Source:  memcached 1.6.38 doc/protocol.txt, "Meta Commands".
 */
#ifndef PROXY_PROTOCOL_META_H
#define PROXY_PROTOCOL_META_H

#include "common/buffer.h"
#include "proxy/protocol/request.h"

enum meta_command { META_GET, META_SET, META_DELETE, META_ARITHMETIC, META_DEBUG };

struct meta_request {
    enum meta_command command;
    uint32_t with; /* enum meta_flag */
    struct span key;
    uint64_t cas;
    uint64_t version;
    int64_t ttl;
    int64_t vivify_ttl;
    int64_t recache_ttl;
    uint64_t initial;
    uint32_t client_flags;
    char mode;
    char ttl_order[META_ORDER_MAX]; /* META_ORDERED */
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
    META_STAT,     /* classic STAT, one of several lines: text is what follows the word */
    META_END,      /* classic END, behind them */
    META_DEBUG_IS, /* ME: text is the whole line */
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
    bool was_hit;
    int64_t last_access_s;
    uint64_t size;
    size_t value_len;  /* META_VA */
    struct span value; /* META_VA, once it is whole: value_len bytes, with "\r\n" behind them */
    struct span text;
};

/* Parses one reply from data[0..len). META_MORE: *need is how many bytes the reply has in all, as far as that is known, else 0. */
enum meta_result meta_parse(const char *data, size_t len, size_t max_value, struct meta_reply *out, size_t *consumed, size_t *need);

#endif
