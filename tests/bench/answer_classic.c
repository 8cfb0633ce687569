/* What: the scripted node's classic commands. */
#include "tests/bench/answer.h"

static void answer_get(const struct answer_value *value, struct span keys, bool with_cas, struct bytes *out)
{
    for (struct span key = answer_word(&keys); key.len > 0; key = answer_word(&keys)) {
        bytes_reserve(out, out->len + key.len + value->block_len + 64);
        char *p = out->data + out->len;
        memcpy(p, "VALUE ", 6);
        memcpy(p + 6, key.data, key.len);
        p += 6 + key.len;
        if (with_cas) {
            p += sprintf(p, " 0 %zu %lu\r\n", value->size, (unsigned long)value->cas);
        } else {
            memcpy(p, value->header, value->header_len);
            p += value->header_len;
        }
        memcpy(p, value->block, value->block_len);
        out->len = (size_t)(p - out->data) + value->block_len;
    }
    APPEND_LITERAL(out, "END\r\n");
}

static bool is_silent(struct span line)
{
    static const char word[] = " noreply";
    size_t len = sizeof(word) - 1;
    return line.len >= len && memcmp(line.data + line.len - len, word, len) == 0;
}

/* set KEY FLAGS EXPIRY LENGTH [CAS] [noreply] */
static void start_storing(struct answer_state *state, struct span arguments)
{
    bool silent = is_silent(arguments);
    for (int i = 0; i < 3; i++)
        answer_word(&arguments);
    state->discard = answer_number(answer_word(&arguments)) + 2;
    state->held_len = silent ? 0 : 8;
    memcpy(state->held, "STORED\r\n", 8);
}

static bool is_word(struct span word, const char *text)
{
    return span_eq(word, span_str(text));
}

static const struct fixed {
    const char *command;
    const char *answer;
} fixed[] = {
    {"delete", "DELETED\r\n"}, {"touch", "TOUCHED\r\n"}, {"incr", "1\r\n"},      {"decr", "1\r\n"},
    {"flush_all", "OK\r\n"},   {"verbosity", "OK\r\n"},  {"stats", "END\r\n"},   {"version", "VERSION " ANSWER_VERSION "\r\n"},
};

bool answer_classic(const struct answer_value *value, struct answer_state *state, struct span line, struct bytes *out)
{
    struct span command = answer_word(&line);
    if (is_word(command, "get")) {
        answer_get(value, line, false, out);
        return true;
    }
    if (is_word(command, "gets")) {
        answer_get(value, line, true, out);
        return true;
    }
    if (is_word(command, "gat") || is_word(command, "gats")) {
        answer_word(&line); /* the expiry */
        answer_get(value, line, command.len == 4, out);
        return true;
    }
    static const char *const storing[] = {"set", "add", "replace", "append", "prepend", "cas"};
    for (size_t i = 0; i < ARRAY_LEN(storing); i++) {
        if (is_word(command, storing[i])) {
            start_storing(state, line);
            return true;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++) {
        if (is_word(command, fixed[i].command)) {
            if (!is_silent(line))
                bytes_append(out, fixed[i].answer, strlen(fixed[i].answer));
            return true;
        }
    }
    state->is_quit = is_word(command, "quit");
    return state->is_quit;
}
