/* What:    the text protocol: the classic commands and the framing of all: bytes to requests, replies to bytes, to the letter of memcached 1.6.38.
 * Owns:    nothing; a struct classic is a client's state, part of its session.
 * Threads: one at a time; pure, no I/O.
 * Fails:   bad input is an ordinary result (PARSE_ERROR, PARSE_CLOSE); rendering fails with ERR_NOMEM only.
 * Source:  memcached 1.6.38 doc/protocol.txt and its behaviour, compared in tests/e2e/test_classic_differential.py.
 *
 * The words of the meta commands are metacmd.c's.
 *
 *   get a b\r\n              ->  REQUEST get a (first): consumes "get a "
 *                              REQUEST get b (last): consumes "b\r\n"
 *   set k 0 0 2\r\nhi\r\n    ->  REQUEST set k, value_len 2: consumes the line, the session takes "hi\r\n"
 *
 * The session reads value_len bytes and CLASSIC_VALUE_END. If something else stands there, it answers REPLY_BAD_CHUNK and goes on
 * behind those value_len + 2 bytes. To a value that it can not take it answers REPLY_TOO_LARGE or REPLY_NO_MEMORY at once, and
 * skips value_len + 2 bytes, whatever they are (and a `set` that is too large deletes the key, lest the old value be served).
 * None of these is sent to a request with `noreply`.
 */
#ifndef PROXY_PROTOCOL_CLASSIC_H
#define PROXY_PROTOCOL_CLASSIC_H

#include "common/buffer.h"
#include "proxy/protocol/metacmd.h"
#include "proxy/protocol/reply.h"
#include "proxy/protocol/request.h"

#define CLASSIC_LINE_MAX (1U << 20) /* of a multi-get (get, gets) */
#define CLASSIC_LINE_WAIT 2048      /* of other lines: with more than this and no newline yet memcached hangs up */

struct classic {
    size_t scanned; /* so many bytes of the input at hand are known to hold no newline */
    size_t swallow; /* after PARSE_ERROR: so many bytes of a value follow, to be skipped; whoever does sets it to 0 */
    /* The multi-get being parsed: its line is known to be whole and good, its keys are handed out one by one. */
    bool in_keys;
    bool at_first;
    enum command command;
    int64_t exptime;  /* gat */
    size_t keys_left; /* bytes of the line that hold keys and spaces, and what is behind them up to the next line */
    size_t line_tail;
    /* The group being rendered. */
    uint32_t answered;
    uint32_t failed;
    size_t error_len; /* of the group's first failure */
    char error[192];
    char key[METACMD_KEY_MAX]; /* of the last request, when it came in base64 */
};

void classic_init(struct classic *classic);

/* Parses one request from data[0..len): *consumed says how far it went. Input that is not consumed must be handed in again, at
 * any address, with more behind it. */
enum parse_result classic_parse(struct classic *classic, const char *data, size_t len, size_t *consumed, struct request *out,
                                  struct span *error);

#define CLASSIC_VALUE_END "\r\n" /* what a value must end with */

/* The line, without its end, for a status that is an error by itself; empty for the others. The meta commands have the same. */
struct span classic_error_text(const struct reply *reply);

/* Appends the reply. Replies must be rendered in the order of their requests. `request` needs command, op, with, protocol, noreply,
 * is_first, is_last and key; a meta one is_quiet and echo, too. In a group the hits are answered and failures are misses, unless every key failed: then the first
 * failure is the answer. After ERR_NOMEM a part of the reply may be in `out`: the connection must be closed. */
enum err classic_render(struct classic *classic, const struct request *request, const struct reply *reply, struct chain *out);

#endif
