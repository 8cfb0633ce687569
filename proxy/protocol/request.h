/* What:    one client request, whatever protocol it came in: the codecs' output, the cache's input.
 * Owns:    nothing; the key points into the input it was parsed from, and must be copied before that goes.
 * Threads: any.
 *
 * A classic multi-get is several requests, one for each key; FIRST and LAST mark the group, so that its reply can be closed.
 *
 * Requests are spoken in the vocabulary of the meta commands, which every other protocol's can be said in: `with` says what is wanted back and
 * which of the fields mean something.
 */
#ifndef PROXY_PROTOCOL_REQUEST_H
#define PROXY_PROTOCOL_REQUEST_H

#include "common/base.h"

enum op {
    OP_GET,
    OP_GAT,
    OP_SET, /* with META_CAS: cas */
    OP_ADD,
    OP_REPLACE,
    OP_APPEND,
    OP_PREPEND,
    OP_DELETE,
    OP_INCR,
    OP_DECR,
    OP_TOUCH,
    OP_FLUSH_ALL,
    OP_VERSION,
    OP_STATS,
    OP_VERBOSITY,
    OP_QUIT,
    OP_NOOP,
    OP_DEBUG,     /* me */
    OP_SASL_LIST,
    OP_AUTH,      /* its value are the credentials: SASL PLAIN's, or "user password" of ASCII authentication */
    OP_NONE,      /* a bad request: only the error is to be rendered */
};

enum command {
#define X(name, word, op, shape, with) COMMAND_##name,
#include "proxy/protocol/commands.def"
#undef X
    COMMAND_COUNT
};

/* The commands' words, in the order of the enum. */
extern const char *const command_words[COMMAND_COUNT];

enum protocol { PROTOCOL_CLASSIC, PROTOCOL_META, PROTOCOL_BINARY };

/* What a request wants back, and which flags it carries; those with an argument take it from the field that is named. The letters are those
 * of memcached's meta commands. */
enum meta_flag {
    META_WANT_VALUE = 1 << 0,   /* v */
    META_WANT_FLAGS = 1 << 1,   /* f */
    META_WANT_CAS = 1 << 2,     /* c */
    META_WANT_TTL = 1 << 3,     /* t */
    META_CAS = 1 << 4,          /* C cas */
    META_VERSION = 1 << 5,      /* E version */
    META_TTL = 1 << 6,          /* T ttl */
    META_VIVIFY = 1 << 7,       /* N vivify_ttl */
    META_CLIENT_FLAGS = 1 << 8, /* F client_flags */
    META_INVALIDATE = 1 << 9,   /* I */
    META_DROP_VALUE = 1 << 10,  /* x */
    META_MODE = 1 << 11,        /* M mode */
    META_DELTA = 1 << 12,       /* D delta */
    META_WANT_HIT = 1 << 13,    /* h */
    META_WANT_LAST = 1 << 14,   /* l */
    META_WANT_SIZE = 1 << 15,   /* s */
    META_RECACHE = 1 << 16,     /* R recache_ttl */
    META_INITIAL = 1 << 17,     /* J initial */
    META_NO_BUMP = 1 << 18,     /* u */
    META_ORDERED = 1 << 19,     /* t T N R stand in another order than META_ORDER_USUAL: ttl_order */
};

#define META_ORDER_USUAL "tTNR" /* of those flags whose order matters: each sees what those before it did to the entry */
#define META_ORDER_MAX 4

#define ECHO_LETTERS_MAX 16 /* a flag may stand in a line once, and this many are ever returned */
#define OPAQUE_MAX 32       /* bytes of a meta opaque with its letter, memcached's limit */

/* What a codec must remember of a request to render its reply; nobody else looks in here. */
struct echo {
    uint8_t opcode;       /* binary */
    uint32_t opaque;      /* binary, as it came */
    uint8_t letter_count; /* meta: the return flags, in the order they were asked for */
    uint8_t text_len;     /* meta: the opaque */
    bool is_base64;       /* meta: the key came, and goes back, in base64 */
    char letters[ECHO_LETTERS_MAX];
    char text[OPAQUE_MAX];
};

struct request {
    enum command command;
    enum op op;
    uint32_t with; /* enum meta_flag */
    uint8_t protocol;
    bool noreply;  /* the client wants no reply, not even an error: it would take it for the answer to its next request */
    bool is_quiet; /* meta and binary: the usual answer is not sent; which one that is the codec knows */
    bool is_first; /* of a group of keys */
    bool is_last;
    bool has_value;     /* value_len bytes follow in the stream, and value_tail behind them */
    uint8_t value_tail; /* 2: "\r\n", 0 in the binary protocol */
    uint32_t flags;     /* client flags of a stored value */
    int64_t exptime;    /* as the client sent it: 0 none, ≤ 30 days relative, else absolute; negative: at once. flush_all: delay */
    uint64_t cas;       /* META_CAS: what the entry must have */
    uint64_t delta;     /* incr, decr */
    size_t value_len;
    struct span key; /* 1..250 bytes; in the binary protocol and in base64 any bytes, else none ≤ ' ' but control characters; stats: the
                      * argument, may be empty */
    /* From here on only with PROTOCOL_META and PROTOCOL_BINARY: a classic request neither sets nor copies it. */
    uint64_t version;    /* META_VERSION: chosen by the client */
    uint64_t initial;    /* META_INITIAL */
    int64_t vivify_ttl;  /* META_VIVIFY */
    int64_t recache_ttl; /* META_RECACHE */
    char ttl_order[META_ORDER_MAX]; /* META_ORDERED: letters, then 0 */
    struct echo echo;
};

#define REQUEST_CLASSIC_SIZE offsetof(struct request, version)
#define REQUEST_META_SIZE offsetof(struct request, echo.letters) /* what must be cleared; echo says how much of the rest there is */

/* What a codec says to a client's bytes. */
enum parse_result {
    PARSE_REQUEST, /* *out is a request; for one with has_value, value_len + value_tail bytes follow what was consumed */
    PARSE_MORE,    /* not a whole request yet */
    PARSE_ERROR,   /* *error is to be answered to *out, unless it is empty (noreply); the connection goes on */
    PARSE_CLOSE,   /* what memcached would hang up on; *error, unless empty, is answered to *out first */
};

#endif
