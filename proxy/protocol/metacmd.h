/* What:    the meta commands as clients speak them: the words of a line to a request, replies to bytes, to the letter of memcached 1.6.38.
 * Owns:    nothing.
 * Threads: one at a time; pure, no I/O.
 * Fails:   bad input is an ordinary result (PARSE_ERROR); rendering fails with ERR_NOMEM only.
 * Source:  memcached 1.6.38 doc/protocol.txt, "Meta Commands", and its behaviour, compared in tests/e2e/test_meta.py.
 *
 *   mg k v t Oab\r\n         ->  REQUEST get k, with v and t; O and t are kept to be returned
 *   ms Zm9v 2 b q\r\nhi\r\n  ->  REQUEST set "foo", value_len 2, quiet
 *
 * Framing is classic.c's. A node is never asked for q, k, O and b, as we know them ourselves.
 */
#ifndef PROXY_PROTOCOL_METACMD_H
#define PROXY_PROTOCOL_METACMD_H

#include "common/buffer.h"
#include "proxy/protocol/reply.h"
#include "proxy/protocol/request.h"

#define METACMD_KEY_MAX 188 /* what 250 digits of base64 can hold */

/* The meta command of that name, or COMMAND_COUNT. */
enum command metacmd_find(struct span word);

/* Parses what is behind the command's word. A key in base64 is decoded into `key`, of METACMD_KEY_MAX bytes. After PARSE_ERROR *swallow bytes of a
 * value follow, which are to be skipped. */
enum parse_result metacmd_parse(enum command command, struct span rest, char *key, struct request *out, struct span *error, size_t *swallow);

/* The straight way of what most lines are: "mg KEY" and flags without numbers. False: it is something else, or not whole. */
bool metacmd_parse_get(const char *data, size_t len, size_t *consumed, struct request *out);

/* Appends the reply to a request that one of these has parsed. After ERR_NOMEM a part of it may be in `out`. */
enum err metacmd_render(const struct request *request, const struct reply *reply, struct chain *out);

#endif
