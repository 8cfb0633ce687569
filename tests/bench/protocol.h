/* What:    the seam between the load generator and a client protocol: requests to bytes, bytes of replies to progress.
 *          classic.c, meta.c and binary.c hold one table each (meta.c two: with an opaque, and bare); values.c is what they share.
 * Owns:    nothing.
 * Threads: any; pure, no I/O.
 * Fails:   bytes that are no reply to the request set `broken`.
 */
#ifndef BENCH_PROTOCOL_H
#define BENCH_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEY_TAIL 8 /* the last bytes of a key: its number in decimal digits */
#define KEY_MAX 250

/* What all keys and values of a run look like. */
struct shape {
    const char *prefix;
    size_t key_size;
    size_t value_size;
    const char *value; /* and "\r\n" behind it */
    bool check_all;    /* compare whole values, not only their ends */
    char header[48];   /* the protocol's: what all hits have in common in front of their values */
    size_t header_len;
    size_t body_len; /* the protocol's: of the value as it is sent, with its line end if it has one */
};

void shape_key(const struct shape *shape, uint32_t number, char *out); /* key_size bytes */

enum request_kind { REQUEST_GET, REQUEST_SET };

/* A pre-built request. A SET's bytes are followed by the body that all SETs share. */
struct request {
    const char *text;
    uint32_t len;
    uint32_t keys;
    uint64_t tails; /* the keys' last 8 bytes, xor-ed: tells their values apart in any order */
    enum request_kind kind;
};

/* How far the reply to one request has been read. All zero to begin with. */
struct reply {
    bool done;
    bool failed; /* with an error, left in text; done is set as well once all of the reply has been read */
    bool stored; /* done: a SET was stored */
    bool broken; /* the connection is of no use any more */
    uint32_t values;
    uint64_t tails;
    size_t body_left; /* of a value that came in pieces */
    const char *text; /* failed, broken: the bytes in question, in data or static */
    size_t text_len;
};

struct protocol {
    const char *name;
    void (*prepare)(struct shape *shape); /* once, before anything else */
    size_t (*write_get)(const struct shape *shape, const uint32_t *numbers, size_t n, char *out); /* one key or several */
    size_t (*write_set)(const struct shape *shape, uint32_t number, char *out); /* without the body: value[0..body_len) */
    /* Takes what it can of data[0..len) for this reply and returns how much that was; stops when it is done. */
    size_t (*read)(const struct shape *shape, const struct request *request, struct reply *reply, const char *data, size_t len);
};

extern const struct protocol protocol_classic;
extern const struct protocol protocol_meta;
extern const struct protocol protocol_meta_bare;
extern const struct protocol protocol_binary;

const struct protocol *protocol_find(const char *name); /* NULL: no such protocol */

#endif
