#include "tests/bench/answer.h"

#include "tests/bench/value.h"

void answer_value_init(struct answer_value *value, size_t size, uint64_t cas)
{
    *value = (struct answer_value){.size = size, .cas = cas, .block_len = size + 2};
    value->block = malloc(size + 2);
    if (value->block == NULL)
        abort();
    value_fill(value->block, size);
    memcpy(value->block + size, "\r\n", 2);
    value->header_len = (size_t)snprintf(value->header, sizeof(value->header), " 0 %zu\r\n", size);
}

void answer_value_deinit(struct answer_value *value)
{
    free(value->block);
    *value = (struct answer_value){0};
}

/* Skips a SET's data; its answer is due when all of it has come. */
static size_t discard(struct answer_state *state, size_t len, struct bytes *out)
{
    size_t n = MIN(state->discard, len);
    state->discard -= n;
    if (state->discard == 0) {
        bytes_append(out, state->held, state->held_len);
        state->held_len = 0;
    }
    return n;
}

size_t answer_requests(const struct answer_value *value, struct answer_state *state, const char *data, size_t len, size_t out_limit,
                       struct bytes *out)
{
    size_t at = 0;
    while (at < len && out->len < out_limit && !state->is_quit) {
        if (state->discard > 0) {
            at += discard(state, len - at, out);
            continue;
        }
        const char *newline = memchr(data + at, '\n', len - at);
        if (newline == NULL)
            break;
        struct span line = {data + at, (size_t)(newline - data) - at};
        at = (size_t)(newline - data) + 1;
        if (line.len > 0 && line.data[line.len - 1] == '\r')
            line.len--;
        bool is_meta = line.len >= 2 && line.data[0] == 'm' && (line.len == 2 || line.data[2] == ' ');
        if (!(is_meta ? answer_meta : answer_classic)(value, state, line, out))
            APPEND_LITERAL(out, "ERROR\r\n");
    }
    return at;
}
