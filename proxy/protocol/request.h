/* What:    one client request, whatever protocol it came in: the codecs' output, the cache's input.
 * Owns:    nothing; the key points into the input it was parsed from, and must be copied before that goes.
 * Threads: any.
 *
 * A multi-get is several requests, one for each key; FIRST and LAST mark the group, so that its reply can be closed.
 */
#ifndef PROXY_PROTOCOL_REQUEST_H
#define PROXY_PROTOCOL_REQUEST_H

#include "common/base.h"

enum op {
    OP_GET,
    OP_GAT,
    OP_SET,
    OP_ADD,
    OP_REPLACE,
    OP_APPEND,
    OP_PREPEND,
    OP_CAS,
    OP_DELETE,
    OP_INCR,
    OP_DECR,
    OP_TOUCH,
    OP_FLUSH_ALL,
    OP_VERSION,
    OP_STATS,
    OP_VERBOSITY,
    OP_QUIT,
};

enum command {
#define X(name, word, op, shape, with_cas) COMMAND_##name,
#include "proxy/protocol/commands.def"
#undef X
    COMMAND_COUNT
};

/* The commands' words, in the order of the enum. */
extern const char *const command_words[COMMAND_COUNT];

struct request {
    enum command command;
    enum op op;
    bool with_cas;  /* the client wants the CAS unique */
    bool noreply;   /* the client wants no reply, not even an error: it would take it for the answer to its next request */
    bool is_first;  /* of a group of keys */
    bool is_last;
    bool has_value; /* value_len bytes and "\r\n" follow in the stream */
    uint32_t flags; /* client flags of a stored value */
    int64_t exptime; /* as the client sent it: 0 none, ≤ 30 days relative, else absolute; negative: at once. flush_all: delay */
    uint64_t cas;    /* cas: the unique; incr, decr: the delta */
    size_t value_len;
    struct span key; /* 1..250 bytes without spaces or newlines; stats: the argument, may be empty */
};

#endif
