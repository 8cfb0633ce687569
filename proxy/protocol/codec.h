/* What:    the protocols that clients speak, behind one pair of functions: which one it is shows in the first byte, as with memcached.
 * Owns:    nothing; a struct codec is a client's state, part of its session.
 * Threads: one at a time; pure, no I/O.
 *
 *   first byte 0x80 ─▶ binary, for the rest of the connection            (binary.c)
 *   anything else   ─▶ text: classic commands (classic.c) and meta commands (metacmd.c), mixed as the client likes
 */
#ifndef PROXY_PROTOCOL_CODEC_H
#define PROXY_PROTOCOL_CODEC_H

#include "proxy/protocol/binary.h"
#include "proxy/protocol/classic.h"

struct codec {
    bool is_decided;
    bool is_binary;
    struct classic classic;
    struct binary binary;
};

void codec_init(struct codec *codec);

/* As classic_parse(). */
enum parse_result codec_parse(struct codec *codec, const char *data, size_t len, size_t *consumed, struct request *out, struct span *error);

/* As classic_render(). */
enum err codec_render(struct codec *codec, const struct request *request, const struct reply *reply, struct chain *out);

/* Bytes that are to be skipped before the next request: what follows a command whose line was bad. Asked after PARSE_ERROR; it is 0 then. */
size_t codec_swallow(struct codec *codec);

#endif
