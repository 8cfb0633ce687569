/* What:    an HTTP response, from the bytes that came so far: status, headers, body.
 * Owns:    nothing; the spans point into the bytes.
 * Threads: any; pure, no I/O.
 *
 * Requests say HTTP/1.0, so that a body is as long as Content-Length says, or all that comes; chunked ones are RESPONSE_BAD.
 */
#ifndef CTL_RESPONSE_H
#define CTL_RESPONSE_H

#include "common/base.h"

enum response_state {
    RESPONSE_MORE, /* not a whole one yet */
    RESPONSE_WHOLE,
    RESPONSE_BAD,
};

#define RESPONSE_HEAD_MAX 65536
#define RESPONSE_BODY_MAX (256UL << 20)

struct response {
    unsigned status;
    struct span headers; /* lines, each with its end */
    struct span body;
};

/* `is_end`: no more will come. */
enum response_state response_parse(struct span data, bool is_end, struct response *out);

/* The first header of this name, without the spaces around it. */
bool response_header(const struct response *response, const char *name, struct span *out);

#endif
