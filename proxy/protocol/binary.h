/* What:    the binary protocol: packets to requests, replies to packets, to the letter of memcached 1.6.38.
 * Owns:    nothing; a struct binary is a client's state, part of its session.
 * Threads: one at a time; pure, no I/O.
 * Fails:   bad input is an ordinary result (PARSE_ERROR, PARSE_CLOSE); rendering fails with ERR_NOMEM only.
 * Source:  memcached 1.6.38's behaviour; what differs is in docs/protocols.md.
 *
 *   ┌──────┬────────┬─────────┬────────────┬──────┬─────────────────┬──────────┬────────┬─────┐
 *   │ 0x80 │ opcode │ key_len │ extras_len │ type │ reserved/status │ body_len │ opaque │ cas │ 24 bytes, big-endian; a reply: 0x81
 *   └──────┴────────┴─────────┴────────────┴──────┴─────────────────┴──────────┴────────┴─────┘
 *   body: extras (extras_len), key (key_len), value (the rest)
 *
 * Header, extras and key are parsed together; a value (has_value, with nothing behind it) is then taken by the session.
 */
#ifndef PROXY_PROTOCOL_BINARY_H
#define PROXY_PROTOCOL_BINARY_H

#include "common/buffer.h"
#include "proxy/protocol/reply.h"
#include "proxy/protocol/request.h"

#define BINARY_REQUEST 0x80 /* a packet's first byte */
#define BINARY_REPLY 0x81

enum opcode {
#define X(name, code, command, op, shape, is_quiet, with) OPCODE_##name = code,
#include "proxy/protocol/opcodes.def"
#undef X
    OPCODE_COUNT = 256
};

enum binary_status {
    BINARY_SUCCESS = 0x00,
    BINARY_NOT_FOUND = 0x01,
    BINARY_EXISTS = 0x02,
    BINARY_TOO_LARGE = 0x03,
    BINARY_INVALID = 0x04,
    BINARY_NOT_STORED = 0x05,
    BINARY_NON_NUMERIC = 0x06,
    BINARY_AUTH_ERROR = 0x20,
    BINARY_UNKNOWN_COMMAND = 0x81,
    BINARY_NO_MEMORY = 0x82,
    BINARY_TEMPORARY_FAILURE = 0x86, /* not memcached's, but the protocol's: what the text protocols say with SERVER_ERROR */
};

struct binary {
    size_t swallow; /* after PARSE_ERROR: so many bytes follow, to be skipped; whoever does sets it to 0 */
};

void binary_init(struct binary *binary);

/* As classic_parse(). */
enum parse_result binary_parse(struct binary *binary, const char *data, size_t len, size_t *consumed, struct request *out, struct span *error);

/* As classic_render(); of the request it needs op, is_quiet, key and echo. A quiet get says nothing of a miss, what else is quiet nothing of its
 * success; errors are always told. */
enum err binary_render(const struct request *request, const struct reply *reply, struct chain *out);

#endif
