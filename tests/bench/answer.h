/* What:    what the scripted node answers: every key is there, with the one value of value.h; whatever is stored is thrown away.
 *          Knows the classic commands that twemproxy sends on and the meta commands that Outrigger sends to nodes.
 * Owns:    nothing; struct answer_value's block until answer_value_deinit().
 * Threads: any; pure, no I/O.
 * Fails:   a command that it does not know is answered ERROR.
 */
#ifndef BENCH_ANSWER_H
#define BENCH_ANSWER_H

#include "common/base.h"
#include "tests/bench/bytes.h"

#define ANSWER_VERSION "1.6.38"

struct answer_value {
    char *block; /* the value and "\r\n" */
    size_t block_len;
    size_t size;
    uint64_t cas;
    char header[48]; /* classic: " 0 1024\r\n" */
    size_t header_len;
};

/* A connection's place in its requests. All zero to begin with. */
struct answer_state {
    size_t discard;  /* bytes of a SET's data still to come */
    char held[4096]; /* the answer to that SET */
    size_t held_len;
    bool is_quit;
};

void answer_value_init(struct answer_value *value, size_t size, uint64_t cas);
void answer_value_deinit(struct answer_value *value);

/* Answers the whole requests in data[0..len) until out holds out_limit bytes; returns how many bytes of data it took. */
size_t answer_requests(const struct answer_value *value, struct answer_state *state, const char *data, size_t len, size_t out_limit,
                       struct bytes *out);

/* One command line without its line end; a storage command sets state->discard and leaves its answer in state->held. */
bool answer_classic(const struct answer_value *value, struct answer_state *state, struct span line, struct bytes *out);
bool answer_meta(const struct answer_value *value, struct answer_state *state, struct span line, struct bytes *out);

/* The next word of the line; empty at its end. */
static inline struct span answer_word(struct span *line)
{
    while (line->len > 0 && *line->data == ' ') {
        line->data++;
        line->len--;
    }
    const char *space = memchr(line->data, ' ', line->len);
    struct span word = {line->data, space == NULL ? line->len : (size_t)(space - line->data)};
    line->data += word.len;
    line->len -= word.len;
    return word;
}

static inline uint64_t answer_number(struct span word)
{
    uint64_t n = 0;
    for (size_t i = 0; i < word.len && word.data[i] >= '0' && word.data[i] <= '9'; i++)
        n = n * 10 + (uint64_t)(word.data[i] - '0');
    return n;
}

#define APPEND_LITERAL(out, text) bytes_append(out, text, sizeof(text) - 1)

#endif
